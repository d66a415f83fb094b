"""What workers run: small tasks in, small records out, stored sums reused, errors as data."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numba
import numpy as np
import pytest
import small_corrections
import small_nano
from service_toys import Toy, registered, write, write_all
from worker_tasks import failed, received, recipe, unit

from binworks.corrections import sets
from binworks.processors import registry
from binworks.processors.dataset import Dataset
from binworks.service import failures, folders, layout, store, worker
from binworks.service.retry import Kind
from binworks.service.store import Store
from binworks.service.tasks import (
    AbandonedError,
    IndexFile,
    Merge,
    Prepare,
    Recipe,
    Task,
    WriteDataset,
)
from binworks.service.tree import Sum
from binworks.tensors.errors import InputError

RECEIPT_BYTES = 1000


@pytest.fixture(scope="module", autouse=True)
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with registered(tmp_path_factory.mktemp("toys")):
        yield


@pytest.fixture(autouse=True)
def stored(tmp_path: Path) -> None:
    """The driver makes the store, workers find it."""
    Store.open(str(tmp_path))


def test_a_store_that_is_not_mounted_here_is_not_made(tmp_path: Path) -> None:
    task = unit(tmp_path, recipe(), *write_all(tmp_path / "d", 1, 700))
    elsewhere = tmp_path / "not-mounted"
    outcome = failed(worker.run(replace(task, store=str(elsewhere))))
    assert outcome.code == "store-not-seen"
    assert not elsewhere.exists()


def test_a_unit_is_filled_once_and_found_again(tmp_path: Path) -> None:
    task = unit(tmp_path, recipe(), *write_all(tmp_path / "d", 2, 1200))
    first, second = received(worker.run(task)), received(worker.run(task))
    assert (first.reused, second.reused) == (False, True)
    assert first.counts["entries"] == 2400
    assert (first.digest, first.counts) == (second.digest, second.counts)


@pytest.mark.parametrize("damage", ["a chunk", "a document", "a torn chunk"])
def test_a_damaged_partial_is_filled_again(tmp_path: Path, damage: str) -> None:
    task = unit(tmp_path, recipe(), *write_all(tmp_path / "d", 1, 700))
    first = received(worker.run(task))
    spoil(Store.open(str(tmp_path)).key_path(layout.partial(task.partial)), damage)
    again = received(worker.run(task))
    assert not again.reused
    assert again.digest == first.digest
    assert received(worker.run(task)).reused


def test_receipts_and_tasks_are_small_whatever_the_processor(tmp_path: Path) -> None:
    sets.write(tmp_path / "small", "small", small_corrections.documents())
    path = small_nano.write(tmp_path / "f.root", small_nano.events(600, 1, pdf_members=5))
    what = recipe("w_mass", tmp_path, pdf_members=5)
    task = unit(tmp_path, what, str(path))
    assert len(pickle.dumps(task)) < 5 * RECEIPT_BYTES
    assert len(pickle.dumps(received(worker.run(task)))) < RECEIPT_BYTES


def test_merging_is_adding_from_left_to_right(tmp_path: Path) -> None:
    names = [letter * 64 for letter in "abc"]
    for i, name in enumerate(names):
        received(
            worker.run(unit(tmp_path, recipe(), str(write(tmp_path / f"{i}.root", 800, first=i)), name=name))
        )
    merged = received(worker.run(Merge(str(tmp_path), "d" * 64, tuple(names))))
    assert received(worker.run(Merge(str(tmp_path), "d" * 64, tuple(names)))).reused
    here = Store.open(str(tmp_path))
    parts = [here.read_accumulator(layout.partial(name)) for name in names]
    assert merged.digest == store.digest_of(parts[0] + parts[1] + parts[2])
    assert merged.digest != store.digest_of(parts[2] + parts[1] + parts[0])
    nested = WriteDataset(
        str(tmp_path), "jobs/j/g/1/D", recipe(), "{}", Sum((Sum((names[0], names[1])), names[2]))
    )
    assert received(worker.run(nested)).digest == merged.digest


def test_a_data_set_without_events_is_written_as_zeros(tmp_path: Path) -> None:
    dataset = Dataset(name="D", files=("f",)).model_dump_json()
    outcome = received(
        worker.run(WriteDataset(str(tmp_path), "jobs/j/g/1/D", recipe(), dataset, None, {"kind": "mc"}))
    )
    here = Store.open(str(tmp_path))
    assert here.read_accumulator("jobs/j/g/1/D", outcome.digest).histograms["nominal"].values.sum() == 0
    assert here.attributes("jobs/j/g/1/D")["kind"] == "mc"


def test_expansions_are_stored_with_the_job(tmp_path: Path) -> None:
    sets.write(tmp_path / "small", "small", small_corrections.documents())
    assert worker.run(Prepare(str(tmp_path), "j", recipe("w_mass", tmp_path))) is None
    here = Store.open(str(tmp_path))
    groups = sorted(path.name for path in here.key_path("jobs/j/expansions").iterdir())
    assert {"mass", "pdf", "momentum_scale", "theory"} <= set(groups)
    facts, arrays = here.read_arrays(layout.expansion("j", "mass"))
    assert facts["group"] == "mass"
    assert arrays["coefficient"].size > 0


@pytest.mark.parametrize(
    ("options", "kind", "code"),
    [({"fault": 3}, Kind.CODE, "code-failed"), ({"lose": 3}, Kind.CODE, "events-lost")],
)
def test_faults_of_the_code_come_back_as_data(
    tmp_path: Path, options: dict[str, int], kind: Kind, code: str
) -> None:
    outcome = failed(worker.run(unit(tmp_path, recipe(**options), *write_all(tmp_path / "d", 1, 700))))
    assert (outcome.kind, outcome.code) == (kind, code)
    assert "Traceback" in str(outcome.traceback)
    assert pickle.loads(pickle.dumps(outcome)) == outcome


def test_bad_files_come_back_as_data_that_names_them(tmp_path: Path) -> None:
    cases: dict[str, Task] = {
        "missing-file": IndexFile(str(tmp_path / "none.root")),
        "no-events": IndexFile(str(write(tmp_path / "t.root", 10, tree="Other"))),
        "missing-branch": unit(tmp_path, recipe(), str(write(tmp_path / "b.root", 10, column="y"))),
    }
    (tmp_path / "n.root").write_text("not a ROOT file")
    cases["not-root"] = IndexFile(str(tmp_path / "n.root"))
    for code, task in cases.items():
        outcome = failed(worker.run(task))
        assert (outcome.kind, outcome.code) == (Kind.INPUT, code)
        assert str(tmp_path) in str(outcome.where)


def test_a_replaced_file_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "f.root", 700)
    task = unit(tmp_path, recipe(), str(path))
    write(path, 700, first=5)
    assert failed(worker.run(task)).code == "file-changed"


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, Kind.FULL), (errno.EIO, Kind.TRANSIENT)])
def test_a_store_that_does_not_take_it_is_a_passing_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: Kind
) -> None:
    def refuse(_path: Path) -> None:
        raise OSError(number, os.strerror(number))

    task = unit(tmp_path, recipe(), *write_all(tmp_path / "d", 1, 700))
    with monkeypatch.context() as broken:
        broken.setattr(folders, "_sync", refuse)
        outcome = failed(worker.run(task))
    assert (outcome.kind, outcome.code) == (kind, "store-write-failed")
    assert not received(worker.run(task)).reused


def test_other_code_than_the_job_was_submitted_with_is_refused(tmp_path: Path) -> None:
    what = recipe()
    other = Recipe(what.processor, "f" * 64, what.options, None, None, ())
    outcome = failed(worker.run(unit(tmp_path, other, *write_all(tmp_path / "d", 1, 700))))
    assert (outcome.kind, outcome.code) == (Kind.CODE, "code-differs")


def test_a_unit_nobody_waits_for_stops(tmp_path: Path) -> None:
    def stop(_events: int) -> None:
        raise AbandonedError

    with pytest.raises(AbandonedError):
        worker.run(unit(tmp_path, recipe(), *write_all(tmp_path / "d", 1, 700)), stop)


def test_the_toy_depends_on_the_order_of_additions(tmp_path: Path) -> None:
    files = write_all(tmp_path / "d", 2, 700)
    one = received(worker.run(unit(tmp_path, recipe(), *files, name="a" * 64)))
    other = received(worker.run(unit(tmp_path, recipe(), *reversed(files), name="b" * 64)))
    assert Toy.name == "toy"
    assert one.digest != other.digest


@pytest.mark.parametrize("damage", ["a byte", "a chunk", "a document", "the root", "all"])
@pytest.mark.parametrize("reader", ["merge", "data set"])
def test_a_sum_that_cannot_be_read_says_which_it_is(tmp_path: Path, damage: str, reader: str) -> None:
    names = [letter * 64 for letter in "ab"]
    for i, name in enumerate(names):
        received(
            worker.run(unit(tmp_path, recipe(), str(write(tmp_path / f"{i}.root", 700, first=i)), name=name))
        )
    key = layout.partial(names[1])
    spoil(Store.open(str(tmp_path)).key_path(key), damage)
    task: Task = Merge(str(tmp_path), "d" * 64, tuple(names))
    if reader == "data set":
        task = WriteDataset(str(tmp_path), "jobs/j/g/1/D", recipe(), "{}", Sum(tuple(names)))
    outcome = failed(worker.run(task))
    assert outcome.code == ("no-such-key" if damage in ("the root", "all") else "damaged")
    assert layout.partial_of(str(outcome.where)) == names[1]
    Store.open(str(tmp_path)).put_aside(key)  # as the driver does
    assert not received(worker.run(unit(tmp_path, recipe(), str(tmp_path / "1.root"), name=names[1]))).reused
    received(worker.run(task))


def spoil(group: Path, damage: str) -> None:
    chunk = group / "nominal" / "values" / "c.0"
    if damage == "a byte":
        stored = bytearray(chunk.read_bytes())
        stored[-1] ^= 1
        chunk.write_bytes(stored)
    elif damage == "a torn chunk":
        chunk.write_bytes(chunk.read_bytes()[:-1])
    elif damage == "a document":
        (group / "nominal" / "zarr.json").write_text("{")
        (group / "zarr.json").write_text("{")
    else:
        victim = {"a chunk": chunk, "the root": group / "zarr.json", "all": group}[damage]
        shutil.rmtree(victim) if victim.is_dir() else victim.unlink()


def test_memory_that_runs_out_is_told_from_damage_wherever_it_happens() -> None:
    def exhaust() -> None:
        np.empty(1 << 50)

    def disguised() -> None:
        try:
            exhaust()
        except MemoryError as error:
            raise InputError("The file cannot be read.", code="corrupt-file", where="f.root") from error

    for run_out in (exhaust, disguised, lambda: numba.njit(lambda n: np.empty(n).sum())(1 << 50)):
        with pytest.raises((MemoryError, InputError)) as caught:
            run_out()
        failure = failures.of(caught.value)
        assert (failure.kind, failure.code) == (Kind.RESOURCE, "out-of-memory")
    assert "Unable to allocate 8.00 PiB" in failures.of(caught_from(exhaust)).message
    assert failures.of(caught_from(disguised)).where == "f.root"


def caught_from(function: Callable[[], None]) -> BaseException:
    with pytest.raises((MemoryError, InputError)) as caught:
        function()
    return caught.value


def test_a_limit_of_memory_is_named() -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (3 * 10**9, 3 * 10**9))\n"
        "from binworks.service import failures; print(failures.of(MemoryError('x')).message)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Memory ran out (MemoryError: x). The worker may take 3.00 GB."


def test_a_receipt_says_how_long_the_commit_took(tmp_path: Path) -> None:
    task = unit(tmp_path, recipe(), *write_all(tmp_path / "d", 1, 700))
    filled = received(worker.run(task))
    merged = received(worker.run(Merge(str(tmp_path), "d" * 64, (task.partial, task.partial))))
    written = received(worker.run(WriteDataset(str(tmp_path), "jobs/j/g/1/D", recipe(), "{}", task.partial)))
    assert all(0 < receipt.commit < receipt.seconds for receipt in (filled, merged, written))
    assert received(worker.run(task)).commit == 0


def test_code_that_was_edited_while_workers_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "edited_toys"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "toy.py").write_text("from service_toys import Toy\n\n\nclass Edited(Toy):\n    pass\n")
    (package / "constants.py").write_text("PT = 26\n")
    described = tmp_path / "edited-1.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: edited\nVersion: 1\n")
    (described / "entry_points.txt").write_text(f"[{registry.GROUP}]\nedited = edited_toys.toy:Edited\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._entries.cache_clear()
    try:
        before = recipe("edited")
        files = write_all(tmp_path / "d", 1, 700)
        received(worker.run(unit(tmp_path, before, *files)))
        (package / "constants.py").write_text("PT = 25\n")
        after = recipe("edited")
        assert after.code != before.code
        outcome = failed(worker.run(unit(tmp_path, after, *files, name="b" * 64)))
        assert (outcome.kind, outcome.code) == (Kind.CODE, "code-differs")
        received(worker.run(unit(tmp_path, before, *files, name="b" * 64)))
    finally:
        registry._entries.cache_clear()
