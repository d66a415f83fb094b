"""Momentum scale: derivative sums (d ln p / ds times 1, k, q/k) in the muon's eta bin.

The sums do not know of any covariance, so three groups share them: the eigenvectors of the J/psi calibration, those of
the Z closure, and the mass of the Z.
"""

from __future__ import annotations

import numpy as np

from binworks.tensors.axes import ETA_BINS
from binworks.tensors.groups.base import Layout, VariationGroup, eigen_shifts, linear_group
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel

NAME, CLOSURE, MZ = "momentum_scale", "z_closure", "calibration_mz"
COLUMNS = ("score", "score*k", "score*q/k")
_SIGNS = np.array([1.0, -1.0, 1.0])


def group(covariance: Float64, layout: Layout = "own") -> VariationGroup:
    """Return the calibration's group: 144 nuisances from the covariance of (A, e, M) in 48 eta bins each.

    The scale moves by s = dA - de k + q dM / k, so a shift enters the three columns as (dA, -de, dM).
    """
    shifts = eigen_shifts(covariance)
    per_bin = np.swapaxes(shifts.reshape(len(shifts), 3, ETA_BINS), 1, 2) * _SIGNS
    names = [f"muonScaleStat{i}" for i in range(len(shifts))]
    return linear_group(NAME, names, per_bin, COLUMNS, layout)


def closure_group(covariance: Float64, layout: Layout = "own") -> VariationGroup:
    """Return the Z closure's group: 72 nuisances from the covariance of (A, e, M) in 24 eta bins each."""
    shifts = eigen_shifts(covariance)
    per_bin = np.swapaxes(shifts.reshape(len(shifts), 3, ETA_BINS // 2), 1, 2) * _SIGNS
    names = [f"zClosure{i}" for i in range(len(shifts))]
    return linear_group(CLOSURE, names, np.repeat(per_bin, 2, axis=1), COLUMNS, layout, block=NAME)


def mz_group(shift: float, layout: Layout = "own") -> VariationGroup:
    """Return the group of the Z mass: A moves by the same shift in all bins."""
    per_bin = np.zeros((1, ETA_BINS, 3))
    per_bin[0, :, 0] = shift
    return linear_group(MZ, ["muonScaleMZ"], per_bin, COLUMNS, layout, block=NAME)


@kernel
def add(block: Float64, cell: int, offset: int, w: float, score: float, k: float, charge: int) -> None:
    """Add the derivative of the weight with respect to (A, -e, M) from column ``offset`` on; k = 1/pT in 1/GeV."""
    d = w * score
    block[cell, offset] += d
    block[cell, offset + 1] += d * k
    block[cell, offset + 2] += d * charge / k
