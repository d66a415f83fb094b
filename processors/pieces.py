"""Compressed pieces of a file (baskets, pages): read, decompressed, and kept where the next range needs them again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import cramjam
import numpy as np
from numpy.typing import NDArray

from binworks.processors.fileindex import Branch, Pieces
from binworks.processors.sources import Source
from binworks.tensors.errors import BinworksError

Bytes = NDArray[np.uint8]
T = TypeVar("T")

_BLOCK = 9
_LZ4_CHECKSUM = 8


class DamagedPieceError(ValueError):
    """A piece's bytes are not what they should be; the message says which piece, ``branch`` of which branch."""

    branch: str | None = None


class Wanted(NamedTuple):
    """A branch to be read, and the type its numbers shall have."""

    branch: Branch
    dtype: str


class Jagged(NamedTuple):
    """Content and offsets, shape (entries + 1,), int64, of a jagged branch's range."""

    content: NDArray[Any]
    offsets: NDArray[np.int64]


@contextmanager
def naming(branch: str) -> Iterator[None]:
    """Let an error within say which branch was read."""
    try:
        yield
    except DamagedPieceError as error:
        error.branch = branch
        raise


class PieceReader:
    """Gives the pieces of one open file.

    Memory for what is decompressed is used again and again: fresh pages from the system cost as much as decompressing.
    A piece that reaches beyond the range it was read for is kept for the next range, at most one of each branch: so
    none is decompressed twice in a row of ranges, wherever these are cut.

    Parameters
    ----------
    source : Source
        The file.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._buffer = np.empty(0, np.uint8)
        self._keeping = False
        self._kept: dict[int, tuple[int, Pieces, Any]] = {}

    def prepare(self, wanted: Iterable[tuple[Pieces, int, int]]) -> None:
        """Be told which elements (pieces, start, stop) will be read."""
        if not self._source.remote:
            return
        spans = {}
        for pieces, start, stop in wanted:
            held = self._kept.get(id(pieces), (-1, pieces, None))[0]
            for number in pieces.numbers(start, stop):
                if number != held:
                    spans[int(pieces.positions[number])] = int(pieces.sizes[number])
        self._source.prepare(spans.items())

    def read(self, pieces: Pieces, number: int, stop: int, unpack: Callable[[memoryview], T]) -> T:
        """Return a piece, unpacked into memory of `memory`; valid until the next call.

        Parameters
        ----------
        pieces, number
            Which.
        stop : int
            Last element wanted now; if the piece goes on, it is kept.
        unpack : callable
            From stored bytes.

        Raises
        ------
        DamagedPieceError
            If it cannot be unpacked, or the file ends before it.
        OSError
            If it cannot be read.
        """
        held, _, kept = self._kept.pop(id(pieces), (-1, pieces, None))
        self._keeping = bool(pieces.starts[number + 1] > stop)
        piece: T = kept if held == number else self._unpacked(pieces, number, unpack)
        if self._keeping:
            self._kept[id(pieces)] = (number, pieces, piece)
        return piece

    def _unpacked(self, pieces: Pieces, number: int, unpack: Callable[[memoryview], T]) -> T:
        try:
            return unpack(self._source.read(int(pieces.positions[number]), int(pieces.sizes[number])))
        except (OSError, BinworksError):
            raise
        except Exception as error:  # whatever the decoders make of bytes that are not theirs
            raise DamagedPieceError(f"{pieces.name(number)}: {type(error).__name__}: {error}") from error

    def memory(self, length: int) -> Bytes:
        """Return memory for the piece that is unpacked, shape (length,): its own if it will be kept."""
        if self._keeping:
            return np.empty(length, np.uint8)
        if len(self._buffer) < length:
            self._buffer = np.empty(length, np.uint8)
        return self._buffer[:length]


def decompress(packed: memoryview, out: Bytes) -> Bytes:
    """Undo ROOT's compression: blocks of at most 16 MB, each with its algorithm and sizes; return ``out``.

    Parameters
    ----------
    packed : memoryview
        Stored bytes; as many as ``out`` if they are not compressed.
    out : array, shape (bytes,)
        Filled.

    Raises
    ------
    ValueError
        If the blocks are not what they say.
    """
    if len(packed) == len(out):
        out[:] = np.frombuffer(packed, np.uint8)
        return out
    done = 0
    while done < len(out):
        algorithm = bytes(packed[:2])
        stored, raw = int.from_bytes(packed[3:6], "little"), int.from_bytes(packed[6:9], "little")
        if algorithm not in _ALGORITHMS or raw == 0 or len(packed) < _BLOCK + stored:
            raise ValueError(
                f"a compressed block begins with {algorithm!r} and {stored} of {len(packed)} bytes"
            )
        skip = _BLOCK + (_LZ4_CHECKSUM if algorithm == b"L4" else 0)
        got = _ALGORITHMS[algorithm](packed[skip : _BLOCK + stored], out[done : done + raw])
        if got != raw:
            raise ValueError(f"a compressed block holds {got} bytes, expected {raw}")
        done += raw
        packed = packed[_BLOCK + stored :]
    return out


_ALGORITHMS: Mapping[bytes, Callable[[Any, Any], int]] = {
    b"ZS": cramjam.zstd.decompress_into,
    b"ZL": cramjam.zlib.decompress_into,
    b"L4": cramjam.lz4.decompress_block_into,
    b"XZ": cramjam.xz.decompress_into,
}
