"""Jobs: submit, look, list, cancel, retry, delete, and their units of work."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import BaseModel, Field

from binworks.api import examples
from binworks.api.auth import Reader, Submitter, User
from binworks.api.cached import View, answer
from binworks.api.context import Context, Ctx
from binworks.api.prefer import wait_seconds
from binworks.api.problems import responses
from binworks.api.quick import QuickRoute, shortcut
from binworks.service.model import JobPage, JobRequest, JobState, JobView, UnitState, UnitView
from binworks.service.requests import resolve

JOB_ID = r"^[A-Za-z0-9_-]{1,40}$"
JobId = Annotated[str, Path(pattern=JOB_ID, description="Id of the job.")]
is_job_id = re.compile(JOB_ID, re.ASCII).fullmatch
router = APIRouter(
    prefix="/v1/jobs", tags=["jobs"], route_class=QuickRoute, responses=responses(401, 403, 422, 500, 503)
)

_LOCATION: dict[str, Any] = {"Location": {"description": "Address of the job.", "schema": {"type": "string"}}}
_NEXT: dict[str, Any] = {
    "Link": {"description": 'The next page, `rel="next"`, if there is one.', "schema": {"type": "string"}}
}


class UnitPage(BaseModel):
    """Some units of work in their order, and where the next ones start."""

    units: list[UnitView]
    next: int | None = Field(None, description="Value of `after` for the next page; none: this is the last.")


@router.post(
    "",
    status_code=201,
    responses={
        200: {
            **examples.example({**examples.JOB, "state": "succeeded", "complete": True}, "It was there."),
            "model": JobView,
            "headers": _LOCATION,
        },
        201: {
            **examples.example(examples.JOB, "A new job."),
            "headers": {
                **_LOCATION,
                "Idempotent-Replayed": {
                    "description": "`true` if an earlier request with this key had made the job.",
                    "schema": {"type": "string"},
                },
            },
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
    reuse: Annotated[
        Literal["completed"] | None,
        Query(description="`completed`: answer with your newest job that has this result, if there is one."),
    ] = None,
) -> JobView:
    """Submit a job; it is durably stored when the answer comes.

    With `reuse=completed` the answer is 200 and your newest job that succeeded, lacks no event, and was asked
    for the same with the same code, if there is one; label, priority and `on_error` may differ. Local files
    must have the size and the time of change that they had then; files behind a protocol (`root://`) are
    trusted by their names.
    """
    resolved = resolve(body, context.settings)
    found = context.jobs.completed(resolved, user.name) if reuse else None
    if found is not None:
        response.status_code = 200
        response.headers["Location"] = f"/v1/jobs/{found.id}"
        return found
    job, new = context.jobs.create(resolved, user.name, idempotency_key)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    if not new:
        response.headers["Idempotent-Replayed"] = "true"
    return job


@router.get("", response_model=JobPage, responses={200: {"headers": _NEXT}})
async def listed(
    context: Ctx,
    user: Reader,
    request: Request,
    state: JobState | None = None,
    cursor: Annotated[str | None, Query(max_length=200, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    """List jobs, newest first."""
    view = await context.views.view(
        ("jobs", user.sees, state, cursor, limit),
        lambda: context.jobs.list(viewer=user.sees, state=state, cursor=cursor, limit=limit),
    )
    return answer(request, view, _next(request, cursor=view.model.next))


def _is_plain(request: Request) -> bool:
    """Whether the status of a job is asked for as it is now."""
    return "prefer" not in request.headers and is_job_id(request.path_params["job"]) is not None


async def _status(request: Request, context: Context, user: User) -> Response:
    return answer(request, await viewed(context, user, request.path_params["job"]))


@router.get("/{job}", response_model=JobView, responses=responses(404))
@shortcut(_is_plain, _status)
async def status(
    job: JobId,
    context: Ctx,
    user: Reader,
    request: Request,
    prefer: Annotated[
        str | None,
        Header(max_length=200, description="`wait=20`: answer when it is finished, or after 20 s."),
    ] = None,
) -> Response:
    """Return a job as it is now, or once it is finished."""
    seconds = wait_seconds(prefer)
    if seconds is None:
        return await _status(request, context, user)
    view = await context.feed.wait(
        job, lambda: viewed(context, user, job), lambda view: view.model.state.finished, seconds
    )
    return answer(request, view, {"Preference-Applied": f"wait={seconds:.0f}"})


async def viewed(context: Context, user: User, job: str) -> View[JobView]:
    """Return a job as a user sees it now.

    Raises
    ------
    RequestError
        Code ``unknown-job``.
    """
    return await context.views.view(("job", job, user.sees), lambda: context.jobs.get(job, user.sees))


@router.post("/{job}/cancel", status_code=202, responses=responses(404))
def cancel(job: JobId, context: Ctx, user: Submitter) -> JobView:
    """Ask for the end of a job; a finished one stays as it is."""
    return context.jobs.cancel(job, user.sees)


@router.post(
    "/{job}/retry",
    status_code=202,
    responses={202: examples.example(examples.JOB, "It waits again."), **responses(404, 409, 429)},
)
def retry(job: JobId, context: Ctx, user: Submitter) -> JobView:
    """Take up a job again that failed, or whose result lacks events; what it has done is kept.

    What failed or was left out is tried with fresh counters. If files were at fault, all files are looked at
    anew. A job that is not finished stays as it is. Refused with 409 for a complete result, a cancelled job,
    and a job of older code.
    """
    return context.jobs.retry(job, user.sees)


@router.delete(
    "/{job}",
    status_code=204,
    response_class=Response,
    responses={204: {"description": "It is gone, with all its snapshots."}, **responses(404, 409)},
)
def delete(job: JobId, context: Ctx, user: Submitter) -> Response:
    """Delete a finished job with all its snapshots; its files are removed later."""
    context.jobs.delete(job, user.sees)
    return Response(status_code=204)


@router.get("/{job}/units", response_model=UnitPage, responses={200: {"headers": _NEXT}, **responses(404)})
async def units(
    job: JobId,
    context: Ctx,
    user: Reader,
    request: Request,
    state: UnitState | None = None,
    after: Annotated[int, Query(ge=-1, lt=2**31)] = -1,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """List units of work: what is done, what failed, where and why."""

    def page() -> UnitPage:
        context.jobs.get(job, user.sees)
        found = context.jobs.units(job, state=state, after=after, limit=limit)
        return UnitPage(units=found, next=found[-1].unit if len(found) == limit else None)

    view = await context.views.view(("units", job, user.sees, state, after, limit), page)
    return answer(request, view, _next(request, after=view.model.next))


def _next(request: Request, **place: object) -> dict[str, str]:
    """Return the link to the next page, if there is one."""
    if None in place.values():
        return {}
    following = request.url.include_query_params(**place)
    return {"Link": f'<{following.path}?{following.query}>; rel="next"'}
