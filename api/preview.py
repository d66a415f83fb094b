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


@dataclass(frozen=True)
class Frame:
    """How large a picture is.

    Parameters
    ----------
    size : (float, float)
        Inches.
    dots : int
        Per inch.
    left : float
        Room for numbers, as a part of the width.
    columns : int
        Of the legend, at most.
    """

    size: tuple[float, float]
    dots: int
    left: float
    columns: int

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height."""
        return round(self.size[0] * self.dots), round(self.size[1] * self.dots)


Shade = Literal["light", "dark"]
Shape = Literal["wide", "narrow"]
FRAMES: dict[Shape, Frame] = {
    "wide": Frame((7.0, 4.6), 160, 0.095, 4),
    "narrow": Frame((3.9, 4.3), 200, 0.15, 2),
}
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
    title, cuts, source, mark : str
        What it is; what was selected; where it is from; what it lacks.
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
    source: str
    mark: str

    @property
    def prediction(self) -> Float64:
        """Sum of the stack."""
        return (
            np.sum([sums for *_, sums in self.stack], axis=0) if self.stack else np.zeros(len(self.edges) - 1)
        )


def draw(look: Look, shade: Shade, shape: Shape = "wide") -> bytes:
    """Return a picture as PNG: the stacked prediction under the data; below, all over the prediction.

    Parameters
    ----------
    look : Look
        What to draw.
    shade : "light" or "dark"
        For what paper.
    shape : "wide" or "narrow"
        For what screen.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    theme, frame = THEMES[shade], FRAMES[shape]
    buffer = io.BytesIO()
    with _one_at_a_time, mpl.rc_context(_style(theme)):
        figure = Figure(figsize=frame.size, dpi=frame.dots)
        low, high = 0.355 if look.stack else 0.11, 0.805 if look.mark else 0.87
        wide = 0.98 - frame.left
        top = figure.add_axes((frame.left, low, wide, high - low))
        _spectrum(top, look, theme)
        bottom = top
        if look.stack:
            bottom = figure.add_axes((frame.left, 0.11, wide, 0.23), sharex=top)
            top.tick_params(labelbottom=False)
            _ratio(bottom, look, theme)
        _legend(top, bottom, frame.columns)
        bottom.set_xlabel(look.label)
        if look.ticks:
            bottom.set_xticks((look.edges[1:] + look.edges[:-1]) / 2, look.ticks)
            bottom.minorticks_off()
        _say(figure, look, theme, frame)
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


def _say(figure: Figure, look: Look, theme: Theme, frame: Frame) -> None:
    """Write what it is above, and in red what it lacks."""
    left = 0.095 if frame.left < 0.1 else 0.03
    figure.text(left, 0.955, _plain(look.title), fontweight="bold", fontsize=10 if left > 0.05 else 8.5)
    figure.text(left, 0.915, _plain(look.cuts), color=theme.quiet, fontsize=8.5)
    figure.text(0.98, 0.015, _plain(look.source), color=theme.quiet, fontsize=7, ha="right")
    if look.mark:
        figure.text(left, 0.872, _plain(look.mark), color=theme.mark, fontsize=9, fontweight="bold")


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


def _legend(top: Axes, bottom: Axes, most: int) -> None:
    """Name the layers in the order in which they lie, then the lines of the panel below."""
    handles, labels = top.get_legend_handles_labels()
    handles, labels = handles[::-1], labels[::-1]
    if bottom is not top:
        lines, names = bottom.get_legend_handles_labels()
        handles, labels = [*handles, *lines], [*labels, *names]
    columns = min(most, max(1, len(labels)))
    top.legend(handles, labels, loc="upper right", ncols=columns, columnspacing=1.2, handlelength=1.6)


def _ratio(axes: Axes, look: Look, theme: Theme) -> None:
    expected = look.prediction

    def over(sums: Float64) -> Float64:
        return np.divide(sums, expected, out=np.full_like(expected, np.nan), where=expected > 0)

    error = over(np.sqrt(look.variance))
    _band(axes, over(expected), error, look.edges, theme)
    axes.axhline(1, color=theme.quiet, lw=0.6)
    reach = [1.3 * error]
    if look.data is not None:
        spread = over(np.sqrt(np.abs(look.data)))
        _points(axes, look, over(look.data), spread, theme)
        reach.append(np.abs(over(look.data) - 1) + spread)
    effects = [over(sums) - 1 for _, sums in look.shifts]
    times = _magnified(_highest(effects), _highest(reach))
    more = f" (× {times:g})" if times > 1 else ""
    for (name, _), effect, colour, dash in zip(
        look.shifts, effects, (theme.up, theme.down), ("-", (0, (4, 1.5))), strict=False
    ):
        label = _plain(name) + more
        axes.stairs(1 + times * effect, look.edges, baseline=None, color=colour, lw=1.2, ls=dash, label=label)
    most = 1.25 * min(max(_highest(reach), times * _highest(effects), 1e-5), 2.0)
    axes.set_ylim(1 - most, 1 + most)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.locator_params(axis="y", nbins=5)
    axes.set_ylabel("data / pred." if look.data is not None else "ratio")


def _highest(parts: list[Float64]) -> float:
    everything = np.abs(np.concatenate([np.zeros(1), *parts]))
    return float(np.max(everything[np.isfinite(everything)]))


def _magnified(effect: float, reach: float) -> float:
    """Return how many times larger an effect is drawn that could not be seen beside the rest: 1, 2, 5, 10, 20, ..."""
    room = 0.6 * reach / effect if effect > 1e-9 else 1.0
    if room < 2:
        return 1.0
    decade = 10.0 ** math.floor(math.log10(room))
    return max(step * decade for step in (1, 2, 5) if step * decade <= room)


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
