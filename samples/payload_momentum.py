"""Payloads of the muon momentum: scale, its closure on the Z, resolution, response and the helix fit's parameters."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np

from binworks.samples.arrays import Float64
from binworks.samples.documents import fluctuated, numbers, stream
from binworks.samples.momentum import relative_width
from binworks.samples.truth import ETA_EDGES, Resolution, Truth

GEN_PT_EDGES = (10, 15, 20, 24, 26, 28, 30, 32, 34, 36, 38, 40, 42, 44, 46, 48, 52, 58, 70, 90, 150)
SCORES = np.linspace(-4.0, 4.0, 21)
"""Where the response has its quantiles, in widths of a Gaussian."""
_Z_MASS_UNCERTAINTY = 2.1e-3 / 91.1876


def momentum_scale(truth: Truth) -> dict[str, Any]:
    """Return what undoes the data's distortion, up to the calibration's uncertainty."""
    covariance = momentum_scale_covariance()
    central = np.zeros(144)
    if truth.has("momentum_scale"):
        scale = truth.momentum_scale
        exact = np.concatenate([scale.A, scale.e, scale.M])
        central = fluctuated(exact, covariance, stream(truth, "momentum_scale"))
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


def z_closure() -> dict[str, Any]:
    """Return how well the scale closes on the Z: A and M by bin; the energy loss is the J/psi's matter."""
    eta = np.abs((ETA_EDGES[:-1:2] + ETA_EDGES[2::2]) / 2)
    covariance = np.zeros((72, 72))
    for first, size in ((0, 2e-5), (48, 8e-7)):
        bins = np.arange(first, first + 24)
        covariance[bins, bins] = (size * (1 + (eta / 2.4) ** 2)) ** 2
    return {
        "schema": "binworks.z_closure/1",
        "eta_edges": ETA_EDGES[::2].tolist(),
        "covariance": covariance.tolist(),
        "mz_shift": _Z_MASS_UNCERTAINTY,
    }


def resolution(truth: Truth) -> dict[str, Any]:
    """Return the widths of data and simulation; those of data up to their uncertainty."""
    simulated, covariance = truth.resolution["mc"], resolution_covariance(truth)
    data = {name: list(getattr(simulated, name)) for name in "abcd"}
    if truth.has("resolution"):
        wider = truth.resolution["data"]
        squares = np.concatenate([np.square(wider.a), np.square(wider.c), np.square(wider.b)])
        found = fluctuated(squares, covariance, stream(truth, "resolution"))
        a, c, b = (part.tolist() for part in np.split(np.sqrt(found), 3))
        data = {"a": a, "b": b, "c": c, "d": list(wider.d)}
    return {
        "schema": "binworks.resolution/2",
        "eta_edges": ETA_EDGES[::2].tolist(),
        "data": data,
        "mc": {name: list(getattr(simulated, name)) for name in "abcd"},
        "covariance": covariance.tolist(),
    }


def resolution_covariance(truth: Truth) -> Float64:
    """Return the 72 x 72 covariance of the squares a^2, c^2, b^2 of data: percents, a^2 and c^2 anticorrelated."""
    data = truth.resolution["data"]
    widths = [
        share * np.square(values) for share, values in ((0.015, data.a), (0.03, data.c), (0.03, data.b))
    ]
    covariance, bins = np.zeros((3, 24, 3, 24)), np.arange(24)
    for i, width in enumerate(widths):
        covariance[i, bins, i, bins] = width**2
    covariance[0, bins, 1, bins] = covariance[1, bins, 0, bins] = -0.5 * widths[0] * widths[1]
    return covariance.reshape(72, 72)


def response(resolution_document: dict[str, Any]) -> dict[str, Any]:
    """Return the quantiles of r = (q/p)_reco / (q/p)_gen of simulation once it is smeared to the width of data.

    The detector's r is Gaussian, of the relative width at the generated pT: so the quantiles are known.
    """
    edges = np.array(GEN_PT_EDGES, float)
    inside = edges[:-1, None] + np.diff(edges)[:, None] * np.linspace(0.1, 0.9, 5)
    k, eta_bin = np.meshgrid(1 / inside.ravel(), 2 * np.arange(24), indexing="ij")
    widths = [
        relative_width(k.ravel(), eta_bin.ravel(), Resolution.model_validate(resolution_document[kind]))
        for kind in ("data", "mc")
    ]
    squares = np.square(np.maximum(*widths)).reshape(len(edges) - 1, 5, 24)
    width = np.sqrt(squares.mean(axis=1))
    quantiles = 1 + width[:, :, None] * SCORES
    return {
        "schema": "binworks.response/1",
        "gen_pt_edges": edges.tolist(),
        "gen_eta_edges": ETA_EDGES[::2].tolist(),
        "charges": [-1, 1],
        "probabilities": [NormalDist().cdf(score) for score in SCORES.tolist()],
        "quantiles": numbers(np.repeat(quantiles[:, :, None], 2, axis=2)),
    }


def cvh(truth: Truth) -> dict[str, Any]:
    """Return the global parameters of the helix fit; simulation is fitted with those it was made with."""
    return {"schema": "binworks.cvh/1", "data": list(truth.cvh), "mc": [0.0] * len(truth.cvh)}
