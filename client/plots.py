"""Plots that one would put into a talk. Matplotlib is loaded when one is drawn."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from binworks.tensors import incomplete
from binworks.tensors.errors import RequestError
from binworks.tensors.fit import FitResult
from binworks.tensors.histogram import Float64
from binworks.tensors.projection import Projection, project
from binworks.tensors.tensor import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PROCESSES: dict[str, tuple[str, str]] = {
    "Wmunu": (r"$W\to\mu\nu$", "#5790fc"),
    "Wtaunu": (r"$W\to\tau\nu$", "#92c5ff"),
    "Zmumu": (r"$Z/\gamma^*\to\mu\mu$", "#f89c20"),
    "Ztautau": (r"$Z/\gamma^*\to\tau\tau$", "#ffcc80"),
    "Nonprompt": ("Nonprompt", "#9c9ca1"),
}
"""Label and colour of known processes; others get their name and the next of `SPARE`."""
SPARE = ("#964a8b", "#e42536", "#7a21dd", "#b9ac70", "#717581")
MASS_COLOUR, BAND_COLOUR = "#c4161c", "#1b5fbf"
STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.labelsize": 12,
    "axes.linewidth": 1.0,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "xtick.minor.visible": True,
    "ytick.minor.visible": True,
    "figure.dpi": 150,
    "savefig.dpi": 150,
}
LINEAR_PERCENT = 0.1
"""Effects of the mass are drawn to a linear scale up to here, to a logarithmic one beyond."""
FORMATS = (".png", ".pdf", ".svg")


def plot_fit(
    tensor: Tensor,
    result: FitResult,
    path: str | os.PathLike[str] | None = None,
    *,
    data: Float64 | None = None,
    title: str = "",
) -> Figure:
    """Draw the muon pT: data and prediction, their ratio, and what a shift of the W mass does.

    A tensor that lacks events gets a red mark that says so.

    Parameters
    ----------
    tensor : Tensor
    result : FitResult
        Of this tensor.
    path : path, optional
        Where to save it; the suffix says the format.
    data : array, shape bins, optional
        What was fitted in place of the tensor's data.
    title : str
        Stands above, on the left.

    Raises
    ------
    RequestError
        ``unknown-format`` if the suffix is none of .png, .pdf, .svg.
    """
    target = None if path is None else Path(path)
    if target is not None and target.suffix not in FORMATS:
        message = f"A plot cannot be saved as {target.name!r}."
        raise RequestError(message, code="unknown-format", hint=f"Suffixes: {', '.join(FORMATS)}.")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    projected = project(tensor, result, "pt", data)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 8.0), layout="constrained")
        grid = {"height_ratios": (3.0, 1.3, 1.7), "hspace": 0.04}
        top, middle, bottom = figure.subplots(3, 1, sharex=True, gridspec_kw=grid)
        _draw_spectrum(top, projected, tensor.metadata.get("luminosity"), title)
        _draw_ratio(middle, projected)
        _draw_mass(bottom, projected, result)
        figure.align_ylabels()
        if mark := incomplete.mark(tensor.metadata):
            figure.suptitle(mark, color=MASS_COLOUR, fontsize=14, fontweight="bold")
        if target is not None:
            figure.savefig(target)
    return figure


def _draw_spectrum(axes: Axes, p: Projection, luminosity: float | None, title: str) -> None:
    """Draw the stacked processes, smallest first, under the data."""
    base = np.zeros_like(p.data)
    spare = iter(SPARE * len(p.processes))
    for row in np.argsort(p.postfit.sum(axis=1)):
        name = p.processes[row]
        label, colour = PROCESSES.get(name) or (name, next(spare))
        axes.stairs(base + p.postfit[row], p.edges, baseline=base, fill=True, color=colour, label=label, lw=0)
        base = base + p.postfit[row]
    axes.stairs(base, p.edges, color="black", lw=0.8)
    centres, width = _centres(p), p.edges[1] - p.edges[0]
    axes.errorbar(
        centres, p.data, yerr=np.sqrt(p.data), xerr=None, fmt="o", ms=3.5, color="black", label="Data"
    )
    axes.set_ylabel(f"Events / {width:g} GeV" if width != 1 else "Events / GeV")
    axes.set_ylim(0, 1.28 * float(np.max(p.data)))
    axes.set_xlim(p.edges[0], p.edges[-1])
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 3), useMathText=True)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="upper right")
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    if luminosity is not None:
        axes.set_title(rf"{luminosity:.3g} pb$^{{-1}}$ (13 TeV)", loc="right", fontsize=11)


def _draw_ratio(axes: Axes, p: Projection) -> None:
    """Draw data over the fitted prediction, with its uncertainty before and after the fit, and the +-10 MeV band."""
    expected = p.postfit.sum(axis=0)
    before = np.hypot(p.prefit_uncertainty, p.simulation) / p.prefit.sum(axis=0)
    after = np.hypot(p.postfit_uncertainty, p.simulation) / expected
    axes.stairs(1 + before, p.edges, baseline=1 - before, fill=True, color="#d9d9d9", label="before the fit")
    axes.stairs(1 + after, p.edges, baseline=1 - after, fill=True, color="#a6a6a6", label="after the fit")
    _draw_shift(axes, p, 10.0, offset=1.0)
    centres = _centres(p)
    error = np.sqrt(p.data) / expected
    axes.errorbar(centres, p.data / expected, yerr=error, fmt="o", ms=3.5, color="black")
    axes.axhline(1, color="black", lw=0.6)
    reach = np.max(np.abs(p.data / expected - 1) + error)
    axes.set_ylim(1 - 1.25 * max(reach, 1.3 * np.max(before)), 1 + 1.6 * max(reach, 1.3 * np.max(before)))
    axes.set_ylabel("Data / fit")
    axes.legend(loc="upper left", ncols=3, columnspacing=1.2)


def _draw_mass(axes: Axes, p: Projection, result: FitResult) -> None:
    """Draw what the mass alone does, on a scale where 10 MeV can be seen: the band, and the fitted shift."""
    fitted = 100 * p.mass_effect(result.mass_shift)
    low, high = (100 * p.mass_effect(result.mass_shift + way * result.uncertainty) for way in (-1, 1))
    label = rf"fitted: ${result.mass_shift:+.1f} \pm {result.uncertainty:.1f}$ MeV"
    axes.stairs(high, p.edges, baseline=low, fill=True, color=MASS_COLOUR, alpha=0.16, lw=0)
    axes.stairs(fitted, p.edges, baseline=None, color=MASS_COLOUR, lw=1.8, label=label)
    _draw_shift(axes, p, 10.0, scale=100.0)
    axes.axhline(0, color="black", lw=0.6)
    reach = max(float(np.max(np.abs(np.stack([low, high])))), 2 * LINEAR_PERCENT)
    axes.set_yscale("symlog", linthresh=LINEAR_PERCENT, linscale=1.0)
    axes.set_ylim(-2 * reach, 6 * reach)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel(r"Effect of $m_W$ [%]")
    axes.set_xlabel(r"Muon $p_T$ [GeV]")
    axes.legend(loc="upper left", ncols=2, columnspacing=1.2)


def _draw_shift(axes: Axes, p: Projection, shift: float, *, offset: float = 0.0, scale: float = 1.0) -> None:
    """Draw the band between the mass shifted up and down."""
    high, low = (offset + scale * p.mass_effect(way * shift) for way in (1, -1))
    label = rf"$m_W \pm {shift:g}$ MeV"
    axes.stairs(high, p.edges, baseline=low, fill=True, color=BAND_COLOUR, alpha=0.35, lw=0, label=label)
    axes.stairs(high, p.edges, baseline=None, color=BAND_COLOUR, lw=1.0)
    axes.stairs(low, p.edges, baseline=None, color=BAND_COLOUR, lw=1.0)


def _centres(p: Projection) -> Float64:
    return (p.edges[1:] + p.edges[:-1]) / 2
