"""With whom a job is shared: readers see it, its snapshots and its files, and change nothing."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field

from binworks.api.auth import Reader as Asker
from binworks.api.auth import Submitter
from binworks.api.context import Ctx
from binworks.api.jobs import JobId
from binworks.api.problems import NotFoundError, responses
from binworks.service import access

ReaderName = Annotated[
    str, Path(pattern=access.READER, description="An owner's name; `*`: everybody with a token.")
]
router = APIRouter(prefix="/v1/jobs", tags=["sharing"], responses=responses(401, 403, 404, 422, 500, 503))


class Shares(BaseModel):
    """With whom a job is shared."""

    job: str
    readers: list[str] = Field(description="Names of owners; `*` is everybody.")


@router.get("/{job}/shares")
def shares(job: JobId, context: Ctx, user: Asker) -> Shares:
    """List with whom you share a job."""
    return Shares(job=job, readers=access.readers(context.database, job, user.sees))


@router.get("/{job}/shares/{reader}")
def share(job: JobId, reader: ReaderName, context: Ctx, user: Asker) -> Shares:
    """Return whether you share a job with somebody: 404 if not."""
    if reader not in access.readers(context.database, job, user.sees):
        raise NotFoundError("The job is not shared with this reader.", where=reader)
    return Shares(job=job, readers=[reader])


@router.put("/{job}/shares/{reader}")
def add(job: JobId, reader: ReaderName, context: Ctx, user: Submitter) -> Shares:
    """Let somebody read a job of yours, with all its snapshots and files; once more changes nothing."""
    access.share(context.database, job, reader, user.sees)
    return Shares(job=job, readers=access.readers(context.database, job, user.sees))


@router.delete(
    "/{job}/shares/{reader}",
    status_code=204,
    response_class=Response,
    responses={204: {"description": "He cannot read it (any more)."}},
)
def remove(job: JobId, reader: ReaderName, context: Ctx, user: Submitter) -> Response:
    """Let somebody read a job of yours no more."""
    access.unshare(context.database, job, reader, user.sees)
    return Response(status_code=204)
