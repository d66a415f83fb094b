"""Numbers for Prometheus, in a registry of the application's own.

What stands in the database is counted when somebody asks, at most once in two seconds. Labels are states, routes and
methods: no owner, no job, no file, so that the numbers need no token.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import BigInteger, case, cast, func, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

import binworks
from binworks.api.checks import Checks
from binworks.api.problems import responses
from binworks.service import scaling
from binworks.service.database import Database, exports, generations, jobs, units
from binworks.service.exports import ExportState
from binworks.service.model import JobState, UnitState
from binworks.tensors.errors import BinworksError

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FRESH_SECONDS = 2.0
RATE_SECONDS = 30.0
AT_ONCE = 500
_FINISHED = [state.value for state in JobState if state.finished]

router = APIRouter(tags=["service"], responses=responses(500))


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(request: Request) -> Response:
    """Return the numbers of this process and of the service, in the text format of Prometheus; no token is needed."""
    registry: CollectorRegistry = request.app.state.registry
    return Response(generate_latest(registry), media_type=MEDIA_TYPE)


def new_registry() -> CollectorRegistry:
    """Return a registry with what is known of this process alone."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    about = Gauge("binworks_info", "The version, as a label.", ["version"], registry=registry)
    about.labels(binworks.__version__).set(1)
    return registry


@dataclass
class Facts:
    """What the ledger says at one moment."""

    jobs: Counter[str] = field(default_factory=Counter)
    backlog: Counter[str] = field(default_factory=Counter)
    workers: int = 0
    units_done: int = 0
    events_done: int = 0
    recent_events: int = 0
    snapshots: int = 0
    oldest: float = 0.0
    exports: Counter[str] = field(default_factory=Counter)


class Ledger(Collector):
    """Counts over the job database, and what the checks say.

    Parameters
    ----------
    database : Database
    checks : Checks
    """

    def __init__(self, database: Database, checks: Checks) -> None:
        self._database = database
        self._checks = checks
        self._lock = threading.Lock()
        self._metrics: list[Metric] = []
        self._until = 0.0
        self._settled: dict[str, tuple[float | None, int, int]] = {}
        """Units and events done of jobs that have ended: they change by a retry only."""

    def collect(self) -> Iterable[Metric]:
        """Give all metrics; those of two seconds ago if somebody asked then."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._metrics = list(self._collected())
                self._until = time.monotonic() + FRESH_SECONDS
            return self._metrics

    def _collected(self) -> Iterator[Metric]:
        failed = self._checks.failed()
        for name, about in {
            "database": "Whether the job database answers.",
            "scheduler": "Whether the scheduler accepts connections.",
            "store": "Whether the store can be written.",
        }.items():
            yield _gauge(f"{name}_reachable", about, float(name not in failed))
        yield _gauge("driver_alive", "Whether a driver holds the lease.", float("driver" not in failed))
        yield from _of_the_cluster(self._checks)
        try:
            free = {name: float(space.free) for name, space in self._checks.space().items()}
            yield _labelled(
                "free_bytes", "Free on the disk of the home, and of a store that is a folder.", "place", free
            )
            yield _gauge(
                "driver_lease_seconds",
                "For how long the driver's lease holds; a living driver renews it four times in its length.",
                max(0.0, self._checks.lease_seconds()),
            )
            yield from _of(self._facts())
        except (BinworksError, OperationalError):
            return  # the gauges above say what is not there

    def _facts(self) -> Facts:
        now = time.time()
        with self._database.read() as connection:
            rows = connection.execute(select(jobs.c.id, jobs.c.state, jobs.c.started, jobs.c.finished)).all()
            facts = Facts(jobs=Counter(row.state for row in rows))
            _count_unfinished(connection, facts, now)
            facts.workers = scaling.wanted(scaling.backlog(connection))
            self._count_finished(connection, facts, rows)
            _count_snapshots(connection, facts, rows, now)
            query = select(exports.c.state, func.count().label("exports")).group_by(exports.c.state)
            facts.exports.update({row.state: row.exports for row in connection.execute(query)})
        return facts

    def _count_finished(self, connection: Connection, facts: Facts, rows: Sequence[Any]) -> None:
        ended = {row.id: row.finished for row in rows if row.state in _FINISHED}
        known = {job: done for job, done in self._settled.items() if job in ended and done[0] == ended[job]}
        new = [job for job in ended if job not in known]
        for first in range(0, len(new), AT_ONCE):
            some = new[first : first + AT_ONCE]
            known |= {job: (ended[job], 0, 0) for job in some}
            query = select(units.c.job, func.count().label("units"), _sum(units.c.events).label("events"))
            done = query.where(units.c.job.in_(some), units.c.state == UnitState.DONE).group_by(units.c.job)
            known |= {row.job: (ended[row.job], row.units, row.events) for row in connection.execute(done)}
        self._settled = known
        facts.units_done += sum(done[1] for done in known.values())
        facts.events_done += sum(done[2] for done in known.values())


def _count_unfinished(connection: Connection, facts: Facts, now: float) -> None:
    recent = case((units.c.finished > now - RATE_SECONDS, units.c.events), else_=0)
    query = select(
        units.c.state,
        func.count().label("units"),
        _sum(units.c.events).label("events"),
        _sum(recent).label("recent"),
    )
    unfinished = select(jobs.c.id).where(jobs.c.state.not_in(_FINISHED))
    for row in connection.execute(query.where(units.c.job.in_(unfinished)).group_by(units.c.state)):
        if row.state in (UnitState.PENDING, UnitState.RUNNING):
            facts.backlog[row.state] = row.units
        elif row.state == UnitState.DONE:
            facts.units_done += row.units
            facts.events_done += row.events
            facts.recent_events += row.recent


def _count_snapshots(connection: Connection, facts: Facts, rows: Sequence[Any], now: float) -> None:
    latest = func.max(generations.c.created).label("latest")
    query = select(generations.c.job, func.count().label("snapshots"), latest)
    found = connection.execute(query.where(generations.c.published).group_by(generations.c.job)).all()
    facts.snapshots = sum(row.snapshots for row in found)
    seen = {row.job: row.latest for row in found}
    running = (row for row in rows if row.state == JobState.RUNNING)
    facts.oldest = max((now - seen.get(row.id, row.started or now) for row in running), default=0.0)


def _of(facts: Facts) -> Iterator[Metric]:
    """Give the metrics of the ledger."""
    by_state = {state.value: float(facts.jobs[state]) for state in JobState}
    yield _labelled("jobs", "Jobs by state.", "state", by_state)
    waiting = {state.value: float(facts.backlog[state]) for state in (UnitState.PENDING, UnitState.RUNNING)}
    yield _labelled("backlog_units", "Units of unfinished jobs that are not settled.", "state", waiting)
    yield _gauge(
        "workers_wanted", "Workers of one thread that the backlog asks for, without any bound.", facts.workers
    )
    yield _gauge("units_done", "Units that are done, of all jobs there are.", facts.units_done)
    yield _gauge("events_done", "Events that are done, of all jobs there are.", facts.events_done)
    yield _gauge(
        "events_per_second",
        "Events done of unfinished jobs over the last half minute.",
        facts.recent_events / RATE_SECONDS,
    )
    yield _gauge("snapshots_published", "Snapshots that can be read.", facts.snapshots)
    yield _gauge(
        "oldest_snapshot_seconds",
        "Of running jobs, the longest time since a snapshot, or since the job began.",
        facts.oldest,
    )
    files = {state.value: float(facts.exports[state]) for state in ExportState}
    yield _labelled("exports", "Files for fits by state.", "state", files)


def _of_the_cluster(checks: Checks) -> Iterator[Metric]:
    """Give what is known where `binworks up` runs and where connections are TLS."""
    if (status := checks.workers()) is not None:
        counts = {"wanted": float(status.cluster.wanted), "alive": float(status.cluster.alive)}
        counts |= {"connected": float(status.connected or 0)}
        yield _labelled("workers", "Workers of one thread that `binworks up` keeps.", "state", counts)
    if left := checks.certificates():
        about = "Until a certificate of the Dask parts expires."
        yield _labelled("certificate_seconds", about, "role", left)


def _sum(column: Any) -> Any:
    return cast(
        func.coalesce(func.sum(column), 0), BigInteger
    )  # PostgreSQL sums whole numbers to decimal ones


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"binworks_{name}", about, value=value)


def _labelled(name: str, about: str, label: str, values: dict[str, float]) -> Metric:
    family = GaugeMetricFamily(f"binworks_{name}", about, labels=[label])
    for label_value, value in values.items():
        family.add_metric([label_value], value)
    return family
