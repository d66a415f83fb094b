"""What workers run: small tasks in, small records out, stored sums reused, errors as data."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_corrections
import small_nano
from service_toys import Toy, registered, write, write_all
from worker_tasks import failed, received, recipe, unit

from binworks.corrections import sets
from binworks.processors.dataset import Dataset
from binworks.service import layout, store, worker
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

RECEIPT_BYTES = 1000


@pytest.fixture(scope="module", autouse=True)
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with registered(tmp_path_factory.mktemp("toys")):
        yield


def test_a_unit_is_filled_once_and_found_again(tmp_path: Path) -> None:
    task = unit(tmp_path, recipe(), *write_all(tmp_path / "d", 2, 1200))
    first, second = received(worker.run(task)), received(worker.run(task))
    assert (first.reused, second.reused) == (False, True)
    assert first.counts["entries"] == 2400
    assert (first.digest, first.counts) == (second.digest, second.counts)


def test_a_damaged_partial_is_filled_again(tmp_path: Path) -> None:
    task = unit(tmp_path, recipe(), *write_all(tmp_path / "d", 1, 700))
    first = received(worker.run(task))
    victim = Store.open(str(tmp_path)).key_path(layout.partial(task.partial)) / "nominal" / "values" / "c.0"
    victim.write_bytes(victim.read_bytes()[:-3] + b"???")
    again = received(worker.run(task))
    assert not again.reused
    assert again.digest == first.digest


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
        broken.setattr(store, "_sync", refuse)
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
