"""The diary of a job as Server-Sent Events: ids that grow, resumed by Last-Event-ID."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated, cast

from fastapi import APIRouter, Header
from fastapi.responses import StreamingResponse
from sqlalchemy.exc import OperationalError
from starlette.types import Send

from binworks.api import feed
from binworks.api.auth import Reader, User
from binworks.api.context import Context, Ctx
from binworks.api.jobs import JobId, viewed
from binworks.api.problems import responses
from binworks.service.model import JobEvent, JobState
from binworks.service.views import NO_DRIVER
from binworks.tensors.errors import RequestError, TransientError

CHECK_SECONDS = 1.0
"""Between two looks whether a job that has much to tell is still shown to the reader."""
STUCK_SECONDS = 60.0
"""A reader who takes nothing for so long is left; he may come back and resume."""
MEDIA_TYPE = "text/event-stream"
_EVENT = {
    "type": "object",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": JobEvent.model_json_schema(),
        },
    },
}
router = APIRouter(prefix="/v1/jobs", tags=["events"], responses=responses(401, 403, 404, 422, 500, 503))
log = logging.getLogger(__name__)


class EventStream(StreamingResponse):
    """A stream that ends when its reader takes nothing any more."""

    media_type = MEDIA_TYPE

    async def stream_response(self, send: Send) -> None:
        """Send what there is, as long as it is taken."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        chunks = cast("AsyncGenerator[bytes]", self.body_iterator)
        async with aclosing(chunks):
            async for chunk in chunks:
                try:
                    async with asyncio.timeout(STUCK_SECONDS):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                except TimeoutError:  # the server closes the line, as the answer has no end
                    log.info("a reader of events takes nothing any more")
                    return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@router.get(
    "/{job}/events",
    response_class=EventStream,
    responses={
        200: {"content": {MEDIA_TYPE: {"schema": _EVENT}}, "description": "Until the job is finished."}
    },
)
async def events(
    job: JobId,
    context: Ctx,
    user: Reader,
    last_event_id: Annotated[
        int,
        Header(ge=0, lt=2**63, description="Go on after the event of this id."),
    ] = 0,
) -> EventStream:
    """Follow a job; the stream ends after the event of its final state.

    A job that was retried has more than one such event; the stream goes on after all but the last. The data
    of each event is a JSON document (schema `JobEvent`). A comment every five seconds keeps the line open. A
    `note` with the id of the event before it says that no driver is at work. Whoever loses the line, or takes
    nothing for a minute, goes on with `Last-Event-ID`; nothing is lost.
    """
    view = await viewed(context, user, job)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    stream = _stream(context, user, job, last_event_id, finished=view.model.state.finished)
    return EventStream(stream, headers=headers)


async def _stream(
    context: Context, user: User, job: str, after: int, *, finished: bool
) -> AsyncGenerator[bytes]:
    yield b"retry: 1000\n\n"
    note, looked = "", time.monotonic()
    async with aclosing(context.feed.subscribe(job, after)) as told:
        async for news in told:
            reason = ""
            if not news.events or time.monotonic() > looked + CHECK_SECONDS:
                looked = time.monotonic()
                try:
                    reason = await _silence(context, user, job)
                except RequestError:  # it was deleted meanwhile, or is not shown to this user any more
                    return
            if news.events:
                yield b"".join(event.message for event in news.events)
                after, note, finished = news.events[-1].id, "", _finished(news, finished)
            if finished and not news.more:
                return
            if not news.events:
                yield b": still here\n\n"
                if reason and reason != note:
                    yield _noted(job, after, reason)
                note = reason


def _finished(news: feed.News, before: bool) -> bool:
    states = [JobState(event.data["state"]) for event in news.events if event.kind == "state"]
    return states[-1].finished if states else before


async def _silence(context: Context, user: User, job: str) -> str:
    """Return why nobody tells anything: the one reason that nobody is there to write down; empty if it is not that.

    Raises
    ------
    RequestError
        If the user may not see the job; not if that cannot be known at the moment.
    """
    try:
        view = await viewed(context, user, job)
    except (OperationalError, TransientError) as error:
        log.warning("whether a job may still be followed is not known: %s", error)
        return ""
    return NO_DRIVER if view.model.note == NO_DRIVER else ""


def _noted(job: str, after: int, note: str) -> bytes:
    """Return an event that is not in the diary; a reader resumes after the one before."""
    return feed.message(JobEvent(id=after, job=job, kind="note", time=datetime.now(UTC), data={"note": note}))
