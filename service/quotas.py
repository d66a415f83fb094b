"""What an owner uses of the service, and how much of it he may use.

It is checked in the transaction that adds to it, so two requests at once cannot both take the last place. What is not
limited is not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select
from sqlalchemy.engine import Connection

from binworks.service import jobstate
from binworks.service.database import exports, generations, jobs, spent, units
from binworks.service.model import Quota, UnitState, Usage
from binworks.service.settings import Settings
from binworks.tensors.errors import ConflictError

WINDOW_SECONDS = 30 * 86_400.0
HOUR = 3600.0
_UNSETTLED = (UnitState.PENDING, UnitState.RUNNING)


@dataclass(frozen=True)
class Limits:
    """How much one owner may use; None: as much as he likes.

    Parameters
    ----------
    active_jobs : int
        Jobs that are not finished.
    queued_units : int or None
        Units of these jobs that are not settled.
    stored_bytes : int or None
        Of snapshots, partials and exports.
    cpu_hours : float or None
        In the last 30 days.
    """

    active_jobs: int = 100
    queued_units: int | None = None
    stored_bytes: int | None = None
    cpu_hours: float | None = None

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Return those of the settings."""
        return cls(
            settings.max_active_jobs,
            settings.max_queued_units,
            settings.max_stored_bytes,
            settings.max_cpu_hours,
        )


def active_jobs(connection: Connection, owner: str, _now: float) -> int:
    """Return the number of his unfinished jobs."""
    query = select(func.count()).where(jobs.c.owner == owner, jobs.c.state.in_(jobstate.ACTIVE))
    return int(connection.execute(query).scalar_one())


def queued_units(connection: Connection, owner: str, _now: float) -> int:
    """Return the number of units of his unfinished jobs that are neither done nor given up."""
    active = (jobs.c.owner == owner, jobs.c.state.in_(jobstate.ACTIVE))
    query = select(func.count()).select_from(units.join(jobs)).where(*active, units.c.state.in_(_UNSETTLED))
    return int(connection.execute(query).scalar_one())


def stored_bytes(connection: Connection, owner: str, _now: float) -> int:
    """Return the bytes of his jobs' published snapshots and the partials they filled, and of exports he asked for."""
    mine = select(func.sum(exports.c.bytes)).where(exports.c.owner == owner, exports.c.state == "ready")
    total = connection.execute(mine).scalar_one() or 0
    for table, counted in (
        (generations, generations.c.published),
        (units, (units.c.state == UnitState.DONE) & units.c.reused.is_(False)),
    ):
        query = select(func.sum(table.c.bytes)).select_from(table.join(jobs))
        total += connection.execute(query.where(jobs.c.owner == owner, counted)).scalar_one() or 0
    return total


def cpu_hours(connection: Connection, owner: str, now: float) -> float:
    """Return the hours that workers spent on units of his in the last 30 days, those of deleted jobs included."""
    since = now - WINDOW_SECONDS
    recent = (jobs.c.owner == owner, jobs.c.finished.is_(None) | (jobs.c.finished > since))
    mine = (units.c.reused.is_(False), units.c.finished > since)
    query = select(func.sum(units.c.seconds)).select_from(units.join(jobs)).where(*recent, *mine)
    gone = select(func.sum(spent.c.seconds)).where(spent.c.owner == owner, spent.c.time > since)
    return sum(connection.execute(part).scalar_one() or 0.0 for part in (query, gone)) / HOUR


@dataclass(frozen=True)
class _Kind:
    """Something that is limited."""

    name: str
    code: str
    what: str
    hint: str
    used: Callable[[Connection, str, float], float]


_UNITS = _Kind(
    "queued_units",
    code="too-many-units",
    what="units of work in the queue",
    hint="Wait until some are done, cancel a job, or ask for less data at a time.",
    used=queued_units,
)
_BYTES = _Kind(
    "stored_bytes",
    code="too-much-stored",
    what="stored bytes",
    hint="Delete exports, or jobs whose results you do not need: `binworks delete JOB`.",
    used=stored_bytes,
)
_KINDS = (
    _Kind(
        "active_jobs",
        code="too-many-jobs",
        what="unfinished jobs",
        hint="Wait for one to finish, or cancel one.",
        used=active_jobs,
    ),
    _UNITS,
    _BYTES,
    _Kind(
        "cpu_hours",
        code="too-much-cpu",
        what="processor hours in the last 30 days",
        hint="Wait until older work is 30 days ago, or ask for a higher limit.",
        used=cpu_hours,
    ),
)


def check(connection: Connection, owner: str, limits: Limits, now: float) -> None:
    """Refuse another job to an owner who has reached a limit.

    Parameters
    ----------
    connection : Connection
        Of the transaction that adds the job.
    owner : str
        Of the job.
    limits : Limits
        What he may use.
    now : float
        Seconds since 1970.

    Raises
    ------
    ConflictError
        ``too-many-jobs``, ``too-many-units``, ``too-much-stored`` or ``too-much-cpu``.
    """
    for kind in _KINDS:
        _check(kind, connection, owner, limits, now)


def check_stored(connection: Connection, owner: str, limits: Limits, now: float) -> None:
    """Refuse another export to an owner who has as many bytes as he may.

    Parameters
    ----------
    connection : Connection
        Of the transaction that adds it.
    owner : str
        Who asks for it.
    limits : Limits
        What he may use.
    now : float
        Seconds since 1970.

    Raises
    ------
    ConflictError
        ``too-much-stored``.
    """
    _check(_BYTES, connection, owner, limits, now)


def _check(kind: _Kind, connection: Connection, owner: str, limits: Limits, now: float) -> None:
    limit = getattr(limits, kind.name)
    if limit is not None and (used := kind.used(connection, owner, now)) >= limit:
        raise _reached(kind, owner, used, limit)


def check_units(connection: Connection, owner: str, count: int, limits: Limits, now: float) -> None:
    """Refuse units that would not fit into what an owner may have in the queue.

    Parameters
    ----------
    connection : Connection
        Of the transaction that adds them.
    owner : str
        Of the job.
    count : int
        Units that are to be added.
    limits : Limits
        What he may use.
    now : float
        Seconds since 1970.

    Raises
    ------
    ConflictError
        ``too-many-units``.
    """
    if limits.queued_units is None:
        return
    used = queued_units(connection, owner, now)
    if used + count > limits.queued_units:
        raise ConflictError(
            f"The job needs {count:,} units of work, and {owner} has {used:,} in the queue; "
            f"the limit is {limits.queued_units:,}.",
            code=_UNITS.code,
            where=owner,
            hint=_UNITS.hint,
        )


def usage(connection: Connection, owner: str, limits: Limits, now: float) -> Usage:
    """Return what an owner uses and may use."""
    found = {
        kind.name: Quota(used=kind.used(connection, owner, now), limit=getattr(limits, kind.name))
        for kind in _KINDS
    }
    return Usage(owner=owner, **found)


def keep_spent(connection: Connection, owner: str, job: str, now: float) -> None:
    """Remember the processor time of a job whose units are about to go."""
    connection.execute(delete(spent).where(spent.c.owner == owner, spent.c.time <= now - WINDOW_SECONDS))
    query = select(func.sum(units.c.seconds), func.max(units.c.finished))
    seconds, last = connection.execute(
        query.where(units.c.job == job, units.c.reused.is_(False), units.c.seconds.is_not(None))
    ).one()
    if seconds:
        connection.execute(insert(spent).values(owner=owner, time=last, seconds=seconds))


def _reached(kind: _Kind, owner: str, used: float, limit: float) -> ConflictError:
    return ConflictError(
        f"{owner} has {used:,.6g} {kind.what}; the limit is {limit:,.6g}.",
        code=kind.code,
        where=owner,
        hint=kind.hint,
    )
