"""Files for fits: asked for with a card, made aside, downloaded with ranges and digests."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from binworks.api import examples, files, snapshots
from binworks.api.auth import Reader, Submitter, User
from binworks.api.context import Context, Ctx
from binworks.api.jobs import JobId
from binworks.api.prefer import wait_seconds
from binworks.api.problems import NotFoundError, responses
from binworks.processors.cards import default_card
from binworks.service import layout
from binworks.service.exports import Ask, ExportPage, ExportRequest, ExportView, attempts, code_digest
from binworks.service.stored import StoredSource
from binworks.tensors import source
from binworks.tensors.card import Card, Channel
from binworks.tensors.errors import ConflictError, RequestError
from binworks.tensors.select import slices

POLL_SECONDS = 0.2
ExportId = Annotated[str, Path(pattern=r"^[a-z0-9]{1,40}$", description="Id of the export.")]
_LOCATION: dict[str, Any] = {
    "Location": {"description": "Address of the export.", "schema": {"type": "string"}}
}
_BYTES = {"content": {files.MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
_DIGEST = {"Repr-Digest": {"description": "sha-256 of the whole file.", "schema": {"type": "string"}}}
router = APIRouter(prefix="/v1/jobs", tags=["exports"], responses=responses(401, 403, 404, 422, 500, 503))


@router.post(
    "/{job}/exports",
    status_code=201,
    responses={
        200: {
            **examples.example({**examples.EXPORT, **examples.EXPORT_READY}, "It was there."),
            "model": ExportView,
            "headers": _LOCATION,
        },
        201: {**examples.example(examples.EXPORT, "A new export."), "headers": _LOCATION},
        **responses(409, 429),
    },
)
def ask(job: JobId, body: ExportRequest, context: Ctx, user: Reader, response: Response) -> ExportView:
    """Ask for a file for a fit; it is made aside, and its state says when it is ready.

    The card says which channels, processes, data and systematics; without one it is the processor's usual one.
    The same ask gives the same export; one that failed is tried again. A snapshot that lacks events is refused
    unless the card says `allow_partial`.
    """
    view, new = context.exports.ask(_resolved(context, user, job, body), user.name)
    context.exporting.wake()
    response.headers["Location"] = f"/v1/jobs/{job}/exports/{view.id}"
    if not new:
        response.status_code = 200
    return view


@router.get("/{job}/exports")
def listed(
    job: JobId,
    context: Ctx,
    user: Reader,
    cursor: Annotated[str | None, Query(max_length=40, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> ExportPage:
    """List the exports of a job, newest first."""
    return context.exports.list(job, viewer=user.sees, cursor=cursor, limit=limit)


@router.get("/{job}/exports/{export}")
async def status(
    job: JobId,
    export: ExportId,
    context: Ctx,
    user: Reader,
    response: Response,
    prefer: Annotated[
        str | None,
        Header(max_length=200, description="`wait=20`: answer when it is finished, or after 20 s."),
    ] = None,
) -> ExportView:
    """Return an export as it is now, or once it is ready or has failed."""
    wait = wait_seconds(prefer)
    if wait is not None:
        response.headers["Preference-Applied"] = f"wait={wait:.0f}"
    until = time.monotonic() + (wait or 0.0)
    while True:
        view = await run_in_threadpool(context.exports.get, job, export, user.sees)
        left = until - time.monotonic()
        if view.state.finished or left <= 0:
            return view
        await asyncio.sleep(min(POLL_SECONDS, left))


@router.delete(
    "/{job}/exports/{export}",
    status_code=204,
    response_class=Response,
    responses={204: {"description": "It is gone, with its file."}},
)
def delete(job: JobId, export: ExportId, context: Ctx, user: Submitter) -> Response:
    """Delete an export with its file, whatever its state: one that you have asked for, or one of your job."""
    fence = context.exports.delete(job, export, user.sees)
    for left in attempts(context.store, job, export, fence):
        context.store.remove(left)
    return Response(status_code=204)


@router.api_route(
    "/{job}/exports/{export}/file",
    methods=["GET"],
    response_class=Response,
    responses={
        200: {**_BYTES, "description": "The file.", "headers": _DIGEST},
        206: {**_BYTES, "description": "The range asked for.", "headers": _DIGEST},
        **responses(409, 416),
    },
)
@router.head("/{job}/exports/{export}/file", include_in_schema=False)
def file(job: JobId, export: ExportId, context: Ctx, user: Reader, request: Request) -> Response:
    """Return the file of an export that is ready, whole or by Range.

    `If-Range` with its entity tag lets a download go on where it was cut short; the digest is that of the whole file.
    """
    view, number = context.exports.file(job, export, user.sees)
    key, within = layout.export(job, export, number), layout.exports(job, export)
    try:
        answer = files.stored(request, context.store, key, within, f'"{view.sha256}"')
    except RequestError:
        if context.store.exists(key):
            raise
        raise context.exports.lost(export, number) from None
    digest = base64.b64encode(bytes.fromhex(view.sha256 or "")).decode()
    answer.headers["Repr-Digest"] = f"sha-256=:{digest}:"
    answer.headers["Content-Disposition"] = f'attachment; filename="{view.file_name}"'
    answer.headers["Cache-Control"] = files.REVALIDATE
    if answer.status_code in (200, 206):
        answer.headers["Content-Type"] = view.media_type
    return answer


def _resolved(context: Context, user: User, job: str, body: ExportRequest) -> Ask:
    """Return what is asked for with all names looked up.

    Raises
    ------
    RequestError
        For a snapshot, job, data set, histogram, axis, bin or systematic that does not exist.
    ConflictError
        Code ``no-snapshot``, or ``incomplete``.
    """
    snapshot = snapshots.pin(context, user, job, body.generation)
    own = StoredSource(context.store, job, snapshot.n)
    card = body.card or _usual_card(own)
    if body.allow_partial:
        card = card.model_copy(update={"allow_partial": True})
    source.check_complete(own, card)
    numbers: dict[str | None, int] = {None: snapshot.n, job: snapshot.n}
    sources: dict[str | None, StoredSource] = {None: own, job: own}
    for place, channel in enumerate(card.channels):
        where = f"body.card.channels.{place}"
        if channel.job not in numbers:
            numbers[channel.job] = _latest(context, user, str(channel.job), f"{where}.job")
        if channel.job not in sources:
            sources[channel.job] = StoredSource(context.store, str(channel.job), numbers[channel.job])
            source.check_complete(sources[channel.job], card)
        _check_names(sources[channel.job], channel, where)
    named = {name: n for name, n in numbers.items() if name not in (None, job)}
    return Ask(
        job,
        snapshot.n,
        body.format,
        card,
        {str(name): n for name, n in named.items()},
        code_digest(),
    )


def _usual_card(found: StoredSource) -> Card:
    """Return the card of the processor, for what the job simulates."""
    simulated = {entry["group"] for entry in found.datasets.values() if entry["kind"] != "data"}
    data = any(entry["kind"] == "data" for entry in found.datasets.values())
    return default_card(found.facts["processor"], groups=simulated, data=data)


def _latest(context: Context, user: User, job: str, where: str) -> int:
    try:
        return context.pins.pin(job, None, user.sees).n
    except RequestError as error:
        raise NotFoundError(error.message, code=error.code, where=where, hint=error.hint) from None
    except ConflictError as error:
        raise ConflictError(error.message, code=error.code, where=where, hint=error.hint) from None


def _check_names(found: StoredSource, channel: Channel, where: str) -> None:
    """Refuse a channel whose names are not there, at once and not when the file is made."""
    datasets = channel.datasets if channel.datasets is not None else tuple(found.datasets)
    try:
        source.check_names(found, datasets, channel.histogram)
    except RequestError as error:
        field = "histogram" if error.code == "unknown-histogram" else "datasets"
        raise _at(f"{where}.{field}", error) from None
    if channel.select is not None and datasets:
        try:
            slices(found.axes(datasets[0], channel.histogram), channel.select)
        except RequestError as error:
            raise _at(f"{where}.select", error) from None


def _at(where: str, error: RequestError) -> RequestError:
    return RequestError(error.message, code=error.code, where=where, hint=error.hint)
