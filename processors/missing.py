"""Missing transverse momentum: carries the muons' corrections, and the recoil's; transverse mass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from binworks.corrections import recoil
from binworks.tensors.jit import kernel

Array = NDArray[Any]


@kernel
def missing_momentum(events: Array, pt: Array, phi: Array, places: Any, muons: Any) -> Any:
    """Return (x, y) of the missing momentum (GeV); the change of the muons' momenta is carried into it.

    ``pt`` and ``phi`` are those of the range; ``places`` has an array of muons for each leg.
    """
    x, y = np.empty(len(events)), np.empty(len(events))
    for j in range(len(events)):
        met, angle = np.float64(pt[events[j]]), np.float64(phi[events[j]])
        x[j], y[j] = met * np.cos(angle), met * np.sin(angle)
        for leg in range(len(places)):
            m = places[leg][j]
            before, angle = np.float64(muons.measured_pt[m]), np.float64(muons.measured_phi[m])
            x[j] -= muons.pt[m] * np.cos(muons.phi[m]) - before * np.cos(angle)
            y[j] -= muons.pt[m] * np.sin(muons.phi[m]) - before * np.sin(angle)
    return x, y


@kernel
def visible_momentum(places: Any, muons: Any) -> Any:
    """Return (x, y) of the sum of the legs' muons (GeV)."""
    n = len(places[0])
    x, y = np.zeros(n), np.zeros(n)
    for leg in range(len(places)):
        for j in range(n):
            m = places[leg][j]
            x[j] += muons.pt[m] * np.cos(muons.phi[m])
            y[j] += muons.pt[m] * np.sin(muons.phi[m])
    return x, y


@kernel
def morph_recoil(x: Array, y: Array, visible: Any, bosons: Any, table: Any) -> None:
    """Change the missing momentum (x, y) so that its recoil is distributed as in data.

    u = -(missing + visible), in components along the boson's transverse momentum and perpendicular to it.
    """
    u, morphed = np.zeros(2), np.zeros(2)
    for j in range(len(x)):
        if bosons.mass[j] > 0.0:
            cosine, sine = 1.0, 0.0
            if bosons.qt[j] > 0.0:
                cosine, sine = bosons.px[j] / bosons.qt[j], bosons.py[j] / bosons.qt[j]
            ux, uy = -(x[j] + visible[0][j]), -(y[j] + visible[1][j])
            u[0], u[1] = ux * cosine + uy * sine, uy * cosine - ux * sine
            recoil.morph(bosons.qt[j], u, table, morphed)
            x[j] -= (morphed[0] - u[0]) * cosine - (morphed[1] - u[1]) * sine
            y[j] -= (morphed[0] - u[0]) * sine + (morphed[1] - u[1]) * cosine


@kernel
def transverse_mass(pt: float, phi: float, x: float, y: float) -> float:
    """Return mT (GeV) of a muon and the missing momentum (x, y)."""
    product = pt * np.sqrt(x * x + y * y) - pt * (x * np.cos(phi) + y * np.sin(phi))
    return float(np.sqrt(max(2.0 * product, 0.0)))
