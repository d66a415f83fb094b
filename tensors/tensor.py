"""What a fit job gets: processes with their templates in one region, data, and nuisances; expanded lazily.

A `Tensor` keeps the compact blocks of each process, cropped to the region of the fit, and expands a group when asked;
the full array of (nuisances x processes x bins) is never held.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from binworks.tensors.accumulator import Accumulator
from binworks.tensors.errors import RequestError
from binworks.tensors.expansion import Expansion, Nuisance, used_templates
from binworks.tensors.histogram import Float64, Histogram
from binworks.tensors.incomplete import mark
from binworks.tensors.markup import table
from binworks.tensors.select import Select, crop

SIGNAL_REGION: Mapping[str, int] = {"mt": 2, "relIso": 0}
"""mT above 40 GeV and relative isolation below 0.15: the 2880 bins of the W fit."""

ALL = ""
"""Stands for the sum of all processes."""


@dataclass(frozen=True)
class Contribution:
    """One data set's sums: what it is, how to normalise it, and its accumulator.

    Parameters
    ----------
    process : str
        Process in the fit; data sets of the same process are added.
    scale : float
        Factor on its sums of weights: luminosity x cross section / sum of sign(genWeight); 1 for data.
    accumulator : Accumulator
        ``nominal`` and the compact blocks.
    is_data : bool
        Whether these are collisions.
    """

    process: str
    scale: float
    accumulator: Accumulator
    is_data: bool = False


@dataclass
class Tensor:
    r"""Templates of a region, by process, with their variations.

    Parameters
    ----------
    axes : tuple of hist axes
        Of the bins, flow bins included where the axis has them.
    processes : tuple of str
        Simulated processes, sorted.
    nominal, variances : arrays, shape (processes, \*bins)
        Expected events at the luminosity, and the variance from the number of simulated events.
    data : array, shape bins, or None
        Observed events.
    expansions : dict of Expansion by group
    blocks : dict
        (process, name) -> (nominal, compact) histograms, already scaled and cropped.
    metadata : dict
        Job, generation, luminosity, completeness.
    """

    axes: tuple[Any, ...]
    processes: tuple[str, ...]
    nominal: Float64
    variances: Float64
    data: Float64 | None
    expansions: dict[str, Expansion]
    blocks: dict[tuple[str, str], tuple[Histogram, Histogram]]
    metadata: dict[str, Any] = field(default_factory=dict)
    _totals: dict[str, Float64] = field(default_factory=dict, init=False, repr=False)

    @property
    def nuisances(self) -> tuple[Nuisance, ...]:
        """All nuisances, in the order of the groups."""
        return tuple(nuisance for expansion in self.expansions.values() for nuisance in expansion.nuisances)

    def _repr_html_(self) -> str:
        rows = [
            (process, f"{values.sum():,.1f}", f"{np.sqrt(variances.sum()):,.1f}")
            for process, values, variances in zip(self.processes, self.nominal, self.variances, strict=True)
        ]
        rows.append(("data", "none" if self.data is None else f"{self.data.sum():,.0f}", ""))
        names = " x ".join(f"{axis.name} {axis.extent}" for axis in self.axes)
        title = f"{self.nominal[0].size:,} bins ({names}), {len(self.nuisances):,} nuisances"
        head = ("process", "events", "statistics of simulation")
        return table([title, mark(self.metadata)], [head, *rows])

    def variations(self, group: str, names: Sequence[str] | None = None) -> Float64:
        r"""Return templates of a group, shape (variations, processes, \*bins).

        A process that the group leaves alone stays nominal.

        Raises
        ------
        RequestError
            If the group or a variation is not there.
        """
        if group not in self.expansions:
            raise RequestError(
                f"The tensor has no variation group {group!r}.",
                code="unknown-systematic",
                hint=f"It has {', '.join(self.expansions) or 'none'}.",
            )
        count = len(self.expansions[group].variations if names is None else names)
        out = np.broadcast_to(self.nominal, (count, *self.nominal.shape)).copy()
        for p in range(len(self.processes)):
            change = self.change(group, p, names)
            if change is not None:
                out[:, p] += change
        return out

    def change(self, group: str, process: int, names: Sequence[str] | None = None) -> Float64 | None:
        r"""Return template minus nominal of one process, shape (variations, \*bins); None if it is left alone.

        Data sets of the process that the group leaves alone stay as they are.
        """
        expansion = self.expansions[group]
        held = self.blocks.get((self.processes[process], expansion.block))
        if held is None:
            return None
        nominal, compact = held
        return expansion.expand(nominal, compact, names) - nominal.values

    def shifts(self, group: str) -> Float64:
        r"""Return the effect of +1 of each nuisance of the group, shape (nuisances, processes, \*bins).

        It is half the difference of the up and down templates, or up minus nominal where down is the mirror.
        """
        expansion = self.expansions[group]
        return _shifts(expansion, self.variations(group, used_templates(expansion.nuisances)), self.nominal)

    def total_shifts(self, group: str) -> Float64:
        r"""Return the effect of +1 of each nuisance on the sum of all processes, shape (nuisances, \*bins).

        An expansion is linear, so the blocks are added before it is made, once; the result is kept.
        """
        if group not in self._totals:
            expansion = self.expansions[group]
            held = [
                self.blocks[p, expansion.block] for p in self.processes if (p, expansion.block) in self.blocks
            ]
            total = np.zeros((len(expansion.nuisances), *self.nominal.shape[1:]))
            if held:
                nominal, compact = (
                    Histogram(parts[0].axes, np.sum([part.values for part in parts], axis=0))
                    for parts in zip(*held, strict=True)
                )
                total = _shifts(
                    expansion,
                    expansion.expand(nominal, compact, used_templates(expansion.nuisances)),
                    nominal.values,
                )
            self._totals[group] = total
        return self._totals[group]


def _shifts(expansion: Expansion, templates: Float64, nominal: Float64) -> Float64:
    """Return half of up minus down, or up minus nominal, from the templates that `used_templates` names."""
    order = {name: row for row, name in enumerate(used_templates(expansion.nuisances))}
    shifts = np.empty((len(expansion.nuisances), *nominal.shape))
    for row, nuisance in enumerate(expansion.nuisances):
        up = templates[order[nuisance.up]]
        shifts[row] = (up - templates[order[nuisance.down]]) / 2 if nuisance.down else up - nominal
    return shifts


def assemble(
    contributions: Iterable[Contribution],
    expansions: Sequence[Expansion],
    *,
    region: Select = SIGNAL_REGION,
    metadata: Mapping[str, Any] | None = None,
    together: bool = False,
) -> Tensor:
    """Scale, crop and add the data sets into a tensor; they are taken one after the other.

    Parameters
    ----------
    contributions : iterable of Contribution
        At least one that is not data.
    expansions : sequence of Expansion
        Those of the job.
    region : mapping
        What is cut out of the sums, see `binworks.tensors.select`.
    together : bool
        Add the compact blocks of all processes, under the process `ALL`: who needs no more than their sum saves memory.

    Raises
    ------
    RequestError
        If there is no simulated data set, or if an axis of the region does not exist.
    """
    names = dict.fromkeys(expansion.block for expansion in expansions)
    sums: dict[str, Histogram] = {}
    blocks: dict[tuple[str, str], tuple[Histogram, Histogram]] = {}
    data: Float64 | None = None
    axes: tuple[Any, ...] = ()
    for c in contributions:
        held = c.accumulator.histograms
        axes = held["nominal"].axes
        mine = _scaled(crop(held["nominal"], region), c.scale)
        if c.is_data:
            data = mine.values if data is None else data + mine.values
            continue
        for name in names:
            if name in held:
                compact = _scaled(crop(held[name], region), c.scale)
                _add_block(blocks, (ALL if together else c.process, name), mine, compact)
        if c.process in sums:
            sums[c.process].add(mine, "nominal")
        else:
            sums[c.process] = mine
    if not sums:
        raise RequestError("A tensor needs at least one simulated data set.", code="no-simulation")
    processes = tuple(sorted(sums))
    empty = [
        np.zeros_like(found.values) if found.variances is None else found.variances for found in sums.values()
    ]
    variances = dict(zip(sums, empty, strict=True))
    return Tensor(
        axes=sums[processes[0]].axes,
        processes=processes,
        nominal=np.stack([sums[process].values for process in processes]),
        variances=np.stack([variances[process] for process in processes]),
        data=data,
        expansions={expansion.group: expansion.selected(axes, region) for expansion in expansions},
        blocks=blocks,
        metadata=dict(metadata or {}),
    )


def _scaled(histogram: Histogram, scale: float) -> Histogram:
    histogram.values *= scale
    if histogram.variances is not None:
        histogram.variances *= scale**2
    return histogram


def _add_block(
    blocks: dict[tuple[str, str], tuple[Histogram, Histogram]],
    key: tuple[str, str],
    nominal: Histogram,
    compact: Histogram,
) -> None:
    if key in blocks:
        blocks[key][0].values += nominal.values
        blocks[key][1].values += compact.values
    else:
        blocks[key] = (Histogram(nominal.axes, nominal.values.copy()), compact)
