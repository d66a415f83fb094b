"""Generator quantities of one event: the muon that a reconstructed one matches, and the vector boson."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from binworks.processors.columns import Columns, Field
from binworks.processors.muons import MATCH_DR2
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


@kernel
def boson_of(i: int, generated: Any) -> Any:
    """Return (mass, |rapidity|, pT, charge) of the event's W or Z before final-state radiation.

    The sum of the two leptons of the hard process where the file has them, else the last copy of the boson; a mass of
    zero says that neither is there.
    """
    px = py = pz = energy = 0.0
    charge = 0
    leptons = 0
    for g in range(generated.offsets[i], generated.offsets[i + 1]):
        identity = abs(generated.pdg_id[g])
        if identity >= 11 and identity <= 16 and generated.flags[g] & IS_HARD_PROCESS and leptons < 2:
            x, y, z, e = _momentum(g, generated)
            px, py, pz, energy = px + x, py + y, pz + z, energy + e
            if identity % 2 == 1:
                charge += -1 if generated.pdg_id[g] > 0 else 1
            leptons += 1
    if leptons != 2:
        charge = 0
        px = py = pz = energy = 0.0
        for g in range(generated.offsets[i], generated.offsets[i + 1]):
            identity = abs(generated.pdg_id[g])
            if (identity == 23 or identity == 24) and generated.flags[g] & IS_LAST_COPY:
                px, py, pz, energy = _momentum(g, generated)
                charge = 0 if identity == 23 else (1 if generated.pdg_id[g] > 0 else -1)
    mass2 = energy * energy - px * px - py * py - pz * pz
    if not mass2 > 0.0:
        return 0.0, 0.0, 0.0, charge
    rapidity = 0.5 * np.log((energy + pz) / (energy - pz))
    return np.sqrt(mass2), abs(rapidity), np.sqrt(px * px + py * py), charge


@kernel
def _momentum(g: int, generated: Any) -> Any:
    pt, eta, phi = np.float64(generated.pt[g]), np.float64(generated.eta[g]), np.float64(generated.phi[g])
    mass = np.float64(generated.mass[g])
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    return px, py, pz, np.sqrt(px * px + py * py + pz * pz + mass * mass)
