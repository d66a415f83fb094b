"""Random payloads of muon momentum and recoil: every value allowed, none of them zero."""

from __future__ import annotations

from typing import Any

import numpy as np

ETA_24 = np.round(np.linspace(-2.4, 2.4, 25), 10)
RESPONSE_SCORES = np.linspace(-3.2, 3.2, 21)
RECOIL_SCORES = np.linspace(-2.6, 2.6, 15)
CVH_PARAMETERS = 40


def documents(rng: np.random.Generator) -> dict[str, tuple[str, Any]]:
    """Return name -> (kind, document)."""
    return {
        "resolution": ("resolution", resolution_document(rng)),
        "response": ("response", response_document(rng)),
        "cvh": ("cvh", cvh_document(rng)),
        "z_closure": ("z_closure", z_closure_document(rng)),
        "recoil": ("recoil", recoil_document(rng)),
    }


def resolution_document(rng: np.random.Generator) -> dict[str, Any]:
    """Return widths of 1 to 2 %, larger in data than in simulation in most eta bins."""

    def widths(stretch: float) -> dict[str, list[float]]:
        typical = {"a": 0.008, "b": 0.005, "c": 1e-4, "d": 20.0}
        return {p: (stretch * value * rng.uniform(0.9, 1.1, 24)).tolist() for p, value in typical.items()}

    sizes = np.repeat([5e-6, 1e-9, 3e-6], 24)  # of a^2, c^2, b^2
    return {
        "schema": "binworks.resolution/2",
        "eta_edges": ETA_24.tolist(),
        "data": widths(1.1),
        "mc": widths(1.0),
        "covariance": (_correlation(rng, 72) * np.outer(sizes, sizes)).tolist(),
    }


def response_document(rng: np.random.Generator) -> dict[str, Any]:
    """Return quantiles of a peak of 1 to 2 % with some skewness and longer tails than a Gaussian."""
    pt_edges, eta_edges = [10.0, 26.0, 35.0, 45.0, 60.0, 150.0], [-2.4, -1.5, -0.5, 0.5, 1.5, 2.4]
    z = RESPONSE_SCORES
    shape = (len(pt_edges) - 1, len(eta_edges) - 1, 2, 1)
    width, skew = rng.uniform(0.01, 0.02, shape), rng.uniform(-0.04, 0.04, shape)
    tail, middle = rng.uniform(0.0, 0.03, shape), rng.normal(1.0, 0.001, shape)
    return {
        "schema": "binworks.response/1",
        "gen_pt_edges": pt_edges,
        "gen_eta_edges": eta_edges,
        "charges": [-1, 1],
        "probabilities": _probabilities(z),
        "quantiles": (middle + width * (z + skew * z**2 + tail * z**3)).tolist(),
    }


def cvh_document(rng: np.random.Generator) -> dict[str, Any]:
    """Return global parameters for jacobians of order one: q/p, lambda and phi move by about 1e-5."""
    return {
        "schema": "binworks.cvh/1",
        "data": rng.normal(0.0, 1e-5, CVH_PARAMETERS).tolist(),
        "mc": rng.normal(0.0, 1e-5, CVH_PARAMETERS).tolist(),
    }


def z_closure_document(rng: np.random.Generator) -> dict[str, Any]:
    """Return the covariance of A and M, with nothing for e between them."""
    sizes = np.repeat([3e-5, 0.0, 1e-6], 24)
    return {
        "schema": "binworks.z_closure/1",
        "eta_edges": ETA_24.tolist(),
        "covariance": (_correlation(rng, 72) * np.outer(sizes, sizes)).tolist(),
        "mz_shift": 2.3e-5,
    }


def recoil_document(rng: np.random.Generator) -> dict[str, Any]:
    """Return two components, the second one conditional on the first; data are shifted and wider than simulation."""
    boson_pt, knots = [2.0, 8.0, 20.0, 60.0], [-1.5, 0.0, 1.5]
    z = RECOIL_SCORES

    def quantiles(middle: Any, *shape: int, width: float) -> Any:
        size = (*shape, 1)
        skewed = z + rng.uniform(-0.05, 0.05, size) * z**2
        return (middle + width * rng.uniform(0.95, 1.05, size) * skewed).tolist()

    along = np.array(boson_pt)[:, None]
    across = rng.normal(0.0, 0.3, (len(boson_pt), len(knots), 1))
    shape = (len(boson_pt), len(knots))
    return {
        "schema": "binworks.recoil/1",
        "boson_pt": boson_pt,
        "probabilities": _probabilities(z),
        "components": [
            {
                "name": "parallel",
                "given": [],
                "data": quantiles(-0.90 * along, len(boson_pt), width=9.0),
                "mc": quantiles(-0.92 * along, len(boson_pt), width=8.5),
            },
            {
                "name": "perpendicular",
                "given": [knots],
                "data": quantiles(across, *shape, width=8.5),
                "mc": quantiles(across, *shape, width=8.0),
            },
        ],
    }


def _correlation(rng: np.random.Generator, n: int) -> Any:
    root = rng.normal(size=(n, 2 * n))
    covariance = root @ root.T
    sizes = np.sqrt(np.diag(covariance))
    return covariance / np.outer(sizes, sizes)


def _probabilities(scores: Any) -> list[float]:
    """Return the normal distribution function."""
    from scipy.special import ndtr

    return [float(p) for p in ndtr(scores)]
