"""The web page: jobs, a job, and what one may do to it; readable without a script, which only keeps it fresh."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse

from binworks.api import (
    exports,
    files,
    page_errors,
    page_facts,
    page_live,
    page_parts,
    page_preview,
    page_snippets,
    page_static,
    sessions,
    snapshots,
)
from binworks.api.auth import Reader, Submitter, User
from binworks.api.context import Context, Ctx
from binworks.api.jobs import JobId
from binworks.api.page_preview import Gallery, Wish, Wished
from binworks.api.page_templates import page
from binworks.api.preview import FRAMES, Shade, Shape
from binworks.api.snapshots import NOMINAL, Generation
from binworks.service.exports import ExportRequest
from binworks.service.model import JobState, JobView
from binworks.tensors import incomplete
from binworks.tensors.errors import BinworksError
from binworks.tensors.export import FORMATS

router = APIRouter(include_in_schema=False)
router.include_router(page_static.router)
router.include_router(page_live.router)
EXPORTS = 20
_NO_SNAPSHOT: dict[str, Any] = {
    "choice": None,
    "wrong": None,
    "generation": None,
    "digests": {},
    "mark": "",
    "alt": "",
    "frames": FRAMES,
}
Cursor = Annotated[str | None, Query(max_length=200)]


def install(app: FastAPI) -> None:
    """Let errors be pages for browsers, and keep what was drawn."""
    page_errors.install(app)
    app.state.gallery = Gallery()


@router.get("/")
async def listed(context: Ctx, user: Reader, state: str = "", cursor: Cursor = None) -> Response:
    """Show a page of jobs."""
    wanted = JobState(state) if state in set(JobState) else None
    table = await page_live.table_of(context, user, wanted, cursor)
    asked = {"state": wanted, "cursor": cursor, "seen": page_parts.mark(table)}
    stream = urlencode({key: value for key, value in asked.items() if value})
    frame = _frame(context, user)
    return page("jobs.html", table=table, state=wanted, states=list(JobState), stream=stream, **frame)


@router.get("/jobs/{job}")
def shown(job: JobId, context: Ctx, user: Reader, request: Request, wish: Wished) -> Response:
    """Show a job."""
    after = page_facts.newest_event(context, job)
    view, parts = page_parts.job_parts(context, user, job)
    latest = _snapshot(context, user, view, wish)
    histogram = latest["choice"].wish.histogram if latest["choice"] else NOMINAL
    points = page_facts.throughput(context, job)
    stream = "" if view.state.finished else urlencode({"after": after, "seen": page_parts.marks(parts)})
    return page(
        "job.html",
        job=view,
        parts=parts,
        stream=stream,
        points=points,
        line=_line(points),
        highest=max((rate for _, rate in points), default=0.0),
        provenance=page_facts.provenance(context, job),
        exports=context.exports.list(job, viewer=user.sees, limit=EXPORTS).exports,
        formats=list(FORMATS) if view.generation is not None else [],
        snippets=page_snippets.of(page_facts.address(request, context), view, histogram),
        **latest,
        **_frame(context, user),
    )


@router.get("/jobs/{job}/preview")
def fragment(job: JobId, context: Ctx, user: Reader, wish: Wished) -> Response:
    """Return the part of a job's page that shows the picture, for the script."""
    view = context.jobs.get(job, user.sees)
    shown = _snapshot(context, user, view, wish)
    here = {"HX-Replace-Url": f"/jobs/{job}?{shown['wish'].query()}"}
    return page("_picture.html", job=view, headers=here, **shown)


@router.get("/jobs/{job}/preview.png")
async def picture(
    job: JobId,
    context: Ctx,
    user: Reader,
    request: Request,
    wish: Wished,
    generation: Generation = None,
    shade: Shade = "light",
    shape: Shape = "wide",
) -> Response:
    """Return the picture of a snapshot; it says if events are missing."""
    snapshot = await run_in_threadpool(snapshots.pin, context, user, job, generation)
    etag = files.strong_etag(job, snapshot.n, wish, shade, shape, page_preview.FORM)
    kept = files.REVALIDATE if generation is None else files.IMMUTABLE
    headers = {"ETag": etag, "Cache-Control": kept, "Vary": files.VARY}
    if files.is_current(request, etag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    gallery: Gallery = request.app.state.gallery
    drawn = await gallery.picture(etag, snapshot, wish, shade, shape)
    return files.computed(drawn, "image/png", headers)


@router.get("/jobs/{job}/exports")
def export_list(job: JobId, context: Ctx, user: Reader) -> Response:
    """Return the part of a job's page that lists its files for fits, for the script."""
    view = context.jobs.get(job, user.sees)
    found = context.exports.list(job, viewer=user.sees, limit=EXPORTS).exports
    return page("_exports.html", job=view, exports=found)


@router.get("/jobs/{job}/nuisances")
def nuisances(job: JobId, context: Ctx, user: Reader, request: Request) -> Response:
    """List the nuisances of a job: a page, or the options of the form's field."""
    groups = page_preview.nuisances(snapshots.pin(context, user, job, None))
    template = "_nuisances.html" if "hx-request" in request.headers else "nuisances.html"
    headers = {"Vary": "Cookie, Authorization, HX-Request"}
    return page(template, headers=headers, job=job, groups=groups, **_frame(context, user))


@router.post("/jobs/{job}/cancel")
def cancel(job: JobId, context: Ctx, user: Submitter) -> Response:
    """Ask for the end of a job, and go back to its page."""
    context.jobs.cancel(job, user.sees)
    return _to(f"/jobs/{job}")


@router.post("/jobs/{job}/retry")
def retry(job: JobId, context: Ctx, user: Submitter) -> Response:
    """Take up a job again, and go back to its page."""
    context.jobs.retry(job, user.sees)
    return _to(f"/jobs/{job}")


@router.post("/jobs/{job}/exports")
async def export(job: JobId, context: Ctx, user: Reader, request: Request, response: Response) -> Response:
    """Ask for a file for a fit with the usual card, and go back to the job's page."""
    given = await sessions.fields(request)
    asked = ExportRequest(format=given.get("format", ""))
    await run_in_threadpool(exports.ask, job, asked, context, user, response)
    return _to(f"/jobs/{job}#exports")


@router.post("/jobs/{job}/delete")
def delete(job: JobId, context: Ctx, user: Submitter) -> Response:
    """Delete a finished job, and go to the list."""
    context.jobs.delete(job, user.sees)
    return _to("/")


def _to(place: str) -> Response:
    return RedirectResponse(place, HTTPStatus.SEE_OTHER)


def _frame(context: Context, user: User) -> dict[str, Any]:
    """Return what stands above every page."""
    return {"user": user, "dashboard": "/dask/status" if context.settings.dashboard else None}


def _snapshot(context: Context, user: User, view: JobView, wish: Wish) -> dict[str, Any]:
    """Return what the page says of the latest snapshot, and of the picture that is wished for."""
    if view.generation is None:
        return {**_NO_SNAPSHOT, "wish": wish}
    snapshot = snapshots.pin(context, user, view.id, None)
    wrong = None
    try:
        choice = page_preview.checked(snapshot, wish)
    except BinworksError as error:
        wrong = str(error)
        choice = page_preview.choice(snapshot, Wish())
    return {
        "choice": choice,
        "wish": wish if wrong else choice.wish,
        "wrong": wrong,
        "generation": snapshot.n,
        "digests": page_facts.digests(snapshot),
        "mark": incomplete.mark(snapshot.facts()),
        "alt": page_preview.describe(choice),
        "frames": FRAMES,
    }


def _line(points: Sequence[tuple[float, float]]) -> str:
    """Return the line of a chart of 600 x 120 for those who run no script."""
    if len(points) < 2:
        return ""
    begin, end = points[0][0], points[-1][0]
    highest = max(rate for _, rate in points) or 1.0
    wide = (end - begin) or 1.0
    return " ".join(f"{600 * (t - begin) / wide:.1f},{118 - 114 * rate / highest:.1f}" for t, rate in points)
