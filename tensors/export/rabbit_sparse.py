"""The HDF5 file that ``rabbit_fit`` reads, sparse: only what is not zero, so an efficiency takes its own bins only.

``hnorm_sparse`` holds the expected events by (bin, process), and ``hlogk_sparse`` the logarithms by (position in the
former, parameter): both as ``indices``, ``values`` and ``dense_shape``, in rising order. Of a parameter with different
templates up and down the half of the sum of their logarithms stands behind all parameters. All else is as in the dense
form, `binworks.tensors.export.rabbit`, and so are the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from binworks.tensors.expansion import Int64
from binworks.tensors.export import rabbit_file
from binworks.tensors.export.rabbit_file import FLOAT, INTEGER, MEDIA_TYPE, SUFFIX
from binworks.tensors.fitinput import FitInput
from binworks.tensors.histogram import Float64

__all__ = ["MEDIA_TYPE", "SUFFIX", "write"]

BINS_AT_ONCE = 64
CHUNK = 65_536
"""Entries of a compressed piece of the indices."""


def write(fit: FitInput, path: Path) -> None:
    """Write the file.

    Raises
    ------
    RequestError
        See `rabbit_file.created`.
    """
    norm = rabbit_file.expected(fit)
    with rabbit_file.created(fit, path) as file:
        where = np.argwhere(norm)
        held = _create(file, "hnorm_sparse", norm.shape, len(where))
        held.append(where, norm[tuple(where.T)])
        rows = [_Rows.of(first, process, slab) for first, process, slab in rabbit_file.slabs(fit)]
        columns = len(fit.parameters) * (1 if fit.symmetric else 2)
        held = _create(file, "hlogk_sparse", (len(where), columns), sum(len(part.values) for part in rows))
        for indices, values in _merged(rows, norm):
            held.append(indices, values)


@dataclass(frozen=True)
class _Rows:
    """What is not zero of a process of a channel: of bin ``first + i`` the columns and values from ``starts[i]``."""

    first: int
    process: int
    starts: Int64
    columns: np.typing.NDArray[np.int32]
    values: Float64

    @classmethod
    def of(cls, first: int, process: int, slab: Float64) -> _Rows:
        flat = slab.reshape(len(slab), -1)
        columns = [np.flatnonzero(row) for row in flat]
        starts = np.cumsum([0, *(len(row) for row in columns)])
        values = np.concatenate([row[chosen] for row, chosen in zip(flat, columns, strict=True)])
        return cls(first, process, starts, np.concatenate(columns).astype(np.int32), values)

    def row(self, number: int) -> slice:
        return slice(self.starts[number - self.first], self.starts[number - self.first + 1])


def _merged(rows: list[_Rows], norm: Float64) -> Iterator[tuple[Int64, Float64]]:
    """Yield indices and values of some bins at a time, by bin, process and column."""
    position = np.cumsum(norm != 0).reshape(norm.shape) - 1
    in_order = sorted(rows, key=lambda part: part.process)
    for start in range(0, len(norm), BINS_AT_ONCE):
        pieces = [
            (position[number, part.process], part.columns[part.row(number)], part.values[part.row(number)])
            for number in range(start, min(start + BINS_AT_ONCE, len(norm)))
            for part in in_order
            if part.first <= number < part.first + len(part.starts) - 1
        ]
        if pieces:
            first = np.repeat([piece[0] for piece in pieces], [len(piece[1]) for piece in pieces])
            second = np.concatenate([piece[1] for piece in pieces])
            yield np.stack([first, second], axis=1), np.concatenate([piece[2] for piece in pieces])


@dataclass
class _Held:
    """Indices and values in a file, filled from the front."""

    indices: Any
    values: Any
    filled: int = 0

    def append(self, indices: Int64, values: Float64) -> None:
        stop = self.filled + len(values)
        if stop > self.filled:
            self.indices[self.filled : stop] = indices
            self.values[self.filled : stop] = values
        self.filled = stop


def _create(file: Any, name: str, shape: tuple[int, ...], count: int) -> _Held:
    """Return a sparse array of so many entries; the indices, in order, take hardly any space when compressed."""
    group = rabbit_file.new_group(file, name)
    group.attrs["dense_shape"] = np.array(shape, INTEGER)
    packed = {"chunks": (min(count, CHUNK), 2), "compression": "gzip", "compression_opts": 1, "shuffle": True}
    indices = group.create_dataset("indices", (count, 2), INTEGER, **(packed if count else {}))
    return _Held(indices, group.create_dataset("values", (count,), FLOAT))
