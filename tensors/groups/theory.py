"""Theory of W and Z production: one table lookup an event, a dense weight for each of its variations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from binworks.tensors.groups.base import VariationGroup, symmetrised_group
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import clip_ratio

NAME = "theory"
AVERAGED = "resumTNP"


def group(variations: Sequence[str]) -> VariationGroup:
    """Return the group for the table's variations, paired by their names' Up and Down.

    The theory nuisance parameters (``resumTNP...``) are symmetric by construction, a nuisance each; other pairs become
    average and difference.
    """
    averaged = [name[:-2] for name in variations if name.startswith(AVERAGED) and name.endswith("Up")]
    return symmetrised_group(NAME, variations, averaged)


@kernel
def add(block: Float64, cell: int, w: float, row: Float64, columns: Any) -> None:
    """Add w times varied / nominal for the columns of the row; w holds the nominal factor ``row[0]`` already."""
    inverse = 1.0 / row[0]
    for j in range(block.shape[1]):
        block[cell, j] += w * clip_ratio(row[columns[j]] * inverse)
