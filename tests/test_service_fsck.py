"""What breaks on a disk is found, and mended to the last bit where that can be; nothing is made worse on the way."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from driver_bench import Bench, benches
from service_toys import registered, write_all
from sqlalchemy import delete, insert, select, update
from typer.testing import CliRunner

from binworks.client import cli
from binworks.service import conduct, fsck, layout, rim
from binworks.service.database import generations, jobs, lease, merges, units
from binworks.service.folders import Folder
from binworks.service.model import JobState, UnitState
from binworks.service.soundness import Finding
from binworks.service.store import Store

FILES, EVENTS = 3, 3500


@pytest.fixture(scope="module", autouse=True)
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with registered(tmp_path_factory.mktemp("toys")):
        yield


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home in which a job was done."""
    folder = tmp_path_factory.mktemp("origin")
    with pytest.MonkeyPatch.context() as patch, benches(folder) as make:
        patch.setattr(rim, "TICK_SECONDS", 0.01)
        bench = make()
        files = write_all(folder / "data", FILES, EVENTS)
        (view,) = bench.drive(bench.running.submit({"D": files, "E": files[:1]}).id)
        assert view.complete
        bench.settings.save()
    return folder


@pytest.fixture
def make(tmp_path: Path, origin: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Bench]]:
    """Give what makes benches in a copy of that home."""
    monkeypatch.setattr(rim, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(conduct, "SNAPSHOT_SHARE", 0.0)
    home = tmp_path / "home"
    shutil.copytree(origin, home)
    with benches(home) as one:
        yield one


@pytest.fixture
def bench(make: Callable[[], Bench]) -> Bench:
    bench = make()
    bench.settings.save()
    return bench


def check(bench: Bench, **how: bool) -> fsck.Report:
    return fsck.check(bench.database, bench.rim.store, bench.settings, **how)


def damage(report: fsck.Report) -> list[Finding]:
    return [finding for finding in report.findings if finding.level == "damage"]


def the_job(bench: Bench) -> str:
    with bench.database.read() as connection:
        return str(connection.execute(select(jobs.c.id)).scalar_one())


def latest(bench: Bench) -> tuple[str, int]:
    job = the_job(bench)
    return job, bench.running.jobs.generations(job)[-1].n


def path(bench: Bench, key: str) -> Path:
    return bench.rim.store.key_path(key)


def chunk(bench: Bench, key: str) -> Path:
    """Return the file of the sums of a group."""
    return next(
        found for found in sorted(path(bench, f"{key}/nominal/values").iterdir()) if found.suffix != ".json"
    )


# ways to break a file


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


BREAKS = {"truncated": truncate, "flipped": flip, "deleted": Path.unlink}


@pytest.mark.parametrize("quick", [True, False])
def test_a_sound_store_is_sound(bench: Bench, quick: bool) -> None:
    report = check(bench, quick=quick)
    assert report.findings == []
    assert report.sound
    assert report.checked["jobs"] == 1
    assert report.checked["partials"] > FILES * EVENTS // 1000


# snapshots


def break_root(bench: Bench, job: str, n: int) -> None:
    path(bench, f"{layout.generation(job, n)}/zarr.json").unlink()


def stale_root(bench: Bench, job: str, n: int) -> None:
    file = path(bench, f"{layout.generation(job, n)}/zarr.json")
    root = json.loads(file.read_text())
    root["consolidated_metadata"]["metadata"].popitem()
    file.write_text(json.dumps(root))


def torn_root(bench: Bench, job: str, n: int) -> None:
    truncate(path(bench, f"{layout.generation(job, n)}/zarr.json"))


def no_data_set(bench: Bench, job: str, n: int) -> None:
    shutil.rmtree(path(bench, layout.dataset(job, n, "E")))


def no_manifest(bench: Bench, job: str, n: int) -> None:
    path(bench, layout.manifest(job, n)).unlink()


def torn_manifest(bench: Bench, job: str, n: int) -> None:
    truncate(path(bench, layout.manifest(job, n)))


def no_row(bench: Bench, job: str, n: int) -> None:
    with bench.database.write() as connection:
        connection.execute(delete(generations).where(generations.c.n == n))


def unpublished_row(bench: Bench, job: str, n: int) -> None:
    with bench.database.write() as connection:
        connection.execute(update(generations).where(generations.c.n == n).values(published=False, events=0))


def other_row(bench: Bench, job: str, n: int) -> None:
    with bench.database.write() as connection:
        connection.execute(update(generations).where(generations.c.n == n).values(complete=False, events=7))


def all_gone(bench: Bench, job: str, n: int) -> None:
    break_root(bench, job, n)
    no_data_set(bench, job, n)
    no_row(bench, job, n)
    flip(chunk(bench, layout.dataset(job, n, "D")))


HARM: dict[str, tuple[Callable[[Bench, str, int], None], str]] = {
    **{
        name: (lambda bench, job, n, b=b: b(chunk(bench, layout.dataset(job, n, "D"))), "data-set-damaged")
        for name, b in BREAKS.items()
    },
    "no root": (break_root, "metadata-differ"),
    "stale root": (stale_root, "metadata-differ"),
    "torn root": (torn_root, "metadata-differ"),
    "no data set": (no_data_set, "data-set-damaged"),
    "no manifest": (no_manifest, "manifest-damaged"),
    "torn manifest": (torn_manifest, "manifest-damaged"),
    "no row": (no_row, "row-missing"),
    "unpublished row": (unpublished_row, "row-missing"),
    "other row": (other_row, "row-differs"),
    "many things": (all_gone, "row-missing"),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_snapshot_is_found_and_mended_to_the_last_bit(bench: Bench, harm: str) -> None:
    job, n = latest(bench)
    digests, row = bench.running.digests(job), bench.running.jobs.generations(job)
    manifest = path(bench, layout.manifest(job, n)).read_text()
    root = path(bench, f"{layout.generation(job, n)}/zarr.json").read_text()
    do, kind = HARM[harm]
    do(bench, job, n)
    found = check(bench)
    assert kind in {finding.kind for finding in damage(found)}
    assert not found.sound
    mended = check(bench, repair=True)
    assert mended.sound, mended.findings
    assert {finding.outcome for finding in damage(mended)} == {"repaired"}
    assert damage(check(bench)) == []
    assert bench.running.digests(job) == digests
    for before, now in zip(row, bench.running.jobs.generations(job), strict=True):
        assert now.model_copy(update={"created": before.created}) == before
        assert abs(now.created - before.created) < timedelta(seconds=1)
    assert json.loads(path(bench, layout.manifest(job, n)).read_text()) == json.loads(manifest)
    assert json.loads(path(bench, f"{layout.generation(job, n)}/zarr.json").read_text()) == json.loads(root)


def test_a_flipped_bit_is_not_seen_quickly(bench: Bench) -> None:
    job, n = latest(bench)
    flip(chunk(bench, layout.dataset(job, n, "D")))
    assert check(bench, quick=True).findings == []
    no_data_set(bench, job, n)
    assert {finding.kind for finding in damage(check(bench, quick=True))} == {
        "data-set-damaged",
        "metadata-differ",
    }


@pytest.mark.parametrize("left", ["units", "merges", "nothing"])
def test_a_data_set_is_made_from_what_is_left_or_said_to_be_lost(bench: Bench, left: str) -> None:
    job, n = latest(bench)
    digests = bench.running.digests(job)
    with bench.database.read() as connection:
        filled = set(connection.execute(select(units.c.partial)).scalars())
        merged = set(connection.execute(select(merges.c.partial)).scalars())
    for name in {"units": merged, "merges": filled, "nothing": filled | merged}[left]:
        shutil.rmtree(path(bench, layout.partial(name)))
    shutil.rmtree(path(bench, layout.dataset(job, n, "D")))
    report = check(bench, repair=True)
    if left == "nothing":
        assert not report.sound
        (lost,) = [finding for finding in damage(report) if finding.kind == "data-set-damaged"]
        assert lost.outcome == "lost"
        assert "submit the job again" in str(lost.hint)
        again = check(bench, repair=True)
        assert [finding.place for finding in damage(again)] == [finding.place for finding in damage(report)]
    else:
        assert report.sound, report.findings
        assert bench.running.digests(job) == digests


def test_a_manifest_that_counts_other_entries_than_the_ledger_is_no_result(bench: Bench) -> None:
    with bench.database.write() as connection:
        connection.execute(update(units).where(units.c.unit == 3).values(entries=999))
    report = check(bench, repair=True)
    assert {(found.kind, found.outcome) for found in damage(report)} == {("entries-differ", "lost")}
    assert "999" in damage(report)[0].message


def test_a_damaged_expansion_is_found(bench: Bench) -> None:
    job, _ = latest(bench)
    key = layout.expansion(job, "some")
    bench.rim.store.write_arrays(key, {"column": np.arange(5000)}, {})
    assert check(bench).sound
    flip(next(found for found in path(bench, f"{key}/column").iterdir() if found.suffix != ".json"))
    (found,) = damage(check(bench))
    assert (found.kind, found.where) == ("expansion-damaged", key)


def test_what_was_never_published_is_garbage_and_no_damage(bench: Bench) -> None:
    job, n = latest(bench)
    row = {"job": job, "n": n + 1, "created": 0.0, "events": 0, "units": 0, "fraction": 0.0}
    with bench.database.write() as connection:
        connection.execute(insert(generations).values(**row))
    shutil.copytree(path(bench, layout.generation(job, n)), path(bench, layout.generation(job, n + 1)))
    shutil.copytree(path(bench, layout.job(job)), path(bench, layout.job("deleted")))
    sums = bench.rim.store.children("partials")[0]
    shutil.copytree(path(bench, layout.partial(sums)), path(bench, layout.partial("ab" * 32)))
    report = check(bench)
    assert report.sound
    assert {finding.kind for finding in report.findings} == {
        "abandoned-snapshot",
        "orphan-folder",
        "orphan-partial",
    }


# partials


@pytest.mark.parametrize("harm", [*BREAKS, "rootless"])
def test_a_damaged_partial_of_a_finished_job_is_put_aside_and_made_again_by_the_next(
    bench: Bench, harm: str
) -> None:
    job = the_job(bench)
    name = bench.running.units(job)
    assert name
    with bench.database.read() as connection:
        partial = connection.execute(select(units.c.partial)).scalars().first()
    key = layout.partial(str(partial))
    if harm == "rootless":
        path(bench, f"{key}/zarr.json").unlink()
    else:
        BREAKS[harm](chunk(bench, key))
    (found,) = damage(check(bench))
    assert (found.kind, found.where) == ("partial-damaged", key)
    assert check(bench, repair=True).sound
    assert damage(check(bench)) == []
    again = bench.running.submit(asked(bench)).id
    bench.drive(again)
    assert bench.running.digests(again) == bench.running.digests(job)
    assert check(bench).sound


def asked(bench: Bench) -> dict[str, tuple[str, ...]]:
    files = tuple(str(found) for found in sorted((bench.settings.home / "data").iterdir()))
    return {"D": files, "E": files[:1]}


def unfinish(bench: Bench) -> str:
    """Let the job be one that the driver has not finished; return it."""
    job = the_job(bench)
    with bench.database.write() as connection:
        connection.execute(
            update(jobs).values(state=JobState.RUNNING, finished=None, story=[["running", 0, ""]])
        )
        connection.execute(delete(generations))
    shutil.rmtree(path(bench, f"{layout.job(job)}/g"))
    shutil.rmtree(path(bench, f"{layout.job(job)}/m"))
    return job


@pytest.mark.parametrize("table", [units, merges])
@pytest.mark.parametrize("harm", BREAKS)
def test_what_an_unfinished_job_lacks_is_filled_again(bench: Bench, harm: str, table: Any) -> None:
    before = bench.running.digests(the_job(bench))
    job = unfinish(bench)
    with bench.database.read() as connection:
        name = str(connection.execute(select(table.c.partial).order_by(table.c.id)).scalars().first())
    key = layout.partial(name)
    if harm == "deleted":
        shutil.rmtree(path(bench, key))
    else:
        BREAKS[harm](chunk(bench, key))
    found = damage(check(bench))
    assert [(finding.where, finding.needed) for finding in found] == [(key, True)]
    assert check(bench, repair=True).sound
    assert damage(check(bench)) == []
    (view,) = bench.drive(job)
    assert view.complete
    assert bench.running.digests(job) == before
    assert check(bench).sound


def test_units_are_not_touched_while_a_driver_is_at_work(bench: Bench) -> None:
    unfinish(bench)
    with bench.database.read() as connection:
        key = layout.partial(str(connection.execute(select(units.c.partial)).scalars().first()))
    flip(chunk(bench, key))
    assert bench.ledger.take_over("elsewhere:1", 10.0)
    report = check(bench, repair=True)
    (found,) = damage(report)
    assert found.outcome == "refused"
    assert "stop the service" in str(found.hint)
    assert bench.rim.store.exists(key)
    bench.ledger.renew(10.0)  # it is still the driver
    bench.ledger.renew(0.0)
    assert check(bench, repair=True).sound


def test_a_driver_that_slept_cannot_write_after_units_were_reopened(bench: Bench) -> None:
    job = unfinish(bench)
    sleeper = bench.ledger
    assert sleeper.take_over("elsewhere:1", 0.0)
    with bench.database.read() as connection:
        key = layout.partial(str(connection.execute(select(units.c.partial)).scalars().first()))
    flip(chunk(bench, key))
    assert check(bench, repair=True).sound
    with pytest.raises(RuntimeError, match="lease"):
        sleeper.new_generation(job)
    states = {unit.state for unit in bench.running.units(job)}
    assert states == {UnitState.DONE, UnitState.PENDING}


# the rest


def test_a_damaged_index_is_removed(bench: Bench) -> None:
    names = bench.rim.store.children("indexes")
    flip(path(bench, f"indexes/{names[0]}"))
    (found,) = damage(check(bench))
    assert found.kind == "index-damaged"
    assert check(bench, repair=True).sound
    assert bench.rim.store.children("indexes") == names[1:]
    assert damage(check(bench)) == []


class Dying(Folder):
    """A folder whose process ends at a given change, before or after it was made."""

    def __init__(self, root: Path, last: int, *, after: bool) -> None:
        super().__init__(root)
        self.left, self.after = last, after

    def create(self, key: str, data: bytes) -> bool:
        return bool(self._change(lambda: Folder.create(self, key, data)))

    def remove(self, key: str) -> None:
        self._change(lambda: Folder.remove(self, key))

    def put_aside(self, prefix: str) -> None:
        self._change(lambda: Folder.put_aside(self, prefix))

    def _change(self, do: Callable[[], Any]) -> Any:
        self.left -= 1
        if not self.left and not self.after:
            raise KeyboardInterrupt
        done = do()
        if not self.left:
            raise KeyboardInterrupt
        return done


@pytest.mark.parametrize("after", [False, True])
def test_a_repair_that_is_cut_short_anywhere_is_finished_by_the_next(bench: Bench, after: bool) -> None:
    job, n = latest(bench)
    digests = bench.running.digests(job)
    for last in range(1, 50):
        all_gone(bench, job, n)
        no_data_set_left = path(bench, layout.dataset(job, n, "E"))
        assert not no_data_set_left.exists()
        store = Store(Dying(bench.rim.store.root, last, after=after))
        try:
            report = fsck.check(bench.database, store, bench.settings, repair=True)
        except KeyboardInterrupt:
            assert check(bench, repair=True).sound
            assert damage(check(bench)) == []
            assert bench.running.digests(job) == digests
        else:
            assert report.sound
            assert last > 5
            return
    raise AssertionError("it never ends")


def test_a_service_at_work_is_sound_at_every_moment(bench: Bench) -> None:
    reports: list[fsck.Report] = []
    files = write_all(bench.settings.home / "more", FILES, EVENTS)
    job = bench.running.submit({"F": files}, options={"pause": 0.2}).id
    bench.drive(job, meanwhile=lambda: reports.append(check(bench, repair=len(reports) % 2 == 0)))
    assert len(reports) > 5
    assert [damage(report) for report in reports if damage(report)] == []


@pytest.mark.parametrize("moment", ["submitted", "running", "finalizing"])
def test_a_store_that_is_newer_than_the_restored_ledger_is_brought_together_with_it(
    make: Callable[[], Bench], moment: str
) -> None:
    bench = make()
    backup = bench.settings.home / "backup.sqlite"
    files = write_all(bench.settings.home / "more", FILES, EVENTS)
    job = bench.running.submit({"F": files}, options={"pause": 0.3}).id

    def save() -> None:
        view = bench.running.jobs.get(job)
        reached = {
            "submitted": True,
            "running": view.generation,
            "finalizing": view.counts.events.done > 9000,
        }
        if not backup.exists() and reached[moment] and not view.state.finished:
            with closing(sqlite3.connect(bench.settings.home / "jobs.sqlite")) as ours:
                ours.execute("VACUUM INTO ?", (str(backup),))

    save()
    bench.drive(job, meanwhile=save)
    digests = bench.running.digests(job)
    bench.database.close()
    for file in bench.settings.home.glob("jobs.sqlite*"):
        file.unlink()
    backup.rename(bench.settings.home / "jobs.sqlite")
    restored = make()
    with restored.database.write() as connection:
        connection.execute(update(lease).values(expires=0.0))  # that driver ended long ago
    assert check(restored, repair=True).sound
    assert damage(check(restored)) == []
    restored.drive(job)
    assert restored.running.digests(job) == digests
    assert restored.running.jobs.get(job).complete
    assert damage(check(restored)) == []


def run(bench: Bench, *words: str) -> Result:
    return CliRunner().invoke(cli.build(["fsck"]), ["fsck", "--home", str(bench.settings.home), *words])


def test_the_command_shows_what_is_wrong_and_returns_1(bench: Bench) -> None:
    assert run(bench).exit_code == 0
    job, n = latest(bench)
    no_data_set(bench, job, n)
    shown = run(bench)
    assert shown.exit_code == 1
    assert "data-set-damaged" in shown.output
    assert "DAMAGED" in shown.output
    told = run(bench, "--json", "--quick")
    assert told.exit_code == 1
    document = json.loads(told.stdout)
    assert document["sound"] is False
    assert {"data-set-damaged", "metadata-differ"} == {found["kind"] for found in document["findings"]}
    assert run(bench, "--repair").exit_code == 0
    assert json.loads(run(bench, "--json").stdout)["sound"] is True


def test_a_damaged_database_is_said_to_be_damaged(bench: Bench) -> None:
    bench.database.close()
    file = bench.settings.home / "jobs.sqlite"
    for beside in bench.settings.home.glob("jobs.sqlite-*"):
        beside.unlink()
    content = bytearray(file.read_bytes())
    content[8192:12288] = b"\xff" * 4096
    file.write_bytes(content)
    shown = run(bench, "--json")
    assert shown.exit_code == 1
    assert json.loads(shown.stdout)["findings"][0]["kind"] == "database-damaged"
    file.write_bytes(b"no database at all" * 1000)
    assert run(bench).exit_code == 1
