"""The W channel: one good muon, all six regions of (mT, isolation)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from binworks.processors.channel import Inputs, MuonChannel
from binworks.processors.generator import Bosons, match_muons
from binworks.processors.missing import (
    missing_momentum,
    transverse_mass,
    visible_momentum,
    with_morphed_recoil,
)
from binworks.processors.muons import NOT_FINITE, have_veto_electron, match_trigger, veto_muons
from binworks.processors.payloads import Corrections
from binworks.processors.selected import (
    GENERATOR_MATCH,
    GOOD_MUONS,
    NO_ELECTRON,
    ODD_KINEMATICS,
    TRIGGER_MATCH,
    VETO_MUONS,
    CutFlow,
    Selection,
    leg,
    triggered,
)
from binworks.tensors.axes import (
    CHARGE_BINS,
    ISO_EDGES,
    MT_EDGES,
    PT_BINS,
    PT_HIGH,
    PT_LOW,
    w_axes,
)
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import regular_bin, variable_bin

Array = NDArray[Any]

MT_BINS, ISO_BINS = len(MT_EDGES) - 1, len(ISO_EDGES) - 1
MT_ARRAY, ISO_ARRAY = np.array(MT_EDGES), np.array(ISO_EDGES)


class WMass(MuonChannel, boson="W"):
    """Muon (eta, pT, charge) in bins of mT and isolation, with its variations."""

    name: ClassVar[str] = "w_mass"
    summary: ClassVar[str] = "W -> mu nu: muon eta, pT, charge in six regions of mT and isolation"
    version: ClassVar[int] = 2

    def axes(self) -> tuple[Any, ...]:
        """Return eta, pt, charge, mt, relIso."""
        return w_axes()

    def select(self, given: Inputs, events: Array, flow: CutFlow) -> Selection:
        """Return the events with one good muon that fired the trigger, and no other lepton."""
        columns, muons = given.columns, given.muons
        events = triggered(columns, events, flow)
        number, first, _ = veto_muons(events, muons)
        flow.odd(ODD_KINEMATICS, events[number == NOT_FINITE])
        events, places = events[number == 1], first[number == 1]
        flow.passed(VETO_MUONS, events)
        pt = muons.pt[places]
        good = (muons.medium[places] != 0) & (pt > PT_LOW) & (pt < PT_HIGH)
        events, places = events[good], places[good]
        flow.passed(GOOD_MUONS, events)
        alone = ~have_veto_electron(events, given.electrons)
        events, places = events[alone], places[alone]
        flow.passed(NO_ELECTRON, events)
        fired = match_trigger(events, places, muons, given.triggers)
        events, places = events[fired], places[fired]
        flow.passed(TRIGGER_MATCH, events)
        matches = np.full(len(events), -1)
        if given.matched:
            matches = match_muons(events, places, muons, given.generated)
            events, places, matches = (array[matches >= 0] for array in (events, places, matches))
        flow.passed(GENERATOR_MATCH, events)
        finite = np.isfinite(columns["met.pt"][events]) & np.isfinite(columns["met.phi"][events])
        finite &= np.isfinite(muons.iso[places])
        flow.odd(ODD_KINEMATICS, events[~finite])
        chosen = leg(places[finite], matches[finite], muons, fires=True)
        return Selection(events[finite], (chosen,))

    def cells(self, given: Inputs, chosen: Selection, bosons: Bosons, corrections: Corrections) -> Array:
        """Return the flat cells of (eta, pt, charge, mt, relIso)."""
        columns, muon = given.columns, chosen.legs[0]
        legs = (muon.place,)
        met = missing_momentum(chosen.events, columns["met.pt"], columns["met.phi"], legs, given.muons)
        visible = visible_momentum(legs, given.muons)
        x, y = with_morphed_recoil(met, visible, bosons, corrections.recoil)
        cells = np.empty(len(x), np.int64)
        find_cells(muon, given.muons.iso, x, y, cells)
        return cells


@kernel
def find_cells(muon: Any, isolation: Array, x: Array, y: Array, cells: Array) -> None:
    """Fill the flat cells; (x, y) is the missing momentum, ``isolation`` that of the range's muons."""
    for j in range(len(x)):
        mt = transverse_mass(muon.pt[j], muon.phi[j], x[j], y[j])
        cell = muon.eta_bin[j] * PT_BINS + regular_bin(muon.pt[j], PT_LOW, PT_HIGH, PT_BINS)
        cell = cell * CHARGE_BINS + muon.charge_bin[j]
        cell = cell * MT_BINS + variable_bin(mt, MT_ARRAY)
        relative = max(np.float64(isolation[muon.place[j]]), 0.0)
        cells[j] = cell * ISO_BINS + variable_bin(relative, ISO_ARRAY)
