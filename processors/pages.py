"""Columns straight from the pages of an RNTuple.

Pages are compressed by themselves, little-endian, and mostly *split*: all first bytes, then all second bytes, and so
on. A list's column of offsets counts from the start of its cluster. uproot parses header, footer and page lists, once
a file (`describe`). The code of the pieces is the encoding and the type, for example ``split <f4``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from binworks.processors.decoding import join_planes
from binworks.processors.fileindex import Branch, Pieces
from binworks.processors.pieces import (
    Bytes,
    DamagedPieceError,
    Jagged,
    PieceReader,
    Wanted,
    decompress,
    naming,
)

Array = NDArray[Any]

_CODES = {
    0x00: "bit |u1",
    0x01: "plain |u1",
    0x02: "plain |u1",
    0x03: "plain |i1",
    0x04: "plain |u1",
    0x05: "plain <i2",
    0x06: "plain <u2",
    0x07: "plain <i4",
    0x08: "plain <u4",
    0x09: "plain <i8",
    0x0A: "plain <u8",
    0x0C: "plain <f4",
    0x0D: "plain <f8",
    0x11: "zigzag <i2",
    0x12: "split <u2",
    0x13: "zigzag <i4",
    0x14: "split <u4",
    0x15: "zigzag <i8",
    0x16: "split <u8",
    0x18: "split <f4",
    0x19: "split <f8",
}
"""Types of columns in the format's specification; those of reduced precision are left to uproot."""
_INDEX_CODES = {0x0E: "plain <u4", 0x0F: "plain <u8", 0x1A: "delta <u4", 0x1B: "delta <u8"}
_LEAF, _COLLECTION = 0, 1
_LISTS = ("std::vector<", "ROOT::VecOps::RVec<")


def describe(ntuple: Any) -> dict[str, Branch | None]:
    """Return where uproot says that the pages of the top-level fields lie; None for those only uproot can read."""
    table = _Fields(ntuple)
    return {record.field_name: table.branch(number) for number, record in table.top()}


class _Fields:
    """The fields of an ntuple, their columns, and the pages of these."""

    def __init__(self, ntuple: Any) -> None:
        self._records = ntuple.field_records
        self._links = ntuple.page_link_list
        self._columns: dict[int, list[Any]] = {}
        for column in ntuple.column_records:
            self._columns.setdefault(column.field_id, []).append(column)
        self._children: dict[int, list[int]] = {}
        for number, record in enumerate(self._records):
            if record.parent_field_id != number:
                self._children.setdefault(record.parent_field_id, []).append(number)
        self._pieces: dict[int, Pieces | None] = {}
        starts = [int(summary.num_first_entry) for summary in ntuple.cluster_summaries]
        self._clusters = np.array([*starts, int(ntuple.num_entries)], np.int64)

    def top(self) -> list[tuple[int, Any]]:
        return [(n, record) for n, record in enumerate(self._records) if record.parent_field_id == n]

    def branch(self, number: int) -> Branch | None:
        record = self._records[number]
        children = self._children.get(number, [])
        if int(record.struct_role) == _LEAF and not children:
            content = self._column(number, _CODES)
            alike = content is not None and np.array_equal(content.clusters, self._clusters)
            return Branch(content) if content is not None and alike else None
        if (
            int(record.struct_role) != _COLLECTION
            or not record.type_name.startswith(_LISTS)
            or len(children) != 1
        ):
            return None
        if int(self._records[children[0]].struct_role) != _LEAF or self._children.get(children[0]):
            return None
        offsets, content = self._column(number, _INDEX_CODES), self._column(children[0], _CODES)
        if offsets is None or content is None or not np.array_equal(offsets.clusters, self._clusters):
            return None
        return Branch(content, jagged=True, offsets=offsets)

    def _column(self, number: int, codes: dict[int, str]) -> Pieces | None:
        """Return the pages of a field's only column, if it is a plain one of one of these types."""
        record = self._records[number]
        if record.repetition:
            return None
        source = number if record.source_field_id is None else int(record.source_field_id)
        columns = self._columns.get(source, [])
        if len(columns) != 1 or columns[0].type not in codes or columns[0].first_element_index:
            return None
        column = columns[0]
        if column.idx not in self._pieces:
            self._pieces[column.idx] = self._pages(column.idx, codes[column.type])
        return self._pieces[column.idx]

    def _pages(self, column: int, code: str) -> Pieces | None:
        lengths, positions, sizes, clusters = [0], [], [], [0]
        for cluster in self._links:
            if column >= len(cluster) or cluster[column].suppressed:
                return None
            for page in cluster[column].pages:
                lengths.append(int(page.num_elements))
                positions.append(int(page.locator.offset))
                sizes.append(int(page.locator.num_bytes))
            clusters.append(len(positions))
        starts = np.cumsum(lengths, dtype=np.int64)
        return Pieces(
            code, starts, np.array(positions, np.int64), np.array(sizes, np.int64), starts[np.array(clusters)]
        )


def fetch(
    wanted: Mapping[str, Wanted], reader: PieceReader, start: int, stop: int
) -> Iterator[tuple[str, Array | Jagged]]:
    """Give entries ``start`` to ``stop`` of fields by name; see `binworks.processors.baskets.fetch`."""
    offsets = {id(b.offsets): b.offsets for b, _ in wanted.values() if b.offsets is not None}
    reader.prepare((pieces, max(start - 1, 0), stop) for pieces in offsets.values())
    lists: dict[int, _Lists] = {}
    extents: dict[str, tuple[int, int]] = {}
    for name, (branch, _) in wanted.items():
        extents[name] = (start, stop)
        if branch.offsets is not None:  # fields of a collection may share theirs
            with naming(name):
                found = lists.get(id(branch.offsets)) or _lists(
                    branch.offsets, branch.content, reader, start, stop
                )
            lists[id(branch.offsets)] = found
            extents[name] = (found.first, found.first + int(found.offsets[-1]))
    reader.prepare((branch.content, *extents[name]) for name, (branch, _) in wanted.items())
    for name, (branch, dtype) in wanted.items():
        with naming(name):
            content = _numbers(branch.content, reader, *extents[name], dtype)
        yield name, content if branch.offsets is None else Jagged(content, lists[id(branch.offsets)].offsets)


class _Lists(NamedTuple):
    """The lists of some entries: the first number of the first, and offsets from there, shape (entries + 1,)."""

    first: int
    offsets: NDArray[np.int64]


def _lists(pieces: Pieces, content: Pieces, reader: PieceReader, start: int, stop: int) -> _Lists:
    """Return where the lists of entries lie; in the file they count from the start of their cluster."""
    if stop <= start:
        return _Lists(0, np.zeros(1, np.int64))
    cluster = int(np.searchsorted(pieces.clusters, start, side="right")) - 1
    at_start = int(pieces.clusters[cluster]) == start
    begin = start if at_start else start - 1  # an entry begins where the one before it ends
    ends = _numbers(pieces, reader, begin, stop, "i8")
    bounds = np.clip(pieces.clusters[cluster:], begin, stop)
    ends += np.repeat(content.clusters[cluster:-1], np.diff(bounds))
    if at_start:
        ends = np.concatenate([content.clusters[cluster : cluster + 1], ends])
    offsets = ends - ends[0]
    if (offsets[1:] < offsets[:-1]).any() or ends[-1] > content.starts[-1]:
        raise DamagedPieceError(f"the lists of entries {start} to {stop} do not follow each other")
    return _Lists(int(ends[0]), offsets)


def _numbers(pieces: Pieces, reader: PieceReader, start: int, stop: int, dtype: str) -> Array:
    """Return elements ``start`` to ``stop`` of a column as numbers of that type."""
    encoding, _, code = pieces.code.partition(" ")
    stored = np.dtype(code)
    out = np.empty(stop - start, dtype)
    for number in pieces.numbers(start, stop):
        begin, end = int(pieces.starts[number]), int(pieces.starts[number + 1])
        length = (end - begin + 7) // 8 if encoding == "bit" else (end - begin) * stored.itemsize
        unpack = partial(_unpack, reader=reader, length=length)
        data = reader.read(pieces, number, stop, unpack)
        low, high = max(begin, start), min(end, stop)
        target = out[low - start : high - start]
        if encoding == "split" and out.dtype == stored:
            join_planes(data, low - begin, target)
        else:
            target[:] = _DECODERS[encoding](data, stored, low - begin, high - begin)
    return out


def _unpack(raw: memoryview, *, reader: PieceReader, length: int) -> Bytes:
    return decompress(raw, reader.memory(length))


def _plain(data: Bytes, stored: np.dtype[Any], low: int, high: int) -> Array:
    return data.view(stored)[low:high]


def _bit(data: Bytes, _stored: np.dtype[Any], low: int, high: int) -> Array:
    return np.unpackbits(data, count=high, bitorder="little")[low:]


def _split(data: Bytes, stored: np.dtype[Any], low: int, high: int) -> Array:
    out = np.empty(high - low, stored)
    join_planes(data, low, out)
    return out


def _zigzag(data: Bytes, stored: np.dtype[Any], low: int, high: int) -> Array:
    folded = _split(data, np.dtype(f"<u{stored.itemsize}"), low, high)
    return ((folded >> 1) ^ -(folded & 1)).view(stored)


def _delta(data: Bytes, stored: np.dtype[Any], low: int, high: int) -> Array:
    return np.cumsum(_split(data, stored, 0, high), dtype=stored)[low:]


_DECODERS: Mapping[str, Callable[[Bytes, np.dtype[Any], int, int], Array]] = {
    "plain": _plain,
    "bit": _bit,
    "split": _split,
    "zigzag": _zigzag,
    "delta": _delta,
}
