"""Muon efficiencies by step, as probabilities of acceptance."""

from __future__ import annotations

import numpy as np

from binworks.samples.arrays import Array, Float64, Int64
from binworks.samples.truth import Efficiency

_STRAIGHT = 60.0  # GeV: beyond, the dependence on uT is flat


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
        self._truth, self._scaled = truth, scaled
        self._plateau = np.asarray(truth.plateau)
        self._coefficients = np.asarray(truth.coefficients)

    def __call__(self, pt: Float64, eta_bin: Int64, charge: Array, ut: Float64) -> Float64:
        """Return the probability of each muon; pT and uT in GeV."""
        truth, ut = self._truth, np.clip(ut, -_STRAIGHT, _STRAIGHT)
        probability: Float64 = self._plateau[eta_bin]
        if truth.threshold:
            probability = probability / (1 + np.exp((truth.threshold - pt) / truth.width))
        if truth.charge:
            probability = probability * (1 + 0.5 * truth.charge * charge)
        if truth.ut:
            probability = probability * (1 + truth.ut * ut)
        if self._scaled:
            probability = probability * self.scale_factor(pt, eta_bin, charge) * (1 + truth.ut_scale * ut)
        return np.minimum(probability, 1.0)

    def scale_factor(self, pt: Float64, eta_bin: Int64, charge: Array) -> Float64:
        """Return data over simulation at uT = 0."""
        low, high = self._truth.pt_range
        x = np.clip(2 * (pt - low) / (high - low) - 1, -1.0, 1.0)
        c = self._coefficients[eta_bin, (np.asarray(charge) > 0).astype(np.int64)]
        result: Float64 = c[:, 0] + x * (c[:, 1] + x * (c[:, 2] + x * c[:, 3]))
        return result
