"""Generator quantities of one event: the muon that a reconstructed one matches, and the vector boson."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from binworks.processors.columns import Columns, Field
from binworks.processors.muons import MATCH_DR2, MAX_ETA, VETO_PT
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import delta_r2

Array = NDArray[Any]

IS_PROMPT = 1 << 0
IS_DIRECT_PROMPT_TAU_DECAY = 1 << 5
IS_HARD_PROCESS = 1 << 7
IS_LAST_COPY = 1 << 13

GENERATOR_FIELDS = (
    Field("genpart.pt", ("GenPart_pt",), "f4", "jagged"),
    Field("genpart.eta", ("GenPart_eta",), "f4", "jagged"),
    Field("genpart.phi", ("GenPart_phi",), "f4", "jagged"),
    Field("genpart.mass", ("GenPart_mass",), "f4", "jagged"),
    Field("genpart.pdg_id", ("GenPart_pdgId",), "i4", "jagged"),
    Field("genpart.status", ("GenPart_status",), "i4", "jagged"),
    Field("genpart.flags", ("GenPart_statusFlags",), "i4", "jagged"),
)


class Generated(NamedTuple):
    """Generated particles of a range of events; empty for data."""

    offsets: Array
    pt: Array
    eta: Array
    phi: Array
    mass: Array
    pdg_id: Array
    status: Array
    flags: Array


def generated_of(columns: Columns) -> Generated:
    """Return the generated particles of a range, none where the data set has no generator."""
    names = ("pt", "eta", "phi", "mass", "pdg_id", "status", "flags")
    if "genpart" not in columns.offsets:
        floats, integers = np.zeros(0, "f4"), np.zeros(0, "i4")
        none = np.zeros(columns.size + 1, np.int64)
        return Generated(none, floats, floats, floats, floats, integers, integers, integers)
    return Generated(columns.offsets["genpart"], *[columns[f"genpart.{name}"] for name in names])


@kernel
def matched_muon(i: int, eta: float, phi: float, generated: Any) -> int:
    """Return the nearest status-1 muon, prompt or from a prompt tau, within dR < 0.3; -1 if there is none."""
    best = -1
    nearest = MATCH_DR2
    for g in range(generated.offsets[i], generated.offsets[i + 1]):
        if abs(generated.pdg_id[g]) != 13 or generated.status[g] != 1:
            continue
        if generated.flags[g] & (IS_PROMPT | IS_DIRECT_PROMPT_TAU_DECAY) == 0:
            continue
        distance = delta_r2(generated.eta[g], generated.phi[g], eta, phi)
        if distance < nearest:
            nearest = distance
            best = g
    return best


class Boson(NamedTuple):
    """A W or Z before final-state radiation; a mass of zero says that it is not in the record.

    Transverse momentum in GeV along x and y; ``particle`` and ``antiparticle`` are the decay's four-momenta
    (px, py, pz, energy). ``has_leptons`` says whether they are there.
    """

    mass: float
    absy: float
    qt: float
    px: float
    py: float
    charge: int
    has_leptons: bool
    particle: tuple[float, float, float, float]
    antiparticle: tuple[float, float, float, float]


@kernel
def boson_of(i: int, generated: Any, expected: bool) -> Any:
    """Return the event's W or Z before final-state radiation; none where none is expected.

    The sum of the two leptons of the hard process where the file has them, else the last copy of the boson. A mass that
    is not a number says that the record has one.
    """
    none = (0.0, 0.0, 0.0, 0.0)
    particle, antiparticle, copy = none, none, none
    charge, copy_charge, leptons = 0, 0, 0
    if not expected:
        return Boson(0.0, 0.0, 0.0, 0.0, 0.0, 0, False, none, none)
    for g in range(generated.offsets[i], generated.offsets[i + 1]):
        identity = abs(generated.pdg_id[g])
        if identity >= 11 and identity <= 16:
            if leptons < 2 and generated.flags[g] & IS_HARD_PROCESS:
                if generated.pdg_id[g] > 0:
                    particle = _momentum(g, generated)
                    charge -= identity % 2
                else:
                    antiparticle = _momentum(g, generated)
                    charge += identity % 2
                leptons += 1
        elif (identity == 23 or identity == 24) and generated.flags[g] & IS_LAST_COPY:
            copy = _momentum(g, generated)
            copy_charge = 0 if identity == 23 else (1 if generated.pdg_id[g] > 0 else -1)
    if leptons != 2:
        particle, antiparticle, charge = copy, none, copy_charge
    px, py = particle[0] + antiparticle[0], particle[1] + antiparticle[1]
    pz, energy = particle[2] + antiparticle[2], particle[3] + antiparticle[3]
    mass2 = energy * energy - px * px - py * py - pz * pz
    if not np.isfinite(mass2):
        return Boson(np.nan, 0.0, 0.0, 0.0, 0.0, charge, False, none, none)
    if mass2 <= 0.0:
        return Boson(0.0, 0.0, 0.0, 0.0, 0.0, charge, False, none, none)
    rapidity = 0.5 * np.log((energy + pz) / (energy - pz))
    qt = np.sqrt(px * px + py * py)
    return Boson(np.sqrt(mass2), abs(rapidity), qt, px, py, charge, leptons == 2, particle, antiparticle)


@kernel
def radiated_fraction(i: int, mass: float, generated: Any) -> float:
    """Return 1 - m(after) / m(before) of the boson's leptons, between 0 and 1; ``mass`` is before, in GeV.

    After radiation: the hardest final lepton and the hardest antilepton, prompt or from a prompt tau.
    """
    best, other = -1, -1
    for g in range(generated.offsets[i], generated.offsets[i + 1]):
        identity = generated.pdg_id[g]
        if abs(identity) < 11 or abs(identity) > 16 or generated.status[g] != 1:
            continue
        if generated.flags[g] & (IS_PROMPT | IS_DIRECT_PROMPT_TAU_DECAY) == 0:
            continue
        if identity > 0:
            if best < 0 or generated.pt[g] > generated.pt[best]:
                best = g
        elif other < 0 or generated.pt[g] > generated.pt[other]:
            other = g
    if best < 0 or other < 0:
        return 0.0
    p, q = _momentum(best, generated), _momentum(other, generated)
    x, y, z, energy = p[0] + q[0], p[1] + q[1], p[2] + q[2], p[3] + q[3]
    after2 = energy * energy - x * x - y * y - z * z
    return float(min(max(1.0 - np.sqrt(max(after2, 0.0)) / mass, 0.0), 1.0))


@kernel
def lost_muon(i: int, match: int, generated: Any) -> int:
    """Return the generated muon that could have made a second one: the hardest of opposite charge to the match.

    Final, prompt or from a prompt tau, pT > 15 GeV and |eta| < 2.4; -1 if there is none.
    """
    best = -1
    for g in range(generated.offsets[i], generated.offsets[i + 1]):
        if generated.pdg_id[g] != -generated.pdg_id[match] or generated.status[g] != 1:
            continue
        if generated.flags[g] & (IS_PROMPT | IS_DIRECT_PROMPT_TAU_DECAY) == 0:
            continue
        seen = generated.pt[g] > VETO_PT and abs(generated.eta[g]) < MAX_ETA
        if seen and (best < 0 or generated.pt[g] > generated.pt[best]):
            best = g
    return best


@kernel
def _momentum(g: int, generated: Any) -> Any:
    pt, eta, phi = np.float64(generated.pt[g]), np.float64(generated.eta[g]), np.float64(generated.phi[g])
    mass = np.float64(generated.mass[g])
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    return px, py, pz, np.sqrt(px * px + py * py + pz * pz + mass * mass)
