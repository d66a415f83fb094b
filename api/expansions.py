"""How compact blocks become named variations, so that a client can expand by itself."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, RootModel

from binworks.api import files, snapshots
from binworks.api.auth import Reader
from binworks.api.cached import answer
from binworks.api.context import Ctx
from binworks.api.jobs import JobId
from binworks.api.problems import responses
from binworks.api.snapshots import Generation, Name
from binworks.tensors.expansion import Expansion

NPZ = "application/x-npz"
router = APIRouter(
    prefix="/v1/jobs", tags=["expansions"], responses=responses(401, 403, 404, 409, 422, 500, 503)
)


class NuisanceView(BaseModel):
    """A parameter of the fit."""

    name: str
    group: str
    up: str = Field(description="Variation at +1.")
    down: str | None = Field(description="Variation at -1; none: the mirror of `up`.")
    constrained: bool


class ExpansionView(BaseModel):
    """The named variations of a group, and the nuisances over them."""

    group: str
    variations: list[str]
    nuisances: list[NuisanceView]
    block_axes: list[str] = Field(description="Axes of `nominal` on which the coefficients depend.")
    block: str = Field(
        description="The compact histogram that the coefficients combine; groups may share one."
    )


class Expansions(RootModel[list[ExpansionView]]):
    """All variation groups of a job."""


@router.get("/{job}/expansions", response_model=Expansions)
async def listed(
    job: JobId, context: Ctx, user: Reader, request: Request, generation: Generation = None
) -> Response:
    """List the variation groups of a job with their variations and nuisances."""
    snapshot = await snapshots.pinned(context, user, job, generation)

    def all_groups() -> Expansions:
        described = [_described(snapshot.expansion(name)) for name in snapshot.groups()]
        return Expansions([ExpansionView.model_validate(each) for each in described])

    return answer(request, await context.views.view(("expansions", job, snapshot.n), all_groups))


@router.get(
    "/{job}/expansions/{group}",
    response_class=Response,
    responses={
        200: {
            "content": {NPZ: {"schema": {"type": "string", "format": "binary"}}},
            "description": "The coefficients.",
        }
    },
)
def coefficients(
    job: JobId, group: Name, context: Ctx, user: Reader, request: Request, generation: Generation = None
) -> Response:
    """Return a group as npz: `base`, `variation`, `place`, `column`, `coefficient` and `description` (JSON)."""
    snapshot = snapshots.pin(context, user, job, generation)
    headers = {"ETag": files.strong_etag(job, group, "npz"), "Cache-Control": files.REVALIDATE}
    if files.is_current(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return files.computed(_npz(snapshot.expansion(group)), NPZ, headers)


def _described(expansion: Expansion) -> dict[str, Any]:
    return expansion.to_arrays()[0]


def _npz(expansion: Expansion) -> bytes:
    described, arrays = expansion.to_arrays()
    buffer = io.BytesIO()
    np.savez(buffer, **{"description": np.array(json.dumps(described)), **arrays}, allow_pickle=False)
    return buffer.getvalue()
