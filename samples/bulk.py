"""Files of one process: generated, or resampled from a pool in bulk.

Resampling is for benchmarks: each pass over the pool gives its events a new azimuth, a new measurement and new
numbers, two hundred thousand events a second. The statistics of the generator (masses, rapidities, weights) stay those
of the pool.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from binworks.samples.catalogue import simulated_dataset, write_catalogue
from binworks.samples.processes import find
from binworks.samples.production import CLUSTER, FileResult, FileTask, produce_all, split
from binworks.samples.rootfile import Format, prepare_folder
from binworks.samples.truth import Truth
from binworks.tensors.errors import RequestError

LARGEST_SAMPLE = 100_000_000_000


@dataclass(frozen=True)
class BulkSummary:
    """What was made: paths, entries, bytes and seconds of computing."""

    catalogue: Path
    files: list[Path]
    entries: int
    bytes: int
    core_seconds: float


def plan_bulk(
    folder: Path,
    process: str,
    events: int,
    truth: Truth,
    *,
    file_events: int,
    pool: int = 0,
    layout: Format = "ttree",
    shower_weights: bool = False,
    negative: float = 0.0,
) -> list[FileTask]:
    """Decide on the files.

    Parameters
    ----------
    folder : Path
        Of the files.
    process : str
        Name of a process.
    events : int
        Number of events in all; may be zero.
    truth : Truth
        Of the detector; its seed is that of the files.
    file_events : int
        Most events of a file.
    pool : int
        Size of the pool to resample from; 0 to generate each event.
    layout : "ttree" or "rntuple"
    shower_weights : bool
        Whether to make PSWeight.
    negative : float
        Share of events with a negative genWeight, below 1/2.

    Raises
    ------
    RequestError
        ``unknown-process``, ``bad-events`` or ``bad-share``.
    """
    name = find(process).name
    _check(events, file_events, pool, negative)
    return [
        FileTask(
            folder / f"{name}_{i}.root",
            truth,
            i,
            process=name,
            events=size,
            pool=pool,
            layout=layout,
            shower_weights=shower_weights,
            negative=negative,
        )
        for i, size in enumerate(split(events, file_events))
    ]


def make_bulk(
    tasks: list[FileTask], jobs: int, progress: Callable[[FileTask, FileResult], None] | None = None
) -> BulkSummary:
    """Make the files and a catalogue whose luminosity is that of the events.

    Raises
    ------
    RequestError, TransientError
        See `binworks.samples.production.produce_all`.
    """
    folder = tasks[0].path.parent
    prepare_folder(folder)
    results = produce_all(tasks, jobs, progress)
    process = find(str(tasks[0].process))
    entries = sum(result.entries for result in results)
    dataset = simulated_dataset(process, [result.path.name for result in results])
    return BulkSummary(
        catalogue=write_catalogue(folder, [dataset], entries / process.cross_section or None),
        files=[result.path for result in results],
        entries=entries,
        bytes=sum(result.bytes for result in results),
        core_seconds=sum(result.seconds for result in results),
    )


def _check(events: int, file_events: int, pool: int, negative: float) -> None:
    """Refuse numbers that make no sample."""
    if not 0 <= events <= LARGEST_SAMPLE:
        raise RequestError(
            f"The number of events lies between 0 and {LARGEST_SAMPLE}, got {events}.", code="bad-events"
        )
    if file_events < 1:
        raise RequestError(f"A file holds at least one event, got {file_events}.", code="bad-events")
    if not 0 <= pool <= 10 * CLUSTER:
        raise RequestError(
            f"The pool has between 1 and {10 * CLUSTER} events, got {pool}.", code="bad-events"
        )
    if not 0 <= negative < 0.5:
        raise RequestError(
            f"The share of negative weights lies between 0 and 1/2, got {negative}.", code="bad-share"
        )
