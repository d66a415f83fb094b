"""A finished job that is taken up again, and one that is taken away: what happens to its rows.

What a retried job has done already stays done. Only what failed or was left out waits again, with fresh counters. If
files were at fault, all files are looked at anew: a file that was repaired is another file, so the job gets another
plan, in which the partials that are there are found by their names.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.engine import Connection, Row

from binworks.service import quotas
from binworks.service.database import generations, job_events, jobs, merges, pins, units
from binworks.service.model import JobState, UnitState
from binworks.service.quotas import Limits
from binworks.tensors.errors import ConflictError

OF_THE_FILE = frozenset(
    {"missing-file", "unreadable-file", "not-root", "truncated-file", "corrupt-file", "file-changed"}
)
"""Codes of failures that end when the file is repaired."""
FRESH = {
    "state": UnitState.PENDING,
    "splits": 0,
    "attempts": 0,
    "failures": 0,
    "kills": 0,
    "token": None,
    "not_before": 0.0,
    "worker": None,
    "started": None,
    "finished": None,
    "error": None,
    "traceback": None,
}
FORGOTTEN = {"digest": None, "entries": None, "bytes": None, "sum_sign": None, "counts": None}
"""What a unit's row does not say any more when its partial is lost."""


def refuse(connection: Connection, row: Row[Any], code: str | None) -> None:
    """Refuse to take up a finished job for which that makes no sense.

    Parameters
    ----------
    connection : Connection
        Of the transaction.
    row : Row
        Of the job.
    code : str or None
        Digest of the processor's code that runs now; None if the processor is gone.

    Raises
    ------
    ConflictError
        ``cancelled``, ``nothing-to-retry`` or ``code-differs``.
    """
    if row.state == JobState.CANCELLED:
        raise ConflictError(
            "The job was cancelled, and stays so.",
            code="cancelled",
            where=row.id,
            hint="Submit it again; what it had done is used again.",
        )
    whole = (generations.c.job == row.id, generations.c.published, generations.c.complete)
    if row.state == JobState.SUCCEEDED and connection.execute(select(generations.c.n).where(*whole)).first():
        raise ConflictError(
            "The job's result is complete: there is nothing to try again.",
            code="nothing-to-retry",
            where=row.id,
        )
    if row.resolved["code"] != code:
        raise ConflictError(
            "The processor's code is no longer the one with which the job began, and a result has one code.",
            code="code-differs",
            where=row.id,
            hint="Submit the job again: it is then filled with the new code.",
        )


def reopen(connection: Connection, row: Row[Any], limits: Limits, now: float) -> None:
    """Bring a finished job's rows into the state from which a driver goes on.

    Raises
    ------
    ConflictError
        ``too-many-units``.
    """
    mine = units.c.job == row.id
    lost = connection.execute(
        select(units.c.dataset, units.c.state, units.c.error).where(mine, units.c.state != UnitState.DONE)
    ).all()
    planned = row.planned and not (row.unreadable or any(_of_the_file(unit.error) for unit in lost))
    if planned:
        quotas.check_units(connection, row.owner, len(lost), limits, now)
        connection.execute(update(units).where(mine, units.c.state != UnitState.DONE).values(**FRESH))
        _forget_sums(connection, row.id, {unit.dataset for unit in lost if unit.state == UnitState.SKIPPED})
    else:
        _forget_units(connection, row, now)
    last = select(func.max(generations.c.n)).where(generations.c.job == row.id)
    reset = {
        "planned": planned,
        "unreadable": row.unreadable if planned else [],
        "error": None,
        "traceback": None,
        "note": None,
        "started": None,
        "finished": None,
        "retried_after": connection.execute(last).scalar_one() or 0,
    }
    connection.execute(update(jobs).where(jobs.c.id == row.id).values(**reset))


def remove(connection: Connection, row: Row[Any], now: float) -> None:
    """Take a finished job's rows away; its files are then nobody's, and the collector removes them.

    Raises
    ------
    ConflictError
        ``job-not-finished``.
    """
    if not JobState(row.state).finished:
        raise ConflictError(
            f"The job is {row.state}; only a finished one can be deleted.",
            code="job-not-finished",
            where=row.id,
            hint="Cancel it first.",
        )
    _forget_units(connection, row, now)
    for table in (pins, generations, job_events):
        connection.execute(delete(table).where(table.c.job == row.id))
    connection.execute(delete(jobs).where(jobs.c.id == row.id))


def _of_the_file(error: dict[str, Any] | None) -> bool:
    return error is not None and error["code"] in OF_THE_FILE


def _forget_units(connection: Connection, row: Row[Any], now: float) -> None:
    quotas.keep_spent(connection, row.owner, row.id, now)
    for table in (merges, units):
        connection.execute(delete(table).where(table.c.job == row.id))


def _forget_sums(connection: Connection, job: str, datasets: set[str]) -> None:
    """Forget sums that were made without units which are now to be in; the others are found again by name."""
    if datasets:
        connection.execute(delete(merges).where(merges.c.job == job, merges.c.dataset.in_(datasets)))
