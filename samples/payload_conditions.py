"""Payloads of what is not the muon's momentum or efficiency: pile-up, vertex, prefire, pixel hits."""

from __future__ import annotations

from math import erf, sqrt
from typing import Any

import numpy as np

from binworks.samples.arrays import Float64
from binworks.samples.conditions import PILEUP_EDGES, pileup_profile
from binworks.samples.documents import category, correction, numbers, stream, table
from binworks.samples.pixel_hits import hit_shares
from binworks.samples.prefire import HOT_SPOT
from binworks.samples.truth import ETA_EDGES, MOST_HITS, Profile, Truth

MINIMUM_BIAS_UNCERTAINTY = 0.046
PREFIRE_UNCERTAINTY, PREFIRE_SYSTEMATIC = 0.08, 0.11
"""Relative: of each plateau, and common to all."""
Z_EDGES = np.round(np.linspace(-15, 15, 121), 10)
_VERTEX_PILEUP_EDGES = (0.0, 20.0, 30.0, 100.0)
_LARGEST_WEIGHT = 5.0
_RARE = 1e-9


def pileup(truth: Truth) -> dict[str, Any]:
    """Return data over simulation in the true number of interactions."""
    simulated = pileup_profile(truth.pileup["mc"])
    data = truth.pileup[truth.kind("pileup", is_data=True)]
    factors = {"nominal": 1.0, "up": 1 + MINIMUM_BIAS_UNCERTAINTY, "down": 1 - MINIMUM_BIAS_UNCERTAINTY}
    content = {
        name: table({"nTrueInt": PILEUP_EDGES}, _ratio(pileup_profile(_scaled(data, factor)), simulated))
        for name, factor in factors.items()
    }
    inputs = {
        "nTrueInt": ("real", "true number of interactions"),
        "variation": ("string", "nominal, up or down: of the minimum-bias cross section"),
    }
    return correction("pileup", "Data over simulation", inputs, category("variation", content))


def vertex(truth: Truth) -> dict[str, Any]:
    """Return data over simulation in the vertex's position; it does not depend on the pile-up."""
    profiles = [truth.vertex[kind] for kind in (truth.kind("vertex", is_data=True), "mc")]
    weights = np.minimum(np.divide(*(_shares(profile) for profile in profiles)), _LARGEST_WEIGHT)
    axes = {"z": Z_EDGES, "nTrueInt": _VERTEX_PILEUP_EDGES}
    content = np.repeat(weights[:, None], len(_VERTEX_PILEUP_EDGES) - 1, axis=1)
    inputs = {
        "z": ("real", "generated vertex along the beam (cm)"),
        "nTrueInt": ("real", "true number of interactions"),
    }
    return correction("vertex", "Data over simulation", inputs, table(axes, content))


def prefire(truth: Truth) -> dict[str, Any]:
    """Return the probability that a muon makes data lose the event, up to its uncertainty; 0 without the effect."""
    source, bins = truth.prefire, len(truth.prefire.plateau)
    pulls = PREFIRE_UNCERTAINTY * stream(truth, "prefire").standard_normal(bins + 1)
    plateau = np.array([*source.plateau, source.hot_spot]) * (1 + pulls) * truth.has("prefire")
    shape = {"middle": source.middle, "slope": source.slope, "uncertainty": PREFIRE_UNCERTAINTY}
    eta, phi = HOT_SPOT
    return {
        "schema": "binworks.prefire/1",
        "eta_edges": list(source.edges),
        "plateau": numbers(plateau[:-1]),
        **{name: [value] * bins for name, value in shape.items()},
        "hot_spot": {"eta": list(eta), "phi": list(phi), "plateau": numbers(plateau[-1]), **shape},
        "systematic": PREFIRE_SYSTEMATIC,
    }


def pixel_hits(truth: Truth) -> dict[str, Any]:
    """Return data over simulation in the number of hits, which is the uncertainty, whatever the effects are."""
    ratio = hit_shares(truth.pixel_hits["data"]) / hit_shares(truth.pixel_hits["mc"])
    axes = {"eta": ETA_EDGES, "hits": np.arange(MOST_HITS + 1) + 0.5}
    inputs = {"eta": ("real", "of the muon"), "hits": ("real", "valid hits in the pixel detector")}
    return correction("pixel_hits", "Data over simulation", inputs, table(axes, ratio))


def _shares(profile: Profile) -> Float64:
    """Return the Gaussian's share of each bin of the vertex's position; whatever lies beyond in the outermost."""
    below = [(1 + erf((z - profile.mean) / (sqrt(2) * profile.width))) / 2 for z in Z_EDGES[1:-1]]
    return np.diff(np.array([0.0, *below, 1.0]))


def _scaled(profile: Profile, factor: float) -> Profile:
    return Profile(mean=factor * profile.mean, width=factor * profile.width)


def _ratio(data: Float64, simulated: Float64) -> Float64:
    common = simulated > _RARE
    weights = np.divide(data, simulated, out=np.ones_like(data), where=common)
    return np.minimum(weights, _LARGEST_WEIGHT)
