"""The Z as if it were a W: one muon of the pair is kept, the other is added to the missing momentum.

Events with an odd number keep the positive muon, even ones the negative: no event is used twice, and the two charges
are independent.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from binworks.processors.channel import Inputs, MuonChannel
from binworks.processors.generator import Bosons
from binworks.processors.missing import (
    add_vectors,
    missing_momentum,
    transverse_mass,
    visible_momentum,
    with_morphed_recoil,
)
from binworks.processors.pairs import select_pair
from binworks.processors.payloads import Corrections
from binworks.processors.selected import ODD_KINEMATICS, CutFlow, Selection
from binworks.tensors.axes import CHARGE_BINS, PT_LOW, Z_PT_BINS, Z_PT_HIGH, z_wlike_axes
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import regular_bin

Array = NDArray[Any]

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

    def select(self, given: Inputs, events: Array, flow: CutFlow) -> Selection:
        """Return the pairs of which the kept muon, first, fired the trigger."""
        columns = given.columns
        kept = np.where(columns["event"] % 2 == 1, 1, -1)
        chosen = select_pair(given, events, flow, kept)
        met, angle = columns["met.pt"][chosen.events], columns["met.phi"][chosen.events]
        finite = np.isfinite(met) & np.isfinite(angle)
        flow.odd(ODD_KINEMATICS, chosen.events[~finite])
        return chosen.where(finite)

    def cells(self, given: Inputs, chosen: Selection, bosons: Bosons, corrections: Corrections) -> Array:
        """Return the flat cells of (eta, pt, charge), -1 where mT is too small."""
        columns = given.columns
        kept, other = chosen.legs
        legs = (kept.place, other.place)
        met = missing_momentum(chosen.events, columns["met.pt"], columns["met.phi"], legs, given.muons)
        visible = visible_momentum(legs, given.muons)
        x, y = with_morphed_recoil(met, visible, bosons, corrections.recoil)
        add_vectors(1.0, other.place, (given.muons.pt, given.muons.phi), x, y)
        cells = np.full(len(x), -1)
        find_cells(kept, x, y, cells)
        return cells


@kernel
def find_cells(kept: Any, x: Array, y: Array, cells: Array) -> None:
    """Fill the flat cells of events with enough mT; (x, y) is the missing momentum with the other muon in it."""
    for j in range(len(x)):
        if transverse_mass(kept.pt[j], kept.phi[j], x[j], y[j]) > LOWEST_MT:
            cell = kept.eta_bin[j] * Z_PT_BINS + regular_bin(kept.pt[j], PT_LOW, Z_PT_HIGH, Z_PT_BINS)
            cells[j] = cell * CHARGE_BINS + kept.charge_bin[j]
