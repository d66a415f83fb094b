"""The truth's theory weight of W and Z production over Pythia, and its variations, on the grid of the payload."""

from __future__ import annotations

import numpy as np

from binworks.samples.arrays import Array, Float64
from binworks.samples.truth import Theory

QT_EDGES = np.arange(101.0)
Y_EDGES = np.arange(0.0, 5.01, 0.25)
CHARGES = (-1, 0, 1)

PERTURBATIVE = {
    "resumTNP_gamma_cusp": 0.006,
    "resumTNP_gamma_mu_q": 0.005,
    "resumTNP_gamma_nu": 0.004,
    "resumTNP_h_qqV": 0.004,
    "resumTNP_s": 0.003,
    "resumTNP_b_qqV": 0.003,
    "resumTNP_b_qqbarV": 0.002,
    "resumTNP_b_qqS": 0.002,
    "resumTNP_b_qqDS": 0.0015,
    "resumTNP_b_qg": 0.001,
}
"""Theory nuisance parameters and the size of what each does to the weight; up and down are opposite."""
OTHERS = {
    "scetlibNPgammaCnu": 0.008,
    "scetlibNPgammaOmegaNu": 0.004,
    "scetlibNPLambda2": 0.006,
    "scetlibNPLambda4": 0.003,
    "resumTransition": 0.01,
    "resumFOScale": 0.008,
}
W_ONLY = {
    "scetlibNPDeltaLambda2": 0.003,
    "scetlibNPLambda6": 0.002,
    "scetlibNPLambdaInf": 0.004,
    "mbRange": 0.002,
    "mcRange": 0.003,
}
"""Likewise non-perturbative parameters, scales and, for the W alone, flavours; a shift down does less than one up."""
NUISANCES = (*PERTURBATIVE, *OTHERS, *W_ONLY)
_DOWN = 0.8


def nominal_weights(truth: Theory) -> Float64:
    """Return the weight by charge, |y| and qT bin, shape (3, 20, 100): 1 within some 10 %."""
    y, qt = np.meshgrid(_centers(Y_EDGES), _centers(QT_EDGES), indexing="ij")
    wave = truth.wave * np.cos(2 * np.pi * qt / truth.wave_length) * np.exp(-qt / truth.wave_length)
    slope = truth.slope * (1 - np.exp(-qt / 30.0))
    rapidity = truth.rapidity * (np.minimum(y, 4.0) / 2.0 - 0.6)
    by_charge = 0.01 * np.array(CHARGES)[:, None, None] * (np.minimum(y, 4.0) / 4.0)
    result: Float64 = 1 + (wave + slope + rapidity)[None] + by_charge
    return result


def variation_weights(truth: Theory) -> dict[str, Float64]:
    """Return the weights of the variations by name; each nuisance bends the qT spectrum in its own way."""
    nominal = nominal_weights(truth)
    is_w = np.array(CHARGES)[:, None, None] != 0
    result = {}
    for name, bend in _bends().items():
        seen = bend * (is_w if name in W_ONLY else 1.0)
        result[f"{name}Up"] = nominal * (1 + seen)
        result[f"{name}Down"] = nominal * (1 - (1.0 if name in PERTURBATIVE else _DOWN) * seen)
    return result


def lookup(weights: Float64, charge: Array, absy: Float64, qt: Float64) -> Float64:
    """Return each boson's weight; beyond the grid that of the nearest bin."""
    i = np.clip(np.searchsorted(Y_EDGES, absy, side="right") - 1, 0, len(Y_EDGES) - 2)
    j = np.clip(np.searchsorted(QT_EDGES, qt, side="right") - 1, 0, len(QT_EDGES) - 2)
    result: Float64 = weights[np.asarray(charge).astype(np.int64) + 1, i, j]
    return result


def _bends() -> dict[str, Float64]:
    """Return what each nuisance adds to 1 when shifted up, shape (20, 100)."""
    y, qt = np.meshgrid(_centers(Y_EDGES), _centers(QT_EDGES), indexing="ij")
    shapes = {
        name: np.cos(np.pi * (i + 1) * qt / (qt + 25.0)) * (1 + 0.1 * (i % 3 - 1) * y)
        for i, name in enumerate(PERTURBATIVE)
    }
    shapes |= {
        "scetlibNPgammaCnu": np.exp(-qt / 4.0) - 0.25 * np.exp(-qt / 15.0),
        "scetlibNPgammaOmegaNu": np.exp(-qt / 6.0) * (1 - qt / 6.0),
        "scetlibNPLambda2": np.exp(-((qt / 5.0) ** 2)) - 0.1,
        "scetlibNPLambda4": np.exp(-((qt / 3.0) ** 2)) - 0.05,
        "resumTransition": np.exp(-(((qt - 35.0) / 20.0) ** 2)),
        "resumFOScale": qt**2 / (qt**2 + 30.0**2),
        "scetlibNPDeltaLambda2": np.exp(-((qt / 5.0) ** 2)) * (y / 2.0 - 1),
        "scetlibNPLambda6": np.exp(-((qt / 2.0) ** 2)),
        "scetlibNPLambdaInf": np.exp(-qt / 8.0) * np.cos(qt / 4.0),
        "mbRange": np.exp(-(((qt - 5.0) / 3.0) ** 2)),
        "mcRange": np.exp(-(((qt - 2.0) / 2.0) ** 2)),
    }
    sizes = PERTURBATIVE | OTHERS | W_ONLY
    return {name: sizes[name] * shapes[name] for name in NUISANCES}


def _centers(edges: Float64) -> Float64:
    result: Float64 = (edges[:-1] + edges[1:]) / 2
    return result
