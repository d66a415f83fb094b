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
    return inner_bin(x, edges)


@kernel
def clamped_bin(x: float, edges: Float64) -> int:
    """Return the bin of x among the edges, the first or last one if outside; -1 only if not a number."""
    if np.isnan(x):
        return -1
    if x < edges[0]:
        return 0
    if x >= edges[-1]:
        return len(edges) - 2
    return inner_bin(x, edges)


@kernel
def inner_bin(x: float, edges: Float64) -> int:
    """Return the bin of x, which lies within the edges.

    Begins where x would be if the bins were equal, and walks; tables have equal bins or few of them, and a binary
    search costs a mispredicted branch at each step.
    """
    last = len(edges) - 2
    low, high = edges[0], edges[-1]
    if np.isinf(high):
        high = edges[-2]
    if np.isinf(low):
        low = edges[1]
    bin_ = 0
    if x >= high:
        bin_ = last
    elif x > low:
        bin_ = min(int((x - low) / (high - low) * last), last)
    while x < edges[bin_]:
        bin_ -= 1
    while x >= edges[bin_ + 1]:
        bin_ += 1
    return bin_


@kernel
def delta_phi(a: float, b: float) -> float:
    """Return a - b folded into [-pi, pi); in double precision, as columns are single."""
    difference = np.float64(a) - np.float64(b)
    if difference >= -np.pi and difference < np.pi:  # almost always, and a modulo is slow
        return float(difference)
    return float((difference + np.pi) % (2.0 * np.pi) - np.pi)


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
