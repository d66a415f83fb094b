"""Pixel hits: the ratio of the varied to the nominal weight of a muon with so many hits at this eta."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from binworks.corrections.sets import CorrectionSet
from binworks.corrections.tables import load_binned
from binworks.tensors.errors import PayloadError
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import clamped_bin

NAME = "pixel_hits"
INPUTS = ("eta", "hits")


class PixelHits(NamedTuple):
    """What the kernel needs: edges in eta and in the number of hits, and the ratios of shape (eta, hits)."""

    eta: Float64
    hits: Float64
    ratios: Float64


def load(corrections: CorrectionSet) -> PixelHits:
    """Return the ratios.

    Raises
    ------
    PayloadError
        If the payload is wrong, an input is not binned, or a ratio is below zero.
    """
    table = load_binned(corrections, NAME, INPUTS)
    where = f"{corrections.name}/{NAME}"
    if (table.values < 0).any():
        raise PayloadError("A ratio is negative.", code="bad-payload", where=where)
    return PixelHits(table.axes["eta"], table.axes["hits"], table.values)


def identity() -> PixelHits:
    """Return ratios that are 1 everywhere."""
    return PixelHits(np.array([-2.4, 2.4]), np.array([0.0, 100.0]), np.ones((1, 1)))


@kernel
def ratio(eta: float, hits: float, table: Any) -> float:
    """Return the ratio, outside the table that of the nearest bin; 1 if the hits are unknown (below 0)."""
    if not hits >= 0:
        return 1.0
    i = clamped_bin(np.float64(eta), table.eta)
    if i < 0:
        return np.nan
    return float(table.ratios[i, clamped_bin(np.float64(hits), table.hits)])
