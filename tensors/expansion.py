"""From compact accumulators to named variations: a linear map, made when a tensor is read.

Events fill a *compact block*: the nominal cells times the few columns that an event really changes. A named variation
is a linear combination of the nominal cells and those columns, with coefficients that may depend on the cell's place
(for example on its eta bin and charge)::

    variation[v, cell] = base[v] * nominal[cell] + sum_c coefficient[v, place(cell), c] * compact[cell, c]

So a new covariance, another scaling or another choice of eigenvectors needs no pass over events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from binworks.tensors.errors import unknown_name
from binworks.tensors.histogram import Float64, Histogram
from binworks.tensors.select import Select, slices

Int64 = NDArray[np.int64]

_ARRAYS = ("base", "variation", "place", "column", "coefficient")


@dataclass(frozen=True)
class Nuisance:
    """A parameter of the fit: named up and down templates; ``down=None`` mirrors the up template."""

    name: str
    group: str
    up: str
    down: str | None = None
    constrained: bool = True


def used_templates(nuisances: Iterable[Nuisance]) -> list[str]:
    """Return the templates of nuisances, each once."""
    names = (name for n in nuisances for name in (n.up, n.down) if name is not None)
    return list(dict.fromkeys(names))


@dataclass(frozen=True)
class Expansion:
    """How one compact block becomes named variations.

    Parameters
    ----------
    group : str
        Name of the variation group.
    block : str
        Name of the compact histogram that it reads; groups may share one.
    variations : tuple of str
        Names of the templates, unique over all groups.
    nuisances : tuple of Nuisance
        Fit parameters over these templates.
    block_axes : tuple of str
        Axes of the nominal histogram on which the coefficients depend; empty if on none.
    base : array, shape (variations,)
        Coefficient of the nominal: 1 where the columns hold deviations from it, 0 where they hold full sums.
    variation, place, column : integer arrays, shape (n,)
        Where a coefficient stands, each once; ``place`` is the flat index over ``block_axes`` in their order.
    coefficient : array, shape (n,)
        The coefficients that are not zero.
    """

    group: str
    block: str
    variations: tuple[str, ...]
    nuisances: tuple[Nuisance, ...]
    block_axes: tuple[str, ...]
    base: Float64
    variation: Int64
    place: Int64
    column: Int64
    coefficient: Float64

    @classmethod
    def dense(
        cls,
        group: str,
        variations: Sequence[str],
        nuisances: Sequence[Nuisance],
        coefficients: Float64,
        *,
        block_axes: Sequence[str] = (),
        base: Float64 | float,
        block: str | None = None,
    ) -> Expansion:
        """Make one from an array of shape (variations, places, columns) or, without places, (variations, columns)."""
        full = coefficients if coefficients.ndim == 3 else coefficients[:, np.newaxis, :]
        variation, place, column = np.nonzero(full)
        coefficient = full[variation, place, column]
        return cls.sparse(
            group, variations, nuisances, (variation, place, column), coefficient,
            block_axes=block_axes, base=base, block=block,
        )  # fmt: skip

    @classmethod
    def sparse(
        cls,
        group: str,
        variations: Sequence[str],
        nuisances: Sequence[Nuisance],
        where: Sequence[NDArray[np.integer[Any]]],
        coefficient: Float64,
        *,
        block_axes: Sequence[str] = (),
        base: Float64 | float,
        block: str | None = None,
    ) -> Expansion:
        """Make one from coefficients and where they stand: arrays of variation, place and column.

        The block has the group's name unless said otherwise.
        """
        variation, place, column = (np.ravel(part).astype(np.int64) for part in where)
        return cls(
            group,
            block or group,
            tuple(variations),
            tuple(nuisances),
            tuple(block_axes),
            np.broadcast_to(np.asarray(base, np.float64), (len(variations),)).copy(),
            variation,
            place,
            column,
            np.ravel(coefficient).astype(np.float64),
        )

    def expand(
        self, nominal: Histogram, compact: Histogram, variations: Sequence[str] | None = None
    ) -> Float64:
        r"""Return the templates of the variations named (default: all).

        Parameters
        ----------
        nominal : Histogram
            Over the cells.
        compact : Histogram
            Over the cells and, last, the columns of the group.
        variations : sequence of str, optional
            Which templates, in this order.

        Returns
        -------
        array, shape (variations, \*cells)

        Raises
        ------
        RequestError
            If a name is not one of this group's.
        """
        rows = self._rows(self.variations if variations is None else variations)
        axes = [nominal.axis(name) for name in self.block_axes]
        cells = _by_place(nominal.values, axes)
        sums = _by_place(compact.values, axes).reshape(*cells.shape, -1)
        out = np.zeros((len(rows), *cells.shape))
        base = self.base[rows]
        for row in np.flatnonzero(base):
            out[row] += base[row] * cells
        target = np.full(len(self.variations), -1)
        target[rows] = np.arange(len(rows))
        wanted = np.flatnonzero(target[self.variation] >= 0)
        # column by column in a fixed order, so that a template has the same bits whichever others are asked for
        wanted = wanted[np.lexsort((self.column[wanted], self.place[wanted]))]
        cell = self.place[wanted] * sums.shape[2] + self.column[wanted]
        for group in np.split(wanted, np.flatnonzero(np.diff(cell)) + 1):
            if len(group):
                b, c = self.place[group[0]], self.column[group[0]]
                out[target[self.variation[group]], b] += self.coefficient[group, np.newaxis] * sums[b, :, c]
        return _from_places(out, nominal.values.shape, axes)

    def expand_one(self, nominal: Histogram, variation: str, column: Callable[[int], Float64]) -> Float64:
        """Return one template, with the bits that `expand` gives it, from no more than the columns that it needs.

        Parameters
        ----------
        nominal : Histogram
            Over the cells.
        variation : str
            Its name.
        column : callable
            Gives a column of the compact block, over the cells.

        Raises
        ------
        RequestError
            If the name is not one of this group's.
        """
        row = self._rows([variation])[0]
        entries = np.flatnonzero(self.variation == row)
        axes = [nominal.axis(name) for name in self.block_axes]
        cells = _by_place(nominal.values, axes)
        out = np.zeros(cells.shape)
        if self.base[row]:
            out += self.base[row] * cells
        columns = self.column[entries]
        for number in np.unique(
            columns
        ):  # ascending: each place adds up its columns in the order of `expand`
            of = entries[columns == number]
            places = self.place[of]
            sums = _by_place(column(int(number)), axes)[places]
            out[places] += self.coefficient[of, np.newaxis] * sums
        (found,) = _from_places(out[np.newaxis], nominal.values.shape, axes)
        return np.asarray(found)

    def selected(self, axes: Sequence[Any], select: Select) -> Expansion:
        """Return the expansion for histograms that are cropped.

        Parameters
        ----------
        axes : sequence of hist axes
            Of the uncropped nominal histogram.
        select : mapping
            As `binworks.tensors.select.crop` takes it.
        """
        mine = {name: wanted for name, wanted in select.items() if name in self.block_axes}
        if not mine:
            return self
        block = [next(axis for axis in axes if axis.name == name) for name in self.block_axes]
        shape = [axis.extent for axis in block]
        number = np.arange(int(np.prod(shape))).reshape(shape)
        kept = number[slices(block, mine)].ravel()
        places = np.full(number.size, -1)
        places[kept] = np.arange(len(kept))
        stays = places[self.place] >= 0
        left = {name: getattr(self, name)[stays] for name in ("variation", "column", "coefficient")}
        return replace(
            self,
            block_axes=tuple(name for name in self.block_axes if not isinstance(mine.get(name), int)),
            place=places[self.place[stays]],
            **left,
        )

    def touched(self, variation: str) -> Int64 | None:
        """Return the places where a variation may differ from nominal, sorted; None: everywhere."""
        row = self._rows([variation])[0]
        if self.base[row] != 1.0 or not self.block_axes:
            return None
        order, starts = self._by_variation
        return np.unique(self.place[order[starts[row] : starts[row + 1]]])

    @cached_property
    def _by_variation(self) -> tuple[Int64, Int64]:
        """Return the order of the coefficients by variation, and where each begins."""
        order = np.argsort(self.variation, kind="stable")
        return order, np.searchsorted(self.variation[order], np.arange(len(self.variations) + 1))

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.variations)}

    def to_arrays(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the JSON part and the arrays; `from_arrays` reads them."""
        described = {
            "group": self.group,
            "variations": list(self.variations),
            "nuisances": [asdict(nuisance) for nuisance in self.nuisances],
            "block_axes": list(self.block_axes),
            "block": self.block,
        }
        return described, {name: getattr(self, name) for name in _ARRAYS}

    @classmethod
    def from_arrays(cls, described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Expansion:
        """Return what `to_arrays` took apart."""
        return cls(
            group=described["group"],
            variations=tuple(described["variations"]),
            nuisances=tuple(Nuisance(**nuisance) for nuisance in described["nuisances"]),
            block_axes=tuple(described["block_axes"]),
            block=described["block"],
            **{name: np.asarray(arrays[name]) for name in _ARRAYS},
        )

    def _rows(self, names: Sequence[str]) -> Int64:
        for name in names:
            if name not in self._index:
                raise unknown_name("variation", name, list(self.variations))
        return np.array([self._index[name] for name in names], dtype=np.int64)


def _by_place(values: Float64, axes: Sequence[int]) -> Float64:
    """Return cells with the axes that make the place in front, shape (places, other cells and columns)."""
    moved = np.moveaxis(values, axes, range(len(axes)))
    return moved.reshape(int(np.prod(moved.shape[: len(axes)], dtype=np.int64)), -1)


def _from_places(templates: Float64, shape: tuple[int, ...], axes: Sequence[int]) -> Float64:
    r"""Return templates of shape (n, places, other cells) as (n, \*shape), undoing `_by_place`."""
    others = [extent for axis, extent in enumerate(shape) if axis not in axes]
    shaped = templates.reshape(len(templates), *(shape[axis] for axis in axes), *others)
    front = range(1, 1 + len(axes))
    return np.ascontiguousarray(np.moveaxis(shaped, front, [1 + axis for axis in axes]))
