"""Two good, isolated muons of opposite charge: the selection that the Z channels share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from binworks.processors.channel import Inputs
from binworks.processors.generator import match_muons
from binworks.processors.muons import NOT_FINITE, have_veto_electron, match_trigger, veto_muons
from binworks.processors.selected import (
    FILTERS,
    GENERATOR_MATCH,
    GOOD_MUONS,
    ISOLATED,
    NO_ELECTRON,
    ODD_KINEMATICS,
    TRIGGER,
    TRIGGER_MATCH,
    VETO_MUONS,
    CutFlow,
    Selection,
    leg,
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
    columns, muons = given.columns, given.muons
    events = events[columns["trigger"][events] != 0]
    flow.passed(TRIGGER, events)
    events = events[columns["met_filters"][events] != 0]
    flow.passed(FILTERS, events)
    number, one, two = veto_muons(events, muons)
    flow.odd(ODD_KINEMATICS, events[number == NOT_FINITE])
    events, one, two = (array[number == 2] for array in (events, one, two))
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


@kernel
def good_pairs(first: Array, second: Array, muons: Any) -> Array:
    """Return whether two veto muons are good, isolated, of opposite charge, and their mass is near the Z's."""
    good = np.zeros(len(first), np.bool_)
    for j in range(len(first)):
        m, n = first[j], second[j]
        if muons.charge[m] * muons.charge[n] < 0 and is_good(m, muons) and is_good(n, muons):
            mass = dilepton_of(m, n, muons)[2]
            good[j] = mass > MLL_LOW and mass < MLL_HIGH
    return good


@kernel
def is_good(m: int, muons: Any) -> bool:
    """Whether a veto muon is good and isolated."""
    good = muons.medium[m] != 0 and muons.pt[m] > PT_LOW and muons.pt[m] < Z_PT_HIGH
    return bool(good and np.float64(muons.iso[m]) < ISOLATED)


@kernel
def dilepton_of(m: int, n: int, muons: Any) -> Any:
    """Return the pair's transverse momentum (x, y), mass (GeV) and rapidity."""
    x1, y1 = muons.pt[m] * np.cos(muons.phi[m]), muons.pt[m] * np.sin(muons.phi[m])
    x2, y2 = muons.pt[n] * np.cos(muons.phi[n]), muons.pt[n] * np.sin(muons.phi[n])
    z1, z2 = muons.pt[m] * np.sinh(muons.eta[m]), muons.pt[n] * np.sinh(muons.eta[n])
    m2 = MUON_MASS * MUON_MASS
    e = np.sqrt(x1 * x1 + y1 * y1 + z1 * z1 + m2) + np.sqrt(x2 * x2 + y2 * y2 + z2 * z2 + m2)
    x, y, z = x1 + x2, y1 + y2, z1 + z2
    mass = np.sqrt(max(e * e - x * x - y * y - z * z, 0.0))
    return x, y, mass, 0.5 * np.log((e + z) / (e - z))
