"""A snapshot that is in memory, for tests of what is made of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from binworks.tensors.accumulator import Accumulator
from binworks.tensors.expansion import Expansion
from binworks.tensors.histogram import Histogram
from binworks.tensors.select import Select, crop

FACTS: Mapping[str, Any] = {
    "job": "j1",
    "generation": 3,
    "luminosity": 120.0,
    "complete": True,
    "fraction": 1.0,
    "missing": None,
}


@dataclass
class InMemory:
    """Sums of data sets by name; ``data`` are data, and digits at the end of a name are not in its process."""

    held: Mapping[str, Accumulator]
    groups: Sequence[Expansion]
    facts: Mapping[str, Any] = field(default_factory=lambda: FACTS)
    cross_section: float = 50.0

    @property
    def datasets(self) -> Mapping[str, Mapping[str, Any]]:
        return {
            name: {
                "kind": "data" if name == "data" else "mc",
                "group": name.rstrip("0123456789"),
                "cross_section": None if name == "data" else self.cross_section,
                "counts": sums.counts,
                "histograms": list(sums.histograms),
            }
            for name, sums in self.held.items()
        }

    def axes(self, dataset: str, histogram: str) -> tuple[Any, ...]:
        return tuple(self.held[dataset].histograms[histogram].axes)

    def sums(self, dataset: str, histogram: str, select: Select) -> Histogram:
        return crop(self.held[dataset].histograms[histogram], select)

    def expansions(self) -> Sequence[Expansion]:
        return self.groups
