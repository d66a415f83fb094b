"""Two good, isolated muons of opposite charge: the selection that the Z channels share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from binworks.processors.channel import Inputs
from binworks.processors.generator import match_muons
from binworks.processors.muons import NOT_FINITE, Muons, have_veto_electron, match_trigger, veto_muons
from binworks.processors.selected import (
    GENERATOR_MATCH,
    GOOD_MUONS,
    ISOLATED,
    NO_ELECTRON,
    ODD_KINEMATICS,
    TRIGGER_MATCH,
    VETO_MUONS,
    CutFlow,
    Selection,
    leg,
    triggered,
)
from binworks.tensors.axes import MLL_HIGH, MLL_LOW, PT_LOW, Z_PT_HIGH
from binworks.tensors.jit import kernel

Array = NDArray[Any]

MUON_MASS = 0.1056583755


def select_pair(given: Inputs, events: Array, flow: CutFlow, kept: Array | None) -> Selection:
    """Return the events with such a pair; its first leg fired the trigger.

    Parameters
    ----------
    kept : array of int, shape (all events of the range,), or None
        Charge of the muon that must fire the trigger and comes first; None: the positive one if it does, else the
        negative one.
    """
    muons = given.muons
    events = triggered(given.columns, events, flow)
    number, one, two = veto_muons(events, muons)
    flow.odd(ODD_KINEMATICS, events[number == NOT_FINITE])
    events, one, two = (array[number == 2] for array in (events, one, two))
    finite = np.isfinite(muons.iso[one]) & np.isfinite(muons.iso[two])
    flow.odd(ODD_KINEMATICS, events[~finite])
    events, one, two = (array[finite] for array in (events, one, two))
    flow.passed(VETO_MUONS, events)
    wanted = np.full(len(events), 1) if kept is None else kept[events]
    swapped = muons.charge[one] != wanted
    first, second = np.where(swapped, two, one), np.where(swapped, one, two)
    good = good_pairs(first, second, muons)
    events, first, second = (array[good] for array in (events, first, second))
    flow.passed(GOOD_MUONS, events)
    alone = ~have_veto_electron(events, given.electrons)
    events, first, second = (array[alone] for array in (events, first, second))
    flow.passed(NO_ELECTRON, events)
    fired = match_trigger(events, first, muons, given.triggers)
    if kept is None:
        other = ~fired & match_trigger(events, second, muons, given.triggers)
        first, second = np.where(other, second, first), np.where(other, first, second)
        fired |= other
    events, first, second = (array[fired] for array in (events, first, second))
    flow.passed(TRIGGER_MATCH, events)
    matches = np.full((2, len(events)), -1)
    if given.matched:
        matches = np.stack(
            [match_muons(events, places, muons, given.generated) for places in (first, second)]
        )
        both = (matches >= 0).all(axis=0)
        events, first, second, matches = events[both], first[both], second[both], matches[:, both]
    flow.passed(GENERATOR_MATCH, events)
    legs = (leg(first, matches[0], muons, fires=True), leg(second, matches[1], muons, fires=False))
    return Selection(events, legs)


def good_pairs(first: Array, second: Array, muons: Muons) -> Array:
    """Return whether two veto muons are good, isolated, of opposite charge, and their mass is near the Z's."""
    good = muons.charge[first] * muons.charge[second] < 0
    for places in (first, second):
        pt = muons.pt[places]
        good &= (muons.medium[places] != 0) & (pt > PT_LOW) & (pt < Z_PT_HIGH)
        good &= muons.iso[places].astype(np.float64) < ISOLATED
    mass = np.empty(len(first))
    find_masses(first, second, momenta_of(muons), mass)
    inside: Array = good & (mass > MLL_LOW) & (mass < MLL_HIGH)
    return inside


def momenta_of(muons: Muons) -> tuple[Array, Array, Array]:
    """Return the corrected pT (GeV), eta and phi."""
    return muons.pt, muons.eta, muons.phi


@kernel
def find_masses(first: Array, second: Array, momenta: Any, mass: Array) -> None:
    """Fill the masses (GeV) of the pairs."""
    for j in range(len(first)):
        mass[j] = dilepton_of(first[j], second[j], momenta)[2]


@kernel
def dilepton_of(m: int, n: int, momenta: Any) -> tuple[float, float, float, float]:
    """Return the pair's transverse momentum (x, y), mass (GeV) and rapidity; momenta are (pT, eta, phi)."""
    pt, eta, phi = momenta
    x1, y1 = pt[m] * np.cos(phi[m]), pt[m] * np.sin(phi[m])
    x2, y2 = pt[n] * np.cos(phi[n]), pt[n] * np.sin(phi[n])
    z1, z2 = pt[m] * np.sinh(eta[m]), pt[n] * np.sinh(eta[n])
    m2 = MUON_MASS * MUON_MASS
    e = np.sqrt(x1 * x1 + y1 * y1 + z1 * z1 + m2) + np.sqrt(x2 * x2 + y2 * y2 + z2 * z2 + m2)
    x, y, z = x1 + x2, y1 + y2, z1 + z2
    mass = np.sqrt(max(e * e - x * x - y * y - z * z, 0.0))
    return x, y, mass, 0.5 * np.log((e + z) / (e - z))
