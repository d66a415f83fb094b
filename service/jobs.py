"""The jobs as users see and change them: create, look, list, cancel, and what happened to each.

What the driver writes is in `binworks.service.ledger`; both work on the same tables.
"""

from __future__ import annotations

import base64
import builtins
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

from sqlalchemy import Select, and_, func, insert, or_, select, update
from sqlalchemy.engine import Connection, Row

from binworks.processors import registry
from binworks.service import access, anew, completed, jobstate, quotas, views
from binworks.service.database import Database, generations, job_events, jobs, lease, units
from binworks.service.model import (
    GenerationView,
    JobEvent,
    JobPage,
    JobState,
    JobView,
    ResolvedJob,
    UnitState,
    UnitView,
    Usage,
)
from binworks.service.quotas import Limits
from binworks.tensors.errors import ConflictError, RequestError

ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
ID_LENGTH = 10
SHELVED_SECONDS = 5.0
VIEW_BYTES = 8192
"""Of a view on a shelf, roughly."""


class Shelf(Protocol):
    """Keeps values by key, and drops those that are not asked for."""

    def get(self, key: Hashable) -> Any:
        """Return what was put under a key; None if it is not there (any more)."""
        ...

    def put(self, key: Hashable, value: Any, nbytes: int) -> None:
        """Keep a value of this size."""
        ...


class Jobs:
    """Repository of jobs.

    Parameters
    ----------
    database : Database
        Where they are kept.
    limits : Limits
        How much one owner may use.
    clock : callable
        Seconds since 1970.
    """

    def __init__(
        self, database: Database, *, limits: Limits | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.database = database
        self.limits = limits or Limits()
        self.clock = clock

    def create(
        self, resolved: ResolvedJob, owner: str, idempotency_key: str | None = None
    ) -> tuple[JobView, bool]:
        """Store a job durably; return it, and whether it is new.

        The same owner and key with the same request give the job that is there.

        Raises
        ------
        ConflictError
            Code ``idempotency-key-reused`` if the key came with another request before; code
            ``too-many-jobs``, ``too-many-units``, ``too-much-stored`` or ``too-much-cpu`` if the owner has
            reached a limit.
        """
        now = self.clock()
        digest = request_digest(resolved)
        with self.database.write() as connection:
            earlier = _by_key(connection, owner, idempotency_key)
            if earlier is not None and earlier.request_digest != digest:
                raise ConflictError(
                    "This idempotency key came with another request before.",
                    code="idempotency-key-reused",
                    where=earlier.id,
                    hint="Use a new key for a new request.",
                )
            job_id = (
                earlier.id
                if earlier is not None
                else self._insert(connection, resolved, owner, idempotency_key, digest, now)
            )
        return self.get(job_id), earlier is None

    def _insert(
        self,
        connection: Connection,
        resolved: ResolvedJob,
        owner: str,
        key: str | None,
        digest: str,
        now: float,
    ) -> str:
        quotas.check(connection, owner, self.limits, now)
        job_id = "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH))
        document = resolved.model_dump(mode="json")
        connection.execute(
            insert(jobs).values(
                id=job_id,
                owner=owner,
                state=JobState.QUEUED,
                request=document.pop("request"),
                resolved=document,
                priority=resolved.request.priority,
                idempotency_key=key,
                request_digest=digest,
                story=[[JobState.QUEUED, now, "submitted"]],
                created=now,
            )
        )
        add_event(connection, job_id, "state", now, {"state": JobState.QUEUED, "error": None})
        return job_id

    def completed(self, resolved: ResolvedJob, owner: str) -> JobView | None:
        """Return the newest job of an owner that has the complete result of this request, if there is one.

        What only names or schedules a job does not matter: its label, its priority, its ``on_error``. Local
        files must be those that the job read, by size and time of change; others are trusted by their names.
        """
        with self.database.read() as connection:
            row = completed.find(connection, resolved, owner)
            return None if row is None else self._view(connection, row)

    def get(self, job: str, viewer: str | None = None) -> JobView:
        """Return a job as it is now.

        Raises
        ------
        RequestError
            Code ``unknown-job`` if there is none that the viewer may read (None reads everybody's).
        """
        with self.database.read() as connection:
            return self._view(connection, access.row(connection, job, viewer))

    def list(
        self,
        *,
        viewer: str | None = None,
        owner: str | None = None,
        state: JobState | None = None,
        cursor: str | None = None,
        limit: int = 50,
        shelf: Shelf | None = None,
    ) -> JobPage:
        """Return a page of jobs, newest first: those that a viewer may read, of one owner or of all.

        With a shelf, what it holds of a job is taken again until its diary has grown, but for some seconds at most
        if the job is not finished.

        Raises
        ------
        RequestError
            Code ``bad-cursor``.
        """
        query = select(jobs).where(access.visible(viewer))
        query = query.order_by(jobs.c.created.desc(), jobs.c.id.desc()).limit(limit + 1)
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        if state is not None:
            query = query.where(jobs.c.state == state)
        if cursor is not None:
            query = _after(query, cursor)
        with self.database.read() as connection:
            rows = connection.execute(query).all()
            page = self._views(connection, rows[:limit], shelf)
        return JobPage(jobs=page, next=_cursor(rows[limit - 1]) if len(rows) > limit else None)

    def cancel(self, job: str, viewer: str | None = None) -> JobView:
        """Ask for the end of a job; one that is finished, or about to be cancelled, stays as it is.

        Raises
        ------
        RequestError
            Code ``unknown-job``; code ``not-yours`` if the viewer may only read it.
        """
        now = self.clock()
        with self.database.write() as connection:
            row = access.owned(connection, job, viewer)
            state = JobState(row.state)
            if not state.finished and state != JobState.CANCELLING:
                move(connection, row, JobState.CANCELLING, now, "asked for")
        return self.get(job)

    def retry(self, job: str, viewer: str | None = None) -> JobView:
        """Take up a job again that failed, or whose result lacks events; an unfinished one stays as it is.

        Raises
        ------
        RequestError
            Code ``unknown-job``; code ``not-yours`` if the viewer may only read it.
        ConflictError
            Code ``nothing-to-retry`` if its result is complete; ``cancelled``; ``code-differs`` if the
            processor's code has changed; or a limit of the owner's, as for a new job.
        """
        now = self.clock()
        code = _code(self.get(job, viewer).request.processor)
        with self.database.write() as connection:
            row = access.owned(connection, job, viewer)
            if JobState(row.state).finished:
                anew.refuse(connection, row, code)
                quotas.check(connection, row.owner, self.limits, now)
                anew.reopen(connection, row, self.limits, now)
                move(connection, row, JobState.QUEUED, now, "to be tried again")
        return self.get(job)

    def delete(self, job: str, viewer: str | None = None) -> None:
        """Take a finished job away with all its snapshots.

        Raises
        ------
        RequestError
            Code ``unknown-job``; code ``not-yours`` if the viewer may only read it.
        ConflictError
            Code ``job-not-finished``.
        """
        with self.database.write() as connection:
            anew.remove(connection, access.owned(connection, job, viewer), self.clock())

    def usage(self, owner: str) -> Usage:
        """Return what an owner uses and may use."""
        with self.database.read() as connection:
            return quotas.usage(connection, owner, self.limits, self.clock())

    def units(
        self, job: str, *, state: UnitState | None = None, after: int = -1, limit: int = 1000
    ) -> builtins.list[UnitView]:
        """Return units of a job in unit order, from the one after ``after``."""
        query = (
            select(units).where(units.c.job == job, units.c.unit > after).order_by(units.c.unit).limit(limit)
        )
        if state is not None:
            query = query.where(units.c.state == state)
        with self.database.read() as connection:
            return [views.unit(row) for row in connection.execute(query)]

    def generations(self, job: str) -> builtins.list[GenerationView]:
        """Return the snapshots that can be read, oldest first."""
        query = (
            select(generations)
            .where(generations.c.job == job, generations.c.published)
            .order_by(generations.c.n)
        )
        with self.database.read() as connection:
            return [views.generation(row) for row in connection.execute(query)]

    def events(self, job: str, after: int = 0, limit: int = 1000) -> builtins.list[JobEvent]:
        """Return what happened to a job after the event of that id, oldest first."""
        query = (
            select(job_events)
            .where(job_events.c.job == job, job_events.c.id > after)
            .order_by(job_events.c.id)
            .limit(limit)
        )
        with self.database.read() as connection:
            return [views.event(row) for row in connection.execute(query)]

    def _views(
        self, connection: Connection, rows: Sequence[Row[Any]], shelf: Shelf | None
    ) -> builtins.list[JobView]:
        if shelf is None:
            return [self._view(connection, row) for row in rows]
        newest = select(job_events.c.job, func.max(job_events.c.id).label("id")).group_by(job_events.c.job)
        diaries = connection.execute(newest.where(job_events.c.job.in_([row.id for row in rows])))
        told = {diary.job: diary.id for diary in diaries}
        moment = int(self.clock() / SHELVED_SECONDS)
        found = []
        for row in rows:
            key = ("job", row.id, told.get(row.id), None if JobState(row.state).finished else moment)
            view = shelf.get(key)
            if view is None:
                view = self._view(connection, row)
                shelf.put(key, view, VIEW_BYTES)
            found.append(view)
        return found

    def _view(self, connection: Connection, row: Row[Any]) -> JobView:
        held = connection.execute(select(lease.c.expires).where(lease.c.name == "driver")).scalar()
        return views.job(
            connection, row, now=self.clock(), driver_alive=held is not None and held > self.clock()
        )


def request_digest(resolved: ResolvedJob) -> str:
    """Return a digest of what was asked; equal requests have equal ones."""
    return hashlib.sha256(
        json.dumps(resolved.request.model_dump(mode="json"), sort_keys=True).encode()
    ).hexdigest()


def add_event(connection: Connection, job: str, kind: str, now: float, data: dict[str, Any]) -> None:
    """Append a line to a job's diary."""
    connection.execute(insert(job_events).values(job=job, kind=kind, time=now, data=data))


def move(
    connection: Connection,
    row: Row[Any],
    state: JobState,
    now: float,
    why: str,
    error: dict[str, Any] | None = None,
) -> None:
    """Bring a job into another state, within the caller's transaction, and tell its readers.

    Raises
    ------
    InvalidTransitionError
        With the job's story, if the step does not exist.
    """
    story = jobstate.step(row.id, row.story, state, now, why)
    values: dict[str, Any] = {"state": state, "story": story}
    if state == JobState.RUNNING and row.started is None:
        values["started"] = now
    if state.finished:
        values |= {"finished": now, "error": error, "note": None}
    connection.execute(update(jobs).where(jobs.c.id == row.id).values(**values))
    add_event(connection, row.id, "state", now, {"state": state, "error": error})


def _code(processor: str) -> str | None:
    """Return the digest of the code that runs now; None if there is no such processor any more."""
    try:
        return registry.code_digest(processor)
    except RequestError:
        return None


def _by_key(connection: Connection, owner: str, key: str | None) -> Row[Any] | None:
    if key is None:
        return None
    return connection.execute(
        select(jobs).where(jobs.c.owner == owner, jobs.c.idempotency_key == key)
    ).one_or_none()


def _cursor(row: Row[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps([row.created, row.id]).encode()).decode()


def _after(query: Select[Any], cursor: str) -> Select[Any]:
    try:
        created, job_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        created, job_id = float(created), str(job_id)
    except (ValueError, TypeError):
        raise RequestError("This cursor is not one of ours.", code="bad-cursor", where="cursor") from None
    return query.where(or_(jobs.c.created < created, and_(jobs.c.created == created, jobs.c.id < job_id)))
