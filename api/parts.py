"""Sums read in part: the columns of one template, or a slice.

The columns of a block lie in inner chunks of a few, all cells each. What one variation needs is one or two of them,
read and kept on the shelf. A slice or a column is not checked against the digest of the whole; a chunk that is missing
or cannot be decoded is an error.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from binworks.api.cached import Shelf
from binworks.service.store import Store, named_damage
from binworks.tensors.histogram import Float64, Histogram, axes_of
from binworks.tensors.select import Select, cut_axes, slices

HANDLE_BYTES = 20_000
"""About what an open array takes."""


class Sums:
    """The sums of a histogram in a snapshot, which never change.

    Parameters
    ----------
    store : Store
        Where they lie.
    shelf : Shelf
        Keeps what was read.
    key : str
        Of the histogram's group.
    described : mapping
        Its UHI description.
    """

    def __init__(self, store: Store, shelf: Shelf, key: str, described: dict[str, Any]) -> None:
        self._store, self._shelf, self._key, self._described = store, shelf, key, described

    def column(self, number: int) -> Float64:
        """Return one place of the last axis, over all cells."""
        width = self._array("values").chunks[-1]
        chunk = number // width
        key = ("columns", self._key, chunk)
        held: Float64 | None = self._shelf.get(key)
        if held is None:
            with named_damage(self._key):
                held = np.asarray(self._array("values")[..., chunk * width : (chunk + 1) * width])
            self._shelf.put(key, held, held.nbytes)
        return held[..., number - chunk * width]

    def part(self, select: Select) -> Histogram:
        """Return the selected part.

        Raises
        ------
        RequestError
            Code ``unknown-axis`` or ``unknown-bin``.
        """
        axes = axes_of(self._described)
        place = slices(axes, select)
        with named_damage(self._key):
            sums = {
                kind: np.asarray(self._array(kind)[place])
                for kind in ("values", "variances")
                if kind in self._described["storage"]
            }
        metadata = dict(self._described.get("metadata") or {})
        return Histogram(cut_axes(axes, select), sums["values"], sums.get("variances"), metadata)

    def _array(self, kind: str) -> Any:
        key = ("array", self._key, kind)
        held = self._shelf.get(key)
        if held is None:
            group = self._store.group(self._key)
            with named_damage(self._key):
                held = group[kind]
            self._shelf.put(key, held, HANDLE_BYTES)
        return held
