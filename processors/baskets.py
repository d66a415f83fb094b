"""Columns straight from the baskets of a TTree: read, decompress, swap bytes, done.

uproot finds out where the baskets lie and how to interpret them, once a file (`describe`); the bytes of a range
then need neither awkward arrays nor a pass over metadata. Branches of unusual kinds are left to uproot.

A basket is a TKey (big-endian), a few members of its own at the end of the key, and compressed blocks; a jagged
branch's basket ends in the byte offset of each entry, counted from the start of the key. The code of the pieces is
the type of the stored numbers, for example ``>f4``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import uproot
from numpy.typing import NDArray

from binworks.processors.decoding import entry_offsets
from binworks.processors.fileindex import Branch, Pieces
from binworks.processors.pieces import (
    Bytes,
    DamagedPieceError,
    PieceReader,
    Wanted,
    decompress,
    naming,
)
from binworks.processors.pieces import Jagged as Jagged

Array = NDArray[Any]

_KEY = struct.Struct(">ihiIhh")  # fNbytes, fVersion, fObjlen, fDatime, fKeylen, fCycle
_BASKET = struct.Struct(">HiIiI")  # fVersion, fBufferSize, fNevBufSize, fNevBuf, fLast; then a flag byte
_OFFSET = struct.Struct(">I")


class _Basket(NamedTuple):
    """The bytes of a basket: numbers up to the border, then, if it is jagged, the offsets of its entries."""

    data: Bytes
    border: int
    key_length: int
    entries: int


def describe(branch: Any) -> Branch | None:
    """Return where uproot says that a branch's baskets lie; None if only uproot can read it."""
    interpretation = branch.interpretation
    jagged = isinstance(interpretation, uproot.interpretation.jagged.AsJagged)
    inner = interpretation.content if jagged else interpretation
    if type(inner) is not uproot.interpretation.numerical.AsDtype or inner.from_dtype.shape != ():
        return None
    if jagged and (interpretation.header_bytes != 0 or inner.from_dtype.itemsize not in (1, 2, 4, 8)):
        return None
    count = branch.num_baskets
    positions = np.asarray(branch.member("fBasketSeek")[:count], np.int64)
    if branch.embedded_baskets or len(positions) < count or (positions <= 0).any():
        return None
    sizes = np.asarray(branch.member("fBasketBytes")[:count], np.int64)
    starts = np.asarray(branch.entry_offsets, np.int64)
    return Branch(Pieces(inner.from_dtype.str, starts, positions, sizes), jagged)


def fetch(
    wanted: Mapping[str, Wanted], reader: PieceReader, start: int, stop: int
) -> Iterator[tuple[str, Array | Jagged | None]]:
    """Give entries ``start`` to ``stop`` of branches by name.

    Parameters
    ----------
    wanted : mapping
        Branches by name.
    reader : PieceReader
        Of the file.
    start, stop : int
        Entries.

    Yields
    ------
    name, array or Jagged or None
        None if a jagged branch's baskets store no offsets: uproot knows what to do.

    Raises
    ------
    DamagedPieceError, OSError
        As `PieceReader.read`.
    """
    reader.prepare((branch.content, start, stop) for branch, _ in wanted.values())
    for name, (branch, dtype) in wanted.items():
        with naming(name):
            read = _jagged if branch.jagged else _flat
            value = read(branch.content, reader, start, stop, dtype)
        yield name, value


def _flat(pieces: Pieces, reader: PieceReader, start: int, stop: int, dtype: str) -> Array:
    size = np.dtype(pieces.code).itemsize
    out = np.empty(stop - start, dtype)
    for number in pieces.numbers(start, stop):
        begin, end = int(pieces.starts[number]), int(pieces.starts[number + 1])
        unpack = partial(_unpack, reader=reader, entries=end - begin, size=size)
        values = reader.read(pieces, number, stop, unpack).data.view(pieces.code)
        low, high = max(begin, start), min(end, stop)
        out[low - start : high - start] = values[low - begin : high - begin]
    return out


def _jagged(pieces: Pieces, reader: PieceReader, start: int, stop: int, dtype: str) -> Jagged | None:
    size = np.dtype(pieces.code).itemsize
    parts: list[Array] = []
    offsets = np.zeros(stop - start + 1, np.int64)
    total = 0
    for number in pieces.numbers(start, stop):
        begin, end = int(pieces.starts[number]), int(pieces.starts[number + 1])
        unpack = partial(_unpack, reader=reader, entries=end - begin, size=None)
        basket = reader.read(pieces, number, stop, unpack)
        if basket.border == len(basket.data):
            return None
        low, high = max(begin, start), min(end, stop)
        first, last = _bounds(basket, low - begin, high - begin)
        here = offsets[low - start : high - start + 1]
        stored = basket.data[basket.border + 4 * (low - begin + 1) :]
        if entry_offsets(stored, first, last, basket.key_length, size.bit_length() - 1, total, here):
            raise DamagedPieceError(f"{pieces.name(number)}: its entries do not follow each other")
        parts.append(basket.data[first:last].view(pieces.code).astype(dtype))
        total += (last - first) // size
    return Jagged(parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype), *parts]), offsets)


def _bounds(basket: _Basket, low: int, high: int) -> tuple[int, int]:
    """Return the bytes where an entry and a later one begin; the end of the last entry is not stored."""
    stored = basket.data[basket.border + 4 :].data
    first, last = (
        basket.border
        if entry == basket.entries
        else _OFFSET.unpack_from(stored, 4 * entry)[0] - basket.key_length
        for entry in (low, high)
    )
    return first, last


def _unpack(raw: memoryview, *, reader: PieceReader, entries: int, size: int | None) -> _Basket:
    """Return a basket of so many entries; of so many bytes each, unless it is jagged."""
    nbytes, _, length, _, key_length, _ = _KEY.unpack_from(raw)
    if nbytes != len(raw):
        raise ValueError(f"a basket of {nbytes} bytes, expected {len(raw)}")
    _, _, _, found, last = _BASKET.unpack_from(raw, key_length - _BASKET.size - 1)
    border = last - key_length
    room = length - border - 4 * (entries + 2)
    if found != entries or (border != entries * size if size is not None else border != length and room < 0):
        raise ValueError(f"{found} entries in {border} of {length} bytes, expected {entries} entries")
    data = decompress(raw[key_length:nbytes], reader.memory(length))
    return _Basket(data[:border] if size is not None else data, border, key_length, entries)
