"""Payloads of the theory: production of W and Z, angular coefficients, electroweak corrections."""

from __future__ import annotations

from typing import Any

import numpy as np

from binworks.samples import theory as truth_weights
from binworks.samples.arrays import Float64
from binworks.samples.documents import category, correction, table
from binworks.samples.processes import W_MASS
from binworks.samples.theory import CHARGES, QT_EDGES, Y_EDGES
from binworks.samples.truth import Truth

ANGULAR_Y_EDGES = np.arange(0.0, 5.01, 0.5)
ANGULAR_QT_EDGES = (0.0, 3.0, 5.0, 7.0, 9.0, 11.0, 14.0, 18.0, 23.0, 30.0, 40.0, 60.0, 100.0)
RADIATED_EDGES = (0.0, 1e-5, 1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0)
EW_MASS_EDGES = (0.0, 50.0, 60.0, 70.0, 76.0, 79.0, 82.0, 85.0, 88.0, 91.0, 94.0, 100.0, 120.0, 200.0)
_HIGHEST_MASS = 14_000.0
_BOSON = {
    "absy": ("real", "absolute rapidity of the boson"),
    "qt": ("real", "its transverse momentum (GeV)"),
    "charge": ("int", "its charge"),
}
_VARIATION = ("string", "nominal, or the name of a variation")


def theory(truth: Truth) -> dict[str, Any]:
    """Return the weight of production and its variations; one bin in mass."""
    nominal = truth_weights.nominal_weights(truth.theory)
    weights = {"nominal": nominal, **truth_weights.variation_weights(truth.theory)}
    if not truth.has("theory"):
        weights = {name: values / nominal for name, values in weights.items()}
    axes = {"mass": [0.0, _HIGHEST_MASS], "absy": Y_EDGES, "qt": QT_EDGES}
    content = {
        name: category("charge", {q: table(axes, np.round(values[i], 7)) for i, q in enumerate(CHARGES)})
        for name, values in weights.items()
    }
    inputs = {"mass": ("real", "mass of the boson (GeV)"), **_BOSON, "variation": _VARIATION}
    return correction("theory", "W and Z production over Pythia", inputs, category("variation", content))


def angular() -> dict[str, Any]:
    """Return coefficients about those of the generator, with scales that change each, and another shower."""
    axes = {"absy": ANGULAR_Y_EDGES, "qt": ANGULAR_QT_EDGES}
    content = {
        variation: category(
            "charge",
            {
                q: category(
                    "helicity",
                    {i - 1: table(axes, values) for i, values in enumerate(_varied(terms, variation))},
                )
                for q, terms in zip(CHARGES, angular_coefficients(), strict=True)
            },
        )
        for variation in ("nominal", "scaleUp", "scaleDown", "showerUp", "showerDown")
    }
    helicity = ("int", "-1 (unpolarised) to 7")
    inputs = {**_BOSON, "helicity": helicity, "variation": _VARIATION}
    return correction("angular", "Angular coefficients", inputs, category("variation", content))


def angular_coefficients() -> Float64:
    """Return the nominal coefficients by charge, helicity, |y| and qT bin, shape (3, 9, 10, 12).

    Chosen to be like Pythia's: A4 of a W rises with |y|, as the quark's direction is known better; A0 to A3 with qT;
    A5 to A7 are small.
    """
    y, qt = np.meshgrid(_centers(ANGULAR_Y_EDGES), _centers(ANGULAR_QT_EDGES), indexing="ij")
    hardness = qt**2 / (qt**2 + W_MASS**2)
    known = 1 - np.exp(-((y / 2.7) ** 1.8))  # how often the boson goes the way of the quark
    coefficients = np.zeros((3, 9, *y.shape))
    for row, charge in zip(coefficients, CHARGES, strict=True):
        forward = 0.1 if charge == 0 else 1.95
        row[0] = 1.0
        row[1] = row[3] = 0.8 * hardness
        row[2] = 0.3 * hardness * known
        row[4] = forward * 0.2 * hardness * known
        row[5] = forward * (1 - 0.5 * hardness) * known
        row[6:] = np.array([0.004, 0.004, 0.003])[:, None, None] * hardness
    return coefficients


def _varied(terms: Float64, variation: str) -> Float64:
    """Return the coefficients (9, y, qt) of one boson: the scales bend each in qT, up more than down."""
    qt = _centers(ANGULAR_QT_EDGES)
    size = {"nominal": 0.0, "scaleUp": 0.03, "scaleDown": -0.02, "showerUp": 0.01, "showerDown": -0.01}[
        variation
    ]
    result = terms.copy()
    result[1:] += size * (0.5 * terms[1:] + 0.1 * qt / (qt + 20.0))
    return result


def electroweak() -> dict[str, Any]:
    """Return weights in mass and radiated share; nominal is 1, the variations are corrections of the next order."""
    mass, radiated = np.meshgrid(_centers(EW_MASS_EDGES), _centers(RADIATED_EDGES), indexing="ij")
    content = {
        variation: category(
            "charge",
            {
                q: table(
                    {"mass": EW_MASS_EDGES, "radiated": RADIATED_EDGES},
                    1 + (bend if q or variation != "ewVirtualCorr2" else 0 * bend),
                )
                for q in CHARGES
            },
        )
        for variation, bend in _electroweak_bends(mass, radiated).items()
    }
    inputs = {
        "mass": ("real", "mass of the lepton pair before radiation (GeV)"),
        "charge": _BOSON["charge"],
        "radiated": ("real", "1 - mass after over mass before radiation"),
        "variation": _VARIATION,
    }
    return correction("ew", "Electroweak corrections over Pythia", inputs, category("variation", content))


def _electroweak_bends(mass: Float64, radiated: Float64) -> dict[str, Float64]:
    """Return what each variation adds to 1; what radiates more keeps the number of events, about."""
    off = np.tanh((mass - W_MASS) / 10.0)
    hard = np.sqrt(radiated)
    return {
        "nominal": 0 * mass,
        "ewISRCorr0": 0.001 * off,
        "ewISRCorr1": 0.0005 * off**2,
        "ewFSRCorr0": 0.02 * (hard - 0.05),
        "ewFSRCorr1": 0.01 * (radiated - 0.01),
        "ewVirtualCorr0": 0.002 * off,
        "ewVirtualCorr1": 0.001 * np.exp(-(((mass - W_MASS) / 5.0) ** 2)),
        "ewVirtualCorr2": 0.001 * off * (mass > W_MASS),
    }


def _centers(edges: Any) -> Float64:
    edges = np.asarray(edges, np.float64)
    result: Float64 = (edges[:-1] + edges[1:]) / 2
    return result
