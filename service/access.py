"""Who may read and change which job: its owner all, those it is shared with read, an admin all."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, delete, exists, insert, or_, select, true
from sqlalchemy.engine import Connection, Row

from binworks.service.database import Database, jobs, shares
from binworks.tensors.errors import RequestError

EVERYBODY = "*"
READER = r"^(\*|[A-Za-z0-9_][!-.0-~]{0,199})$"
"""An owner's name, or everybody."""


def visible(viewer: str | None) -> ColumnElement[bool]:
    """Return the condition on the table of jobs that a viewer may read it; None reads everybody's."""
    if viewer is None:
        return true()
    shared = exists().where(shares.c.job == jobs.c.id, shares.c.reader.in_((viewer, EVERYBODY)))
    return or_(jobs.c.owner == viewer, shared)


def row(connection: Connection, job: str, viewer: str | None) -> Row[Any]:
    """Return the row of a job that a viewer may read.

    Raises
    ------
    RequestError
        Code ``unknown-job`` if there is none for him.
    """
    found = connection.execute(select(jobs).where(jobs.c.id == job, visible(viewer))).one_or_none()
    if found is None:
        raise unknown(job)
    return found


def owned(connection: Connection, job: str, viewer: str | None) -> Row[Any]:
    """Return the row of a job that a viewer may change.

    Raises
    ------
    RequestError
        Code ``unknown-job`` if there is none that he may read; code ``not-yours`` if he may only read it.
    """
    found = row(connection, job, viewer)
    if viewer not in (None, found.owner):
        raise RequestError(
            "The job is shared with you for reading; only its owner may change it.",
            code="not-yours",
            where=job,
            hint="Submit the same request yourself.",
        )
    return found


def unknown(job: str) -> RequestError:
    """Return the error that there is no such job, whether there is none or it may not be seen."""
    return RequestError(
        "There is no such job.", code="unknown-job", where=job, hint="`binworks jobs` lists yours."
    )


def readers(database: Database, job: str, viewer: str | None) -> list[str]:
    """Return with whom a job is shared.

    Raises
    ------
    RequestError
        As `owned` does.
    """
    with database.read() as connection:
        owned(connection, job, viewer)
        query = select(shares.c.reader).where(shares.c.job == job).order_by(shares.c.reader)
        return list(connection.execute(query).scalars())


def share(database: Database, job: str, reader: str, viewer: str | None) -> None:
    """Let somebody read a job; once more changes nothing.

    Raises
    ------
    RequestError
        As `owned` does.
    """
    with database.write() as connection:
        owned(connection, job, viewer)
        place = and_(shares.c.job == job, shares.c.reader == reader)
        if connection.execute(select(shares).where(place)).one_or_none() is None:
            connection.execute(insert(shares).values(job=job, reader=reader))


def unshare(database: Database, job: str, reader: str, viewer: str | None) -> None:
    """Let somebody read a job no more; also if he could not.

    Raises
    ------
    RequestError
        As `owned` does.
    """
    with database.write() as connection:
        owned(connection, job, viewer)
        connection.execute(delete(shares).where(shares.c.job == job, shares.c.reader == reader))
