"""From what was asked to what will be done: every name looked up and checked, no ROOT file opened."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from binworks.processors.dataset import Dataset
from binworks.service.model import JobRequest
from binworks.service.settings import Settings


class Catalogue(BaseModel):
    """The data sets that can be asked for by name."""

    luminosity: float | None = Field(None, description="1/pb")
    datasets: dict[str, Dataset] = Field(default_factory=dict, description="Files are absolute.")


class ResolvedJob(BaseModel):
    """A request with all names looked up; a job depends on this and the files alone."""

    model_config = ConfigDict(frozen=True)

    request: JobRequest
    datasets: tuple[Dataset, ...] = Field(description="In the order asked for; files are absolute.")
    options: dict[str, Any] = Field(description="All options of the processor, defaults filled in.")
    systematics: tuple[str, ...]
    corrections: str | None = Field(description="Folder of the correction set.")
    corrections_digest: str | None
    luminosity: float | None
    code: str = Field(description="Digest of the processor's code.")
    unit_events: int


def catalogue(settings: Settings) -> Catalogue:
    """Return the data sets of all catalogue files.

    Raises
    ------
    RequestError
        If a catalogue cannot be read, or two of them give the same name.
    """


def correction_sets(settings: Settings) -> dict[str, str]:
    """Return the folders of the correction sets by name."""


def resolve(request: JobRequest, settings: Settings) -> ResolvedJob:
    """Look up and check all that a request names.

    Raises
    ------
    RequestError
        Naming the processor, option, data set, correction set, systematic or path that cannot be.
    PayloadError
        If the correction set is not what its manifest says.
    """
