"""What is kept between requests: views as encoded bytes until something changes, facts of snapshots for good.

So most requests need no query and no thread. Whether anything changed costs some microseconds on SQLite, which counts
the commits of others; on PostgreSQL a view is at most a quarter of a second old.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel
from sqlalchemy import event
from sqlalchemy.engine import Connection

from binworks.api import files
from binworks.service.database import Database

FRESH_SECONDS = 1.0
"""Views tell rates and times to go; so none is kept longer, changed or not."""
UNSEEN_SECONDS = 0.25
"""So long a change by another process may go unseen on PostgreSQL."""
VIEW_BYTES = 64 << 20
SHELF_BYTES = 256 << 20
JSON = "application/json"

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


class Changes:
    """Whether anything was committed to the job database.

    Parameters
    ----------
    database : Database
    clock : callable
        Seconds.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ours = 0
        self._sqlite: sqlite3.Connection | None = None
        if database.engine.dialect.name == "sqlite":
            path = database.engine.url.database or ""
            self._sqlite = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        else:
            event.listen(database.engine, "commit", self._committed)

    def now(self) -> Hashable:
        """Return what differs from the answer before if something was committed since then."""
        if self._sqlite is None:
            return self._ours, int(self._clock() / UNSEEN_SECONDS)
        try:
            found: tuple[int] = self._sqlite.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error:  # whoever asks the database next hears why
            self._ours += 1
            return "unknown", self._ours
        return found

    def close(self) -> None:
        """Give the connection back."""
        if self._sqlite is not None:
            self._sqlite.close()

    def _committed(self, connection: Connection) -> None:
        if not connection.get_execution_options().get("postgresql_readonly"):
            self._ours += 1


class Shelf:
    """Values by key, the least used of which go when there are too many bytes of them; for all threads.

    Parameters
    ----------
    limit : int
        Bytes.
    """

    def __init__(self, limit: int = SHELF_BYTES) -> None:
        self.limit = limit
        self.nbytes = 0
        self._held: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any:
        """Return what was put under a key; None if it is not there (any more)."""
        with self._lock:
            found = self._held.get(key)
            if found is None:
                return None
            self._held.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: Any, nbytes: int) -> None:
        """Keep a value of this size, in the place of another; not if it is larger than a quarter of all."""
        with self._lock:
            self._drop(key)
            if nbytes > self.limit // 4:
                return
            self._held[key] = value, nbytes
            self.nbytes += nbytes
            while self.nbytes > self.limit:
                self._drop(next(iter(self._held)))

    def _drop(self, key: Hashable) -> None:
        found = self._held.pop(key, None)
        if found is not None:
            self.nbytes -= found[1]


@dataclass(frozen=True)
class View(Generic[M]):
    """An answer and its bytes.

    Parameters
    ----------
    model : BaseModel
        What it says.
    body : bytes
        As JSON.
    etag : str
        Of these bytes.
    """

    model: M
    body: bytes
    etag: str

    @classmethod
    def of(cls, model: M) -> View[M]:
        """Return the view of a model."""
        body = model.__pydantic_serializer__.to_json(model)
        return cls(model, body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


@dataclass(frozen=True)
class _Held(Generic[T]):
    value: T
    change: Hashable
    began: float


@dataclass(frozen=True)
class _Making:
    task: asyncio.Task[_Held[Any]]
    began: float


class Views:
    """What was made of the database, made anew once something has changed, and once by all who ask meanwhile.

    An answer is never older than the request for it.

    Parameters
    ----------
    changes : Changes
    """

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._shelf = Shelf(VIEW_BYTES)
        self._making: dict[Hashable, _Making] = {}

    async def view(self, key: Hashable, make: Callable[[], M]) -> View[M]:
        """Return a model, made in a thread, with its bytes; ``key`` says all that it depends on but the database."""
        return await self.get(key, lambda: View.of(make()), lambda view: 8 * len(view.body))

    async def get(
        self, key: Hashable, make: Callable[[], T], nbytes: Callable[[T], int] = lambda _: 1000
    ) -> T:
        """Return something that was made in a thread; what that raises, is raised here."""
        asked = time.monotonic()
        while True:
            held: _Held[T] | None = self._shelf.get(key)
            if held is not None and (held.began >= asked or self._is_fresh(held, asked)):
                return held.value
            making = self._making.get(key) or self._begin(key, make, nbytes)
            if making.began >= asked:
                made: _Held[T] = await asyncio.shield(making.task)
                return made.value
            await asyncio.wait([making.task])  # it began before we came: what it finds may be too old for us

    def _is_fresh(self, held: _Held[Any], now: float) -> bool:
        return now - held.began < FRESH_SECONDS and held.change == self._changes.now()

    def _begin(self, key: Hashable, make: Callable[[], T], nbytes: Callable[[T], int]) -> _Making:
        began = time.monotonic()
        task = asyncio.create_task(self._make(key, make, nbytes, began))
        task.add_done_callback(lambda done: self._made(key, done))
        self._making[key] = _Making(task, began)
        return self._making[key]

    async def _make(
        self, key: Hashable, make: Callable[[], T], nbytes: Callable[[T], int], began: float
    ) -> _Held[T]:
        change = self._changes.now()
        held = _Held(await run_in_threadpool(make), change, began)
        self._shelf.put(key, held, nbytes(held.value))
        return held

    def _made(self, key: Hashable, done: asyncio.Task[_Held[Any]]) -> None:
        del self._making[key]
        if not done.cancelled():
            done.exception()  # all who asked may have gone


def answer(request: Request, view: View[Any], headers: dict[str, str] | None = None) -> Response:
    """Return a view, or 304 if the asker has it already."""
    told = {"ETag": view.etag, "Cache-Control": files.REVALIDATE, **(headers or {})}
    if files.is_current(request, view.etag):
        return Response(status_code=304, headers=told)
    return Response(view.body, headers=told, media_type=JSON)
