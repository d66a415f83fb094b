"""What is assumed of workers, files and network in a simulation, and how long each task takes under it."""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from binworks.service.plan import FileFacts
from binworks.service.retry import Kind
from binworks.service.tasks import Failure, FillUnit, IndexFile, Merge, Outcome, Receipt, Task, WriteDataset
from binworks.service.tree import names_in

CUTS = ("trigger", "muon", "isolation", "veto", "met", "mt", "pt", "eta")
LONGEST_HICCUP = 20.0


@dataclass(frozen=True)
class Model:
    """What is assumed.

    Parameters
    ----------
    workers : int
        Each with one thread.
    rates : mapping
        Events a second of a core, by processor.
    spread : float
        Width of the log-normal time of a unit.
    stragglers, slower : float
        Part of the units that take so many times as long.
    open_seconds, hiccups, hiccup_seconds : float
        Opening a file; the part of the units that meet a slow file server, and the least that they wait for it (a
        Pareto tail of index 1.2, cut off at 20 times as much).
    partial_bytes, partial_objects : int
        A stored accumulator.
    read_rate, write_rate : float
        Bytes a second of one worker.
    prepare_seconds, index_seconds : float
        Making the processor on a worker; the facts of a file.
    ramp_seconds : float
        The workers come up evenly over this time.
    lifetime, absence : float
        Mean seconds that a worker lives, and seconds until it is replaced.
    restarts : tuple of float
        When the scheduler dies: everything under way is lost.
    outage : float
        Seconds until the scheduler is back; the workers come back within as much again.
    passing : float
        Part of the attempts that fail for a reason that passes.
    held : int
        Tasks that a worker holds, the running one included: two with Dask's usual worker-saturation of 1.1.
    hop_seconds : float
        From the driver over the scheduler to a worker, and back.
    seed : int
        Of all random numbers.
    """

    workers: int = 2000
    rates: Mapping[str, float] = field(default_factory=lambda: {"w_mass": 450e3})
    spread: float = 0.15
    stragglers: float = 0.0
    slower: float = 5.0
    open_seconds: float = 0.2
    hiccups: float = 0.02
    hiccup_seconds: float = 1.0
    partial_bytes: int = 76_000_000
    partial_objects: int = 80
    read_rate: float = 140e6
    write_rate: float = 160e6
    prepare_seconds: float = 2.0
    index_seconds: float = 0.5
    ramp_seconds: float = 0.0
    lifetime: float = math.inf
    absence: float = 60.0
    restarts: tuple[float, ...] = ()
    outage: float = 10.0
    passing: float = 0.0
    held: int = 2
    hop_seconds: float = 0.002
    seed: int = 1

    def dice(self, *about: object) -> random.Random:
        """Return random numbers that depend on what they are for, not on what happened before."""
        return random.Random(f"{self.seed}/{about}")

    @property
    def read_seconds(self) -> float:
        """Of a stored accumulator."""
        return self.partial_bytes / self.read_rate

    @property
    def commit_seconds(self) -> float:
        """Of a stored accumulator."""
        return self.partial_bytes / self.write_rate


@dataclass
class Traffic:
    """What went to and from the store, by kind."""

    read: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)
    objects: int = 0

    def count(self, task: Task, model: Model) -> None:
        """Count a task that is done."""
        if isinstance(task, FillUnit | Merge | WriteDataset):
            kind = {FillUnit: "partials", Merge: "merges", WriteDataset: "snapshots"}[type(task)]
            self.read[kind] += parts(task) * model.partial_bytes
            self.written[kind] += model.partial_bytes
            self.objects += model.partial_objects


def parts(task: Task) -> int:
    """Return how many stored accumulators a task reads."""
    if isinstance(task, Merge):
        return len(task.children)
    return len(names_in(task.value)) if isinstance(task, WriteDataset) else 0


def outcome(model: Model, files: Mapping[str, FileFacts], task: Task, attempt: int) -> tuple[Outcome, float]:
    """Return how a task ends, and after how many seconds.

    Parameters
    ----------
    model : Model
        What is assumed.
    files : mapping
        What opening a file says, by path.
    task : Task
        What is to be done.
    attempt : int
        How often it was begun before.
    """
    if isinstance(task, FillUnit):
        return _fill(model, task, model.dice(task.partial, task.step, attempt))
    if isinstance(task, IndexFile):
        return files[task.path], model.index_seconds * model.dice(task.path).lognormvariate(0.0, 0.5)
    if isinstance(task, Merge | WriteDataset):
        seconds = parts(task) * model.read_seconds + model.commit_seconds
        name = task.name if isinstance(task, Merge) else task.key
        return _receipt(model, name, {"entries": 0}, seconds), seconds
    return None, model.prepare_seconds


def _fill(model: Model, task: FillUnit, dice: random.Random) -> tuple[Outcome, float]:
    events = sum(piece.events for piece in task.pieces)
    seconds = events / 2**task.splits / model.rates[task.recipe.processor]
    seconds *= dice.lognormvariate(0.0, model.spread)
    if dice.random() < model.stragglers:
        seconds *= model.slower
    for _ in {piece.path for piece in task.pieces}:
        seconds += model.open_seconds * dice.lognormvariate(0.0, 0.5)
    if dice.random() < model.hiccups:
        seconds += min(dice.paretovariate(1.2), LONGEST_HICCUP) * model.hiccup_seconds
    if dice.random() < model.passing:
        gone = Failure(Kind.TRANSIENT, "read-failed", "The file server closed the connection.")
        return gone, dice.random() * seconds
    seconds += model.commit_seconds
    counts = {"entries": events, "selected": events // 3, "sum_sign": events}
    return _receipt(
        model, task.partial, counts | {f"cut/{cut}": events // 2 for cut in CUTS}, seconds
    ), seconds


def _receipt(model: Model, name: str, counts: dict[str, int], seconds: float) -> Receipt:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Receipt(digest, counts, model.partial_bytes, seconds, reused=False, commit=model.commit_seconds)
