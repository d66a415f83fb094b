"""The layout of our files: which branch is rounded how, and the order of branches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from binworks.samples.arrays import Array, Column, Jagged, rounded

FULL = 23
DEFAULT_BITS = 12
BITS = {
    "Muon_pt": FULL,
    **{f"Muon_{refit}{name}": FULL for refit in ("cvh", "cvhideal") for name in ("Pt", "Eta", "Phi")},
    "Muon_cvhJacRef_Vals": FULL,
    "GenPart_pt": 16,
    "GenPart_eta": 16,
    "GenPart_phi": 16,
    "GenPart_mass": 18,
    "LHEPart_pt": 16,
    "LHEPart_eta": 16,
    "LHEPart_phi": 16,
    "MEParamWeight": 14,
    "MEParamWeightAltSet4": 18,
    "genWeight": FULL,
}
"""Mantissa bits where they are not the default; the scale of muons is known to 1e-5, that of MET is not."""


def branch_name(collection: str, field: str) -> str:
    """Return the branch of a collection's field, or of a list, whose field has no name."""
    return f"{collection}_{field}" if field else collection


def stored(branches: Mapping[str, Column]) -> dict[str, Column]:
    """Return the branches in their stored types, in the order of names: float32 rounded, integers and booleans."""
    return {name: _stored(name, branches[name]) for name in sorted(branches)}


def _stored(name: str, column: Column) -> Column:
    if isinstance(column, Jagged):
        fields = {field: _content(branch_name(name, field), column[field]) for field in sorted(column.fields)}
        return Jagged(column.counts, fields)
    return _content(name, column)


def _content(name: str, values: Array) -> Array:
    if values.dtype.kind != "f":
        return values
    bits = BITS.get(name, DEFAULT_BITS)
    return values.astype(np.float32) if bits == FULL else rounded(values, bits)
