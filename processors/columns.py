"""From branches to columns: which branch feeds which field, and what the kernels receive.

A *flavour* of NanoAOD is a table of fields: the first branch that is present wins; a file with none of them fails with
the list of branches that were looked for. Kernels get contiguous arrays of fixed types: flat ones of shape (events,),
weight blocks of shape (events, weights), and jagged ones as content and offsets.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from binworks.processors.baskets import Jagged
from binworks.tensors.errors import InputError

Kind = Literal["flat", "jagged", "block", "any", "all"]
Array = NDArray[Any]


@dataclass(frozen=True)
class Field:
    """One field of an event.

    Parameters
    ----------
    name : str
        ``collection.field`` for jagged fields; those of a collection share their offsets.
    branches : tuple of str
        In order of preference; for the kinds ``any`` and ``all`` every one that is present is used.
    dtype : str
        Type the kernel gets.
    kind : str
        ``flat``, ``jagged``, ``block`` (constant length), ``any`` or ``all`` (or / and of booleans).
    default : number, optional
        Value of an absent field; without one the field is required.
    optional : bool
        An absent field is an empty array.
    """

    name: str
    branches: tuple[str, ...]
    dtype: str = "f4"
    kind: Kind = "flat"
    default: float | None = None
    optional: bool = False


@dataclass
class Columns:
    """A range of events as arrays.

    Parameters
    ----------
    size : int
        Number of events.
    arrays : dict
        By field name; an absent optional field has size 0.
    offsets : dict
        By collection, shape (events + 1,), int64.
    where : str
        File and range, for errors.
    """

    size: int
    arrays: dict[str, Array] = field(default_factory=dict)
    offsets: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    where: str = ""

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]


def resolve(fields: Iterable[Field], available: Container[str], where: str) -> dict[str, tuple[str, ...]]:
    """Return the branches that each field is read from; none for an absent one with a default.

    Raises
    ------
    InputError
        ``missing-branch``, if a required field has no branch.
    """
    chosen = {}
    for wanted in fields:
        present = tuple(branch for branch in wanted.branches if branch in available)
        if not present and wanted.default is None and not wanted.optional:
            raise InputError(
                f"No branch for field {wanted.name!r}: looked for {', '.join(wanted.branches)}.",
                code="missing-branch",
                where=where,
                hint="Is this NanoAOD of a supported flavour, and the data set's kind (data or mc) right?",
            )
        chosen[wanted.name] = present if wanted.kind in ("any", "all") else present[:1]
    return chosen


def build(
    fields: Iterable[Field],
    chosen: Mapping[str, tuple[str, ...]],
    fetch: Callable[[str], Any],
    size: int,
    where: str,
) -> Columns:
    """Fetch the branches and shape them into columns.

    Parameters
    ----------
    fields, chosen
        The table, and what `resolve` chose.
    fetch : callable
        Branch -> its entries: an awkward array, or of the type wanted a NumPy array or `Jagged`.
    size : int
        Number of events.
    where : str
        Named in errors.

    Raises
    ------
    InputError
        If a block's length varies or if fields of one collection disagree in their lengths.
    """
    columns = Columns(size, where=where)
    missing = []
    for wanted in fields:
        branches = chosen[wanted.name]
        if not branches:
            missing.append(wanted)
        elif wanted.kind in ("any", "all"):
            combine = np.logical_or if wanted.kind == "any" else np.logical_and
            columns.arrays[wanted.name] = combine.reduce([_flat(fetch(b), "bool") for b in branches]).astype(
                wanted.dtype
            )
        elif wanted.kind == "flat":
            columns.arrays[wanted.name] = _flat(fetch(branches[0]), wanted.dtype)
        elif wanted.kind == "block":
            columns.arrays[wanted.name] = _block(
                fetch(branches[0]), wanted.dtype, size, f"{where}: {branches[0]}"
            )
        else:
            _add_jagged(columns, wanted, fetch(branches[0]), f"{where}: {branches[0]}")
    for wanted in missing:
        columns.arrays[wanted.name] = _absent(wanted, columns)
    return columns


def from_nanoevents(events: Any, fields: Iterable[Field], where: str) -> Columns:
    """Return the same columns from coffea's NanoEvents (virtual, or read).

    Raises
    ------
    InputError
        As `build`; also for lists of an event that are named like a collection but are longer than it, which NanoEvents
        cuts wrongly.
    """
    fields = tuple(fields)
    top = set(events.fields)
    for wanted in fields:
        for branch in wanted.branches:
            collection, _, rest = branch.partition("_")
            other = wanted.kind == "jagged" and collection.lower() != wanted.name.partition(".")[0]
            if other and collection in top and rest in ak.fields(events[collection]):
                raise InputError(
                    f"NanoEvents take {branch} for a number of each {collection}, which it is not.",
                    code="uneven-collection",
                    where=where,
                    hint="Run over files instead, or without the correction that needs it.",
                )

    def locate(branch: str) -> Any | None:
        if branch in top and not ak.fields(events[branch]):
            return (branch,)
        collection, _, rest = branch.partition("_")
        return (collection, rest) if collection in top and rest in ak.fields(events[collection]) else None

    class Present(Container[str]):
        def __contains__(self, branch: object) -> bool:
            return locate(str(branch)) is not None

    def fetch(branch: str) -> Any:
        array = events
        for part in locate(branch) or ():
            array = array[part]
        return array

    return build(fields, resolve(fields, Present(), where), fetch, len(events), where)


def _flat(array: Any, dtype: str) -> Array:
    plain = array if isinstance(array, np.ndarray) else ak.to_numpy(array)
    return np.ascontiguousarray(plain, dtype=dtype)


def _jagged(array: Any, dtype: str) -> Jagged:
    if isinstance(array, Jagged):
        return array
    counts = ak.to_numpy(ak.num(array, axis=1))
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return Jagged(np.ascontiguousarray(ak.to_numpy(ak.flatten(array, axis=1)), dtype=dtype), offsets)


def _block(array: Any, dtype: str, size: int, where: str) -> Array:
    if isinstance(array, np.ndarray) and array.ndim == 2:
        return np.ascontiguousarray(array, dtype=dtype)
    content, offsets = _jagged(array, dtype)
    lengths = np.diff(offsets)
    if size and (lengths != lengths[0]).any():
        event = int(np.flatnonzero(lengths != lengths[0])[0])
        raise InputError(
            f"The number of weights varies: {lengths[0]} at first, {lengths[event]} at entry {event} of the range.",
            code="varying-block",
            where=where,
        )
    return content.reshape(size, -1) if size else np.zeros((0, 0), dtype)


def _add_jagged(columns: Columns, wanted: Field, array: Any, where: str) -> None:
    content, offsets = _jagged(array, wanted.dtype)
    collection = wanted.name.partition(".")[0]
    known = columns.offsets.setdefault(collection, offsets)
    if not np.array_equal(known, offsets):
        raise InputError(
            f"Its lengths differ from those of the other {collection} branches.",
            code="uneven-collection",
            where=where,
        )
    columns.arrays[wanted.name] = content


def _absent(wanted: Field, columns: Columns) -> Array:
    """Return the default for an absent field, or an empty array for one that is optional."""
    if wanted.kind == "block":
        return np.zeros((columns.size, 0), wanted.dtype)
    if wanted.default is None:
        return np.zeros(0, wanted.dtype)
    collection = wanted.name.partition(".")[0]
    length = int(columns.offsets[collection][-1]) if wanted.kind == "jagged" else columns.size
    return np.full(length, wanted.default, wanted.dtype)
