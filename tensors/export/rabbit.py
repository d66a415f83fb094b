"""The HDF5 file that ``rabbit_fit`` reads, dense: log-normal, by bin, process and parameter.

Read by rabbit-fit 0.2.5: ``rabbit_fit tensor.hdf5 -o out -t 0 --unblind --doImpacts``. The free mass is the parameter
of interest, in units of its templates. `binworks.tensors.export.rabbit_sparse` writes the same for its sparse form.

Most of a large tensor is zero. It is stored in chunks: one of zeros alone is left out, one of few numbers is
compressed by gzip, and one full of numbers, which nothing compresses, is stored as it is. Every HDF5 reads all three.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from binworks.tensors.export import rabbit_file
from binworks.tensors.export.rabbit_file import FLOAT, MEDIA_TYPE, SUFFIX
from binworks.tensors.fitinput import FitInput
from binworks.tensors.histogram import Float64

__all__ = ["MEDIA_TYPE", "SUFFIX", "write"]

CHUNK_BINS, CHUNK_PARAMETERS = 64, 256
FULL = 0.4
"""Part of a chunk that is not zero from which on compression gains too little."""
UNCOMPRESSED = 1
"""Tells HDF5 that the first filter of a data set, here the only one, was left out for a chunk."""


def write(fit: FitInput, path: Path) -> None:
    """Write the file.

    Raises
    ------
    RequestError
        See `rabbit_file.created`.
    """
    norm = rabbit_file.expected(fit)
    parameters, halves = len(fit.parameters), () if fit.symmetric else (2,)
    with rabbit_file.created(fit, path) as file:
        file["hnorm"] = norm.astype(FLOAT)
        chunks = (min(CHUNK_BINS, len(norm)), 1, *(1 for _ in halves), min(CHUNK_PARAMETERS, parameters))
        shape = (*norm.shape, *halves, parameters)
        logk = file.create_dataset(
            "hlogk", shape, FLOAT, chunks=chunks, compression="gzip", compression_opts=1
        )
        for first, process, slab in rabbit_file.slabs(fit):
            for rows, half, columns, window in _windows(slab, first, chunks[0], chunks[-1]):
                half_of_file = (half,) if halves else ()
                _write_window(logk, rows, (process, *half_of_file), columns, window)


def _windows(
    slab: Float64, first: int, bins: int, parameters: int
) -> Iterator[tuple[range, int, range, Float64]]:
    """Yield the parts of a slab that are not all zero, cut where the chunks of the file end: rows, half, columns."""
    last = first + len(slab)
    for row, half in product(range(first // bins * bins, last, bins), range(slab.shape[1])):
        rows = range(max(row, first), min(row + bins, last))
        for column in range(0, slab.shape[2], parameters):
            columns = range(column, min(column + parameters, slab.shape[2]))
            window = slab[rows.start - first : rows.stop - first, half, columns.start : columns.stop]
            if window.any():
                yield rows, half, columns, window


def _write_window(logk: Any, rows: range, between: tuple[int, ...], columns: range, window: Float64) -> None:
    """Write a part of a chunk; past the filters of HDF5, which compress all or nothing, if it is a whole one."""
    chunk = np.zeros((logk.chunks[0], logk.chunks[-1]), FLOAT)
    if rows.start % len(chunk) or len(rows) < min(len(chunk), logk.shape[0] - rows.start):
        logk[(slice(rows.start, rows.stop), *between, slice(columns.start, columns.stop))] = window
        return
    chunk[: len(rows), : len(columns)] = window
    place = (rows.start, *between, columns.start)
    if np.count_nonzero(chunk) < FULL * chunk.size:
        logk.id.write_direct_chunk(place, zlib.compress(chunk.tobytes(), 1))
    else:
        logk.id.write_direct_chunk(place, chunk.tobytes(), UNCOMPRESSED)
