"""What can be asked for: processors, data sets and correction sets, by name."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from binworks.api.auth import Reader
from binworks.api.context import Ctx
from binworks.api.problems import NotFoundError, responses
from binworks.api.snapshots import Name
from binworks.processors import registry
from binworks.processors.dataset import Dataset
from binworks.service.requests import catalogue, correction_sets
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


@router.get("/processors")
def processors(_user: Reader) -> list[ProcessorView]:
    """List the processors with the schemas of their options."""
    return [ProcessorView.model_validate(registry.describe(name)) for name in registry.names()]


@router.get("/processors/{name}", responses=responses(404))
def processor(name: Name, _user: Reader) -> ProcessorView:
    """Return one processor."""
    try:
        return ProcessorView.model_validate(registry.describe(name))
    except RequestError as error:
        raise NotFoundError(error.message, code=error.code, where=name, hint=error.hint) from None


@router.get("/datasets")
def datasets(context: Ctx, _user: Reader) -> CatalogueView:
    """List the data sets of the catalogue with their files."""
    found = catalogue(context.settings)
    return CatalogueView(luminosity=found.luminosity, datasets=list(found.datasets.values()))


@router.get("/corrections")
def corrections(context: Ctx, _user: Reader) -> list[CorrectionSetView]:
    """List the correction sets."""
    return [
        CorrectionSetView(name=name, digest=found.digest, payloads=sorted(found.manifest.payloads))
        for name, found in sorted(correction_sets(context.settings).items())
    ]
