"""What is sent to workers and what comes back: small frozen records; no processor, no arrays, no exceptions."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from binworks.service.model import ResolvedJob
from binworks.service.plan import FileFacts, Piece
from binworks.service.retry import Kind
from binworks.service.tree import Sum


@dataclass(frozen=True)
class Recipe:
    """What to compute, by name.

    Parameters
    ----------
    processor : str
        In the registry.
    code : str
        Digest the worker's code must have.
    options : str
        As JSON.
    corrections, corrections_digest : str or None
        Folder of the set, and the digest its manifest must have.
    systematics : tuple of str
        Variation groups.
    """

    processor: str
    code: str
    options: str
    corrections: str | None
    corrections_digest: str | None
    systematics: tuple[str, ...]

    @classmethod
    def of(cls, resolved: ResolvedJob) -> Recipe:
        """Return what a job computes."""
        return cls(
            processor=resolved.request.processor,
            code=resolved.code,
            options=json.dumps(resolved.options, sort_keys=True),
            corrections=resolved.corrections,
            corrections_digest=resolved.corrections_digest,
            systematics=resolved.systematics,
        )

    def facts(self) -> dict[str, Any]:
        """Return what decides the bits, for the name of a partial; where the corrections lie does not."""
        return {
            "processor": self.processor,
            "code": self.code,
            "options": json.loads(self.options),
            "corrections": self.corrections_digest,
            "systematics": list(self.systematics),
        }


@dataclass(frozen=True)
class Prepare:
    """Make the processor and store how its variation groups expand."""

    store: str
    job: str
    recipe: Recipe


@dataclass(frozen=True)
class IndexFile:
    """Open a file and return its facts; its index is kept in the store, if one is named.

    ``owner`` names whose credential is used for a file on a server; it never stands here itself.
    """

    path: str
    store: str | None = None
    owner: str | None = None


@dataclass(frozen=True)
class FillUnit:
    """Fill the pieces of a unit and store the partial under its name.

    Parameters
    ----------
    store : str
        Address.
    recipe : Recipe
        What to compute.
    dataset : str
        As JSON, with the files of the pieces alone.
    pieces : tuple of Piece
        All of the unit.
    partial : str
        Name.
    lent : str or None
        Name of a partial of the same events with other variation groups; what it has is not filled again.
    splits, step : int
        The unit is filled in ``2**splits`` steps, one after the other; each but the last stores what it has so far,
        and the next goes on from there. A processor that adds event by event gives the same bits as in one step.
    owner : str or None
        As in `IndexFile`. What is computed does not depend on it, so it is not in the partial's name.
    """

    store: str
    recipe: Recipe
    dataset: str
    pieces: tuple[Piece, ...]
    partial: str
    lent: str | None = None
    splits: int = 0
    step: int = 0
    owner: str | None = None


@dataclass(frozen=True)
class Merge:
    """Add stored sums from left to right and store the sum under its name."""

    store: str
    name: str
    children: tuple[str, ...]


@dataclass(frozen=True)
class WriteDataset:
    """Write a data set of a snapshot: the value of its tree, or zeros if it has none."""

    store: str
    key: str
    recipe: Recipe
    dataset: str
    value: str | Sum | None
    attributes: dict[str, Any] = field(default_factory=dict)


Task = Prepare | IndexFile | FillUnit | Merge | WriteDataset


@dataclass(frozen=True)
class Receipt:
    """What was stored: never a histogram, always less than a kilobyte.

    Parameters
    ----------
    digest : str
        Of the bytes of the sums.
    counts : dict
        Entries, selected, signs, cut flow, oddities.
    nbytes : int
        Of the sums in memory.
    seconds : float
        Of the worker's time.
    reused : bool
        Whether it was there already.
    commit : float
        Those of the seconds that went into storing it.
    """

    digest: str
    counts: dict[str, int]
    nbytes: int
    seconds: float
    reused: bool
    commit: float = 0.0


@dataclass(frozen=True)
class Failure:
    """What went wrong on a worker, as data: an exotic exception cannot be unpickled everywhere."""

    kind: Kind
    code: str
    message: str
    where: str | None = None
    hint: str | None = None
    traceback: str | None = None

    def problem(self) -> dict[str, Any]:
        """Return what users see; the traceback is kept apart."""
        return {"code": self.code, "message": self.message, "where": self.where, "hint": self.hint}


class AbandonedError(BaseException):
    """Nobody waits for this task any more; not an `Exception`, so that no code on the way takes it for one."""


Outcome = Receipt | FileFacts | Failure | None
"""None from a `Prepare` that went well."""
