"""Efficiency, statistical: deviations of one step's smooth scale factors in the muon's own (eta, charge) block."""

from __future__ import annotations

import numpy as np

from binworks.tensors.expansion import Expansion, Nuisance
from binworks.tensors.groups.base import VariationGroup, eigen_shifts
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel


def group(step: str, covariance: Float64) -> VariationGroup:
    """Return the group of a step: an eigenvector of each bin's covariance is a nuisance.

    Parameters
    ----------
    step : str
        For example ``idip``.
    covariance : array, shape (48 eta, 2 charges, n, n)
        Of the polynomial's coefficients.
    """
    name = f"efficiency_{step}"
    shifts = eigen_shifts(covariance)
    etas, charges, n, _ = shifts.shape
    coefficients = np.zeros((etas, charges, n, etas, charges, n))
    for eta in range(etas):
        for charge in range(charges):
            coefficients[eta, charge, :, eta, charge, :] = shifts[eta, charge]
    names = [
        f"effStat_{step}_eta{e}_{q}_{j}" for e in range(etas) for q in ("minus", "plus") for j in range(n)
    ]
    nuisances = [Nuisance(variation, name, variation) for variation in names]
    expansion = Expansion.dense(
        name,
        names,
        nuisances,
        coefficients.reshape(len(names), etas * charges, n),
        block_axes=("eta", "charge"),
        deviations=True,
    )
    return VariationGroup(tuple(f"x^{j}/SF" for j in range(n)), expansion)


@kernel
def add(block: Float64, cell: int, w: float, x: float, factor: float) -> None:
    """Add w times dSF/dc_j / SF = x^j / SF for each coefficient."""
    term = w / factor
    for j in range(block.shape[1]):
        block[cell, j] += term
        term *= x
