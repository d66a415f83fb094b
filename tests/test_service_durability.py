"""What is acknowledged is on disk: told by the system calls of the real processes, not by their word."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import traced_disk
from chaos.upkept import Upkept, reach
from service_toys import UNIT_EVENTS, registered, write_all
from sqlalchemy import text
from traced_disk import Call, Disk, calls

from binworks.service import layout

REASON = traced_disk.why_not()
pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=f"system calls cannot be traced: {REASON}"),
    pytest.mark.faults,
]


@dataclass
class Traced:
    """A job that was done under the eyes of strace.

    Parameters
    ----------
    calls : sequence
        Of all processes of the service, in order.
    store, wal : str
        Folder of the store; the database's log.
    job : str
        Its id.
    receipts : dict
        Key of each partial, and the digest in its receipt.
    published : dict
        Number of each snapshot, and the event that tells of it, as it stands in the database.
    """

    calls: Sequence[Call]
    store: str
    wal: str
    job: str
    receipts: dict[str, str]
    published: dict[int, str]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    folder = tmp_path_factory.mktemp("traced").resolve()
    trace = folder / "trace"
    options = ["--unit-events", UNIT_EVENTS, "--data-root", folder / "data"]
    files = {"D": write_all(folder / "data", 2, 3000)}
    with registered(folder / "toys"):
        service = Upkept(
            folder / "home", 1, options, traced_disk.command(trace), snapshot_seconds=0.5, backoff_seconds=0.2
        )
        service.start()
        try:
            job = service.submit(files, "traced", options={"pause": 0.3})
            view = reach(lambda: (v := service.jobs.get(job)).state.finished and v, "the job ends", 200.0)
            assert view.complete, view
            receipts, published = _told(service, job)
        finally:
            service.stop()
            service.database.close()
    with trace.open(errors="replace") as lines:
        found = list(calls(lines))
    return Traced(found, f"{folder}/home/store", f"{folder}/home/jobs.sqlite-wal", job, receipts, published)


def _told(service: Upkept, job: str) -> tuple[dict[str, str], dict[int, str]]:
    """Return the receipts, and what readers are told of snapshots."""
    with service.database.read() as connection:
        rows = connection.execute(text("SELECT partial, digest FROM units WHERE job = :job"), {"job": job})
        receipts = {layout.partial(row.partial): row.digest for row in rows}
        query = text("SELECT data FROM job_events WHERE job = :job AND kind = 'snapshot'")
        told = connection.execute(query, {"job": job}).scalars()
        return receipts, {json.loads(data)["n"]: data for data in told}


def escaped(content: str) -> str:
    """Return text as strace shows it."""
    return content.replace("\\", "\\\\").replace('"', '\\"')


def too_early(found: Sequence[Call], store: str, wal: str, about: dict[str, str]) -> dict[str, list[str]]:
    """Return what was not on disk when the database's log was given its row; nothing is as it should be.

    Parameters
    ----------
    about : dict
        Keys in the store, and the text that is written into the log only when what is there counts.
    """
    disk, waiting, early = Disk(store), {k: escaped(v) for k, v in about.items()}, {}
    for call in found:
        if call.paths[0] == wal and call.text:
            for key in [key for key, content in waiting.items() if content in call.text]:
                unsafe = disk.unsafe(f"{store}/{key}")
                early |= {key: unsafe} if unsafe or f"{store}/{key}" not in disk.known else {}
                del waiting[key]
        disk.take(call)
    assert not waiting, f"never written: {waiting}"
    return early


def not_synced_when_answered(found: Sequence[Call], wal: str, job: str) -> list[str]:
    """Return what was wrong when the answer about a new job was sent."""
    written = synced = False
    for call in found:
        if call.paths[0] == wal:
            written = written or job in call.text
            synced = (synced or call.name in ("fsync", "fdatasync")) and written
            if call.text:
                synced = False
        if "HTTP/1.1 201" in call.text:
            return [name for name, good in {"written": written, "synced": synced}.items() if not good]
    return ["no answer"]


def test_a_partial_is_on_disk_before_its_receipt_counts(traced: Traced) -> None:
    assert len(traced.receipts) == 6
    assert too_early(traced.calls, traced.store, traced.wal, traced.receipts) == {}


def test_a_snapshot_and_its_manifest_are_on_disk_before_readers_are_told(traced: Traced) -> None:
    assert len(traced.published) >= 2
    for key in (layout.generation, layout.manifest):
        about = {key(traced.job, n): told for n, told in traced.published.items()}
        assert too_early(traced.calls, traced.store, traced.wal, about) == {}


def test_the_log_of_the_database_is_synced_after_each_row_that_counts(traced: Traced) -> None:
    told = [escaped(content) for content in (*traced.receipts.values(), *traced.published.values())]
    mine = [call for call in traced.calls if call.paths[0] == traced.wal]
    assert any(call.name in ("fsync", "fdatasync") for call in mine)
    for content in told:
        first = next(i for i, call in enumerate(mine) if content in call.text)
        rest = (call.name for call in mine[first:])
        assert next(name for name in rest if name in ("fsync", "fdatasync"))


def test_a_job_is_on_disk_before_the_answer_says_so(traced: Traced) -> None:
    assert not_synced_when_answered(traced.calls, traced.wal, traced.job) == []


def test_the_checks_see_what_is_not_synced(traced: Traced) -> None:
    def without(what: str) -> list[Call]:
        syncs = ("fsync", "fdatasync")
        return [call for call in traced.calls if not (call.name in syncs and call.paths[0].startswith(what))]

    lying = without(traced.store)
    early = too_early(lying, traced.store, traced.wal, traced.receipts)
    assert early.keys() == traced.receipts.keys()
    assert any(path.endswith("/values/c.0") for path in next(iter(early.values())))
    assert any(path.endswith("/partials") for path in next(iter(early.values())))
    forgotten = [call for call in traced.calls if not call.paths[0].endswith("/partials")]
    assert too_early(forgotten, traced.store, traced.wal, traced.receipts)
    assert not_synced_when_answered(without(traced.wal), traced.wal, traced.job) == ["synced"]


WRITE = """
import os, sys
import numpy as np
from binworks.service.store import Store
import hist
from binworks.tensors.accumulator import Accumulator
from binworks.tensors.histogram import Histogram

class Hasty(Store):
    pass

if sys.argv[2] == "hasty":
    os.fsync = os.fdatasync = lambda handle: None
axis = hist.axis.Regular(10, 0, 1, name="x", flow=False)
sums = Accumulator({"nominal": Histogram.zeros([axis], variances=True)}, {"entries": 1})
store = Hasty.open(sys.argv[1])
store.write_accumulator("partials/p", sums)
store.write_accumulator("jobs/j/g/1/D", sums)
store.seal("jobs/j/g/1", {})
store.create_json("jobs/j/m/1.json", {})
"""


@pytest.mark.parametrize("manner", ["patient", "hasty"])
def test_a_store_that_does_not_sync_is_found_out(tmp_path: Path, manner: str) -> None:
    root, trace = tmp_path.resolve() / "store", tmp_path / "trace"
    (root / "tmp").mkdir(parents=True)
    program = [sys.executable, "-c", WRITE, str(root), manner]
    subprocess.run([*traced_disk.command(trace), *program], check=True)
    disk = Disk(str(root))
    with trace.open(errors="replace") as lines:
        for call in calls(lines):
            disk.take(call)
    for key in ("partials/p", "jobs/j/g/1", "jobs/j/m/1.json"):
        assert f"{root}/{key}" in disk.known
        assert bool(disk.unsafe(f"{root}/{key}")) == (manner == "hasty"), disk.unsafe(f"{root}/{key}")


def test_calls_that_are_interrupted_are_put_together_again() -> None:
    lines = [
        "7 fsync(3</s/a> <unfinished ...>",
        '8 pwrite64(4</d-wal>, "x\\"y", 3, 0) = 3',
        "7 <... fsync resumed>) = 0",
        "8 fsync(3</s/b>) = -1 EIO (Input/output error)",
        '8 renameat2(AT_FDCWD</>, "/s/a", AT_FDCWD</>, "/s/c", RENAME_NOREPLACE) = 0',
        "8 +++ exited with 0 +++",
    ]
    assert list(calls(lines)) == [
        Call("pwrite64", ("/d-wal",), 'x\\"y'),
        Call("fsync", ("/s/a",)),
        Call("rename", ("/s/a", "/s/c")),
    ]
