"""What is garbage, decided from rows and listings: pure functions, no database, no store, no clock."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Generation:
    """A snapshot, as far as it matters whether somebody may still want it.

    Parameters
    ----------
    job, n : str, int
        Which.
    created : float
        Seconds since 1970.
    readable : bool
        Whether it has a published row or, without any row, a manifest.
    final : bool
        Whether it was the end of its job.
    finished : bool
        Whether its job is.
    row : bool
        Whether the ledger has a row of it; the driver writes that before anything else.
    pinned : float
        Until when; 0 if never.
    """

    job: str
    n: int
    created: float
    readable: bool
    final: bool
    finished: bool
    row: bool = True
    pinned: float = 0.0


@dataclass(frozen=True)
class Partial:
    """Stored sums: of a unit, or merged.

    Parameters
    ----------
    name : str
        Under which they are stored.
    used : float or None
        When a unit or a merge last had them, or when they were written; None if they are not whole.
    through : tuple of str
        Other names that keep them, if an unfinished job refers to them: the name without variation groups, because its
        units may lend what is there; the first of the sums that were added, because its merge may come upon this one.
    """

    name: str
    used: float | None
    through: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """All names that keep them."""
        return frozenset((self.name, *self.through))


def superseded(generations: Collection[Generation], now: float, keep: float) -> list[Generation]:
    """Return the snapshots that nobody needs.

    The latest of a job and those that ended a job are never among them, nor those that are pinned.

    Parameters
    ----------
    generations : collection
        All of the jobs concerned.
    now, keep : float
        Since 1970, and how old a superseded one must be, in seconds.
    """
    latest: dict[str, int] = {}
    for found in generations:
        if found.readable and found.row:
            latest[found.job] = max(found.n, latest.get(found.job, 0))
    return [
        found
        for found in generations
        if found.pinned <= now and _is_superseded(found, latest.get(found.job, 0), now, keep)
    ]


def _is_superseded(found: Generation, latest: int, now: float, keep: float) -> bool:
    if not found.readable:  # begun and never published
        return found.finished or not found.row
    return not found.final and found.n < latest and now - found.created > keep


def unused(partials: Iterable[Partial], referred: Collection[str], now: float, keep: float) -> list[Partial]:
    """Return the stored sums that no unfinished job refers to and that were last used long ago.

    Parameters
    ----------
    partials : iterable
        All or some.
    referred : collection of str
        Names that unfinished jobs refer to.
    now, keep : float
        Since 1970, and how long ago they must have been used last, in seconds.
    """
    return [
        found
        for found in partials
        if found.used is not None and now - found.used > keep and found.names.isdisjoint(referred)
    ]
