"""The truth's theory weight of W and Z production over Pythia, and its variations, on the grid of the payload."""

from __future__ import annotations

import numpy as np

from binworks.samples.arrays import Array, Float64
from binworks.samples.truth import Theory

QT_EDGES = np.arange(101.0)
Y_EDGES = np.arange(0.0, 5.01, 0.25)
CHARGES = (-1, 0, 1)
NUISANCES = (*(f"resumTNP{i}" for i in range(1, 11)), "resumNPLambda", "resumTransition")

_SIZES = np.array([0.006, 0.005, 0.004, 0.004, 0.003, 0.003, 0.002, 0.002, 0.0015, 0.001, 0.008, 0.01])


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
    y, qt = np.meshgrid(_centers(Y_EDGES), _centers(QT_EDGES), indexing="ij")
    result = {}
    for i, (name, size) in enumerate(zip(NUISANCES, _SIZES, strict=True)):
        if name == "resumNPLambda":
            bend = np.exp(-qt / 4.0) - 0.25 * np.exp(-qt / 15.0)
        elif name == "resumTransition":
            bend = np.exp(-(((qt - 35.0) / 20.0) ** 2))
        else:
            bend = np.cos(np.pi * (i + 1) * qt / (qt + 25.0)) * (1 + 0.1 * (i % 3 - 1) * y)
        result[f"{name}Up"], result[f"{name}Down"] = nominal * (1 + size * bend), nominal * (1 - size * bend)
    return result


def lookup(weights: Float64, charge: Array, absy: Float64, qt: Float64) -> Float64:
    """Return each boson's weight; beyond the grid that of the nearest bin."""
    i = np.clip(np.searchsorted(Y_EDGES, absy, side="right") - 1, 0, len(Y_EDGES) - 2)
    j = np.clip(np.searchsorted(QT_EDGES, qt, side="right") - 1, 0, len(QT_EDGES) - 2)
    result: Float64 = weights[np.asarray(charge).astype(np.int64) + 1, i, j]
    return result


def _centers(edges: Float64) -> Float64:
    result: Float64 = (edges[:-1] + edges[1:]) / 2
    return result
