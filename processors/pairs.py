"""Two good, isolated muons of opposite charge, and what such an event weighs and fills: shared by the Z channels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from binworks.processors.channel import (
    FILTERS,
    GEN_MATCHED,
    GOOD_MUONS,
    MATCHED,
    NO_ELECTRON,
    ODD_GENERATOR,
    ODD_WEIGHT,
    SELECTED,
    TRIGGER,
    VETO_MUONS,
)
from binworks.processors.generator import matched_muon
from binworks.processors.muon_weights import Muon, fill_muon, fill_pair_ratios, muon_factor
from binworks.processors.muons import (
    NONE,
    NOT_FINITE,
    has_veto_electron,
    matches_trigger,
    veto_muons,
)
from binworks.processors.weights import event_factors, fill_event
from binworks.tensors.axes import (
    ETA_BINS,
    ETA_HIGH,
    ETA_LOW,
    ISO_EDGES,
    MLL_HIGH,
    MLL_LOW,
    PT_LOW,
    Z_PT_HIGH,
)
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import regular_bin

MUON_MASS = 0.1056583755
ISOLATED = ISO_EDGES[1]


class Pair(NamedTuple):
    """Two muons in the range (NONE or NOT_FINITE in the first's place), with their matches.

    ``first`` is the one that fires the trigger.
    """

    first: int
    second: int
    first_match: int
    second_match: int


class Dilepton(NamedTuple):
    """The pair's four-momentum: transverse (GeV), mass (GeV), rapidity."""

    x: float
    y: float
    mass: float
    rapidity: float


@kernel
def dilepton_of(first: int, second: int, muons: Any) -> Dilepton:
    """Return the pair's four-momentum."""
    x1, y1 = muons.pt[first] * np.cos(muons.phi[first]), muons.pt[first] * np.sin(muons.phi[first])
    x2, y2 = muons.pt[second] * np.cos(muons.phi[second]), muons.pt[second] * np.sin(muons.phi[second])
    z1, z2 = muons.pt[first] * np.sinh(muons.eta[first]), muons.pt[second] * np.sinh(muons.eta[second])
    m2 = MUON_MASS * MUON_MASS
    e = np.sqrt(x1 * x1 + y1 * y1 + z1 * z1 + m2) + np.sqrt(x2 * x2 + y2 * y2 + z2 * z2 + m2)
    x, y, z = x1 + x2, y1 + y2, z1 + z2
    mass = np.sqrt(max(e * e - x * x - y * y - z * z, 0.0))
    return Dilepton(x, y, mass, 0.5 * np.log((e + z) / (e - z)))


@kernel
def is_good(m: int, muons: Any) -> bool:
    """Whether a veto muon is good and isolated."""
    return bool(
        muons.medium[m]
        and muons.pt[m] > PT_LOW
        and muons.pt[m] < Z_PT_HIGH
        and np.float64(muons.iso[m]) < ISOLATED
    )


@kernel
def is_good_pair(positive: int, negative: int, muons: Any) -> bool:
    """Whether two veto muons have opposite charges, are good and isolated, and their mass is near the Z's."""
    if muons.charge[positive] < 0 or muons.charge[negative] > 0:
        return False
    if not (is_good(positive, muons) and is_good(negative, muons)):
        return False
    mass = dilepton_of(positive, negative, muons).mass
    return bool(mass > MLL_LOW and mass < MLL_HIGH)


@kernel
def select_pair(
    i: int,
    wanted: int,
    event: Any,
    muons: Any,
    electrons: Any,
    triggers: Any,
    generated: Any,
    kind: Any,
    counts: Any,
) -> Pair:
    """Return the event's pair; NONE in the first's place if the event is not selected, or NOT_FINITE.

    ``wanted`` is the charge of the muon that must fire the trigger and comes first; 0: the positive one if it does,
    else the negative one.
    """
    if not event.trigger[i]:
        return Pair(NONE, NONE, -1, -1)
    counts[TRIGGER] += 1
    if not event.met_filters[i]:
        return Pair(NONE, NONE, -1, -1)
    counts[FILTERS] += 1
    found, positive, negative = veto_muons(i, muons)
    if found == NOT_FINITE:
        return Pair(NOT_FINITE, NONE, -1, -1)
    if found != 2:
        return Pair(NONE, NONE, -1, -1)
    counts[VETO_MUONS] += 1
    if muons.charge[positive] < 0:
        positive, negative = negative, positive
    if not is_good_pair(positive, negative, muons):
        return Pair(NONE, NONE, -1, -1)
    counts[GOOD_MUONS] += 1
    if has_veto_electron(i, electrons):
        return Pair(NONE, NONE, -1, -1)
    counts[NO_ELECTRON] += 1
    first, second = (positive, negative) if wanted >= 0 else (negative, positive)
    if not matches_trigger(i, muons.eta[first], muons.phi[first], triggers):
        first, second = second, first
        if wanted != 0 or not matches_trigger(i, muons.eta[first], muons.phi[first], triggers):
            return Pair(NONE, NONE, -1, -1)
    counts[MATCHED] += 1
    match, other = -1, -1
    if not kind.is_data and kind.prompt:
        match = matched_muon(i, muons.eta[first], muons.phi[first], generated)
        other = matched_muon(i, muons.eta[second], muons.phi[second], generated)
        if match < 0 or other < 0:
            return Pair(NONE, NONE, -1, -1)
    counts[GEN_MATCHED] += 1
    return Pair(first, second, match, other)


@kernel
def muon_at(m: int, match: int, fires: bool, muons: Any) -> Muon:
    """Return one muon of the pair."""
    charge = 1 if muons.charge[m] > 0 else -1
    eta_bin = regular_bin(muons.eta[m], ETA_LOW, ETA_HIGH, ETA_BINS)
    return Muon(
        m,
        match,
        muons.pt[m],
        muons.eta[m],
        muons.phi[m],
        charge,
        eta_bin,
        1 if charge > 0 else 0,
        True,
        fires,
    )


@kernel
def fill_pair(
    i: int,
    cell: int,
    pair: Any,
    boson: Any,
    muons: Any,
    generated: Any,
    weights: Any,
    corrections: Any,
    kind: Any,
    blocks: Any,
    room: Any,
) -> int:
    """Weigh the event and add it to the nominal sums and to every block; what was odd if anything is not finite."""
    one = muon_at(pair.first, pair.first_match, True, muons)
    two = muon_at(pair.second, pair.second_match, False, muons)
    for match in (one.match, two.match):
        if match >= 0 and not np.isfinite(generated.pt[match] + generated.eta[match]):
            return ODD_GENERATOR
    factors = event_factors(i, boson, muons, generated, weights, corrections, room)
    ut_one = boson.px * np.cos(one.phi) + boson.py * np.sin(one.phi)
    ut_two = boson.px * np.cos(two.phi) + boson.py * np.sin(two.phi)
    w_without_pileup = factors.weight * muon_factor(0, one, ut_one, corrections, room)
    w_without_pileup *= muon_factor(1, two, ut_two, corrections, room)
    w = w_without_pileup * factors.pileup[0]
    if not np.isfinite(w):
        return ODD_WEIGHT
    fill_event(i, cell, w, w_without_pileup, boson, factors, weights, corrections, kind, blocks, room)
    fill_muon(0, cell, w, one, generated, corrections, blocks, room, True)
    fill_muon(1, cell, w, two, generated, corrections, blocks, room, True)
    fill_pair_ratios(cell, w, one, two, muons, corrections, blocks, room)
    return SELECTED
