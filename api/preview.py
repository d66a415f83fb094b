"""A picture of a histogram: its projection on each axis."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from binworks.tensors.histogram import Float64, Histogram

COLUMNS = 3
BLUE, RED = "#1f4e9c", "#c4161c"


def projections(histogram: Histogram, title: str, mark: str = "") -> Figure:
    """Return a picture with one panel an axis.

    Parameters
    ----------
    histogram : Histogram
        Sums of weights; flow bins are added up and not drawn.
    title : str
        Stands above the panels.
    mark : str
        Stands below them, in red: what the sums lack.
    """
    drawn = [position for position, axis in enumerate(histogram.axes) if axis.size > 1] or [0]
    columns = min(COLUMNS, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.0 * rows + 0.4), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=11)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, position in zip(panels, drawn, strict=False):
        _panel(panel, histogram, position)
    for panel in panels[len(drawn) :]:
        panel.set_visible(False)
    if mark:
        figure.supxlabel(mark, color=RED, fontsize=14, fontweight="bold")
    return figure


def png(figure: Figure) -> bytes:
    """Return the bytes of a picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _panel(panel: Any, histogram: Histogram, position: int) -> None:
    axis = histogram.axes[position]
    others = tuple(i for i in range(len(histogram.axes)) if i != position)
    edges = _finite(axis)
    sums = _inner(axis, histogram.values.sum(axis=others))
    panel.stairs(sums, edges, color=BLUE, fill=True, alpha=0.25)
    panel.stairs(sums, edges, color=BLUE, linewidth=1.2)
    if histogram.variances is not None:
        errors = np.sqrt(_inner(axis, histogram.variances.sum(axis=others)))
        panel.errorbar((edges[1:] + edges[:-1]) / 2, sums, errors, fmt="none", color=BLUE, linewidth=0.8)
    label = axis.label or axis.name
    panel.set_xlabel(
        f"{label} (last bin without end)" if axis.traits.continuous and np.isinf(axis.edges[-1]) else label
    )
    panel.set_ylabel("sum of weights")
    panel.set_xlim(edges[0], edges[-1])
    panel.ticklabel_format(axis="y", scilimits=(-3, 4))
    panel.spines[["top", "right"]].set_visible(False)


def _inner(axis: Any, sums: Float64) -> Float64:
    """Cut off the flow bins."""
    first = int(axis.traits.underflow)
    return sums[first : first + axis.size]


def _finite(axis: Any) -> NDArray[np.float64]:
    """Draw a bin that reaches to infinity as wide as its neighbour; categories at their numbers."""
    if not axis.traits.continuous:
        return np.arange(axis.size + 1) - 0.5
    edges = np.array(axis.edges, float)
    finite = edges[np.isfinite(edges)]
    width = finite[-1] - finite[-2] if len(finite) > 1 else 1.0
    edges[edges == np.inf] = finite[-1] + width
    edges[edges == -np.inf] = finite[0] - width
    return edges
