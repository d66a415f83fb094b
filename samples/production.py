"""Producing files: a file is a task, a pure function of its seed; any number of processes gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from binworks.samples import theory
from binworks.samples.arrays import Column, Int64
from binworks.samples.detector import Detector
from binworks.samples.events import Events, concatenate_events
from binworks.samples.generator import Generator
from binworks.samples.nonprompt import draw_nonprompt
from binworks.samples.processes import PROCESSES, W_MASS, Process, find
from binworks.samples.rootfile import EventFile, Format, open_events
from binworks.samples.simulation import simulate
from binworks.samples.truth import Truth
from binworks.tensors.errors import RequestError, TransientError

CLUSTER = 50_000
"""Events of a cluster: what is generated, held in memory and compressed at once."""

DATA_CODE = 100
LUMINOSITY_SECTION = 1000
_EVENTS_A_FILE = 10**8  # room for event numbers
_EVENTS_A_CODE = 10**13
_FIRST_DATA_RUN = 278_800


@dataclass(frozen=True)
class FileTask:
    """What makes one file.

    Parameters
    ----------
    path : Path
        Where it goes.
    truth : Truth
        Of the detector; its seed is the file's too.
    index : int
        Which file of its data set.
    process : str
        Name of a process; none for data.
    events : int
        Number of simulated events.
    luminosity : float
        Of data, 1/pb: events are drawn from all processes by their cross sections.
    pool : int
        If not 0, so many generated events are used again and again, each time with a new azimuth and a new measurement.
    layout : "ttree" or "rntuple"
    shower_weights : bool
        Whether to make PSWeight.
    negative : float
        Share of events with a negative genWeight, as generators beyond leading order have them.
    """

    path: Path
    truth: Truth
    index: int
    process: str | None = None
    events: int = 0
    luminosity: float = 0.0
    pool: int = 0
    layout: Format = "ttree"
    shower_weights: bool = False
    negative: float = 0.0

    @property
    def expected_events(self) -> float:
        """How many events have to be generated, about."""
        if self.process is not None:
            return self.events
        return sum(expected_data(p, self.truth, self.luminosity) for p in PROCESSES.values())


@dataclass(frozen=True)
class FileResult:
    """What became of a task: the file, its events, how many were generated for it, its size, its core seconds."""

    path: Path
    entries: int
    generated: int
    bytes: int
    seconds: float


def produce(task: FileTask) -> FileResult:
    """Make one file.

    Raises
    ------
    RequestError
        If the process is unknown, Pythia is missing, or the folder cannot be written.
    TransientError
        If writing fails.
    """
    started = time.process_time()
    with open_events(task.path, _identifiers(task), task.layout) as file:
        generated = _fill_data(task, file) if task.process is None else _fill_simulation(task, file)
    seconds = time.process_time() - started
    return FileResult(task.path, file.entries, generated, task.path.stat().st_size, seconds)


def produce_all(
    tasks: Sequence[FileTask], jobs: int, progress: Callable[[FileTask, FileResult], None] | None = None
) -> list[FileResult]:
    """Make all files, ``jobs`` at a time, the largest first; results are in the order of the tasks.

    Raises
    ------
    RequestError, TransientError
        The first error of a task; what has not begun is not begun any more.
    """
    if jobs < 1:
        raise RequestError(f"The number of jobs must be positive, got {jobs}.", code="bad-jobs")
    order = sorted(range(len(tasks)), key=lambda i: -tasks[i].expected_events)
    results: dict[int, FileResult] = {}
    for i, result in _run([tasks[i] for i in order], min(jobs, len(tasks))):
        results[order[i]] = result
        if progress is not None:
            progress(tasks[order[i]], result)
    return [results[i] for i in range(len(tasks))]


def split(total: int, largest: int) -> list[int]:
    """Return the sizes of as few equal files as hold the total, none above the largest; one empty file for none."""
    files = max(1, -(-total // largest))
    return [total // files + (i < total % files) for i in range(files)]


def expected_data(process: Process, truth: Truth, luminosity: float) -> float:
    """Return how many events of a process to generate for data, before those of too low a theory weight are dropped."""
    mean = luminosity * process.cross_section
    if process.mass_exponent:
        mean *= (1 + 1e-3 * truth.mass_shift_mev / W_MASS) ** process.mass_exponent
    return mean * _largest_weight(process, truth)


def _run(tasks: list[FileTask], jobs: int) -> Iterator[tuple[int, FileResult]]:
    """Yield the place and the result of each task as they are ready."""
    if jobs <= 1:
        yield from ((i, produce(task)) for i, task in enumerate(tasks))
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(produce, task): i for i, task in enumerate(tasks)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise TransientError(
                "A process that generates events was killed, perhaps for lack of memory.",
                code="worker-killed",
                hint="Try again with fewer --jobs.",
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _fill_simulation(task: FileTask, file: EventFile) -> int:
    process = find(str(task.process))
    rng = np.random.default_rng(_seed(task, "detector"))
    detector = Detector(task.truth, is_data=False)
    source = _pooled(task, process, rng) if task.pool else _generated(task, process, rng)
    sums = np.zeros(2)
    for events in source:
        entry, branches = detector.measure(events, rng)
        weight = np.where(rng.random(len(events)) < task.negative, -1.0, 1.0)
        sums += weight.sum(), (weight**2).sum()
        file.extend({**branches, **_identity(task, entry + file.entries), "genWeight": weight})
    file.write_runs(
        {
            "run": np.uint32(1),
            "genEventCount": np.int64(file.entries),
            "genEventSumw": sums[0],
            "genEventSumw2": sums[1],
        }
    )
    return file.entries


def _generated(task: FileTask, process: Process, rng: np.random.Generator) -> Iterator[Events]:
    """Yield the file's events, cluster by cluster; at least one cluster, so that an empty file has branches."""
    source = _source(task, process, shift=0.0, shower_weights=task.shower_weights)
    for size in split(task.events, CLUSTER):
        yield _draw(process, source, size, task.truth, rng, branches=True)


def _pooled(task: FileTask, process: Process, rng: np.random.Generator) -> Iterator[Events]:
    """Yield the events of the pool over and over, each with a new azimuth."""
    pool = _pool(process.name, task.truth, task.pool, task.shower_weights)
    copies = max(1, min(CLUSTER, task.events) // len(pool))
    if copies > 1:  # a small pool: several times in each cluster
        pool = pool.take(np.arange(copies * len(pool)) % len(pool))
    passes, rest = divmod(task.events, len(pool))
    for part in (*(pool,) * passes, pool.take(np.arange(rest))):
        yield part.rotated(rng.uniform(-np.pi, np.pi, len(part)))


@cache
def _pool_of(process: str, truth_json: str, size: int, shower_weights: bool) -> Events:
    truth = Truth.model_validate_json(truth_json)
    task = FileTask(Path(), truth, index=0, process=process, shower_weights=shower_weights)
    source = _source(task, find(process), shift=0.0, shower_weights=shower_weights)
    rng = np.random.default_rng(_seed(task, "pool"))
    return _draw(find(process), source, size, truth, rng, branches=True)


def _pool(process: str, truth: Truth, size: int, shower_weights: bool) -> Events:
    """Return the pool; a process makes it once for all its files."""
    return _pool_of(process, truth.model_dump_json(by_alias=True), size, shower_weights)


def _fill_data(task: FileTask, file: EventFile) -> int:
    """Mix all processes by their cross sections, in random order; keep what the trigger keeps."""
    rng = np.random.default_rng(_seed(task, "detector"))
    parts = []
    for process in PROCESSES.values():
        n = int(rng.poisson(expected_data(process, task.truth, task.luminosity)))
        source = _source(task, process, shift=task.truth.mass_shift_mev, shower_weights=False)
        events = _draw(process, source, n, task.truth, rng, branches=False)
        parts.append(_accepted_by_theory(events, process, task.truth, rng))
    mixed = concatenate_events(parts)
    order = rng.permutation(len(mixed))
    detector = Detector(task.truth, is_data=True)
    done = 0
    for size in split(len(mixed), CLUSTER):
        entry, branches = detector.measure(mixed.take(order[done : done + size]), rng)
        file.extend({**branches, **_identity(task, entry + done)})
        done += size
    file.write_runs({"run": np.uint32(_FIRST_DATA_RUN + task.index)})
    return len(mixed)


def _accepted_by_theory(events: Events, process: Process, truth: Truth, rng: np.random.Generator) -> Events:
    """Keep each event with a probability proportional to the truth's theory weight."""
    if process.boson is None or not truth.has("theory"):
        return events
    weights = theory.lookup(
        theory.nominal_weights(truth.theory),
        events.boson_charge,
        np.abs(events.boson_rapidity),
        events.boson_pt,
    )
    kept = rng.random(len(events)) * _largest_weight(process, truth) < weights
    return events.take(np.flatnonzero(kept))


def _largest_weight(process: Process, truth: Truth) -> float:
    if process.boson is None or not truth.has("theory"):
        return 1.0
    return float(theory.nominal_weights(truth.theory).max())


def _source(task: FileTask, process: Process, *, shift: float, shower_weights: bool) -> Generator | None:
    """Return the generator of a process, none for the parametric one."""
    if process.boson is None:
        return None
    seed = _seed(task, f"generator {process.name}")
    return Generator(
        process,
        seed,
        mass_shift_mev=shift if process.boson == "W" else 0.0,
        shower_weights=shower_weights,
    )


def _draw(
    process: Process,
    source: Generator | None,
    n: int,
    truth: Truth,
    rng: np.random.Generator,
    *,
    branches: bool,
) -> Events:
    if source is None:
        return draw_nonprompt(n, truth.nonprompt, rng, branches=branches)
    return simulate(process, source.draw(n), rng, branches=branches)


def _identity(task: FileTask, entry: Int64) -> dict[str, Column]:
    """Return run, luminosity section and event number, which no other event of any of our files has."""
    n = len(entry)
    run = 1 if task.process is not None else _FIRST_DATA_RUN + task.index
    code = DATA_CODE if task.process is None else find(task.process).code
    first = code * _EVENTS_A_CODE + task.index * _EVENTS_A_FILE
    return {
        "run": np.full(n, run, np.uint32),
        "luminosityBlock": (1 + entry // LUMINOSITY_SECTION).astype(np.uint32),
        "event": (first + 1 + entry).astype(np.uint64),
    }


def _seed(task: FileTask, purpose: str) -> np.random.SeedSequence:
    """Return the seed of one stream of random numbers of one file."""
    code = DATA_CODE if task.process is None else find(task.process).code
    return np.random.SeedSequence([task.truth.seed, code, task.index, *purpose.encode()])


def _identifiers(task: FileTask) -> np.random.SeedSequence:
    """Return the seed of the file's identifiers: files that differ in anything must not pass for one another."""
    facts = {field.name: getattr(task, field.name) for field in fields(task) if field.name != "path"}
    facts["truth"] = task.truth.model_dump(mode="json", by_alias=True)
    return np.random.SeedSequence(list(hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).digest()))
