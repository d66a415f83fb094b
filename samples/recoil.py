"""Missing transverse momentum: what balances the measured recoil, muons, photons and electrons."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from binworks.samples.arrays import Float64
from binworks.samples.truth import MissingMomentum

_SHARED = 0.85  # correlation between the noise of the estimators: they look at one event


def missing_momentum(
    recoiling: Float64,
    visible: Float64,
    n_true: Float64,
    estimators: Mapping[str, MissingMomentum],
    rng: np.random.Generator,
) -> dict[str, Float64]:
    """Return (x, y) of each estimator, shape (n, 2), in GeV.

    Parameters
    ----------
    recoiling : array, shape (n, 2)
        The boson's transverse momentum; the hadrons carry its opposite, measured with a response and a width.
    visible : array, shape (n, 2)
        Sum of the measured muons and all else but hadrons.
    n_true : array
        True number of interactions.
    estimators : mapping
        Response and width by name.
    """
    n = len(recoiling)
    qt = np.hypot(recoiling[:, 0], recoiling[:, 1])
    shared = rng.standard_normal((n, 2), dtype=np.float32)
    result = {}
    for name, truth in estimators.items():
        response = 1.0 - truth.loss * np.exp(-qt / truth.scale)
        width = np.sqrt(truth.base**2 + truth.pileup**2 * n_true)
        own = rng.standard_normal((n, 2), dtype=np.float32)
        noise = np.sqrt(_SHARED) * shared + np.sqrt(1 - _SHARED) * own
        result[name] = response[:, None] * recoiling - width[:, None] * noise - visible
    return result
