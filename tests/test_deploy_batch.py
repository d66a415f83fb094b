"""What is wanted of a batch queue, whatever the queue does."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from backend_contract import reach
from hypothesis import given, settings
from hypothesis import strategies as st
from slurm_server import free_port

from binworks.deploy import batch
from binworks.deploy.batch import BatchBackend, WorkerJob
from binworks.deploy.keeper import Keeper
from binworks.deploy.reconcile import Entry, JobState, Orders, Reconciler
from binworks.deploy.site import SchedulerPart, Site
from binworks.deploy.tls import Certificates
from binworks.tensors.errors import RequestError, TransientError

POLL = 5.0
GRACE = 100.0
PATIENCE = 600.0
RUNNING = Entry(JobState.RUNNING)


class Toy:
    """A queue in memory: jobs start when there is room, and end as a test says."""

    def __init__(self, slots: int = 1000) -> None:
        self.slots = slots
        self.entries: dict[str, Entry] = {}
        self.count = 0
        self.drained: list[str] = []
        self.removed: list[str] = []
        self.silent: str | None = None
        self.refusing: str | None = None

    def submit(self, count: int) -> list[str]:
        self._answer(self.refusing)
        names = [str(self.count + n) for n in range(count)]
        self.count += count
        self.entries.update((name, Entry(JobState.PENDING, "Priority")) for name in names)
        return names

    def jobs(self) -> Mapping[str, Entry]:
        self._answer(self.silent)
        return dict(self.entries)

    def drain(self, names: Sequence[str]) -> None:
        self._answer(self.silent)
        self.drained += names

    def remove(self, names: Sequence[str]) -> None:
        self._answer(self.silent)
        self.removed += names
        for name in names:
            self.entries.pop(name, None)

    def of(self, state: JobState) -> list[str]:
        return [name for name, entry in self.entries.items() if entry.state == state]

    def begin(self) -> None:
        """Start what there is room for."""
        room = self.slots - len(self.of(JobState.RUNNING))
        for name in self.of(JobState.PENDING)[: max(room, 0)]:
            self.entries[name] = RUNNING

    def _answer(self, trouble: str | None) -> None:
        if trouble is not None:
            raise TransientError(trouble)


class Story:
    """A reconciler and its queue, and a clock that both share."""

    def __init__(self, queue: Toy, wanted: int) -> None:
        self.queue = queue
        self.reconciler = Reconciler(GRACE, PATIENCE)
        self.joining = True
        self.reconciler.wanted = wanted
        self.now = 0.0
        self.poll = POLL
        self.orders = Orders()
        self.submissions = 0

    def look(self) -> None:
        """Do what the back end does at each look."""
        self.now += self.poll
        if self.queue.silent is not None:
            return
        joined = self.queue.of(JobState.RUNNING) if self.joining else ()
        orders = self.orders = self.reconciler.decide(self.queue.jobs(), self.now, joined)
        self.queue.remove(orders.remove)
        self.queue.drain(orders.drain)
        if orders.submit:
            try:
                names = self.queue.submit(orders.submit)
            except TransientError as error:
                self.reconciler.refused(str(error), self.now)
            else:
                self.submissions += len(names)
                self.reconciler.submitted(names, self.now)

    def go(self, seconds: float, between: Callable[[], object] = lambda: None) -> None:
        end = self.now + seconds
        while self.now < end:
            self.look()
            between()
            self.queue.begin()

    def staying(self) -> int:
        """Count the jobs that work, or will, and were not told to go."""
        live = {*self.queue.of(JobState.PENDING), *self.queue.of(JobState.RUNNING)}
        return len(live - set(self.queue.drained))


def mischief(queue: Toy, what: str, which: random.Random) -> None:
    names = sorted(queue.entries)
    if what in ("silent", "speaks"):
        queue.silent = "no answer" if what == "silent" else None
    elif what in ("refuses", "takes"):
        queue.refusing = "quota" if what == "refuses" else None
    elif names:
        name = which.choice(names)
        ends = {"hold": JobState.HELD, "end": JobState.ENDED, "ending": JobState.ENDING}
        if what in ends:
            queue.entries[name] = Entry(ends[what], "bad luck")
        else:
            del queue.entries[name]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["silent", "speaks", "refuses", "takes", "hold", "end", "ending", "vanish", "vanish", "scale"]
            ),
            st.integers(0, 12),
            st.integers(1, 60),
        ),
        max_size=25,
    ),
    st.integers(0, 12),
    st.randoms(use_true_random=False),
)
def test_whatever_happens_the_queue_ends_up_with_what_is_wanted_and_never_holds_more(
    events: list[tuple[str, int, int]], wanted: int, which: random.Random
) -> None:
    story = Story(Toy(slots=10), wanted)
    for what, number, seconds in events:
        if what == "scale":
            story.reconciler.wanted = number
        else:
            mischief(story.queue, what, which)
        story.go(seconds)
        assert story.staying() <= 12
    story.queue.silent = story.queue.refusing = None
    for name in (*story.queue.of(JobState.ENDING), *story.queue.of(JobState.ENDED)):
        del story.queue.entries[name]
    story.poll = 30.0
    story.go(3600)
    assert story.staying() == story.reconciler.wanted
    assert story.reconciler.running == min(story.reconciler.wanted, 10)
    before = story.submissions, list(story.queue.drained), list(story.queue.removed)
    story.go(900)
    assert (story.submissions, story.queue.drained, story.queue.removed) == before
    assert len(set(story.queue.drained)) == len(story.queue.drained), "told twice"


def test_a_job_that_dies_is_replaced_at_the_next_look() -> None:
    story = Story(Toy(), 3)
    story.go(600)
    assert len(story.queue.of(JobState.RUNNING)) == 3
    story.queue.entries["1"] = Entry(JobState.ENDED, "NODE_FAIL")
    story.look()
    assert story.orders == Orders(submit=1)
    story.go(60)
    assert story.reconciler.running == 3
    assert story.reconciler.replaced == 1
    assert story.submissions == 4, "it ended once, however long the queue remembers it"


def test_a_job_that_is_missing_in_one_answer_alone_is_not_replaced() -> None:
    story = Story(Toy(), 3)
    story.go(600)
    jobs, story.queue.entries = story.queue.entries, {}
    story.look()
    assert story.orders == Orders()
    story.queue.entries = jobs
    story.go(60)
    assert story.submissions == 3


def test_a_queue_that_does_not_answer_changes_nothing() -> None:
    story = Story(Toy(), 3)
    story.go(600)
    story.queue.silent = "connect failure"
    story.reconciler.wanted = 1
    story.go(1000)
    assert (story.submissions, story.queue.removed, story.queue.drained) == (3, [], [])


def test_refused_jobs_are_tried_later_and_later_fewer_at_a_time_and_the_reason_is_shown() -> None:
    story = Story(Toy(), 200)
    story.queue.refusing = "QOSMaxSubmitJobPerUserLimit"
    tried: list[tuple[float, int]] = []
    story.go(3600, lambda: story.orders.submit and tried.append((story.now, story.orders.submit)))
    pauses = [later - sooner for (sooner, _), (later, _) in pairwise(tried)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 600
    assert [number for _, number in tried[:4]] == [200, 200, 100, 50]
    assert tried[-1][1] == 1
    reason = str(story.reconciler.explain(story.now))
    assert reason.startswith("QOSMaxSubmitJobPerUserLimit; next try in ")
    story.queue.refusing = None
    story.go(3600)
    assert story.reconciler.running == 200
    assert story.reconciler.explain(story.now) is None


@pytest.mark.parametrize("wanted", [1, 8, 200])
def test_a_place_where_every_job_dies_is_not_flooded(wanted: int) -> None:
    story = Story(Toy(), wanted)

    def die() -> None:
        for name in story.queue.of(JobState.RUNNING):
            story.queue.entries[name] = Entry(JobState.ENDED, "FAILED, NonZeroExitCode")

    story.go(3600, die)
    assert story.submissions <= 3 * wanted + 15
    assert "FAILED, NonZeroExitCode" in str(story.reconciler.explain(story.now))
    begin = story.now
    story.go(3600)
    assert story.reconciler.running == wanted
    assert story.reconciler.explain(story.now) is None
    assert story.now == begin + 3600


def test_one_bad_node_among_many_does_not_eat_the_queue() -> None:
    story = Story(Toy(slots=50), 50)
    story.go(600)
    story.queue.slots = 49

    def eat() -> None:  # the bad node takes what finds no other room
        for name in story.queue.of(JobState.PENDING)[:8]:
            if len(story.queue.of(JobState.RUNNING)) >= story.queue.slots:
                story.queue.entries[name] = Entry(JobState.ENDED, "FAILED, NonZeroExitCode")

    story.queue.entries["7"] = Entry(JobState.ENDED, "NODE_FAIL")
    story.go(3600, eat)
    assert story.submissions - 50 < 20
    assert len(story.queue.of(JobState.RUNNING)) == 49


def test_held_jobs_are_removed_and_replaced_with_a_pause() -> None:
    story = Story(Toy(), 2)
    story.go(20)
    story.queue.entries["0"] = Entry(JobState.HELD, "launch failed requeued held")
    story.look()
    assert story.orders == Orders(remove=("0",))
    assert "launch failed requeued held" in str(story.reconciler.explain(story.now))
    story.go(30)
    assert story.reconciler.running == 2


def test_what_waits_goes_first_then_the_newest_and_it_drains() -> None:
    story = Story(Toy(slots=4), 6)
    story.go(600)
    story.reconciler.wanted = 3
    story.look()
    assert set(story.orders.remove) == {"4", "5"}
    assert story.orders.drain == ("3",)


def test_a_job_that_has_just_begun_is_told_to_drain_a_little_later() -> None:
    story = Story(Toy(), 1)
    story.go(10)
    story.reconciler.wanted = 0
    story.look()
    assert story.orders == Orders()
    assert story.reconciler.running == 0
    story.go(15)
    assert story.queue.drained == ["0"]


def test_a_draining_job_does_not_count_and_is_left_alone_until_its_grace_is_over() -> None:
    story = Story(Toy(), 2)
    story.go(600)
    story.reconciler.wanted = 1
    story.look()
    story.reconciler.wanted = 2
    begin = story.now
    story.go(50)
    assert story.reconciler.running == 2
    assert len(story.queue.of(JobState.RUNNING)) == 3
    while not story.queue.removed:
        story.look()
    assert GRACE < story.now - begin < GRACE + 70
    assert story.queue.removed == story.queue.drained == ["1"]


def test_jobs_are_taken_over_by_the_next_service() -> None:
    story = Story(Toy(slots=3), 4)
    story.go(600)
    again = Story(story.queue, 4)
    again.go(60)
    assert again.submissions == 0
    assert again.reconciler.running == 3


def test_jobs_that_an_earlier_service_submitted_otherwise_are_let_go() -> None:
    story = Story(Toy(slots=3), 4)
    story.go(600)
    for name, entry in story.queue.entries.items():
        story.queue.entries[name] = Entry(entry.state, entry.reason, current=False)
    again = Story(story.queue, 4)
    again.look()
    assert again.orders == Orders(submit=4, remove=("3",), drain=("0", "1", "2"))
    for name in again.queue.drained:
        del again.queue.entries[name]
    again.go(60)
    assert (again.submissions, again.reconciler.running, again.reconciler.replaced) == (4, 3, 0)


def test_jobs_that_run_but_never_reach_the_scheduler_are_not_taken_for_sound() -> None:
    story = Story(Toy(), 4)
    story.joining = False
    begun: dict[str, float] = {}

    def give_up() -> None:
        for name in story.queue.of(JobState.RUNNING):
            if story.now - begun.setdefault(name, story.now) > PATIENCE:
                story.queue.entries[name] = Entry(JobState.ENDED, "FAILED, NonZeroExitCode")

    story.poll = 20.0
    story.go(8 * 3600, give_up)
    assert story.submissions < 40
    assert "ended too soon (FAILED" in str(story.reconciler.explain(story.now))


def test_an_order_that_did_not_reach_the_queue_is_given_again() -> None:
    reconciler = Reconciler(GRACE, PATIENCE)
    reconciler.submitted("ab", 0)
    reconciler.wanted = 1
    entries = {"a": RUNNING, "b": RUNNING}
    reconciler.decide(entries, 1)
    assert reconciler.decide(entries, 20) == Orders(drain=("b",))
    reconciler.not_drained(["b"])
    assert reconciler.decide(entries, 25) == Orders(drain=("b",))
    entries["a"] = Entry(JobState.HELD)
    assert reconciler.decide(entries, 30).remove == ("a",)
    reconciler.not_removed(["a"], 30)
    assert reconciler.decide(entries, 35).remove == ("a",)


def test_job_nine_is_older_than_job_ten() -> None:
    reconciler = Reconciler(GRACE, PATIENCE)
    reconciler.wanted = 1
    entries = {"10": RUNNING, "9": RUNNING}
    assert reconciler.decide(entries, 1).drain == ("10",)


class Shown(BatchBackend):
    """A back end on a queue in memory."""

    programs = ()
    poll_seconds = 0.05

    def open_queue(self, job: WorkerJob) -> Toy:
        self.job = job
        return self.toy

    toy: Toy


def back_end(folder: Path, toy: Toy, *, port: int = 0, dashboard_port: int = 0, **workers: Any) -> Shown:
    Certificates.ensure(folder / "tls")
    site = Site.model_validate(
        {"scheduler": {"host": "127.0.0.1"}, "workers": {"scratch": folder, **workers}}
    )
    ports = {"port": port or free_port(), "dashboard_port": dashboard_port}
    made = Shown(folder, site, **ports, preload="a.b", environment={"HERE": "1"}, tls=folder / "tls")
    made.toy = made.queue = toy
    return made


def settle(backend: Shown) -> None:
    for _ in range(3):
        backend.reconcile()
        backend.toy.begin()


def test_workers_are_counted_and_the_last_job_may_bring_some_more(tmp_path: Path) -> None:
    backend = back_end(tmp_path, Toy(slots=2), processes=8)
    backend.scale(17)
    settle(backend)
    status = backend.status()
    assert (status.wanted, status.alive, status.restarts) == (24, 16, 0)
    assert status.reason == "1 job waits in the queue (Priority)"
    backend.toy.slots = 3
    settle(backend)
    assert (backend.status().alive, backend.status().reason) == (24, None)


def test_a_queue_that_does_not_answer_is_shown(tmp_path: Path) -> None:
    backend = back_end(tmp_path, Toy())
    backend.scale(2)
    settle(backend)
    backend.toy.silent = "connect failure"
    backend.scale(1)
    settle(backend)
    assert backend.status().reason == "the queue does not answer: connect failure"
    assert backend.toy.drained == []
    backend.toy.silent = None
    settle(backend)
    assert backend.status().reason is None


def test_a_queue_that_takes_no_job_is_shown(tmp_path: Path) -> None:
    toy = Toy()
    toy.refusing = "QOSMaxSubmitJobPerUserLimit"
    backend = back_end(tmp_path, toy)
    backend.scale(2)
    settle(backend)
    reason = str(backend.status().reason)
    assert reason.startswith("no job was taken: QOSMaxSubmitJobPerUserLimit; next try in ")


def test_the_next_service_of_a_home_has_the_same_jobs(tmp_path: Path) -> None:
    toy = Toy()
    first = back_end(tmp_path, toy)
    first.start()
    first.scale(2)
    reach(lambda: toy.begin() or first.status().alive == 2)  # type: ignore[func-returns-value]
    crash(first)

    second = back_end(tmp_path, toy, port=first.port)
    second.start()
    try:
        assert (second.job.name, second.job.digest) == (first.job.name, first.job.digest)
        time.sleep(0.2)
        assert (toy.count, toy.removed, toy.drained) == (2, [], []), "what is wanted was not known yet"
        second.scale(2)
        reach(lambda: second.status().alive == 2)
        assert toy.count == 2
    finally:
        second.close()
    assert toy.entries == {}
    assert not second.status().scheduler


def test_jobs_of_another_make_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(home: Path = tmp_path / "home", **workers: Any) -> str:
        return back_end(home, Toy(), port=9999, **workers)._job().digest

    first = digest()
    assert digest() == first
    assert digest(count=7) == first
    assert digest(processes=2) != first
    assert back_end(tmp_path / "home", Toy(), port=9998)._job().digest != first
    monkeypatch.setenv("OF_MINE", "1")
    assert digest(keep=["OF_MINE"]) != first
    Certificates.make(tmp_path / "home" / "tls", replace=True)
    assert digest() != first


def test_a_copy_of_a_home_has_jobs_of_its_own(tmp_path: Path) -> None:
    name = back_end(tmp_path / "home", Toy())._job().name
    shutil.copytree(tmp_path / "home", tmp_path / "copy", symlinks=True)
    assert back_end(tmp_path / "home", Toy())._job().name == name
    assert back_end(tmp_path / "copy", Toy())._job().name != name


def test_the_environment_of_workers_is_for_their_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "it's secret\nand long")
    job = back_end(tmp_path, Toy(), keep=["AWS_SECRET_ACCESS_KEY", "NOT_SET"])._job()
    job.write_environment()
    assert stat.S_IMODE(job.environment_file.stat().st_mode) == 0o600
    said = batch.run(["sh", "-c", f". '{job.environment_file}'; echo \"$AWS_SECRET_ACCESS_KEY\"; env"])
    assert said.startswith("it's secret\nand long\n")
    assert "HERE=1" in said.splitlines()
    assert "secret" not in str(job.options())
    given = job.arguments()
    assert [given[i + 1] for i, word in enumerate(given) if word == "--keep"][-2:] == list(
        job.site.workers.keep
    )


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        ({}, (38286, 4254)),
        ({"lifetime": 3600, "stagger": 600}, (3600, 600)),
        ({"lifetime": 3600}, (3600, 360)),
        ({"lifetime": 90000}, (33540, 9000)),
        ({"walltime": 120, "grace": 60}, (27, 3)),
        ({"walltime": 2, "grace": 1}, (1, 0)),
    ],
)
def test_worker_hosts_leave_before_the_walltime_and_not_all_at_once(
    tmp_path: Path, workers: dict[str, Any], expected: tuple[int, int]
) -> None:
    job = back_end(tmp_path, Toy(), **workers)._job()
    assert job.times() == expected
    assert sum(expected) <= job.site.workers.walltime - job.site.workers.grace


def test_which_jobs_have_joined_is_asked_of_the_scheduler(tmp_path: Path) -> None:
    backend = back_end(tmp_path, Toy(), dashboard_port=free_port())
    assert backend._joined() == frozenset()
    backend.start()
    try:
        flags = [*backend.certificates.flags("worker"), "--no-nanny", "--no-dashboard", "--nthreads", "1"]
        command = [sys.executable, "-m", "distributed.cli.dask_worker", backend.address(), *flags]
        worker = Keeper("w", [*command, "--name", "slurm-12_3"], tmp_path, backend.environment)
        worker.start()
        try:
            reach(lambda: backend._joined() == {"12_3"})
        finally:
            worker.stop()
    finally:
        backend.close()


def crash(backend: Shown) -> None:
    """Let its process forget everything, and end its scheduler."""
    assert backend._thread is not None
    assert backend.scheduler is not None
    backend._closing.set()
    backend._thread.join()
    backend.scheduler.stop()


def test_a_queue_that_is_broken_does_not_end_the_watch(tmp_path: Path) -> None:
    class Broken(Toy):
        def jobs(self) -> Mapping[str, Entry]:
            if self.silent:
                raise ZeroDivisionError
            return super().jobs()

    toy = Broken()
    toy.silent = "yes"
    backend = back_end(tmp_path, toy)
    backend.start()
    try:
        backend.scale(1)
        reach(lambda: "could not be looked after" in str(backend.status().reason))
        toy.silent = None
        reach(lambda: toy.begin() or backend.status().alive == 1)  # type: ignore[func-returns-value]
    finally:
        backend.close()
    assert toy.removed == ["0"]


def test_a_machine_without_the_batch_system_is_told_so(tmp_path: Path) -> None:
    backend = back_end(tmp_path, Toy())
    backend.programs = ("no-such-sbatch",)  # type: ignore[misc]
    with pytest.raises(RequestError, match="no-such-sbatch") as caught:
        backend.start()
    assert caught.value.code == "no-batch-system"
    backend.close()


def test_a_command_that_fails_says_why_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def shell(text: str) -> list[str]:
        return ["sh", "-c", text]

    assert batch.run(["cat"], text="hello") == "hello"
    monkeypatch.setenv("SQUEUE_PARTITION", "other")
    assert batch.run(shell("echo $SQUEUE_PARTITION"), hidden=("SQUEUE_",)).strip() == ""
    with pytest.raises(TransientError, match="second") as caught:
        batch.run(shell("echo first >&2; echo second >&2; exit 3"))
    assert caught.value.code == "batch-system"
    with pytest.raises(TransientError, match="ended with 3"):
        batch.run(shell("exit 3"))
    assert batch.run(shell("echo job 7 is gone >&2; exit 1"), harmless=("is gone",)) == ""
    with pytest.raises(TransientError, match="no power"):
        batch.run(shell("echo no power >&2; echo job 7 is gone >&2; exit 1"), harmless=("is gone",))
    with pytest.raises(TransientError, match="cannot be run"):
        batch.run(["no-such-sbatch"])
    monkeypatch.setattr(batch, "COMMAND_SECONDS", 0.2)
    with pytest.raises(TransientError, match="did not answer"):
        batch.run(["sleep", "10"])


def test_the_address_that_workers_reach() -> None:
    assert batch.reachable(SchedulerPart(host="10.1.2.3")) == "10.1.2.3"
    assert batch.reachable(SchedulerPart(interface="lo")) == "127.0.0.1"
    with pytest.raises(RequestError, match="no-such-wire") as caught:
        batch.reachable(SchedulerPart(interface="no-such-wire"))
    assert caught.value.code == "bad-site"


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare")
def test_an_address_is_not_guessed_where_there_is_none() -> None:
    code = (
        "from binworks.deploy.batch import reachable\nfrom binworks.deploy.site import SchedulerPart\n"
        "try:\n    reachable(SchedulerPart())\nexcept Exception as error:\n    print(error.code, error.where)"
    )
    alone = ["unshare", "--net", sys.executable, "-c", code]
    assert subprocess.run(alone, capture_output=True, text=True).stdout == "bad-site scheduler\n"


def test_workers_use_no_kernels_that_somebody_else_may_have_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    backend = back_end(tmp_path / "home", Toy(), scratch=tmp_path / "s", prologue=["module() { :; }"])
    lines = [*backend._job().prologue(), 'echo "$BINWORKS_KERNEL_CACHE"']
    own = tmp_path / "s" / f"binworks-{os.getuid()}"
    own.parent.mkdir()

    def chosen() -> Path:
        return Path(batch.run(["sh", "-c", "\n".join(lines)]).strip())

    assert chosen() == chosen() == own / "kernels"
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    own.rename(tmp_path / "elsewhere")
    own.symlink_to(tmp_path / "elsewhere")
    assert chosen().parent.parent != own.parent
    fixed = back_end(tmp_path / "other", Toy(), kernel_cache="/var/kernels")
    assert fixed._job().prologue() == ["export BINWORKS_KERNEL_CACHE=/var/kernels"]
