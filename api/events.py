"""The diary of a job as Server-Sent Events: ids that grow, resumed by Last-Event-ID."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from binworks.api.auth import Reader
from binworks.api.context import Ctx
from binworks.api.jobs import JobId
from binworks.api.problems import responses
from binworks.service.jobs import Jobs
from binworks.service.model import JobEvent, JobState
from binworks.service.views import NO_DRIVER
from binworks.tensors.errors import RequestError

POLL = 0.25
HEARTBEAT = 5.0
PAGE = 500
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


@router.get(
    "/{job}/events",
    response_class=StreamingResponse,
    responses={
        200: {"content": {MEDIA_TYPE: {"schema": _EVENT}}, "description": "Until the job is finished."}
    },
)
def events(
    job: JobId,
    context: Ctx,
    user: Reader,
    last_event_id: Annotated[
        int,
        Header(ge=0, lt=2**63, description="Go on after the event of this id."),
    ] = 0,
) -> StreamingResponse:
    """Follow a job; the stream ends after the event of its final state.

    A job that was retried has more than one such event; the stream goes on after all but the last. The data
    of each event is a JSON document (schema `JobEvent`). A comment every five seconds keeps the line open. A
    `note` with the id of the event before it says that no driver is at work.
    """
    view = context.jobs.get(job, user.sees)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    stream = _stream(context.jobs, job, last_event_id, finished=view.state.finished)
    return StreamingResponse(stream, headers=headers, media_type=MEDIA_TYPE)


async def _stream(jobs: Jobs, job: str, after: int, *, finished: bool) -> AsyncIterator[str]:
    yield "retry: 1000\n\n"
    spoken, note = time.monotonic(), ""
    while True:
        page = await run_in_threadpool(jobs.events, job, after, PAGE)
        for event in page:
            yield _message(event)
            after, spoken, note = event.id, time.monotonic(), ""
            if event.kind == "state":
                finished = JobState(event.data["state"]).finished
        if len(page) == PAGE:
            continue
        if finished:
            return
        if time.monotonic() - spoken > HEARTBEAT:
            yield ": still here\n\n"
            spoken, before = time.monotonic(), note
            try:
                note = await run_in_threadpool(_silence, jobs, job)
            except RequestError:  # it was deleted meanwhile
                return
            if note and note != before:
                yield _noted(job, after, note)
        await asyncio.sleep(POLL)


def _silence(jobs: Jobs, job: str) -> str:
    """Return why nobody tells anything: the one reason that nobody is there to write down; empty if it is not that."""
    return NO_DRIVER if jobs.get(job).note == NO_DRIVER else ""


def _noted(job: str, after: int, note: str) -> str:
    """Return an event that is not in the diary; a reader resumes after the one before."""
    return _message(JobEvent(id=after, job=job, kind="note", time=datetime.now(UTC), data={"note": note}))


def _message(event: JobEvent) -> str:
    return f"id: {event.id}\nevent: {event.kind}\ndata: {event.model_dump_json()}\n\n"
