"""One reader of all diaries a process, and any number of listeners.

It looks for new events when something was committed, and rings for those who listen to their jobs. What was told
lately is kept, once a job, for all its listeners; who comes later or is slow reads the rest from the database, page by
page as he takes it. So a listener has no queue of his own that could grow.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import func, select
from sqlalchemy.engine import Row
from sqlalchemy.exc import OperationalError

from binworks.api.cached import Changes
from binworks.service import logs, views
from binworks.service.database import job_events
from binworks.service.jobs import Jobs
from binworks.service.model import JobEvent

POLL = 0.02
HEARTBEAT = 5.0
PAGE = 500
KEPT_EVENTS, KEPT_BYTES = 500, 1 << 20
"""Of a job that somebody listens to."""

T = TypeVar("T")
log = logging.getLogger(__name__)


class Told(NamedTuple):
    """An event of a diary, and how it looks in a stream."""

    id: int
    kind: str
    data: Mapping[str, Any]
    message: bytes


class News(NamedTuple):
    """Some events in their order, none if there was nothing for a while; and whether more are there already."""

    events: tuple[Told, ...]
    more: bool = False


@dataclass
class _Log:
    """What was told of a job lately: all after the event ``since``."""

    since: int
    told: deque[Told] = field(default_factory=deque)
    nbytes: int = 0
    listeners: int = 0
    bell: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, told: Told) -> None:
        self.told.append(told)
        self.nbytes += len(told.message)
        while len(self.told) > KEPT_EVENTS or self.nbytes > KEPT_BYTES:
            oldest = self.told.popleft()
            self.nbytes -= len(oldest.message)
            self.since = oldest.id

    def ring(self) -> None:
        self.bell.set()
        self.bell = asyncio.Event()

    def after(self, place: int) -> tuple[Told, ...]:
        if not self.told or self.told[-1].id <= place:
            return ()
        return tuple(told for told in self.told if told.id > place)


class Feed:
    """All diaries as they grow.

    Parameters
    ----------
    jobs : Jobs
    changes : Changes
    """

    def __init__(self, jobs: Jobs, changes: Changes) -> None:
        self._jobs = jobs
        self._changes = changes
        self._logs: dict[str, _Log] = {}
        self._reader: asyncio.Task[None] | None = None
        self._place = 0  # all events up to this one were told
        self._begun = asyncio.Event()

    async def subscribe(self, job: str, after: int = 0, *, beat: float = HEARTBEAT) -> AsyncGenerator[News]:
        """Give what is told of a job after an event: first what is there already, then the rest as it comes.

        Empty news say that there was nothing for ``beat`` seconds, or at the beginning that there is nothing yet.
        """
        with self._listening(job) as log:
            await self._begun.wait()
            place, more = after, True
            while True:
                if more or place < log.since:  # new here, or too slow
                    known = log.since
                    page = await run_in_threadpool(self._page, job, place)
                    more = len(page) == PAGE
                    place = page[-1].id if page else place
                    place = place if more else max(place, known)
                    yield News(tuple(page), more)
                    continue
                bell, told = log.bell, log.after(place)
                if not told:
                    await _rung(bell, beat)
                    if place < log.since:
                        continue
                    told = log.after(place)
                place = told[-1].id if told else place
                yield News(told)

    async def wait(
        self, job: str, look: Callable[[], Awaitable[T]], enough: Callable[[T], bool], seconds: float
    ) -> T:
        """Return what one sees of a job once it is enough, or after some seconds; looked at after each event."""
        end = time.monotonic() + seconds
        with self._listening(job) as log:
            await self._begun.wait()
            while True:
                bell = log.bell
                seen = await look()
                left = end - time.monotonic()
                if left <= 0 or enough(seen):
                    return seen
                await _rung(bell, min(left, HEARTBEAT))

    async def close(self) -> None:
        """End the reader."""
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader

    @contextmanager
    def _listening(self, job: str) -> Iterator[_Log]:
        log = self._logs.setdefault(job, _Log(self._place))
        log.listeners += 1
        if self._reader is None or self._reader.done():
            self._begun = asyncio.Event()
            self._reader = asyncio.create_task(self._read())
        try:
            yield log
        finally:
            log.listeners -= 1
            if not log.listeners:
                del self._logs[job]

    async def _read(self) -> None:
        """Tell what happens, as long as somebody listens."""
        logs.tell(dict)  # not about the request that came first
        seen: Hashable = None
        while self._logs:
            change = self._changes.now()
            more = False
            if change != seen:
                try:
                    more = await self._look()
                    seen = change
                except OperationalError as error:
                    log.warning("the diaries cannot be read: %s", error.orig)
                    await asyncio.sleep(1)
                except Exception:  # all who listen depend on this one reader
                    log.exception("the diaries cannot be read")
                    await asyncio.sleep(1)
            if not more:
                await asyncio.sleep(POLL)

    async def _look(self) -> bool:
        """Tell what is new; return whether there may be more."""
        if not self._begun.is_set():
            self._place = await run_in_threadpool(self._newest)
            for each in self._logs.values():
                each.since = self._place
            self._begun.set()
        rows = await run_in_threadpool(self._after, self._place)
        rung = {}
        for row in rows:
            self._place = row.id
            if row.job in self._logs:
                rung[row.job] = self._logs[row.job]
                rung[row.job].add(_told(row))
        for each in rung.values():
            each.ring()
        return len(rows) == PAGE

    def _newest(self) -> int:
        with self._jobs.database.read() as connection:
            return connection.execute(select(func.max(job_events.c.id))).scalar() or 0

    def _after(self, place: int) -> Sequence[Row[Any]]:
        query = select(job_events).where(job_events.c.id > place).order_by(job_events.c.id).limit(PAGE)
        with self._jobs.database.read() as connection:
            return connection.execute(query).all()

    def _page(self, job: str, place: int) -> list[Told]:
        return [_encoded(event) for event in self._jobs.events(job, place, PAGE)]


async def _rung(bell: asyncio.Event, seconds: float) -> None:
    """Return when the bell has rung, or after some seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await bell.wait()


def message(event: JobEvent) -> bytes:
    """Return an event as it stands in a stream."""
    return f"id: {event.id}\nevent: {event.kind}\ndata: {event.model_dump_json()}\n\n".encode()


def _told(row: Row[Any]) -> Told:
    return _encoded(views.event(row))


def _encoded(event: JobEvent) -> Told:
    return Told(event.id, event.kind, event.data, message(event))
