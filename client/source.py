"""A snapshot as the source of a fit, read over REST: the region that is wanted, and no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from binworks.tensors.expansion import Expansion
from binworks.tensors.histogram import Histogram
from binworks.tensors.select import Select

if TYPE_CHECKING:
    from binworks.client.snapshot import Snapshot

Progress = Callable[[str], None]
FACTS = ("job", "generation", "luminosity", "complete", "fraction", "missing")


class RemoteSource:
    """What `binworks.tensors.fitbuild.fit_input` reads.

    Parameters
    ----------
    snapshot : Snapshot
        Which.
    progress : callable, optional
        Gets the name of each histogram that is here.
    """

    def __init__(self, snapshot: Snapshot, progress: Progress | None = None) -> None:
        self._snapshot, self._progress = snapshot, progress

    @property
    def facts(self) -> Mapping[str, Any]:
        """Job, generation, luminosity, and how complete it is."""
        return {name: self._snapshot.contents.get(name) for name in FACTS}

    @cached_property
    def datasets(self) -> Mapping[str, Mapping[str, Any]]:
        """Data sets by name: kind, group, cross section, counts, names of the histograms."""
        return self._snapshot.datasets

    def axes(self, dataset: str, histogram: str) -> tuple[Any, ...]:
        """Return the axes of stored sums."""
        return self._snapshot.axes(dataset, histogram)

    def sums(self, dataset: str, histogram: str, select: Select) -> Histogram:
        """Return the selected part of stored sums."""
        found = self._snapshot.sums(dataset, histogram, select=select)
        if self._progress is not None:
            self._progress(f"{dataset}/{histogram}")
        return found

    def expansions(self) -> Sequence[Expansion]:
        """Return how the compact blocks expand into named variations."""
        return self._snapshot.expansions()
