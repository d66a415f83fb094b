"""The one place that opens ROOT files: a file's facts, and a range of its events as columns.

Open files are kept in a small LRU per thread, since opening costs more than reading a few columns. Columns of local
trees come straight from the baskets; remote files, RNTuples and unusual branches through uproot.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import uproot

from binworks.processors.baskets import Branch, LocalFile, describe, read_range
from binworks.processors.columns import Columns, Field, build, resolve
from binworks.tensors.errors import BinworksError, InputError, TransientError

TREE = "Events"
OPEN_FILES = 8
_opened = threading.local()


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
    format: Literal["ttree", "rntuple"]


def inspect(path: str) -> FileInfo:
    """Open a file and return its facts.

    Raises
    ------
    InputError
        ``missing-file``, ``not-root``, ``truncated-file``, ``no-events`` or ``unreadable-file``.
    TransientError
        If a server did not answer.
    """
    try:
        _check_magic(path)
        with uproot.open(path, **_options(path)) as file:
            events = _events(file, path)
            size = _size(file, path)
            ttree = hasattr(events, "branches")
            return FileInfo(
                path=path,
                uuid=str(file.file.uuid),
                size=size,
                entries=int(events.num_entries),
                clusters=_tree_clusters(events) if ttree else _ntuple_clusters(events),
                format="ttree" if ttree else "rntuple",
            )
    except BinworksError:
        raise
    except Exception as error:  # whatever a broken file makes uproot raise, sorted by kind
        raise classify(error, path) from error


def read(path: str, uuid: str, fields: Iterable[Field], start: int, stop: int) -> Columns:
    """Read entries ``start`` to ``stop`` of a file.

    Parameters
    ----------
    path, uuid
        The file, and the identity it had when the work was planned.
    fields : iterable of Field
        Which columns.
    start, stop : int
        Entry range.

    Raises
    ------
    InputError
        As `inspect`, and ``file-changed``, ``missing-branch``, ``varying-block``, ``uneven-collection``.
    TransientError
        If a server did not answer.
    """
    fields = tuple(fields)
    where = f"{path} [{start}:{stop}]"
    try:
        file = _open(path, uuid)
        chosen = resolve(fields, file, path)
        types = {branch: wanted.dtype for wanted in fields for branch in chosen[wanted.name]}
        values = file.fetch(types, start, stop)
        return build(fields, chosen, values.__getitem__, stop - start, where)
    except BinworksError:
        raise
    except Exception as error:  # as above; a handle that failed once is not trusted again
        close_files()
        raise classify(error, where) from error


def nanoevents(path: str, uuid: str, start: int, stop: int, metadata: Mapping[str, Any]) -> Any:
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

    try:
        _open(path, uuid)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of cross references that a small file does not have
            return NanoEventsFactory.from_root(
                {path: TREE},
                schemaclass=NanoAODSchema,
                entry_start=start,
                entry_stop=stop,
                metadata=dict(metadata),
                mode="virtual",
            ).events()
    except BinworksError:
        raise
    except Exception as error:  # as above
        close_files()
        raise classify(error, f"{path} [{start}:{stop}]") from error


def close_files() -> None:
    """Close the files this thread keeps open."""
    for file in getattr(_opened, "files", {}).values():
        file.close()
    _opened.files = OrderedDict()


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
    if isinstance(error, (PermissionError, IsADirectoryError)):
        return InputError(
            f"The file cannot be opened: {error.strerror}.", code="unreadable-file", where=where
        )
    if isinstance(error, TimeoutError | ConnectionError) or "[FATAL]" in text or "Operation expired" in text:
        return TransientError(
            f"The server did not answer ({_first_line(text)}).", code="server-timeout", where=where
        )
    return InputError(
        f"The file cannot be read ({_first_line(text)}).",
        code="corrupt-file",
        where=where,
        hint="It is damaged or not completely written: transfer or produce it again.",
    )


class _OpenFile:
    """An open file: which branches it has, without listing 1700 of them, and their entries."""

    def __init__(self, path: str, uuid: str) -> None:
        _check_magic(path)
        self._file = uproot.open(path, **_options(path))
        self._raw = None if "://" in path else LocalFile(path)
        self._baskets: dict[str, Branch | None] = {}
        found = str(self._file.file.uuid)
        if found != uuid:
            self.close()
            raise InputError(
                f"The file's identity is {found}, but {uuid} when the job was planned: it was replaced.",
                code="file-changed",
                where=path,
                hint="Submit the job again.",
            )
        self._events = _events(self._file, path)

    def __contains__(self, branch: object) -> bool:
        return branch in self._events

    def fetch(self, types: Mapping[str, str], start: int, stop: int) -> dict[str, Any]:
        """Return the entries of branches: straight from their baskets where that can be done, else by uproot."""
        values = {branch: self._direct(branch, start, stop, dtype) for branch, dtype in types.items()}
        others = [branch for branch, value in values.items() if value is None]
        if others:
            arrays = self._events.arrays(others, entry_start=start, entry_stop=stop, library="ak")
            values |= {branch: arrays[branch] for branch in others}
        return values

    def _direct(self, branch: str, start: int, stop: int, dtype: str) -> Any:
        if self._raw is None or not hasattr(self._events, "branches"):
            return None
        if branch not in self._baskets:
            self._baskets[branch] = describe(self._events[branch])
        baskets = self._baskets[branch]
        return None if baskets is None else read_range(baskets, self._raw.read, start, stop, dtype)

    def close(self) -> None:
        self._file.close()
        if self._raw is not None:
            self._raw.close()


def _options(path: str) -> dict[str, Any]:
    if "://" in path:
        return {}
    return {"handler": uproot.source.file.MultithreadedFileSource, "num_workers": 1}


def _size(file: Any, path: str) -> int:
    """Return the size in bytes; refuse a file that ends before its header says."""
    declared = int(file.file.fEND)
    if "://" in path:
        return declared
    size = Path(path).stat().st_size
    if size < declared:
        raise InputError(
            f"The file has {size} bytes, but its header says {declared}.",
            code="truncated-file",
            where=path,
            hint="Transfer it again.",
        )
    return size


def _events(file: Any, path: str) -> Any:
    if TREE not in {key.partition(";")[0] for key in file.keys(recursive=False)}:
        found = ", ".join(file.keys(recursive=False)[:10]) or "nothing"
        raise InputError(f"The file has no {TREE!r}; it has {found}.", code="no-events", where=path)
    return file[TREE]


def _open(path: str, uuid: str) -> _OpenFile:
    files: OrderedDict[tuple[str, str], _OpenFile] = getattr(_opened, "files", None) or OrderedDict()
    _opened.files = files
    key = (path, uuid)
    if key not in files:
        files[key] = _OpenFile(path, uuid)
        while len(files) > OPEN_FILES:
            files.popitem(last=False)[1].close()
    files.move_to_end(key)
    return files[key]


def _check_magic(path: str) -> None:
    if "://" not in path:
        with Path(path).open("rb") as file:
            if file.read(4) != b"root":
                raise InputError(
                    "This is not a ROOT file: it does not begin with 'root'.", code="not-root", where=path
                )


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
