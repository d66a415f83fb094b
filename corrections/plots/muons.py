"""Pages of what corrects a muon's momentum: scale and its closure, resolution, response, the refit of its track."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from binworks.corrections import cvh as cvh_payload
from binworks.corrections import momentum_scale as scale_payload
from binworks.corrections import resolution as resolution_payload
from binworks.corrections import response as response_payload
from binworks.corrections import z_closure as closure_payload
from binworks.corrections.payload import ETA_EDGES_24, ETA_EDGES_48
from binworks.corrections.plots.page import (
    COLOURS,
    DATA,
    ETA_LABEL,
    PT_LABEL,
    SIMULATION,
    Page,
    between,
    correlation,
    heat,
    page,
    shades,
    spread,
    steps,
)
from binworks.corrections.sets import CorrectionSet
from binworks.tensors.histogram import Float64

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TYPICAL_PT = 45.0
"""GeV: near the peak of W and Z."""
SCALE_LABELS = {"A": r"$A$ [$10^{-3}$]", "e": r"$e$ [MeV]", "M": r"$M$ [TeV$^{-1}$]"}
"""All three are drawn in thousandths of their unit."""


def momentum_scale(corrections: CorrectionSet, _name: str) -> Page:
    """Show A, e and M, their uncertainties and correlations."""
    data, covariance = scale_payload.load(corrections, is_data=True)
    simulation, _ = scale_payload.load(corrections, is_data=False)
    errors = dict(zip("AeM", np.sqrt(np.diag(covariance)).reshape(3, 48), strict=True))
    k = 1 / TYPICAL_PT
    moved = [t.A - t.e * k + charge * t.M / k for t in (data, simulation) for charge in (-1, 1)]

    def draw(figure: Figure) -> None:
        halves: Any = figure.subfigures(1, 2, width_ratios=(1.15, 1))
        left, right = halves
        panels = left.subplots(3, 1, sharex=True)
        for axes, (part, label) in zip(panels, SCALE_LABELS.items(), strict=True):
            error = 1e3 * errors[part]
            steps(
                axes, ETA_EDGES_48, 1e3 * getattr(data, part), error, color=DATA, label=r"data $\pm 1\sigma$"
            )
            steps(axes, ETA_EDGES_48, 1e3 * getattr(simulation, part), color=SIMULATION, label="simulation")
            axes.axhline(0, color="gray", lw=0.6)
            axes.set_ylabel(label)
        panels[0].set_title(r"$k \to k\,(1 + A - e k + q M / k)$, $k = 1/p_T$")
        panels[0].legend(ncols=2)
        panels[-1].set_xlabel(ETA_LABEL)
        left.align_ylabels()
        axes = right.subplots()
        correlation(axes, covariance, ("$A$", "$e$", "$M$"))
        axes.set_title(r"48 bins of $\eta$ each, from -2.4 to 2.4")

    holds = "A, e and M in 48 eta bins, data and simulation, with their covariance"
    return page(holds, f"dk/k at {TYPICAL_PT:g} GeV", moved, draw)


def z_closure(corrections: CorrectionSet, _name: str) -> Page:
    """Show the uncertainties of A and M that Z decays leave, and their correlations."""
    covariance, mz_shift = closure_payload.load(corrections)
    errors = np.sqrt(np.diag(covariance)).reshape(3, 24)
    a_and_m = np.r_[0:24, 48:72]

    def draw(figure: Figure) -> None:
        halves: Any = figure.subfigures(1, 2, width_ratios=(1.15, 1))
        left, right = halves
        panels = left.subplots(2, 1, sharex=True)
        for axes, part, error, scale, unit in (
            (panels[0], "A", errors[0], 1e5, r"$10^{-5}$"),
            (panels[1], "M", errors[2], 1e6, r"$10^{-6}$ GeV$^{-1}$"),
        ):
            steps(axes, ETA_EDGES_24, 0 * error, scale * error, color=COLOURS[0])
            axes.set_ylabel(rf"${part}$, $\pm 1\sigma$ [{unit}]")
        panels[0].axhline(
            1e5 * mz_shift, color=SIMULATION, ls="--", label=r"uncertainty of $m_Z$, all bins together"
        )
        panels[0].axhline(-1e5 * mz_shift, color=SIMULATION, ls="--")
        panels[0].margins(y=0.25)
        panels[0].legend()
        panels[0].set_title(r"What $Z \to \mu\mu$ leaves of the momentum scale")
        panels[1].set_xlabel(ETA_LABEL)
        left.align_ylabels()
        axes = right.subplots()
        correlation(axes, covariance[np.ix_(a_and_m, a_and_m)], ("$A$", "$M$"))
        axes.set_title(r"24 bins of $\eta$ each, from -2.4 to 2.4")

    holds = f"72 x 72 covariance of A, e and M in 24 eta bins; A moves by {mz_shift:.3g} with the Z mass"
    return page(holds, "uncertainty of A", errors[0], draw)


def _widths(parameters: Any, pt: Float64) -> Float64:
    """Return the relative width, shape (24, points)."""
    a, b, c, d = (np.asarray(values)[:, np.newaxis] for values in parameters)
    return np.asarray(np.sqrt(a**2 + (c * pt) ** 2 + b**2 / (1 + (d / pt) ** 2)))


def _width_errors(covariance: Float64, parameters: Any, pt: Float64) -> Float64:
    """Return the uncertainty of the relative width, from the covariance of (a^2, c^2, b^2)."""
    d = np.asarray(parameters.d)[:, np.newaxis]
    slopes = np.stack(
        [np.ones((24, len(pt))), np.broadcast_to(pt**2, (24, len(pt))), 1 / (1 + (d / pt) ** 2)]
    )
    blocks = covariance.reshape(3, 24, 3, 24)[:, np.arange(24), :, np.arange(24)]  # shape (24, 3, 3)
    variance = np.einsum("ibp,bij,jbp->bp", slopes, blocks, slopes)
    return np.asarray(np.sqrt(np.maximum(variance, 0)) / (2 * _widths(parameters, pt)))


def resolution(corrections: CorrectionSet, _name: str) -> Page:
    """Show the relative width of the momentum in data and simulation, and by how much simulation is smeared."""
    data, simulation = (resolution_payload.load(corrections, is_data=is_data) for is_data in (True, False))
    covariance = resolution_payload.load_covariance(corrections)
    pt = np.linspace(10, 100, 91)
    wide, narrow = _widths(data, pt), _widths(simulation, pt)
    errors = _width_errors(covariance, data, pt)

    def draw(figure: Figure) -> None:
        (by_eta, by_pt), (ratio, extra) = figure.subplots(2, 2)
        typical = int(np.argmin(np.abs(pt - TYPICAL_PT)))
        for axes, base in ((by_eta, 0.01), (ratio, narrow[:, typical])):
            error = errors[:, typical] / base
            steps(axes, ETA_EDGES_24, wide[:, typical] / base, error, color=DATA, label=r"data $\pm 1\sigma$")
            steps(axes, ETA_EDGES_24, narrow[:, typical] / base, color=SIMULATION, label="simulation")
            axes.set_xlabel(ETA_LABEL)
        by_eta.set_ylabel(r"$\sigma_k / k$ [%]")
        by_eta.set_title(rf"$p_T = {TYPICAL_PT:g}$ GeV")
        by_eta.legend()
        ratio.set_ylabel("Width / simulation")
        for b, colour in zip((12, 16, 20, 23), shades(4), strict=True):
            label = between(ETA_EDGES_24, b, r"$\eta$")
            by_pt.fill_between(
                pt, 100 * (wide - errors)[b], 100 * (wide + errors)[b], color=colour, alpha=0.25, lw=0
            )
            by_pt.plot(pt, 100 * wide[b], color=colour, label=label)
            by_pt.plot(pt, 100 * narrow[b], color=colour, ls="--")
        by_pt.set(xlabel=PT_LABEL, ylabel=r"$\sigma_k / k$ [%]", xlim=(pt[0], pt[-1]))
        by_pt.set_title("Data (lines), simulation (dashed)")
        by_pt.legend(ncols=2)
        smearing = 100 * np.sqrt(np.maximum(wide**2 - narrow**2, 0))
        edges = np.append(pt, 2 * pt[-1] - pt[-2]) - (pt[1] - pt[0]) / 2
        heat(extra, ETA_EDGES_24, edges, smearing, "Smearing of simulation [%]")
        extra.set(xlabel=ETA_LABEL, ylabel=PT_LABEL)

    holds = "a, b, c and d in 24 eta bins, data and simulation, with the covariance of a^2, c^2, b^2"
    typical = np.array([TYPICAL_PT])
    both = [_widths(data, typical), _widths(simulation, typical)]
    return page(holds, f"relative width at {TYPICAL_PT:g} GeV", both, draw)


def response(corrections: CorrectionSet, _name: str) -> Page:
    """Show the density of the response in some bins, its median and its width in all."""
    table = response_payload.load(corrections)
    n_pt, n_eta = table.knots.shape[:2]
    low, middle, high = _quantiles_of(table, np.array([-1.0, 0.0, 1.0]))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(2, 3)
        shown = spread(n_eta, 5)[len(spread(n_eta, 5)) // 2 :][:2]
        for axes, eta in zip(panels[:, 0], (shown * 2)[:2], strict=True):
            for pt, colour in zip(spread(n_pt, 5), shades(len(spread(n_pt, 5))), strict=True):
                label = between(table.pt_edges, pt, r"$p_T$", " GeV")
                for charge, line in ((1, "-"), (0, "--")):
                    r, density = _density(table, pt, eta, charge)
                    axes.plot(r, density, color=colour, ls=line, lw=1.2, label=label if charge else None)
            axes.set(xlabel=r"$r = (q/p)_{reco} / (q/p)_{gen}$", ylabel="Density")
            axes.set_title(between(table.eta_edges, eta, r"$\eta$"))
        panels[0, 0].legend(fontsize=7)
        panels[1, 0].legend(["positive", "negative"], fontsize=8)
        widths = {"vmin": 50 * (high - low).min(), "vmax": 50 * (high - low).max()}
        for column, charge, name in ((1, 0, "negative"), (2, 1, "positive")):
            shift = 1e3 * (middle[..., charge] - 1)
            heat(
                panels[0, column],
                table.eta_edges,
                table.pt_edges,
                shift.T,
                r"Median - 1 [$10^{-3}$]",
                middle=0.0,
                reach=max(0.1, 1e3 * float(np.abs(middle - 1).max())),
            )
            width = 50 * (high - low)[..., charge]
            heat(
                panels[1, column],
                table.eta_edges,
                table.pt_edges,
                width.T,
                "Half of the central 68 % [%]",
                **widths,
            )
            for axes in panels[:, column]:
                axes.set(xlabel="Generated " + r"$\eta$", ylabel=r"Generated $p_T$ [GeV]")
                axes.set_title(f"{name.capitalize()} muons")

    holds = f"{table.knots.shape[3]} quantiles of r in {n_pt} pT x {n_eta} eta bins, two charges"
    return page(holds, "r", table.knots, draw, (15.0, 8.0))


def _score(table: Any, place: tuple[int, ...], points: int) -> tuple[Float64, Float64, Float64]:
    """Return r, the normal score z(r) and its derivative, from the first quantile to the last."""
    knots, c = table.knots[place], table.coefficients[place]
    r = np.linspace(knots[0], knots[-1], points)
    piece = np.clip(np.searchsorted(knots, r, side="right") - 1, 0, len(knots) - 2)
    x = r - knots[piece]
    z = c[piece, 0] + x * (c[piece, 1] + x * (c[piece, 2] + x * c[piece, 3]))
    return r, z, c[piece, 1] + x * (2 * c[piece, 2] + x * 3 * c[piece, 3])


def _density(table: Any, pt: int, eta: int, charge: int) -> tuple[Float64, Float64]:
    r, z, slope = _score(table, (pt, eta, charge), 400)
    return r, np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * slope


def _quantiles_of(table: Any, scores: Float64) -> Float64:
    """Return the r at which the normal score has these values, shape (scores, pt, eta, 2)."""
    shape = table.knots.shape[:3]
    found = np.empty((len(scores), *shape))
    for place in np.ndindex(shape):
        r, z, _ = _score(table, place, 2000)
        found[:, *place] = np.interp(scores, z, r)
    return found


def cvh(corrections: CorrectionSet, _name: str) -> Page:
    """Show the global parameters of the refit by index, and how they are distributed."""
    data, simulation = (cvh_payload.load(corrections, is_data=is_data).x for is_data in (True, False))
    both = np.concatenate([data, simulation])

    def draw(figure: Figure) -> None:
        by_index, spectrum = figure.subplots(1, 2, width_ratios=(2, 1), sharey=True)
        reach = np.abs(both).max() * 1.05 or 1.0
        bins = np.linspace(-reach, reach, 61)
        for x, colour, label in ((data, DATA, "data"), (simulation, SIMULATION, "simulation")):
            by_index.plot(np.arange(len(x)), x, "o", color=colour, ms=max(1.0, 40 / len(x) ** 0.5), alpha=0.7, mew=0,
                          label=label, rasterized=True)  # fmt: skip
            spectrum.hist(x, bins, orientation="horizontal", histtype="step", color=colour, lw=1.4)
        by_index.axhline(0, color="gray", lw=0.6)
        by_index.set(xlabel="Index of the parameter", ylabel="Global parameter", ylim=(-reach, reach))
        by_index.legend()
        spectrum.set_xlabel("Parameters / bin")

    return page(f"{len(data)} global parameters, data and simulation", "parameter", both, draw, (13.0, 5.0))
