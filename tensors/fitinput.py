"""What the export formats write: channels, parameters and their effects, made from a card and snapshots.

Effects are logarithms of ratios to the nominal template. They are expanded process by process and group by group when
asked for; the full array (bins x processes x parameters) is never held here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from binworks.tensors.errors import RequestError
from binworks.tensors.expansion import Int64
from binworks.tensors.histogram import Float64
from binworks.tensors.incomplete import mark
from binworks.tensors.markup import table

LOWEST = float(np.log(1e-3))
"""Stands for the logarithm of a template that is not positive."""


@dataclass(frozen=True)
class Parameter:
    """A nuisance or a free parameter, as the fitter sees it.

    Parameters
    ----------
    name : str
    groups : tuple of str
        For impacts.
    constrained : bool
        Whether it has a unit Gaussian prior.
    interest : bool
        Whether it is what the fit is about: the free mass.
    """

    name: str
    groups: tuple[str, ...]
    constrained: bool = True
    interest: bool = False


@dataclass(frozen=True)
class Effect:
    """What some parameters do to one process of one channel.

    Parameters
    ----------
    parameters : array, shape (n,)
        Positions in `FitInput.parameters`.
    cells : array, shape (k,), or None
        Flat bins that change; None: all.
    up : array, shape (n, k), or (n, 1) with ``cells=None`` for a normalisation
        ln(template / nominal) at +1. `LOWEST` where the template is not positive, 0 where the nominal is not.
    down : array of the same shape, or None
        The same at -1; None: ``-up``.
    """

    parameters: Int64
    cells: Int64 | None
    up: Float64
    down: Float64 | None = None


@dataclass(frozen=True)
class FitChannel:
    """A set of bins.

    Parameters
    ----------
    name : str
    axes : tuple of hist axes
        The bins are the cells over their extents (flow bins included), flat in C order.
    processes : tuple of str
    nominal, variances : arrays, shape (processes, bins)
        Expected events, none negative, and their variance from the number of simulated events (not inflated).
    data : array, shape (bins,)
    used : boolean array, shape (bins,)
        False where a bin is masked.
    effects : callable
        From the position of a process to its effects; each parameter comes at most once.
    """

    name: str
    axes: tuple[Any, ...]
    processes: tuple[str, ...]
    nominal: Float64
    variances: Float64
    data: Float64
    used: NDArray[np.bool_]
    effects: Callable[[int], Iterator[Effect]]


@dataclass(frozen=True)
class FitInput:
    """Everything that a fit needs.

    Parameters
    ----------
    channels : tuple of FitChannel
    parameters : tuple of Parameter
        Free ones first.
    symmetric : bool
        Whether no effect has a ``down`` of its own.
    metadata : mapping
        Job, generation, luminosity, completeness, ``inflation`` (factor on the simulation's statistical uncertainty),
        ``clipped_cells`` (how many cells of processes were below zero and are taken as zero), and the card.
    """

    channels: tuple[FitChannel, ...]
    parameters: tuple[Parameter, ...]
    symmetric: bool
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        bins = ", ".join(f"{channel.name}: {channel.used.sum():,} bins" for channel in self.channels)
        title = f"{bins}; {len(self.processes)} processes; {len(self.parameters):,} parameters"
        rows = [(group, f"{len(names):,}") for group, names in self.groups.items()]
        return table([title, mark(self.metadata)], [("group", "parameters"), *rows])

    @property
    def processes(self) -> tuple[str, ...]:
        """Names of the processes of all channels, each once, in the order of the channels."""
        return tuple(dict.fromkeys(name for channel in self.channels for name in channel.processes))

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Names of the parameters of each group."""
        found: dict[str, list[str]] = {}
        for parameter in self.parameters:
            for group in parameter.groups:
                found.setdefault(group, []).append(parameter.name)
        return {group: tuple(names) for group, names in found.items()}


def check(fit: FitInput) -> None:
    """Refuse what no likelihood can take.

    Raises
    ------
    RequestError
        ``bad-card`` without any bin or parameter; ``bad-data`` if a bin of the data is negative or not finite;
        ``empty-bin`` if events are observed where none are expected.
    """
    bins = sum(int(channel.used.sum()) for channel in fit.channels)
    if not (bins and fit.parameters):
        message = f"There is nothing to fit: {bins} bins and {len(fit.parameters)} parameters are left."
        raise RequestError(message, code="bad-card", where="card")
    for channel in fit.channels:
        bad = np.flatnonzero(channel.used & ~(np.isfinite(channel.data) & (channel.data >= 0)))
        if len(bad):
            first = f"the first is bin {bad[0]} of channel {channel.name!r}"
            raise RequestError(
                f"{len(bad)} bins of the data are negative or not finite; {first}.", code="bad-data"
            )
        empty = np.flatnonzero(channel.used & (channel.data > 0) & ~(channel.nominal.sum(axis=0) > 0))
        if len(empty):
            raise RequestError(
                f"{channel.data[empty[0]]:g} events are observed where none are expected: bin {empty[0]} of channel "
                f"{channel.name!r} ({len(empty)} such bins).",
                code="empty-bin",
                hint="Mask these bins in the card, or simulate more events.",
            )
