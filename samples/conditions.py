"""Beam conditions: pile-up and vertices, each with its profile in data and in simulation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from binworks.samples.arrays import Array, Float64
from binworks.samples.truth import Profile

PILEUP_EDGES = np.arange(101.0)
_VERTEX_RESOLUTION = 0.002
_BEAM_SPOT = ((0.065, 0.0015), (0.09, 0.0015))
_RECONSTRUCTED = 0.72


@dataclass(frozen=True)
class Conditions:
    """n crossings: true number of interactions, good vertices, generated and measured vertex (cm), shape (n, 3)."""

    n_true: Float64
    n_vertices: Array
    generated: Float64
    measured: Float64


def pileup_profile(profile: Profile) -> Float64:
    """Return the probability of each unit bin in the true number of interactions, a gamma distribution's."""
    centers = (PILEUP_EDGES[:-1] + PILEUP_EDGES[1:]) / 2
    scale = profile.width**2 / profile.mean
    shape = profile.mean / scale
    log_density = (shape - 1) * np.log(centers) - centers / scale
    density = np.exp(log_density - log_density.max())
    result: Float64 = density / density.sum()
    return result


def draw_conditions(n: int, pileup: Profile, vertex: Profile, rng: np.random.Generator) -> Conditions:
    """Draw n crossings."""
    below = np.cumsum(pileup_profile(pileup))
    bins = np.minimum(np.searchsorted(below, rng.random(n), side="right"), len(below) - 1)
    n_true = bins + rng.random(n)
    generated = np.stack(
        [rng.normal(mean, width, n) for mean, width in (*_BEAM_SPOT, (vertex.mean, vertex.width))], axis=1
    )
    measured = generated + _VERTEX_RESOLUTION * rng.standard_normal((n, 3))
    n_vertices = 1 + rng.poisson(_RECONSTRUCTED * n_true).astype(np.int32)
    return Conditions(n_true, n_vertices, generated, measured)
