"""Pages of what weighs a muon: the scale factors of the five steps and of the veto, pixel hits, prefire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from binworks.corrections import efficiency as payload
from binworks.corrections import pixel_hits as pixel_payload
from binworks.corrections import prefire as prefire_payload
from binworks.corrections.payload import ETA_EDGES_48
from binworks.corrections.plots.page import (
    CHARGE_COLOURS,
    COLOURS,
    ETA_LABEL,
    PT_LABEL,
    Page,
    between,
    heat,
    page,
    shades,
    steps,
)
from binworks.corrections.sets import CorrectionSet
from binworks.tensors.histogram import Float64

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UT_LABEL = r"$u_T$ [GeV]"
SHOWN_ETA = (2, 12, 24, 36)
"""Bins whose curves are drawn."""
POINTS = 61


def basis(efficiency: Any, pt: Any, ut: Any) -> Float64:
    """Return the monomials, shape (..., n), at pT and uT (GeV) within the range."""
    n = efficiency.coefficients.shape[-1]
    x = 2 * (np.asarray(pt) - efficiency.low) / (efficiency.high - efficiency.low) - 1
    y = 2 * (np.asarray(ut) - efficiency.ut_low) / (efficiency.ut_high - efficiency.ut_low) - 1
    powers = payload.UT_POWERS if n == payload.WITH_UT else 1
    return np.stack([x ** (k // powers) * y ** (k % powers) for k in range(n)], axis=-1)


def efficiency(corrections: CorrectionSet, name: str) -> Page:
    """Show a step's scale factors with their uncertainties, and its alternatives."""
    loaded = payload.load(corrections, name.removeprefix("efficiency_"))
    step = loaded.efficiency
    pt = np.linspace(step.low, step.high, POINTS)
    ut_middle = (step.ut_low + step.ut_high) / 2
    with_ut = step.coefficients.shape[-1] == payload.WITH_UT
    grid = np.meshgrid(pt, np.linspace(step.ut_low, step.ut_high, 21) if with_ut else [0.0], indexing="ij")
    factors = step.coefficients @ basis(step, *grid).reshape(-1, step.coefficients.shape[-1]).T

    def draw(figure: Figure) -> None:
        panels = figure.subplots(2, 3)
        monomials = basis(step, pt, np.full(POINTS, ut_middle))
        _draw_maps(panels[0], loaded, pt, monomials)
        at = rf", $u_T = {ut_middle:g}$ GeV" if with_ut else ""
        _draw_curves(panels[1, 0], loaded, pt, monomials, PT_LABEL)
        panels[1, 0].set_title(_muons(loaded) + at)
        if with_ut:
            pt_middle = (step.low + step.high) / 2
            ut = np.linspace(step.ut_low, step.ut_high, POINTS)
            _draw_curves(panels[1, 1], loaded, ut, basis(step, np.full(POINTS, pt_middle), ut), UT_LABEL)
            panels[1, 1].set_title(rf"{_muons(loaded)}, $p_T = {pt_middle:g}$ GeV")
        else:
            _draw_charges(panels[1, 1], loaded)
        _draw_alternatives(panels[1, 2], loaded)

    more = [f"alternatives {', '.join(loaded.alternatives)}"] if loaded.alternatives else []
    more += ["efficiency in simulation"] if step.simulated.any() else []
    charges = "no charge" if loaded.covariance.shape[1] == 1 else "two charges"
    terms = f"{step.coefficients.shape[-1]} terms in pT{' and uT' if with_ut else ''}"
    holds = "; ".join([f"{terms}, 48 eta bins, {charges}, with covariances", *more])
    return page(holds, "scale factor", factors, draw, (16.0, 8.5))


def _errors(loaded: payload.Loaded, monomials: Float64, charge: int) -> Float64:
    """Return the uncertainty of the factors, shape (48, points)."""
    covariance = loaded.covariance[:, min(charge, loaded.covariance.shape[1] - 1)]
    variance = np.einsum("pi,eij,pj->ep", monomials, covariance, monomials)
    return np.asarray(np.sqrt(np.maximum(variance, 0)))


def _draw_maps(panels: Any, loaded: payload.Loaded, pt: Float64, monomials: Float64) -> None:
    """Draw the factors of both charges (or factor and efficiency of a step without charge), and the uncertainty."""
    step = loaded.efficiency
    edges = np.append(pt, 2 * pt[-1] - pt[-2]) - (pt[1] - pt[0]) / 2
    negative, positive = (step.coefficients[:, charge] @ monomials.T for charge in (0, 1))
    reach = max(float(np.abs(values - 1).max()) for values in (negative, positive))
    style: dict[str, Any] = {"middle": 1.0, "reach": reach}
    if step.simulated.any():
        heat(panels[0], ETA_EDGES_48, edges, step.simulated[:, 1] @ monomials.T, "Efficiency in simulation")
        panels[0].set_title(_muons(loaded))
    else:
        heat(panels[0], ETA_EDGES_48, edges, negative, "Scale factor", **style)
        panels[0].set_title("Negative muons")
    heat(panels[1], ETA_EDGES_48, edges, positive, "Scale factor", **style)
    panels[1].set_title(_muons(loaded))
    heat(
        panels[2], ETA_EDGES_48, edges, 100 * _errors(loaded, monomials, 1), "Uncertainty [%]", cmap="magma_r"
    )
    panels[2].set_title(_muons(loaded))
    for axes in panels:
        axes.set(xlabel=ETA_LABEL, ylabel=PT_LABEL)


def _muons(loaded: payload.Loaded) -> str:
    return "Positive muons" if loaded.covariance.shape[1] == 2 else "Muons of any charge"


def _draw_curves(axes: Axes, loaded: payload.Loaded, x: Float64, monomials: Float64, label: str) -> None:
    """Draw the factors of positive muons in some eta bins, with their bands."""
    errors = _errors(loaded, monomials, 1)
    for e, colour in zip(SHOWN_ETA, COLOURS, strict=False):
        values = loaded.efficiency.coefficients[e, 1] @ monomials.T
        axes.fill_between(x, values - errors[e], values + errors[e], color=colour, alpha=0.25, lw=0)
        axes.plot(x, values, color=colour, label=between(ETA_EDGES_48, e, r"$\eta$"))
    axes.axhline(1, color="gray", lw=0.6)
    axes.set(xlabel=label, ylabel=r"Scale factor, $\pm 1\sigma$", xlim=(x[0], x[-1]))
    axes.margins(y=0.2)
    axes.legend(fontsize=8, ncols=2)


def _draw_charges(axes: Axes, loaded: payload.Loaded) -> None:
    """Draw the factors by eta in the middle of the pT range."""
    step = loaded.efficiency
    middle = (step.low + step.high) / 2
    monomials = basis(step, [middle], [0.0])
    for charge, name in ((0, "negative"), (1, "positive")):
        values, errors = step.coefficients[:, charge] @ monomials[0], _errors(loaded, monomials, charge)[:, 0]
        steps(axes, ETA_EDGES_48, values, errors, color=CHARGE_COLOURS[2 * charge - 1], label=name)
    axes.axhline(1, color="gray", lw=0.6)
    axes.set(xlabel=ETA_LABEL, ylabel=r"Scale factor, $\pm 1\sigma$")
    axes.set_title(rf"$p_T = {middle:g}$ GeV")
    axes.legend()


def _draw_alternatives(axes: Axes, loaded: payload.Loaded) -> None:
    """Draw each alternative over the nominal factor by eta, in the middle of the range."""
    step = loaded.efficiency
    middle, ut = (step.low + step.high) / 2, (step.ut_low + step.ut_high) / 2
    monomials = basis(step, middle, ut)
    nominal = step.coefficients[:, 1] @ monomials
    for name, values, colour in zip(loaded.alternatives, step.alternatives, COLOURS * 3, strict=False):
        steps(axes, ETA_EDGES_48, 100 * (values[:, 1] @ monomials / nominal - 1), color=colour, label=name)
    error = 100 * _errors(loaded, monomials[np.newaxis], 1)[:, 0] / nominal
    steps(axes, ETA_EDGES_48, 0 * error, error, color="gray", lw=0.6, label=r"nominal $\pm 1\sigma$")
    axes.set(xlabel=ETA_LABEL, ylabel="Alternative / nominal - 1 [%]")
    axes.set_title(rf"{_muons(loaded)}, $p_T = {middle:g}$ GeV")
    axes.margins(y=0.2)
    axes.legend(fontsize=8, ncols=2)


def pixel_hits(corrections: CorrectionSet, _name: str) -> Page:
    """Show the ratio by eta and number of hits."""
    table = pixel_payload.load(corrections)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        heat(axes, table.eta, table.hits, table.ratios, "Varied / nominal", middle=1.0)
        axes.set(xlabel=ETA_LABEL, ylabel="Pixel hits of the track")

    holds = f"{len(table.eta) - 1} eta x {len(table.hits) - 1} hit bins"
    return page(holds, "varied over nominal", table.ratios, draw, (8.0, 5.0))


def prefire(corrections: CorrectionSet, _name: str) -> Page:
    """Show the probabilities by pT, and the plateaus with their uncertainties."""
    table = prefire_payload.load(corrections)
    pt = np.linspace(0, 80, 321)
    with np.errstate(over="ignore"):
        rise = np.exp((pt - table.middle[:, np.newaxis]) / table.slope[:, np.newaxis])
    lost = table.plateau[:, np.newaxis] / (rise + 1)
    names = [between(table.eta_edges, r, r"$|\eta|$") for r in range(prefire_payload.ETA_BINS)]

    def draw(figure: Figure) -> None:
        by_pt, by_eta = figure.subplots(1, 2, width_ratios=(1.3, 1))
        for r, colour in enumerate([*shades(prefire_payload.ETA_BINS), COLOURS[5]]):
            is_spot = r == prefire_payload.HOT_SPOT
            band = 100 * lost[r] * table.uncertainty[r]
            by_pt.fill_between(pt, 100 * lost[r] - band, 100 * lost[r] + band, color=colour, alpha=0.12, lw=0)
            label = "hot spot" if is_spot else names[r]
            by_pt.plot(pt, 100 * lost[r], color=colour, lw=1.4, ls="--" if is_spot else "-", label=label)
        by_pt.set(
            xlabel=PT_LABEL, ylabel="Probability that the event is lost [%]", xlim=(0, 80), ylim=(0, None)
        )
        by_pt.legend(fontsize=8)
        own = 100 * table.plateau * table.uncertainty
        whole = np.hypot(own, 100 * table.plateau * table.systematic)
        bins, spot = slice(0, prefire_payload.ETA_BINS), prefire_payload.HOT_SPOT
        steps(by_eta, table.eta_edges, 100 * table.plateau[bins], whole[bins], color=COLOURS[0], lw=0)
        steps(by_eta, table.eta_edges, 100 * table.plateau[bins], own[bins], color=COLOURS[0], label="bins")
        eta, phi = table.hot_eta, table.hot_phi
        by_eta.errorbar(np.abs(eta).mean(), 100 * table.plateau[spot], own[spot], np.ptp(np.abs(eta)) / 2, fmt="s",
                        color=COLOURS[5], label=rf"hot spot, ${phi[0]:g} < \phi < {phi[1]:g}$")  # fmt: skip
        by_eta.set(xlabel=r"Muon $|\eta|$", ylabel="Plateau [%]")
        by_eta.set_ylim(0, 140 * (table.plateau * (1 + table.uncertainty)).max())
        by_eta.set_title("Bands: own uncertainty, and with the common one")
        by_eta.legend()

    holds = f"probability in 11 bins of abs(eta) and a hot spot; common systematic {table.systematic:g}"
    return page(holds, "plateau", table.plateau, draw, (13.0, 5.5))
