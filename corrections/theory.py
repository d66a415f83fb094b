"""Theory weight of W and Z production: a table in (mass, |y|, qT, charge), last axis nominal and variations."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from binworks.corrections.sets import CorrectionSet
from binworks.corrections.tables import load_table
from binworks.tensors.errors import PayloadError
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import clamped_bin

NAME = "theory"
INPUTS = ("mass", "absy", "qt", "charge", "variation")


class Theory(NamedTuple):
    """What the kernel needs: edges (GeV, rapidity, GeV) and weights.

    ``weights`` has shape (mass, absy, qt, 3 charges -1, 0, +1, 1 + variations); the first of the last axis is nominal.
    """

    mass: Float64
    absy: Float64
    qt: Float64
    weights: Float64


def load(corrections: CorrectionSet) -> tuple[Theory, tuple[str, ...]]:
    """Return the table and the names of its variations.

    Raises
    ------
    PayloadError
        If the payload is wrong, or if a nominal weight is not positive.
    """
    table = load_table(corrections, NAME, INPUTS, {"variation": "nominal"})
    where = f"{corrections.name}/{NAME}"
    charges = table.axes["charge"]
    if not set(charges) <= {-1, 0, 1}:
        raise PayloadError(f"Charges must be among -1, 0, 1, got {charges}.", code="wrong-axes", where=where)
    if (table.values[..., 0] <= 0).any():
        raise PayloadError("A nominal weight is not positive.", code="bad-payload", where=where)
    weights = np.ones((*table.values.shape[:3], 3, table.values.shape[4]))
    for i, charge in enumerate(charges):
        weights[:, :, :, charge + 1] = table.values[:, :, :, i]
    edges = (table.axes["mass"], table.axes["absy"], table.axes["qt"])
    return Theory(*edges, weights), table.axes["variation"][1:]


def identity() -> Theory:
    """Return a table that is 1 everywhere."""
    edge = np.array([0.0, 1e4])
    return Theory(edge, edge, edge, np.ones((1, 1, 1, 3, 1)))


@kernel
def theory_row(mass: float, absy: float, qt: float, charge: int, theory: Any) -> Any:
    """Return the weights (1 + variations) of a boson; outside the table those of the nearest bin."""
    i = clamped_bin(mass, theory.mass)
    j = clamped_bin(absy, theory.absy)
    k = clamped_bin(qt, theory.qt)
    # a boson that is not a number has no bin: the first one, and the caller counts the event
    return theory.weights[max(i, 0), max(j, 0), max(k, 0), charge + 1]
