"""The Z as if it were a W: one muon of the pair is kept, the other is added to the missing momentum.

Events with an odd number keep the positive muon, even ones the negative: no event is used twice, and the two charges
are independent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from binworks.processors.channel import (
    ENTRIES,
    ODD_GENERATOR,
    ODD_KINEMATICS,
    ODD_WEIGHT,
    SELECTED,
    SUM_SIGN,
    MuonChannel,
)
from binworks.processors.generator import Boson, boson_of
from binworks.processors.missing import momentum_change, morphed, transverse_mass
from binworks.processors.muons import NONE, NOT_FINITE
from binworks.processors.pairs import fill_pair, select_pair
from binworks.tensors.axes import (
    CHARGE_BINS,
    ETA_BINS,
    ETA_HIGH,
    ETA_LOW,
    PT_LOW,
    Z_PT_BINS,
    Z_PT_HIGH,
    z_wlike_axes,
)
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import regular_bin

LOWEST_MT = 45.0


class ZWlike(MuonChannel, boson="Z"):
    """Kept muon (eta, pT, charge) of Z -> mu mu, the other taken for a neutrino, with its variations."""

    name: ClassVar[str] = "z_wlike"
    summary: ClassVar[str] = (
        "Z -> mu mu as a W: eta, pT, charge of one muon, the other in the missing momentum"
    )
    version: ClassVar[int] = 1

    def axes(self) -> tuple[Any, ...]:
        """Return eta, pt, charge."""
        return z_wlike_axes()

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
    """Select events, compute each one's cell and weight once, and add what it changes to every block."""
    for i in range(len(event.trigger)):
        counts[ENTRIES] += 1
        result = NONE
        if not kind.is_data and not np.isfinite(weights.gen[i]):
            result = ODD_WEIGHT
        else:
            if not kind.is_data:
                counts[SUM_SIGN] += int(np.sign(weights.gen[i]))
            kept = 1 if event.number[i] % 2 == 1 else -1
            pair = select_pair(i, kept, event, muons, electrons, triggers, generated, kind, counts)
            if pair.first == NOT_FINITE:
                result = ODD_KINEMATICS
            elif pair.first >= 0:
                result = fill_one(i, pair, event, muons, generated, weights, corrections, kind, blocks, room)
        if result >= 0:
            counts[result] += 1
            odd[i] = result != SELECTED


@kernel
def fill_one(
    i: int,
    pair: Any,
    event: Any,
    muons: Any,
    generated: Any,
    weights: Any,
    corrections: Any,
    kind: Any,
    blocks: Any,
    room: Any,
) -> int:
    """Find the event's cell and fill it, if mT is large enough; what was odd if anything is not finite."""
    if not (np.isfinite(event.met_pt[i]) and np.isfinite(event.met_phi[i])):
        return ODD_KINEMATICS
    boson = boson_of(i, generated, kind.has_boson)
    if np.isnan(boson.mass):
        return ODD_GENERATOR
    x, y = missing_with_second(i, pair, boson, event, muons, corrections, kind, room)
    pt, eta, phi = muons.pt[pair.first], muons.eta[pair.first], muons.phi[pair.first]
    if not transverse_mass(pt, phi, x, y) > LOWEST_MT:
        return NONE
    cell = regular_bin(eta, ETA_LOW, ETA_HIGH, ETA_BINS) * Z_PT_BINS
    cell = (cell + regular_bin(pt, PT_LOW, Z_PT_HIGH, Z_PT_BINS)) * CHARGE_BINS
    cell += 1 if muons.charge[pair.first] > 0 else 0
    if kind.is_data:
        blocks.values[cell] += 1.0
        blocks.variances[cell] += 1.0
        return SELECTED
    return int(fill_pair(i, cell, pair, boson, muons, generated, weights, corrections, kind, blocks, room))


@kernel
def missing_with_second(
    i: int, pair: Any, boson: Boson, event: Any, muons: Any, corrections: Any, kind: Any, room: Any
) -> Any:
    """Return (x, y) of the missing momentum with the second muon in it; both muons' corrections are carried into it."""
    met, phi = np.float64(event.met_pt[i]), np.float64(event.met_phi[i])
    x, y = met * np.cos(phi), met * np.sin(phi)
    visible_x, visible_y = 0.0, 0.0
    for m in (pair.first, pair.second):
        change_x, change_y = momentum_change(m, muons)
        x, y = x - change_x, y - change_y
        visible_x += muons.pt[m] * np.cos(muons.phi[m])
        visible_y += muons.pt[m] * np.sin(muons.phi[m])
    if not kind.is_data:
        x, y = morphed(x, y, visible_x, visible_y, boson, corrections.recoil, room)
    pt, angle = muons.pt[pair.second], muons.phi[pair.second]
    return x + pt * np.cos(angle), y + pt * np.sin(angle)
