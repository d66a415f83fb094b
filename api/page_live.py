"""What changes on an open page, as Server-Sent Events that carry HTML: only the parts that differ are sent."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import OperationalError

from binworks.api import page_parts
from binworks.api.auth import Reader, User
from binworks.api.context import Context, Ctx
from binworks.api.events import EventStream
from binworks.api.feed import News, Told
from binworks.api.jobs import JobId
from binworks.service.model import JobState
from binworks.tensors.errors import RequestError, TransientError

PAUSE = 1.0
"""Between two looks at the same; a page that changes faster cannot be read."""
QUIET = 5.0
LONGEST = 600.0
"""Then the browser comes again, and shows that it still may."""
GONE = '<p class="note" role="status">There is no such job any more.</p>'
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
router = APIRouter(include_in_schema=False)


@router.get("/live")
async def jobs(
    context: Ctx,
    user: Reader,
    state: JobState | None = None,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    seen: Annotated[str, Query(max_length=20)] = "",
) -> EventStream:
    """Follow the list of jobs."""
    table = await table_of(context, user, state, cursor)  # what cannot be shown is an error, not a stream
    stream = _jobs(context, user, state, cursor, seen, table)
    return EventStream(stream, headers=HEADERS)


@router.get("/jobs/{job}/live")
async def job(
    job: JobId,
    context: Ctx,
    user: Reader,
    after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    seen: Annotated[str, Query(max_length=80)] = "",
    last_event_id: Annotated[int, Header(ge=0, lt=2**63)] = 0,
) -> EventStream:
    """Follow the page of a job until it is finished."""
    await run_in_threadpool(context.jobs.get, job, user.sees)
    stream = _job(context, user, job, max(after, last_event_id), seen.split("-"))
    return EventStream(stream, headers=HEADERS)


async def _jobs(
    context: Context, user: User, state: JobState | None, cursor: str | None, seen: str, table: str
) -> AsyncGenerator[bytes]:
    yield b"retry: 2000\n\n"
    end, spoken, change = time.monotonic() + LONGEST, time.monotonic(), None
    while time.monotonic() < end:
        quiet = time.monotonic() - spoken > QUIET
        if quiet or change != context.changes.now():
            change, spoken = context.changes.now(), time.monotonic()
            try:
                table = await table_of(context, user, state, cursor)
            except (OperationalError, TransientError):  # the page shows what it has until it can be known
                change = None
            if page_parts.mark(table) != seen:
                seen = page_parts.mark(table)
                yield _message("jobs", table)
            elif quiet:
                yield b": still here\n\n"
        await asyncio.sleep(PAUSE)


async def table_of(context: Context, user: User, state: JobState | None, cursor: str | None) -> str:
    """Return the table of a page of jobs; all who look at the same share it."""
    key = ("page", user.name, user.sees, state, cursor)

    def make() -> str:
        return page_parts.rows(context, user, state, cursor)

    return await context.views.get(key, make, len)


async def _job(context: Context, user: User, job: str, after: int, seen: list[str]) -> AsyncGenerator[bytes]:
    yield b"retry: 2000\n\n"
    end = time.monotonic() + LONGEST
    async with aclosing(context.feed.subscribe(job, after)) as feed:
        async for news in feed:
            try:
                look = partial(page_parts.job_parts, context, user, job)
                found = None if news.more else await run_in_threadpool(look)
            except RequestError:  # it was deleted, or is not shared any more
                yield _message("status", GONE)
                yield _message("end", "")
                return
            except (OperationalError, TransientError):  # it may work next time
                found = None
            for message in _points(news):
                yield message
            if found is None:
                continue
            view, parts = found
            for name in page_parts.changed(parts, seen):
                yield _message(name, parts[name])
            seen = page_parts.marks(parts).split("-")
            yield b": still here\n\n"
            if view.state.finished:
                yield _message("end", "")
                return
            if time.monotonic() > end:
                return
            await asyncio.sleep(PAUSE)


def _points(news: News) -> list[bytes]:
    """Return what the chart, the picture and those who listen get to know."""
    messages = []
    for told in news.events:
        if told.kind == "progress":
            point = [_time(told), told.data.get("rate") or 0.0]
            messages.append(_message("point", json.dumps(point), told.id))
        elif told.kind == "snapshot":
            messages.append(_message("snapshot", str(told.data["n"]), told.id))
        elif told.kind == "state":
            messages.append(_message("news", f"The job is {told.data['state']}.", told.id))
    return messages


def _time(told: Told) -> float:
    """Return when it was told, in seconds since 1970."""
    event = json.loads(told.message.partition(b"\ndata: ")[2])
    return datetime.fromisoformat(event["time"]).timestamp()


def _message(name: str, text: str, id_: int | None = None) -> bytes:
    lines = "\n".join(f"data: {line}" for line in text.splitlines() or [""])
    place = f"id: {id_}\n" if id_ is not None else ""
    return f"{place}event: {name}\n{lines}\n\n".encode()
