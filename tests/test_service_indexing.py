"""The index of a file is made once, kept in the store, and found there by every worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from service_toys import recipe_of, registered, write

from binworks.processors import reading
from binworks.processors.dataset import Dataset
from binworks.service import plan, worker
from binworks.service.model import JobRequest
from binworks.service.plan import FileFacts
from binworks.service.requests import resolve
from binworks.service.settings import Settings
from binworks.service.store import Store
from binworks.service.tasks import FillUnit, IndexFile, Receipt


@pytest.fixture(scope="module", autouse=True)
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with registered(tmp_path_factory.mktemp("toys")):
        yield


def another_worker() -> None:
    """Forget what this process knows of files."""
    reading.close_files()
    reading._indexes.clear()


def unit(store: Path, path: Path) -> FillUnit:
    request = {"processor": "toy", "datasets": [{"name": "D", "files": ["/data/f.root"]}]}
    settings = Settings(home=Path("/home"), data_roots=("/data",))
    recipe = recipe_of(resolve(JobRequest.model_validate(request), settings))
    Store.open(str(store))
    facts = worker.run(IndexFile(str(path), str(store)))
    assert isinstance(facts, FileFacts), facts
    (cut,) = plan.cut({"D": [facts]}, 10**9)
    dataset = Dataset(name="D", files=(str(path),), boson="W")
    return FillUnit(str(store), recipe, dataset.model_dump_json(), cut.pieces, "a" * 64)


def indexes(store: Path) -> list[Path]:
    return sorted((store / worker.INDEXES).iterdir())


def test_a_unit_is_filled_without_parsing_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = unit(tmp_path / "store", write(tmp_path / "f.root", 1200))
    assert len(indexes(tmp_path / "store")) == 1
    another_worker()
    monkeypatch.setattr(reading.uproot, "open", None)
    outcome = worker.run(task)
    assert isinstance(outcome, Receipt), outcome
    assert outcome.counts["entries"] == 1200


@pytest.mark.parametrize("what", ["gone", "damaged"])
def test_a_worker_that_finds_no_sound_index_makes_it(what: str, tmp_path: Path) -> None:
    task = unit(tmp_path / "store", write(tmp_path / "f.root", 1200))
    (kept,) = indexes(tmp_path / "store")
    whole = kept.read_bytes()
    if what == "gone":
        kept.unlink()
    else:
        kept.write_bytes(whole[:-1])
    another_worker()
    outcome = worker.run(task)
    assert isinstance(outcome, Receipt), outcome
    assert outcome.counts["entries"] == 1200
    assert [path.read_bytes() for path in indexes(tmp_path / "store")] == [whole]
    assert not list((tmp_path / "store" / "tmp").iterdir())
