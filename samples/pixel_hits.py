"""Hits of a track in the pixel detector."""

from __future__ import annotations

import numpy as np

from binworks.samples.arrays import Array, Float64, Int64
from binworks.samples.truth import MOST_HITS, PixelHits


def hit_shares(truth: PixelHits) -> Float64:
    """Return the probability of 1 to 6 hits by eta bin, shape (48, 6)."""
    hits = np.arange(1, MOST_HITS + 1)
    density = np.exp(-(((hits - np.asarray(truth.mean)[:, None]) / truth.width) ** 2) / 2)
    result: Float64 = density / density.sum(axis=1, keepdims=True)
    return result


class PixelHitCounts:
    """Draws numbers of hits."""

    def __init__(self, truth: PixelHits) -> None:
        self._below = np.cumsum(hit_shares(truth), axis=1)[:, :-1]

    def draw(self, eta_bin: Int64, rng: np.random.Generator) -> Array:
        """Return a number of hits for each track."""
        uniform = rng.random(len(eta_bin))
        result: Array = 1 + (uniform[:, None] > self._below[eta_bin]).sum(axis=1, dtype=np.int32)
        return result
