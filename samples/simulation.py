"""From collisions to the events that the detector sees: taus decay, leptons are sorted, branches are filled."""

from __future__ import annotations

import numpy as np

from binworks.samples.arrays import Array, Column, Float64, Jagged, group_by_event
from binworks.samples.events import FROM_TAU, PROMPT, Events
from binworks.samples.generator import Collisions
from binworks.samples.genpart import boson_charge, gen_particles
from binworks.samples.kinematics import pt_eta_phi
from binworks.samples.processes import BEAM_ENERGY, Process
from binworks.samples.tau_decay import (
    ELECTRON,
    MUON,
    TauDecays,
    channels_of_pairs,
    decay,
    handedness_from_z,
)
from binworks.samples.theory_weights import theory_weights


def simulate(process: Process, collisions: Collisions, rng: np.random.Generator, *, branches: bool) -> Events:
    """Return the events of collisions of a boson.

    Parameters
    ----------
    process : Process
        What was generated.
    collisions : Collisions
        The generator's.
    rng : numpy.random.Generator
        For the decays of taus.
    branches : bool
        Whether to fill the generator's branches (simulation), or not (data).
    """
    decays = _decays(process, collisions, rng)
    ids, channel = collisions.lepton_ids, _channels(collisions, decays)
    momenta = np.stack(
        [collisions.final_leptons[:, i] if d is None else d.visible for i, d in enumerate(decays)], axis=1
    )
    origin = PROMPT if process.lepton == "mu" else FROM_TAU
    muons = _collection(channel == MUON, momenta, charge=-np.sign(ids), origin=np.full_like(ids, origin))
    recoiling = collisions.leptons.sum(axis=1)
    unseen = _neutrinos(collisions, decays) + (momenta * (channel == MUON)[:, :, None]).sum(axis=1)
    rapidity = _rapidity(recoiling, collisions.mass)
    return Events(
        boson_charge=boson_charge(collisions).astype(np.int8),
        boson_mass=collisions.mass,
        boson_rapidity=rapidity,
        recoiling=recoiling[:, :2],
        other=(recoiling - unseen)[:, :2],
        muons=muons,
        electrons=_collection(channel == ELECTRON, momenta),
        branches=_branches(process, collisions, decays) if branches else {},
    )


def _decays(process: Process, collisions: Collisions, rng: np.random.Generator) -> list[TauDecays | None]:
    """Return the decays of either lepton, None for one that is no tau."""
    n = len(collisions)
    if process.lepton == "mu":
        return [None, None]
    if process.boson == "W":
        only_muons = np.full(n, MUON)
        return [decay(collisions.final_leptons[:, 0], only_muons, np.ones(n), rng), None]
    channels, handedness = channels_of_pairs(n, rng), handedness_from_z(n, rng)
    return [decay(collisions.final_leptons[:, i], channels[:, i], handedness, rng) for i in (0, 1)]


def _channels(collisions: Collisions, decays: list[TauDecays | None]) -> Array:
    """Return what either lepton is seen as, shape (n, 2); -1 for a neutrino."""
    columns = []
    for i, taus in enumerate(decays):
        identity = np.abs(collisions.lepton_ids[:, i])
        columns.append(np.where(identity == 13, MUON, -1) if taus is None else taus.channel)
    return np.stack(columns, axis=1)


def _neutrinos(collisions: Collisions, decays: list[TauDecays | None]) -> Float64:
    """Return the sum of the neutrinos' momenta, shape (n, 3)."""
    total = np.zeros((len(collisions), 3))
    for i, taus in enumerate(decays):
        if taus is None:
            neutrino = np.abs(collisions.lepton_ids[:, i]) % 2 == 0
            total += collisions.final_leptons[:, i] * neutrino[:, None]
        else:
            total += taus.lepton_neutrino + taus.tau_neutrino
    return total


def _collection(chosen: Array, momenta: Float64, **fields: Array) -> Jagged:
    """Return the chosen ones of two leptons an event, highest pT first."""
    event, which = np.nonzero(chosen)
    pt, eta, phi = pt_eta_phi(momenta[event, which])
    contents = {"pt": pt, "eta": eta, "phi": phi, **{k: v[event, which] for k, v in fields.items()}}
    return group_by_event(event, len(chosen), contents, descending="pt")


def _rapidity(p: Float64, mass: Float64) -> Float64:
    transverse_mass = np.sqrt(mass**2 + p[:, 0] ** 2 + p[:, 1] ** 2)
    return np.arcsinh(p[:, 2] / transverse_mass)


def _branches(process: Process, collisions: Collisions, decays: list[TauDecays | None]) -> dict[str, Column]:
    weights: dict[str, Column] = dict(theory_weights(process, collisions))
    return {
        "GenPart": gen_particles(process, collisions, decays),
        "LHEPart": _lhe_particles(collisions),
        **weights,
    }


def _lhe_particles(collisions: Collisions) -> Jagged:
    """Return the four partons and leptons of the hard process: incoming ones (status -1) along the beams."""
    n = len(collisions)
    hard = np.stack([collisions.hard_lepton, -collisions.hard_lepton], axis=1)
    hard[:, 1, 2] += collisions.mass * np.sinh(collisions.hard_rapidity)
    pt, eta, phi = pt_eta_phi(hard)
    nothing = np.zeros((n, 2))
    return Jagged(
        np.full(n, 4, np.int64),
        {
            "pt": np.hstack([nothing, pt]).ravel(),
            "eta": np.hstack([nothing, eta]).ravel(),
            "phi": np.hstack([nothing, phi]).ravel(),
            "mass": np.zeros(4 * n),
            "incomingpz": np.hstack([collisions.parton_x * [BEAM_ENERGY, -BEAM_ENERGY], nothing]).ravel(),
            "pdgId": np.hstack([collisions.parton_ids, collisions.lepton_ids]).ravel().astype(np.int32),
            "status": np.tile(np.array([-1, -1, 1, 1], np.int32), n),
        },
    )
