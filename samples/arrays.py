"""Columns of events: flat arrays, blocks of shape (events, weights), and jagged collections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Jagged:
    """A collection with a varying number of members an event.

    Parameters
    ----------
    counts : array of int64, shape (events,)
        Members of each event.
    fields : mapping of str to array
        Contents, each of shape (sum of counts,). One field without a name makes a list of numbers.
    """

    counts: Int64
    fields: Mapping[str, Array]

    def __getitem__(self, name: str) -> Array:
        return self.fields[name]

    @property
    def offsets(self) -> Int64:
        """Where each event's members begin; shape (events + 1,)."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.counts)])

    @property
    def event(self) -> Int64:
        """The event of each member."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def take(self, index: Int64) -> Jagged:
        """Return the events of that index, in its order."""
        counts = self.counts[index]
        places = np.arange(counts.sum()) + np.repeat(
            self.offsets[index] - (np.cumsum(counts) - counts), counts
        )
        return Jagged(counts, {name: content[places] for name, content in self.fields.items()})

    def replace(self, **fields: Array) -> Jagged:
        """Return a copy with other contents for some fields."""
        return Jagged(self.counts, {**self.fields, **fields})


Column = Array | Jagged
Table = Mapping[str, Column]


def group_by_event(event: Int64, size: int, fields: Mapping[str, Array], *, descending: str) -> Jagged:
    """Return a collection from members in any order, sorted within each event by a field, largest first."""
    order = np.lexsort((-fields[descending], event))
    counts = np.bincount(event, minlength=size).astype(np.int64)
    return Jagged(counts, {name: content[order] for name, content in fields.items()})


def take_column(column: Column, index: Int64) -> Column:
    """Return the events of that index, in its order."""
    return column.take(index) if isinstance(column, Jagged) else column[index]


def concatenate(columns: list[Column]) -> Column:
    """Return the events of all columns, one after the other."""
    if isinstance(columns[0], Jagged):
        parts = [column for column in columns if isinstance(column, Jagged)]
        fields = {name: np.concatenate([part[name] for part in parts]) for name in parts[0].fields}
        return Jagged(np.concatenate([part.counts for part in parts]), fields)
    return np.concatenate([np.asarray(column) for column in columns])


def rounded(values: Array, bits: int) -> NDArray[np.float32]:
    """Return float32 with the mantissa rounded to that many bits, as NanoAOD does so that it compresses."""
    drop = 23 - bits
    half = np.uint32((1 << (drop - 1)) - 1)
    pattern = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    kept_bit = (pattern >> np.uint32(drop)) & np.uint32(1)
    return ((pattern + half + kept_bit) & np.uint32(0xFFFFFFFF ^ ((1 << drop) - 1))).view(np.float32)
