"""What is asked of a tensor for a fit: the card, one JSON document for REST, the command line and Python.

Channels, processes, data or pseudo-data, and what happens to the systematics. Unknown fields are refused.
`binworks.tensors.fitinput` makes of it what the export formats write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError, model_validator

from binworks.tensors.errors import RequestError

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.+-]{0,99}$")]
Pattern = Annotated[str, Field(min_length=1, max_length=200)]


def _whole(value: Any) -> int:
    """Take the whole numbers of numpy, too, but neither text nor a truth value."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ValueError("input should be a whole number")
    return int(value)


Whole = Annotated[int, BeforeValidator(_whole)]
Bin = Annotated[Whole, Field(ge=0, lt=2**31)]
Select = dict[Name, Bin | tuple[Bin, Bin]]
Flag = Annotated[bool, Strict()]
Number = Annotated[float, Strict()]
Symmetrise = Literal["keep", "average", "conservative", "linear", "quadratic"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Channel(_Part):
    """One set of bins of the fit."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,49}$")] = Field(
        default="signal", description="Name in the fit."
    )
    job: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")] | None = Field(
        default=None, description="Another job, whose latest snapshot is taken; default: the one exported."
    )
    histogram: Name = Field(default="nominal", description="Stored histogram.")
    select: Select | None = Field(
        default=None,
        description="By axis: a bin number (the axis disappears) or [first, stop) (it is cut). Numbers count a flow "
        "bin below where the axis has one. Default: the signal region, mt 2 and relIso 0, where these axes are.",
    )
    datasets: tuple[str, ...] | None = Field(
        default=None, max_length=1000, description="Default: all of the job."
    )
    mask: tuple[Bin, ...] = Field(
        default=(),
        max_length=100_000,
        description="Flat numbers of bins, after the selection and in C order, that are left out.",
    )

    @model_validator(mode="after")
    def _ranges_hold_bins(self) -> Channel:
        for axis, wanted in (self.select or {}).items():
            if isinstance(wanted, tuple) and wanted[1] <= wanted[0]:
                raise ValueError(f"the range of axis {axis!r} is empty: {list(wanted)}")
        return self


class Norm(_Part):
    """An uncertainty of the size of processes, log-normal."""

    name: Name
    processes: tuple[Pattern, ...] = Field(
        min_length=1, max_length=1000, description="Names, or patterns with * and ?."
    )
    size: Number = Field(gt=0, le=100, description="Factor at +1 standard deviation: 1.012 is 1.2 %.")
    groups: tuple[Name, ...] = Field(
        default=(), max_length=100, description="For impacts; default: its own name."
    )
    optional: Flag = Field(default=False, description="Leave it out where no process has such a name.")
    subtracted: Flag = Field(
        default=True, description="Whether what is subtracted for the nonprompt estimate changes, too."
    )


class Rule(_Part):
    """What happens to some systematics; where several match, the later one counts."""

    match: Pattern = Field(description="Name of nuisances or of their group, or a pattern with * and ?.")
    constrained: Flag | None = Field(default=None, description="False: free.")
    scale: Number | None = Field(
        default=None, gt=0, le=1e3, description="Factor on the effect (its logarithm)."
    )
    symmetrise: Symmetrise | None = Field(
        default=None,
        description="What becomes of different up and down templates: keep them; their average; the larger; or two "
        "nuisances, average (SymAvg) and difference (SymDiff): linear, or quadratic (the difference times root 3).",
    )
    groups: tuple[Name, ...] = Field(default=(), max_length=100, description="Further groups for impacts.")
    drop: Flag | None = Field(default=None, description="Leave them out; false: take them all the same.")


class Nonprompt(_Part):
    """The background of muons that are not prompt, estimated from the data's other regions."""

    process: Name = Field(
        default="Nonprompt", description="Its name; a simulated one of this name is replaced."
    )
    closure: Number = Field(default=0.85, gt=0, le=10, description="Factor on the estimate.")
    norm: Number = Field(default=1.05, gt=1, le=10, description="Factor at +1 standard deviation.")
    degree: Whole = Field(
        default=3, ge=0, le=5, description="Of the polynomial in pT that smooths the logarithm of a region."
    )
    shape: Number = Field(
        default=0.1,
        ge=0,
        le=10,
        description="Size of the two uncertainties of the shape, linear and quadratic: what is added to the logarithm "
        "at the end of the pT range; 0: none.",
    )


class Card(_Part):
    """A fit: its channels, processes, data and systematics."""

    channels: tuple[Channel, ...] = Field(default=(Channel(),), min_length=1, max_length=100)
    processes: dict[Name, tuple[str, ...]] | None = Field(
        default=None,
        max_length=1000,
        description="Simulated data sets by process; default: the data sets' groups.",
    )
    systematics: tuple[Name, ...] | None = Field(
        default=None, max_length=1000, description="Variation groups; default: all."
    )
    norms: tuple[Norm, ...] = Field(default=(), max_length=1000)
    rules: tuple[Rule, ...] = Field(default=(), max_length=1000)
    floating: tuple[Name, ...] = Field(
        default=(),
        max_length=1000,
        description="Processes whose size is free: a parameter norm_<process>, 1 % at +1.",
    )
    data: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        default="observed",
        description="`observed`; `prediction`; or the name of a variation, for pseudo-data made with it.",
    )
    luminosity: Number | None = Field(default=None, gt=0, description="1/pb; default: that of the job.")
    inflation: Number = Field(
        default=1.0, gt=0, le=100, description="Factor on the simulation's statistical uncertainty."
    )
    nonprompt: Nonprompt | None = Field(default=None, description="Estimate it from the data's sidebands.")
    allow_partial: Flag = Field(default=False, description="Take a snapshot that lacks events, too.")

    @model_validator(mode="after")
    def _names_are_unique(self) -> Card:
        for kind, names in {
            "channels": [channel.name for channel in self.channels],
            "norms": [norm.name for norm in self.norms],
            "floating": list(self.floating),
        }.items():
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise ValueError(f"{kind} of the same name: {', '.join(sorted(twice))}")
        return self

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Card:
        """Return the card that a JSON document describes.

        Raises
        ------
        RequestError
            Code ``bad-card``, naming the field.
        """
        try:
            return cls.model_validate(dict(document))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = "card" + "".join(f".{part}" for part in first["loc"] if "[" not in str(part))
            raise RequestError(
                f"The card is not valid: {first['msg']}.", code="bad-card", where=where
            ) from None
