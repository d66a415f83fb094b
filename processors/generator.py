"""Generator quantities of one event: the muon that a reconstructed one matches, and the vector boson."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from binworks.corrections.angular import collins_soper
from binworks.processors.columns import Columns, Field
from binworks.processors.muons import MATCH_DR2, MAX_ETA, VETO_PT, Muons
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


class Bosons(NamedTuple):
    """The W or Z of each event before final-state radiation, shape (events,); a mass of zero says that there is none.

    Parameters
    ----------
    mass, absy, qt : arrays
        GeV; the mass is not a number where the record has one.
    px, py : arrays
        Transverse momentum, GeV.
    charge : array of int
    cosine, phi : arrays
        Of the decay in the Collins-Soper frame, where ``has_angles``.
    radiated : array
        1 - m(after) / m(before) of the leptons.
    """

    mass: Array
    absy: Array
    qt: Array
    px: Array
    py: Array
    charge: Array
    cosine: Array
    phi: Array
    radiated: Array
    has_angles: Array

    def where(self, keep: Array) -> Bosons:
        """Return those that a mask keeps."""
        return self if keep.all() else Bosons._make(array[keep] for array in self)


def no_bosons(n: int) -> Bosons:
    """Return n events without one."""
    zeros = np.zeros(n)
    return Bosons(
        zeros, zeros, zeros, zeros, zeros, np.zeros(n, np.int64), zeros, zeros, zeros, np.zeros(n, np.bool_)
    )


def match_muons(events: Array, places: Array, muons: Muons, generated: Generated) -> Array:
    """Return each muon's nearest status-1 muon, prompt or from a prompt tau, within dR < 0.3; -1 if there is none."""
    matches = np.full(len(events), -1)
    find_matches(events, places, (muons.eta, muons.phi), generated, matches)
    return matches


@kernel
def find_matches(events: Array, places: Array, directions: Any, generated: Any, matches: Array) -> None:
    """Fill what `match_muons` returns."""
    eta, phi = directions
    for j in range(len(events)):
        m = places[j]
        nearest = MATCH_DR2
        for g in range(generated.offsets[events[j]], generated.offsets[events[j] + 1]):
            if abs(generated.pdg_id[g]) == 13 and is_final(g, generated):
                distance = delta_r2(generated.eta[g], generated.phi[g], eta[m], phi[m])
                if distance < nearest:
                    nearest = distance
                    matches[j] = g


@kernel
def is_final(g: int, generated: Any) -> bool:
    """Whether a particle is final, and prompt or from a prompt tau."""
    prompt = generated.flags[g] & (IS_PROMPT | IS_DIRECT_PROMPT_TAU_DECAY) != 0
    return bool(generated.status[g] == 1 and prompt)


def find_bosons(events: Array, generated: Generated, *, angles: bool, radiation: bool) -> Bosons:
    """Return the W or Z of each event: the sum of the two leptons of the hard process, else its last copy.

    ``angles`` and ``radiation`` say whether the decay's angles and the radiated share are wanted.
    """
    n = len(events)
    out = Bosons(
        np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n, np.int64),
        np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n, np.bool_),
    )  # fmt: skip
    add_up_bosons(events, generated, angles, radiation, out)
    return out


@kernel
def add_up_bosons(events: Array, generated: Any, angles: bool, radiation: bool, out: Any) -> None:
    """Fill what `find_bosons` returns."""
    for j in range(len(events)):
        leptons, charge, particle, antiparticle = decay_of(events[j], generated)
        px, py = particle[0] + antiparticle[0], particle[1] + antiparticle[1]
        pz, energy = particle[2] + antiparticle[2], particle[3] + antiparticle[3]
        mass2 = energy * energy - px * px - py * py - pz * pz
        out.charge[j] = charge
        if not np.isfinite(mass2):
            out.mass[j] = np.nan
        elif mass2 > 0.0:
            out.mass[j], out.absy[j] = np.sqrt(mass2), abs(0.5 * np.log((energy + pz) / (energy - pz)))
            out.px[j], out.py[j], out.qt[j] = px, py, np.sqrt(px * px + py * py)
            if angles and leptons == 2:
                out.cosine[j], out.phi[j] = collins_soper(*particle, *antiparticle)
                out.has_angles[j] = True
            if radiation and leptons == 2:
                out.radiated[j] = radiated_fraction(events[j], out.mass[j], generated)


@kernel
def decay_of(i: int, generated: Any) -> Any:
    """Return (number of leptons of the hard process, boson's charge, particle's and antiparticle's four-momenta).

    Without two leptons the boson's last copy stands in the particle's place. Four-momenta are (px, py, pz, energy).
    """
    none = (0.0, 0.0, 0.0, 0.0)
    particle, antiparticle, copy = none, none, none
    charge, copy_charge, leptons = 0, 0, 0
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
    if leptons == 2:
        return leptons, charge, particle, antiparticle
    return leptons, copy_charge, copy, none


@kernel
def radiated_fraction(i: int, mass: float, generated: Any) -> float:
    """Return 1 - m(after) / m(before) of the boson's leptons, between 0 and 1; ``mass`` is before, in GeV.

    After radiation: the hardest final lepton and the hardest antilepton, prompt or from a prompt tau.
    """
    best, other = -1, -1
    for g in range(generated.offsets[i], generated.offsets[i + 1]):
        identity = generated.pdg_id[g]
        if abs(identity) < 11 or abs(identity) > 16 or not is_final(g, generated):
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


def lost_muons(events: Array, matches: Array, generated: Generated) -> Array:
    """Return each event's generated muon that could have made a second one: of opposite charge to the match.

    The hardest one that is final, prompt or from a prompt tau, with pT > 15 GeV and |eta| < 2.4; -1 if there is none.
    """
    lost = np.full(len(events), -1)
    find_lost_muons(events, matches, generated, lost)
    return lost


@kernel
def find_lost_muons(events: Array, matches: Array, generated: Any, lost: Array) -> None:
    """Fill what `lost_muons` returns."""
    for j in range(len(events)):
        for g in range(generated.offsets[events[j]], generated.offsets[events[j] + 1]):
            if matches[j] < 0 or generated.pdg_id[g] != -generated.pdg_id[matches[j]]:
                continue
            seen = generated.pt[g] > VETO_PT and abs(generated.eta[g]) < MAX_ETA and is_final(g, generated)
            if seen and (lost[j] < 0 or generated.pt[g] > generated.pt[lost[j]]):
                lost[j] = g


@kernel
def _momentum(g: int, generated: Any) -> Any:
    pt, eta, phi = np.float64(generated.pt[g]), np.float64(generated.eta[g]), np.float64(generated.phi[g])
    mass = np.float64(generated.mass[g])
    grown = np.exp(eta)  # one exponential for both hyperbolic functions
    pz, p = pt * 0.5 * (grown - 1.0 / grown), pt * 0.5 * (grown + 1.0 / grown)
    return pt * np.cos(phi), pt * np.sin(phi), pz, np.sqrt(p * p + mass * mass)
