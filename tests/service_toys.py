"""Toy processors that misbehave on request, files for them, and a service to run them in.

Workers find the processors by an entry point, as they find anybody's.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import hist
import numpy as np
import uproot

from binworks.deploy.site import Site
from binworks.processors import registry
from binworks.processors.columns import Columns, Field
from binworks.processors.compiled import CompiledProcessor, Options
from binworks.processors.dataset import Dataset
from binworks.service import layout, partials, plan, worker
from binworks.service.database import Database
from binworks.service.jobs import Jobs
from binworks.service.ledger import Ledger
from binworks.service.model import JobRequest, JobState, JobView, ResolvedJob, UnitView
from binworks.service.plan import FileFacts
from binworks.service.requests import resolve
from binworks.service.running import Service
from binworks.service.settings import Settings
from binworks.service.store import Store, digest_of
from binworks.service.tasks import FillUnit, IndexFile, Receipt, Recipe
from binworks.service.tree import Tree
from binworks.service.up import configure, site_of
from binworks.tensors.accumulator import Accumulator
from binworks.tensors.expansion import Expansion
from binworks.tensors.histogram import Histogram

CLUSTER = 500
UNIT_EVENTS = 1000


class ToyOptions(Options):
    pause: float = 0.0
    jitter: float = 0.0
    poison: int = -1
    fault: int = -1
    hang: int = -1
    lose: int = -1
    tag: str = ""
    journal: str = ""
    third: str = ""


class Toy(CompiledProcessor):
    """Sums weights whose total depends on the order of the additions; pauses, dies or fails on request.

    With ``journal``, a file, each fill writes a line when it begins and one when it ends. With ``third``, a folder,
    every worker dies at its third fill, unless another one died of the same unit before.
    """

    name: ClassVar[str] = "toy"
    summary: ClassVar[str] = "Sums x."
    version: ClassVar[int] = 1
    Options: ClassVar[type[Options]] = ToyOptions
    systematics_known: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    begun: ClassVar[int] = 0
    options: ToyOptions

    def fields(self, dataset: Dataset) -> tuple[Field, ...]:
        return (Field("event", ("event",), "u8"), Field("x", ("x",), "f8"))

    def accumulator(self, dataset: Dataset) -> Accumulator:
        axis = hist.axis.Regular(10, 0, 1, name="x", flow=False)
        counts = {"entries": 0, "selected": 0, "sum_sign": 0}
        return Accumulator({"nominal": Histogram.zeros([axis], variances=True)}, counts)

    def fill(self, columns: Columns, dataset: Dataset, accumulator: Accumulator) -> None:
        options = self.options
        first = int(columns["event"][0]) if columns.size else -1
        self._note("begin", first)
        self._count(first)
        time.sleep(options.pause + options.jitter * random.random())
        if options.poison in columns["event"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if options.fault in columns["event"]:
            raise ZeroDivisionError("the toy divides by zero")
        while options.hang in columns["event"] and not Path(options.tag).exists():
            Path(options.tag).touch()
            time.sleep(3600)
        x = columns["x"]
        cell = np.clip((x * 10).astype(int), 0, 9)
        weight = np.exp(10 * x)
        nominal = accumulator.histograms["nominal"]
        np.add.at(nominal.values, cell, weight)
        np.add.at(nominal.variances, cell, weight**2)
        accumulator.counts["entries"] += columns.size - (options.lose in columns["event"])
        accumulator.counts["selected"] += columns.size
        accumulator.counts["sum_sign"] += columns.size
        self._note("end", first)

    def _note(self, what: str, first: int) -> None:
        if self.options.journal:
            line = f"{what} {first} {time.time():.4f} {os.getpid()}\n"
            handle = os.open(self.options.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            os.write(handle, line.encode())  # one write: lines of several workers do not mix
            os.close(handle)

    def _count(self, first: int) -> None:
        Toy.begun += 1
        if self.options.third and Toy.begun == 3:
            mark = Path(self.options.third, str(first // UNIT_EVENTS))
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    def expansions(self) -> list[Expansion]:
        return []


def write(path: Path, events: int, *, first: int = 0, tree: str = "Events", column: str = "x") -> Path:
    """Write events numbered from ``first``, in clusters."""
    rng = np.random.default_rng(first)
    with uproot.recreate(path) as file:
        file.mktree(tree, {"event": "u8", column: "f8"})
        for start in range(0, events, CLUSTER):
            n = min(CLUSTER, events - start)
            file[tree].extend({"event": np.arange(n, dtype="u8") + first + start, column: rng.random(n)})
    return path


def write_all(folder: Path, count: int, events: int) -> tuple[str, ...]:
    """Write files of consecutive events."""
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(str(write(folder / f"f{i}.root", events, first=i * events)) for i in range(count))


@contextmanager
def registered(folder: Path) -> Iterator[None]:
    """Let this process and its children find the toy by an entry point."""
    described = folder / "toys-1.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1\n")
    (described / "entry_points.txt").write_text(f"[{registry.GROUP}]\ntoy = service_toys:Toy\n")
    places = [str(folder), str(Path(__file__).parent)]
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*places, *([before] if before else [])])
    sys.path[:0] = places
    registry._entries.cache_clear()
    try:
        yield
    finally:
        del sys.path[:2]
        registry._entries.cache_clear()
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@dataclass
class Running:
    """A service that runs, and its jobs as the API would see them."""

    service: Service
    settings: Settings
    jobs: Jobs

    def submit(self, files: Mapping[str, Sequence[str]], /, **request: Any) -> JobView:
        asked = {
            "processor": "toy",
            "datasets": [{"name": n, "files": list(f)} for n, f in files.items()],
            **request,
        }
        return self.jobs.create(resolve(JobRequest.model_validate(asked), self.settings), "tester")[0]

    def wait(self, job: str, seconds: float = 60.0) -> JobView:
        return self.until(job, lambda view: view.state.finished, seconds)

    def until(self, job: str, reached: Any, seconds: float = 60.0) -> JobView:
        end = time.monotonic() + seconds
        while not reached(view := self.jobs.get(job)):
            if time.monotonic() > end:
                raise AssertionError(f"not reached within {seconds} s: {view!r}\n{self.log()}")
            time.sleep(0.05)
        return view

    def units(self, job: str) -> list[UnitView]:
        return self.jobs.units(job)

    def service_ledger(self) -> Ledger:
        return Ledger(self.jobs.database)

    def log(self) -> str:
        return (self.settings.logs / "driver.log").read_text()[-3000:]

    @property
    def store(self) -> Store:
        return Store.open(self.settings.store_url)

    def digests(self, job: str) -> dict[str, str]:
        """Return the digests of the last snapshot's sums, recomputed from what is stored."""
        view = self.jobs.get(job)
        assert view.state == JobState.SUCCEEDED, view
        assert view.generation is not None
        return {
            dataset.name: digest_of(
                self.store.read_accumulator(layout.dataset(job, view.generation, dataset.name))
            )
            for dataset in view.datasets
        }


@contextmanager
def service(
    home: Path, *, workers: int | None = None, site: Site | None = None, **settings: Any
) -> Iterator[Running]:
    """Run a service; everything is real. Without a site, its workers run on this machine."""
    home.mkdir(parents=True, exist_ok=True)
    changes = {"unit_events": UNIT_EVENTS, "backoff_seconds": 0.2, **settings}
    site = site or site_of(None, None, workers)
    with Service(configure(home, changes, 0, site), site) as running:
        database = Database(running.settings.database_url)
        try:
            yield Running(running, running.settings, Jobs(database))
        finally:
            database.close()


def serial(folder: Path, dataset: Dataset, resolved: ResolvedJob) -> str:
    """Return the digest of a data set's sums, made in this process, unit after unit, without service or cluster."""
    store = Store.open(str(folder))
    mild = {"pause": 0.0, "jitter": 0.0, "journal": "", "third": ""}
    patient: dict[str, Any] = {name: value for name, value in mild.items() if name in resolved.options}
    recipe = recipe_of(resolved, **patient)
    facts = [worker.run(IndexFile(path)) for path in dataset.files]
    assert all(isinstance(found, FileFacts) for found in facts), facts
    units = plan.cut({dataset.name: facts}, resolved.unit_events)  # type: ignore[dict-item]
    tree = Tree(len(units))
    for unit in units:
        name = plan.partial_name(recipe.facts(), unit.pieces)
        outcome = worker.run(FillUnit(str(folder), recipe, dataset.model_dump_json(), unit.pieces, name))
        assert isinstance(outcome, Receipt), outcome
        tree.settle_leaf(unit.number, name)
    value = tree.value()
    assert value is not None
    return digest_of(partials.value(store, value))


def recipe_of(resolved: ResolvedJob, **options: Any) -> Recipe:
    """Return what the driver would send, with some options changed."""
    return Recipe.of(resolved.model_copy(update={"options": {**resolved.options, **options}}))
