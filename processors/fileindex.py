"""The index of a file: its facts, and where the compressed pieces of each branch lie. Made once, kept.

To parse the tree of a file with 1700 branches takes a third of a second, to read its index some milliseconds; with
it no range needs any parsing. An index belongs to a file's identity (UUID and size), never changes, and is checked by
a digest: one that is damaged is made anew. It is JSON and integers: nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import struct
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import cramjam
import numpy as np
from numpy.typing import NDArray

Format = Literal["ttree", "rntuple"]
Int64 = NDArray[np.int64]

_MAGIC = b"binworks.index/1\n"
_DIGEST = 32
_LEVEL = 9
_HEADER_BYTES = 100
_SMALL = struct.Struct(">4siiiiiiiBiiiH16s")
_LARGE = struct.Struct(">4siiqqiiiBiqiH16s")
_LARGE_VERSION = 1_000_000
_NONE = -1


class DamagedIndexError(ValueError):
    """These bytes are not a whole index."""


@dataclass(frozen=True)
class Identity:
    """What a ROOT file's first bytes say.

    Parameters
    ----------
    uuid : str
        Given when the file was made.
    end : int
        Bytes that it should have.
    """

    uuid: str
    end: int


def identity(header: bytes | memoryview) -> Identity:
    """Return the identity of a file from its first hundred bytes.

    Raises
    ------
    ValueError
        If they are not those of a ROOT file.
    """
    if len(header) < _HEADER_BYTES or bytes(header[:4]) != b"root":
        raise ValueError("it does not begin with 'root'")
    version = int.from_bytes(header[4:8], "big")
    fields = (_LARGE if version >= _LARGE_VERSION else _SMALL).unpack_from(header)
    return Identity(str(uuid.UUID(bytes=fields[-1])), fields[3])


@dataclass(frozen=True)
class Pieces:
    """Numbers that are stored in compressed pieces: the baskets of a branch, the pages of a column.

    Parameters
    ----------
    code : str
        How a piece's bytes stand for numbers; see `binworks.processors.baskets` and `binworks.processors.pages`.
    starts : array, shape (pieces + 1,)
        First element of each piece, and the end. An element is an entry, or, in a page, a number.
    positions, sizes : arrays, shape (pieces,)
        Place of each piece in the file, in bytes.
    clusters : array, shape (clusters + 1,) or (0,)
        First element of each cluster, and the end; for pages.
    """

    code: str
    starts: Int64
    positions: Int64
    sizes: Int64
    clusters: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))

    def name(self, number: int) -> str:
        """Return what a piece is called in errors."""
        kind = "page that begins at element" if len(self.clusters) else "basket that begins at entry"
        return f"the {kind} {self.starts[number]}"

    def numbers(self, start: int, stop: int) -> range:
        """Return the numbers of the pieces that hold elements ``start`` to ``stop``."""
        if stop <= start:
            return range(0)
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        return range(max(first, 0), int(np.searchsorted(self.starts, stop, side="left")))


@dataclass(frozen=True)
class Branch:
    """How a branch can be read without uproot.

    Parameters
    ----------
    content : Pieces
        The numbers.
    jagged : bool
        Whether entries have lengths of their own.
    offsets : Pieces, optional
        Where those are stored apart from the numbers.
    """

    content: Pieces
    jagged: bool = False
    offsets: Pieces | None = None


@dataclass(frozen=True)
class FileIndex:
    """All that must be known of a file to read it.

    Parameters
    ----------
    uuid, size : str, int
        The file's identity.
    entries : int
        Events.
    clusters : tuple of int
        Entries at which a range may be cut without decompressing twice: 0, ..., entries.
    format : "ttree" or "rntuple"
        Of the events.
    branches : mapping
        By name; None for one that only uproot can read.
    """

    uuid: str
    size: int
    entries: int
    clusters: tuple[int, ...]
    format: Format
    branches: Mapping[str, Branch | None]

    def to_bytes(self) -> bytes:
        """Return the index for a file of its own: some ten bytes a basket."""
        table = _Table()
        rows = [table.branch(branch) for branch in self.branches.values()]
        facts = {
            "uuid": self.uuid,
            "size": self.size,
            "entries": self.entries,
            "clusters": list(self.clusters),
            "format": self.format,
            "names": list(self.branches),
            "codes": table.codes,
            "lengths": [len(shared) for shared in table.shared],
            "pieces": len(table.rows),
        }
        arrays = (
            np.array(rows, np.int64).reshape(-1, 3),
            np.array(table.rows, np.int64).reshape(-1, 4),
            _joined(table.shared),
            _joined(table.positions),
            _joined(table.sizes),
        )
        text = json.dumps(facts, separators=(",", ":")).encode() + b"\n"
        body = bytes(cramjam.zstd.compress(text + b"".join(a.tobytes() for a in arrays), _LEVEL))
        return _MAGIC + hashlib.sha256(body).digest() + body

    @classmethod
    def from_bytes(cls, data: bytes) -> FileIndex:
        """Return a stored index.

        Raises
        ------
        DamagedIndexError
            If these are not all the bytes that were written, or another version's.
        """
        head = len(_MAGIC) + _DIGEST
        body = data[head:]
        if data[: len(_MAGIC)] != _MAGIC or hashlib.sha256(body).digest() != data[len(_MAGIC) : head]:
            raise DamagedIndexError("this is no index, or it is damaged")
        text, _, rest = bytes(cramjam.zstd.decompress(body)).partition(b"\n")
        facts = json.loads(text)
        branches = _Branches(facts, np.frombuffer(rest, np.int64))
        return cls(
            facts["uuid"],
            facts["size"],
            facts["entries"],
            tuple(facts["clusters"]),
            facts["format"],
            branches,
        )


class _Table:
    """Collects the pieces of all branches; arrays of starts that are equal are kept once."""

    def __init__(self) -> None:
        self.codes: list[str] = []
        self.shared: list[Int64] = []
        self.positions: list[Int64] = []
        self.sizes: list[Int64] = []
        self.rows: list[tuple[int, int, int, int]] = []
        self._known: dict[bytes, int] = {}
        self._pieces: dict[int, int] = {}
        self._begin = 0

    def branch(self, branch: Branch | None) -> tuple[int, int, int]:
        """Return (jagged, content, offsets); -1 for what there is not."""
        if branch is None:
            return _NONE, _NONE, _NONE
        offsets = _NONE if branch.offsets is None else self._row(branch.offsets)
        return int(branch.jagged), self._row(branch.content), offsets

    def _row(self, pieces: Pieces) -> int:
        """Return the number of the row (code, starts, clusters, first piece)."""
        if id(pieces) not in self._pieces:
            if pieces.code not in self.codes:
                self.codes.append(pieces.code)
            starts, clusters = self._share(pieces.starts), self._share(pieces.clusters)
            self._pieces[id(pieces)] = len(self.rows)
            self.rows.append((self.codes.index(pieces.code), starts, clusters, self._begin))
            self._begin += len(pieces.positions)
            self.positions.append(pieces.positions)
            self.sizes.append(pieces.sizes)
        return self._pieces[id(pieces)]

    def _share(self, array: Int64) -> int:
        number = self._known.setdefault(array.tobytes(), len(self.shared))
        if number == len(self.shared):
            self.shared.append(array)
        return number


class _Branches(Mapping[str, Branch | None]):
    """The branches of a stored index; each is put together when it is asked for."""

    def __init__(self, facts: Mapping[str, Any], numbers: Int64) -> None:
        self._names = {name: i for i, name in enumerate(facts["names"])}
        self._codes: Sequence[str] = facts["codes"]
        ends = np.cumsum([3 * len(self._names), 4 * facts["pieces"], sum(facts["lengths"])])
        rows, pieces, shared, rest = np.split(numbers, ends)
        self._rows, self._pieces = rows.reshape(-1, 3), pieces.reshape(-1, 4)
        self._shared = np.split(shared, np.cumsum(facts["lengths"]))
        self._positions, self._sizes = np.split(rest, 2)
        self._made: dict[int, Pieces] = {}

    def __getitem__(self, name: str) -> Branch | None:
        jagged, content, offsets = self._rows[self._names[name]].tolist()
        if jagged == _NONE:
            return None
        apart = None if offsets == _NONE else self._piece(offsets)
        return Branch(self._piece(content), bool(jagged), apart)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Any:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _piece(self, number: int) -> Pieces:
        if number not in self._made:  # branches of a collection share their offsets
            code, starts, clusters, first = self._pieces[number].tolist()
            here = slice(first, first + len(self._shared[starts]) - 1)
            self._made[number] = Pieces(
                self._codes[code],
                self._shared[starts],
                self._positions[here],
                self._sizes[here],
                self._shared[clusters],
            )
        return self._made[number]


def _joined(arrays: Iterable[Int64]) -> Int64:
    return np.concatenate([np.zeros(0, np.int64), *arrays])


class Storage(Protocol):
    """Where bytes are kept by name; what cannot be read is absent, and what cannot be written is lost."""

    def get(self, name: str) -> bytes | None:
        """Return what was put under a name; None if there is nothing."""

    def put(self, name: str, data: bytes) -> None:
        """Put bytes under a name, all or none, in the place of others."""


class Files:
    """Bytes kept as files of a folder.

    Parameters
    ----------
    folder : Path
        Made when something is put there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, name: str) -> bytes | None:
        """Return a file's bytes."""
        with suppress(OSError):
            return (self.folder / name).read_bytes()
        return None

    def put(self, name: str, data: bytes) -> None:
        """Write a file aside and rename it."""
        draft = self.folder / f"index-{uuid.uuid4().hex}"
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                draft.write_bytes(data)
                draft.replace(self.folder / name)
            finally:
                draft.unlink(missing_ok=True)


class Shelf:
    """Indexes of files, immutable, each named by the identity of the file it is about.

    Any number of processes may use it. It saves time and nothing depends on it: an index that is not there, or is
    damaged, is made again.

    Parameters
    ----------
    storage : Storage
        Where they are kept.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def find(self, uuid: str, size: int) -> FileIndex | None:
        """Return the index of a file; None if there is none, or a damaged one."""
        data = self._storage.get(_shelved(uuid, size))
        if data is None:
            return None
        try:
            index = FileIndex.from_bytes(data)
        except DamagedIndexError:
            return None
        return index if (index.uuid, index.size) == (uuid, size) else None

    def __contains__(self, key: tuple[str, int]) -> bool:
        return self._storage.get(_shelved(*key)) is not None

    def put(self, index: FileIndex) -> None:
        """Keep an index, in the place of a damaged one too."""
        self._storage.put(_shelved(index.uuid, index.size), index.to_bytes())


def _shelved(uuid: str, size: int) -> str:
    return f"{uuid}-{size}"
