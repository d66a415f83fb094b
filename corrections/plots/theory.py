"""Pages of what weighs a generated boson: theory, angular coefficients, electroweak effects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from binworks.corrections import angular as angular_payload
from binworks.corrections import electroweak as electroweak_payload
from binworks.corrections import theory as theory_payload
from binworks.corrections.plots.page import (
    CHARGE_COLOURS,
    COLOURS,
    QT_LABEL,
    Page,
    between,
    even_steps,
    finite_edges,
    heat,
    page,
    steps,
)
from binworks.corrections.sets import CorrectionSet
from binworks.tensors.groups.base import paired_nuisances
from binworks.tensors.groups.theory import group as theory_group
from binworks.tensors.histogram import Float64

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BOSONS = {-1: "$W^-$", 0: "$Z$", 1: "$W^+$"}
ABSY_LABEL = r"Boson $|y|$"


def effects(names: Sequence[str], weights: Float64) -> tuple[list[str], Float64]:
    """Return nuisances and what each does to the weights, shape (..., nuisances): half of up - down, over nominal."""
    place = {name: i + 1 for i, name in enumerate(names)}
    nominal = weights[..., 0]
    found = []
    nuisances = paired_nuisances(theory_payload.NAME, names)
    for nuisance in nuisances:
        up = weights[..., place[nuisance.up]]
        if nuisance.down is None:
            found.append((up - nominal) / nominal)
        else:
            found.append((up - weights[..., place[nuisance.down]]) / (2 * nominal))
    return [nuisance.name for nuisance in nuisances], np.stack(found, axis=-1) if found else np.zeros(0)


def theory(corrections: CorrectionSet, _name: str) -> Page:
    """Show the weights by |y| and qT, and what each variation does by qT."""
    table, names = theory_payload.load(corrections)
    mass = (len(table.mass) - 1) // 2
    weights = table.weights[mass]  # shape (absy, qt, charges, 1 + variations)

    def draw(figure: Figure) -> None:
        halves: Any = figure.subfigures(2, 1, height_ratios=(1, 1.25 if names else 0.01))
        top, bottom = halves
        reach = float(np.abs(weights[..., 0] - 1).max())
        for charge, axes in zip(BOSONS, top.subplots(1, 3, sharey=True), strict=True):
            nominal = weights[:, :, charge + 1, 0]
            heat(axes, table.qt, table.absy, nominal.T, "Weight", middle=1.0, reach=reach)
            axes.set(xlabel=QT_LABEL, ylabel=ABSY_LABEL)
            axes.set_title(f"{BOSONS[charge]}, {between(table.mass, mass, '$m$', ' GeV')}")
        if names:
            listed, effect = effects(names, weights)
            _draw_effects(bottom, table.qt, listed, 100 * effect.mean(axis=0))

    n_mass, n_absy, n_qt = (len(edges) - 1 for edges in (table.mass, table.absy, table.qt))
    count = len(theory_group(names).expansion.nuisances)
    holds = f"{n_mass} mass x {n_absy} |y| x {n_qt} qT bins, three charges; {len(names)} variations, {count} nuisances"
    return page(holds, "nominal weight", table.weights[..., 0], draw, (16.0, 11.0))


def _draw_effects(figure: Any, qt: Float64, names: list[str], effect: Float64) -> None:
    """Draw the mean effect over |y|, in percent and of shape (qt, charges, nuisances), a row a nuisance."""
    reach = float(np.abs(effect).max())
    for charge, axes in zip(BOSONS, figure.subplots(1, 3, sharey=True), strict=True):
        rows = np.arange(len(names) + 1)
        heat(axes, qt, rows, effect[:, charge + 1], r"$\pm 1\sigma$ effect [%]", middle=0.0, reach=reach)
        axes.set_yticks(rows[:-1] + 0.5, names, fontsize=7)
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis() if charge == -1 else None
        axes.set_xlabel(QT_LABEL)
        axes.set_title(f"{BOSONS[charge]}, mean over $|y|$")


def angular(corrections: CorrectionSet, _name: str) -> Page:
    """Show each coefficient by qT for the three charges, with its scale and shower variations."""
    table = angular_payload.load(corrections)
    unpolarised = table.coefficients[:, :, :, :1]
    ratios = table.coefficients[:, :, :, 1:] / unpolarised
    middle = (len(table.absy) - 1) // 2

    def draw(figure: Figure) -> None:
        panels = figure.subplots(2, 4, sharex=True)
        for h, axes in enumerate(panels.flat):
            for charge, colour in CHARGE_COLOURS.items():
                nominal, up, down, shower_up, shower_down = ratios[middle, :, charge + 1, h].T
                drawn = finite_edges(table.qt)
                band = {"color": colour, "alpha": 0.2, "lw": 0}
                axes.use_sticky_edges = False
                axes.stairs(np.maximum(up, down), drawn, baseline=np.minimum(up, down), fill=True, **band)
                steps(axes, drawn, nominal, color=colour, label=BOSONS[charge])
                for shower in (shower_up, shower_down):
                    steps(axes, drawn, shower, color=colour, lw=0.8, ls=":")
            axes.axhline(0, color="gray", lw=0.6)
            axes.set_title(f"$A_{h}$")
        for axes in panels[1]:
            axes.set_xlabel(QT_LABEL)
        for axes in panels[:, 0]:
            axes.set_ylabel("Coefficient / unpolarised")
        panels[0, 0].legend(title="bands: scale\ndotted: shower", title_fontsize=8)
        inside = between(table.absy, middle, "$|y|$")
        panels[0, 0].set_title(f"$A_0$, {inside}")

    holds = f"9 helicities in {len(table.absy) - 1} |y| x {len(table.qt) - 1} qT bins, three charges; scale, shower"
    return page(holds, "coefficient over the unpolarised one", ratios[..., 0], draw, (16.0, 8.5))


def electroweak(corrections: CorrectionSet, _name: str) -> Page:
    """Show the weights by mass and by what was radiated, and what each variation does."""
    table, names = electroweak_payload.load(corrections)
    mass = int(np.argmin(np.abs((finite_edges(table.mass)[1:] + finite_edges(table.mass)[:-1]) / 2 - 85)))
    little = table.weights[:, :, 0]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(2, 3, sharey="row")
        for charge, (by_mass, by_radiated) in zip(BOSONS, panels.T, strict=True):
            even_steps(by_mass, table.mass, _ratios(names, little[:, charge + 1]))
            by_mass.set_xlabel("Mass of the pair before radiation [GeV]")
            radiated = between(table.radiated, 0, "radiated")
            by_mass.set_title(f"{BOSONS[charge]}, {radiated}")
            even_steps(by_radiated, table.radiated, _ratios(names, table.weights[mass, charge + 1]))
            by_radiated.set_xlabel("1 - mass after / before radiation")
            by_radiated.set_title(f"{BOSONS[charge]}, {between(table.mass, mass, '$m$', ' GeV')}")
        for axes in panels[:, 0]:
            axes.set_ylabel("Effect on the weight [%]")
        panels[0, 0].legend(fontsize=7, ncols=2)

    n_mass, n_radiated = len(table.mass) - 1, len(table.radiated) - 1
    holds = f"{n_mass} mass x {n_radiated} radiated bins, three charges; variations {', '.join(names)}"
    return page(holds, "nominal weight", table.weights[..., 0], draw, (16.0, 9.0))


def _ratios(names: Sequence[str], weights: Float64) -> Iterator[tuple[str, str, Float64]]:
    """Give nominal - 1 and varied / nominal - 1 in percent, from weights of shape (bins, 1 + variations)."""
    yield "nominal", "black", 100 * (weights[:, 0] - 1)
    for i, (name, colour) in enumerate(zip(names, COLOURS * 3, strict=False), 1):
        yield name, colour, 100 * (weights[:, i] / weights[:, 0] - 1)
