"""What both UHI formats hold: histograms by name, made for plain readers of uhi, hist and boost-histogram.

::

    <channel>/data                              observed events
    <channel>/processes/<process>/nominal       expected events, with the variance of the simulation
    <channel>/processes/<process>/variations    template minus nominal: (parameter, direction, the channel's axes)

The names on the axis ``parameter`` are those that change the process; ``direction`` is ``up`` (+1) and ``down`` (-1).
A channel with masked bins has one axis ``bin`` in the place of its own: the flat numbers of the bins that are left.

Beside them stands a document of everything else (`document`). Variances are not inflated; the document has the factor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import hist
import numpy as np

from binworks.tensors.export import templates
from binworks.tensors.fitinput import FitChannel, FitInput
from binworks.tensors.histogram import Float64, Histogram

VERSION = "binworks.uhi/1"
DIRECTIONS = ("up", "down")


def document(fit: FitInput) -> str:
    """Return the document that stands beside the histograms."""
    return templates.document(fit, VERSION)


def histograms(channel: FitChannel) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give name and description (UHI schema 1, arrays in it) of the data and of the nominal templates."""
    axes = templates.axes(channel)
    extents = tuple(axis.extent for axis in axes)
    data = Histogram(axes, channel.data[channel.used].reshape(extents))
    yield f"{channel.name}/data", described(data)
    for number, process in enumerate(channel.processes):
        values, variances = (
            array[number][channel.used].reshape(extents) for array in (channel.nominal, channel.variances)
        )
        nominal = Histogram(axes, values, variances, {"process": process})
        yield f"{channel.name}/processes/{process}/nominal", described(nominal)


def described(histogram: Histogram) -> dict[str, Any]:
    """Return a histogram as `uhi` writes it, with its arrays."""
    found = histogram.uhi()
    arrays = {"values": histogram.values}
    if histogram.variances is not None:
        arrays["variances"] = histogram.variances
    return {**found, "storage": {**found["storage"], **arrays}}


def variations(fit: FitInput, channel: FitChannel, process: int) -> Iterator[tuple[list[str], Float64]]:
    """Give names and shifts, shape (n, 2, bins), of the parameters that change something, some at a time."""
    nominal = channel.nominal[process][channel.used]
    for piece in templates.factors(channel, process):
        moved = piece.moved
        if moved.any():
            names = [fit.parameters[position].name for position in piece.parameters[moved]]
            shifts = np.stack([piece.up[moved] - 1, piece.down[moved] - 1], axis=1) * nominal
            yield names, shifts


def variation_axes(channel: FitChannel, names: list[str]) -> tuple[Any, ...]:
    """Return the axes of the variations of these parameters."""
    return (
        hist.axis.StrCategory(names, name="parameter", flow=False),
        hist.axis.StrCategory(DIRECTIONS, name="direction", flow=False),
        *templates.axes(channel),
    )


def variation_facts(process: str) -> Mapping[str, str]:
    """Return what is said of variations in their metadata."""
    return {"process": process, "content": "template minus nominal"}
