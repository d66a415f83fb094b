"""Missing transverse momentum: carries the muons' corrections, and the recoil's; transverse mass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from binworks.corrections.recoil import Recoil, is_active, morph
from binworks.processors.generator import Bosons
from binworks.processors.muons import Muons
from binworks.tensors.jit import kernel

Array = NDArray[Any]


def missing_momentum(
    events: Array, pt: Array, phi: Array, legs: tuple[Array, ...], muons: Muons
) -> tuple[Array, Array]:
    """Return (x, y) of the missing momentum (GeV); the change of the muons' momenta is carried into it.

    ``pt`` and ``phi`` are those of the range's events; ``legs`` has the places of the muons, leg by leg.
    """
    x, y = np.zeros(len(events)), np.zeros(len(events))
    add_vectors(1.0, events, (pt.astype(np.float64), phi.astype(np.float64)), x, y)
    for places in legs:
        add_vectors(-1.0, places, (muons.pt, muons.phi), x, y)
        add_vectors(1.0, places, (muons.measured_pt, muons.measured_phi), x, y)
    return x, y


def visible_momentum(legs: tuple[Array, ...], muons: Muons) -> tuple[Array, Array]:
    """Return (x, y) of the sum of the legs' muons (GeV)."""
    x, y = np.zeros(len(legs[0])), np.zeros(len(legs[0]))
    for places in legs:
        add_vectors(1.0, places, (muons.pt, muons.phi), x, y)
    return x, y


@kernel
def add_vectors(sign: float, places: Array, polar: Any, x: Array, y: Array) -> None:
    """Add transverse vectors at these places of the arrays (pT, phi) to (x, y)."""
    pt, phi = polar
    for j in range(len(places)):
        length, angle = pt[places[j]], phi[places[j]]
        x[j] += sign * length * np.cos(angle)
        y[j] += sign * length * np.sin(angle)


def with_morphed_recoil(
    missing: tuple[Array, Array], visible: tuple[Array, Array], bosons: Bosons, table: Recoil
) -> tuple[Array, Array]:
    """Return the missing momentum (x, y) whose recoil is distributed as in data.

    u = -(missing + visible), in components along the boson's transverse momentum and perpendicular to it.
    """
    x, y = missing
    if is_active(table):
        scratch = (np.empty(2), np.empty(2), np.empty(2))
        morph_recoil(x, y, visible, (bosons.mass, bosons.qt, bosons.px, bosons.py), table, scratch)
    return x, y


@kernel
def morph_recoil(x: Array, y: Array, visible: Any, boson: Any, table: Any, scratch: Any) -> None:
    """Change the missing momentum (x, y) of events with a boson."""
    u, morphed, place = scratch
    mass, qt, px, py = boson
    for j in range(len(x)):
        if mass[j] > 0.0:
            cosine, sine = 1.0, 0.0
            if qt[j] > 0.0:
                cosine, sine = px[j] / qt[j], py[j] / qt[j]
            ux, uy = -(x[j] + visible[0][j]), -(y[j] + visible[1][j])
            u[0], u[1] = ux * cosine + uy * sine, uy * cosine - ux * sine
            morph(qt[j], u, table, morphed, place)
            x[j] -= (morphed[0] - u[0]) * cosine - (morphed[1] - u[1]) * sine
            y[j] -= (morphed[0] - u[0]) * sine + (morphed[1] - u[1]) * cosine


@kernel
def transverse_mass(pt: float, phi: float, x: float, y: float) -> float:
    """Return mT (GeV) of a muon and the missing momentum (x, y)."""
    product = pt * np.sqrt(x * x + y * y) - pt * (x * np.cos(phi) + y * np.sin(phi))
    return float(np.sqrt(max(2.0 * product, 0.0)))
