"""Writing ROOT files whose bytes depend on their contents and their seed alone.

uproot stamps the present time, and identifiers made of time and hardware address, into a file. Here the identifiers are
drawn from the seed, different for each file, and the time is a fixed one. The folder is not stored, the file's name is.
A file appears under its name when it is complete.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, Literal

import awkward as ak
import numpy as np
import uproot

from binworks.samples.arrays import Array, Column, Int64, Jagged
from binworks.samples.nano import branch_name, stored
from binworks.tensors.errors import RequestError, TransientError

Format = Literal["ttree", "rntuple"]
COMPRESSION_LEVEL = 1
_TIME = dt.datetime(2016, 9, 1)  # noqa: DTZ001 - times in ROOT files have no zone
_STAMPED = ("_cascade", "_cascadetree", "_cascadentuple", "writable")


class EventFile:
    """An open file with a tree or ntuple ``Events``; use `open_events`.

    Parameters
    ----------
    file : uproot.WritableDirectory
        The ROOT file.
    layout : "ttree" or "rntuple"
        Of ``Events``.
    """

    def __init__(self, file: Any, layout: Format) -> None:
        self._file, self._layout = file, layout
        self._events: Any = None
        self.entries = 0

    def extend(self, branches: Mapping[str, Column]) -> None:
        """Append events: one basket a branch; a collection ``X`` has branches ``X_field`` and the counter ``nX``.

        A list of numbers ``X`` has a branch ``X``, and a counter of its own likewise.
        """
        columns = stored(branches)
        flat = next(column for column in columns.values() if not isinstance(column, Jagged))
        make = _tree_contents if self._layout == "ttree" else _ntuple_contents
        contents = {
            name: part for name, column in columns.items() for name, part in make(name, column).items()
        }
        if self._events is None:
            self._events = self._make(contents)
        if len(flat):
            self._events.extend(contents)
        self.entries += len(flat)

    def write_runs(self, sums: Mapping[str, np.number[Any]]) -> None:
        """Write the tree ``Runs`` with one entry."""
        row = {name: np.array([value]) for name, value in sums.items()}
        tree = self._file.mktree("Runs", {name: value.dtype for name, value in row.items()})
        tree.extend(row)

    def _make(self, contents: Mapping[str, Any]) -> Any:
        if self._layout == "ttree":
            types = {k: v.dtype if isinstance(v, np.ndarray) else v.type.content for k, v in contents.items()}
            return self._file.mktree("Events", types)
        record = ak.zip(dict(contents), depth_limit=1)
        return self._file.mkrntuple("Events", record.layout.form)


@contextmanager
def open_events(path: Path, seed: np.random.SeedSequence, layout: Format = "ttree") -> Iterator[EventFile]:
    """Open a file for writing; it replaces one of that name when the block ends without an error.

    Parameters
    ----------
    path : Path
        Where.
    seed : numpy.random.SeedSequence
        Of the file's identifiers.
    layout : "ttree" or "rntuple"
        Of ``Events``.

    Raises
    ------
    RequestError
        ``unwritable-folder``.
    TransientError
        ``write-failed``, for example because the disk is full.
    """
    rng = np.random.default_rng(seed)
    prepare_folder(path.parent)
    try:
        # the file's name is stored in it: so it is written under its final name, in a folder beside
        with TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder, _fixed_time():
            partial = Path(folder) / path.name
            with uproot.recreate(
                partial,
                compression=uproot.ZSTD(COMPRESSION_LEVEL),
                uuid_function=lambda: uuid.UUID(bytes=rng.bytes(16), version=4),
            ) as file:
                yield EventFile(file, layout)
            partial.replace(path)
    except OSError as error:
        raise TransientError(
            f"The file could not be written: {error.strerror}.", code="write-failed", where=str(path)
        ) from error


def prepare_folder(folder: Path) -> None:
    """Make a folder, and try whether one can write into it.

    Raises
    ------
    RequestError
        ``unwritable-folder``.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".writing-"):
            pass
    except OSError as error:
        raise RequestError(
            f"Cannot write into this folder: {error.strerror}.",
            code="unwritable-folder",
            where=str(folder),
            hint="Choose another one with --out.",
        ) from None


@contextmanager
def _fixed_time() -> Iterator[None]:
    """Let uproot's writers see one time; for the whole process, so a process writes one file at a time."""
    clock = SimpleNamespace(datetime=SimpleNamespace(now=lambda: _TIME))
    modules: list[Any] = [import_module(f"uproot.writing.{name}") for name in _STAMPED]
    kept = [module.datetime for module in modules]
    for module in modules:
        module.datetime = clock
    try:
        yield
    finally:
        for module, original in zip(modules, kept, strict=True):
            module.datetime = original


def _tree_contents(name: str, column: Column) -> dict[str, Any]:
    """Return one entry: a flat array, a block as lists of constant length, or a collection as lists of records."""
    if isinstance(column, Jagged) and "" in column.fields:
        return {name: _lists(column.offsets, ak.contents.NumpyArray(column[""]))}
    if isinstance(column, Jagged):
        fields = {field: ak.contents.NumpyArray(values) for field, values in column.fields.items()}
        record = ak.contents.RecordArray(list(fields.values()), list(fields))
        return {name: _lists(column.offsets, record)}
    return {name: _block(column) if column.ndim == 2 else column}


def _ntuple_contents(name: str, column: Column) -> dict[str, Any]:
    """Return the entries: a collection's fields lie beside each other, after its counter, as in CMS files."""
    if isinstance(column, Jagged):
        offsets = column.offsets
        fields = {
            branch_name(name, field): _lists(offsets, ak.contents.NumpyArray(values))
            for field, values in column.fields.items()
        }
        return {f"n{name}": column.counts.astype(np.int32), **fields}
    if column.ndim == 2:
        return {f"n{name}": np.full(len(column), column.shape[1], np.int32), name: _block(column)}
    return {name: column}


def _block(values: Array) -> Any:
    n, width = values.shape
    return _lists(width * np.arange(n + 1), ak.contents.NumpyArray(np.ascontiguousarray(values).reshape(-1)))


def _lists(offsets: Int64, content: Any) -> Any:
    return ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(offsets), content))
