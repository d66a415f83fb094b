"""One simulated run: the service's own driver, ledger and fair share, against a cluster that is made up."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import virtual
from simulate_cluster import SimulatedCluster
from simulate_work import Model
from sqlalchemy import event
from sqlalchemy.engine import Connection
from virtual import VirtualLoop

from binworks.processors.dataset import Dataset
from binworks.service.database import Database
from binworks.service.driver import Driver
from binworks.service.jobs import Jobs
from binworks.service.ledger import Ledger
from binworks.service.model import JobRequest, JobState, ResolvedJob
from binworks.service.plan import FileFacts
from binworks.service.rim import Rim
from binworks.service.settings import Settings
from binworks.service.store import Store
from binworks.service.tasks import Failure

EPOCH = 1.8e9
CLUSTER_EVENTS = 50_000
SITE = "root://files.example.org/"
SHARES = {"data": 0.1, "Wplus": 0.35, "Wminus": 0.25, "Z": 0.15, "Wtau": 0.1, "top": 0.05}
"""Part of the events of each data set."""


@dataclass(frozen=True)
class Asked:
    """A job that is submitted.

    Parameters
    ----------
    events, files : int
        In all data sets together.
    unit_events : int
        Of a unit of work, about.
    processor : str
        One of the model's.
    at : float
        When, in seconds from the start.
    awaited : bool
        Whether the run goes on until its end.
    """

    events: int = 4_400_000_000
    files: int = 4_400
    unit_events: int = 1_000_000
    processor: str = "w_mass"
    at: float = 0.0
    awaited: bool = True

    def facts(self) -> dict[str, list[FileFacts]]:
        """Return the files by data set."""
        return {name: list(self._files(name, share)) for name, share in SHARES.items()}

    def _files(self, name: str, share: float) -> Iterator[FileFacts]:
        count = max(1, round(share * self.files))
        each, rest = divmod(round(share * self.events), count)
        for number in range(count):
            entries = each + (number < rest)
            path = f"{SITE}{self.processor}/{name}/{number:05d}.root"
            yield FileFacts(path, f"uuid-{path}", 1600 * entries, entries, _clusters(entries))

    def resolved(self, facts: Mapping[str, Sequence[FileFacts]]) -> ResolvedJob:
        """Return the job as the service would keep it."""
        datasets = tuple(
            Dataset(
                name=name, files=tuple(file.path for file in files), kind="data" if name == "data" else "mc"
            )
            for name, files in facts.items()
        )
        names = [dataset.name for dataset in datasets]
        return ResolvedJob(
            request=JobRequest(processor=self.processor, datasets=list(names)),
            datasets=datasets,
            options={},
            systematics=("efficiency", "scale", "pdf", "resolution", "recoil"),
            corrections=None,
            corrections_digest=None,
            luminosity=16_800.0,
            code="0" * 64,
            unit_events=self.unit_events,
        )


@dataclass
class Told:
    """What one job became.

    Parameters
    ----------
    events, units : int
        Planned.
    ideal : float
        Seconds that its events take all workers at their rate, and nothing else.
    submitted, began, filled, summed, ended : float
        When: submitted, first unit begun, last unit done, all sums stored, last snapshot published.
    snapshots : list of (float, float)
        When each was published, and the part of the events in it.
    """

    events: int = 0
    units: int = 0
    ideal: float = 0.0
    submitted: float = 0.0
    began: float = 0.0
    filled: float = 0.0
    summed: float = 0.0
    ended: float = 0.0
    snapshots: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class Result:
    """What a run was like."""

    jobs: list[Told]
    units: int
    story: list[tuple[float, str, str]]
    attempts: Counter[tuple[str, str]]
    busy: Counter[str]
    read: Counter[str]
    written: Counter[str]
    objects: int
    messages: int
    transactions: int
    calls: int
    seconds: float
    over_window: float
    driver_seconds: float
    ledger_seconds: float
    wall_seconds: float
    peak_mb: float

    @property
    def redone(self) -> int:
        """Attempts that led to nothing; a unit that killed its worker is filled in steps, each an attempt."""
        led = sum(name.startswith("unit") and how == "Receipt" for _, name, how in self.story)
        return sum(self.attempts.values()) - led


class CountingDatabase(Database):
    """Counts the transactions that write; it waits for no disk, as nothing is to survive and processor time counts."""

    written = 0

    def __init__(self, url: str) -> None:
        super().__init__(url)
        event.listen(self.engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF"))

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Count it."""
        self.written += 1
        with super().write() as connection:
            yield connection


class WatchedLedger(Ledger):
    """Remembers when jobs ended and snapshots were published."""

    def watch(self) -> None:
        """Begin with nothing."""
        self.ended: dict[str, float] = {}
        self.summed: dict[str, float] = {}
        self.snapshots: dict[str, list[tuple[float, float]]] = {}

    def move(self, job: str, state: JobState, why: str, failure: Failure | None = None) -> bool:
        """Remember when."""
        moved = super().move(job, state, why, failure)
        if state == JobState.FINALIZING:
            self.summed[job] = self.clock() - EPOCH
        if state.finished:
            self.ended[job] = self.clock() - EPOCH
        return moved

    def publish(self, job: str, n: int, facts: Mapping[str, Any]) -> None:
        """Remember when, and how much is in it."""
        super().publish(job, n, facts)
        self.snapshots.setdefault(job, []).append((self.clock() - EPOCH, facts["fraction"]))


class DocumentsOnly:
    """A store that keeps the documents of the driver and none of the arrays, which are not there.

    Parameters
    ----------
    store : Store
        For the documents.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.documents = 0
        self.bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def create_json(self, key: str, document: Any) -> bool:
        """Write and count a document."""
        self.documents += 1
        created = self._store.create_json(key, document)
        self.bytes += self._store.size(key)
        return created

    def seal(self, prefix: str, attributes: Mapping[str, Any]) -> None:
        """Write what a sealed group says of itself."""
        self.create_json(f"{prefix}/zarr.json", dict(attributes))


def simulate(model: Model, asked: Sequence[Asked], folder: Path, **settings: Any) -> Result:
    """Run jobs to their end.

    Parameters
    ----------
    model : Model
        What is assumed.
    asked : sequence of Asked
        The jobs, by time of submission.
    folder : Path
        Empty; for the ledger and the documents.
    **settings
        Of the service, other than the usual ones.

    Raises
    ------
    RuntimeError
        If a job does not succeed, or a unit does not count exactly once.
    """
    folder.mkdir(exist_ok=True)
    home = Settings(home=folder, scheduler="tcp://simulated:8786", **settings)
    database = CountingDatabase(home.database_url)
    database.create_tables()
    begin = time.perf_counter()
    try:
        return virtual.run(lambda loop: _Run(loop, model, asked, home, database).run(begin))
    finally:
        database.close()


class _Run:
    def __init__(
        self,
        loop: VirtualLoop,
        model: Model,
        asked: Sequence[Asked],
        settings: Settings,
        database: CountingDatabase,
    ) -> None:
        self.loop = loop
        self.model = model
        self.asked = asked
        self.files: dict[str, FileFacts] = {}
        self.database = database
        self.cluster = SimulatedCluster(loop, model, self.files)
        self.jobs = Jobs(database, clock=self.clock)
        self.ledger = WatchedLedger(database, self.clock)
        self.ledger.watch()
        self.store = DocumentsOnly(Store.open(settings.store_url))
        self.rim = Rim(settings, self.ledger, self.store, self.cluster, self.clock)  # type: ignore[arg-type]
        self.told: dict[str, Told] = {}

    def clock(self) -> float:
        return EPOCH + self.loop.now

    async def run(self, begin: float) -> Result:
        processor, spent = time.process_time(), (self.loop.outside, self.loop.in_calls)
        driver = asyncio.create_task(Driver(self.rim).run())
        for asked in self.asked:
            await asyncio.sleep(asked.at - self.loop.now)
            with self.loop.not_counted():
                self._submit(asked)
        while not driver.done() and not all(job in self.ledger.ended for job in self.told):
            await asyncio.sleep(0.1)
        used = time.process_time() - processor - (self.loop.outside - spent[0])
        ended = self.loop.now
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        driver.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await driver
        self._look()
        return Result(
            jobs=list(self.told.values()),
            units=len(self.cluster.done),
            story=self.cluster.story,
            attempts=self.cluster.attempts,
            busy=self.cluster.busy,
            read=self.cluster.traffic.read,
            written=self.cluster.traffic.written + Counter(documents=self.store.bytes),
            objects=self.cluster.traffic.objects + self.store.documents,
            messages=self.cluster.messages,
            transactions=self.database.written,
            calls=self.loop.calls,
            seconds=ended,
            over_window=self.cluster.most_over_window,
            driver_seconds=used,
            ledger_seconds=self.loop.in_calls - spent[1],
            wall_seconds=time.perf_counter() - begin,
            peak_mb=peak,
        )

    def _submit(self, asked: Asked) -> None:
        facts = asked.facts()
        self.files.update({file.path: file for files in facts.values() for file in files})
        view, _ = self.jobs.create(asked.resolved(facts), "tester")
        ideal = asked.events / self.model.rates[asked.processor] / self.model.workers
        if asked.awaited:
            self.told[view.id] = Told(events=asked.events, ideal=ideal, submitted=self.loop.now)

    def _look(self) -> None:
        """Read from the ledger and the last manifest what became of the jobs; refuse what must not be."""
        for job, told in self.told.items():
            view = self.jobs.get(job)
            if view.state != JobState.SUCCEEDED or not view.complete or view.generation is None:
                raise RuntimeError(f"job {job} is {view.state}, not complete: {view.error}")
            manifest = self.store.read_json(f"jobs/{job}/m/{view.generation}.json")
            numbers = [entry["unit"] for entry in manifest["units"]]
            entries = sum(entry["entries"] for entry in manifest["units"])
            if sorted(numbers) != list(range(view.counts.units.total)) or entries != told.events:
                raise RuntimeError(
                    f"job {job} has {len(numbers)} units with {entries} of {told.events} events"
                )
            told.units = len(numbers)
            told.began, told.filled = self.cluster.began[job], self.cluster.filled[job]
            told.summed, told.ended = self.ledger.summed[job], self.ledger.ended[job]
            told.snapshots = self.ledger.snapshots[job]


def _clusters(entries: int) -> tuple[int, ...]:
    return (*range(0, entries, CLUSTER_EVENTS), entries)
