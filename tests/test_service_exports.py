"""Exports are made once and whole, whatever happens to the process that makes them."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import slow_format
from hand_made_service import HandMade, filled
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from binworks.service import exporting, exports, fsck, gc, layout, lease, quotas, stored
from binworks.service.access import share, unshare
from binworks.service.buckets import Bucket
from binworks.service.database import Database, files
from binworks.service.database import exports as table
from binworks.service.exports import Ask, Claim, ClaimLostError, Exports, ExportView
from binworks.service.jobs import Jobs
from binworks.service.settings import Settings
from binworks.service.store import Store
from binworks.service.stored import StoredSource
from binworks.tensors import code, export
from binworks.tensors.card import Card
from binworks.tensors.errors import BinworksError, ConflictError, RequestError, TransientError
from binworks.tensors.select import crop

pytest_plugins = ["bucket_fixture"]
DAY = 86_400.0
NORMS = [{"name": "luminosity", "processes": ["*"], "size": 1.012}]


@dataclass
class Bench:
    """A finished job of a service by hand, and processes that export."""

    made: HandMade
    job: str
    folder: Path
    exports: Exports
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def ask(self, **card: object) -> ExportView:
        spelt = Card.model_validate({"norms": NORMS, **card})
        asked = Ask(self.job, 1, "slow", spelt, {}, exports.code_digest())
        return self.exports.ask(asked, "alice")[0]

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        (self.folder / slow_format.HALF).unlink(missing_ok=True)
        script = str(Path(slow_format.__file__))
        command = [sys.executable, script, "--home", str(self.made.settings.home), "--idle", "20", *arguments]
        process = subprocess.Popen(command, env={**os.environ, slow_format.WHERE: str(self.folder)})
        self.processes.append(process)
        return process

    def until(self, what: Callable[[], object]) -> None:
        end = time.monotonic() + 60
        while not what():
            assert time.monotonic() < end
            time.sleep(0.02)

    def half(self) -> None:
        self.until((self.folder / slow_format.HALF).exists)

    def go(self, what: str = "") -> None:
        (self.folder / slow_format.GO).write_text(what)

    def get(self, view: ExportView) -> ExportView:
        return self.exports.get(self.job, view.id)

    def finished(self, view: ExportView) -> ExportView:
        self.until(lambda: self.get(view).state.finished)
        return self.get(view)

    def files(self) -> list[str]:
        below = self.made.store.objects.walk(layout.exports(self.job))
        return sorted(key for key, _ in below)

    def file(self, view: ExportView) -> str:
        """Return the key of the file that is ready."""
        return layout.export(self.job, view.id, self.row(view).fence)

    def drafts(self) -> list[str]:
        return [name for name in self.made.store.children("tmp") if name.startswith("export-")]

    def row(self, view: ExportView):  # type: ignore[no-untyped-def]
        with self.made.database.read() as connection:
            return connection.execute(select(table).where(table.c.id == view.id)).one()


@pytest.fixture(scope="module", autouse=True)
def slow() -> Iterator[None]:
    slow_format.register()
    yield
    del export.FORMATS["slow"]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a home with a finished job, and the job."""
    made = HandMade.make(tmp_path_factory.mktemp("origin") / "home")
    job = made.finished({"Wplusmunu": filled(1, groups=()), "SingleMuon": filled(3, groups=())})
    made.database.close()
    return made.settings.home, job


@pytest.fixture
def bench(tmp_path: Path, origin: tuple[Path, str]) -> Iterator[Bench]:
    """Give a copy of that home."""
    home = tmp_path / "home"
    shutil.copytree(origin[0], home)
    settings = Settings.load(home).model_copy(update={"home": home})
    settings.save()
    database = Database(settings.database_url)
    made = HandMade(settings, database, Jobs(database), Store.open(settings.store_url))
    bench = Bench(made, origin[1], tmp_path, Exports(database, limit=3))
    yield bench
    for process in bench.processes:
        process.kill()
        process.wait()
    database.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take up again at once what failed for want of space."""
    monkeypatch.setattr(exports, "BACKOFF_SECONDS", 0.0)


def test_a_kill_in_the_middle_leaves_nothing_and_the_next_makes_it(bench: Bench) -> None:
    view = bench.ask()
    first = bench.start()
    bench.half()
    assert bench.get(view).state == "running"
    assert bench.files() == []
    first.kill()
    first.wait()
    assert bench.exports.waiting(), "nobody needs to wait for a sign of life of a process that is gone"
    bench.start()
    bench.half()
    bench.go()
    done = bench.finished(view)
    assert (done.state, done.error) == ("ready", None)
    assert bench.files() == [bench.file(view)]
    assert bench.drafts() == []
    assert bench.row(view).crashes == 1
    stored = bench.made.store.read_bytes(bench.files()[0])
    assert len(stored) == done.bytes
    assert hashlib.sha256(stored).hexdigest() == done.sha256


def test_what_kills_it_three_times_has_failed_and_says_so(bench: Bench) -> None:
    view, other = bench.ask(), None
    for _ in range(exports.MOST_CRASHES):
        process = bench.start()
        bench.half()
        process.kill()
        process.wait()
    bench.go()
    other = bench.ask(inflation=2.0)
    bench.start()
    assert bench.finished(other).state == "ready", "the next one is made"
    failed = bench.get(view)
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error.code == "export-crashed"
    again = bench.ask()
    assert (again.id, again.state, again.error) == (view.id, "queued", None)
    assert bench.finished(view).state == "ready"


def test_one_that_is_told_to_end_gives_its_work_back(bench: Bench) -> None:
    view = bench.ask()
    process = bench.start()
    bench.half()
    process.terminate()
    assert process.wait(10) == 0
    assert (bench.get(view).state, bench.row(view).crashes, bench.drafts()) == ("queued", 0, [])


def test_it_does_not_outlive_its_parent(bench: Bench) -> None:
    view = bench.ask()
    process = bench.start("--parent", "1")
    assert process.wait(30) == 0
    assert bench.get(view).state == "queued"


def test_a_frozen_one_does_not_write_over_the_one_that_took_over(bench: Bench) -> None:
    view = bench.ask()
    first = bench.start()
    bench.half()
    os.kill(first.pid, signal.SIGSTOP)
    with bench.made.database.write() as connection:
        connection.execute(update(table).values(beat=time.time() - 2 * exports.STALE_SECONDS))
    bench.start()
    bench.half()
    bench.go()
    done = bench.finished(view)
    os.kill(first.pid, signal.SIGCONT)
    bench.go()
    time.sleep(1.5)
    assert first.poll() is None
    assert bench.get(view) == done
    assert bench.files() == [bench.file(view)]


def test_one_that_is_deleted_meanwhile_leaves_nothing(bench: Bench) -> None:
    view = bench.ask()
    bench.start()
    bench.half()
    bench.exports.delete(bench.job, view.id)
    other = bench.ask(inflation=3.0)
    bench.go()
    assert bench.finished(other).state == "ready"
    assert bench.files() == [bench.file(other)]
    with pytest.raises(RequestError) as gone:
        bench.get(view)
    assert gone.value.code == "unknown-export"


@pytest.mark.parametrize(
    ("what", "code"), [("large", "export-too-large"), ("wrong", "internal"), ("full", "disk-full")]
)
def test_what_goes_wrong_is_told_and_leaves_nothing(bench: Bench, quick: None, what: str, code: str) -> None:
    bench.go(what)
    claim, view = claimed(bench)
    exporter = exporting.Exporter(bench.made.settings)
    os.environ[slow_format.WHERE] = str(bench.folder)
    for _ in range(exports.MOST_FAILURES):
        exporter._make(exporting.Work(claim))
        if bench.get(view).state.finished:
            break
        claim = again(exporter)
    failed = bench.get(view)
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error.code == code
    assert "secret" not in failed.error.message
    assert failed.error.hint
    assert bench.row(view).failures == (3 if what == "full" else 1)
    assert (bench.files(), bench.drafts()) == ([], [])


def claimed(bench: Bench) -> tuple[Claim, ExportView]:
    view = bench.ask()
    claim = bench.exports.claim(lease.identity())
    assert claim is not None
    return claim, view


def again(exporter: exporting.Exporter) -> Claim:
    claim = exporter.exports.claim(lease.identity())
    assert claim is not None
    return claim


def test_memory_is_limited(bench: Bench) -> None:
    settings = bench.made.settings.model_copy(update={"export_memory": 600_000_000})
    settings.save()
    view = bench.ask()
    bench.go("large")
    bench.start()
    failed = bench.finished(view)
    assert failed.error is not None
    assert failed.error.code == "export-too-large"
    assert "600,000,000 bytes" in failed.error.message


def test_the_same_ask_is_the_same_export_and_only_its_claim_counts(bench: Bench) -> None:
    claim, view = claimed(bench)
    assert bench.ask() == bench.get(view)
    assert bench.ask(inflation=2.0).id != view.id
    bench.exports.beat(claim, 0.5)
    assert bench.get(view).progress == 0.5
    later = bench.exports.claim(lease.identity())  # the same process has begun anew
    assert later is not None
    for late in (
        lambda: bench.exports.beat(claim, 0.6),
        lambda: bench.exports.finish(claim, 1, "0"),
        lambda: bench.exports.fail(claim, BinworksError("x"), again=True),
        lambda: bench.exports.release(claim),
    ):
        with pytest.raises(ClaimLostError):
            late()
    assert bench.get(view).progress == 0.0


def test_no_number_comes_again_when_one_is_deleted_and_asked_for_again(bench: Bench) -> None:
    first, view = claimed(bench)
    store = bench.made.store
    store.objects.create(layout.export(bench.job, view.id, first.fence), b"old")
    known = bench.exports.delete(bench.job, view.id)
    second, _ = claimed(bench)
    assert second.fence > first.fence
    bench.exports.release(second)
    store.objects.create(layout.export(bench.job, view.id, second.fence), b"new")
    for left in exports.attempts(store, bench.job, view.id, known):
        store.remove(left)
    assert bench.files() == [layout.export(bench.job, view.id, second.fence)], "it is not the deleted one's"


def test_a_claim_is_its_holders(bench: Bench) -> None:
    claim, view = claimed(bench)
    with pytest.raises(ClaimLostError):
        bench.exports.finish(replace(claim, holder="elsewhere:1"), 1, "0")
    assert bench.get(view).state == "running"


def test_who_ends_late_removes_no_file_of_a_later_claim(bench: Bench) -> None:
    view, store = ready(bench), bench.made.store
    later = layout.export(bench.job, view.id, bench.row(view).fence + 5)
    store.objects.create(later, b"another")
    with bench.made.database.write() as connection:
        connection.execute(update(table).values(state="queued"))
    claim = bench.exports.claim(lease.identity())
    assert claim is not None
    exporting.Exporter(bench.made.settings)._make(exporting.Work(claim))
    assert bench.files() == [bench.file(view), later]


def test_the_collector_leaves_the_file_of_a_later_claim(bench: Bench) -> None:
    view, made = ready(bench), bench.made
    later = layout.export(bench.job, view.id, bench.row(view).fence + 5)
    made.store.objects.create(later, b"another")
    gc.collect(made.database, made.store, made.settings, time.time() + 8 * DAY)
    assert bench.files() == [later]


def test_an_owner_has_so_many_at_a_time(bench: Bench) -> None:
    for inflation in (1.0, 2.0, 3.0):
        bench.ask(inflation=inflation)
    assert bench.ask(inflation=1.0).state == "queued"
    with pytest.raises(ConflictError) as many:
        bench.ask(inflation=4.0)
    assert many.value.code == "too-many-exports"
    listed = bench.exports.list(bench.job, limit=2)
    rest = bench.exports.list(bench.job, limit=2, cursor=listed.next)
    asked = [bench.exports.get(bench.job, one.id) for one in (*listed.exports, *rest.exports)]
    assert [one.card["inflation"] for one in asked] == [3.0, 2.0, 1.0]
    assert rest.next is None


def test_new_code_writes_nothing_under_the_name_of_old_code(bench: Bench) -> None:
    old = Ask(bench.job, 1, "slow", Card(), {}, "older")
    first, _ = bench.exports.ask(old, "alice")
    bench.go()
    bench.start()
    second = bench.ask()
    assert second.id != first.id
    assert bench.finished(second).state == "ready"
    failed = bench.get(first)
    assert failed.error is not None
    assert (failed.state, failed.error.code) == ("failed", "code-differs")
    assert bench.files() == [bench.file(second)]


def test_a_process_whose_sources_change_on_the_disk_writes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    exporter = exporting.Exporter(bench.made.settings)
    changed = tmp_path / "stored.py"
    changed.write_text("# newer\n")
    monkeypatch.setattr(stored, "__file__", str(changed))
    monkeypatch.setenv(slow_format.WHERE, str(bench.folder))
    bench.go()
    view = bench.ask()
    assert exporter._claim() is None
    assert exporter.outdated, "the next process has the new sources"
    assert (bench.get(view).state, bench.row(view).crashes) == ("queued", 0)
    claim = again(exporter)
    assert claim.code != exporter.code
    exporter._make(exporting.Work(claim))
    failed = bench.get(view)
    assert failed.error is not None
    assert (failed.error.code, bench.files()) == ("code-differs", [])


def test_what_reads_stored_sums_and_the_libraries_that_write_belong_to_the_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = exports.code_digest()
    assert exports.code_digest() == before
    for library in ("h5py", "hist", "uhi", "numpy"):
        with monkeypatch.context() as newer:
            for module in (exports, code):
                newer.setattr(
                    module, "version", lambda name, newer=library: "9" if name == newer else version(name)
                )
            assert exports.code_digest() != before


class Shaken(Exports):
    """Hears some ends of work badly: the database fails before it has written, or after."""

    def __init__(self, database: Database, fails: Iterable[str]) -> None:
        super().__init__(database)
        self.fails = list(fails)

    def finish(self, claim: Claim, nbytes: int, sha256: str) -> None:
        how = self.fails.pop(0) if self.fails else "well"
        if how != "before":
            super().finish(claim, nbytes, sha256)
        if how != "well":
            raise OperationalError("commit", None, OSError("gone"))


@pytest.mark.parametrize(
    ("fails", "attempts"),
    [(["before"] * 2, 1), (["after"], 1), (["before", "after"], 1), (["before"] * 5, 2)],
)
def test_a_file_that_is_made_is_not_lost_when_the_database_fails_for_a_moment(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fails: list[str], attempts: int
) -> None:
    monkeypatch.setattr(exporting, "FINISH_PAUSES", (0.0,) * 4)
    monkeypatch.setenv(slow_format.WHERE, str(bench.folder))
    bench.go()
    view = bench.ask()
    fence = bench.row(view).fence
    exporter = exporting.Exporter(bench.made.settings)
    exporter.exports = Shaken(bench.made.database, fails)
    while (claim := exporter._claim()) is not None:
        exporter._make(exporting.Work(claim))
    done = bench.row(view)
    assert (done.state, done.crashes, done.fence) == ("ready", 0, fence + attempts)
    assert bench.files() == [bench.file(view)]


def test_what_killed_processes_left_is_removed_after_a_day(
    tmp_path: Path, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for store in (Store(Bucket(bucket_url)), Store.open(str(tmp_path / "store"))):
        old, new = store.scratch("export-a-1"), store.scratch("export-b-2")
        other = old.with_name(old.name.replace("export", "other"))
        for folder in (old, new, other):
            folder.mkdir(parents=True)
            (folder / "file").write_bytes(b"half")
            if folder != new:
                os.utime(folder, (time.time() - 2 * DAY,) * 2)
        exporting.remove_leftovers(store, time.time())
        assert [folder.exists() for folder in (old, new, other)] == [False, True, True]


def test_it_is_the_turn_of_who_had_fewest_made(bench: Bench) -> None:
    now = [time.time()]
    kept = Exports(bench.made.database, clock=lambda: now[0])
    for owner, inflations in (("alice", (1.0, 2.0, 3.0)), ("bob", (4.0, 5.0)), ("carol", (6.0,))):
        for inflation in inflations:
            kept.ask(Ask(bench.job, 1, "slow", Card(inflation=inflation), {}, exports.code_digest()), owner)
            now[0] += 1
    turns = []
    for maker in range(6):
        claim = kept.claim(f"elsewhere:{maker}")
        assert claim is not None
        turns.append(claim.card.inflation)
        kept.finish(claim, 1, "0" * 64)
    assert turns == [1.0, 4.0, 6.0, 2.0, 5.0, 3.0]


def test_what_takes_too_long_has_failed_and_the_next_is_made(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = bench.ask()
    monkeypatch.setenv(slow_format.LONGEST, "1")
    process = bench.start()
    assert process.wait(60) == 0
    failed = bench.get(view)
    assert failed.error is not None
    assert (failed.state, failed.error.code) == ("failed", "export-too-long")
    assert (bench.row(view).crashes, bench.files(), bench.drafts()) == (0, [], [])
    bench.go()
    other = bench.ask(inflation=2.0)
    bench.start()
    assert bench.finished(other).state == "ready"


@pytest.mark.parametrize(
    "many",
    [
        {"rules": [{"match": "x"}] * 1001},
        {"norms": [{"name": f"n{i}", "processes": ["*"], "size": 1.1} for i in range(1001)]},
        {"processes": {f"p{i}": ["Wplusmunu"] for i in range(1001)}},
        {"floating": [f"p{i}" for i in range(1001)]},
        {"systematics": ["mass"] * 1001},
        {"rules": [{"match": "x", "groups": ["x"] * 101}]},
        {"channels": [{"mask": list(range(100_001))}]},
    ],
)
def test_a_card_has_its_limits(many: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as error:
        Card.read(many)
    assert error.value.code == "bad-card"


def test_a_card_that_no_longer_fits_is_shown_and_fails_without_harm_to_others(bench: Bench) -> None:
    old, other = bench.ask(), bench.ask(inflation=2.0)
    stored = {"channels": [], "colour": "blue"}
    with bench.made.database.write() as connection:
        connection.execute(update(table).where(table.c.id == old.id).values(card=stored, format="older"))
    assert bench.get(old).card == stored
    assert [one.id for one in bench.exports.list(bench.job).exports] == [other.id, old.id]
    claim = bench.exports.claim(lease.identity())
    assert claim is not None
    assert claim.id == other.id
    failed = bench.get(old)
    assert failed.error is not None
    assert (failed.state, failed.error.code) == ("failed", "bad-card")


def test_the_bytes_of_an_export_are_those_of_who_asked_for_it(bench: Bench) -> None:
    view, made = ready(bench), bench.made
    asked = Ask(bench.job, 1, "slow", Card(inflation=2.0), {}, exports.code_digest())

    def used(owner: str) -> int:
        with made.database.read() as connection:
            return quotas.stored_bytes(connection, owner, time.time())

    before = used("alice")
    with made.database.write() as connection:
        connection.execute(update(table).where(table.c.id == view.id).values(owner="bob"))
    assert (used("alice"), used("bob")) == (before - (view.bytes or 0), view.bytes)
    limits = quotas.Limits(stored_bytes=view.bytes)
    with pytest.raises(ConflictError) as much:
        Exports(made.database, limits=limits).ask(asked, "bob")
    assert much.value.code == "too-much-stored"
    Exports(made.database, limits=limits).ask(asked, "carol")
    bench.exports.lost(view.id, bench.row(view).fence)
    assert used("bob") == 0


def test_who_asked_for_an_export_and_who_owns_the_job_may_delete_it(bench: Bench) -> None:
    share(bench.made.database, bench.job, "bob", "alice")
    share(bench.made.database, bench.job, "carol", "alice")
    views = []
    for inflation in (1.0, 2.0):
        asked = Ask(bench.job, 1, "slow", Card(inflation=inflation), {}, exports.code_digest())
        views.append(bench.exports.ask(asked, "bob")[0].id)
    for owner, expected in (("carol", "not-yours"), ("dan", "unknown-job")):
        with pytest.raises(RequestError) as error:
            bench.exports.delete(bench.job, views[0], owner)
        assert error.value.code == expected
    bench.exports.delete(bench.job, views[0], "alice")
    unshare(bench.made.database, bench.job, "bob", "alice")
    bench.exports.delete(bench.job, views[1], "bob")
    with pytest.raises(RequestError) as error:
        bench.exports.delete(bench.job, views[1], "alice")
    assert error.value.code == "unknown-export"


def ready(bench: Bench, **card: object) -> ExportView:
    bench.go()
    os.environ[slow_format.WHERE] = str(bench.folder)
    view = bench.ask(**card)
    claim = bench.exports.claim(lease.identity())
    assert claim is not None
    exporting.Exporter(bench.made.settings)._make(exporting.Work(claim))
    done = bench.get(view)
    assert done.state == "ready", done.error
    return done


def test_one_that_nobody_read_is_collected_and_made_again_on_demand(bench: Bench) -> None:
    old, read = ready(bench), ready(bench, inflation=2.0)
    now = time.time() + 8 * DAY
    Exports(bench.made.database, clock=lambda: now - DAY).file(bench.job, read.id)
    store, settings = bench.made.store, bench.made.settings
    assert gc.collect(bench.made.database, store, settings, now, dry_run=True).exports == 1
    assert len(bench.files()) == 2
    report = gc.collect(bench.made.database, store, settings, now)
    assert (report.exports, report.nbytes) == (1, old.bytes)
    assert bench.files() == [bench.file(read)]
    assert ready(bench).sha256 == old.sha256


def test_files_without_a_row_are_collected(bench: Bench) -> None:
    view, store = ready(bench), bench.made.store
    for key in (layout.export(bench.job, view.id, 0), layout.export(bench.job, "f00", 1)):
        store.objects.create(key, b"left")
    gc.collect(bench.made.database, store, bench.made.settings, time.time(), thorough=True)
    assert bench.files() == [bench.file(view)]


def test_a_deleted_job_takes_its_exports_along(bench: Bench) -> None:
    ready(bench)
    bench.made.jobs.delete(bench.job)
    with bench.made.database.read() as connection:
        assert connection.execute(select(table)).all() == []
    with bench.made.database.write() as connection:  # a ledger that never knew a file would not be believed
        row = {"path": "/data/f.root", "size": 1, "mtime_ns": 1, "info": {}}
        connection.execute(files.insert().values(row))
    gc.collect(bench.made.database, bench.made.store, bench.made.settings, time.time())
    assert bench.files() == []


@pytest.mark.parametrize("quick", [False, True])
def test_a_damaged_file_is_found_and_forgotten(bench: Bench, quick: bool) -> None:
    view, made = ready(bench), bench.made
    path = made.store.key_path(bench.file(view))
    content = path.read_bytes()
    path.write_bytes(content[:-1] if quick else content[:-1] + b"!")
    report = fsck.check(made.database, made.store, made.settings, quick=quick)
    (found,) = (f for f in report.findings if f.kind == "export-damaged")
    assert found.name == view.id
    report = fsck.check(made.database, made.store, made.settings, quick=quick, repair=True)
    assert [f.outcome for f in report.findings if f.kind == "export-damaged"] == ["repaired"]
    assert bench.files() == []
    assert ready(bench).id == view.id


def test_a_large_file_is_put_whole_into_a_bucket_or_from_another_disk(
    tmp_path: Path, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(range(256)) * 100_000
    for store in (Store(Bucket(bucket_url)), Store.open(str(tmp_path / "store"))):
        source = store.scratch("export-a-1")
        source.parent.mkdir(exist_ok=True)
        source.write_bytes(content)
        store.put_file("jobs/a/x/b/1", source)
        with store.opened("jobs/a/x/b/1", "jobs/a/x/b") as file:
            assert file.size == len(content)
            assert file.read(10_000_000, 10_000_100) == content[10_000_000:10_000_100]
        source.unlink(missing_ok=True)

    def elsewhere(self: Path, target: Path, rename: Callable[[Path, Path], Path] = Path.rename) -> Path:
        if self.name == "far":
            raise OSError(18, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", elsewhere)
    far = tmp_path / "far"
    far.write_bytes(content)
    store.put_file("jobs/a/x/b/2", far)
    assert store.read_bytes("jobs/a/x/b/2") == content


def test_a_part_of_stored_sums_is_the_part_of_what_is_read_whole(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = StoredSource(bench.made.store, bench.job, 1)
    for select_ in ({"mt": 2, "relIso": 0}, {"pt": (3, 9), "charge": 1}, {}):
        whole = crop(filled(1, groups=()).histograms["nominal"], select_)
        for limit in (10**9, 0):
            monkeypatch.setattr("binworks.service.store.WHOLE_BYTES", limit)
            part = source.sums("Wplusmunu", "nominal", select_)
            assert part.axes == whole.axes
            assert (part.values == whole.values).all()
            assert (part.variances == whole.variances).all()
    with pytest.raises(RequestError) as error:
        source.sums("Wplusmunu", "nominal", {"mt": 9})
    assert error.value.code == "unknown-bin"
    assert source.axes("Wplusmunu", "nominal") == filled(1, groups=()).histograms["nominal"].axes


def test_passing_trouble_is_told_from_lasting_trouble(bench: Bench) -> None:
    claim, _ = claimed(bench)
    told = exporting.explained(TransientError("x", code="store-read-failed"), claim, bench.made.settings)
    assert isinstance(told, TransientError)
    cause = ValueError("h5")
    cause.__cause__ = OSError("[Errno 28] No space left on device")
    assert exporting.explained(cause, claim, bench.made.settings).code == "disk-full"
