"""Pile-up: two dense weights for the inelastic cross section up and down; one nuisance."""

from __future__ import annotations

from binworks.tensors.groups.base import VariationGroup, dense_group, paired_nuisances
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel

NAME = "pileup"


def group() -> VariationGroup:
    """Return the group."""
    names = ("pileupUp", "pileupDown")
    return dense_group(NAME, names, paired_nuisances(NAME, names))


@kernel
def add(block: Float64, cell: int, w_without: float, up: float, down: float) -> None:
    """Add the event's weight without its pile-up factor, times the varied factors."""
    block[cell, 0] += w_without * up
    block[cell, 1] += w_without * down
