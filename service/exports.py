"""Files for fits: what was asked for, who makes it, what became of it.

An export is named by all that decides its bytes: the snapshots, the card, the format and the code. So the same ask
gives the same export. It is made by `binworks.service.exporting`, a process of its own, which claims it here; each
claim has a new number, and who has an older one cannot write any more.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from sqlalchemy import and_, delete, func, insert, or_, select, update
from sqlalchemy.engine import Connection, Row

from binworks.service import access, layout, lease, quotas, stored
from binworks.service.database import Database, exports, jobs
from binworks.service.model import Problem
from binworks.service.quotas import Limits
from binworks.service.store import Store
from binworks.service.views import when, when_or_none
from binworks.tensors.card import Card
from binworks.tensors.code import source_digest
from binworks.tensors.errors import BinworksError, ConflictError, RequestError, unknown_name
from binworks.tensors.export import FORMATS, module

STALE_SECONDS = 60.0
"""Without a sign of life for so long, whoever makes an export counts as dead."""
MOST_CRASHES = 3
MOST_FAILURES = 3
BACKOFF_SECONDS = 2.0
FAIR_SECONDS = 3600.0
"""Who had others made in this time lets those go first who had fewer."""
READ_SECONDS = 3600.0
"""That an export was read is written down this often."""
_UNFINISHED = ("queued", "running")
_FRESH: dict[str, Any] = {
    "state": "queued",
    "started": None,
    "finished": None,
    "not_before": 0.0,
    "crashes": 0,
    "failures": 0,
    "progress": 0.0,
    "error": None,
}


class ExportState(StrEnum):
    """Where an export is in its life; from the last two only another ask leads back."""

    QUEUED = "queued"
    RUNNING = "running"
    READY = "ready"
    FAILED = "failed"

    @property
    def finished(self) -> bool:
        """Whether nothing will change any more by itself."""
        return self in (ExportState.READY, ExportState.FAILED)


class ExportRequest(BaseModel):
    """What is asked for: a file for a fit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str = Field(description="Of the file.", json_schema_extra={"enum": list(FORMATS)})
    card: Card | None = Field(
        default=None, description="Channels, processes, data and systematics; default: the processor's."
    )
    allow_partial: bool = Field(
        default=False,
        strict=True,
        description="Take a snapshot that lacks events, too; the card may say so itself.",
    )
    generation: int | None = Field(
        default=None, ge=1, lt=2**31, description="Which snapshot; default: the latest."
    )

    @field_validator("format")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in FORMATS:
            error = unknown_name("format", name, list(FORMATS))
            raise RequestError(error.message, code=error.code, where="body.format", hint=error.hint)
        return name


class ExportItem(BaseModel):
    """An export as it is listed."""

    id: str
    job: str
    generation: int
    format: str
    state: ExportState
    created: datetime
    started: datetime | None = None
    finished: datetime | None = None
    progress: float = Field(description="Part of the work that is done.")
    bytes: int | None = Field(default=None, description="Size of the file, once it is ready.")
    sha256: str | None = Field(default=None, description="Of the file, once it is ready.")
    file_name: str = Field(description="What a downloaded file may be called.")
    media_type: str
    error: Problem | None = Field(default=None, description="Why it failed; ask again to try again.")


class ExportView(ExportItem):
    """An export as users see it."""

    card: dict[str, Any] = Field(description="What was asked for, spelt out.")


class ExportPage(BaseModel):
    """Some exports of a job, newest first, and where the next ones start."""

    exports: list[ExportItem]
    next: str | None = Field(default=None, description="Cursor of the next page; none: this is the last.")


@dataclass(frozen=True)
class Ask:
    """An export, with all names looked up.

    Parameters
    ----------
    job, n : str, int
        The snapshot.
    format : str
        A key of `binworks.tensors.export.FORMATS`.
    card : Card
        Spelt out.
    sources : mapping
        Snapshots of the other jobs that the card names.
    code : str
        Digest of the code that makes it, from `code_digest`.
    """

    job: str
    n: int
    format: str
    card: Card
    sources: Mapping[str, int]
    code: str

    @property
    def id(self) -> str:
        """The same for the same ask."""
        said = [
            self.job,
            self.n,
            self.format,
            self.card.model_dump(mode="json"),
            dict(self.sources),
            self.code,
        ]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Claim:
    """An export that somebody makes now.

    Parameters
    ----------
    id, job, n, format, card, sources, code
        As in `Ask`; no code is known of what was asked for before it was kept.
    fence : int
        Number of the claim.
    holder : str
        Who makes it.
    """

    id: str
    job: str
    n: int
    format: str
    card: Card
    sources: Mapping[str, int]
    code: str | None
    fence: int
    holder: str


def code_digest() -> str:
    """Return the digest of the code on the disk now that decides the bytes of an export."""
    said = [source_digest.__wrapped__(idle=True), Path(stored.__file__).read_text()]
    for library in ("h5py", "hist", "uhi"):
        with suppress(PackageNotFoundError):
            said.append(f"{library} {version(library)}")
    return hashlib.sha256("\0".join(said).encode()).hexdigest()


class ClaimLostError(RuntimeError):
    """The export was deleted, or another makes it by now."""


class Exports:
    """Repository of exports.

    Parameters
    ----------
    database : Database
        Where they are kept.
    limit : int
        How many one owner may have that are not finished.
    limits : Limits
        How many bytes he may have.
    clock : callable
        Seconds since 1970.
    """

    def __init__(
        self,
        database: Database,
        *,
        limit: int = 20,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.database = database
        self.limit = limit
        self.limits = limits or Limits()
        self.clock = clock

    # what users do

    def ask(self, ask: Ask, owner: str) -> tuple[ExportView, bool]:
        """Return an export, and whether it is new; one that failed is tried again.

        Raises
        ------
        RequestError
            Code ``unknown-job`` if the job was deleted meanwhile.
        ConflictError
            Code ``too-many-exports`` or ``too-much-stored``.
        """
        now = self.clock()
        with self.database.write() as connection:
            row = connection.execute(select(exports).where(exports.c.id == ask.id)).one_or_none()
            if row is None or row.state == ExportState.FAILED:
                self._check(connection, ask.job, owner)
            if row is None:
                fence = int(now * 1e6)  # one that was deleted and is asked for again repeats no number
                times = {"created": now, "asked": now, "fence": fence}
                connection.execute(insert(exports).values(**_row(ask), owner=owner, **times))
            else:
                fresh = {**_FRESH, "owner": owner} if row.state == ExportState.FAILED else {}
                connection.execute(update(exports).where(exports.c.id == ask.id).values(asked=now, **fresh))
            found = connection.execute(select(exports).where(exports.c.id == ask.id)).one()
        return view(found), row is None

    def _check(self, connection: Connection, job: str, owner: str) -> None:
        if connection.execute(select(jobs.c.id).where(jobs.c.id == job)).first() is None:
            raise RequestError("There is no such job.", code="unknown-job", where=job)
        mine = (exports.c.owner == owner, exports.c.state.in_(_UNFINISHED))
        waiting = connection.execute(select(func.count()).select_from(exports).where(*mine)).scalar_one()
        if waiting >= self.limit:
            raise ConflictError(
                f"{owner} has {waiting} exports that are waiting or being made; the limit is {self.limit}.",
                code="too-many-exports",
                where=owner,
                hint="Wait for one, or delete one.",
            )
        quotas.check_stored(connection, owner, self.limits, self.clock())

    def get(self, job: str, export: str, viewer: str | None = None) -> ExportView:
        """Return an export of a job.

        Parameters
        ----------
        job, export : str
            Which.
        viewer : str or None
            Who asks; None reads everybody's.

        Raises
        ------
        RequestError
            Code ``unknown-job``, or ``unknown-export``: also if he may not read all jobs that are in it.
        """
        return view(self._found(job, export, viewer))

    def file(self, job: str, export: str, viewer: str | None = None) -> tuple[ExportView, int]:
        """Return an export that is ready and the number of its file; it counts as read.

        Raises
        ------
        RequestError
            As `get` does.
        ConflictError
            Code ``export-not-ready`` or ``export-failed``.
        """
        row = self._found(job, export, viewer)
        if row.state == ExportState.FAILED:
            raise ConflictError(
                row.error["message"],
                code="export-failed",
                where=export,
                hint="Ask for it again to try again.",
            )
        if row.state != ExportState.READY:
            hint = "Ask for the export itself with `Prefer: wait=60`."
            raise ConflictError(
                f"The export is {row.state}.", code="export-not-ready", where=export, hint=hint
            )
        if self.clock() - row.asked > READ_SECONDS:
            with self.database.write() as connection:
                connection.execute(update(exports).where(exports.c.id == export).values(asked=self.clock()))
        return view(row), row.fence

    def _found(self, job: str, export: str, viewer: str | None) -> Row[Any]:
        with self.database.read() as connection:
            access.row(connection, job, viewer)
            return _visible(connection, job, export, viewer)

    def list(
        self, job: str, *, viewer: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> ExportPage:
        """Return a page of a job's exports, newest first; without those of which `get` says that they are unknown.

        Raises
        ------
        RequestError
            Code ``unknown-job`` or ``bad-cursor``.
        """
        columns = [column for column in exports.c if column is not exports.c.card]
        query = select(*columns).where(exports.c.job == job)
        query = query.order_by(exports.c.created.desc(), exports.c.id.desc())
        with self.database.read() as connection:
            access.row(connection, job, viewer)
            if cursor is not None:
                here = (exports.c.id == cursor, exports.c.job == job)
                last = connection.execute(select(exports.c.created).where(*here)).scalar_one_or_none()
                if last is None:
                    message = "This cursor is not one of ours."
                    raise RequestError(message, code="bad-cursor", where="cursor")
                older = and_(exports.c.created == last, exports.c.id < cursor)
                query = query.where(or_(exports.c.created < last, older))
            sight = _Sight(connection, viewer)
            seen = (row for row in connection.execute(query).all() if sight.of(row.sources))
            rows = list(islice(seen, limit + 1))
        page = [ExportItem(**_facts(row)) for row in rows[:limit]]
        return ExportPage(exports=page, next=page[-1].id if len(rows) > limit else None)

    def lost(self, export: str, fence: int) -> ConflictError:
        """Return what to say of an export whose file is not where it should be; who asks again gets a new one."""
        hint = "Ask for it again: it is made anew."
        message = "The file of the export is lost."
        error = ConflictError(message, code="export-lost", where=export, hint=hint)
        here = (exports.c.id == export, exports.c.fence == fence, exports.c.state == ExportState.READY)
        failed = {"state": ExportState.FAILED, "error": Problem.of(error).model_dump(mode="json")}
        with self.database.write() as connection:
            connection.execute(update(exports).where(*here).values(**failed))
        return error

    def delete(self, job: str, export: str, viewer: str | None = None) -> int:
        """Take an export away, whatever its state; return its number.

        The files of this number and those before, see `attempts`, are the caller's to remove. There may be a later
        one: of whoever asked for the same meanwhile.

        Parameters
        ----------
        job, export : str
            Which.
        viewer : str or None
            Who asks: he must have asked for it, or own the job; None may delete everybody's.

        Raises
        ------
        RequestError
            As `get` does; code ``not-yours`` if he may only read it.
        """
        here = (exports.c.id == export, exports.c.job == job)
        with self.database.write() as connection:
            row = connection.execute(select(exports).where(*here)).one_or_none()
            if (
                row is None or row.owner != viewer
            ):  # it counts as his, even if the job is not shared with him now
                access.owned(connection, job, viewer)
                row = _visible(connection, job, export, viewer)
            connection.execute(delete(exports).where(exports.c.id == export))
        return int(row.fence)

    # who makes them

    def waiting(self) -> bool:
        """Whether there is something to do."""
        now = self.clock()
        with self.database.read() as connection:
            queued = (exports.c.state == ExportState.QUEUED, exports.c.not_before <= now)
            if connection.execute(select(exports.c.id).where(*queued).limit(1)).first() is not None:
                return True
            return any(self._is_abandoned(row, now) for row in _running(connection))

    def claim(self, holder: str) -> Claim | None:
        """Take an export; None if none waits.

        Of those who wait, it is the turn of who has the fewest that are made or were begun in the last hour, and of
        his exports of the one that was asked for first. What others left when they died waits again; after the third
        time it has failed. So has one whose card cannot be read by this version.

        Parameters
        ----------
        holder : str
            From `binworks.service.lease.identity`.
        """
        now = self.clock()
        with self.database.write() as connection:
            for row in _running(connection):
                if row.holder == holder or self._is_abandoned(row, now):
                    connection.execute(update(exports).where(exports.c.id == row.id).values(_again(row, now)))
            while (first := _next(connection, now)) is not None:
                here = update(exports).where(exports.c.id == first.id)
                try:
                    card = Card.read(first.card)
                except RequestError as error:
                    connection.execute(here.values(_failed(Problem.of(error), now)))
                    continue
                taken = {"state": ExportState.RUNNING, "started": now, "beat": now, "holder": holder}
                connection.execute(here.values(**taken, fence=first.fence + 1, progress=0.0))
                return Claim(
                    id=first.id,
                    job=first.job,
                    n=first.n,
                    format=first.format,
                    card=card,
                    sources=first.sources,
                    code=first.code,
                    fence=first.fence + 1,
                    holder=holder,
                )
        return None

    def beat(self, claim: Claim, progress: float) -> None:
        """Say that it goes on.

        Raises
        ------
        ClaimLostError
            If it does not belong to the asker any more.
        """
        self._settle(claim, {"beat": self.clock(), "progress": progress})

    def finish(self, claim: Claim, nbytes: int, sha256: str) -> None:
        """Say that the file is there; once more changes nothing, if it is not known whether it was heard.

        Raises
        ------
        ClaimLostError
            If it does not belong to the asker any more.
        """
        done = {"state": ExportState.READY, "finished": self.clock(), "progress": 1.0}
        with self.database.write() as connection:
            here = (exports.c.id == claim.id, exports.c.fence == claim.fence)
            said = (exports.c.state == ExportState.READY, exports.c.sha256 == sha256)
            if connection.execute(select(exports.c.id).where(*here, *said)).first() is None:
                _held(connection, claim)
                file = {"bytes": nbytes, "sha256": sha256, "error": None, "holder": None}
                connection.execute(update(exports).where(*here).values(**done, **file))

    def fail(self, claim: Claim, error: BinworksError, *, again: bool) -> None:
        """Say why there is no file; it may be tried again a few times, with pauses.

        Raises
        ------
        ClaimLostError
            If it does not belong to the asker any more.
        """
        now = self.clock()
        problem = Problem.of(error).model_dump(mode="json")
        with self.database.write() as connection:
            row = _held(connection, claim)
            failures = row.failures + 1
            values = {"error": problem, "failures": failures, "holder": None}
            if again and failures < MOST_FAILURES:
                pause = BACKOFF_SECONDS * 2**failures
                values |= {"state": ExportState.QUEUED, "not_before": now + pause}
            else:
                values |= {"state": ExportState.FAILED, "finished": now}
            connection.execute(update(exports).where(exports.c.id == claim.id).values(**values))

    def release(self, claim: Claim) -> None:
        """Give an export back that is not made: whoever makes them is to end.

        Raises
        ------
        ClaimLostError
            If it does not belong to the asker any more.
        """
        self._settle(claim, {"state": ExportState.QUEUED, "holder": None})

    def unfinished(self) -> Sequence[tuple[str, int]]:
        """Return the snapshots that are still to be read."""
        query = select(exports.c.job, exports.c.n, exports.c.sources)
        with self.database.read() as connection:
            rows = connection.execute(query.where(exports.c.state.in_(_UNFINISHED))).all()
        found = {(row.job, row.n) for row in rows}
        return sorted(found | {(job, n) for row in rows for job, n in row.sources.items()})

    def _settle(self, claim: Claim, values: Mapping[str, Any]) -> None:
        with self.database.write() as connection:
            _held(connection, claim)
            connection.execute(update(exports).where(exports.c.id == claim.id).values(**values))

    def _is_abandoned(self, row: Row[Any], now: float) -> bool:
        return lease.gone(row.holder) or abs(now - row.beat) > STALE_SECONDS


def view(row: Row[Any]) -> ExportView:
    """Return an export as users see it."""
    return ExportView(**_facts(row), card=row.card)


def _facts(row: Row[Any]) -> dict[str, Any]:
    """Return what a list says of an export."""
    suffix, media_type = file_kind(row.format)
    ready = row.state == ExportState.READY
    return {
        "id": row.id,
        "job": row.job,
        "generation": row.n,
        "format": row.format,
        "state": ExportState(row.state),
        "created": when(row.created),
        "started": when_or_none(row.started),
        "finished": when_or_none(row.finished),
        "progress": row.progress,
        "bytes": row.bytes if ready else None,
        "sha256": row.sha256 if ready else None,
        "file_name": f"{row.job}-{row.n}-{row.format}{suffix}",
        "media_type": media_type,
        "error": None if row.error is None else Problem.model_validate(row.error),
    }


def attempts(store: Store, job: str, export: str, fence: int) -> list[str]:
    """Return the keys of the files that claims up to a number left."""
    folder = layout.exports(job, export)
    found = (name for name in store.children(folder) if name.isdecimal() and int(name) <= fence)
    return [f"{folder}/{name}" for name in found]


def file_kind(name: str) -> tuple[str, str]:
    """Return suffix and media type of the files of a format, also of one that an older version wrote."""
    if name not in FORMATS:
        return "", "application/octet-stream"
    found = module(name)
    return str(found.SUFFIX), str(found.MEDIA_TYPE)


class _Sight:
    """Which jobs a viewer may read, looked up once each."""

    def __init__(self, connection: Connection, viewer: str | None) -> None:
        self._connection, self._viewer = connection, viewer
        self._known: dict[str, bool] = {}

    def of(self, sources: Iterable[str]) -> bool:
        """Whether he may read all of these."""
        return self._viewer is None or all(self._is_seen(job) for job in sources)

    def _is_seen(self, job: str) -> bool:
        if job not in self._known:
            query = select(jobs.c.id).where(jobs.c.id == job, access.visible(self._viewer))
            self._known[job] = self._connection.execute(query).first() is not None
        return self._known[job]


def _visible(connection: Connection, job: str, export: str, viewer: str | None) -> Row[Any]:
    """Return the row of an export if all the jobs that it was made of may be read."""
    query = select(exports).where(exports.c.id == export, exports.c.job == job)
    row = connection.execute(query).one_or_none()
    if row is None or not _Sight(connection, viewer).of(row.sources):
        raise RequestError(
            "There is no such export.",
            code="unknown-export",
            where=export,
            hint="One that nobody reads is removed after some days; ask for it again.",
        )
    return row


def _row(ask: Ask) -> dict[str, Any]:
    named = {"id": ask.id, "job": ask.job, "n": ask.n, "format": ask.format}
    what = {"card": ask.card.model_dump(mode="json"), "sources": dict(ask.sources), "code": ask.code}
    return {**named, **what, **_FRESH}


def _running(connection: Connection) -> Sequence[Row[Any]]:
    return connection.execute(select(exports).where(exports.c.state == ExportState.RUNNING)).all()


def _again(row: Row[Any], now: float) -> dict[str, Any]:
    """Return what becomes of an export whose maker died."""
    crashes = row.crashes + 1
    if crashes < MOST_CRASHES:
        return {"state": ExportState.QUEUED, "crashes": crashes, "holder": None}
    problem = Problem(
        code="export-crashed",
        message=f"The process that makes the file died {crashes} times over it.",
        where=row.id,
        hint="Was it short of memory? See exporting.log and the setting export_memory.",
    )
    return {**_failed(problem, now), "crashes": crashes}


def _failed(problem: Problem, now: float) -> dict[str, Any]:
    error = problem.model_dump(mode="json")
    return {"state": ExportState.FAILED, "finished": now, "error": error, "holder": None}


def _next(connection: Connection, now: float) -> Row[Any] | None:
    """Return the export whose turn it is."""
    lately = or_(exports.c.state == ExportState.RUNNING, exports.c.started > now - FAIR_SECONDS)
    begun = select(exports.c.owner, func.count().label("exports")).where(lately)
    counts = begun.group_by(exports.c.owner).subquery()
    query = select(exports).select_from(exports.outerjoin(counts, counts.c.owner == exports.c.owner))
    query = query.where(exports.c.state == ExportState.QUEUED, exports.c.not_before <= now)
    turn = (func.coalesce(counts.c.exports, 0), exports.c.created, exports.c.id)
    return connection.execute(query.order_by(*turn).limit(1)).one_or_none()


def _held(connection: Connection, claim: Claim) -> Row[Any]:
    row = connection.execute(select(exports).where(exports.c.id == claim.id)).one_or_none()
    here = None if row is None else (row.fence, row.holder, row.state)
    if row is None or here != (claim.fence, claim.holder, ExportState.RUNNING):
        raise ClaimLostError(f"Export {claim.id} was deleted, or another makes it.")
    return row
