"""What an owner uses of the service, and how much of it he may use."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from binworks.api import examples
from binworks.api.auth import Reader
from binworks.api.cached import answer
from binworks.api.context import Ctx
from binworks.api.problems import ForbiddenError, responses
from binworks.service.model import Usage

router = APIRouter(prefix="/v1", tags=["usage"], responses=responses(401, 403, 422, 500, 503))


@router.get(
    "/usage", response_model=Usage, responses={200: examples.example(examples.USAGE, "Used and allowed.")}
)
async def usage(
    context: Ctx,
    user: Reader,
    request: Request,
    owner: Annotated[
        str | None,
        Query(min_length=1, max_length=200, description="Whose; default: yours. Others' are for admins."),
    ] = None,
) -> Response:
    """Return what you use and may use: jobs, queued units, stored bytes, processor hours of the last 30 days."""
    if owner not in (None, user.name) and user.sees is not None:
        raise ForbiddenError("Only an admin may see what others use.", code="missing-scope")
    whose = owner or user.name
    return answer(request, await context.views.view(("usage", whose), lambda: context.jobs.usage(whose)))
