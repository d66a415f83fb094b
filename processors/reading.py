"""The one place that opens ROOT files: a file's facts, and a range of its events as columns.

A file is parsed once, by uproot, into its index (`binworks.processors.fileindex`); with that, columns come straight
from the compressed pieces, of a local file or from an XRootD server. Unusual branches and other addresses are left to
uproot. Open files are kept in a small LRU per thread, apart for each login, indexes in one per process: who asks for
a file's facts opens it first, as himself, so what others have left here is of no use to those who may not read it.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

from binworks.processors import baskets, fileindex, pages
from binworks.processors.columns import Columns, Field, build, resolve
from binworks.processors.fileindex import Branch, FileIndex, Format, Shelf
from binworks.processors.pieces import DamagedPieceError, Jagged, PieceReader, Wanted
from binworks.processors.sources import Login, LoginRefusedError, SeekableFile, Source, open_source
from binworks.tensors.errors import BinworksError, InputError, TransientError

TREE = "Events"
OPEN_FILES = 8
INDEXES = 64
HEADER_BYTES = 128
_NOT_ARRAYS = (
    uproot.interpretation.objects.CannotBeAwkward,
    uproot.interpretation.identify.UnknownInterpretation,
)
_opened = threading.local()
_indexes: OrderedDict[tuple[str, int], FileIndex] = OrderedDict()
_indexes_lock = threading.Lock()


@dataclass(frozen=True)
class FileInfo:
    """What the plan needs to know of a file.

    Parameters
    ----------
    path : str
        As asked for.
    uuid : str
        The file's own identity, changed whenever it is written anew.
    size : int
        Bytes.
    entries : int
        Events; may be zero.
    clusters : tuple of int
        Entry numbers at which a range may be cut without decompressing twice: 0, ..., entries.
    format : str
        ``ttree`` or ``rntuple``.
    """

    path: str
    uuid: str
    size: int
    entries: int
    clusters: tuple[int, ...]
    format: Format


def inspect(path: str, shelf: Shelf | None = None, login: Login | None = None) -> FileInfo:
    """Open a file and return its facts; its index is made if it is not known yet.

    Parameters
    ----------
    path : str
        A local file, or an address.
    shelf : Shelf, optional
        Where indexes are kept; one that is not there is put there.
    login : Login, optional
        As whom a server is asked.

    Raises
    ------
    InputError
        ``missing-file``, ``not-root``, ``truncated-file``, ``no-events``, ``unreadable-file`` or ``corrupt-file``.
    TransientError
        If a server did not answer; ``login-refused``, if it lets nobody of this credential in.
    """
    with _classified(path), closing(_RootFile(path, login)) as file:
        index = _index_of(file, shelf)
        return FileInfo(path, index.uuid, index.size, index.entries, index.clusters, index.format)


def read(
    path: str, uuid: str, fields: Iterable[Field], start: int, stop: int, login: Login | None = None
) -> Columns:
    """Read entries ``start`` to ``stop`` of a file.

    Parameters
    ----------
    path, uuid
        The file, and the identity it had when the work was planned.
    fields : iterable of Field
        Which columns.
    start, stop : int
        Entry range.
    login : Login, optional
        As whom a server is asked.

    Raises
    ------
    InputError
        As `inspect`, and ``file-changed``, ``missing-branch``, ``varying-block``, ``uneven-collection``, or
        ``bad-input`` for a branch that does not hold numbers.
    TransientError
        If a server did not answer.
    """
    where = f"{path} [{start}:{stop}]"
    with _classified(where):
        return _open(path, uuid, login).columns(tuple(fields), start, stop, where)


def nanoevents(
    path: str, uuid: str, start: int, stop: int, metadata: Mapping[str, Any], login: Login | None = None
) -> Any:
    """Return a range as coffea's NanoEvents; columns are read when they are used.

    Raises
    ------
    InputError
        As `read`; what goes wrong when a column is used is the processor's.
    TransientError
        If a server did not answer.
    """
    from coffea.nanoevents import (  # seconds to import, for these processors only
        NanoAODSchema,
        NanoEventsFactory,
    )

    with _classified(f"{path} [{start}:{stop}]"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of cross references that a small file does not have
        return NanoEventsFactory.from_root(
            _open(path, uuid, login).parsed,  # once for all chunks
            treepath=TREE,
            schemaclass=NanoAODSchema,
            entry_start=start,
            entry_stop=stop,
            metadata=dict(metadata),
            mode="virtual",
        ).events()


def close_files() -> None:
    """Close the files this thread keeps open."""
    for file in getattr(_opened, "files", {}).values():
        file.close()
    _opened.files = OrderedDict()


@contextmanager
def _classified(where: str) -> Iterator[None]:
    """Turn whatever a broken file or a server makes the libraries raise into an error of ours."""
    try:
        yield
    except BinworksError:
        raise
    except Exception as error:
        close_files()  # a handle that failed once is not trusted again
        raise classify(error, where) from error


def classify(error: BaseException, where: str) -> BinworksError:
    """Return the error of our tree for what uproot, fsspec or XRootD raised on a file."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, FileNotFoundError) or "[3011]" in text:
        return InputError(
            "The file does not exist.",
            code="missing-file",
            where=where,
            hint="Check the path and that it is mounted.",
        )
    if isinstance(error, LoginRefusedError):
        return TransientError(
            f"The server does not let the job in ({_first_line(str(error))}).",
            code="login-refused",
            where=where,
            hint="It knows nobody of this credential, or wants one of another kind: ask those who run the server.",
        )
    if isinstance(error, (PermissionError, IsADirectoryError)):
        return InputError(
            f"The file cannot be opened: {error.strerror or error}.", code="unreadable-file", where=where
        )
    if isinstance(error, TimeoutError | ConnectionError) or "[FATAL]" in text or "Operation expired" in text:
        return TransientError(
            f"The server did not answer ({_first_line(text)}).", code="server-timeout", where=where
        )
    if isinstance(error, DamagedPieceError):
        where = f"{where}: {error.branch}"
    return InputError(
        f"The file cannot be read ({_first_line(text)}).",
        code="corrupt-file",
        where=where,
        hint="It is damaged or not completely written: transfer or produce it again.",
    )


class _RootFile:
    """An open file whose identity is known; it is parsed when ``events`` is asked for."""

    def __init__(self, path: str, login: Login | None = None) -> None:
        self.path = path
        self.source = open_source(path, login)
        self._parsed: Any = None
        try:
            self.uuid, self.size = self._by_address() if self.source is None else self._by_header(self.source)
        except Exception:
            self.close()
            raise

    def _by_header(self, source: Source) -> tuple[str, int]:
        header = bytes(source.read(0, min(HEADER_BYTES, source.size)))
        if header[:4] != b"root":
            raise InputError(
                "This is not a ROOT file: it does not begin with 'root'.", code="not-root", where=self.path
            )
        found = fileindex.identity(header)
        if source.size < found.end:
            raise InputError(
                f"The file has {source.size} bytes, but its header says {found.end}.",
                code="truncated-file",
                where=self.path,
                hint="Transfer it again.",
            )
        return found.uuid, source.size

    def _by_address(self) -> tuple[str, int]:
        file = self.parsed.file
        return str(file.uuid), int(file.fEND)

    @property
    def parsed(self) -> Any:
        """The file as uproot sees it."""
        if self._parsed is None:
            if self.source is None:
                self._parsed = uproot.open(self.path)
            else:
                self._parsed = uproot.open(SeekableFile(self.source, self.path), use_threads=False)
        return self._parsed

    @property
    def events(self) -> Any:
        """The tree or ntuple of events, as uproot sees it."""
        names = self.parsed.keys(recursive=False)
        if TREE not in {name.partition(";")[0] for name in names}:
            found = ", ".join(names[:10]) or "nothing"
            raise InputError(f"The file has no {TREE!r}; it has {found}.", code="no-events", where=self.path)
        return self.parsed[TREE]

    def close(self) -> None:
        if self._parsed is not None:
            self._parsed.close()
        if self.source is not None:
            self.source.close()


class _OpenFile(_RootFile):
    """A file of the expected identity, with its index."""

    def __init__(self, path: str, uuid: str, login: Login | None = None) -> None:
        super().__init__(path, login)
        try:
            self._check(uuid)
            self._index = _index_of(self)
        except Exception:
            self.close()
            raise
        self._reader = None if self.source is None else PieceReader(self.source)

    def _check(self, uuid: str) -> None:
        if self.uuid != uuid:
            raise InputError(
                f"The file's identity is {self.uuid}, but {uuid} when the job was planned: it was replaced.",
                code="file-changed",
                where=self.path,
                hint="Submit the job again.",
            )

    def columns(self, fields: tuple[Field, ...], start: int, stop: int, where: str) -> Columns:
        """Return a range of events."""
        chosen = resolve(fields, self._index.branches, self.path)
        types = {branch: wanted.dtype for wanted in fields for branch in chosen[wanted.name]}
        collections = {
            branch: wanted.name.partition(".")[0]
            for wanted in fields
            if wanted.kind == "jagged"
            for branch in chosen[wanted.name]
        }
        offsets: dict[str, NDArray[np.int64]] = {}
        values: dict[str, Any] = {}
        for branch, value in self._direct(types, start, stop):
            values[branch] = value
            if isinstance(value, Jagged) and branch in collections:
                known = offsets.setdefault(collections[branch], value.offsets)
                _check_even(known, value.offsets, start, collections[branch], f"{where}: {branch}")
                values[branch] = Jagged(
                    value.content, known
                )  # one array for all: the others' memory is free again
        others = [branch for branch in types if values.get(branch) is None]
        if others:
            values |= self._by_uproot(others, start, stop, where)
        return build(fields, chosen, values.__getitem__, stop - start, where)

    def _direct(self, types: Mapping[str, str], start: int, stop: int) -> Iterator[tuple[str, Any]]:
        """Give the entries of the branches that can be read without uproot."""
        if self._reader is None:
            return iter(())
        branches = {name: self._index.branches[name] for name in types}
        wanted = {
            name: Wanted(branch, types[name]) for name, branch in branches.items() if branch is not None
        }
        fetch = baskets.fetch if self._index.format == "ttree" else pages.fetch
        return fetch(wanted, self._reader, start, stop)

    def _by_uproot(self, branches: list[str], start: int, stop: int, where: str) -> dict[str, Any]:
        """Return the entries of unusual branches."""
        try:
            arrays = self.events.arrays(branches, entry_start=start, entry_stop=stop, library="ak")
        except _NOT_ARRAYS:
            if len(branches) == 1:
                raise _no_numbers("objects", f"{where}: {branches[0]}") from None
            one_by_one = (self._by_uproot([branch], start, stop, where) for branch in branches)
            return {branch: array for found in one_by_one for branch, array in found.items()}
        for branch in branches:
            kind = ak.type(arrays[branch]).content
            numbers = kind.content if isinstance(kind, ak.types.ListType | ak.types.RegularType) else kind
            if not isinstance(numbers, ak.types.NumpyType) or numbers.parameters:
                raise _no_numbers(str(kind), f"{where}: {branch}")
        return {branch: arrays[branch] for branch in branches}


def _no_numbers(found: str, where: str) -> InputError:
    return InputError(
        f"It holds {found}, where a number or a list of numbers an entry is needed.",
        code="bad-input",
        where=where,
    )


def _check_even(
    known: NDArray[np.int64], offsets: NDArray[np.int64], start: int, collection: str, where: str
) -> None:
    """Refuse offsets that are not those of the collection's other branches."""
    if offsets is known or np.array_equal(known, offsets):
        return
    entry = int(np.flatnonzero(np.diff(known) != np.diff(offsets))[0])
    lengths = [int(each[entry + 1] - each[entry]) for each in (known, offsets)]
    raise InputError(
        f"Its lengths differ from those of the other {collection} branches: {lengths[1]} instead of {lengths[0]} "
        f"at entry {start + entry}.",
        code="uneven-collection",
        where=where,
    )


def _open(path: str, uuid: str, login: Login | None = None) -> _OpenFile:
    files: OrderedDict[tuple[str, str, Login | None], _OpenFile] = (
        getattr(_opened, "files", None) or OrderedDict()
    )
    _opened.files = files
    key = (path, uuid, login)
    if key not in files:
        files[key] = _OpenFile(path, uuid, login)
        while len(files) > OPEN_FILES:
            files.popitem(last=False)[1].close()
    files.move_to_end(key)
    return files[key]


def _index_of(file: _RootFile, shelf: Shelf | None = None) -> FileIndex:
    """Return a file's index: from this process's memory, from the shelf, or made now."""
    key = (file.uuid, file.size)
    with _indexes_lock:
        index = _indexes.get(key)
    if index is None and shelf is not None:
        index = shelf.find(*key)
    elif index is not None and shelf is not None and key not in shelf:
        shelf.put(index)
    if index is None:
        index = _make_index(file)
        if shelf is not None:
            shelf.put(index)
    with _indexes_lock:
        _indexes[key] = index
        _indexes.move_to_end(key)
        while len(_indexes) > INDEXES:
            _indexes.popitem(last=False)
    return index


def _make_index(file: _RootFile) -> FileIndex:
    """Parse the file."""
    events = file.events
    if hasattr(events, "branches"):
        clusters, branches = _tree_clusters(events), _tree_branches(events)
        layout: Format = "ttree"
    else:
        clusters, branches = _ntuple_clusters(events), pages.describe(events)
        layout = "rntuple"
    return FileIndex(file.uuid, file.size, int(events.num_entries), clusters, layout, branches)


def _tree_branches(events: Any) -> dict[str, Branch | None]:
    """Return all branches, those within others too; by their paths, and by their names where these differ."""
    found: dict[str, Branch | None] = {}
    for path, branch in events.iteritems(recursive=True, full_paths=True):
        described = _described(branch)
        found[path] = described
        found.setdefault(branch.name, described)
    return found


def _described(branch: Any) -> Branch | None:
    try:
        return baskets.describe(branch)
    except Exception:  # noqa: BLE001 -- whatever is unusual about it; an error is due when it is wanted
        return None


def _tree_clusters(events: Any) -> tuple[int, ...]:
    """Return the basket boundaries of a small flat branch, which has one basket a cluster."""
    for name in ("run", "event"):
        if name in events and events.num_entries:
            return tuple(int(offset) for offset in events[name].entry_offsets)
    return (0, int(events.num_entries)) if events.num_entries else (0,)


def _ntuple_clusters(events: Any) -> tuple[int, ...]:
    starts = [int(c.num_first_entry) for c in events.cluster_summaries]
    return (*starts, int(events.num_entries)) if events.num_entries else (0,)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:200]
