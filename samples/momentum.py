"""How a muon's k = 1/pT is measured: a Gaussian response, and in data the momentum scale's distortion."""

from __future__ import annotations

import numpy as np

from binworks.samples.arrays import Array, Float64, Int64
from binworks.samples.truth import MomentumScale, Resolution

_NARROWEST = 0.2  # a response r is not below this: the sign of the curvature is not simulated


def relative_width(k: Float64, eta_bin: Int64, resolution: Resolution) -> Float64:
    """Return sigma_k / k at k (1/GeV); ``eta_bin`` counts the 48 bins."""
    a, b, c, d = (np.asarray(getattr(resolution, name))[eta_bin // 2] for name in "abcd")
    result: Float64 = np.sqrt(a**2 + (c / k) ** 2 + b**2 / (1 + (d * k) ** 2))
    return result


def smeared(k: Float64, eta_bin: Int64, resolution: Resolution, rng: np.random.Generator) -> Float64:
    """Return the measured k of muons with true k."""
    response = 1.0 + relative_width(k, eta_bin, resolution) * rng.standard_normal(len(k))
    return k * np.maximum(response, _NARROWEST)


def distorted(k: Float64, eta_bin: Int64, charge: Array, scale: MomentumScale) -> Float64:
    """Return the k that the correction k (1 + A - e k + q M / k) brings back to the given one.

    The correction is the quadratic -e k^2 + (1 + A) k + q M; the root near k is taken in a form that holds for e = 0.
    """
    A, e, M = (np.asarray(getattr(scale, name))[eta_bin] for name in "AeM")
    rest = k - charge * M
    result: Float64 = 2 * rest / (1 + A + np.sqrt((1 + A) ** 2 - 4 * e * rest))
    return result
