"""The one place that opens ROOT files: a file's facts, and a range of its events as columns.

Open files are kept in a small LRU per thread, since opening costs more than reading a few columns. Local files are read
with plain reads, not memory maps: a file that is cut short under a map would kill the process.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import uproot

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
    except Exception as error:
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
        events = _open(path, uuid)
        chosen = resolve(fields, _Branches(events), path)
        names = sorted({branch for branches in chosen.values() for branch in branches})
        arrays = events.arrays(names, entry_start=start, entry_stop=stop, library="ak") if names else {}
        return build(fields, chosen, lambda branch: arrays[branch], stop - start, where)
    except BinworksError:
        raise
    except Exception as error:
        close_files()
        raise classify(error, where) from error


def close_files() -> None:
    """Close the files this thread keeps open."""
    for file, _ in getattr(_opened, "files", {}).values():
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


class _Branches:
    """Which branches a tree has, without listing 1700 of them."""

    def __init__(self, events: Any) -> None:
        self._events = events

    def __contains__(self, branch: object) -> bool:
        return branch in self._events


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


def _open(path: str, uuid: str) -> Any:
    files: OrderedDict[tuple[str, str], tuple[Any, Any]] = getattr(_opened, "files", None) or OrderedDict()
    _opened.files = files
    key = (path, uuid)
    if key not in files:
        _check_magic(path)
        file = uproot.open(path, **_options(path))
        if str(file.file.uuid) != uuid:
            file.close()
            raise InputError(
                f"The file's identity is {file.file.uuid}, but {uuid} when the job was planned: it was replaced.",
                code="file-changed",
                where=path,
                hint="Submit the job again.",
            )
        files[key] = (file, _events(file, path))
        while len(files) > OPEN_FILES:
            _, (oldest, _) = files.popitem(last=False)
            oldest.close()
    files.move_to_end(key)
    return files[key][1]


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
