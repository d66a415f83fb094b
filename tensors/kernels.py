"""Bin lookup and scatter: the arithmetic that every fill kernel shares."""

from __future__ import annotations

import numpy as np

from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel


@kernel
def regular_bin(x: float, low: float, high: float, bins: int) -> int:
    """Return the bin of x on a regular axis, -1 if outside; the arithmetic of boost-histogram, to the last bit."""
    z = (x - low) / (high - low)
    if z >= 0.0 and z < 1.0:
        return int(z * bins)
    return -1


@kernel
def variable_bin(x: float, edges: Float64) -> int:
    """Return the bin of x among the edges (lower edge inclusive), -1 if outside or not a number."""
    if not (x >= edges[0] and x < edges[-1]):
        return -1
    return int(np.searchsorted(edges, x, side="right")) - 1


@kernel
def clamped_bin(x: float, edges: Float64) -> int:
    """Return the bin of x among the edges, the first or last one if outside; -1 only if not a number."""
    if np.isnan(x):
        return -1
    bin_ = int(np.searchsorted(edges, x, side="right")) - 1
    return min(max(bin_, 0), len(edges) - 2)


@kernel
def delta_phi(a: float, b: float) -> float:
    """Return a - b folded into [-pi, pi); in double precision, as columns are single."""
    return float((np.float64(a) - np.float64(b) + np.pi) % (2.0 * np.pi) - np.pi)


@kernel
def delta_r2(eta1: float, phi1: float, eta2: float, phi2: float) -> float:
    """Return the squared distance in (eta, phi)."""
    deta = np.float64(eta1) - np.float64(eta2)
    dphi = delta_phi(phi1, phi2)
    return deta * deta + dphi * dphi


@kernel
def clip_ratio(ratio: float) -> float:
    """Clip a ratio of two weights to [-10, 10]; not-a-number stays what it is."""
    if ratio > 10.0:
        return 10.0
    if ratio < -10.0:
        return -10.0
    return ratio
