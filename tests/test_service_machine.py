"""The driver's decisions over the real ledger, in any order, through kills, twins, lost replies and wrong clocks.

A small model beside it says what must be: which attempt of each unit is the present one, and what is settled.
Everything else is the real thing: ledger, lease, workload, tree, fair share, retry policy. `Hand` only calls them in
the order in which the driver does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from binworks.processors import registry
from binworks.processors.dataset import Dataset
from binworks.service import database as tables
from binworks.service import fairshare, plan
from binworks.service.database import Database
from binworks.service.fairshare import UNITS_PER_THREAD, Share
from binworks.service.jobs import Jobs
from binworks.service.lease import LeaseLostError
from binworks.service.ledger import Ledger, Settled
from binworks.service.model import JobRequest, JobState, ResolvedJob, Skip, UnitState
from binworks.service.plan import Piece, Unit
from binworks.service.quotas import Limits
from binworks.service.retry import Kind, Policy, decide
from binworks.service.tasks import Failure, Receipt
from binworks.service.tree import FAN_IN
from binworks.service.units import Status
from binworks.service.work import Work, Workload, from_rows
from binworks.tensors.errors import ConflictError

LEASE = 10.0
CODE = registry.code_digest("w_mass")
INDEX = st.integers(0, 10**6)
COLUMNS = ("job", "unit", "dataset", "state", "token", "attempts", "failures", "kills", "partial", "digest")
ROWS = select(*[tables.units.c[name] for name in COLUMNS])
FAILING = st.sampled_from([None, None, None, "before", "after"])
OUTCOMES = {"finish": None, "finish another": None} | {
    f"{kind}": Failure(kind, f"it-{kind}", "It failed.") for kind in Kind
}
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "poll",
                "start",
                "start",
                "merge",
                "end",
                "renew",
                "worker dies",
                "late twin",
                *["finish"] * 8,
                *OUTCOMES,
            ]
        ),
        INDEX,
    ),
    min_size=6,
    max_size=24,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        return self.now


class Unreliable(Database):
    """A database that fails once when told to: before the commit, or after it, so that only the reply is lost."""

    failing: str | None = None

    @contextmanager
    def write(self) -> Iterator[Connection]:
        failing, self.failing = self.failing, None
        with super().write() as connection:
            yield connection
            if failing == "before":
                raise OperationalError("COMMIT", None, RuntimeError("lost before the commit"))
        if failing == "after":
            raise OperationalError("COMMIT", None, RuntimeError("the reply was lost"))


class OutOfStepError(Exception):
    """The ledger did not take what this driver thought to be so."""


@dataclass
class Hand:
    """A driver's decisions, one at a time."""

    name: str
    ledger: Ledger
    clock: Clock
    tokens: Iterator[int]
    workloads: dict[str, Workload] = field(default_factory=dict)
    skip: dict[str, bool] = field(default_factory=dict)
    created: dict[str, float] = field(default_factory=dict)
    flight: dict[str, tuple[str, Work]] = field(default_factory=dict)
    failed: dict[str, Failure] = field(default_factory=dict)

    def poll(self) -> None:
        """Take up jobs; end those that are to be cancelled."""
        for job, state in self.ledger.active():
            if state == JobState.CANCELLING:
                self.drop(job)
                self.ledger.move(job, JobState.CANCELLED, "asked for")
            elif job not in self.workloads:
                self._take_up(job)

    def _take_up(self, job: str) -> None:
        row, resolved = self.ledger.load(job)
        if row.state == JobState.QUEUED and not self.ledger.move(job, JobState.RUNNING, "taken up"):
            return
        if not row.planned:
            planned = units_of(resolved)
            names = [f"{job}-{unit.number}" for unit in planned]
            self.ledger.write_plan(job, planned, names, names, [], Limits())
        rows = self.ledger.units(job)
        workload = Workload([d.name for d in resolved.datasets], from_rows(rows, {}), self.ledger.sums(job))
        for unit in rows:
            if unit.state == UnitState.FAILED:  # the driver before had no time to end the job
                self.failed[job] = Failure(Kind.CODE, **unit.error)
        self.workloads[job] = workload
        self.created[job] = row.created
        self.skip[job] = isinstance(resolved.request.on_error, Skip)
        for work in workload.resumed:
            self.flight[str(work.status.token)] = (job, work)

    def drop(self, job: str) -> None:
        """Forget all of a job."""
        self.workloads.pop(job, None)
        self.failed.pop(job, None)
        self.flight = {token: entry for token, entry in self.flight.items() if entry[0] != job}

    def dispatch(self, threads: int) -> None:
        """Start units as workers come free."""
        now = self.clock()
        shares = [
            Share(job, "o", 0, self.created[job], len(workload.running), workload.waiting(now))
            for job, workload in self.workloads.items()
        ]
        for job in fairshare.choose(shares, threads):
            begun = self.workloads[job].begin([f"t{next(self.tokens)}"])
            if not self.ledger.start(job, [work.status for work in begun]):
                self.drop(job)
                return
            self.flight |= {str(work.status.token): (job, work) for work in begun}

    def outcome(self, token: str, outcome: Receipt | Failure | None) -> None:
        """Write down how an attempt ended."""
        job, work = self.flight.pop(token)
        status, after = work.status, None
        if isinstance(outcome, Receipt):
            after = status.finished(token)
        elif isinstance(outcome, Failure):
            policy = Policy(2, 1.0, self.skip[job])
            decision = decide(
                outcome.kind, status.failures, status.kills, policy, self.clock(), status.splits
            )
            after = status.failed(token, outcome.kind, decision)
        else:
            after = status.recalled()
        assert after is not None
        (taken,) = self.ledger.settle([Settled(job, token, after, work.dataset, outcome, "w")])
        if not taken:
            self.drop(job)  # as the driver does: look at the ledger anew
            raise OutOfStepError(job)
        self.workloads[job].end(after, outcome if isinstance(outcome, Receipt) else None)
        if after.state == UnitState.FAILED and isinstance(outcome, Failure):
            self.failed[job] = outcome

    def merge(self, job: str) -> None:
        """Sum one node that is ready."""
        for dataset, tree in self.workloads[job].trees.items():
            for node, names in list(tree.ready())[:1]:
                name = plan.merged_name(names)
                self.ledger.merged(job, dataset, node, name, receipt("merge"))
                tree.stored[node] = name

    def damage(self, job: str, which: int) -> tuple[str, int] | None:
        """Find a stored sum damaged: make a unit below it anew."""
        workload = self.workloads[job]
        stored = [entry for tree in workload.trees.values() for entry in tree.stored.items()]
        sums = [entry for entry in stored if entry[0][0]]
        names = sorted({name for _, name in (sums if sums and which % 2 else stored)})
        reopened = workload.reopen(names[which % len(names)]) if names else None
        if reopened is None:
            return None
        work, dropped = reopened
        self.ledger.reopen(job, work.dataset, work.status, dropped)
        return job, work.status.unit

    def end(self, job: str) -> None:
        """Bring a job to its end, if it is there."""
        workload = self.workloads[job]
        if job in self.failed:
            failure = self.failed[job]
            self.drop(job)
            self.ledger.move(job, JobState.FAILED, failure.code, failure)
        elif workload.settled:
            row, _ = self.ledger.load(job)
            if row.state == JobState.RUNNING and not self.ledger.move(job, JobState.FINALIZING, "settled"):
                self.drop(job)
                return
            self._publish(job, workload)
            if self.ledger.move(job, JobState.SUCCEEDED, "published"):
                self.drop(job)

    def _publish(self, job: str, workload: Workload) -> None:
        if self.ledger.has_final(job):
            return
        n = self.ledger.new_generation(job)
        done = workload.done()
        events = sum(work.events for work in done)
        facts = {"complete": len(done) == len(workload.works), "units": len(done), "events": events}
        self.ledger.publish(job, n, {**facts, "final": True, "fraction": 1.0, "bytes": 0, "seconds": 0.0})


def receipt(token: str) -> Receipt:
    """Return one that names its attempt."""
    return Receipt(f"by-{token}", {"entries": 0, "sum_sign": 1}, 8, 1.0, reused=False)


def units_of(resolved: ResolvedJob) -> list[Unit]:
    """Return a plan: each file is a unit; its path says how many events it has."""
    files = [(dataset.name, path) for dataset in resolved.datasets for path in dataset.files]
    return [
        Unit(i, name, (Piece(path, "u", 1, 0, int(path.rpartition("/")[2])),), i / len(files))
        for i, (name, path) in enumerate(files)
    ]


def root_of(names: list[str | None]) -> str | None:
    """Return the name of the sum of all, by its definition."""
    while len(names) > 1:
        groups = [
            [name for name in names[i : i + FAN_IN] if name is not None] for i in range(0, len(names), FAN_IN)
        ]
        names = [
            None if not group else group[0] if len(group) == 1 else plan.merged_name(tuple(group))
            for group in groups
        ]
    return names[0] if names else None


@dataclass
class Truth:
    """What must be so of a job, whoever writes."""

    events: list[int]
    present: dict[int, str] = field(default_factory=dict)
    done: dict[int, str] = field(default_factory=dict)
    given_up: set[int] = field(default_factory=set)
    ended: JobState | None = None

    def forget_attempts(self) -> None:
        self.present.clear()


class Service(RuleBasedStateMachine):
    """Users, drivers, workers and clocks; see the rules."""

    def __init__(self) -> None:
        super().__init__()
        self.database = Unreliable("sqlite://")
        self.database.create_tables()
        self.clock = Clock()
        self.jobs = Jobs(self.database, clock=self.clock)
        self.tokens = itertools.count()
        self.threads = 2
        self.truth: dict[str, Truth] = {}
        self.active: Hand | None = None
        self.old: list[Hand] = []
        self.drivers = itertools.count(1)
        self.fence = 0
        self.history: list[tuple[str, Status, str]] = []
        self.next_failure: str | None = None
        self.spoilt: set[str] = set()
        self._take_over()

    def teardown(self) -> None:
        try:
            self._every_job_ends()
        finally:
            self.database.close()

    # drivers

    def _new_hand(self) -> Hand:
        name = f"elsewhere:{next(self.drivers)}"
        return Hand(name, Ledger(self.database, self.clock), self.clock, self.tokens)

    def _take_over(self) -> bool:
        hand, taken = self._new_hand(), False
        lost = self.next_failure == "before"
        self.database.failing, self.next_failure = self.next_failure, None
        with suppress(OperationalError):
            taken = hand.ledger.take_over(hand.name, LEASE)
        held = self._lease()
        assert held.fence in (self.fence, self.fence + 1)
        assert lost or held.expires <= self.clock() + LEASE
        if held.fence > self.fence:
            self.fence = held.fence
            if self.active is not None:
                self.old.append(self.active)
            self.active = hand if taken else None  # nobody knows that it is his if the reply was lost
        return taken

    def _lease(self) -> Any:
        with self.database.read() as connection:
            return connection.execute(select(tables.lease)).one()

    def _do(self, act: Callable[[Hand], Any]) -> None:
        """Let the active driver do something; it ends, as the real one does, if the database fails meanwhile."""
        hand = self.active
        assert hand is not None
        self.database.failing, self.next_failure = self.next_failure, None
        try:
            with suppress(OutOfStepError):
                act(hand)
        except OperationalError:
            self.old.append(hand)
            self.active = None
            self._learn()
        else:
            self._learn()
        finally:
            self.next_failure, self.database.failing = self.database.failing, None

    def _learn(self) -> None:
        """Note what was begun: tokens never come again, so a token that is new in the ledger was written just now."""
        for row in self._rows():
            truth = self.truth[row.job]
            if row.state == UnitState.RUNNING and truth.present.get(row.unit) != row.token:
                assert row.unit not in truth.present, "an attempt began while another was under way"
                assert row.unit not in truth.done, "a unit that is done was begun again"
                truth.present[row.unit] = row.token
                status = Status(row.unit, UnitState.RUNNING, row.token, row.attempts, row.failures, row.kills)
                self.history.append((row.job, status, row.dataset))
        for job, state in self._states().items():
            truth = self.truth[job]
            if state.finished:
                assert truth.ended in (None, state)
                truth.ended = state
                truth.forget_attempts()

    def _rows(self) -> list[Any]:
        with self.database.read() as connection:
            return list(connection.execute(ROWS))

    def _states(self) -> dict[str, JobState]:
        with self.database.read() as connection:
            rows = connection.execute(select(tables.jobs.c.id, tables.jobs.c.state))
            return {row.id: JobState(row.state) for row in rows}

    def _settle(self, hand: Hand, token: str, outcome: Receipt | Failure | None) -> None:
        """Deliver an outcome, and note what must be so if it was written down."""
        job, work = hand.flight[token]
        unit, truth = work.status.unit, self.truth[job]
        lost = self.next_failure == "before"
        present = truth.present.get(unit) == token

        def deliver(hand: Hand) -> None:
            try:
                hand.outcome(token, outcome)
            except OutOfStepError:
                assert not present
                raise
            assert present

        after: UnitState | None = None
        if present and not lost:
            del truth.present[unit]
            if isinstance(outcome, Receipt):
                truth.done[unit], after = token, UnitState.DONE
        self._do(deliver)
        row = next(row for row in self._rows() if (row.job, row.unit) == (job, unit))
        if after is not None:
            assert row.state == after
        elif present and not lost and row.state in (UnitState.SKIPPED, UnitState.FAILED):
            truth.given_up.add(unit)

    # what may happen

    @initialize(
        sizes=st.lists(st.integers(1, 9), min_size=2, max_size=20),
        more=st.lists(st.integers(1, 9), max_size=3),
        skip=st.booleans(),
    )
    def there_is_a_job(self, sizes: list[int], more: list[int], skip: bool) -> None:
        self._submit(sizes, more, skip=skip)
        self._do(Hand.poll)

    @rule(
        what=st.sampled_from(["submit", "submit", "retry", "retry", "look", "look", "cancel"]),
        which=INDEX,
        sizes=st.lists(st.integers(1, 9), min_size=1, max_size=10),
    )
    def users_act(self, what: str, which: int, sizes: list[int]) -> None:
        job = list(self.truth)[which % len(self.truth)]
        if what == "submit" and len(self.truth) < 3:
            self._submit(sizes, [], skip=bool(which % 2))
        elif what == "cancel":
            self.jobs.cancel(job)
        elif what == "retry":
            self._retry(job)
        else:
            self._look()

    def _submit(self, sizes: list[int], more: list[int], *, skip: bool) -> None:
        datasets = [
            Dataset(name=name, files=tuple(f"/{name}{i}/{events}" for i, events in enumerate(counts)))
            for name, counts in (("A", sizes), ("B", more))
            if counts
        ]
        request = JobRequest(
            processor="w_mass", datasets=list(datasets), on_error=Skip(skip=1.0) if skip else "fail"
        )
        resolved = ResolvedJob(
            request=request,
            datasets=tuple(datasets),
            options={},
            systematics=(),
            corrections=None,
            corrections_digest=None,
            luminosity=None,
            code=CODE,
            unit_events=10,
        )
        self.clock.now += 0.001 * (len(self.truth) + 1)  # no two are of the same time, whatever is set
        job = self.jobs.create(resolved, "me")[0].id
        self.truth[job] = Truth([*sizes, *more])

    @rule(killed=st.booleans(), later=st.sampled_from([0.0, LEASE / 2, LEASE]), failing=FAILING)
    def drivers_change(self, killed: bool, later: float, failing: str | None) -> None:
        """Another may take over only if the time of the one before is over, by their clock."""
        if killed and self.active is not None:
            self.old.append(self.active)
            self.active = None
        self.clock.now += later
        self.next_failure = failing
        expired = self._lease().expires <= self.clock()
        assert self._take_over() == (expired and failing is None)

    @precondition(lambda self: self.active is not None)
    @rule(steps=STEPS, failing=FAILING, when=st.integers(0, 7))
    def the_driver_works(self, steps: list[tuple[str, int]], failing: str | None, when: int) -> None:
        """Sometimes the database fails meanwhile, which ends the driver."""
        for number, (step, which) in enumerate(steps):
            self.next_failure = failing if number == when else None
            if self.active is not None:
                self._step(self.active, step, which)
        self.next_failure = None

    @precondition(lambda self: self.active is not None)
    @rule(steps=STEPS)
    def the_driver_goes_on(self, steps: list[tuple[str, int]]) -> None:
        self.the_driver_works(steps, None, 0)

    @rule(steps=STEPS)
    def the_driver_or_the_next_one_goes_on(self, steps: list[tuple[str, int]]) -> None:
        if self.active is None:
            self.clock.now += LEASE
            self._take_over()
        self.the_driver_works(steps, None, 0)

    def _step(self, hand: Hand, step: str, which: int) -> None:
        flight, jobs = list(hand.flight), list(hand.workloads)
        if step == "renew":
            self._do(lambda hand: hand.ledger.renew(LEASE))
        elif step == "poll":
            self._do(Hand.poll)
        elif step == "start":
            self._dispatch()
        elif step == "late twin":
            self._late_twin(hand, which)
        elif step in OUTCOMES and flight:
            token = flight[which % len(flight)]
            self._settle(hand, token, OUTCOMES[step] or receipt(token))
            if self.active is hand:
                self._dispatch()
        elif step == "worker dies":
            for token in flight[which % (len(flight) or 1) :][:2]:  # two units were on it
                if self.active is hand and token in hand.flight:
                    self._settle(hand, token, None)
        elif step == "merge" and jobs:
            self._do(lambda hand: hand.merge(jobs[which % len(jobs)]))
        elif step == "end" and jobs:
            self._do(lambda hand: hand.end(jobs[which % len(jobs)]))

    def _dispatch(self) -> None:
        before = self._running()
        self._do(lambda hand: hand.dispatch(self.threads))
        assert self._running() <= max(before, UNITS_PER_THREAD * self.threads), "the window is overfilled"

    def _running(self) -> int:
        return sum(row.state == UnitState.RUNNING for row in self._rows())

    def _late_twin(self, hand: Hand, which: int) -> None:
        """An attempt that was given up delivers after all; best while another attempt of its unit is under way."""
        late = [entry for entry in self.history if self._present(entry) != entry[1].token]
        rivalled = [entry for entry in late if self._present(entry) is not None]
        if not late:
            return
        job, status, dataset = (rivalled or late)[which % len(rivalled or late)]
        after = status.finished(str(status.token))
        assert after is not None
        settled = Settled(job, str(status.token), after, dataset, receipt(str(status.token)), "late")
        assert hand.ledger.settle([settled]) == [False], "a late twin was taken"
        if status.unit in self.truth[job].done or rivalled:
            hand.ledger.start(job, [status])  # nor does it begin again what is done, or under way

    def _present(self, entry: tuple[str, Status, str]) -> str | None:
        return self.truth[entry[0]].present.get(entry[1].unit)

    @precondition(lambda self: self.old)
    @rule(which=INDEX, act=st.sampled_from(["start", "settle", "merge", "move", "renew", "publish"]))
    def a_driver_that_was_replaced_wakes_up(self, which: int, act: str) -> None:
        hand = self.old[which % len(self.old)]
        if hand.ledger.fence == self.fence or not self.truth:
            return  # nobody has taken its place yet
        job = list(self.truth)[which % len(self.truth)]
        begun = Status(0).started("stale")
        done = begun.finished("stale")
        assert done is not None
        acts: dict[str, Callable[[], Any]] = {
            "start": lambda: hand.ledger.start(job, [begun]),
            "settle": lambda: hand.ledger.settle([Settled(job, "stale", done, "A", receipt("stale"))]),
            "merge": lambda: hand.ledger.merged(job, "A", (1, 0), "stale", receipt("stale")),
            "move": lambda: hand.ledger.move(job, JobState.FAILED, "stale"),
            "renew": lambda: hand.ledger.renew(LEASE),
            "publish": lambda: hand.ledger.new_generation(job),
        }
        with pytest.raises(LeaseLostError):
            acts[act]()

    @rule(
        seconds=st.sampled_from([1.0, 11.0, 400.0, -5.0, -400.0, 90_000.0, -90_000.0]),
        threads=st.sampled_from([0, 1, 2, 2, 3]),
    )
    def time_passes(self, seconds: float, threads: int) -> None:
        """Clocks are set forth and back; workers come and go."""
        self.clock.now += seconds
        self.threads = threads

    @precondition(lambda self: self.active is not None and self.active.workloads)
    @rule(which=INDEX, stored=INDEX)
    def a_stored_sum_is_damaged(self, which: int, stored: int) -> None:
        self._damage(self._job(self._hand(), which), stored)

    def _damage(self, job: str, which: int) -> None:
        reopened = self._hand().damage(job, which)
        if reopened is not None:
            job, unit = reopened
            del self.truth[job].done[unit]

    def _retry(self, job: str) -> None:
        truth = self.truth[job]
        before = self._states()[job]
        incomplete = before == JobState.SUCCEEDED and len(truth.done) < len(truth.events)
        try:
            self.jobs.retry(job)
            taken = True
        except ConflictError:
            taken = False
        assert taken == (before == JobState.FAILED or incomplete or not before.finished)
        if taken and before.finished:
            truth.ended = None
            truth.given_up.clear()

    # what must be so

    def _hand(self) -> Hand:
        assert self.active is not None
        return self.active

    def _job(self, hand: Hand, which: int) -> str:
        return list(hand.workloads)[which % len(hand.workloads)]

    @invariant()
    def each_unit_counts_once_and_only_by_its_present_attempt(self) -> None:
        by_job: dict[str, list[Any]] = {job: [] for job in self.truth}
        for row in self._rows():
            by_job[row.job].append(row)
        for job, rows in by_job.items():
            truth = self.truth[job]
            assert sorted(row.unit for row in rows) in ([], list(range(len(truth.events))))
            assert {row.unit: row.token for row in rows if row.state == UnitState.DONE} == truth.done
            assert {row.unit: row.token for row in rows if row.state == UnitState.RUNNING} == truth.present
            assert {
                row.unit for row in rows if row.state in (UnitState.SKIPPED, UnitState.FAILED)
            } == truth.given_up
            assert all(row.digest == f"by-{row.token}" for row in rows if row.state == UnitState.DONE)

    def _look(self) -> None:
        """All they see is counted over the ledger."""
        for job, truth in self.truth.items():
            view = self.jobs.get(job)
            done = sum(truth.events[unit] for unit in truth.done)
            assert (view.counts.units.done, view.counts.events.done) == (len(truth.done), done)
            assert sum(dataset.sum_sign for dataset in view.datasets) == len(truth.done)
            assert view.counts.units.failed == len(truth.given_up)
            assert truth.ended in (None, view.state)

    def _every_job_ends(self) -> None:
        """Whatever happened: with a driver, workers and a database that answers, all jobs come to their ends."""
        self.next_failure = None
        self.threads = 2
        for _ in range(3):
            if self.active is None and not self._take_over():
                self.clock.now += LEASE / 2
        assert self.active is not None, "the lease of a dead driver was not given to another"
        self._go_on()
        for job, truth in self.truth.items():  # what lacks events is complete after another try
            if self._states()[job] != JobState.CANCELLED and len(truth.done) < len(truth.events):
                self._retry(job)
        self._go_on()
        for job, truth in self.truth.items():
            assert self._states()[job] == JobState.CANCELLED or len(truth.done) == len(truth.events)
            assert self.jobs.cancel(job).state == truth.ended

    def _go_on(self) -> None:
        for _ in range(60):
            if not self.jobs_left():
                break
            self._round()
        assert not self.jobs_left(), "a job does not get on"
        self.each_unit_counts_once_and_only_by_its_present_attempt()
        self._look()
        for job in self.truth:
            self._check_result(job)

    def jobs_left(self) -> bool:
        return not all(state.finished for state in self._states().values())

    def _round(self) -> None:
        self.clock.now += 301.0
        self._do(Hand.poll)
        self._do(lambda hand: hand.dispatch(self.threads))
        for token in list(self._hand().flight):
            if token in self._hand().flight:
                self._settle(self._hand(), token, receipt(token))
        for job in list(self._hand().workloads):
            self._do(lambda hand, job=job: hand.merge(job))  # type: ignore[misc]
            if job not in self.spoilt and Ledger(self.database).sums(job):
                self.spoilt.add(job)
                self._damage(job, 1)
            self._do(lambda hand, job=job: hand.end(job))  # type: ignore[misc]

    def _check_result(self, job: str) -> None:
        truth, view = self.truth[job], self.jobs.get(job)
        assert not truth.present
        if view.state != JobState.SUCCEEDED:
            return
        everything = set(range(len(truth.events)))
        assert everything == set(truth.done) | truth.given_up
        assert view.complete == (set(truth.done) == everything)
        sums = {(dataset, node): name for dataset, node, name in Ledger(self.database, self.clock).sums(job)}
        names: dict[str, list[str | None]] = {}
        for row in sorted((row for row in self._rows() if row.job == job), key=lambda row: row.unit):
            names.setdefault(row.dataset, []).append(row.partial if row.unit in truth.done else None)
        for dataset, leaves in names.items():
            if sum(name is not None for name in leaves) > 1:
                assert root_of(leaves) in {name for (of, _), name in sums.items() if of == dataset}


def test_whatever_happens_each_unit_counts_once_and_every_job_ends() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Service, settings=settings(max_examples=40, stateful_step_count=25, phases=[Phase.generate])
    )
