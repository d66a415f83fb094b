"""Pile-up weight: data over simulation in the true number of interactions, capped at 5."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from binworks.corrections.sets import CorrectionSet
from binworks.corrections.tables import load_table
from binworks.tensors.errors import PayloadError
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import clamped_bin

NAME = "pileup"
LARGEST_WEIGHT = 5.0
VARIATIONS = ("nominal", "up", "down")


class Pileup(NamedTuple):
    """What the kernel needs: edges in nTrueInt and weights of shape (bins, 3) for nominal, up, down."""

    edges: Float64
    weights: Float64


def load(corrections: CorrectionSet) -> Pileup:
    """Return the weights, capped.

    Raises
    ------
    PayloadError
        If the payload is wrong, lacks a variation, or has a weight below zero.
    """
    table = load_table(corrections, NAME, ("nTrueInt", "variation"), {"variation": "nominal"})
    where = f"{corrections.name}/{NAME}"
    if set(table.axes["variation"]) != set(VARIATIONS):
        raise PayloadError(
            f"Expected the variations {VARIATIONS}, got {table.axes['variation']}.",
            code="wrong-axes",
            where=where,
        )
    if (table.values < 0).any():
        raise PayloadError("A weight is negative.", code="bad-payload", where=where)
    order = [table.axes["variation"].index(name) for name in VARIATIONS]
    weights = np.ascontiguousarray(np.minimum(table.values[:, order], LARGEST_WEIGHT))
    return Pileup(table.axes["nTrueInt"], weights)


def identity() -> Pileup:
    """Return weights that are 1 everywhere."""
    return Pileup(np.array([0.0, 200.0]), np.ones((1, 3)))


@kernel
def pileup_bin(n_true: float, pileup: Any) -> int:
    """Return the row of the weights; the first or last one outside the table, -1 if not a number."""
    return clamped_bin(n_true, pileup.edges)
