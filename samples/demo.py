"""The demo: simulated samples, "data" with a hidden shift of the W mass, the corrections, the catalogue and the truth.

Everything belongs to one luminosity, which follows from the number of W -> mu nu events in the data. Signal simulation
is twice the data, background simulation as much as the data holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from binworks.processors.dataset import Dataset
from binworks.samples.calibration import write_corrections
from binworks.samples.catalogue import observed_dataset, simulated_dataset, write_catalogue, write_json
from binworks.samples.processes import PROCESSES, Process
from binworks.samples.production import FileResult, FileTask, expected_data, produce_all, split
from binworks.samples.rootfile import Format, prepare_folder
from binworks.samples.truth import Truth
from binworks.tensors.errors import RequestError

SIGNAL = ("Wplusmunu", "Wminusmunu")
SIGNAL_FACTOR, BACKGROUND_FACTOR = 2.0, 1.0
FILE_EVENTS = 100_000
CORRECTIONS = "demo"
LARGEST_DEMO = 1_000_000_000


@dataclass(frozen=True)
class DemoPlan:
    """What will be made: the luminosity (1/pb), the truth, and the files of each data set."""

    folder: Path
    truth: Truth
    luminosity: float
    tasks: dict[str, list[FileTask]]


@dataclass(frozen=True)
class DemoSummary:
    """What was made: paths, luminosity (1/pb), entries by data set, bytes and seconds of computing."""

    folder: Path
    catalogue: Path
    corrections: Path
    luminosity: float
    entries: dict[str, int]
    generated: int
    bytes: int
    core_seconds: float


def plan_demo(folder: Path, events: int, truth: Truth, layout: Format = "ttree") -> DemoPlan:
    """Decide on the files.

    Parameters
    ----------
    folder : Path
        Of the demo.
    events : int
        W -> mu nu events in the data, before any selection.
    truth : Truth
        Of the detector and of the hidden shift.
    layout : "ttree" or "rntuple"

    Raises
    ------
    RequestError
        ``bad-events``.
    """
    if not 0 < events <= LARGEST_DEMO:
        raise RequestError(
            f"The number of events lies between 1 and {LARGEST_DEMO}, got {events}.", code="bad-events"
        )
    luminosity = events / sum(PROCESSES[name].cross_section for name in SIGNAL)
    tasks = {"data": _data_tasks(folder, luminosity, truth, layout)}
    for process in PROCESSES.values():
        tasks[process.name] = _simulation_tasks(folder, process, luminosity, truth, layout)
    return DemoPlan(folder, truth, luminosity, tasks)


def make_demo(
    plan: DemoPlan, jobs: int, progress: Callable[[FileTask, FileResult], None] | None = None
) -> DemoSummary:
    """Make the files, the corrections, the catalogue and the truth.

    Raises
    ------
    RequestError, TransientError
        See `binworks.samples.production.produce_all`.
    """
    prepare_folder(plan.folder)
    everything = [task for tasks in plan.tasks.values() for task in tasks]
    results = {result.path: result for result in produce_all(everything, jobs, progress)}
    corrections = write_corrections(plan.folder / "corrections" / CORRECTIONS, CORRECTIONS, plan.truth)
    write_json(plan.folder / "truth.json", plan.truth.model_dump_json(by_alias=True, indent=1))
    datasets = [_dataset(name, tasks, plan.folder) for name, tasks in plan.tasks.items()]
    catalogue = write_catalogue(plan.folder, datasets, plan.luminosity)
    return DemoSummary(
        folder=plan.folder,
        catalogue=catalogue,
        corrections=corrections.folder,
        luminosity=plan.luminosity,
        entries={name: sum(results[t.path].entries for t in tasks) for name, tasks in plan.tasks.items()},
        generated=sum(result.generated for result in results.values()),
        bytes=sum(result.bytes for result in results.values()),
        core_seconds=sum(result.seconds for result in results.values()),
    )


def _data_tasks(folder: Path, luminosity: float, truth: Truth, layout: Format) -> list[FileTask]:
    expected = sum(expected_data(process, truth, luminosity) for process in PROCESSES.values())
    files = len(split(round(expected), FILE_EVENTS))
    return [
        FileTask(folder / "data" / f"data_{i}.root", truth, i, luminosity=luminosity / files, layout=layout)
        for i in range(files)
    ]


def _simulation_tasks(
    folder: Path, process: Process, luminosity: float, truth: Truth, layout: Format
) -> list[FileTask]:
    factor = SIGNAL_FACTOR if process.name in SIGNAL else BACKGROUND_FACTOR
    sizes = split(round(factor * luminosity * process.cross_section), FILE_EVENTS)
    return [
        FileTask(
            folder / "data" / f"{process.name}_{i}.root",
            truth,
            i,
            process=process.name,
            events=size,
            layout=layout,
        )
        for i, size in enumerate(sizes)
    ]


def _dataset(name: str, tasks: list[FileTask], folder: Path) -> Dataset:
    files = [str(task.path.relative_to(folder)) for task in tasks]
    return observed_dataset(files) if name == "data" else simulated_dataset(PROCESSES[name], files)
