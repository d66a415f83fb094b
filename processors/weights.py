"""The weight of a simulated event, and what it adds to the groups that know no muon: shared by all channels.

One muon's part is in `muon_weights`. Everything here is called for selected events only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from binworks.corrections import angular, electroweak, pileup, prefire, theory, vertex
from binworks.corrections.efficiency import COEFFICIENTS, STEPS
from binworks.processors.generator import radiated_fraction
from binworks.tensors import random
from binworks.tensors.groups import angular as angular_group
from binworks.tensors.groups import bootstrap as bootstrap_group
from binworks.tensors.groups import mass as mass_group
from binworks.tensors.groups import pdf as pdf_group
from binworks.tensors.groups import pileup as pileup_group
from binworks.tensors.groups import prefire as prefire_group
from binworks.tensors.groups import theory as theory_group
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
    run: Array
    lumi: Array
    event: Array


class Kind(NamedTuple):
    """What the events are; ``pole`` and ``pole_width`` (GeV) are those of the boson whose mass is varied."""

    is_data: bool
    prompt: bool
    has_boson: bool
    is_z: bool
    pole: float
    pole_width: float


class Blocks(NamedTuple):
    """Where the event goes: sums over (cells,), compact blocks over (cells, columns); no columns if not asked for."""

    values: Array
    variances: Array
    mass: Array
    width: Array
    sin2theta: Array
    pdf: Array
    angular: Array
    theory: Array
    ew: Array
    pileup: Array
    bootstrap: Array
    prefire: Array
    efficiency: tuple[Array, ...]
    efficiency_systematics: Array
    momentum_scale: Array
    resolution: Array
    pixel_hits: Array
    veto_stat: Array
    veto_systematics: Array


class Scratch(NamedTuple):
    """Small arrays that the kernels write to, made once a range; the first axis of three counts muons.

    ``relative`` is d ln(factor) / dSF of each efficiency step, ``ratios`` those of the alternative factors.
    """

    basis: Array
    relative: Array
    ratios: Array
    prefire: Array
    helicities: Array
    angular: Array
    times: Array
    recoil: Array
    morphed: Array


class Factors(NamedTuple):
    """An event's weight without its muons and without pile-up, and the rows that its variations need."""

    weight: float
    pileup: Array
    theory: Array
    ew: Array


def scratch(alternatives: int, replicas: int) -> Scratch:
    """Return arrays for two muons with so many alternative factors each, and so many bootstrap replicas."""
    return Scratch(
        np.zeros((2, len(STEPS), max(COEFFICIENTS.values()))),
        np.zeros((2, len(STEPS))),
        np.ones((2, alternatives)),
        np.ones((13, 2)),
        np.zeros(9),
        np.ones(18),
        np.zeros(replicas),
        np.zeros(2),
        np.zeros(2),
    )


@kernel
def event_factors(
    i: int, boson: Any, muons: Any, generated: Any, weights: Any, corrections: Any, room: Any
) -> Any:
    """Return the event's factors; the weight is not finite if one of its columns is not.

    sign(genWeight) x central PDF x theory x EW x vertex x muon prefire x ECAL prefire; the caller multiplies the muons'
    factors and pile-up.
    """
    theory_row = theory.theory_row(boson.mass, boson.absy, boson.qt, boson.charge, corrections.theory)
    radiated = 0.0
    if boson.has_leptons and len(corrections.ew.radiated) > 2:
        radiated = radiated_fraction(i, boson.mass, generated)
    ew_row = electroweak.row(boson.mass, boson.charge, radiated, corrections.ew)
    w = np.sign(weights.gen[i])
    if boson.mass > 0.0:
        w *= theory_row[0] * ew_row[0]
    if weights.pdf.shape[1] > 0:
        w *= weights.pdf[i, 0]
    w *= vertex.weight(weights.vertex_z[i], weights.n_true[i], corrections.vertex)
    w *= prefire.event_factor(
        muons.offsets[i],
        muons.offsets[i + 1],
        muons.pt,
        muons.eta,
        muons.phi,
        muons.loose,
        corrections.prefire,
        room.prefire,
    )
    w *= weights.ecal[i]
    bin_ = pileup.pileup_bin(weights.n_true[i], corrections.pileup)
    if bin_ < 0 or not finite_columns(i, weights):
        w = np.nan
    return Factors(w, corrections.pileup.weights[max(bin_, 0)], theory_row, ew_row)


@kernel
def finite_columns(i: int, weights: Any) -> bool:
    """Whether all weights of the event are finite."""
    ecal = weights.ecal_up[i] + weights.ecal_down[i]
    return bool(
        np.isfinite(ecal)
        and finite_row(weights.pdf[i])
        and finite_row(weights.mass[i])
        and finite_row(weights.width[i])
        and finite_row(weights.sin2theta[i])
    )


@kernel
def finite_row(row: Any) -> bool:
    """Whether every number of the row is finite; by comparison only, so that it vectorises."""
    good = 0
    for j in range(len(row)):
        good += abs(row[j]) < np.inf
    return good == len(row)


@kernel
def fill_event(
    i: int,
    cell: int,
    w: float,
    w_without_pileup: float,
    boson: Any,
    factors: Any,
    weights: Any,
    corrections: Any,
    kind: Any,
    blocks: Any,
    room: Any,
) -> None:
    """Add the event, of weight w, to the nominal sums and to all groups that know no muon."""
    blocks.values[cell] += w
    blocks.variances[cell] += w * w
    fill_theory(i, cell, w, boson, factors, weights, corrections, blocks, room)
    fill_parameters(i, cell, w, boson.mass, weights, kind, blocks)
    if blocks.prefire.shape[1] > 0:
        fill_prefire(i, cell, w, weights, blocks.prefire, room.prefire)
    if blocks.pileup.shape[1] > 0:
        pileup_group.add(blocks.pileup, cell, w_without_pileup, factors.pileup[1], factors.pileup[2])
    if blocks.bootstrap.shape[1] > 0:
        random.fill_poisson(weights.run[i], weights.lumi[i], weights.event[i], room.times)
        bootstrap_group.add(blocks.bootstrap, cell, w, room.times)


@kernel
def fill_theory(
    i: int,
    cell: int,
    w: float,
    boson: Any,
    factors: Any,
    weights: Any,
    corrections: Any,
    blocks: Any,
    room: Any,
) -> None:
    """Add the event to the groups of its production; without a boson in its record it counts as it is."""
    if blocks.pdf.shape[1] > 0:
        pdf_group.add(blocks.pdf, cell, w, weights.pdf[i])
    if boson.mass > 0.0:
        if blocks.theory.shape[1] > 0:
            theory_group.add(blocks.theory, cell, w, factors.theory, corrections.theory_columns)
        if blocks.ew.shape[1] > 0:
            theory_group.add(blocks.ew, cell, w, factors.ew, corrections.ew_columns)
        if blocks.angular.shape[1] > 0 and boson.has_leptons:
            cosine, phi = angular.collins_soper(*boson.particle, *boson.antiparticle)
            angular.fill_ratios(
                boson.absy,
                boson.qt,
                boson.charge,
                cosine,
                phi,
                corrections.angular,
                room.helicities,
                room.angular,
            )
            angular_group.add(blocks.angular, cell, w, boson.qt, room.angular)
    else:
        add_unchanged(blocks.theory, cell, w)
        add_unchanged(blocks.ew, cell, w)


@kernel
def fill_parameters(i: int, cell: int, w: float, mass: float, weights: Any, kind: Any, blocks: Any) -> None:
    """Add the weights of mass (from the generated mass where the file has none), width and mixing angle."""
    if blocks.mass.shape[1] > 0:
        if weights.mass.shape[1] > 0:
            mass_group.add_weights(blocks.mass, cell, w, weights.mass[i])
        elif mass > 0.0:
            mass_group.add_breit_wigner(blocks.mass, cell, w, mass, kind.pole, kind.pole_width)
        else:
            add_unchanged(blocks.mass, cell, w)
    if blocks.width.shape[1] > 0:
        mass_group.add_weights(blocks.width, cell, w, weights.width[i])
    if blocks.sin2theta.shape[1] > 0:
        mass_group.add_weights(blocks.sin2theta, cell, w, weights.sin2theta[i])


@kernel
def fill_prefire(i: int, cell: int, w: float, weights: Any, block: Array, ratios: Array) -> None:
    """Add the muons' regions, their common uncertainty and the ECAL."""
    for source in range(prefire_group.ECAL):
        prefire_group.add(block, cell, source, w, ratios[source, 0], ratios[source, 1])
    nominal = np.float64(weights.ecal[i])
    if nominal > 0.0:
        up, down = weights.ecal_up[i] / nominal, weights.ecal_down[i] / nominal
        prefire_group.add(block, cell, prefire_group.ECAL, w, up, down)


@kernel
def add_unchanged(block: Array, cell: int, w: float) -> None:
    """Add w to every column of a block of full weights."""
    for j in range(block.shape[1]):
        block[cell, j] += w
