"""Missing transverse momentum: carries the muons' corrections, and the recoil's; transverse mass."""

from __future__ import annotations

from typing import Any

import numpy as np

from binworks.corrections import recoil
from binworks.tensors.jit import kernel


@kernel
def momentum_change(m: int, muons: Any) -> Any:
    """Return (x, y) of the corrected minus the measured transverse momentum of muon m, in GeV."""
    pt, phi = np.float64(muons.measured_pt[m]), np.float64(muons.measured_phi[m])
    x = muons.pt[m] * np.cos(muons.phi[m]) - pt * np.cos(phi)
    return x, muons.pt[m] * np.sin(muons.phi[m]) - pt * np.sin(phi)


@kernel
def morphed(x: float, y: float, visible_x: float, visible_y: float, boson: Any, table: Any, room: Any) -> Any:
    """Return the missing momentum (x, y) whose recoil is distributed as in data.

    u = -(missing + visible), in components along the boson's transverse momentum and perpendicular to it.
    """
    if not boson.mass > 0.0 or not recoil.is_active(table):
        return x, y
    cosine, sine = 1.0, 0.0
    if boson.qt > 0.0:
        cosine, sine = boson.px / boson.qt, boson.py / boson.qt
    ux, uy = -(x + visible_x), -(y + visible_y)
    room.recoil[0], room.recoil[1] = ux * cosine + uy * sine, uy * cosine - ux * sine
    recoil.morph(boson.qt, room.recoil, table, room.morphed)
    parallel, perpendicular = room.morphed[0], room.morphed[1]
    ux, uy = parallel * cosine - perpendicular * sine, parallel * sine + perpendicular * cosine
    return -ux - visible_x, -uy - visible_y


@kernel
def transverse_mass(pt: float, phi: float, x: float, y: float) -> float:
    """Return mT (GeV) of a muon and the missing momentum (x, y)."""
    product = pt * np.sqrt(x * x + y * y) - pt * (x * np.cos(phi) + y * np.sin(phi))
    return float(np.sqrt(max(2.0 * product, 0.0)))
