"""Theory weight of W and Z production: a table in (mass, |y|, qT, charge), last axis nominal and variations."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from binworks.corrections.sets import CorrectionSet
from binworks.corrections.tables import load_table
from binworks.tensors.errors import PayloadError
from binworks.tensors.groups.theory import AVERAGED
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
    """Return the table and the names of its variations; a charge that it does not have gets 1.

    Raises
    ------
    PayloadError
        If the payload is wrong, if a nominal weight is not positive, or if one side of an up/down pair is missing.
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
    names = table.axes["variation"][1:]
    _check_pairs(names, where)
    return Theory(*edges, weights), names


def names_for(theory: Theory, names: Sequence[str], charges: Collection[int]) -> tuple[str, ...]:
    """Return those of the variations that change a weight of a boson of one of the charges.

    Both sides of an up/down pair are kept if one of them does.
    """
    rows = theory.weights[:, :, :, [charge + 1 for charge in charges]]
    changes = (rows[..., 1:] != rows[..., :1]).any(axis=(0, 1, 2, 3))
    kept = {_nuisance(name) for name, changed in zip(names, changes, strict=True) if changed}
    return tuple(name for name in names if _nuisance(name) in kept)


def _nuisance(name: str) -> str:
    return name.removesuffix("Up").removesuffix("Down")


def _check_pairs(names: Sequence[str], where: str) -> None:
    """Refuse an Up without its Down, and a theory nuisance parameter that has no sides: their average is taken."""
    for name in names:
        stem = _nuisance(name)
        if stem == name and not name.startswith(AVERAGED):
            continue
        if missing := {f"{stem}Up", f"{stem}Down"} - set(names):
            raise PayloadError(
                f"There is a variation {name!r} but no {min(missing)!r}.", code="missing-bins", where=where
            )


def identity() -> Theory:
    """Return a table that is 1 everywhere."""
    edge = np.array([0.0, 1e4])
    return Theory(edge, edge, edge, np.ones((1, 1, 1, 3, 1)))


@kernel
def bin_of(mass: float, absy: float, qt: float, charge: int, theory: Any) -> tuple[int, int, int, int]:
    """Return where the weights (1 + variations) of a boson stand; outside the table those of the nearest bin."""
    i = clamped_bin(mass, theory.mass)
    j = clamped_bin(absy, theory.absy)
    k = clamped_bin(qt, theory.qt)
    # a boson that is not a number has no bin: the first one, and the caller counts the event
    return max(i, 0), max(j, 0), max(k, 0), charge + 1
