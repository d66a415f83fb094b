"""The correction set that goes with a truth, as calibrations would have measured it.

Momentum scale and efficiency come with covariances; their central values lie off the truth by one draw from these, so
that a fit that constrains them is neither too sure nor too careful. Pile-up and theory are the truth itself. An effect
in which data do not differ from simulation has the identity.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from binworks.corrections import efficiency, momentum_scale, resolution, sets, tables
from binworks.corrections.sets import CorrectionSet
from binworks.samples.arrays import Float64
from binworks.samples.conditions import PILEUP_EDGES, pileup_profile
from binworks.samples.theory import CHARGES, QT_EDGES, Y_EDGES, nominal_weights, variation_weights
from binworks.samples.truth import ETA_EDGES, Profile, Truth

MINIMUM_BIAS_UNCERTAINTY = 0.046
_KEY = 0xCA11
_LARGEST_WEIGHT = 5.0
_RARE = 1e-9
_HIGHEST_MASS = 14_000.0


def write_corrections(folder: Path, name: str, truth: Truth) -> CorrectionSet:
    """Write the correction set of a truth and return it."""
    rng = np.random.default_rng((_KEY, truth.seed))
    payloads: dict[str, tuple[str, Any]] = {
        "momentum_scale": (momentum_scale.KIND, momentum_scale_document(truth, rng)),
        "resolution": (resolution.KIND, resolution_document(truth)),
        "efficiency_idip": (efficiency.KIND, efficiency_document("idip", truth, rng)),
        "pileup": (tables.KIND, pileup_document(truth)),
        "theory": (tables.KIND, theory_document(truth)),
    }
    return sets.write(folder, name, payloads)


def momentum_scale_document(truth: Truth, rng: np.random.Generator) -> dict[str, Any]:
    """Return the payload: what undoes the data's distortion, up to the calibration's uncertainty."""
    covariance = momentum_scale_covariance()
    central = _fluctuated(np.zeros(144), covariance, rng)
    if truth.has("momentum_scale"):
        scale = truth.momentum_scale
        central = central + np.concatenate([scale.A, scale.e, scale.M])
    none = [0.0] * 48
    return {
        "schema": "binworks.momentum_scale/1",
        "eta_edges": ETA_EDGES.tolist(),
        "data": {name: part.tolist() for name, part in zip("AeM", np.split(central, 3), strict=True)},
        "mc": {"A": none, "e": none, "M": none},
        "covariance": covariance.tolist(),
    }


def momentum_scale_covariance() -> Float64:
    """Return the 144 x 144 covariance of A, e (GeV), M (1/GeV).

    In each eta bin A and e are positively correlated, as the muons of a J/psi measure A - e k at large k; A has a part
    in common, the absolute scale.
    """
    eta = np.abs((ETA_EDGES[:-1] + ETA_EDGES[1:]) / 2)
    widths = [size * (1 + (eta / 2.4) ** 2) for size in (4e-5, 3e-4, 1.5e-6)]
    covariance = np.zeros((3, 48, 3, 48))
    bins = np.arange(48)
    for i, width in enumerate(widths):
        covariance[i, bins, i, bins] = width**2
    covariance[0, bins, 1, bins] = covariance[1, bins, 0, bins] = 0.7 * widths[0] * widths[1]
    covariance[0, :, 0, :] += 2e-5**2
    return covariance.reshape(144, 144)


def resolution_document(truth: Truth) -> dict[str, Any]:
    """Return the payload, without uncertainty."""
    data = truth.resolution[truth.kind("resolution", is_data=True)]
    return {
        "schema": "binworks.resolution/1",
        "eta_edges": ETA_EDGES[::2].tolist(),
        "data": {name: list(getattr(data, name)) for name in "abcd"},
        "mc": {name: list(getattr(truth.resolution["mc"], name)) for name in "abcd"},
    }


def efficiency_document(step: str, truth: Truth, rng: np.random.Generator) -> dict[str, Any]:
    """Return the scale factors of a step, with the covariance of a fit to ten pT bins in each (eta, charge)."""
    source = truth.efficiency[step]
    covariance = _polynomial_covariance()
    central = np.zeros((48, 2, 4))
    central[:, :, 0] = 1.0
    if truth.has(f"efficiency_{step}"):
        central = np.asarray(source.coefficients)
    for block in np.ndindex(48, 2):
        central[block] = _fluctuated(central[block], covariance[block], rng)
    return {
        "schema": "binworks.efficiency/1",
        "step": step,
        "eta_edges": ETA_EDGES.tolist(),
        "charges": [-1, 1],
        "pt_range": list(source.pt_range),
        "coefficients": central.tolist(),
        "covariance": covariance.tolist(),
    }


def pileup_document(truth: Truth) -> dict[str, Any]:
    """Return data over simulation in the true number of interactions, as a correctionlib document."""
    simulated = pileup_profile(truth.pileup["mc"])
    data = truth.pileup[truth.kind("pileup", is_data=True)]
    factors = {"nominal": 1.0, "up": 1 + MINIMUM_BIAS_UNCERTAINTY, "down": 1 - MINIMUM_BIAS_UNCERTAINTY}
    content = {
        name: _binning("nTrueInt", PILEUP_EDGES, _ratio(pileup_profile(_scaled(data, factor)), simulated))
        for name, factor in factors.items()
    }
    inputs = [_input("nTrueInt", "real", "true number of interactions"), _VARIATION]
    return _document("pileup", "Data over simulation", inputs, _category("variation", content))


def theory_document(truth: Truth) -> dict[str, Any]:
    """Return the theory weight and its variations, as a correctionlib document; one bin in mass."""
    nominal = nominal_weights(truth.theory)
    weights = {"nominal": nominal, **variation_weights(truth.theory)}
    if not truth.has("theory"):
        weights = {name: values / nominal for name, values in weights.items()}
    edges = [[0.0, _HIGHEST_MASS], Y_EDGES.tolist(), QT_EDGES.tolist()]
    content = {
        name: _category(
            "charge",
            {
                charge: {
                    "nodetype": "multibinning",
                    "inputs": ["mass", "absy", "qt"],
                    "edges": edges,
                    "content": np.round(values[i], 7).ravel().tolist(),
                    "flow": "clamp",
                }
                for i, charge in enumerate(CHARGES)
            },
        )
        for name, values in weights.items()
    }
    inputs = [
        _input("mass", "real", "mass of the boson (GeV)"),
        _input("absy", "real", "its absolute rapidity"),
        _input("qt", "real", "its transverse momentum (GeV)"),
        _input("charge", "int", "its charge"),
        _VARIATION,
    ]
    return _document("theory", "W and Z production over Pythia", inputs, _category("variation", content))


def _polynomial_covariance() -> Float64:
    """Return the covariance of four coefficients, shape (48, 2, 4, 4)."""
    x = np.linspace(-0.9, 0.9, 10)
    powers = np.vander(x, 4, increasing=True)
    eta = np.abs((ETA_EDGES[:-1] + ETA_EDGES[1:]) / 2)
    error = 0.0015 * (1 + eta / 2.4)
    unit = np.linalg.inv(powers.T @ powers)
    unit = (unit + unit.T) / 2
    return np.broadcast_to(error[:, None, None, None] ** 2 * unit, (48, 2, 4, 4))


def _fluctuated(central: Float64, covariance: Float64, rng: np.random.Generator) -> Float64:
    """Return one draw about the central values."""
    values, vectors = np.linalg.eigh(covariance)
    shift: Float64 = vectors @ (np.sqrt(np.maximum(values, 0.0)) * rng.standard_normal(len(values)))
    return central + shift


def _scaled(profile: Profile, factor: float) -> Profile:
    return Profile(mean=factor * profile.mean, width=factor * profile.width)


def _ratio(data: Float64, simulated: Float64) -> Float64:
    """Return data over simulation, 1 where there is nothing to speak of."""
    common = simulated > _RARE
    ratio = np.divide(data, simulated, out=np.ones_like(data), where=common)
    return np.minimum(ratio, _LARGEST_WEIGHT)


_VARIATION = {"name": "variation", "type": "string", "description": "nominal or a variation's name"}


def _input(name: str, kind: str, description: str) -> dict[str, str]:
    return {"name": name, "type": kind, "description": description}


def _binning(variable: str, edges: Float64, values: Float64) -> dict[str, Any]:
    return {
        "nodetype": "binning",
        "input": variable,
        "edges": edges.tolist(),
        "content": values.tolist(),
        "flow": "clamp",
    }


def _category(variable: str, content: dict[Any, Any]) -> dict[str, Any]:
    pairs = [{"key": key, "value": value} for key, value in content.items()]
    return {"nodetype": "category", "input": variable, "content": pairs}


def _document(
    name: str, description: str, inputs: list[dict[str, str]], data: dict[str, Any]
) -> dict[str, Any]:
    correction = {
        "name": name,
        "description": description,
        "version": 1,
        "inputs": inputs,
        "output": {"name": "weight", "type": "real", "description": "multiplies the event's weight"},
        "data": data,
    }
    return {"schema_version": 2, "description": description, "corrections": [correction]}
