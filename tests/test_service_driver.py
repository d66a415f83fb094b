"""The driver against a cluster, a store and a database that misbehave: no process, no Dask, the same ledger."""

from __future__ import annotations

import contextlib
import errno
import itertools
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from driver_bench import Bench, benches
from service_toys import registered, serial, write_all

from binworks.processors import registry
from binworks.processors.dataset import Dataset
from binworks.service import conduct, layout, rim
from binworks.service.cluster import LostError
from binworks.service.lease import LeaseLostError
from binworks.service.ledger import Ledger
from binworks.service.model import JobState, UnitState
from binworks.service.retry import POISON_KILLS, Kind
from binworks.service.store import Store
from binworks.service.tasks import Failure, FillUnit, IndexFile, Merge, Prepare, Task, WriteDataset
from binworks.tensors.errors import TransientError

FILES, EVENTS = 4, 3500
FULL = "The store has no space left."


class EndOfDriverError(BaseException):
    """Ends a driver as a kill does: nothing is written down any more."""


@pytest.fixture(scope="module", autouse=True)
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with registered(tmp_path_factory.mktemp("toys")):
        yield


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    monkeypatch.setattr(rim, "TICK_SECONDS", 0.01)
    with benches(tmp_path) as made:
        yield made


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    return write_all(tmp_path / "data", FILES, EVENTS)


def expected(bench: Bench, job: str, files: tuple[str, ...], folder: Path) -> dict[str, str]:
    _, resolved = bench.ledger.load(job)
    return {"D": serial(folder, Dataset(name="D", files=files), resolved)}


@pytest.mark.parametrize("seed", range(3))
def test_a_storm_of_passing_failures_changes_no_bit(
    make: Callable[..., Bench], files: tuple[str, ...], tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    met: Counter[tuple[str, str]] = Counter()

    def meets(about: str, what: str, most: int) -> bool:
        met[about, what] += 1
        return met[about, what] <= most  # once more, and the job would rightly give up

    def storm(task: Task) -> Failure | None:
        dice, about = rng.random(), task.partial if isinstance(task, FillUnit) else repr(task)
        if dice < 0.2:
            raise LostError(with_worker=rng.random() < 0.5 and meets(about, "lost", rim.BYSTANDER_LIMIT - 1))
        if dice < 0.3 and meets(about, "killed", POISON_KILLS - 1):
            return Failure(Kind.KILLED, "worker-died", "It died.")
        if dice > 0.95 and meets(about, "unanswered", bench.rim.settings.retries):
            return Failure(Kind.TRANSIENT, "server-timeout", "No answer.")
        return None

    bench = make(storm)
    job = bench.running.submit({"D": files}).id
    (view,) = bench.drive(job)
    assert view.complete
    assert view.counts.events.done == FILES * EVENTS
    assert bench.running.digests(job) == expected(bench, job, files, tmp_path / "serial")
    units = [task for task in bench.cluster.seen if isinstance(task, FillUnit)]
    assert len(units) > view.counts.units.total


def test_a_disk_of_the_driver_that_is_full_for_a_while_costs_time_only(
    make: Callable[..., Bench], files: tuple[str, ...], tmp_path: Path
) -> None:
    class Full(Store):
        left = 3

        def create_json(self, key: str, document: Any) -> bool:
            if self.left > 0:
                self.left -= 1
                raise TransientError("The store does not take it.", code="store-write-failed", where=key)
            return super().create_json(key, document)

        def seal(self, prefix: str, attributes: Any) -> None:
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().seal(prefix, attributes)

    store = Full(Store.open(str(tmp_path / "store")).objects)
    bench = make(store=store)
    job = bench.running.submit({"D": files}).id
    (view,) = bench.drive(job)
    assert view.complete
    assert bench.running.digests(job) == expected(bench, job, files, tmp_path / "serial")

    store.left = -1
    job = bench.running.submit({"D": files}).id
    notes: list[str | None] = []

    def look() -> None:
        notes.append(bench.running.jobs.get(job).note)
        store.left = 0 if any("No space left" in str(note) for note in notes) else store.left

    (view,) = bench.drive(job, meanwhile=look)
    assert store.left == 0
    assert view.complete


def test_a_fault_of_ours_ends_one_job_and_no_other(
    make: Callable[..., Bench], files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make()
    bad, good = (bench.running.submit({"D": files}, label=label).id for label in ("bad", "good"))
    original = conduct.Conduct._plan

    async def broken(self: conduct.Conduct) -> None:
        if self.job == bad:
            raise ZeroDivisionError("ours")
        await original(self)

    monkeypatch.setattr(conduct.Conduct, "_plan", broken)
    views = bench.drive(bad, good)
    assert [view.state for view in views] == [JobState.FAILED, JobState.SUCCEEDED]
    assert views[0].error is not None
    assert views[0].error.message == "ZeroDivisionError: ours"


def test_a_driver_that_lost_the_lease_ends_and_the_next_one_finishes_the_job(
    make: Callable[..., Bench], files: tuple[str, ...], tmp_path: Path
) -> None:
    bench = make(lambda task: time.sleep(0.05) if isinstance(task, FillUnit) else None)
    job = bench.running.submit({"D": files}).id
    thief = Ledger(bench.database, lambda: time.time() + 1000)

    def steal() -> None:
        if bench.running.jobs.get(job).counts.units.done >= 2 and not thief.fence:
            assert thief.take_over("elsewhere:1", 10.0)

    with pytest.raises(ExceptionGroup) as caught:
        bench.drive(job, meanwhile=steal)
    assert caught.group_contains(LeaseLostError)
    before = bench.running.jobs.get(job)
    assert before.state == JobState.RUNNING
    thief.renew(-2000.0)
    (view,) = bench.drive(job)
    assert view.complete
    assert bench.running.digests(job) == expected(bench, job, files, tmp_path / "serial")


def test_every_task_can_be_the_last_of_a_driver(
    make: Callable[..., Bench], files: tuple[str, ...], tmp_path: Path
) -> None:
    rng, ends = random.Random(2), itertools.count()

    def end(_task: Task) -> None:
        if rng.random() < 0.15:
            raise EndOfDriverError

    bench = make(end)
    job = bench.running.submit({"D": files}).id
    while not bench.running.jobs.get(job).state.finished:
        with contextlib.suppress(BaseExceptionGroup):
            bench.drive(job)
        bench.ledger.renew(0.0)
        assert next(ends) < 60
    assert next(ends) > 3
    assert bench.running.jobs.get(job).complete
    assert bench.running.digests(job) == expected(bench, job, files, tmp_path / "serial")
    numbers = [g.n for g in bench.running.jobs.generations(job)]
    assert numbers == sorted(set(numbers))


def test_a_job_fails_whose_driver_ended_between_the_failure_of_a_unit_and_its_own(
    make: Callable[..., Bench], files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = Failure(Kind.CODE, "code-failed", "It divides by zero.")
    bench = make(
        lambda task: bad if isinstance(task, FillUnit) and task.pieces[0].path == files[-1] else None
    )
    job = bench.running.submit({"D": files}).id
    whole = bench.ledger.move

    def end(job: str, state: JobState, *more: Any) -> bool:
        if state == JobState.FAILED:
            raise EndOfDriverError
        return whole(job, state, *more)

    monkeypatch.setattr(bench.ledger, "move", end)
    with contextlib.suppress(BaseExceptionGroup, EndOfDriverError):
        bench.drive(job)
    bench.ledger.renew(0.0)
    assert bench.running.jobs.get(job).state == JobState.RUNNING
    monkeypatch.undo()
    (view,) = bench.drive(job)
    assert view.state == JobState.FAILED
    assert view.error is not None
    assert view.error.message == "It divides by zero."


def test_a_unit_that_is_held_by_ten_dying_workers_is_given_up(
    make: Callable[..., Bench], files: tuple[str, ...]
) -> None:
    def die(task: Task) -> None:
        if isinstance(task, FillUnit) and files[1] == task.pieces[-1].path and task.pieces[-1].start == 0:
            raise LostError(with_worker=True)

    bench = make(die)
    job = bench.running.submit({"D": files}, on_error={"skip": 0.5}).id
    (view,) = bench.drive(job)
    assert view.state == JobState.SUCCEEDED
    (unit,) = bench.running.jobs.units(job, state=UnitState.SKIPPED)
    assert unit.error is not None
    assert unit.error.code == "workers-die"


def test_a_unit_that_a_driver_left_behind_is_asked_for_again_under_its_token(
    make: Callable[..., Bench], files: tuple[str, ...], tmp_path: Path
) -> None:
    left = threading.Event()

    def wait(task: Task) -> None:
        if isinstance(task, FillUnit) and len(bench.cluster.asked) > 8 and not left.is_set():
            raise EndOfDriverError

    bench = make(wait)
    job = bench.running.submit({"D": files}).id
    with contextlib.suppress(BaseExceptionGroup):
        bench.drive(job)
    left.set()
    begun = {unit.unit for unit in bench.running.jobs.units(job, state=UnitState.RUNNING)}
    assert begun
    before = len(bench.cluster.asked)
    bench.ledger.renew(0.0)
    bench.drive(job)
    units = [key for key in bench.cluster.asked if key[0] == "unit"]
    again = {
        int(key[2]) for key in bench.cluster.asked[before:] if key[0] == "unit" and units.count(key) == 2
    }
    assert again == begun
    assert all(unit.attempts == 1 for unit in bench.running.jobs.units(job))
    assert bench.running.digests(job) == expected(bench, job, files, tmp_path / "serial")


@pytest.mark.parametrize("what", ["partial", "merged"])
@pytest.mark.parametrize("how", ["damaged", "lost"])
def test_a_stored_sum_that_is_damaged_or_lost_is_made_anew(
    make: Callable[..., Bench], files: tuple[str, ...], tmp_path: Path, what: str, how: str
) -> None:
    harmed: list[str] = []

    def harm(task: Task) -> None:
        wanted = isinstance(task, Merge if what == "partial" else WriteDataset)
        if not wanted or harmed:
            return
        name = task.children[1] if isinstance(task, Merge) else str(task.value)  # type: ignore[union-attr]
        if name.startswith("Sum("):  # an early snapshot, of sums that are not stored
            return
        harmed.append(name)
        folder = tmp_path / "store" / layout.partial(name)
        if how == "lost":
            shutil.rmtree(folder)
        else:
            (chunk,) = (folder / "nominal" / "values" / "c").iterdir()
            chunk.write_bytes(bytes(chunk.stat().st_size))

    bench = make(harm)
    job = bench.running.submit({"D": files}).id
    (view,) = bench.drive(job)
    assert harmed
    assert view.complete, view
    assert bench.running.digests(job) == expected(bench, job, files, tmp_path / "serial")


def test_a_unit_that_takes_too_much_memory_is_filled_in_smaller_steps_to_the_same_bits(
    make: Callable[..., Bench], files: tuple[str, ...], tmp_path: Path
) -> None:
    def small(task: Task) -> Failure | None:
        if isinstance(task, FillUnit) and task.splits < 2 and task.pieces[0].start == 0:
            return Failure(Kind.RESOURCE, "out-of-memory", "Too much.")
        return None

    bench = make(small)
    job = bench.running.submit({"D": files}).id
    (view,) = bench.drive(job)
    assert view.complete
    split = [unit for unit in bench.running.jobs.units(job) if "[0:" in unit.files[0]]
    assert split
    assert all((unit.attempts, unit.splits) == (3, 2) for unit in split)
    steps = [task.step for task in bench.cluster.seen if isinstance(task, FillUnit) and task.splits == 2]
    assert sorted(steps) == sorted(len(split) * [0, 1, 2, 3])
    assert bench.running.digests(job) == expected(bench, job, files, tmp_path / "serial")


def test_a_unit_that_never_fits_is_given_up(make: Callable[..., Bench], files: tuple[str, ...]) -> None:
    bench = make(
        lambda task: (
            Failure(Kind.RESOURCE, "out-of-memory", "Too much.") if isinstance(task, FillUnit) else None
        )
    )
    (view,) = bench.drive(bench.running.submit({"D": files}).id)
    assert view.state == JobState.FAILED
    assert view.error is not None
    assert view.error.code == "out-of-memory"


@pytest.mark.parametrize("kind", [FillUnit, Merge])
def test_a_full_store_is_waited_for_and_the_job_says_so(
    make: Callable[..., Bench], files: tuple[str, ...], kind: type[Task]
) -> None:
    notes: list[str | None] = []

    def full(task: Task) -> Failure | None:
        if isinstance(task, kind) and FULL not in notes:
            return Failure(Kind.FULL, "store-full", FULL)
        return None

    bench = make(full)
    job = bench.running.submit({"D": files}).id
    (view,) = bench.drive(job, meanwhile=lambda: notes.append(bench.running.jobs.get(job).note))
    assert FULL in notes
    assert view.complete
    assert view.note is None


@pytest.mark.parametrize(
    ("kind", "failure"),
    [
        (FillUnit, Failure(Kind.CODE, "code-differs", "Other code.")),
        (Prepare, Failure(Kind.CODE, "code-differs", "Other code.")),
        (FillUnit, Failure(Kind.INPUT, "missing-file", "No such file.", __file__)),
        (IndexFile, Failure(Kind.INPUT, "missing-file", "No such file.", __file__)),
        (Merge, Failure(Kind.TRANSIENT, "store-not-seen", "No store here.")),
    ],
)
def test_an_unfit_worker_is_started_anew_and_others_are_waited_for(
    make: Callable[..., Bench], files: tuple[str, ...], kind: type[Task], failure: Failure
) -> None:
    notes: list[str | None] = []

    def unfit(task: Task) -> Failure | None:
        noted = sum("fault of the worker at here" in str(note) for note in notes)
        return failure if isinstance(task, kind) and not noted else None

    bench = make(unfit)
    job = bench.running.submit({"D": files}).id
    (view,) = bench.drive(job, meanwhile=lambda: notes.append(bench.running.jobs.get(job).note))
    assert view.complete, view
    assert view.note is None
    assert bench.cluster.restarted


def test_a_file_that_the_service_misses_too_is_missing(
    make: Callable[..., Bench], files: tuple[str, ...]
) -> None:
    bench = make(
        lambda task: (
            Failure(Kind.INPUT, "missing-file", "No such file.", "/nowhere/f.root")
            if isinstance(task, FillUnit)
            else None
        )
    )
    (view,) = bench.drive(bench.running.submit({"D": files}).id)
    assert view.error is not None
    assert (view.state, view.error.code) == (JobState.FAILED, "missing-file")
    assert bench.cluster.restarted == []


@pytest.mark.parametrize("kind", [FillUnit, IndexFile])
def test_a_file_that_is_missing_at_one_site_is_looked_for_at_the_next_until_patience_ends(
    make: Callable[..., Bench], files: tuple[str, ...], tmp_path: Path, kind: type[Task]
) -> None:
    here, empty = str(tmp_path / "data"), str(tmp_path / "elsewhere")
    files = tuple(path.replace(here, empty) for path in files)

    def missing(task: Task) -> Failure | None:
        asked = task.pieces[0].path if isinstance(task, FillUnit) else getattr(task, "path", "")
        no_more = isinstance(task, kind) and (hopeless or asked.startswith(empty))
        return Failure(Kind.INPUT, "missing-file", "No such file.", asked) if no_more else None

    bench, hopeless = make(missing), False
    bench.rim.settings = bench.rim.settings.model_copy(update={"replicas": ((empty, here),)})
    (view,) = bench.drive(bench.running.submit({"D": files}).id)
    assert view.complete, view.error

    hopeless, before = True, len(bench.cluster.seen)
    (view,) = bench.drive(bench.running.submit({"D": files[:1]}, options={"pause": 0.001}).id)
    assert view.error is not None
    assert (view.state, view.error.code) == (JobState.FAILED, "missing-file")
    seen = [task for task in bench.cluster.seen[before:] if isinstance(task, kind)]
    assert 1 + bench.rim.settings.retries <= len(seen) <= 4 * (1 + bench.rim.settings.retries)


def test_a_job_of_other_code_than_the_service_fails(
    make: Callable[..., Bench], files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(task: Task) -> Failure | None:
        fills = isinstance(task, FillUnit)
        return Failure(Kind.CODE, "code-differs", "This worker's code is another.") if fills else None

    bench = make(stale)
    job = bench.running.submit({"D": files}).id
    monkeypatch.setattr(registry, "code_digest", lambda name: "of an upgrade")
    (view,) = bench.drive(job)
    assert view.error is not None
    assert (view.state, view.error.code) == (JobState.FAILED, "code-differs")


def test_each_try_looks_at_the_next_replica(
    make: Callable[..., Bench], files: tuple[str, ...], tmp_path: Path
) -> None:
    def down(task: Task) -> Failure | None:
        paths = [piece.path for piece in task.pieces] if isinstance(task, FillUnit) else []
        paths += [task.path] if isinstance(task, IndexFile) else []
        if any(path.startswith("/far/") for path in paths):
            return Failure(Kind.TRANSIENT, "server-timeout", "No answer.", paths[0])
        return None

    bench = make(down)
    sites = (("/far/", str(tmp_path / "data") + "/"),)
    bench.settings = bench.settings.model_copy(update={"replicas": sites, "data_roots": ("/far",)})
    bench.rim.settings = bench.running.settings = bench.settings
    asked = tuple("/far/" + Path(file).name for file in files)
    job = bench.running.submit({"D": asked}).id
    (view,) = bench.drive(job)
    assert view.complete
    assert all(unit.attempts == 2 for unit in bench.running.jobs.units(job))
    assert all(file.startswith("/far/") for unit in bench.running.jobs.units(job) for file in unit.files)


def test_a_cancelled_job_calls_off_what_runs(make: Callable[..., Bench], files: tuple[str, ...]) -> None:
    bench = make(lambda task: time.sleep(0.5) if isinstance(task, FillUnit) else None)
    job = bench.running.submit({"D": files}).id

    def cancel() -> None:
        asked = sum(isinstance(task, FillUnit) for task in bench.cluster.seen)
        units = bench.running.jobs.get(job).counts.units
        if units.running and units.running + units.done == asked:  # none is just being handed over
            bench.running.jobs.cancel(job)

    (view,) = bench.drive(job, meanwhile=cancel)
    assert view.state == JobState.CANCELLED
    assert bench.cluster.called_off
    assert {key[:2] for key in bench.cluster.called_off} == {("unit", job)}
    assert set(bench.cluster.called_off) <= set(bench.cluster.asked)
