"""What selected events add to the groups that know no muon; one loop over the events for each group.

A group's few columns are the only memory that its loop touches, so the cells of one block stay near the processor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from binworks.corrections import angular, electroweak, theory
from binworks.corrections.angular import Angular
from binworks.processors.columns import Columns
from binworks.processors.generator import Bosons
from binworks.processors.payloads import Corrections
from binworks.processors.weights import Weights
from binworks.tensors import random
from binworks.tensors.groups import angular as angular_group
from binworks.tensors.groups import bootstrap as bootstrap_group
from binworks.tensors.groups import electroweak as electroweak_group
from binworks.tensors.groups import mass as mass_group
from binworks.tensors.groups import pdf as pdf_group
from binworks.tensors.groups import pileup as pileup_group
from binworks.tensors.groups import prefire as prefire_group
from binworks.tensors.groups import theory as theory_group
from binworks.tensors.jit import kernel

Array = NDArray[Any]
Blocks = Mapping[str, Array]
"""Compact blocks by name, shape (cells, columns); those that are not asked for are not there."""

_POLES = {
    mass_group.NAME: (mass_group.W_MASS, mass_group.W_WIDTH),
    mass_group.MASS_Z: (mass_group.Z_MASS, mass_group.Z_WIDTH),
}


@kernel
def fill_nominal(values: Array, variances: Array, cells: Array, w: Array) -> None:
    """Add the weights and their squares."""
    for j in range(len(cells)):
        values[cells[j]] += w[j]
        variances[cells[j]] += w[j] * w[j]


def fill_production(
    blocks: Blocks, cells: Array, w: Array, events: Array, bosons: Bosons, weights: Weights, held: Corrections
) -> None:
    """Fill the groups of the boson's production and decay."""
    for name, pole in _POLES.items():
        if name in blocks and weights.mass.shape[1] > 0:
            fill_weights(blocks[name], cells, w, events, weights.mass)
        elif name in blocks:
            fill_breit_wigner(blocks[name], cells, w, bosons.mass, *pole)
    for name in (mass_group.WIDTH_W, mass_group.WIDTH_Z):
        if name in blocks:
            fill_weights(blocks[name], cells, w, events, weights.width)
    if mass_group.SIN2THETA in blocks:
        fill_weights(blocks[mass_group.SIN2THETA], cells, w, events, weights.sin2theta)
    if pdf_group.NAME in blocks:
        fill_pdf(blocks[pdf_group.NAME], cells, w, events, weights.pdf)
    if theory_group.NAME in blocks:
        fill_theory(blocks[theory_group.NAME], cells, w, bosons, held.theory, held.theory_columns)
    if electroweak_group.NAME in blocks:
        fill_electroweak(blocks[electroweak_group.NAME], cells, w, bosons, held.ew, held.ew_columns)
    if angular_group.NAME in blocks:
        scratch = (np.empty(9), np.empty(18))
        fill_angular(blocks[angular_group.NAME], cells, w, bosons, held.angular, scratch)


def fill_conditions(
    blocks: Blocks,
    cells: Array,
    w: Array,
    events: Array,
    columns: Columns,
    weights: Weights,
    pileup: tuple[Array, Array],
    prefire: Array,
) -> None:
    """Fill the groups of the beam's conditions, and the bootstrap.

    ``pileup`` are the weights without that factor and its values, shape (events, 3).
    """
    if prefire_group.NAME in blocks:
        ecal = (weights.ecal, weights.ecal_up, weights.ecal_down)
        fill_prefire(blocks[prefire_group.NAME], cells, w, events, ecal, prefire)
    if pileup_group.NAME in blocks:
        fill_pileup(blocks[pileup_group.NAME], cells, *pileup)
    if bootstrap_group.NAME in blocks:
        keys = (columns["run"], columns["lumi"], columns["event"])
        times = np.empty(blocks[bootstrap_group.NAME].shape[1])
        fill_bootstrap(blocks[bootstrap_group.NAME], cells, w, events, keys, times)


@kernel
def fill_weights(block: Array, cells: Array, w: Array, events: Array, rows: Array) -> None:
    """Add the file's weights, ratios to the generated event."""
    for j in range(len(cells)):
        mass_group.add_weights(block, cells[j], w[j], rows[events[j]])


@kernel
def fill_breit_wigner(block: Array, cells: Array, w: Array, mass: Array, pole: float, width: float) -> None:
    """Add the mass templates of files without mass weights; an event without a boson counts as it is."""
    for j in range(len(cells)):
        if mass[j] > 0.0:
            mass_group.add_breit_wigner(block, cells[j], w[j], mass[j], pole, width)
        else:
            add_unchanged(block, cells[j], w[j])


@kernel
def fill_pdf(block: Array, cells: Array, w: Array, events: Array, members: Array) -> None:
    """Add the members of the PDF set."""
    for j in range(len(cells)):
        pdf_group.add(block, cells[j], w[j], members[events[j]])


@kernel
def fill_theory(block: Array, cells: Array, w: Array, bosons: Any, table: Any, columns: Array) -> None:
    """Add the variations of the theory table; an event without a boson counts as it is."""
    for j in range(len(cells)):
        if bosons.mass[j] > 0.0:
            found = theory.bin_of(bosons.mass[j], bosons.absy[j], bosons.qt[j], bosons.charge[j], table)
            row = table.weights[found]
            theory_group.add(block, cells[j], w[j], row, columns)
        else:
            add_unchanged(block, cells[j], w[j])


@kernel
def fill_electroweak(block: Array, cells: Array, w: Array, bosons: Any, table: Any, columns: Array) -> None:
    """Add the variations of the electroweak table; an event without a boson counts as it is."""
    for j in range(len(cells)):
        if bosons.mass[j] > 0.0:
            found = electroweak.bin_of(bosons.mass[j], bosons.charge[j], bosons.radiated[j], table)
            row = table.weights[found]
            theory_group.add(block, cells[j], w[j], row, columns)
        else:
            add_unchanged(block, cells[j], w[j])


@kernel
def fill_angular(block: Array, cells: Array, w: Array, bosons: Any, table: Angular, scratch: Any) -> None:
    """Add the deviations by angular coefficients, where the decay's angles are known; scratch is of 9 and 18."""
    helicities, ratios = scratch
    for j in range(len(cells)):
        if bosons.mass[j] > 0.0 and bosons.has_angles[j]:
            angular.fill_ratios(
                bosons.absy[j],
                bosons.qt[j],
                bosons.charge[j],
                bosons.cosine[j],
                bosons.phi[j],
                table,
                helicities,
                ratios,
            )
            angular_group.add(block, cells[j], w[j], bosons.qt[j], ratios)


@kernel
def fill_prefire(block: Array, cells: Array, w: Array, events: Array, ecal: Any, ratios: Array) -> None:
    """Add the muons' regions, their common uncertainty and the ECAL."""
    nominal, up, down = ecal
    for j in range(len(cells)):
        for source in range(prefire_group.ECAL):
            prefire_group.add(block, cells[j], source, w[j], ratios[j, source, 0], ratios[j, source, 1])
        i = events[j]
        if nominal[i] > 0.0:
            whole = np.float64(nominal[i])
            prefire_group.add(block, cells[j], prefire_group.ECAL, w[j], up[i] / whole, down[i] / whole)


@kernel
def fill_pileup(block: Array, cells: Array, w_without: Array, factors: Array) -> None:
    """Add the varied pile-up weights."""
    for j in range(len(cells)):
        pileup_group.add(block, cells[j], w_without[j], factors[j, 1], factors[j, 2])


@kernel
def fill_bootstrap(block: Array, cells: Array, w: Array, events: Array, keys: Any, times: Array) -> None:
    """Add each event as often as its replicas have it; ``times`` is overwritten."""
    run, lumi, event = keys
    for j in range(len(cells)):
        i = events[j]
        random.fill_poisson(run[i], lumi[i], event[i], times)
        bootstrap_group.add(block, cells[j], w[j], times)


@kernel
def add_unchanged(block: Array, cell: int, w: float) -> None:
    """Add w to every column of a block of full weights."""
    for v in range(block.shape[1]):
        block[cell, v] += w
