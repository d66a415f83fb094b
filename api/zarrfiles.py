"""Snapshots as stored bytes: what a plain zarr client reads over HTTP."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.concurrency import run_in_threadpool

from binworks.api import files, snapshots
from binworks.api.auth import Reader, User
from binworks.api.context import Context, Ctx
from binworks.api.jobs import JobId, is_job_id
from binworks.api.problems import NotFoundError, responses
from binworks.api.quick import QuickRoute, shortcut
from binworks.service import layout
from binworks.service.store import Store
from binworks.tensors.errors import RequestError, TransientError

router = APIRouter(
    prefix="/v1/jobs",
    tags=["zarr"],
    route_class=QuickRoute,
    responses=responses(401, 403, 404, 409, 422, 500, 503),
)

_NUMBER = re.compile(r"[1-9]\d{0,8}", re.ASCII)
_CHUNK = re.compile(r"c(\.\d{1,9})*")
_BYTES = {"content": {files.MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}


def _is_plain(request: Request) -> bool:
    asked = request.path_params
    return is_job_id(asked["job"]) is not None and _NUMBER.fullmatch(asked["n"]) is not None


async def _answer(request: Request, context: Context, user: User) -> Response:
    asked = request.path_params
    return await _bytes(request, context, user, asked["job"], int(asked["n"]), asked["key"])


async def _bytes(request: Request, context: Context, user: User, job: str, n: int, key: str) -> Response:
    await snapshots.pinned(context, user, job, n)
    return await run_in_threadpool(_stored, request, context.store, layout.generation(job, n), key)


@router.get(
    "/{job}/zarr/{n}/{key:path}",
    response_class=Response,
    responses={
        200: {**_BYTES, "description": "The bytes."},
        206: {**_BYTES, "description": "The range asked for."},
        **responses(416),
    },
)
@shortcut(_is_plain, _answer)
async def stored(
    job: JobId,
    n: Annotated[int, Path(ge=1, lt=2**31, description="Generation.")],
    key: Annotated[str, Path(description="Key within the zarr group, for example `zarr.json`.")],
    context: Ctx,
    user: Reader,
    request: Request,
) -> Response:
    """Return stored bytes of a snapshot, whole or by Range; they never change.

    `zarr.open_group("http://.../v1/jobs/ID/zarr/N")` works: the group has consolidated metadata.
    """
    return await _bytes(request, context, user, job, n, key)


def _stored(request: Request, store: Store, prefix: str, key: str) -> Response:
    try:
        return files.stored(request, store, f"{prefix}/{key}", prefix, files.strong_etag(prefix, key))
    except RequestError as error:
        if error.code not in ("bad-key", "no-such-key"):
            raise
        if _is_chunk(store, prefix, key):
            raise TransientError("A part of what was stored is missing.", code="damaged", where=key) from None
        raise NotFoundError("There is no such key in this snapshot.", where=key) from None


def _is_chunk(store: Store, prefix: str, key: str) -> bool:
    """Whether a chunk of an array should be here: all are written, and clients take an absent one for zeros."""
    array, _, name = key.rpartition("/")
    try:
        if not _CHUNK.fullmatch(name):
            return False
        document = store.read_json(f"{prefix}/{array}/zarr.json")
    except RequestError:
        return False
    if document["node_type"] != "array":
        return False
    shape, grid = document["shape"], document["chunk_grid"]["configuration"]["chunk_shape"]
    place = [int(number) for number in name.split(".")[1:]]
    return len(place) == len(shape) and all(
        at * width < length for at, width, length in zip(place, grid, shape, strict=True)
    )
