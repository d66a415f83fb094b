"""A snapshot in the store as the source of a fit: read in part, and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from binworks.service import layout
from binworks.service.store import Store
from binworks.tensors.expansion import Expansion
from binworks.tensors.histogram import Histogram
from binworks.tensors.select import Select


class StoredSource:
    """One snapshot of a job; it must be pinned while it is read.

    Parameters
    ----------
    store : Store
        Where it is.
    job, n : str, int
        Which.
    told : callable
        Called whenever sums were read.
    """

    def __init__(self, store: Store, job: str, n: int, told: Callable[[], None] = lambda: None) -> None:
        self._store, self._job, self._n, self._told = store, job, n, told

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """What the snapshot says of itself: job, generation, luminosity, how complete it is."""
        return self._store.attributes(layout.generation(self._job, self._n))

    @cached_property
    def datasets(self) -> Mapping[str, Mapping[str, Any]]:
        """Data sets by name: kind, group, cross section, counts, names of the histograms."""
        return {name: self._described(name) for name in self.facts["datasets"]}

    def _described(self, dataset: str) -> Mapping[str, Any]:
        key = layout.dataset(self._job, self._n, dataset)
        return {**self._store.attributes(key), "histograms": self._store.histogram_names(key)}

    def axes(self, dataset: str, histogram: str) -> tuple[Any, ...]:
        """Return the axes of stored sums."""
        return self._store.axes(layout.dataset(self._job, self._n, dataset), histogram)

    def sums(self, dataset: str, histogram: str, select: Select) -> Histogram:
        """Return the selected part of stored sums."""
        found = self._store.read_part(layout.dataset(self._job, self._n, dataset), histogram, select)
        self._told()
        return found

    def expansions(self) -> Sequence[Expansion]:
        """Return how the compact blocks expand into named variations."""
        keys = [layout.expansion(self._job, group) for group in self.facts["systematics"]]
        return [
            Expansion.from_arrays(*self._store.read_arrays(key)) for key in keys if self._store.exists(key)
        ]
