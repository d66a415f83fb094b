"""The page of any table: the first of its category keys, in its first two binned inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from binworks.corrections.plots.page import Page, heat, page, steps
from binworks.corrections.sets import CorrectionSet
from binworks.corrections.tables import DenseTable, load_tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 9
"""Corrections that are drawn on a page."""


def tables(corrections: CorrectionSet, name: str) -> Page:
    """Show every correction of a payload, up to nine of them as a plot."""
    found = load_tables(corrections, name)
    shown = list(found.items())[:MOST]
    columns = min(len(shown), 3)
    rows = -(-len(shown) // 3)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (correction, table) in zip(panels, shown, strict=False):
            _draw(axes, table)
            axes.set_title(correction, fontsize=8)
        for axes in panels[len(shown) :]:
            axes.set_axis_off()
        if len(found) > len(shown):
            figure.supxlabel(f"The first {len(shown)} of {len(found)} corrections", fontsize=10)

    inputs = ", ".join(next(iter(found.values())).axes)
    named = ", ".join(found) if len(found) <= 3 else f"{len(found)} corrections"
    values = np.concatenate([_chosen(table)[0].ravel() for table in found.values()])
    return page(
        f"{named} in {inputs}", "value", values, draw, (max(5.5 * columns, 8.0), max(4.2 * rows, 5.5))
    )


def _chosen(table: DenseTable) -> tuple[Any, list[str]]:
    """Return the values, and the binned inputs they depend on, at a key of each category: nominal or the first."""
    place: list[Any] = []
    for axis in table.axes.values():
        if isinstance(axis, tuple):
            place.append(axis.index("nominal") if "nominal" in axis else 0)
        else:
            place.append(slice(None))
    binned = [name for name, axis in table.axes.items() if not isinstance(axis, tuple)]
    return table.values[tuple(place)], binned


def _draw(axes: Axes, table: DenseTable) -> None:
    values, binned = _chosen(table)
    if not binned:
        axes.text(0.5, 0.5, f"{float(values):g}", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    if len(binned) == 1:
        steps(axes, table.axes[binned[0]], values)
        axes.set(xlabel=binned[0], ylabel="value")
        return
    while values.ndim > 2:
        values = values[..., values.shape[-1] // 2]
    heat(axes, table.axes[binned[0]], table.axes[binned[1]], values, "value")
    axes.set(xlabel=binned[0], ylabel=binned[1])
