"""Bootstrap replicas: each event counts a Poisson number of times, the same in every job and on every machine."""

from __future__ import annotations

from binworks.tensors.groups.base import VariationGroup, dense_group
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel

NAME = "bootstrap"


def group(replicas: int) -> VariationGroup:
    """Return the group; its templates are replicas of the nominal one and no nuisances of a fit."""
    return dense_group(NAME, [f"bootstrap{i}" for i in range(replicas)], [])


@kernel
def add(block: Float64, cell: int, w: float, times: Float64) -> None:
    """Add w as often as each replica has the event."""
    for j in range(block.shape[1]):
        block[cell, j] += w * times[j]
