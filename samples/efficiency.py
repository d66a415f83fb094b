"""Muon efficiencies by step, as probabilities of acceptance."""

from __future__ import annotations

import numpy as np

from binworks.samples.arrays import Array, Float64, Int64
from binworks.samples.truth import UT_POWERS, Efficiency

WITH_UT = 12
"""Coefficients of a scale factor that depends on uT: four powers of pT times three of uT."""


class EfficiencyCurve:
    """The probability to pass one step.

    Parameters
    ----------
    truth : Efficiency
        Its parameters.
    scaled : bool
        Whether data's scale factors apply.
    """

    def __init__(self, truth: Efficiency, *, scaled: bool) -> None:
        self._truth, self.scaled = truth, scaled
        self._plateau = np.asarray(truth.plateau)
        self._coefficients = np.asarray(truth.coefficients)

    def __call__(self, pt: Float64, eta_bin: Int64, charge: Array, ut: Float64) -> Float64:
        """Return the probability of each muon; pT and uT in GeV."""
        truth = self._truth
        probability: Float64 = self._plateau[eta_bin]
        if truth.threshold:
            probability = probability / (1 + np.exp((truth.threshold - pt) / truth.width))
        if truth.charge:
            probability = probability * (1 + 0.5 * truth.charge * charge)
        if truth.ut:
            probability = probability * (1 + truth.ut * np.clip(ut, *truth.ut_range))
        if self.scaled:
            probability = probability * self.scale_factor(pt, eta_bin, charge, ut)
        return probability

    def scale_factor(self, pt: Float64, eta_bin: Int64, charge: Array, ut: Float64) -> Float64:
        """Return data over simulation."""
        truth, (_, charges, n) = self._truth, self._coefficients.shape
        row = (np.asarray(charge) > 0).astype(np.int64) if charges == 2 else 0
        x, y = unit(pt, truth.pt_range), unit(ut, truth.ut_range)
        result: Float64 = np.einsum("mk,mk->m", self._coefficients[eta_bin, row], monomials(x, y, n))
        return result


def unit(values: Float64, limits: tuple[float, float]) -> Float64:
    """Return where values stand between the limits, from -1 to 1; beyond, the nearer one."""
    low, high = limits
    return np.clip(2 * (values - low) / (high - low) - 1, -1.0, 1.0)


def monomials(x: Float64, y: Float64, n: int) -> Float64:
    """Return x^k, or with 12 of them x^i y^j at place 3 i + j; shape (points, n)."""
    if n != WITH_UT:
        return np.vander(x, n, increasing=True)
    rows, columns = np.vander(x, n // UT_POWERS, increasing=True), np.vander(y, UT_POWERS, increasing=True)
    return (rows[:, :, None] * columns[:, None, :]).reshape(len(x), n)
