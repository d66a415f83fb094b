"""The generator's particles in NanoAOD's layout, a compact list.

Each event begins with five: the boson after its recoil (status 62), its two leptons before photon radiation (status
23), and the same two after it (status 1, taus 2). The taus' daughters and the photons follow. The boson before its
recoil has no transverse momentum, hence no direction that NanoAOD could write, and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from binworks.samples.arrays import Array, Float64, Int64, Jagged
from binworks.samples.generator import Collisions
from binworks.samples.kinematics import pt_eta_phi
from binworks.samples.processes import Process
from binworks.samples.tau_decay import ELECTRON, HADRONS, TauDecays

IS_PROMPT = 1 << 0
IS_TAU_DECAY = 1 << 2
IS_PROMPT_TAU_DECAY = 1 << 3
IS_DIRECT_TAU_DECAY = 1 << 4
IS_DIRECT_PROMPT_TAU_DECAY = 1 << 5
IS_HARD_PROCESS = 1 << 7
FROM_HARD_PROCESS = 1 << 8
IS_FIRST_COPY = 1 << 12
IS_LAST_COPY = 1 << 13
IS_LAST_COPY_BEFORE_FSR = 1 << 14

SOFTEST_PHOTON = 0.5
_PRODUCED = IS_PROMPT | IS_HARD_PROCESS | FROM_HARD_PROCESS | IS_FIRST_COPY
_LAST = IS_PROMPT | FROM_HARD_PROCESS | IS_LAST_COPY
_RADIATED = IS_PROMPT | IS_FIRST_COPY | IS_LAST_COPY
_DECAYED = IS_TAU_DECAY | IS_PROMPT_TAU_DECAY | IS_DIRECT_TAU_DECAY | IS_DIRECT_PROMPT_TAU_DECAY
_DAUGHTER = _DECAYED | IS_FIRST_COPY | IS_LAST_COPY
_BOSON, _BEFORE_FSR, _FINAL = 0, 1, 3


@dataclass(frozen=True)
class _Particles:
    """Any number of particles: their event, what they are, their mother's place, their momenta (m, 3)."""

    event: Int64
    pdg_id: Array
    status: int
    flags: int
    mother: Array
    momenta: Float64


def gen_particles(process: Process, collisions: Collisions, decays: Sequence[TauDecays | None]) -> Jagged:
    """Return GenPart; ``decays`` holds those of either lepton, None for one that is no tau."""
    n = len(collisions)
    boson_id = np.full(n, 23) if process.boson == "Z" else 24 * boson_charge(collisions)
    leptons, ids = collisions.leptons, collisions.lepton_ids
    event = np.arange(n)
    groups = [
        _Particles(event, boson_id, 62, _LAST | IS_LAST_COPY_BEFORE_FSR, np.full(n, -1), leptons.sum(axis=1))
    ]
    flags = _PRODUCED | IS_LAST_COPY_BEFORE_FSR
    groups += [_Particles(event, ids[:, i], 23, flags, np.full(n, _BOSON), leptons[:, i]) for i in (0, 1)]
    groups += [
        _Particles(
            event,
            ids[:, i],
            1 if decay is None else 2,
            _LAST,
            np.full(n, _BEFORE_FSR + i),
            collisions.final_leptons[:, i],
        )
        for i, decay in enumerate(decays)
    ]
    for i, decay in enumerate(decays):
        if decay is not None:
            groups += _daughters(decay, np.sign(ids[:, i]), _FINAL + i)
    groups.append(_photons(collisions))
    return _assemble(n, groups, collisions.mass)


def boson_charge(collisions: Collisions) -> Int64:
    """Return the boson's charge, -1, 0 or +1."""
    ids = collisions.lepton_ids
    result: Int64 = -(np.sign(ids) * (np.abs(ids) % 2)).sum(axis=1)
    return result


def _daughters(decay: TauDecays, sign: Int64, mother: int) -> list[_Particles]:
    """Return the leptons of tau decays; ``sign`` is that of the tau's PDG id."""
    event = np.arange(len(sign))
    leptonic = np.flatnonzero(decay.channel != HADRONS)
    lepton = np.where(decay.channel == ELECTRON, 11, 13)
    parts = [
        (event[leptonic], (sign * lepton)[leptonic], decay.visible[leptonic]),
        (event[leptonic], (-sign * (lepton + 1))[leptonic], decay.lepton_neutrino[leptonic]),
        (event, 16 * sign, decay.tau_neutrino),
    ]
    return [_Particles(e, ids, 1, _DAUGHTER, np.full(len(e), mother), p) for e, ids, p in parts]


def _photons(collisions: Collisions) -> _Particles:
    """Return the photons above the threshold; the mother is the nearer charged lepton."""
    keep = np.hypot(collisions.photons[:, 0], collisions.photons[:, 1]) > SOFTEST_PHOTON
    event, momenta = collisions.photon_event[keep], collisions.photons[keep]
    near = collisions.final_leptons[event]
    cosine = np.einsum("ij,ikj->ik", momenta, near) / np.linalg.norm(near, axis=2)
    cosine[np.abs(collisions.lepton_ids[event]) % 2 == 0] = -np.inf
    mother = _FINAL + np.argmax(cosine, axis=1)
    return _Particles(event, np.full(len(event), 22), 1, _RADIATED, mother, momenta)


def _assemble(n: int, groups: list[_Particles], boson_mass: Float64) -> Jagged:
    """Return the groups as one collection; within an event in the order of the groups."""
    event = np.concatenate([group.event for group in groups])
    order = np.argsort(event, kind="stable")
    pt, eta, phi = pt_eta_phi(np.concatenate([group.momenta for group in groups]))
    rest = len(event) - n
    fields = {
        "pt": pt.astype(np.float32),
        "eta": eta.astype(np.float32),
        "phi": phi.astype(np.float32),
        "mass": np.concatenate([boson_mass, np.zeros(rest)]).astype(np.float32),
        "pdgId": np.concatenate([group.pdg_id for group in groups]).astype(np.int32),
        "status": np.concatenate([np.full(len(g.event), g.status, np.int32) for g in groups]),
        "statusFlags": np.concatenate([np.full(len(g.event), g.flags, np.int32) for g in groups]),
        "genPartIdxMother": np.concatenate([group.mother for group in groups]).astype(np.int32),
    }
    counts = np.bincount(event, minlength=n).astype(np.int64)
    return Jagged(counts, {name: content[order] for name, content in fields.items()})
