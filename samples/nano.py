"""The layout of our files: which branch is rounded how, and the order of branches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from binworks.samples.arrays import Array, Column, Jagged, rounded

FULL = 23
DEFAULT_BITS = 12
BITS = {
    "Muon_pt": FULL,
    "GenPart_pt": 16,
    "GenPart_eta": 16,
    "GenPart_phi": 16,
    "GenPart_mass": 18,
    "LHEPart_pt": 16,
    "LHEPart_eta": 16,
    "LHEPart_phi": 16,
    "MEParamWeight": 14,
    "genWeight": FULL,
}
"""Mantissa bits where they are not the default; the scale of muons is known to 1e-5, that of MET is not."""


def stored(branches: Mapping[str, Column]) -> dict[str, Column]:
    """Return the branches in their stored types, in the order of names: float32 rounded, integers and booleans."""
    return {name: _stored(name, branches[name]) for name in sorted(branches)}


def _stored(name: str, column: Column) -> Column:
    if isinstance(column, Jagged):
        fields = {field: _content(f"{name}_{field}", column[field]) for field in sorted(column.fields)}
        return Jagged(column.counts, fields)
    return _content(name, column)


def _content(name: str, values: Array) -> Array:
    if values.dtype.kind != "f":
        return values
    bits = BITS.get(name, DEFAULT_BITS)
    return values.astype(np.float32) if bits == FULL else rounded(values, bits)
