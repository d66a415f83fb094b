"""A part of a histogram: one bin of an axis, which then disappears, or a range of bins, to which the axis is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import hist
import numpy as np

from binworks.tensors.errors import RequestError, unknown_name
from binworks.tensors.histogram import Histogram

Select = Mapping[str, int | tuple[int, int]]
"""By axis name: a bin, or the first bin and the one behind the last; a flow bin below is number 0."""


def crop(histogram: Histogram, select: Select) -> Histogram:
    """Return the selected part, with arrays of its own.

    Raises
    ------
    RequestError
        If an axis or a bin does not exist.
    """
    key = slices(histogram.axes, select)
    variances = None if histogram.variances is None else histogram.variances[key].copy()
    axes = cut_axes(histogram.axes, select)
    return Histogram(axes, histogram.values[key].copy(), variances, dict(histogram.metadata))


def slices(axes: Sequence[Any], select: Select) -> tuple[int | slice, ...]:
    """Return the key into an array over the axes, flow bins included.

    Raises
    ------
    RequestError
        Code ``unknown-axis`` or ``unknown-bin``.
    """
    names = [axis.name for axis in axes]
    for name, wanted in select.items():
        if name not in names:
            raise unknown_name("axis", name, names)
        extent = axes[names.index(name)].extent
        first, stop = _ends(wanted)
        if not 0 <= first < stop <= extent:
            what = f"bin {wanted}" if isinstance(wanted, int) else f"bins {first} to {stop - 1}"
            raise RequestError(
                f"Axis {name!r} has no {what}; it has {extent}, flow bins included.", code="unknown-bin"
            )
    return tuple(_key(select.get(name)) for name in names)


def cut_axes(axes: Sequence[Any], select: Select) -> tuple[Any, ...]:
    """Return the axes that are left."""
    left = []
    for axis in axes:
        wanted = select.get(axis.name)
        if wanted is None:
            left.append(axis)
        elif not isinstance(wanted, int):
            left.append(axis if wanted == (0, axis.extent) else _cut(axis, *wanted))
    return tuple(left)


def _ends(wanted: int | tuple[int, int]) -> tuple[int, int]:
    return (wanted, wanted + 1) if isinstance(wanted, int) else wanted


def _key(wanted: int | tuple[int, int] | None) -> int | slice:
    if wanted is None:
        return slice(None)
    return wanted if isinstance(wanted, int) else slice(*wanted)


def _cut(axis: Any, first: int, stop: int) -> Any:
    """Return an axis of the bins from first on, without flow; a flow bin among them reaches to infinity."""
    label = {"name": axis.name, "label": axis.label}
    low = int(axis.traits.underflow)
    if axis.traits.continuous:
        edges = np.concatenate([[-np.inf] * low, axis.edges, [np.inf] * int(axis.traits.overflow)])
        return hist.axis.Variable(edges[first : stop + 1], underflow=False, overflow=False, **label)
    keys = list(axis)[max(first - low, 0) : stop - low]
    if len(keys) < stop - first:
        message = f"A range of axis {axis.name!r} cannot hold its flow bins: it has categories."
        raise RequestError(message, code="unknown-bin")
    if isinstance(axis, hist.axis.StrCategory):
        return hist.axis.StrCategory(keys, flow=False, **label)
    return hist.axis.IntCategory([int(key) for key in keys], flow=False, **label)
