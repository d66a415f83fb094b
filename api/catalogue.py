"""What can be asked for: processors, data sets and correction sets, by name."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, RootModel

from binworks.api.auth import Reader
from binworks.api.cached import answer
from binworks.api.context import Ctx
from binworks.api.problems import NotFoundError, responses
from binworks.api.snapshots import Name
from binworks.processors import registry
from binworks.processors.dataset import Dataset
from binworks.service.requests import catalogue, correction_sets
from binworks.service.settings import Settings
from binworks.tensors.errors import RequestError

router = APIRouter(prefix="/v1", tags=["catalogue"], responses=responses(401, 403, 422, 500, 503))


class ProcessorView(BaseModel):
    """A processor: what it computes and what it takes."""

    name: str
    version: int
    summary: str
    options: dict[str, Any] = Field(description="JSON schema of the options.")
    systematics: list[str] = Field(description="Variation groups.")
    corrections: list[str] = Field(description="Payloads that it reads from a correction set.")


class CatalogueView(BaseModel):
    """The data sets that can be asked for by name."""

    luminosity: float | None = Field(description="1/pb")
    datasets: list[Dataset]


class CorrectionSetView(BaseModel):
    """A set of correction payloads."""

    name: str
    digest: str = Field(description="sha256 of the manifest, which holds those of the payloads.")
    payloads: list[str]


class Processors(RootModel[list[ProcessorView]]):
    """All processors."""


class CorrectionSets(RootModel[list[CorrectionSetView]]):
    """All correction sets."""


@router.get("/processors", response_model=Processors)
async def processors(context: Ctx, _user: Reader, request: Request) -> Response:
    """List the processors with the schemas of their options."""
    return answer(request, await context.views.view("processors", _processors))


@router.get("/processors/{name}", response_model=ProcessorView, responses=responses(404))
async def processor(name: Name, context: Ctx, _user: Reader, request: Request) -> Response:
    """Return one processor."""
    return answer(request, await context.views.view(("processor", name), lambda: _processor(name)))


@router.get("/datasets", response_model=CatalogueView)
async def datasets(context: Ctx, _user: Reader, request: Request) -> Response:
    """List the data sets of the catalogue with their files."""
    return answer(request, await context.views.view("datasets", lambda: _datasets(context.settings)))


@router.get("/corrections", response_model=CorrectionSets)
async def corrections(context: Ctx, _user: Reader, request: Request) -> Response:
    """List the correction sets."""
    return answer(request, await context.views.view("corrections", lambda: _corrections(context.settings)))


def _processors() -> Processors:
    return Processors([ProcessorView.model_validate(registry.describe(name)) for name in registry.names()])


def _processor(name: str) -> ProcessorView:
    try:
        return ProcessorView.model_validate(registry.describe(name))
    except RequestError as error:
        raise NotFoundError(error.message, code=error.code, where=name, hint=error.hint) from None


def _datasets(settings: Settings) -> CatalogueView:
    found = catalogue(settings)
    return CatalogueView(luminosity=found.luminosity, datasets=list(found.datasets.values()))


def _corrections(settings: Settings) -> CorrectionSets:
    return CorrectionSets(
        [
            CorrectionSetView(name=name, digest=found.digest, payloads=sorted(found.manifest.payloads))
            for name, found in sorted(correction_sets(settings).items())
        ]
    )
