"""Templates of a channel without its masked bins, a few parameters at a time, for formats that hold histograms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import hist
import numpy as np
from numpy.typing import NDArray

from binworks.tensors import incomplete
from binworks.tensors.expansion import Int64
from binworks.tensors.fitinput import Effect, FitChannel, FitInput
from binworks.tensors.histogram import Float64, Histogram

AT_ONCE = 2_000_000
"""Numbers that are expanded at a time."""


@dataclass(frozen=True)
class Factors:
    """Ratios of templates to the nominal one, at +1 and -1 of some parameters.

    Parameters
    ----------
    parameters : array, shape (n,)
        Positions in the fit input's parameters.
    up, down : arrays, shape (n, bins), or (n, 1) for a normalisation
    norm : bool
        Whether these are normalisations: the same in all bins.
    """

    parameters: Int64
    up: Float64
    down: Float64
    norm: bool

    @property
    def moved(self) -> NDArray[np.bool_]:
        """Whether anything changes, by parameter."""
        moved: NDArray[np.bool_] = ((self.up != 1) | (self.down != 1)).any(axis=1)
        return moved


class Kind(Enum):
    """What a parameter does, over all channels and processes."""

    IDLE = "nothing"
    FACTOR = "multiplies some processes by one and the same factor, and divides them by it at -1"
    NORM = "changes the size of processes"
    SHAPE = "changes the shape of a process, at least"


def axes(channel: FitChannel) -> tuple[Any, ...]:
    """Return the axes of a channel; if bins are masked, one axis ``bin`` of the flat numbers of those used."""
    if channel.used.all():
        return channel.axes
    numbers = np.flatnonzero(channel.used).tolist()
    return (hist.axis.IntCategory(numbers, name="bin", label="bin", flow=False),)


def document(fit: FitInput, format: str) -> str:  # noqa: A002  what everybody calls it
    """Return all but the numbers as JSON: channels with their axes, parameters, completeness and the card."""
    channels = {
        channel.name: {
            "processes": list(channel.processes),
            "axes": Histogram(axes(channel), np.empty(0)).uhi()["axes"],
        }
        for channel in fit.channels
    }
    parameters = [
        {
            "name": parameter.name,
            "groups": list(parameter.groups),
            "constrained": parameter.constrained,
            "interest": parameter.interest,
        }
        for parameter in fit.parameters
    ]
    facts = {
        "format": format,
        "incomplete": incomplete.mark(fit.metadata),
        "metadata": dict(fit.metadata),
        "channels": channels,
        "parameters": parameters,
    }
    return json.dumps(facts, indent=1, default=str)


def shape(channel: FitChannel) -> tuple[int, ...]:
    """Return the extents of these axes."""
    return tuple(axis.extent for axis in axes(channel))


def factors(channel: FitChannel, process: int) -> Iterator[Factors]:
    """Give the factors of a process in the bins that are used, all parameters of a piece being of one kind."""
    for effect in channel.effects(process):
        wide = 1 if _is_norm(effect) else int(channel.used.sum())
        rows = max(1, AT_ONCE // max(1, wide))
        for first in range(0, len(effect.parameters), rows):
            part = slice(first, first + rows)
            up = _spread(channel, effect, effect.up[part])
            down = -up if effect.down is None else _spread(channel, effect, effect.down[part])
            yield Factors(effect.parameters[part], np.exp(up), np.exp(down), _is_norm(effect))


def single(channel: FitChannel, process: int) -> Iterator[tuple[int, Factors]]:
    """Give the parameters that change something in the bins that are used, with their factors, one by one."""
    for piece in factors(channel, process):
        for row in np.flatnonzero(piece.moved):
            one = slice(row, row + 1)
            chosen = Factors(piece.parameters[one], piece.up[one], piece.down[one], piece.norm)
            yield int(piece.parameters[row]), chosen


def kinds(fit: FitInput) -> list[Kind]:
    """Return what each parameter does in the bins that are used; all effects are expanded for it, and dropped."""
    count = len(fit.parameters)
    shape, norm, several = (np.zeros(count, bool) for _ in range(3))
    size = np.full(count, np.nan)
    for channel in fit.channels:
        for process in range(len(channel.processes)):
            for piece in factors(channel, process):
                moved = piece.parameters[piece.moved]
                if not piece.norm:
                    shape[moved] = True
                    continue
                up, down = piece.up[piece.moved, 0], piece.down[piece.moved, 0]
                other = norm[moved] & (size[moved] != up)
                several[moved] |= other | ~np.isclose(up * down, 1, rtol=1e-12, atol=0)
                norm[moved], size[moved] = True, up
    return [
        Kind.SHAPE if s else Kind.IDLE if not n else Kind.NORM if m else Kind.FACTOR
        for s, n, m in zip(shape, norm, several, strict=True)
    ]


def _is_norm(effect: Effect) -> bool:
    return effect.cells is None and effect.up.shape[1] == 1


def _spread(channel: FitChannel, effect: Effect, logarithms: Float64) -> Float64:
    """Return the logarithms in the bins that are used."""
    if _is_norm(effect):
        return logarithms
    if effect.cells is None:
        return logarithms[:, channel.used]
    out = np.zeros((len(logarithms), len(channel.used)))
    out[:, effect.cells] = logarithms
    return out[:, channel.used]
