"""Who may read which snapshot, in one small query; and pins, which keep a snapshot while somebody reads it.

A pin is written in the transaction that sees the snapshot is still there, and the collector looks for pins in the
transaction that takes it away (`binworks.service.gc`). So what is pinned stays.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import and_, func, insert, select, update
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import OperationalError

from binworks.service import access, views
from binworks.service.database import Database, generations, jobs, pins
from binworks.service.model import GenerationView
from binworks.tensors.errors import ConflictError, RequestError

PIN_SECONDS = 3600.0
AGAIN_SECONDS = 60.0
"""A pin that is younger than this is not written again."""
PATIENCE_SECONDS = 5.0
"""After a pin could not be written, so long nobody tries again: each try may wait for the lock."""

log = logging.getLogger(__name__)


class Pins:
    """The snapshots that this process reads.

    Parameters
    ----------
    database : Database
        Where jobs and pins are kept.
    clock : callable
        Seconds since 1970.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self.database = database
        self.clock = clock
        self._written: dict[tuple[str, int], float] = {}
        self._writing = threading.Lock()

    def pin(self, job: str, n: int | None = None, viewer: str | None = None) -> GenerationView:
        """Return a snapshot, the latest by default; from now on it stays for an hour.

        Raises
        ------
        RequestError
            Code ``unknown-job`` if there is none that the viewer may read (None reads everybody's); code
            ``unknown-generation`` if this snapshot was never published, or is superseded and removed.
        ConflictError
            Code ``no-snapshot`` if the job has none yet.
        """
        with self.database.read() as connection:
            row = _published(connection, job, n, viewer)
        if self._is_fresh(job, row.n):
            return views.generation(row)
        with self._writing:  # who asks meanwhile must not read before the pin is there
            if self._is_fresh(job, row.n):
                return views.generation(row)
            try:
                return views.generation(self._write(job, n, viewer))
            except OperationalError as error:  # a database that cannot be written must not stop the readers
                log.warning("snapshot %d is read without a pin: %s", row.n, error.orig, extra={"job": job})
                self._written[job, row.n] = self.clock() - AGAIN_SECONDS + PATIENCE_SECONDS
                return views.generation(row)

    def _write(self, job: str, n: int | None, viewer: str | None) -> Row[Any]:
        now = self.clock()
        with self.database.write() as connection:
            row = _published(connection, job, n, viewer)
            place, until = (pins.c.job == job, pins.c.n == row.n), now + PIN_SECONDS
            if not connection.execute(update(pins).where(*place).values(until=until)).rowcount:
                connection.execute(insert(pins).values(job=job, n=row.n, until=until))
        self._written = {key: then for key, then in self._written.items() if abs(now - then) < AGAIN_SECONDS}
        self._written[job, row.n] = now
        return row

    def _is_fresh(self, job: str, n: int) -> bool:
        then = self._written.get((job, n))
        return then is not None and abs(self.clock() - then) < AGAIN_SECONDS


def _published(connection: Connection, job: str, n: int | None, viewer: str | None) -> Row[Any]:
    """Return the row of a published snapshot."""
    here = and_(generations.c.job == jobs.c.id, generations.c.published)
    wanted = here if n is None else and_(here, generations.c.n == n)
    query = select(generations).select_from(jobs.outerjoin(generations, wanted))
    query = query.where(jobs.c.id == job, access.visible(viewer)).order_by(generations.c.n.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise access.unknown(job)
    if row.n is not None:
        return row
    newest = connection.execute(
        select(func.max(generations.c.n)).where(generations.c.job == job, generations.c.published)
    ).scalar_one()
    if newest is None:
        raise ConflictError(
            "The job has no snapshot yet.",
            code="no-snapshot",
            where=job,
            hint="Wait for the first, or see the job's error.",
        )
    raise RequestError(
        f"The job has no snapshot {n}" + (" any more." if n is not None and n < newest else "."),
        code="unknown-generation",
        where=job,
        hint=f"The newest is {newest}; those before it are removed after some time.",
    )
