"""Histograms of a snapshot: UHI JSON, npy or a UHI zip by Accept; named variations; a picture."""

from __future__ import annotations

import io
import json
import re
from typing import Annotated, Any, Literal

import numpy as np
import uhi.io.zip
from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field, StringConstraints
from starlette.exceptions import HTTPException

from binworks.api import files, preview, snapshots
from binworks.api.auth import Reader
from binworks.api.cached import answer
from binworks.api.context import Ctx
from binworks.api.jobs import JobId
from binworks.api.problems import NotFoundError, responses
from binworks.api.snapshots import Generation, Name, Snapshot
from binworks.tensors import incomplete
from binworks.tensors.archive import TimelessZip
from binworks.tensors.errors import RequestError
from binworks.tensors.histogram import Histogram

JSON, NPY, ZIP = "application/json", "application/x-npy", "application/zip"
_WISH = re.compile(
    r"(?P<name>[^;\s]+)\s*(?:;\s*(?!q=)[^;]*)*(?:;\s*q=(?P<q>[01](?:\.\d{0,3})?)\s*(?:;.*)?)?", re.ASCII
)
router = APIRouter(
    prefix="/v1/jobs", tags=["histograms"], responses=responses(401, 403, 404, 409, 422, 500, 503)
)

Selected = Annotated[
    list[
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.+-]{0,99}:[0-9]{1,9}(:[0-9]{1,9})?$")]
    ]
    | None,
    Query(
        max_length=20,
        description="A part, an axis each: `mt:2` takes a bin, and the axis disappears; `pt:5:25` cuts the axis to "
        "the bins from 5 to before 25. Numbers count a flow bin below, where the axis has one.",
    ),
]
_COVERS = {
    "Binworks-Complete": {
        "description": "`true` if every event of the input is in it.",
        "schema": {"type": "string"},
    },
    "Binworks-Fraction": {
        "description": "Part of the events that is in it; files that could not be opened are not counted.",
        "schema": {"type": "string"},
    },
}
_FORMATS = {
    "headers": _COVERS,
    "content": {
        JSON: {"schema": {"type": "object"}},
        NPY: {"schema": {"type": "string", "format": "binary"}},
        ZIP: {"schema": {"type": "string", "format": "binary"}},
    },
    "description": "UHI JSON (schema v1), one array as npy, or a zip of `uhi.io.zip`; with flow bins.",
}


class DatasetSums(BaseModel):
    """One data set in a snapshot: what it is, its counts, and the names of its histograms."""

    name: str
    kind: Literal["data", "mc"]
    group: str = Field(description="Process in the fit.")
    cross_section: float | None = Field(description="pb")
    counts: dict[str, int] = Field(description="Exact: entries, selected, sum_sign, the cut flow.")
    histograms: list[str] = Field(description="`nominal`, and a compact block for each variation group.")


class Lacking(BaseModel):
    """What was left out for good."""

    events: int = Field(description="Of the units left out.")
    units: list[int]
    files: list[str] = Field(description="Files that could not be opened.")


class SnapshotView(BaseModel):
    """What a snapshot holds and what it lacks."""

    job: str
    generation: int
    final: bool
    complete: bool = Field(description="Whether every event of the input is in it.")
    fraction: float = Field(description="Part of the events that is in it.")
    missing: Lacking
    luminosity: float | None = Field(description="1/pb")
    groups: list[str] = Field(description="Variation groups; `/expansions` has their names and coefficients.")
    datasets: list[DatasetSums]


@router.get("/{job}/histograms", response_model=SnapshotView, responses={200: {"headers": _COVERS}})
async def listed(
    job: JobId, context: Ctx, user: Reader, request: Request, generation: Generation = None
) -> Response:
    """List the histograms of a snapshot by data set."""
    snapshot = await snapshots.pinned(context, user, job, generation)
    view = await context.views.view(
        ("histograms", job, snapshot.n, snapshot.view.fraction), lambda: _listed(snapshot)
    )
    return answer(request, view, _covers(snapshot))


def _listed(snapshot: Snapshot) -> SnapshotView:
    facts = snapshot.facts()
    return SnapshotView(
        job=snapshot.job,
        generation=snapshot.n,
        final=snapshot.view.final,
        complete=snapshot.view.complete,
        fraction=snapshot.view.fraction,
        missing=facts["missing"],
        luminosity=facts["luminosity"],
        groups=snapshot.groups(),
        datasets=[_dataset(snapshot, name) for name in facts["datasets"]],
    )


@router.get(
    "/{job}/histograms/{dataset}/{name}", response_class=Response, responses={200: _FORMATS, **responses(406)}
)
async def histogram(
    job: JobId,
    dataset: Name,
    name: Name,
    context: Ctx,
    user: Reader,
    request: Request,
    variation: Annotated[
        str | None, Query(max_length=200, description="A named variation of `nominal`.")
    ] = None,
    generation: Generation = None,
    array: Annotated[Literal["values", "variances"], Query(description="Which sums, for npy.")] = "values",
    select: Selected = None,
) -> Response:
    """Return one histogram, a named variation of it, or a part, as UHI JSON, npy or UHI zip by Accept.

    The axes of an answer are those that are left by `select`; stored sums are then read in part.
    """
    part = _part(select)
    snapshot = await snapshots.pinned(context, user, job, generation)
    media_type = _negotiate(request.headers.get("accept", "*/*"))
    headers = {
        "ETag": files.strong_etag(
            job, snapshot.n, dataset, name, variation, array, media_type, sorted(part.items())
        ),
        "Vary": f"Accept, {files.VARY}",
        "Cache-Control": files.REVALIDATE if generation is None else files.IMMUTABLE,
        "Content-Location": str(
            request.url.include_query_params(generation=snapshot.n).replace(scheme="", netloc="")
        ),
        **_covers(snapshot),
    }
    if files.is_current(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)

    def made() -> Response:
        try:
            found = snapshot.histogram(dataset, name, variation, part)
        except RequestError as error:
            if error.code not in ("unknown-axis", "unknown-bin"):
                raise
            raise NotFoundError(
                error.message, code=error.code, where="query.select", hint=error.hint
            ) from None
        found.metadata |= _provenance(snapshot, dataset, name)
        return files.computed(_encode(found, media_type, array), media_type, headers)

    return await run_in_threadpool(made)


@router.get(
    "/{job}/histograms/{dataset}/{name}/preview.png",
    response_class=Response,
    responses={
        200: {
            "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
            "description": "The picture; it says so if events are missing.",
            "headers": _COVERS,
        }
    },
)
def picture(
    job: JobId,
    dataset: Name,
    name: Name,
    context: Ctx,
    user: Reader,
    request: Request,
    generation: Generation = None,
) -> Response:
    """Return a picture of the projections on each axis."""
    snapshot = snapshots.pin(context, user, job, generation)
    mark = incomplete.mark(snapshot.facts())
    headers = {
        "ETag": files.strong_etag(job, snapshot.n, dataset, name, "png", mark),
        "Vary": files.VARY,
        "Cache-Control": files.REVALIDATE if generation is None else files.IMMUTABLE,
        **_covers(snapshot),
    }
    if files.is_current(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    found = snapshot.histogram(dataset, name)
    title = f"{dataset}: {name} (job {job}, snapshot {snapshot.n})"
    return files.computed(preview.png(preview.projections(found, title, mark)), "image/png", headers)


def _part(select: list[str] | None) -> dict[str, int | tuple[int, int]]:
    """Return what is selected, by axis."""
    part: dict[str, int | tuple[int, int]] = {}
    for wanted in select or []:
        axis, first, *stop = wanted.split(":")
        place = (int(first), int(stop[0])) if stop else int(first)
        if part.setdefault(axis, place) != place:
            message = f"Axis {axis!r} is selected twice, and differently."
            raise RequestError(message, code="invalid-request", where="query.select")
    return part


def _covers(snapshot: Snapshot) -> dict[str, str]:
    """Return the headers that say how much of the input is in an answer."""
    view = snapshot.view
    return {"Binworks-Complete": str(view.complete).lower(), "Binworks-Fraction": f"{view.fraction:.6g}"}


def _dataset(snapshot: Snapshot, name: str) -> DatasetSums:
    facts = snapshot.dataset(name)
    return DatasetSums(
        name=name,
        kind=facts["kind"],
        group=facts["group"],
        cross_section=facts["cross_section"],
        counts=facts["counts"],
        histograms=snapshot.histogram_names(name),
    )


def _provenance(snapshot: Snapshot, dataset: str, name: str) -> dict[str, Any]:
    return {
        "job": snapshot.job,
        "generation": snapshot.n,
        "dataset": dataset,
        "histogram": name,
        "complete": snapshot.view.complete,
        "fraction": snapshot.view.fraction,
    }


def _negotiate(accept: str) -> str:
    """Return the media type that the asker likes best among ours."""
    wishes = []
    for position, part in enumerate(accept.lower().split(",")):
        wish = _WISH.fullmatch(part.strip())
        quality = float(wish["q"] or 1) if wish else 0
        if wish and quality > 0:
            wishes.append((-quality, position, wish["name"]))
    for *_, name in sorted(wishes):
        if name in ("*/*", "application/*"):
            return JSON
        if name in (JSON, NPY, ZIP):
            return name
    raise HTTPException(406, f"This comes as {JSON}, {NPY} or {ZIP}.")


def _encode(histogram: Histogram, media_type: str, array: Literal["values", "variances"]) -> bytes:
    if media_type == NPY:
        return _npy(histogram, array)
    described = histogram.uhi()
    arrays = {"values": histogram.values, "variances": histogram.variances}
    for key, sums in arrays.items():
        if sums is not None:
            described["storage"][key] = sums if media_type == ZIP else sums.tolist()
    if media_type == JSON:
        return json.dumps(described, allow_nan=False).encode()
    buffer = io.BytesIO()
    with TimelessZip(buffer, "w") as archive:
        uhi.io.zip.write(archive, "histogram", described)
    return buffer.getvalue()


def _npy(histogram: Histogram, array: Literal["values", "variances"]) -> bytes:
    sums = histogram.values if array == "values" else histogram.variances
    if sums is None:
        raise NotFoundError("No variances are kept for this histogram.", code="no-variances")
    buffer = io.BytesIO()
    np.save(buffer, sums, allow_pickle=False)
    return buffer.getvalue()
