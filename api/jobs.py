"""Jobs: submit, look, list, cancel, and their units of work."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from binworks.api.auth import Reader, Submitter
from binworks.api.context import Ctx
from binworks.api.problems import responses
from binworks.service.model import JobPage, JobRequest, JobState, JobView, UnitState, UnitView
from binworks.service.requests import resolve

LONGEST_WAIT = 60.0
POLL = 0.2
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})", re.ASCII | re.IGNORECASE)

JobId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,40}$", description="Id of the job.")]
router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=responses(401, 403, 422, 500, 503))


class UnitPage(BaseModel):
    """Some units of work in their order, and where the next ones start."""

    units: list[UnitView]
    next: int | None = Field(None, description="Value of `after` for the next page; none: this is the last.")


@router.post(
    "",
    status_code=201,
    responses={
        201: {
            "headers": {
                "Location": {"description": "Address of the job.", "schema": {"type": "string"}},
                "Idempotent-Replayed": {
                    "description": "`true` if an earlier request with this key had made the job.",
                    "schema": {"type": "string"},
                },
            }
        },
        **responses(400, 409, 429),
    },
)
def submit(
    body: JobRequest,
    context: Ctx,
    user: Submitter,
    response: Response,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=200,
            pattern=r"^[\x21-\x7e]+$",
            description="The same key and body give one job.",
        ),
    ] = None,
) -> JobView:
    """Submit a job; it is durably stored when the answer comes."""
    job, new = context.jobs.create(resolve(body, context.settings), user.name, idempotency_key)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    if not new:
        response.headers["Idempotent-Replayed"] = "true"
    return job


@router.get("")
def listed(
    context: Ctx,
    user: Reader,
    state: JobState | None = None,
    cursor: Annotated[str | None, Query(max_length=200, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JobPage:
    """List jobs, newest first."""
    return context.jobs.list(owner=user.sees, state=state, cursor=cursor, limit=limit)


@router.get("/{job}", responses=responses(404))
async def status(
    job: JobId,
    context: Ctx,
    user: Reader,
    response: Response,
    prefer: Annotated[
        str | None,
        Header(max_length=200, description="`wait=20`: answer when it is finished, or after 20 s."),
    ] = None,
) -> JobView:
    """Return a job as it is now, or once it is finished."""
    asked = _WAIT.search(prefer or "")
    wait = min(float(asked.group(1)), LONGEST_WAIT) if asked else 0.0
    if asked:
        response.headers["Preference-Applied"] = f"wait={wait:.0f}"
    until = time.monotonic() + wait
    while True:
        view = await run_in_threadpool(context.jobs.get, job, user.sees)
        left = until - time.monotonic()
        if view.state.finished or left <= 0:
            return view
        await asyncio.sleep(min(POLL, left))


@router.post("/{job}/cancel", status_code=202, responses=responses(404))
def cancel(job: JobId, context: Ctx, user: Submitter) -> JobView:
    """Ask for the end of a job; a finished one stays as it is."""
    return context.jobs.cancel(job, user.sees)


@router.get("/{job}/units", responses=responses(404))
def units(
    job: JobId,
    context: Ctx,
    user: Reader,
    state: UnitState | None = None,
    after: Annotated[int, Query(ge=-1, lt=2**31)] = -1,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> UnitPage:
    """List units of work: what is done, what failed, where and why."""
    context.jobs.get(job, user.sees)
    found = context.jobs.units(job, state=state, after=after, limit=limit)
    return UnitPage(units=found, next=found[-1].unit if len(found) == limit else None)
