"""Columns straight from the baskets of a TTree: read, decompress, swap bytes, done.

uproot finds out where the baskets lie and how to interpret them, once a file; the bytes of a range then need neither
awkward arrays nor a pass over metadata. Branches of unusual kinds are left to uproot (`describe` returns None).

A basket is a TKey (big-endian), a few members of its own at the end of the key, and compressed blocks of at most 16 MB;
a jagged branch's basket ends in the byte offset of each entry, counted from the start of the key.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import cramjam
import numpy as np
import uproot
from numpy.typing import NDArray

Array = NDArray[Any]
Read = Callable[[int, int], bytes]
"""(position, size) -> bytes of the file."""

_KEY = struct.Struct(">ihiIhh")  # fNbytes, fVersion, fObjlen, fDatime, fKeylen, fCycle
_BASKET = struct.Struct(">HiIiI")  # fVersion, fBufferSize, fNevBufSize, fNevBuf, fLast; then a flag byte
_BLOCK = 9
_LZ4_CHECKSUM = 8


class Jagged(NamedTuple):
    """Content and offsets, shape (entries + 1,), int64, of a jagged branch's range."""

    content: Array
    offsets: NDArray[np.int64]


@dataclass(frozen=True)
class Branch:
    """Where a branch's baskets lie.

    Parameters
    ----------
    dtype : str
        Of the stored numbers, for example ``>f4``.
    jagged : bool
        Whether entries have lengths of their own.
    entries : array, shape (baskets + 1,)
        First entry of each basket, and the end.
    positions, sizes : arrays, shape (baskets,)
        Place of each basket in the file, in bytes.
    """

    dtype: str
    jagged: bool
    entries: NDArray[np.int64]
    positions: NDArray[np.int64]
    sizes: NDArray[np.int64]


def describe(branch: Any) -> Branch | None:
    """Return where a branch's baskets lie; None if only uproot can read it."""
    interpretation = branch.interpretation
    jagged = isinstance(interpretation, uproot.interpretation.jagged.AsJagged)
    inner = interpretation.content if jagged else interpretation
    if type(inner) is not uproot.interpretation.numerical.AsDtype or inner.from_dtype.shape != ():
        return None
    if jagged and interpretation.header_bytes != 0:
        return None
    count = branch.num_baskets
    positions = np.asarray(branch.member("fBasketSeek")[:count], np.int64)
    if branch.embedded_baskets or len(positions) < count or (positions <= 0).any():
        return None
    sizes = np.asarray(branch.member("fBasketBytes")[:count], np.int64)
    return Branch(inner.from_dtype.str, jagged, np.asarray(branch.entry_offsets, np.int64), positions, sizes)


def read_range(branch: Branch, read: Read, start: int, stop: int, dtype: str) -> Array | Jagged | None:
    """Return entries ``start`` to ``stop`` as numbers of that type; None if a basket needs uproot after all."""
    first = int(np.searchsorted(branch.entries, start, side="right")) - 1
    last = int(np.searchsorted(branch.entries, stop, side="left"))
    numbers = range(max(first, 0), last if stop > start else max(first, 0))
    if branch.jagged:
        return _read_jagged(branch, read, numbers, start, stop, dtype)
    out = np.empty(stop - start, dtype)
    for number in numbers:
        data, _ = _basket(read, int(branch.positions[number]), int(branch.sizes[number]))
        begin, end = int(branch.entries[number]), int(branch.entries[number + 1])
        values = np.frombuffer(data, branch.dtype, end - begin)
        low, high = max(begin, start), min(end, stop)
        out[low - start : high - start] = values[low - begin : high - begin]
    return out


def _read_jagged(
    branch: Branch, read: Read, numbers: range, start: int, stop: int, dtype: str
) -> Jagged | None:
    pieces = []
    offsets = np.zeros(stop - start + 1, np.int64)
    total = 0
    size = np.dtype(branch.dtype).itemsize
    for number in numbers:
        data, ends = _basket(read, int(branch.positions[number]), int(branch.sizes[number]))
        if ends is None:
            return None
        begin, end = int(branch.entries[number]), int(branch.entries[number + 1])
        low, high = max(begin, start), min(end, stop)
        bounds = ends[low - begin : high - begin + 1] // size
        pieces.append(np.frombuffer(data, branch.dtype, bounds[-1] - bounds[0], bounds[0] * size))
        offsets[low - start + 1 : high - start + 1] = bounds[1:] - bounds[0] + total
        total += int(bounds[-1] - bounds[0])
    content = np.empty(total, dtype)
    np.concatenate(pieces or [content], out=content, casting="unsafe")
    return Jagged(content, offsets)


def _basket(read: Read, position: int, size: int) -> tuple[Any, NDArray[np.int64] | None]:
    """Return a basket's data and, where it stores them, the byte offsets of its entries, shape (entries + 1,)."""
    raw = read(position, size)
    nbytes, _, length, _, key_length, _ = _KEY.unpack_from(raw)
    _, _, _, entries, last = _BASKET.unpack_from(raw, key_length - _BASKET.size - 1)
    packed = memoryview(raw)[key_length:nbytes]
    data = packed if len(packed) == length else _decompress(packed, length)
    border = last - key_length
    if border == length:
        return data, None
    offsets = np.frombuffer(data, ">i4", entries + 1, border + 4).astype(np.int64) - key_length
    offsets[-1] = border
    return data, offsets


def _decompress(packed: memoryview, length: int) -> Array:
    out = np.empty(length, np.uint8)
    done = 0
    while done < length:
        algorithm = bytes(packed[:2])
        stored, raw = int.from_bytes(packed[3:6], "little"), int.from_bytes(packed[6:9], "little")
        if algorithm not in _ALGORITHMS or raw == 0 or len(packed) < _BLOCK + stored:
            raise ValueError(
                f"a compressed block begins with {algorithm!r} and {stored} of {len(packed)} bytes"
            )
        skip = _BLOCK + (_LZ4_CHECKSUM if algorithm == b"L4" else 0)
        _ALGORITHMS[algorithm](packed[skip : _BLOCK + stored], out[done : done + raw])
        done += raw
        packed = packed[_BLOCK + stored :]
    return out


_ALGORITHMS: Mapping[bytes, Callable[[Any, Any], int]] = {
    b"ZS": cramjam.zstd.decompress_into,
    b"ZL": cramjam.zlib.decompress_into,
    b"L4": cramjam.lz4.decompress_block_into,
    b"XZ": cramjam.xz.decompress_into,
}


class LocalFile:
    """Plain reads of a local file: a file that is cut short raises, where a memory map would kill the process."""

    def __init__(self, path: str) -> None:
        self._handle = os.open(path, os.O_RDONLY)
        self._path = path

    def read(self, position: int, size: int) -> bytes:
        """Return bytes of the file.

        Raises
        ------
        EOFError
            If the file ends before.
        """
        data = os.pread(self._handle, size, position)
        if len(data) < size:
            raise EOFError(f"{self._path} ends at byte {position + len(data)}, expected {position + size}")
        return data

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)
