"""What a processor must know of a data set."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Dataset(BaseModel):
    """One data set of a job or of the catalogue: the files, and what kind of events they hold.

    The same words are the keys of coffea's file-set ``metadata``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}$",
        description="Unique within a job; a folder of the result.",
    )
    files: tuple[str, ...] = Field(
        min_length=1, max_length=100_000, description="Paths or root:// addresses."
    )
    kind: Literal["data", "mc"] = "mc"
    boson: Literal["W", "Z"] | None = Field(
        None, description="The vector boson that is produced; decides the theory weights."
    )
    prompt: bool = Field(True, description="Simulated muons must match a prompt generated one.")
    cross_section: float | None = Field(
        None, gt=0, description="pb, filter efficiency and branching fraction included."
    )
    group: str | None = Field(None, description="Process in the fit; defaults to the name.")

    @property
    def is_data(self) -> bool:
        """Whether these are collisions (no generator, no weights)."""
        return self.kind == "data"
