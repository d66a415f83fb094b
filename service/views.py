"""From rows of the ledger to what users see. Every number is counted anew; none is kept by adding to it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Cast, Column, cast, func, select
from sqlalchemy.engine import Connection, Row

from binworks.service.database import generations, units
from binworks.service.model import (
    Counts,
    DatasetProgress,
    EventCounts,
    GenerationView,
    JobEvent,
    JobRequest,
    JobState,
    JobView,
    Missing,
    MissingFile,
    Problem,
    UnitCounts,
    UnitState,
    UnitView,
)

RATE_SECONDS = 30.0
LISTED = 100
NO_DRIVER = "No driver is at work; the job goes on when one is started."
_LOST = (UnitState.SKIPPED, UnitState.FAILED)


def job(connection: Connection, row: Row[Any], *, now: float, driver_alive: bool) -> JobView:
    """Return a job with all that is counted over its units."""
    state = JobState(row.state)
    datasets = _datasets(connection, row)
    counts = _total(datasets)
    rate = _rate(connection, row, counts, now)
    latest = _latest(connection, row.id)
    left = counts.events.total - counts.events.done
    return JobView(
        id=row.id,
        owner=row.owner,
        state=state,
        note=row.note if driver_alive or state.finished else NO_DRIVER,
        request=JobRequest.model_validate(row.request),
        created=when(row.created),
        started=when_or_none(row.started),
        finished=when_or_none(row.finished),
        counts=counts,
        rate=rate,
        eta_s=left / rate if rate and not state.finished and row.planned else None,
        generation=None if latest is None else latest.n,
        complete=latest is not None and latest.complete,
        missing=_missing(connection, row),
        luminosity=row.resolved["luminosity"],
        error=None if row.error is None else Problem.model_validate(row.error),
        traceback=row.traceback,
        datasets=datasets,
    )


def progress(connection: Connection, row: Row[Any], now: float) -> dict[str, Any]:
    """Return how far a job is, as JSON for its diary."""
    counts = _total(_datasets(connection, row))
    rate = _rate(connection, row, counts, now)
    eta = (counts.events.total - counts.events.done) / rate if rate else None
    return {"counts": counts.model_dump(mode="json"), "rate": rate, "eta_s": eta}


def unit(row: Row[Any]) -> UnitView:
    """Return a unit of work."""
    return UnitView(
        unit=row.unit,
        dataset=row.dataset,
        state=UnitState(row.state),
        events=row.events,
        attempts=row.attempts,
        splits=row.splits,
        files=[f"{piece['path']}[{piece['start']}:{piece['stop']}]" for piece in row.ranges],
        seconds=row.seconds,
        reused=row.reused,
        worker=row.worker,
        error=None if row.error is None else Problem.model_validate(row.error),
        traceback=row.traceback,
    )


def generation(row: Row[Any]) -> GenerationView:
    """Return a snapshot."""
    return GenerationView(
        n=row.n,
        created=when(row.created),
        final=row.final,
        complete=row.complete,
        fraction=row.fraction,
        events=row.events,
        units=row.units,
    )


def event(row: Row[Any]) -> JobEvent:
    """Return a line of a job's diary."""
    return JobEvent(id=row.id, job=row.job, kind=row.kind, time=when(row.time), data=row.data)


def when(seconds: float) -> datetime:
    """Return a moment as people write it, in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def when_or_none(seconds: float | None) -> datetime | None:
    """Return a moment, if there is one."""
    return None if seconds is None else when(seconds)


def _datasets(connection: Connection, row: Row[Any]) -> list[DatasetProgress]:
    columns = (
        units.c.dataset,
        units.c.state,
        func.count().label("units"),
        _sum(units.c.events).label("events"),
        _sum(units.c.entries).label("entries"),
        _sum(units.c.sum_sign).label("sum_sign"),
    )
    query = select(*columns).where(units.c.job == row.id).group_by(units.c.dataset, units.c.state)
    found = {
        facts["name"]: DatasetProgress(
            name=facts["name"],
            kind=facts["kind"],
            group=facts["group"] or facts["name"],
            cross_section=facts["cross_section"],
            files=len(facts["files"]),
            units=UnitCounts(),
            events=EventCounts(),
        )
        for facts in row.resolved["datasets"]
    }
    for part in connection.execute(query):
        _count(found[part.dataset], part)
    return list(found.values())


def _sum(column: Column[int]) -> Cast[int]:
    return cast(func.sum(column), BigInteger)  # PostgreSQL sums whole numbers to decimal ones


def _count(progress: DatasetProgress, part: Row[Any]) -> None:
    state = UnitState(part.state)
    progress.units.total += part.units
    progress.events.total += part.events
    if state == UnitState.DONE:
        progress.units.done += part.units
        progress.events.done += part.events
        progress.entries += part.entries
        progress.sum_sign += part.sum_sign
    elif state == UnitState.RUNNING:
        progress.units.running += part.units
    elif state in _LOST:
        progress.units.failed += part.units


def _total(datasets: list[DatasetProgress]) -> Counts:
    total = Counts()
    for progress in datasets:
        for name in UnitCounts.model_fields:
            setattr(total.units, name, getattr(total.units, name) + getattr(progress.units, name))
        total.events.total += progress.events.total
        total.events.done += progress.events.done
    return total


def _rate(connection: Connection, row: Row[Any], counts: Counts, now: float) -> float | None:
    if row.started is None or not counts.events.done:
        return None
    begin: float = row.started  # what was done before a retry is not counted
    seconds = max((row.finished or now) - begin, 1e-3)
    if row.finished is None:
        seconds = min(RATE_SECONDS, max(seconds, 1.0))
        begin = now - seconds
    recent = select(_sum(units.c.events)).where(
        units.c.job == row.id, units.c.state == UnitState.DONE, units.c.finished > begin
    )
    done: int = connection.execute(recent).scalar_one() or 0
    return done / seconds


def _latest(connection: Connection, job_id: str) -> Row[Any] | None:
    query = select(generations).where(generations.c.job == job_id, generations.c.published)
    return connection.execute(query.order_by(generations.c.n.desc()).limit(1)).one_or_none()


def _missing(connection: Connection, row: Row[Any]) -> Missing:
    lost = connection.execute(
        select(units).where(units.c.job == row.id, units.c.state.in_(_LOST)).order_by(units.c.unit)
    ).all()
    whole = [MissingFile.model_validate(entry) for entry in row.unreadable]
    ranges = [
        MissingFile(
            path=piece["path"],
            dataset=part.dataset,
            start=piece["start"],
            stop=piece["stop"],
            unit=part.unit,
            error=Problem.model_validate(part.error),
        )
        for part in lost
        for piece in part.ranges
    ]
    named = whole + ranges
    return Missing(events=sum(part.events for part in lost), files=named[:LISTED], n_files=len(named))
