"""The W channel: one good muon, all six regions of (mT, isolation).

One kernel computes bin and weight of an event once, and adds what the event changes to each variation group's block.
Read `fill_events` and what it calls from top to bottom: it is the analysis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from binworks.corrections import efficiency
from binworks.processors.channel import (
    ENTRIES,
    FILTERS,
    GEN_MATCHED,
    GOOD_MUONS,
    MATCHED,
    NO_ELECTRON,
    ODD_GENERATOR,
    ODD_KINEMATICS,
    ODD_WEIGHT,
    SELECTED,
    SUM_SIGN,
    TRIGGER,
    VETO_MUONS,
    MuonChannel,
)
from binworks.processors.generator import boson_of, lost_muon, matched_muon
from binworks.processors.missing import momentum_change, morphed, transverse_mass
from binworks.processors.muon_weights import Muon, fill_muon, fill_ratios, muon_factor
from binworks.processors.muons import (
    NONE,
    NOT_FINITE,
    has_veto_electron,
    matches_trigger,
    veto_muons,
)
from binworks.processors.weights import event_factors, fill_event
from binworks.tensors.axes import (
    CHARGE_BINS,
    ETA_BINS,
    ETA_HIGH,
    ETA_LOW,
    ISO_EDGES,
    MT_EDGES,
    PT_BINS,
    PT_HIGH,
    PT_LOW,
    w_axes,
)
from binworks.tensors.groups import efficiency as efficiency_group
from binworks.tensors.groups import ratios as ratios_group
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import regular_bin, variable_bin

MT_BINS, ISO_BINS = len(MT_EDGES) - 1, len(ISO_EDGES) - 1
MT_ARRAY, ISO_ARRAY = np.array(MT_EDGES), np.array(ISO_EDGES)
ISOLATED = ISO_EDGES[1]


class Chosen(NamedTuple):
    """The event's muon in the range (NONE, NOT_FINITE in its place), and its generated match (-1: none)."""

    muon: int
    match: int


class WMass(MuonChannel, boson="W"):
    """Muon (eta, pT, charge) in bins of mT and isolation, with its variations."""

    name: ClassVar[str] = "w_mass"
    summary: ClassVar[str] = "W -> mu nu: muon eta, pT, charge in six regions of mT and isolation"
    version: ClassVar[int] = 2

    def axes(self) -> tuple[Any, ...]:
        """Return eta, pt, charge, mt, relIso."""
        return w_axes()

    def kernel(self) -> Callable[..., None]:
        """Return `fill_events`."""
        return fill_events


@kernel
def fill_events(
    event: Any,
    muons: Any,
    electrons: Any,
    triggers: Any,
    generated: Any,
    weights: Any,
    corrections: Any,
    kind: Any,
    blocks: Any,
    room: Any,
    counts: Any,
    odd: Any,
) -> None:
    """Select events, compute each one's cell and weight once, and add what it changes to every block.

    ``counts`` is ordered as `COUNTS`; ``odd`` marks events left out because a number was not finite.
    """
    for i in range(len(event.trigger)):
        counts[ENTRIES] += 1
        result = NONE
        if not kind.is_data and not np.isfinite(weights.gen[i]):
            result = ODD_WEIGHT
        else:
            if not kind.is_data:
                counts[SUM_SIGN] += int(np.sign(weights.gen[i]))
            chosen = select(i, event, muons, electrons, triggers, generated, kind, counts)
            if chosen.muon == NOT_FINITE:
                result = ODD_KINEMATICS
            elif chosen.muon >= 0 and kind.is_data:
                result = fill_observed(i, muon_of(chosen, muons), event, muons, blocks)
            elif chosen.muon >= 0:
                muon = muon_of(chosen, muons)
                result = fill_simulated(
                    i, muon, event, muons, generated, weights, corrections, kind, blocks, room
                )
        if result >= 0:
            counts[result] += 1
            odd[i] = result != SELECTED


@kernel
def select(
    i: int, event: Any, muons: Any, electrons: Any, triggers: Any, generated: Any, kind: Any, counts: Any
) -> Chosen:
    """Return the event's muon; NONE in its place if the event is not selected, or NOT_FINITE."""
    if not event.trigger[i]:
        return Chosen(NONE, -1)
    counts[TRIGGER] += 1
    if not event.met_filters[i]:
        return Chosen(NONE, -1)
    counts[FILTERS] += 1
    found, m, _ = veto_muons(i, muons)
    if found == NOT_FINITE:
        return Chosen(NOT_FINITE, -1)
    if found != 1:
        return Chosen(NONE, -1)
    counts[VETO_MUONS] += 1
    if not (muons.medium[m] and muons.pt[m] > PT_LOW and muons.pt[m] < PT_HIGH):
        return Chosen(NONE, -1)
    counts[GOOD_MUONS] += 1
    if has_veto_electron(i, electrons):
        return Chosen(NONE, -1)
    counts[NO_ELECTRON] += 1
    if not matches_trigger(i, muons.eta[m], muons.phi[m], triggers):
        return Chosen(NONE, -1)
    counts[MATCHED] += 1
    match = -1
    if not kind.is_data and kind.prompt:
        match = matched_muon(i, muons.eta[m], muons.phi[m], generated)
        if match < 0:
            return Chosen(NONE, -1)
    counts[GEN_MATCHED] += 1
    if not (np.isfinite(event.met_pt[i]) and np.isfinite(event.met_phi[i]) and np.isfinite(muons.iso[m])):
        return Chosen(NOT_FINITE, -1)
    return Chosen(m, match)


@kernel
def muon_of(chosen: Any, muons: Any) -> Muon:
    """Return the chosen muon."""
    m = chosen.muon
    charge = 1 if muons.charge[m] > 0 else -1
    return Muon(
        m,
        chosen.match,
        muons.pt[m],
        muons.eta[m],
        muons.phi[m],
        charge,
        regular_bin(muons.eta[m], ETA_LOW, ETA_HIGH, ETA_BINS),
        1 if charge > 0 else 0,
        bool(np.float64(muons.iso[m]) < ISOLATED),
        True,
    )


@kernel
def missing_of(i: int, muon: Any, event: Any, muons: Any) -> Any:
    """Return (x, y) of the missing momentum; the change of the muon's momentum is carried into it."""
    met, phi = np.float64(event.met_pt[i]), np.float64(event.met_phi[i])
    change_x, change_y = momentum_change(muon.place, muons)
    return met * np.cos(phi) - change_x, met * np.sin(phi) - change_y


@kernel
def cell_of(muon: Any, relative_isolation: float, x: float, y: float) -> int:
    """Return the flat cell of (eta, pt, charge, mt, relIso); (x, y) is the missing momentum."""
    mt = transverse_mass(muon.pt, muon.phi, x, y)
    cell = muon.eta_bin * PT_BINS + regular_bin(muon.pt, PT_LOW, PT_HIGH, PT_BINS)
    cell = cell * CHARGE_BINS + muon.charge_bin
    cell = cell * MT_BINS + variable_bin(mt, MT_ARRAY)
    return int(cell * ISO_BINS + variable_bin(max(relative_isolation, 0.0), ISO_ARRAY))


@kernel
def fill_observed(i: int, muon: Any, event: Any, muons: Any, blocks: Any) -> int:
    """Count the event of data."""
    x, y = missing_of(i, muon, event, muons)
    cell = cell_of(muon, np.float64(muons.iso[muon.place]), x, y)
    blocks.values[cell] += 1.0
    blocks.variances[cell] += 1.0
    return SELECTED


@kernel
def fill_simulated(
    i: int,
    muon: Any,
    event: Any,
    muons: Any,
    generated: Any,
    weights: Any,
    corrections: Any,
    kind: Any,
    blocks: Any,
    room: Any,
) -> int:
    """Weigh the event and add it to the nominal sums and to every block; what was odd if anything is not finite."""
    boson = boson_of(i, generated, kind.has_boson)
    if np.isnan(boson.mass):
        return ODD_GENERATOR
    x, y = missing_of(i, muon, event, muons)
    visible_x, visible_y = muon.pt * np.cos(muon.phi), muon.pt * np.sin(muon.phi)
    x, y = morphed(x, y, visible_x, visible_y, boson, corrections.recoil, room)
    cell = cell_of(muon, np.float64(muons.iso[muon.place]), x, y)
    ut = boson.px * np.cos(muon.phi) + boson.py * np.sin(muon.phi)
    factors = event_factors(i, boson, muons, generated, weights, corrections, room)
    w = factors.weight * muon_factor(0, muon, ut, corrections, room)
    lost = lost_muon(i, muon.match, generated) if kind.is_z and muon.match >= 0 else -1
    veto, slope = veto_factor(lost, generated, corrections, room)
    w_without_pileup = w * veto
    w = w_without_pileup * factors.pileup[0]
    if not np.isfinite(w):
        return ODD_WEIGHT
    if muon.match >= 0 and not np.isfinite(generated.pt[muon.match] + generated.eta[muon.match]):
        return ODD_GENERATOR
    fill_event(i, cell, w, w_without_pileup, boson, factors, weights, corrections, kind, blocks, room)
    fill_muon(0, cell, w, muon, generated, corrections, blocks, room, False)
    fill_ratios(cell, w, muon, muons, corrections, blocks, room)
    if lost >= 0:
        fill_veto(cell, w, lost, veto, slope, generated, corrections, blocks, room)
    return SELECTED


@kernel
def veto_factor(lost: int, generated: Any, corrections: Any, room: Any) -> Any:
    """Return the factor of the generated muon that the veto did not see, and its derivative to the scale factor."""
    if lost < 0:
        return 1.0, 0.0
    basis = room.basis[1, 0]
    efficiency.fill_basis(np.float64(generated.pt[lost]), 0.0, corrections.veto, basis)
    eta_bin = regular_bin(np.float64(generated.eta[lost]), ETA_LOW, ETA_HIGH, ETA_BINS)
    return efficiency.failing_factor(basis, eta_bin, charge_bin(lost, generated), corrections.veto)


@kernel
def charge_bin(g: int, generated: Any) -> int:
    """Return 1 for a positive generated muon, 0 for a negative one."""
    return 0 if generated.pdg_id[g] > 0 else 1


@kernel
def fill_veto(
    cell: int,
    w: float,
    lost: int,
    factor: float,
    slope: float,
    generated: Any,
    corrections: Any,
    blocks: Any,
    room: Any,
) -> None:
    """Add the lost muon's deviations to the columns of its own eta bin and charge."""
    eta_bin = regular_bin(np.float64(generated.eta[lost]), ETA_LOW, ETA_HIGH, ETA_BINS)
    charge, basis = charge_bin(lost, generated), room.basis[1, 0]
    n = corrections.veto.coefficients.shape[2]
    if blocks.veto_stat.shape[1] > 0:
        offset = (2 * eta_bin + charge) * n
        efficiency_group.add(blocks.veto_stat, cell, offset, w * slope / factor, basis, n)
    if blocks.veto_systematics.shape[1] > 0:
        for a in range(corrections.veto.alternatives.shape[0]):
            other = efficiency.failing_alternative(a, basis, eta_bin, charge, corrections.veto)
            ratios_group.add_spread(blocks.veto_systematics, cell, a, w, eta_bin, other / factor)
