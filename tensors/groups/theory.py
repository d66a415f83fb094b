"""Theory of W and Z production: one table lookup an event, a dense weight for each of its variations."""

from __future__ import annotations

from collections.abc import Sequence

from binworks.tensors.groups.base import VariationGroup, dense_group, paired_nuisances
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import clip_ratio

NAME = "theory"


def group(variations: Sequence[str]) -> VariationGroup:
    """Return the group for the table's variations, paired by their names' Up and Down."""
    return dense_group(NAME, variations, paired_nuisances(NAME, variations))


@kernel
def add(block: Float64, cell: int, w: float, row: Float64) -> None:
    """Add w times varied / nominal; w holds the nominal factor ``row[0]`` already."""
    inverse = 1.0 / row[0]
    for j in range(block.shape[1]):
        block[cell, j] += w * clip_ratio(row[j + 1] * inverse)
