"""Electroweak weight of W and Z production: a table in (mass, charge, radiated), last axis nominal and variations.

The mass is that of the lepton pair before radiation; what was radiated is 1 - (mass after) / (mass before).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from binworks.corrections.sets import CorrectionSet
from binworks.corrections.tables import load_table
from binworks.tensors.errors import PayloadError
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import clamped_bin

NAME = "ew"
INPUTS = ("mass", "charge", "radiated", "variation")


class Electroweak(NamedTuple):
    """What the kernel needs: edges (GeV; no unit) and weights.

    ``weights`` has shape (mass, 3 charges -1, 0, +1, radiated, 1 + variations); the first of the last axis is nominal.
    """

    mass: Float64
    radiated: Float64
    weights: Float64


def load(corrections: CorrectionSet) -> tuple[Electroweak, tuple[str, ...]]:
    """Return the table and the names of its variations; a charge that it does not have gets 1.

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
    shape = table.values.shape
    weights = np.ones((shape[0], 3, *shape[2:]))
    for i, charge in enumerate(charges):
        weights[:, charge + 1] = table.values[:, i]
    return Electroweak(table.axes["mass"], table.axes["radiated"], weights), table.axes["variation"][1:]


def names_for(electroweak: Electroweak, names: Sequence[str], charges: Collection[int]) -> tuple[str, ...]:
    """Return those of the variations that change a weight of a boson of one of the charges."""
    rows = electroweak.weights[:, [charge + 1 for charge in charges]]
    changes = (rows[..., 1:] != rows[..., :1]).any(axis=(0, 1, 2))
    return tuple(name for name, changed in zip(names, changes, strict=True) if changed)


def identity() -> Electroweak:
    """Return a table that is 1 everywhere."""
    return Electroweak(np.array([0.0, 1e4]), np.array([0.0, 1.0]), np.ones((1, 3, 1, 1)))


@kernel
def bin_of(mass: float, charge: int, radiated: float, electroweak: Any) -> tuple[int, int, int]:
    """Return where the weights (1 + variations) of a boson stand; outside the table those of the nearest bin."""
    i = clamped_bin(mass, electroweak.mass)
    j = clamped_bin(radiated, electroweak.radiated)
    # a boson that is not a number has no bin: the first one, and the caller counts the event
    return max(i, 0), charge + 1, max(j, 0)
