"""Payload of the recoil: its quantiles in data and in simulation, by the boson's transverse momentum.

The detector's recoil u = -(missing momentum + muons) is opposite to the boson, with a mean response and in each
component a Gaussian noise whose width follows the pile-up: so over the pile-up of data, which the simulation has been
given by then, the quantiles are those of a mixture of Gaussians. Both components are independent.
"""

from __future__ import annotations

from math import erfc, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np

from binworks.samples.arrays import Float64
from binworks.samples.conditions import PILEUP_EDGES, pileup_profile
from binworks.samples.documents import numbers
from binworks.samples.recoil import response_of, width_of
from binworks.samples.truth import Truth

ESTIMATOR = "DeepMETPVRobust"
"""The one that readers of NanoAOD take first."""
BOSON_PT = (0, 2, 4, 6, 8, 10, 12, 15, 18, 21, 25, 30, 35, 40, 50, 60, 80, 100, 130, 160, 200)
SCORES = np.linspace(-4.0, 4.0, 25)
_STEPS = 60


def recoil(truth: Truth) -> dict[str, Any]:
    """Return the quantiles; the same in data and simulation without the effect."""
    boson_pt = np.array(BOSON_PT, float)
    parallel, perpendicular = {}, {}
    for kind, estimators in (("data", truth.kind("recoil", is_data=True)), ("mc", "mc")):
        estimator = truth.recoil[estimators][ESTIMATOR]
        noise = noise_quantiles(width_of(_pileup_centers(), estimator), _pileup_shares(truth))
        along = -boson_pt * response_of(boson_pt, estimator)
        parallel[kind] = numbers(along[:, None] + noise)
        perpendicular[kind] = numbers(np.tile(noise, (len(boson_pt), 1)))
    return {
        "schema": "binworks.recoil/1",
        "boson_pt": boson_pt.tolist(),
        "probabilities": [NormalDist().cdf(score) for score in SCORES.tolist()],
        "components": [
            {"name": "parallel", "given": [], **parallel},
            {"name": "perpendicular", "given": [], **perpendicular},
        ],
    }


def noise_quantiles(widths: Float64, shares: Float64) -> Float64:
    """Return the quantiles of a mixture of Gaussians about 0 at the normal `SCORES`, found by bisection."""
    upper = SCORES[SCORES > 0]
    target = [NormalDist().cdf(-score) for score in upper.tolist()]
    low, high = np.zeros(len(upper)), np.full(len(upper), 10 * widths.max())
    for _ in range(_STEPS):
        middle = (low + high) / 2
        above = np.array([_beyond(value, widths, shares) for value in middle]) > target
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    half = (low + high) / 2
    return np.concatenate([-half[::-1], np.zeros(len(SCORES) - 2 * len(upper)), half])


def _beyond(value: float, widths: Float64, shares: Float64) -> float:
    tails = [erfc(value / (sqrt(2) * width)) / 2 for width in widths.tolist()]
    return float(shares @ tails)


def _pileup_centers() -> Float64:
    return (PILEUP_EDGES[:-1] + PILEUP_EDGES[1:]) / 2


def _pileup_shares(truth: Truth) -> Float64:
    return pileup_profile(truth.pileup[truth.kind("pileup", is_data=True)])
