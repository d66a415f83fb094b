"""Whether the service is there and works; what it can do; numbers for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, Field
from sqlalchemy import func, select

import binworks
from binworks.api.context import Ctx
from binworks.api.dashboard import FIRST
from binworks.api.problems import responses
from binworks.service.database import jobs
from binworks.service.model import JobState
from binworks.tensors.errors import BinworksError, TransientError

router = APIRouter(tags=["service"], responses=responses(500, 503))
FORMATS = ["application/json", "application/x-npy", "application/zip"]
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Version(BaseModel):
    """Which service this is and what it can do."""

    name: str = "binworks"
    version: str = binworks.__version__
    capabilities: list[str] = Field(
        default=[
            "delete",
            "events",
            "expansions",
            "histograms",
            "idempotency-key",
            "prefer-wait",
            "retry",
            "reuse",
            "select",
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


@router.get("/readyz")
def ready(context: Ctx) -> Alive:
    """Answer 200 if the job database can be read and the store written."""
    _states(context)
    try:
        context.store.probe()
    except BinworksError as error:
        raise TransientError(error.message, code="no-store", hint=error.hint) from None
    return Alive()


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(context: Ctx) -> Response:
    """Return the number of jobs by state in the text format of Prometheus."""
    found = _states(context)
    lines = [
        "# HELP binworks_jobs Jobs by state.",
        "# TYPE binworks_jobs gauge",
        *(f'binworks_jobs{{state="{state}"}} {found.get(state, 0)}' for state in JobState),
    ]
    return Response("\n".join(lines) + "\n", media_type=METRICS_TYPE)


def _states(context: Ctx) -> dict[str, int]:
    with context.database.read() as connection:
        rows = connection.execute(
            select(jobs.c.state, func.count().label("jobs")).group_by(jobs.c.state)
        ).all()
    return {row.state: row.jobs for row in rows}
