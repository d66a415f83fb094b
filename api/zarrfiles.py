"""Snapshots as stored bytes: what a plain zarr client reads over HTTP."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from binworks.api import files, snapshots
from binworks.api.auth import Reader
from binworks.api.context import Ctx
from binworks.api.jobs import JobId
from binworks.api.problems import NotFoundError, responses
from binworks.service import layout
from binworks.service.store import Store
from binworks.tensors.errors import RequestError

router = APIRouter(prefix="/v1/jobs", tags=["zarr"], responses=responses(401, 403, 404, 409, 422, 500, 503))

_BYTES = {"content": {files.MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}


@router.api_route(
    "/{job}/zarr/{n}/{key:path}",
    methods=["GET"],
    response_class=Response,
    responses={
        200: {**_BYTES, "description": "The bytes."},
        206: {**_BYTES, "description": "The range asked for."},
        **responses(416),
    },
)
@router.head("/{job}/zarr/{n}/{key:path}", include_in_schema=False)
def stored(
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
    snapshot = snapshots.pin(context, user, job, n)
    path = _path(context.store, layout.generation(job, snapshot.n), key)
    return files.stored(request, path, files.strong_etag(job, n, key))


def _path(store: Store, prefix: str, key: str) -> FilePath:
    """Return the file of a key, which must lie in the snapshot's own folder, links followed."""
    absent = NotFoundError("There is no such key in this snapshot.", where=key)
    try:
        path = store.key_path(f"{prefix}/{key}")
        if path.resolve(strict=True).is_relative_to(store.key_path(prefix).resolve(strict=True)):
            return path
    except (RequestError, OSError, ValueError):  # no key, nothing there, a name too long, a NUL in it
        raise absent from None
    raise absent
