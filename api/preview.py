"""Pictures of histograms: projections of one, and a snapshot's prediction with data, ratio and a variation.

Matplotlib is loaded when the first one is drawn, and draws one at a time: it is not made for several threads.
"""

from __future__ import annotations

import io
import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from binworks.tensors.histogram import Float64, Histogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
BLUE, RED = "#1f4e9c", "#c4161c"
COLOURS = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)
"""Of processes, in their order; made for the colour-blind (M. Petroff, arXiv:2107.02270)."""
DOTS_PER_INCH = 160
SIZE = (7.0, 4.6)
"""Inches; the page shows a hundred pixels for one."""
_one_at_a_time = threading.RLock()


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
    from matplotlib.figure import Figure

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
    with _one_at_a_time:
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


@dataclass(frozen=True)
class Theme:
    """Colours of a picture."""

    paper: str
    ink: str
    quiet: str
    band: str
    up: str
    down: str
    mark: str


Shade = Literal["light", "dark"]
THEMES: dict[Shade, Theme] = {
    "light": Theme("#ffffff", "#1b2330", "#5b6676", "#8a94a3", "#c4161c", "#1b5fbf", "#b3131a"),
    "dark": Theme("#161b22", "#dfe5ec", "#9aa6b5", "#7d8896", "#ff7b72", "#79b8ff", "#ff8a82"),
}


@dataclass(frozen=True)
class Look:
    """A snapshot along one axis.

    Parameters
    ----------
    edges : array, shape (bins + 1,)
    ticks : tuple of str
        Names of the bins, if they are categories.
    label, unit : str
        Of the two axes.
    stack : tuple of (str, str, array of shape (bins,))
        Name, colour and sums of what the prediction consists of; it may be empty.
    variance : array, shape (bins,)
        Of the prediction, from the number of simulated events.
    data : array, shape (bins,), or None
        What was observed.
    shifts : tuple of (str, array of shape (bins,))
        Name and prediction of the variation up and, if there is one, down.
    title, cuts, mark : str
        What it is; what was selected; what it lacks.
    """

    edges: Float64
    ticks: tuple[str, ...]
    label: str
    unit: str
    stack: tuple[tuple[str, str, Float64], ...]
    variance: Float64
    data: Float64 | None
    shifts: tuple[tuple[str, Float64], ...]
    title: str
    cuts: str
    mark: str

    @property
    def prediction(self) -> Float64:
        """Sum of the stack."""
        return (
            np.sum([sums for *_, sums in self.stack], axis=0) if self.stack else np.zeros(len(self.edges) - 1)
        )


def draw(look: Look, shade: Shade) -> bytes:
    """Return a picture as PNG: the stacked prediction under the data; below, all over the prediction.

    Parameters
    ----------
    look : Look
        What to draw.
    shade : "light" or "dark"
        For what paper.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    theme = THEMES[shade]
    buffer = io.BytesIO()
    with _one_at_a_time, mpl.rc_context(_style(theme)):
        figure = Figure(figsize=SIZE, dpi=DOTS_PER_INCH)
        low = 0.355 if look.stack else 0.11
        top = figure.add_axes((0.095, low, 0.885, 0.87 - low - (0.065 if look.mark else 0.0)))
        _spectrum(top, look, theme)
        bottom = top
        if look.stack:
            bottom = figure.add_axes((0.095, 0.11, 0.885, 0.23), sharex=top)
            top.tick_params(labelbottom=False)
            _ratio(bottom, look, theme)
        _legend(top, bottom)
        bottom.set_xlabel(look.label)
        if look.ticks:
            bottom.set_xticks((look.edges[1:] + look.edges[:-1]) / 2, look.ticks)
            bottom.minorticks_off()
        _say(figure, look, theme)
        figure.savefig(buffer, format="png", metadata={"Software": "binworks"})
    return buffer.getvalue()


def _style(theme: Theme) -> dict[Any, Any]:
    ink = dict.fromkeys(
        ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), theme.ink
    )
    paper = dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), theme.paper)
    lines = {
        "axes.linewidth": 0.7,
        "xtick.direction": "in",
        "ytick.direction": "in",
        "axes.spines.top": False,
    }
    rest = {"font.size": 9, "legend.frameon": False, "legend.fontsize": 8.5, "axes.spines.right": False}
    return {**ink, **paper, **lines, **rest}


def _say(figure: Figure, look: Look, theme: Theme) -> None:
    """Write what it is above, and in red what it lacks."""
    figure.text(0.095, 0.955, _plain(look.title), fontweight="bold", fontsize=10)
    figure.text(0.095, 0.915, _plain(look.cuts), color=theme.quiet, fontsize=8.5)
    if look.mark:
        figure.text(0.095, 0.872, _plain(look.mark), color=theme.mark, fontsize=10, fontweight="bold")


def _plain(text: str) -> str:
    """Keep names from being read as formulas."""
    return text.replace("$", r"\$")


def _spectrum(axes: Axes, look: Look, theme: Theme) -> None:
    base = np.zeros(len(look.edges) - 1)
    for name, colour, sums in sorted(look.stack, key=lambda layer: float(layer[2].sum())):
        axes.stairs(base + sums, look.edges, baseline=base, fill=True, color=colour, lw=0, label=_plain(name))
        base = base + sums
    highest = float(np.max(base, initial=0.0))
    if look.stack:
        axes.stairs(base, look.edges, baseline=None, color=theme.ink, lw=0.7)
        _band(axes, base, np.sqrt(look.variance), look.edges, theme)
    if look.data is not None:
        _points(axes, look, look.data, np.sqrt(np.abs(look.data)), theme, "Data")
        highest = max(highest, float(np.max(look.data, initial=0.0)))
    axes.set_ylabel(look.unit)
    axes.set_xlim(look.edges[0], look.edges[-1])
    axes.set_ylim(min(0.0, 1.1 * float(np.min(base, initial=0.0))), 1.3 * highest or 1.0)
    axes.ticklabel_format(axis="y", scilimits=(-3, 4), useMathText=True)


def _legend(top: Axes, bottom: Axes) -> None:
    """Name the layers in the order in which they lie, then the lines of the panel below."""
    handles, labels = top.get_legend_handles_labels()
    handles, labels = handles[::-1], labels[::-1]
    if bottom is not top:
        lines, names = bottom.get_legend_handles_labels()
        handles, labels = [*handles, *lines], [*labels, *names]
    columns = min(4, max(1, len(labels)))
    top.legend(handles, labels, loc="upper right", ncols=columns, columnspacing=1.2, handlelength=1.6)


def _ratio(axes: Axes, look: Look, theme: Theme) -> None:
    expected = look.prediction

    def over(sums: Float64) -> Float64:
        return np.divide(sums, expected, out=np.full_like(expected, np.nan), where=expected > 0)

    error = over(np.sqrt(look.variance))
    _band(axes, over(expected), error, look.edges, theme)
    axes.axhline(1, color=theme.quiet, lw=0.6)
    reach, shifts = [1.3 * error], [np.zeros(1)]
    for (name, sums), colour, dash in zip(
        look.shifts, (theme.up, theme.down), ("-", (0, (4, 1.5))), strict=False
    ):
        axes.stairs(over(sums), look.edges, baseline=None, color=colour, lw=1.2, ls=dash, label=_plain(name))
        shifts.append(np.abs(over(sums) - 1))
    if look.data is not None:
        spread = over(np.sqrt(np.abs(look.data)))
        _points(axes, look, over(look.data), spread, theme)
        reach.append(np.abs(over(look.data) - 1) + spread)
    _zoom(axes, _highest(reach), _highest(shifts))
    axes.set_ylabel("data / prediction" if look.data is not None else "ratio")


def _highest(parts: list[Float64]) -> float:
    everything = np.concatenate(parts)
    return float(np.max(everything[np.isfinite(everything)], initial=0.0))


def _zoom(axes: Axes, reach: float, shift: float) -> None:
    """Show all, but for a variation that would not be seen then: it is what was asked for."""
    most = 1.25 * min(max(reach, shift, 1e-5), 2.0)
    most = min(most, 4 * shift) if shift > 1e-6 else most
    axes.set_ylim(1 - most, 1 + most)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.locator_params(axis="y", nbins=5)


def _band(axes: Axes, middle: Float64, error: Float64, edges: Float64, theme: Theme) -> None:
    low, high = np.nan_to_num(middle - error), np.nan_to_num(middle + error)
    axes.stairs(high, edges, baseline=low, fill=True, color=theme.band, alpha=0.45, lw=0)


def _points(
    axes: Axes, look: Look, sums: Float64, error: Float64, theme: Theme, label: str | None = None
) -> None:
    centres = (look.edges[1:] + look.edges[:-1]) / 2
    dots: dict[str, Any] = {"fmt": "o", "ms": 2.6, "lw": 0.8, "color": theme.ink}
    axes.errorbar(centres, sums, error, label=label, zorder=5, **dots)


def along(histogram: Histogram, name: str) -> tuple[Float64, Float64]:
    """Return the sums over all axes but one, without its flow bins, and their variances (0 where none are kept)."""
    position = histogram.axis(name)
    axis = histogram.axes[position]
    others = tuple(i for i in range(len(histogram.axes)) if i != position)
    values = _inner(axis, histogram.values.sum(axis=others))
    if histogram.variances is None:
        return values, np.zeros_like(values)
    return values, _inner(axis, histogram.variances.sum(axis=others))


def edges_of(axis: Any) -> tuple[Float64, tuple[str, ...]]:
    """Return where the bins of an axis end in a picture, and their names if they are categories."""
    names = () if axis.traits.continuous else tuple(str(axis.bin(i)) for i in range(axis.size))
    return _finite(axis), names


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
