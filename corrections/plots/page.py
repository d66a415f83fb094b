"""What the pages share: their style, and the few ways in which binned numbers are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from binworks.tensors.histogram import Float64

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.labelsize": 11,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "image.cmap": "viridis",
    "figure.dpi": 110,
    "savefig.dpi": 110,
}
COLOURS = (
    "#3f90da",
    "#e76300",
    "#832db6",
    "#94a4a2",
    "#a96b59",
    "#bd1f01",
    "#717581",
    "#92dadd",
    "#ffa90e",
    "#b9ac70",
)
DATA, SIMULATION = "black", "#bd1f01"
CHARGE_COLOURS = {-1: "#3f90da", 0: "#717581", 1: "#bd1f01"}
CHARGE_NAMES = {-1: "negative", 0: "no charge", 1: "positive"}
PT_LABEL, ETA_LABEL, QT_LABEL = r"Muon $p_T$ [GeV]", r"Muon $\eta$", r"Boson $q_T$ [GeV]"
SIDE_BY_SIDE = (13.0, 7.5)
"""Inches of a page with several panels."""


class Page(NamedTuple):
    """A payload that was checked, as it is shown.

    Parameters
    ----------
    holds : str
        What is in it, in a few words.
    quantity : str
        What `low` and `high` are the range of, with its unit.
    low, high : float
    size : (float, float)
        Of the page, in inches.
    draw : callable
        Draws it into an empty figure.
    """

    holds: str
    quantity: str
    low: float
    high: float
    size: tuple[float, float]
    draw: Callable[[Figure], None]


def page(
    holds: str,
    quantity: str,
    values: Any,
    draw: Callable[[Figure], None],
    size: tuple[float, float] = SIDE_BY_SIDE,
) -> Page:
    """Return a page, its range that of the values."""
    return Page(holds, quantity, float(np.min(values)), float(np.max(values)), size, draw)


def finite_edges(edges: Any) -> Float64:
    """Return edges that can be drawn: a bin without end is as wide as its neighbour."""
    found = np.array(edges, dtype=np.float64)
    beyond = np.abs(found) > 1e300
    inner = found[~beyond]
    if len(inner) < 2:  # nothing to take a width from
        start = float(inner[0] if len(inner) else 0.0) - float(beyond[0])
        return np.arange(start, start + len(found), dtype=np.float64)
    if beyond[0]:
        found[0] = 2 * inner[0] - inner[1]
    if beyond[-1]:
        found[-1] = 2 * inner[-1] - inner[-2]
    return found


def steps(axes: Axes, edges: Any, values: Any, errors: Any = None, **style: Any) -> None:
    """Draw a step in each bin, with a band of one standard deviation if there are errors."""
    drawn = finite_edges(edges)
    axes.stairs(values, drawn, baseline=None, **({"lw": 1.4} | style))
    if errors is not None:
        colour = style.get("color")
        axes.stairs(
            values + errors, drawn, baseline=values - errors, fill=True, color=colour, alpha=0.25, lw=0
        )
    axes.use_sticky_edges = False
    axes.set_xlim(drawn[0], drawn[-1])


def even_steps(axes: Axes, edges: Any, rows: Iterable[tuple[str, Any, Any]]) -> None:
    """Draw (label, colour, values) as steps in bins that are all shown as wide, with their edges in words."""
    places = np.arange(len(edges))
    for label, colour, values in rows:
        steps(axes, places, values, color=colour, label=label)
    axes.set_xticks(places, [f"{edge:g}" for edge in edges], rotation=40, fontsize=8)
    axes.axhline(0, color="gray", lw=0.6)
    axes.margins(y=0.15)


def heat(
    axes: Axes,
    x_edges: Any,
    y_edges: Any,
    values: Any,
    label: str,
    *,
    middle: float | None = None,
    reach: float = 0.0,
    shrink: float = 1.0,
    **style: Any,
) -> None:
    """Draw values of shape (x, y) as colours.

    With a middle there are two colours, one below and one above, that reach to the farthest value, but at least to
    ``reach``.
    """
    drawn = np.asarray(values, dtype=np.float64).T
    if middle is not None:
        reach = max(float(np.abs(drawn - middle).max()), reach) or 1.0
        style = {"cmap": "RdBu_r", "vmin": middle - reach, "vmax": middle + reach} | style
    mesh = axes.pcolormesh(finite_edges(x_edges), finite_edges(y_edges), drawn, rasterized=True, **style)
    bar = axes.figure.colorbar(mesh, ax=axes, pad=0.02, shrink=shrink)
    bar.set_label(label)
    bar.ax.tick_params(direction="out")
    axes.tick_params(top=False, right=False, direction="out")


def correlation(axes: Axes, covariance: Float64, blocks: Iterable[str]) -> None:
    """Draw the correlation matrix of a covariance whose parameters come in blocks of equal size."""
    sizes = np.sqrt(np.diag(covariance))
    product = np.outer(sizes, sizes)
    matrix = np.divide(covariance, product, out=np.zeros_like(covariance), where=product > 0)
    edges = np.arange(len(matrix) + 1)
    heat(axes, edges, edges, matrix, "Correlation", middle=0.0, reach=1.0, shrink=0.62)
    names = list(blocks)
    size = len(matrix) // len(names)
    for border in range(size, len(matrix), size):
        axes.axhline(border, color="black", lw=0.6)
        axes.axvline(border, color="black", lw=0.6)
    places = (np.arange(len(names)) + 0.5) * size
    axes.set_xticks(places, names)
    axes.set_yticks(places, names)
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.set_aspect("equal")


def shades(count: int, cmap: str = "viridis") -> list[Any]:
    """Return colours that go from dark to light, for curves that have an order."""
    from matplotlib import colormaps

    return [colormaps[cmap](x) for x in np.linspace(0.05, 0.88, count)]


def spread(count: int, wanted: int) -> list[int]:
    """Return up to so many of the numbers 0 to count - 1, evenly spread, both ends among them."""
    return sorted({round(x) for x in np.linspace(0, count - 1, min(count, wanted))})


def between(edges: Any, place: int, name: str, unit: str = "") -> str:
    """Return a bin in words."""
    low, high = edges[place], edges[place + 1]
    if abs(high) > 1e300:
        return f"{name} > {low:g}{unit}"
    return f"{low:g} < {name} < {high:g}{unit}"
