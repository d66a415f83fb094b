"""Prefiring: deviations for eleven |eta| bins, the hot spot, a common uncertainty, and the ECAL; up and down each."""

from __future__ import annotations

import numpy as np

from binworks.tensors.expansion import Expansion
from binworks.tensors.groups.base import VariationGroup, paired_nuisances
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel

NAME = "prefire"
SOURCES = (
    *(f"muonPrefireStat{i}" for i in range(11)),
    "muonPrefireHotSpot",
    "muonPrefireSyst",
    "ecalPrefire",
)
ECAL = len(SOURCES) - 1


def group() -> VariationGroup:
    """Return the group: 14 nuisances."""
    names = [f"{source}{way}" for source in SOURCES for way in ("Up", "Down")]
    expansion = Expansion.dense(NAME, names, paired_nuisances(NAME, names), np.eye(len(names)), base=1.0)
    return VariationGroup(tuple(names), expansion)


@kernel
def add(block: Float64, cell: int, source: int, w: float, up: float, down: float) -> None:
    """Add the deviations of one source; most events change two or three of them."""
    if up != 1.0 or down != 1.0:
        block[cell, 2 * source] += w * (up - 1.0)
        block[cell, 2 * source + 1] += w * (down - 1.0)
