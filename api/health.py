"""Whether the service is there and works; what it can do."""

from __future__ import annotations

import json
from typing import Annotated, Any, cast

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

import binworks
from binworks.api import examples, problems
from binworks.api.checks import NAMES, Checks, Name
from binworks.api.context import Ctx
from binworks.api.dashboard import FIRST
from binworks.api.problems import ProblemDocument, responses

router = APIRouter(tags=["service"], responses=responses(500, 503))
FORMATS = ["application/json", "application/x-npy", "application/zip"]


class Version(BaseModel):
    """Which service this is and what it can do."""

    name: str = "binworks"
    version: str = binworks.__version__
    capabilities: list[str] = Field(
        default=[
            "cancel",
            "catalogue",
            "delete",
            "events",
            "expansions",
            "exports",
            "histograms",
            "idempotency-key",
            "metrics",
            "partial-content",
            "prefer-wait",
            "previews",
            "retry",
            "reuse",
            "select",
            "shares",
            "snapshots",
            "tokens",
            "usage",
            "zarr",
        ]
    )
    histogram_formats: list[str] = Field(default=FORMATS)
    dashboard: str | None = Field(None, description="Path of the Dask dashboard.")


class Alive(BaseModel):
    """A sign of life."""

    status: str = "ok"


@router.get("/v1/")
def version(context: Ctx) -> Version:
    """Return the version and the capabilities."""
    return Version(dashboard=FIRST if context.settings.dashboard else None)


@router.get("/healthz")
def alive() -> Alive:
    """Answer as long as the process lives."""
    return Alive()


class Unready(ProblemDocument):
    """What is not there; ``code`` is that of the first in the list."""

    checks: dict[str, str] = Field(description="Each check that was made: `ok`, or its code.")


class Ready(Alive):
    """All that was looked at is there."""

    checks: dict[str, str] = Field(description="Each check that was made: `ok`.")


NOT_READY: dict[str, Any] = {
    "model": Unready,
    "description": "Something is not there.",
    "content": {
        problems.MEDIA_TYPE: {
            "schema": {"$ref": "#/components/schemas/Unready"},
            "example": examples.UNREADY,
        }
    },
}


@router.get(
    "/readyz",
    response_model=Ready,
    responses={503: NOT_READY},
)
def ready(
    request: Request,
    only: Annotated[
        list[Name] | None, Query(description="What to look at; default: all.", max_length=len(NAMES))
    ] = None,
) -> Response:
    """Answer 200 if all that jobs need is there, or what `only` names; 503 with the code of what is not.

    The API answers without scheduler and driver, and reads from a full disk. So what decides whether requests are
    sent here should ask for `only=database`; all of it is for people and alarms.
    """
    names = list(dict.fromkeys(only)) if only else list(NAMES)
    failed = cast("Checks", request.app.state.checks).failed(names)
    checks: dict[str, str] = {name: failed[name].code if name in failed else "ok" for name in names}
    if not failed:
        return JSONResponse(Ready(checks=checks).model_dump())
    answered = problems.answer(next(iter(failed.values())))
    body = {**json.loads(bytes(answered.body)), "checks": checks}
    headers = {"Retry-After": answered.headers["Retry-After"]}
    return JSONResponse(body, answered.status_code, headers, media_type=problems.MEDIA_TYPE)
