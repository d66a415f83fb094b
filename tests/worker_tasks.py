"""Tasks as the driver would send them, for tests that call the worker in their own process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service_toys import recipe_of

from binworks.processors.dataset import Dataset
from binworks.service import plan, worker
from binworks.service.model import JobRequest
from binworks.service.plan import FileFacts
from binworks.service.requests import resolve
from binworks.service.settings import Settings
from binworks.service.store import Store
from binworks.service.tasks import Failure, FillUnit, IndexFile, Receipt, Recipe


def recipe(
    processor: str = "toy",
    data: Path | None = None,
    systematics: Sequence[str] | None = None,
    **options: Any,
) -> Recipe:
    """Return what a job would compute; with corrections from a folder, if there is one."""
    request: dict[str, Any] = {
        "processor": processor,
        "options": options,
        "datasets": [{"name": "D", "files": ["/data/f.root"]}],
    }
    if systematics is not None:
        request["systematics"] = list(systematics)
    if data is not None:
        request["corrections"] = "small"
    folders = () if data is None else (data,)
    settings = Settings(home=Path("/home"), data_roots=("/data",), corrections=folders)
    return recipe_of(resolve(JobRequest.model_validate(request), settings))


def unit(folder: Path, what: Recipe, *files: str, name: str = "a" * 64) -> FillUnit:
    """Return the task that fills all events of the files at once; its store is there, as the driver sees to."""
    Store.open(str(folder))
    dataset = Dataset(name="D", files=files, boson="W")
    facts = [worker.run(IndexFile(path)) for path in files]
    cut = plan.cut({"D": [found for found in facts if isinstance(found, FileFacts)]}, 10**9)
    return FillUnit(str(folder), what, dataset.model_dump_json(), cut[0].pieces, name)


def failed(outcome: object) -> Failure:
    assert isinstance(outcome, Failure), outcome
    return outcome


def received(outcome: object) -> Receipt:
    assert isinstance(outcome, Receipt), outcome
    return outcome
