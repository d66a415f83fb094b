"""Efficiency, statistical: deviations of a step's smooth scale factors in the muon's own (eta, charge) bin.

The veto's factors concern a muon that is not in the histogram, so they have the spread layout always.
"""

from __future__ import annotations

import numpy as np

from binworks.tensors.expansion import Expansion
from binworks.tensors.groups.base import CHARGES, Layout, VariationGroup, eigen_shifts, mirrored
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel


def group(step: str, covariance: Float64, layout: Layout = "own") -> VariationGroup:
    """Return the group of a step: an eigenvector of each bin's covariance is a nuisance.

    Parameters
    ----------
    step : str
        For example ``idip``.
    covariance : array, shape (48 eta, 2 charges or 1, n, n)
        Of the polynomial's coefficients.
    layout : "own" or "spread"
        ``own`` has n columns; ``spread`` one for each eta bin, charge and coefficient, in this order.
    """
    name, prefix = (f"efficiency_{step}", f"effStat_{step}") if step != "veto" else ("veto_stat", "vetoStat")
    shifts = eigen_shifts(covariance)
    etas, charges, n, _ = shifts.shape
    signs = [f"_{charge}" for charge in CHARGES] if charges == len(CHARGES) else [""]
    names = [f"{prefix}_eta{e}{sign}_{j}" for e in range(etas) for sign in signs for j in range(n)]
    e, q, j, k = (np.asarray(axis) for axis in np.indices(shifts.shape))
    variation, place = (e * charges + q) * n + j, e * charges + q
    if layout == "own":
        axes = ("eta", "charge") if charges == len(CHARGES) else ("eta",)
        columns = tuple(f"dSF/dc{k}/SF" for k in range(n))
        expansion = Expansion.sparse(
            name, names, mirrored(name, names), (variation, place, k), shifts, block_axes=axes, base=1.0
        )
        return VariationGroup(columns, expansion)
    columns = tuple(f"eta{e}{sign}:dSF/dc{k}/SF" for e in range(etas) for sign in signs for k in range(n))
    expansion = Expansion.sparse(
        name, names, mirrored(name, names), (variation, 0 * place, place * n + k), shifts, base=1.0
    )
    return VariationGroup(columns, expansion)


@kernel
def add(block: Float64, cell: int, offset: int, w: float, basis: Float64, n: int) -> None:
    """Add w times each of the n basis functions from column ``offset`` on; w holds slope / factor."""
    for j in range(n):
        block[cell, offset + j] += w * basis[j]
