"""Angular coefficients of W and Z: how the leptons' directions in the Collins-Soper frame are distributed.

The density is sum_h A_h P_h(cos theta, phi) over nine helicity terms, h = -1 (unpolarised, 1 + cos^2 theta) and 0 to 7.
Angles are those of the particle (the negative lepton, or the neutrino of a W+) before radiation. The z axis bisects the
direction of one beam and the reverse of the other; it points along the beam that goes the way of the boson's
longitudinal momentum, as the quark does on average in proton-proton collisions. The x axis points along the boson's
transverse momentum, y completes a right-handed frame. Beams have no mass. A boson without transverse momentum has no
such x axis: then the one of the detector is taken. J. C. Collins and D. E. Soper, Phys. Rev. D 16 (1977) 2219;
E. Mirkes, Nucl. Phys. B 387 (1992) 3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from binworks.corrections.sets import CorrectionSet
from binworks.corrections.tables import load_table
from binworks.tensors.errors import PayloadError
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import clamped_bin, clip_ratio

NAME = "angular"
INPUTS = ("absy", "qt", "charge", "helicity", "variation")
HELICITIES = tuple(range(-1, 8))
VARIATIONS = ("nominal", "scaleUp", "scaleDown", "showerUp", "showerDown")
NOMINAL, SCALE_UP, SCALE_DOWN, SHOWER_UP, SHOWER_DOWN = range(5)
RATIOS = 18
"""What `fill_ratios` fills: up and down of each helicity 0 to 7 alone, then of the parton shower."""


class Angular(NamedTuple):
    """What the kernels need: edges in |y| and qT (GeV), and coefficients.

    ``coefficients`` has shape (absy, qt, 3 charges -1, 0, +1, 9 helicities -1 to 7, 5 variations as in `VARIATIONS`).
    """

    absy: Float64
    qt: Float64
    coefficients: Float64


def load(corrections: CorrectionSet) -> Angular:
    """Return the coefficients; a charge that the table does not have is unpolarised.

    Raises
    ------
    PayloadError
        If the payload is wrong, lacks a helicity or a variation, or if a nominal unpolarised term is not positive.
    """
    table = load_table(corrections, NAME, INPUTS, {}, keys={"helicity": HELICITIES, "variation": VARIATIONS})
    where = f"{corrections.name}/{NAME}"
    charges = table.axes["charge"]
    if not set(charges) <= {-1, 0, 1}:
        raise PayloadError(f"Charges must be among -1, 0, 1, got {charges}.", code="wrong-axes", where=where)
    if (table.values[:, :, :, 0, NOMINAL] <= 0).any():
        raise PayloadError("A nominal unpolarised term is not positive.", code="bad-payload", where=where)
    coefficients = np.zeros((*table.values.shape[:2], 3, len(HELICITIES), len(VARIATIONS)))
    coefficients[..., 0, :] = 1.0
    for i, charge in enumerate(charges):
        coefficients[:, :, charge + 1] = table.values[:, :, i]
    return Angular(table.axes["absy"], table.axes["qt"], coefficients)


def identity() -> Angular:
    """Return unpolarised coefficients that nothing varies."""
    edge = np.array([0.0, 1e4])
    coefficients = np.zeros((1, 1, 3, len(HELICITIES), len(VARIATIONS)))
    coefficients[..., 0, :] = 1.0
    return Angular(edge, edge, coefficients)


@kernel
def collins_soper(
    px1: float,
    py1: float,
    pz1: float,
    e1: float,
    px2: float,
    py2: float,
    pz2: float,
    e2: float,
) -> Any:
    """Return (cos theta, phi) of the particle (1) in the rest frame of the pair with the antiparticle (2); GeV.

    phi is in [-pi, pi]. Both are not-a-number if the pair has no rest frame.
    """
    qx, qy, qz, energy = px1 + px2, py1 + py2, pz1 + pz2, e1 + e2
    qt = np.sqrt(qx * qx + qy * qy)
    transverse = np.sqrt(energy * energy - qz * qz)
    mass = np.sqrt(energy * energy - qz * qz - qt * qt)
    along, across = px1, py1
    if qt > 0.0:
        along, across = (px1 * qx + py1 * qy) / qt, (py1 * qx - px1 * qy) / qt
    # a boost along the beams, then one along the transverse momentum
    z = (pz1 * energy - e1 * qz) / transverse
    x = (along * transverse - (e1 * energy - pz1 * qz) / transverse * qt) / mass
    if qz < 0.0:
        z, across = -z, -across
    return z / np.sqrt(x * x + across * across + z * z), np.arctan2(across, x)


@kernel
def polynomials(cosine: float, phi: float, out: Float64) -> None:
    """Fill the nine angular polynomials of helicities -1 to 7 at cos theta and phi."""
    sine = np.sqrt(max(1.0 - cosine * cosine, 0.0))
    cos_phi, sin_phi = np.cos(phi), np.sin(phi)
    out[0] = 1.0 + cosine * cosine
    out[1] = 0.5 * (1.0 - 3.0 * cosine * cosine)
    out[2] = 2.0 * sine * cosine * cos_phi
    out[3] = 0.5 * sine * sine * (cos_phi * cos_phi - sin_phi * sin_phi)
    out[4] = sine * cos_phi
    out[5] = cosine
    out[6] = 2.0 * sine * sine * cos_phi * sin_phi
    out[7] = 2.0 * sine * cosine * sin_phi
    out[8] = sine * sin_phi


@kernel
def fill_ratios(
    absy: float,
    qt: float,
    charge: int,
    cosine: float,
    phi: float,
    angular: Any,
    scratch: Float64,
    out: Float64,
) -> None:
    """Fill the density varied over nominal at the angles; outside the table the nearest bin's, clipped to +-10.

    Parameters
    ----------
    absy, qt : float
        Of the boson; GeV.
    charge : int
        Of the boson.
    cosine, phi : float
        From `collins_soper`.
    angular : Angular
    scratch : array of 9
        Is overwritten.
    out : array of 18
        ``out[2 h]`` and ``out[2 h + 1]``: coefficient h alone up and down, h = 0 to 7; the last two: all coefficients
        of showerUp and of showerDown.
    """
    # a boson that is not a number has no bin: the first one, and the caller counts the event
    i = max(clamped_bin(absy, angular.absy), 0)
    j = max(clamped_bin(qt, angular.qt), 0)
    terms = angular.coefficients[i, j, charge + 1]
    polynomials(cosine, phi, scratch)
    nominal = up = down = 0.0
    for h in range(9):
        nominal += terms[h, NOMINAL] * scratch[h]
        up += terms[h, SHOWER_UP] * scratch[h]
        down += terms[h, SHOWER_DOWN] * scratch[h]
    for h in range(8):
        weight = scratch[h + 1] / nominal
        out[2 * h] = clip_ratio(1.0 + (terms[h + 1, SCALE_UP] - terms[h + 1, NOMINAL]) * weight)
        out[2 * h + 1] = clip_ratio(1.0 + (terms[h + 1, SCALE_DOWN] - terms[h + 1, NOMINAL]) * weight)
    out[16] = clip_ratio(up / nominal)
    out[17] = clip_ratio(down / nominal)
