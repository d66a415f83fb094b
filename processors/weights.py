"""The weight of simulated events, factor by factor: shared by all channels; the muons' factors are in `legs`.

All arrays have one entry for each selected event; ``events`` says where it stands in the range. Each function
multiplies the weights ``w`` in place; a number that is not finite makes the weight one, and the caller leaves the event
out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from binworks.corrections import electroweak, pileup, prefire, theory, vertex
from binworks.corrections.pileup import Pileup
from binworks.processors.generator import Bosons
from binworks.processors.muons import Muons
from binworks.processors.payloads import Corrections
from binworks.tensors.jit import kernel

Array = NDArray[Any]


class Weights(NamedTuple):
    """Generator columns of a range; blocks have no columns where the file or the data set has none."""

    gen: Array
    n_true: Array
    vertex_z: Array
    ecal: Array
    ecal_up: Array
    ecal_down: Array
    pdf: Array
    mass: Array
    width: Array
    sin2theta: Array


def event_weights(
    events: Array, bosons: Bosons, muons: Muons, weights: Weights, corrections: Corrections
) -> tuple[Array, Array]:
    """Return the weights without the selected muons' factors and without pile-up, and what prefiring varies.

    sign(genWeight) x central PDF x theory x electroweak x vertex x muon prefire x ECAL prefire.

    Returns
    -------
    array, shape (events,)
    array, shape (events, 13, 2)
        The products over muons of each prefire source up and down, over the nominal one.
    """
    w = np.sign(weights.gen[events]).astype(np.float64)
    if weights.pdf.shape[1] > 0:
        w *= weights.pdf[events, 0]
    weigh_production(w, bosons, corrections.theory, corrections.ew)
    weigh_vertex(w, events, weights.vertex_z, weights.n_true, corrections.vertex)
    momenta, ratios = (muons.pt, muons.eta, muons.phi), np.empty((len(w), prefire.VARIATIONS, 2))
    weigh_prefire(w, events, muons.offsets, momenta, muons.loose, corrections.prefire, ratios)
    w *= weights.ecal[events]
    for varied in (weights.ecal_up, weights.ecal_down):
        w[~np.isfinite(varied[events])] = np.nan
    for block in (weights.pdf, weights.mass, weights.width, weights.sin2theta):
        if block.shape[1] > 0:
            refuse_infinite(w, events, block)
    return w, ratios


@kernel
def weigh_production(w: Array, bosons: Any, tables: Any, ew: Any) -> None:
    """Multiply the nominal theory and electroweak weights of the boson, where there is one."""
    for j in range(len(w)):
        if bosons.mass[j] > 0.0:
            mass, charge = bosons.mass[j], bosons.charge[j]
            a, b, c, d = theory.bin_of(mass, bosons.absy[j], bosons.qt[j], charge, tables)
            w[j] *= tables.weights[a, b, c, d, 0]
            a, b, c = electroweak.bin_of(mass, charge, bosons.radiated[j], ew)
            w[j] *= ew.weights[a, b, c, 0]


@kernel
def weigh_vertex(w: Array, events: Array, z: Array, n_true: Array, table: Any) -> None:
    """Multiply the weight of the generated vertex."""
    for j in range(len(w)):
        w[j] *= vertex.weight(z[events[j]], n_true[events[j]], table)


@kernel
def weigh_prefire(
    w: Array, events: Array, offsets: Array, momenta: Any, loose: Array, table: Any, ratios: Array
) -> None:
    """Multiply the probability that no loose muon fires early; fill the varied over the nominal products."""
    pt, eta, phi = momenta
    for j in range(len(w)):
        begin, end = offsets[events[j]], offsets[events[j] + 1]
        w[j] *= prefire.event_factor(begin, end, pt, eta, phi, loose, table, ratios[j])


def pileup_weights(events: Array, n_true: Array, table: Pileup) -> Array:
    """Return nominal, up and down, shape (events, 3); not a number where the number of interactions is none."""
    out = np.empty((len(events), 3))
    look_up_pileup(events, n_true, table, out)
    return out


@kernel
def look_up_pileup(events: Array, n_true: Array, table: Any, out: Array) -> None:
    """Fill the pile-up weights."""
    for j in range(len(events)):
        row = pileup.pileup_bin(n_true[events[j]], table)
        for v in range(3):
            out[j, v] = table.weights[row, v] if row >= 0 else np.nan


@kernel
def refuse_infinite(w: Array, events: Array, block: Array) -> None:
    """Make the weight not a number where a number of the event's row in the block is not finite."""
    for j in range(len(events)):
        row = block[events[j]]
        good = 0
        for v in range(len(row)):  # by comparison only, so that it vectorises
            good += abs(row[v]) < np.inf
        if good != len(row):
            w[j] = np.nan
