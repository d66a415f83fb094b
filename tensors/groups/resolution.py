"""Momentum resolution: derivative sums (d ln p / d sigma^2 times those of a^2, c^2, b^2) in the muon's eta bin."""

from __future__ import annotations

import numpy as np

from binworks.tensors.axes import ETA_BINS
from binworks.tensors.groups.base import Layout, VariationGroup, eigen_shifts, linear_group
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel

NAME = "resolution"
COLUMNS = ("score", "score/k^2", "score/(1+d^2 k^2)")


def group(covariance: Float64, layout: Layout = "own") -> VariationGroup:
    """Return the group: 72 nuisances from the covariance of (a^2, c^2, b^2) in 24 eta bins each."""
    shifts = eigen_shifts(covariance)
    per_bin = np.swapaxes(shifts.reshape(len(shifts), 3, ETA_BINS // 2), 1, 2)
    names = [f"muonResolution{i}" for i in range(len(shifts))]
    return linear_group(NAME, names, np.repeat(per_bin, 2, axis=1), COLUMNS, layout)


@kernel
def add(block: Float64, cell: int, offset: int, w: float, score: float, k: float, d: float) -> None:
    """Add the derivative of the weight with respect to (a^2, c^2, b^2); k = 1/pT in 1/GeV, d in GeV."""
    derivative = w * score
    block[cell, offset] += derivative
    block[cell, offset + 1] += derivative / (k * k)
    block[cell, offset + 2] += derivative / (1.0 + d * d * k * k)
