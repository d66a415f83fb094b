"""Vertex weight: data over simulation in the vertex position along the beam, by the true number of interactions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from binworks.corrections.sets import CorrectionSet
from binworks.corrections.tables import load_binned
from binworks.tensors.errors import PayloadError
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import clamped_bin

NAME = "vertex"
INPUTS = ("z", "nTrueInt")


class Vertex(NamedTuple):
    """What the kernel needs: edges in z (cm) and in nTrueInt, and the weights of shape (z, nTrueInt)."""

    z_edges: Float64
    n_edges: Float64
    weights: Float64


def load(corrections: CorrectionSet) -> Vertex:
    """Return the weights.

    Raises
    ------
    PayloadError
        If the payload is wrong, an input is not binned, or a weight is below zero.
    """
    table = load_binned(corrections, NAME, INPUTS)
    where = f"{corrections.name}/{NAME}"
    if (table.values < 0).any():
        raise PayloadError("A weight is negative.", code="bad-payload", where=where)
    return Vertex(table.axes["z"], table.axes["nTrueInt"], table.values)


def identity() -> Vertex:
    """Return weights that are 1 everywhere."""
    return Vertex(np.array([-20.0, 20.0]), np.array([0.0, 200.0]), np.ones((1, 1)))


@kernel
def weight(z: float, n_true: float, table: Any) -> float:
    """Return the weight at z (cm), outside the table that of the nearest bin; not a number if z or n_true is none."""
    if not (np.isfinite(z) and np.isfinite(n_true)):
        return np.nan
    i = clamped_bin(np.float64(z), table.z_edges)
    return float(table.weights[i, clamped_bin(np.float64(n_true), table.n_edges)])
