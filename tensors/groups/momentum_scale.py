"""Momentum scale: derivative sums (d ln p / ds times 1, k, q/k) in the muon's eta bin; eigenvectors of (A, e, M)."""

from __future__ import annotations

import numpy as np

from binworks.tensors.expansion import Expansion, Nuisance
from binworks.tensors.groups.base import VariationGroup, eigen_shifts
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel

NAME = "momentum_scale"
COLUMNS = ("score", "score*k", "score*q/k")


def group(covariance: Float64) -> VariationGroup:
    """Return the group: 144 nuisances from the 144 x 144 covariance of (A, e, M) in 48 eta bins each.

    The scale moves by s = dA - de k + q dM / k, so a shift enters the three columns as (dA, -de, dM).
    """
    shifts = eigen_shifts(covariance)
    per_bin = shifts.reshape(len(shifts), 3, 48) * np.array([1.0, -1.0, 1.0])[:, np.newaxis]
    names = [f"muonScaleStat{i}" for i in range(len(shifts))]
    nuisances = [Nuisance(name, NAME, name) for name in names]
    coefficients = np.swapaxes(per_bin, 1, 2)
    return VariationGroup(
        COLUMNS, Expansion.dense(NAME, names, nuisances, coefficients, block_axes=("eta",), deviations=True)
    )


@kernel
def add(block: Float64, cell: int, w: float, score: float, k: float, charge: int) -> None:
    """Add the derivative of the weight with respect to (A, -e, M); k = 1/pT in 1/GeV."""
    d = w * score
    block[cell, 0] += d
    block[cell, 1] += d * k
    block[cell, 2] += d * charge / k
