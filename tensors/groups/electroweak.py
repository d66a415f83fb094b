"""Electroweak corrections (ISR, FSR, virtual): dense ratios, each one-sided and mirrored; filled like `theory`."""

from __future__ import annotations

from collections.abc import Sequence

from binworks.tensors.groups.base import VariationGroup, dense_group, paired_nuisances

NAME = "ew"


def group(variations: Sequence[str]) -> VariationGroup:
    """Return the group for the table's variations."""
    return dense_group(NAME, variations, paired_nuisances(NAME, variations))
