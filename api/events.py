"""The diary of a job as Server-Sent Events: ids that grow, resumed by Last-Event-ID."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
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

    The data of each event is a JSON document (schema `JobEvent`). A comment every five seconds keeps the line
    open.
    """
    finished = context.jobs.get(job, user.sees).state.finished
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    stream = _stream(context.jobs, job, last_event_id, finished=finished)
    return StreamingResponse(stream, headers=headers, media_type=MEDIA_TYPE)


async def _stream(jobs: Jobs, job: str, after: int, *, finished: bool) -> AsyncIterator[str]:
    yield "retry: 1000\n\n"
    spoken = time.monotonic()
    while True:
        page = await run_in_threadpool(jobs.events, job, after, PAGE)
        for event in page:
            yield _message(event)
            after, spoken = event.id, time.monotonic()
            finished = finished or _is_final(event)
        if finished and len(page) < PAGE:
            return
        if time.monotonic() - spoken > HEARTBEAT:
            yield ": still here\n\n"
            spoken = time.monotonic()
        if len(page) < PAGE:
            await asyncio.sleep(POLL)


def _is_final(event: JobEvent) -> bool:
    return event.kind == "state" and JobState(event.data["state"]).finished


def _message(event: JobEvent) -> str:
    return f"id: {event.id}\nevent: {event.kind}\ndata: {event.model_dump_json()}\n\n"
