"""The conduct of one job, from its request to its last snapshot.

Every step may be cut short at any moment and be taken again by another driver: each first looks what is
there already.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import replace
from typing import Any

from binworks.processors.dataset import Dataset
from binworks.service import failures, layout, plan, replicas
from binworks.service.cluster import Key, LostError
from binworks.service.fairshare import Share
from binworks.service.indexing import index
from binworks.service.ledger import Settled
from binworks.service.model import JobState, ResolvedJob, Skip, UnitState
from binworks.service.publishing import Publisher
from binworks.service.quotas import Limits
from binworks.service.retry import WAITED_FOR, Kind, decide, lost_fraction
from binworks.service.rim import (
    BYSTANDER_LIMIT,
    OUT_OF_STEP,
    UNLUCKY,
    CancelledByUserError,
    JobFailedError,
    Rim,
    leaf,
    succeeded,
    token,
    within,
)
from binworks.service.tasks import Failure, FillUnit, Merge, Outcome, Prepare, Receipt, Recipe
from binworks.service.tree import Node
from binworks.service.units import Status
from binworks.service.work import Work, Workload, document_of, from_rows, sum_counts
from binworks.tensors.accumulator import KEPT_EXAMPLES, check_oddities
from binworks.tensors.errors import PhysicsError

PROGRESS_SECONDS = 1.0
MOST_REOPENED = 3
"""A stored sum that is damaged so often is not worth another try."""
SNAPSHOT_SHARE = 5.0
"""Snapshots take a fifth of the time at most: if one takes long, the next comes later."""

log = logging.getLogger(__name__)


class Conduct:
    """One job under way.

    Parameters
    ----------
    rim : Rim
        The world.
    job : str
        Its id.
    """

    def __init__(self, rim: Rim, job: str) -> None:
        self.rim = rim
        self.job = job
        self.changed = asyncio.Event()
        self.workload: Workload | None = None
        self.trouble: str | None = None
        """Why it does not get on, for its users."""
        self._merging: set[tuple[str, Node]] = set()
        self._reopened: Counter[str | None] = Counter()
        self._failure: Failure | None = None
        self._news = 0

    async def run(self) -> None:
        """Bring the job to its end.

        Raises
        ------
        JobFailedError
            If it cannot succeed.
        CancelledByUserError
            If it is to be cancelled.
        """
        row, resolved = await self.rim.call(self.rim.ledger.load, self.job)
        self._remember(row, resolved)
        if row.state == JobState.QUEUED:
            await self._move(JobState.RUNNING, "taken up")
        await self._prepare()
        if not row.planned:
            await self._plan()
        workload = await self._load()
        finished = False
        while not finished:
            await self._fill(workload)
            await asyncio.to_thread(self._check_oddities, workload)
            await self._move(JobState.FINALIZING, "all units are settled")
            finished = await self._publish(workload, final=True)
        await self._move(JobState.SUCCEEDED, "the last snapshot is published")

    def _remember(self, row: Any, resolved: ResolvedJob) -> None:
        self.resolved = resolved
        self.owner: str = row.owner
        self.reader = None if self.rim.settings.credentials is None else self.owner
        """Whose credential files on servers are read with."""
        self.priority: int = row.priority
        self.created: float = row.created
        self.state = JobState(row.state)
        self.skip = resolved.request.on_error.skip if isinstance(resolved.request.on_error, Skip) else None
        self.recipe = Recipe.of(resolved)
        self.publisher = Publisher(self.rim, self.job, resolved, self.recipe)

    async def _move(self, state: JobState, why: str) -> None:
        if self.state == JobState.FINALIZING and state == JobState.FINALIZING:
            return
        if not await self.rim.call(self.rim.ledger.move, self.job, state, why):
            raise CancelledByUserError
        self.state = state
        log.info("%s: %s", state, why, extra={"job": self.job})

    async def _prepare(self) -> None:
        document = {"job": self.job, **self.resolved.model_dump(mode="json")}
        await asyncio.to_thread(self.rim.store.create_json, layout.description(self.job), document)
        task = Prepare(self.rim.settings.store_url, self.job, self.recipe)
        outcome = await self.rim.task(task, "prepare", self.job, seconds=self.rim.settings.unit_timeout)
        succeeded(outcome, type(None))

    async def _plan(self) -> None:
        files = await index(
            self.rim, self.job, self.resolved.datasets, skip=self.skip is not None, owner=self.reader
        )
        units = plan.cut(files.readable, self.resolved.unit_events)
        recipes = {dataset.name: self._facts(dataset) for dataset in self.resolved.datasets}
        names = [plan.partial_name(recipes[unit.dataset], unit.pieces) for unit in units]
        bases = [plan.base_name(recipes[unit.dataset], unit.pieces) for unit in units]
        readable = sum(len(found) for found in files.readable.values())
        events = sum(unit.events for unit in units)
        if files.unreadable:
            await self.rim.call(self.rim.ledger.leave_out, self.job, files.unreadable)
        self._check_lost(lost_fraction(0, events, len(files.unreadable), readable))
        limits = Limits.of(self.rim.settings)
        await self.rim.call(
            self.rim.ledger.write_plan, self.job, units, names, bases, files.unreadable, limits
        )
        log.info("planned %d units, %d events", len(units), events, extra={"job": self.job})

    def _facts(self, dataset: Dataset) -> dict[str, Any]:
        """Return what decides the bits of a partial: the recipe and what the data set is, not how it is scaled."""
        described = dataset.model_dump(mode="json", exclude={"files", "cross_section", "group"})
        return {**self.recipe.facts(), "dataset": described}

    def _check_lost(self, fraction: float) -> None:
        if self.skip is not None and fraction > self.skip:
            raise JobFailedError(
                Failure(
                    Kind.INPUT,
                    "too-much-missing",
                    f"{fraction:.1%} of the events are missing, and the job may leave out {self.skip:.1%}.",
                    hint="The job's missing files say why; repair them, or allow more.",
                )
            )

    def _check_oddities(self, workload: Workload) -> None:
        """End the job if too many events had numbers that are not finite; name the first."""
        works = workload.done()
        examples: dict[str, list[str]] = {}
        for work in works:
            if any(count for name, count in work.counts.items() if name.startswith("odd/")):
                stored = self.rim.store.attributes(layout.partial(work.partial))
                for kind, events in stored["examples"].items():
                    examples.setdefault(kind, []).extend(events)
            if sum(map(len, examples.values())) >= KEPT_EXAMPLES:
                break
        try:
            check_oddities(sum_counts(works), examples, self.resolved.request.odd_limit)
        except PhysicsError as error:
            raise JobFailedError(failures.of(error)) from error

    async def _load(self) -> Workload:
        row, _ = await self.rim.call(self.rim.ledger.load, self.job)
        self.publisher.unreadable = row.unreadable
        lent = await self.rim.call(self.rim.ledger.lent, self.job, self.resolved.systematics)
        rows = await self.rim.call(self.rim.ledger.units, self.job)
        works = from_rows(rows, lent)
        self._failure = next((_failed(row) for row in rows if row.state == UnitState.FAILED), None)
        sums = await self.rim.call(self.rim.ledger.sums, self.job)
        self.datasets = {dataset.name: dataset for dataset in self.resolved.datasets}
        self.readable = sum(len(dataset.files) for dataset in self.resolved.datasets) - len(row.unreadable)
        await asyncio.to_thread(self._copy_plan, works, row)
        await self.publisher.tidy()
        self.workload = Workload(list(self.datasets), works, sums)
        return self.workload

    def _copy_plan(self, works: list[Work], row: Any) -> None:
        """Keep the plan beside the results, if it is not there yet; the ledger is the truth."""
        key = layout.plan(self.job, row.retried_after)
        if not self.rim.store.exists(key):
            document = {"job": self.job, "units": document_of(works), "unreadable": row.unreadable}
            self.rim.store.create_json(key, document)

    # units

    def share(self, now: float) -> Share:
        """Return what the job wants of the workers."""
        waiting, in_flight = (
            (0, 0) if self.workload is None else (self.workload.waiting(now), len(self.workload.running))
        )
        return Share(self.job, self.owner, self.priority, self.created, in_flight, waiting)

    async def begin(self, count: int) -> list[Work]:
        """Take the next units and write down that they begin; none if the job has ended."""
        if self.workload is None:
            return []
        begun = self.workload.begin(token() for _ in range(count))
        written = await self.rim.call(self.rim.ledger.start, self.job, [work.status for work in begun])
        return begun if written else []

    def resumed(self) -> list[Work]:
        """Return the units that an earlier driver began, once: they are asked for again under their tokens."""
        if self.workload is None:
            return []
        resumed, self.workload.resumed = self.workload.resumed, []
        return resumed

    async def attempt(self, work: Work, rank: int) -> Settled:
        """Run a unit and return how that ended.

        Parameters
        ----------
        work : Work
            Begun.
        rank : int
            Units of this job that are in flight before it: the job with fewer goes first.
        """
        token = str(work.status.token)
        outcome: Outcome
        worker: str | None = None
        try:
            outcome, worker = await self._steps(work, token, -rank / 2.0**self.priority)
            outcome = await self.rim.judged(outcome, self.recipe, worker)
        except LostError as lost:
            work.bystander += lost.with_worker
            outcome = UNLUCKY if work.bystander >= BYSTANDER_LIMIT else None
        except Exception as error:  # noqa: BLE001 -- whatever it is, the unit must not stay under way
            outcome = failures.of(error)
        return self._settled(work, token, outcome, worker)

    async def _steps(self, work: Work, token: str, priority: float) -> tuple[Outcome, str | None]:
        """Fill a unit step by step; return the last outcome, with the time of all of them, and the worker."""
        seconds = commit = 0.0
        for step, key in enumerate(unit_keys(self.job, work.status.unit, token, work.status.splits)):
            outcome, worker = await self.rim.cluster.run(
                self._fill_unit(work, step), key, seconds=self.rim.settings.unit_timeout, priority=priority
            )
            if not isinstance(outcome, Receipt):
                break
            seconds, commit = seconds + outcome.seconds, commit + outcome.commit
            outcome = replace(outcome, seconds=seconds, commit=commit)
        return outcome, worker

    def _fill_unit(self, work: Work, step: int) -> FillUnit:
        status, sites = work.status, self.rim.settings.replicas
        tries = status.failures - status.kills
        pieces = tuple(replace(piece, path=replicas.turn(piece.path, sites, tries)) for piece in work.pieces)
        files = tuple(dict.fromkeys(piece.path for piece in pieces))
        return FillUnit(
            store=self.rim.settings.store_url,
            recipe=self.recipe,
            dataset=self.datasets[work.dataset].model_copy(update={"files": files}).model_dump_json(),
            pieces=pieces,
            partial=work.partial,
            lent=work.lent,
            splits=status.splits,
            step=step,
            owner=self.reader,
        )

    def _settled(self, work: Work, name: str, outcome: Outcome, worker: str | None) -> Settled:
        status = work.status
        after: Status | None
        if isinstance(outcome, Receipt):
            after = status.finished(name)
        elif isinstance(outcome, Failure):
            policy = self.rim.policy(skip=self.skip is not None)
            now = self.rim.clock()
            decision = decide(outcome.kind, status.failures, status.kills, policy, now, status.splits)
            after = status.failed(name, outcome.kind, decision)
        else:
            outcome, after = None, status.recalled()
        if after is None:
            raise RuntimeError(
                f"unit {status.unit} of job {self.job} settled an attempt that is not the present one"
            )
        return Settled(self.job, name, after, work.dataset, outcome, worker)

    def settle(self, settled: Settled, *, accepted: bool) -> None:
        """Take note of how an attempt ended, once it is written down, or refused because the ledger knows better."""
        if self.workload is None:
            return
        if accepted:
            receipt = settled.outcome if isinstance(settled.outcome, Receipt) else None
            self.workload.end(settled.after, receipt)
        else:
            self._failure = self._failure or OUT_OF_STEP
        if isinstance(settled.outcome, Failure):
            self.trouble = settled.outcome.message if settled.outcome.kind in WAITED_FOR else self.trouble
            if settled.after.state == UnitState.FAILED:
                self._failure = self._failure or settled.outcome
        elif isinstance(settled.outcome, Receipt):
            self.trouble = None
        self._news += 1
        self.changed.set()

    # sums and snapshots

    async def _fill(self, workload: Workload) -> None:
        """Wait until all units are settled and summed; meanwhile tell progress and publish snapshots."""
        settled = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell_progress(settled))
            stream = group.create_task(self._stream(workload, settled))
            while True:
                self._check(workload)
                self._merge_ready(workload, group)
                if workload.settled:
                    break
                await self.changed.wait()
                self.changed.clear()
            settled.set()
            if self.publisher.writing:
                stream.cancel()  # the last snapshot need not wait for one that is out of date
        await self.publisher.tidy()

    def _check(self, workload: Workload) -> None:
        """End the job if a unit failed for good, or too many are left out."""
        if self._failure is not None:
            raise JobFailedError(self._failure)
        if workload.skipped_events:
            unreadable = len(self.publisher.unreadable)
            lost = lost_fraction(workload.skipped_events, workload.events, unreadable, self.readable)
            self._check_lost(lost)

    def _merge_ready(self, workload: Workload, group: asyncio.TaskGroup) -> None:
        for dataset, tree in workload.trees.items():
            for node, names in tree.ready():
                if (dataset, node) not in self._merging:
                    self._merging.add((dataset, node))
                    group.create_task(self._merge(workload, dataset, node, names))

    async def _merge(self, workload: Workload, dataset: str, node: Node, names: tuple[str, ...]) -> None:
        name, tree = plan.merged_name(names), workload.trees[dataset]
        task = Merge(self.rim.settings.store_url, name, names)
        seconds = self.rim.settings.unit_timeout
        outcome = await self.rim.task(task, "merge", self.job, dataset, *map(str, node), seconds=seconds)
        sound = isinstance(outcome, Receipt) or not await self._reopen(workload, outcome)
        if sound and all(tree.settled(child) for child in tree.children(node)):
            receipt = succeeded(outcome, Receipt)
            await self.rim.call(self.rim.ledger.merged, self.job, dataset, node, name, receipt)
            tree.stored[node] = name
        self._merging.discard((dataset, node))
        self.changed.set()

    async def _reopen(self, workload: Workload, outcome: Outcome) -> bool:
        """Fill units again whose stored sums are damaged or lost; return whether this is what went wrong."""
        if not (
            isinstance(outcome, Failure) and outcome.code in ("damaged", "no-such-key") and outcome.where
        ):
            return False
        name = layout.partial_of(outcome.where)
        self._reopened[name] += 1
        if name is None or self._reopened[name] > MOST_REOPENED:
            return False
        log.warning("%s It is made anew.", outcome.message, extra={"job": self.job, "partial": name})
        await asyncio.to_thread(self.rim.store.put_aside, layout.partial(name))
        reopened = workload.reopen(name)
        if reopened is not None:
            work, dropped = reopened
            await self.rim.call(self.rim.ledger.reopen, self.job, work.dataset, work.status, dropped)
        return True

    async def _publish(self, workload: Workload, *, final: bool) -> bool:
        """Publish a snapshot; if a stored sum that it needs is damaged or lost, see that it is made anew instead."""
        try:
            await self.publisher.publish(workload, final=final)
        except ExceptionGroup as failed:
            first = leaf(failed)
            if not (isinstance(first, JobFailedError) and await self._reopen(workload, first.failure)):
                raise
            self.changed.set()
            return False
        return True

    async def _tell_progress(self, settled: asyncio.Event) -> None:
        told = -1
        while not await within(settled, PROGRESS_SECONDS):
            if self._news != told:
                told = self._news
                await self.rim.call(self.rim.ledger.progress, self.job)
        await self.rim.call(self.rim.ledger.progress, self.job)

    async def _stream(self, workload: Workload, settled: asyncio.Event) -> None:
        """Publish a snapshot now and then, if there is something new."""
        published, pause = 0, self.rim.settings.snapshot_seconds
        while not await within(settled, pause):
            done = len(workload.done())
            if published < done < len(workload.works):
                begin = self.rim.clock()
                if await self._publish(workload, final=False):
                    published = done
                pause = max(self.rim.settings.snapshot_seconds, SNAPSHOT_SHARE * (self.rim.clock() - begin))


def _failed(row: Any) -> Failure:
    """Return why a unit failed for good, as a driver wrote it down that had no time to end the job."""
    return Failure(Kind.CODE, **row.error, traceback=row.traceback)


def unit_keys(job: str, unit: int, token: str, splits: int) -> list[Key]:
    """Return the names on the cluster of the steps of an attempt."""
    if not splits:
        return [("unit", job, str(unit), token)]
    return [("unit", job, str(unit), f"{token}.{step}") for step in range(2**splits)]
