"""Pages of what weighs or moves an event: pile-up, the vertex, the recoil."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from binworks.corrections import pileup as pileup_payload
from binworks.corrections import recoil as recoil_payload
from binworks.corrections import vertex as vertex_payload
from binworks.corrections.payload import read_document
from binworks.corrections.plots.page import (
    COLOURS,
    DATA,
    SIMULATION,
    Page,
    finite_edges,
    heat,
    page,
    shades,
    spread,
    steps,
)
from binworks.corrections.quantiles import normal_scores
from binworks.corrections.sets import CorrectionSet
from binworks.tensors.histogram import Float64

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INTERACTIONS = "True number of interactions"


def pileup(corrections: CorrectionSet, _name: str) -> Page:
    """Show the weights with their variations."""
    table = pileup_payload.load(corrections)
    nominal, up, down = table.weights.T

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        edges = finite_edges(table.edges)
        axes.stairs(
            np.maximum(up, down),
            edges,
            baseline=np.minimum(up, down),
            fill=True,
            color=COLOURS[0],
            alpha=0.15,
        )
        for values, colour, label in (
            (nominal, DATA, "nominal"),
            (up, COLOURS[1], "up"),
            (down, COLOURS[0], "down"),
        ):
            steps(axes, edges, values, color=colour, label=label)
        axes.axhline(1, color="gray", lw=0.6)
        if table.weights.max() == pileup_payload.LARGEST_WEIGHT:
            axes.axhline(
                pileup_payload.LARGEST_WEIGHT, color=SIMULATION, ls=":", label="largest that is taken"
            )
        axes.set(xlabel=INTERACTIONS, ylabel="Data / simulation", ylim=(0, None))
        axes.legend()

    holds = f"nominal, up and down in {len(table.edges) - 1} bins of nTrueInt"
    return page(holds, "weight", table.weights, draw, (9.0, 5.5))


def vertex(corrections: CorrectionSet, _name: str) -> Page:
    """Show the weights in the vertex position and the number of interactions."""
    table = vertex_payload.load(corrections)
    shown = spread(len(table.n_edges) - 1, 6)

    def draw(figure: Figure) -> None:
        plane, lines = figure.subplots(1, 2)
        heat(plane, table.z_edges, table.n_edges, table.weights, "Data / simulation", middle=1.0)
        plane.set(xlabel=r"Vertex $z$ [cm]", ylabel=INTERACTIONS)
        for n, colour in zip(shown, shades(len(shown)), strict=True):
            low, high = table.n_edges[n : n + 2]
            steps(
                lines,
                table.z_edges,
                table.weights[:, n],
                color=colour,
                label=f"{low:g} to {high:g} interactions",
            )
        lines.axhline(1, color="gray", lw=0.6)
        lines.set(xlabel=r"Vertex $z$ [cm]", ylabel="Data / simulation")
        lines.legend(fontsize=8)

    holds = f"{len(table.z_edges) - 1} bins of z x {len(table.n_edges) - 1} bins of nTrueInt"
    return page(holds, "weight", table.weights, draw, (13.0, 5.5))


def recoil(corrections: CorrectionSet, name: str) -> Page:
    """Show the quantiles of each component by boson pT, and by how much u is shifted."""
    table = recoil_payload.load(corrections)
    document = read_document(recoil_payload.RecoilDocument, corrections, name, recoil_payload.KIND)
    scores = normal_scores(document.probabilities, recoil_payload.LEAST_QUANTILES, name)
    shifts = table.shift.reshape(-1, recoil_payload.POINTS)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(document.components), 2, squeeze=False)
        for c, component in enumerate(document.components):
            given = [knots[len(knots) // 2] for knots in component.given]
            place = [len(knots) // 2 for knots in component.given]
            data, simulation = (_at(quantiles, place) for quantiles in (component.data, component.mc))
            medians = np.array([np.interp(0.0, scores, row) for row in simulation])
            _draw_quantiles(panels[c, 0], table.boson_pt, scores, data, simulation, medians)
            rows = np.ravel_multi_index(
                (np.arange(len(medians)), *place), (len(medians), *map(len, component.given))
            )
            grid = table.low[c] + table.step[c] * np.arange(recoil_payload.POINTS)
            shown = shifts[table.row[c] + np.asarray(rows)]
            _draw_shifts(panels[c, 1], table.boson_pt, grid, shown, simulation[:, [0, -1]], medians)
            at = f", earlier scores {', '.join(f'{g:g}' for g in given)}" if given else ""
            panels[c, 0].set_title(f"{component.name.capitalize()}{at}: median, 68 % (dashed), 95 % (dotted)")

    named = " and ".join(component.name for component in document.components)
    holds = f"{named}: {len(scores)} quantiles at {len(table.boson_pt)} boson pT"
    return page(holds, "shift of u in GeV", shifts, draw, (13.0, 9.0))


def _at(quantiles: list[Any], place: list[int]) -> Float64:
    """Return the quantiles, shape (boson pT, n), at a place among the scores of earlier components."""
    table: Any = np.array(quantiles)
    return np.asarray(table[:, *place], dtype=np.float64)


def _draw_quantiles(
    axes: Axes, boson_pt: Float64, scores: Float64, data: Float64, simulation: Float64, medians: Float64
) -> None:
    """Draw median, central 68 % and 95 % of u (quantiles of shape (boson pT, n)) from the median of simulation."""
    levels = [score for score in (-2, -1, 0, 1, 2) if scores[0] <= score <= scores[-1]]
    for quantiles, colour, label in ((simulation, SIMULATION, "simulation"), (data, DATA, "data")):
        for score in levels:
            line = [np.interp(score, scores, row) for row in quantiles] - medians
            style = ("-", "--", ":")[abs(score)]
            axes.plot(boson_pt, line, color=colour, ls=style, label=None if score else label)
    axes.set(xlabel=r"Generated boson $p_T$ [GeV]", ylabel="$u$ - median of simulation [GeV]")
    axes.set_xlim(boson_pt[0], boson_pt[-1])
    axes.margins(y=0.25)
    axes.legend(ncols=2, loc="upper right")


def _draw_shifts(
    axes: Axes, boson_pt: Float64, grid: Float64, shifts: Float64, reach: Float64, medians: Float64
) -> None:
    """Draw the shift by u at some boson pT, between the outermost quantiles of simulation."""
    shown = spread(len(boson_pt), 6)
    for z, colour in zip(shown, shades(len(shown)), strict=True):
        within = (grid >= reach[z, 0]) & (grid <= reach[z, 1])
        label = rf"$p_T = {boson_pt[z]:g}$ GeV"
        axes.plot(grid[within] - medians[z], shifts[z, within], color=colour, label=label)
    axes.axhline(0, color="gray", lw=0.6)
    axes.set(xlabel="$u$ - median of simulation [GeV]", ylabel="Shift of $u$ [GeV]")
    axes.legend(fontsize=8)
