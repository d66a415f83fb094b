"""Missing transverse momentum: what balances the measured recoil, muons, photons and electrons."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from binworks.samples.arrays import Array, Float64
from binworks.samples.events import Events
from binworks.samples.truth import MissingMomentum

_SHARED = 0.85  # correlation between the noise of the estimators: they look at one event


def missing_momentum(
    events: Events,
    visible: Float64,
    n_true: Float64,
    estimators: Mapping[str, MissingMomentum],
    simulated: Mapping[str, MissingMomentum],
    rng: np.random.Generator,
) -> dict[str, Float64]:
    """Return (x, y) of each estimator, shape (n, 2), in GeV.

    Parameters
    ----------
    events : Events
        The hadrons carry the opposite of their recoiling momentum, measured with a response and a width.
    visible : array, shape (n, 2)
        Sum of the measured muons and all else but hadrons.
    n_true : array
        True number of interactions.
    estimators : mapping
        Response and width by name.
    simulated : mapping
        Those of simulation. They hold where there is no boson: a correction could not know its momentum.
    rng : numpy.random.Generator
        For the noise.
    """
    n, qt = len(events), events.boson_pt
    has_boson = events.boson_mass > 0
    shared = rng.standard_normal((n, 2), dtype=np.float32)
    result = {}
    for name, truth in estimators.items():
        response, width = response_of(qt, truth), width_of(n_true, truth)
        if estimators is not simulated:
            response = np.where(has_boson, response, response_of(qt, simulated[name]))
            width = np.where(has_boson, width, width_of(n_true, simulated[name]))
        own = rng.standard_normal((n, 2), dtype=np.float32)
        noise = np.sqrt(_SHARED) * shared + np.sqrt(1 - _SHARED) * own
        result[name] = response[:, None] * events.recoiling - width[:, None] * noise - visible
    return result


def response_of(qt: Array, truth: MissingMomentum) -> Float64:
    """Return measured over true recoil at the boson's transverse momentum (GeV)."""
    result: Float64 = 1.0 - truth.loss * np.exp(-qt / truth.scale)
    return result


def width_of(n_true: Array, truth: MissingMomentum) -> Float64:
    """Return the width (GeV) of each component at the true number of interactions."""
    result: Float64 = np.sqrt(truth.base**2 + truth.pileup**2 * n_true)
    return result
