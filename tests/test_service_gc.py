"""The collector takes what nobody needs, and nothing else: while jobs run, while readers read, cut short anywhere."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from driver_bench import Bench, HereCluster, benches
from hypothesis import given
from hypothesis import strategies as st
from service_toys import registered, write_all
from sqlalchemy import delete, insert, select, update
from typer.testing import CliRunner

from binworks.client import cli
from binworks.service import conduct, gc, layout, rim
from binworks.service.database import Database, generations, job_events, jobs, merges, pins, units
from binworks.service.garbage import Generation, Partial, superseded, unused
from binworks.service.model import JobState
from binworks.service.pins import Pins
from binworks.service.settings import Settings
from binworks.service.store import Store
from binworks.service.tasks import FillUnit, Outcome, Task
from binworks.tensors.errors import RequestError

FILES, EVENTS = 3, 3500
HOUR = 3600.0


@pytest.fixture(scope="module", autouse=True)
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with registered(tmp_path_factory.mktemp("toys")):
        yield


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home in which a job was done that had at least five snapshots."""
    folder = tmp_path_factory.mktemp("origin")
    with pytest.MonkeyPatch.context() as patch, benches(folder) as make:
        patch.setattr(rim, "TICK_SECONDS", 0.01)
        patch.setattr(conduct, "SNAPSHOT_SHARE", 0.0)
        bench = make()
        (view,) = bench.drive(streamed(bench, write_all(folder / "data", FILES, EVENTS)), seconds=120.0)
        assert view.generation is not None
        assert view.generation >= 5
    return folder


@pytest.fixture
def bench(tmp_path: Path, origin: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Give a bench in a copy of that home."""
    monkeypatch.setattr(rim, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(conduct, "SNAPSHOT_SHARE", 0.0)
    shutil.copytree(origin, tmp_path / "home")
    with benches(tmp_path / "home") as make:
        yield make()


@pytest.fixture
def files(bench: Bench) -> tuple[str, ...]:
    return tuple(str(path) for path in sorted((bench.settings.home / "data").iterdir()))


def the_job(bench: Bench) -> str:
    with bench.database.read() as connection:
        return str(connection.execute(select(jobs.c.id)).scalar_one())


class Paced(HereCluster):
    """Begins a unit only when some snapshots of those before were seen, so that there are at least four."""

    def __init__(self, count: Callable[[str], int]) -> None:
        super().__init__()
        self.count = count
        self.begun = 0

    async def run(self, task: Task, key: tuple[str, ...], **how: Any) -> tuple[Outcome, str]:
        if isinstance(task, FillUnit):
            self.begun += 1
            snapshots = min(self.begun - 3, 4)
            while self.count(key[1]) < snapshots:
                await asyncio.sleep(0.02)
        return await super().run(task, key, **how)


def streamed(bench: Bench, files: tuple[str, ...]) -> str:
    """Return a job that will have at least five snapshots."""
    bench.rim.cluster = Paced(lambda job: max(published(bench, job), default=0))  # type: ignore[assignment]
    return bench.running.submit({"D": files}).id


def collect(bench: Bench, now: float | None = None, **settings: Any) -> gc.Report:
    changed = bench.settings.model_copy(update=settings)
    return gc.collect(
        bench.database, bench.rim.store, changed, time.time() if now is None else now, thorough=True
    )


def stored(bench: Bench, job: str) -> set[int]:
    groups, manifests = (set(gc.numbers(bench.rim.store, f"jobs/{job}/{kind}")) for kind in "gm")
    assert groups == manifests
    return groups


def published(bench: Bench, job: str) -> set[int]:
    return {view.n for view in bench.running.jobs.generations(job)}


# what is garbage

names = st.sampled_from("abcdef")
times = st.floats(0, 100)
snapshots = st.lists(
    st.builds(
        Generation,
        job=st.sampled_from(["x", "y"]),
        n=st.integers(1, 6),
        created=times,
        readable=st.booleans(),
        final=st.booleans(),
        finished=st.booleans(),
        row=st.booleans(),
        pinned=times,
    ),
    unique_by=lambda found: (found.job, found.n),
)


@given(snapshots, times, times)
def test_what_is_pinned_or_final_or_the_latest_or_young_is_never_garbage(
    found: list[Generation], now: float, keep: float
) -> None:
    garbage = superseded(found, now, keep)
    for one in garbage:
        assert one.pinned <= now
        if one.readable:
            assert not one.final
            assert now - one.created > keep
            assert any(o.job == one.job and o.n > one.n and o.readable and o.row for o in found)
        else:
            assert one.finished or not one.row
    rest = [one for one in found if one not in garbage]
    assert superseded(rest, now, keep) == []  # what is garbage does not depend on what was removed before
    for job in {one.job for one in found if one.readable and one.row}:
        latest = max((o for o in found if o.job == job and o.readable and o.row), key=lambda o: o.n)
        assert latest in rest


@given(snapshots, times)
def test_every_other_snapshot_is_garbage_in_the_end(found: list[Generation], keep: float) -> None:
    rest = [one for one in found if one not in superseded(found, 1000.0, keep)]
    for job in {one.job for one in rest}:
        kept = [one for one in rest if one.job == job and one.readable and not one.final and one.row]
        assert len(kept) <= 1


@given(
    st.lists(st.builds(Partial, name=names, used=st.none() | times, through=st.tuples(names))),
    st.sets(names),
    times,
    times,
)
def test_what_an_unfinished_job_refers_to_is_never_garbage(
    found: list[Partial], referred: set[str], now: float, keep: float
) -> None:
    garbage = unused(found, referred, now, keep)
    for one in found:
        wanted = one.name in referred or one.through[0] in referred
        assert (one in garbage) == (not wanted and one.used is not None and now - one.used > keep)


# snapshots


def test_superseded_snapshots_go_and_the_result_stays(bench: Bench) -> None:
    job = the_job(bench)
    view = bench.running.jobs.get(job)
    before = stored(bench, job)
    assert len(before) > 4
    assert collect(bench).snapshots == 0
    report = collect(bench, time.time() + 2 * HOUR)
    assert report.snapshots == len(before) - 1
    assert report.nbytes > 0
    assert published(bench, job) == stored(bench, job) == {view.generation}
    assert bench.running.digests(job)
    assert collect(bench, time.time() + 2 * HOUR).snapshots == 0


def test_what_a_reader_has_pinned_stays_for_an_hour(bench: Bench) -> None:
    job = the_job(bench)
    first, last = min(stored(bench, job)), max(stored(bench, job))
    now = time.time()
    assert Pins(bench.database, lambda: now + 2 * HOUR).pin(job, first).n == first
    collect(bench, now + 2.9 * HOUR)
    assert stored(bench, job) == {first, last}
    collect(bench, now + 3.1 * HOUR)
    assert stored(bench, job) == {last}
    with bench.database.read() as connection:
        assert connection.execute(select(pins)).all() == []


def test_a_reader_goes_on_reading_while_the_job_publishes_and_the_collector_collects(
    bench: Bench, files: tuple[str, ...]
) -> None:
    job = streamed(bench, files)
    reader, stop = Pins(bench.database), threading.Event()
    pinned: dict[int, bytes] = {}
    seen: set[int] = set()
    bench.rim.cluster = Paced(lambda _: len(seen))  # type: ignore[assignment]

    def read_and_collect() -> None:
        while not stop.is_set():
            there = published(bench, job)
            if there and len(pinned) < 2:
                n = reader.pin(job).n
                pinned.setdefault(n, values(bench, job, n))
            collect(bench, keep_snapshots_seconds=0.0)
            for n, before in pinned.items():
                assert reader.pin(job, n).n == n
                assert values(bench, job, n) == before
            seen.update(there)

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_and_collect)
        reading.add_done_callback(lambda _: seen.update(range(10)))
        (view,) = bench.drive(job, seconds=120.0)
        stop.set()
        reading.result()
    collect(bench, keep_snapshots_seconds=0.0)
    assert set(pinned) == {1, 2}
    assert view.generation is not None
    assert view.generation >= 5, "some came and went that nobody read"
    assert stored(bench, job) == {1, 2, view.generation}


def values(bench: Bench, job: str, n: int) -> bytes:
    return bench.rim.store.read_histogram(layout.dataset(job, n, "D"), "nominal").values.tobytes()


def test_a_snapshot_that_was_removed_is_said_to_be_gone(bench: Bench) -> None:
    job = the_job(bench)
    first, last = min(stored(bench, job)), max(stored(bench, job))
    collect(bench, keep_snapshots_seconds=0.0)
    with pytest.raises(RequestError, match="any more") as caught:
        Pins(bench.database).pin(job, first)
    assert caught.value.code == "unknown-generation"
    assert f"newest is {last}" in str(caught.value.hint)


@pytest.mark.parametrize("survives", ["manifest", "group"])
def test_a_removal_that_was_cut_short_is_finished_by_the_next_run(bench: Bench, survives: str) -> None:
    job = the_job(bench)
    last = max(stored(bench, job))

    class Dying(Store):
        """Ends its process at the first or the second removal."""

        left = int(survives == "group")

        def remove(self, key: str) -> None:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            super().remove(key)

    with pytest.raises(KeyboardInterrupt):
        gc.collect(bench.database, Dying(bench.rim.store.objects), bench.settings, time.time() + 2 * HOUR)
    assert published(bench, job) == {last}
    assert len(gc.numbers(bench.rim.store, f"jobs/{job}/g")) > 1
    collect(bench, time.time() + 2 * HOUR)
    assert stored(bench, job) == {last}


def test_what_the_ledger_has_lost_is_left_for_those_who_can_repair_it(bench: Bench) -> None:
    job = the_job(bench)
    view = bench.running.jobs.get(job)
    with bench.database.write() as connection:
        connection.execute(delete(generations))
    collect(bench, time.time() + 1000 * HOUR)
    assert view.generation in stored(bench, job)


def test_a_snapshot_that_was_never_published_goes_when_its_job_has_ended_and_its_number_is_not_used_again(
    bench: Bench,
) -> None:
    job = the_job(bench)
    view = bench.running.jobs.get(job)
    n = (view.generation or 0) + 1
    row = {"job": job, "n": n, "created": time.time(), "events": 0, "units": 0, "fraction": 0.0}
    with bench.database.write() as connection:
        connection.execute(insert(generations).values(**row))
        connection.execute(update(jobs).values(state=JobState.RUNNING))
    collect(bench, keep_snapshots_seconds=0.0)
    shutil.copytree(
        bench.rim.store.key_path(layout.generation(job, n - 1)),
        bench.rim.store.key_path(layout.generation(job, n)),
    )
    assert collect(bench, time.time() + 1000 * HOUR).snapshots == 0, "the driver may be writing it"
    with bench.database.write() as connection:
        connection.execute(update(jobs).values(state=JobState.FAILED))
    assert collect(bench).snapshots == 1
    assert not bench.rim.store.exists(layout.generation(job, n))
    assert collect(bench).snapshots == 0
    assert bench.ledger.take_over("test:1", 10.0)
    assert bench.ledger.new_generation(job) == n + 1


# partials


def test_partials_stay_for_later_jobs_until_they_were_not_used_for_long(
    bench: Bench, files: tuple[str, ...]
) -> None:
    job = the_job(bench)
    count = len(bench.rim.store.children("partials"))
    assert count > FILES * EVENTS // 1000
    assert collect(bench, time.time() + 29 * 24 * HOUR).partials == 0
    report = collect(bench, time.time() + 31 * 24 * HOUR)
    assert report.partials == count
    assert bench.rim.store.children("partials") == []
    again = bench.running.submit({"D": files}).id
    bench.drive(again)
    assert bench.running.digests(again) == bench.running.digests(job)


def test_what_could_be_freed_is_told(bench: Bench) -> None:
    collect(bench, keep_snapshots_seconds=0.0)
    store = bench.rim.store
    partials = sum(store.nbytes(layout.partial(name)) for name in store.children("partials"))
    assert collect(bench).freeable == partials
    assert collect(bench, keep_partials_days=0.0).freeable == 0


def test_what_an_unfinished_job_needs_or_may_come_upon_stays(bench: Bench) -> None:
    with bench.database.write() as connection:
        filled = set(connection.execute(select(units.c.partial)).scalars())
        merged = set(connection.execute(select(merges.c.partial).where(merges.c.level == 1)).scalars())
        # it has made its plan; nothing is filled and nothing merged
        connection.execute(update(jobs).values(state=JobState.RUNNING))
        connection.execute(update(units).values(state="pending", finished=None, base=""))
        connection.execute(delete(merges))
    assert len(merged) == 2
    collect(bench, time.time() + 1000 * HOUR * 24)
    assert filled | merged == set(bench.rim.store.children("partials")), "the sum of sums is looked for later"


@pytest.mark.parametrize("who", ["retried", "waiting", "planned anew"])
def test_a_plan_that_is_written_after_the_collector_looked_keeps_its_partials(bench: Bench, who: str) -> None:
    job, store = the_job(bench), bench.rim.store
    before = set(store.children("partials"))
    with bench.database.write() as connection:
        rows = [dict(row._mapping) for row in connection.execute(select(units).where(units.c.job == job))]
        top = set(connection.execute(select(merges.c.partial).where(merges.c.level == 2)).scalars())
        if who == "waiting":
            connection.execute(update(jobs).values(state=JobState.QUEUED, planned=False, started=None))
        if who == "planned anew":
            connection.execute(update(jobs).values(state=JobState.RUNNING, started=1.0))
        if who != "retried":
            connection.execute(delete(units))
            connection.execute(delete(merges))
    assert len(top) == 1

    class Meanwhile(Store):
        """Writes the plan when the collector has looked for references and goes on with what it found."""

        written = False

        def attributes(self, prefix: str) -> dict[str, Any]:
            if not self.written:
                self.written = True
                with bench.database.write() as connection:
                    changed = {"state": JobState.RUNNING, "planned": True, "started": 2.0}
                    connection.execute(update(jobs).values(**changed))
                    if who != "retried":
                        connection.execute(insert(units), rows)
            return super().attributes(prefix)

    settings = bench.settings.model_copy(update={"keep_partials_days": 0.0})
    gc.collect(bench.database, Meanwhile(store.objects), settings, time.time() + 1)
    assert before - set(store.children("partials")) <= top, "the sum of sums is looked for later"


def test_a_partial_of_which_no_row_tells_goes_by_its_age(bench: Bench) -> None:
    for table in (merges, units):
        with bench.database.write() as connection:
            connection.execute(delete(table))
    assert collect(bench).partials == 0
    assert collect(bench, time.time() + 31 * 24 * HOUR).partials > 0


def test_jobs_that_share_partials_never_miss_one_while_the_collector_takes_all_it_may(
    bench: Bench, files: tuple[str, ...]
) -> None:
    asked = [{"D": files}, {"D": files[:1]}, {"D": files[1:2], "E": files[:1]}]
    expected: dict[int, dict[str, str]] = {}
    with collecting(bench) as taken:
        for turn in range(4):
            kinds = (turn % 3, (turn + 1) % 3)
            submitted = [bench.running.submit(asked[kind]).id for kind in kinds]
            views = bench.drive(*submitted, seconds=120.0)
            assert [view.state for view in views] == [JobState.SUCCEEDED] * 2
            for kind, job in zip(kinds, submitted, strict=True):
                digests = bench.running.digests(job)
                assert expected.setdefault(kind, digests) == digests
    assert sum(taken) > 20, "the collector had something to do"
    with bench.database.read() as connection:
        assert connection.execute(select(job_events).where(job_events.c.kind == "unit-failed")).all() == []
        assert connection.execute(select(units).where(units.c.attempts > 1)).all() == []


@contextmanager
def collecting(bench: Bench) -> Iterator[list[int]]:
    """Let two collectors run all the time; give the numbers of partials that they remove."""
    stop, taken = threading.Event(), list[int]()
    settings = bench.settings.model_copy(update={"keep_partials_days": 0.0, "keep_snapshots_seconds": 0.0})

    def run() -> None:
        database = Database(bench.settings.database_url)
        while not stop.is_set():
            taken.append(gc.collect(database, bench.rim.store, settings, time.time()).partials)
            time.sleep(0.02)
        database.close()

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(run) for _ in range(2)]
        try:
            yield taken
        finally:
            stop.set()
        for one in running:
            one.result()


def test_others_write_while_much_is_removed(bench: Bench) -> None:
    class Slow(Store):
        def remove(self, key: str) -> None:
            time.sleep(0.03)
            super().remove(key)

    settings = bench.settings.model_copy(update={"keep_partials_days": 0.0})
    slow = Slow(bench.rim.store.objects)
    assert len(slow.children("partials")) > 10
    collector = threading.Thread(target=gc.collect, args=(bench.database, slow, settings, time.time() + 1))
    other, waits = Database(bench.settings.database_url), list[float]()
    collector.start()
    while collector.is_alive():
        begin = time.monotonic()
        with other.write():
            waits.append(time.monotonic() - begin)
        time.sleep(0.005)
    collector.join()
    other.close()
    assert waits
    assert max(waits) < 5.0  # SQLite's waiters are not served in turn


# the rest


def test_folders_of_deleted_jobs_go(bench: Bench) -> None:
    job, store = the_job(bench), bench.rim.store
    shutil.copytree(store.key_path(layout.job(job)), store.key_path(layout.job("deleted")))
    assert collect(bench).folders == 1
    assert store.children("jobs") == [job]
    assert bench.running.digests(job)


def test_the_command_says_what_it_would_remove_and_removes_it(bench: Bench) -> None:
    job = the_job(bench)
    bench.settings.model_copy(update={"keep_snapshots_seconds": 0.0, "keep_partials_days": 0.0}).save()

    def run(*words: str) -> str:
        done = CliRunner().invoke(cli.build(["gc"]), ["gc", "--home", str(bench.settings.home), *words])
        assert done.exit_code == 0, done.output
        return done.output

    before = stored(bench, job)
    told = json.loads(run("--dry-run", "--json"))
    assert stored(bench, job) == before
    assert told["snapshots"] == len(before) - 1
    assert told["partials"] == len(bench.rim.store.children("partials"))
    done = json.loads(run("--json"))
    assert {**done, "dry_run": True} == told
    assert len(stored(bench, job)) == 1
    assert "partials" in run()


def test_a_ledger_that_never_knew_a_job_removes_none(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    store = Store.open(settings.store_url)
    store.create_json("jobs/7hq2mkc3xv/m/1.json", {})
    database = Database(settings.database_url)
    database.create_tables()
    with pytest.raises(RequestError) as caught:
        gc.collect(database, store, settings, time.time())
    assert caught.value.code == "wrong-ledger"
    assert store.exists("jobs/7hq2mkc3xv/m/1.json")
    database.close()
