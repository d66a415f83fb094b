"""Prefiring: the trigger fires a crossing early and the event is lost; simulation gets a weight instead."""

from __future__ import annotations

import numpy as np

from binworks.samples.arrays import Float64, Jagged
from binworks.samples.truth import Prefire

HOT_SPOT = ((1.24, 1.6), (2.44, 2.79))
"""Borders in eta and phi."""
_MOST = 0.5


def ecal_probability(n: int, truth: Prefire, rng: np.random.Generator) -> Float64:
    """Draw the probability of n events to be lost by the ECAL's trigger."""
    return np.minimum(rng.exponential(truth.mean, n), _MOST)


def ecal_weights(probability: Float64, truth: Prefire) -> dict[str, Float64]:
    """Return NanoAOD's branches: the probability to be kept, nominal and with that to be lost scaled up and down."""
    up, down = 1 + truth.uncertainty, 1 - truth.uncertainty
    return {
        "L1PreFiringWeight_ECAL_Nom": 1 - probability,
        "L1PreFiringWeight_ECAL_Up": 1 - up * probability,
        "L1PreFiringWeight_ECAL_Dn": 1 - down * probability,
    }


def muon_probability(muons: Jagged, truth: Prefire) -> Float64:
    """Return each event's probability to be lost by one of its reconstructed loose muons."""
    eta, phi = muons["eta"], muons["phi"]
    inside = np.abs(eta) < truth.edges[-1]
    bins = np.clip(np.searchsorted(truth.edges, np.abs(eta), side="right") - 1, 0, len(truth.plateau) - 1)
    (eta_low, eta_high), (phi_low, phi_high) = HOT_SPOT
    hot = (eta > eta_low) & (eta < eta_high) & (phi > phi_low) & (phi < phi_high)
    plateau = np.where(hot, truth.hot_spot, np.asarray(truth.plateau)[bins]) * inside
    probability = plateau * muons["looseId"] / (np.exp((muons["pt"] - truth.middle) / truth.slope) + 1)
    kept = np.bincount(muons.event, np.log1p(-probability), minlength=len(muons.counts))
    return -np.expm1(kept)
