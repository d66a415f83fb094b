"""Corrections of every kind, and events of W, Z, other simulation and data that visit every corner of the physics."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import awkward as ak
import numpy as np
import small_corrections
import small_momentum
import small_nano

from binworks.corrections import sets
from binworks.corrections.sets import CorrectionSet

Kind = Literal["W", "Z", "top", "data"]
PDF_MEMBERS = 61
OPTIONAL = ("Muon_cvh", "L1PreFiringWeight", "MEParamWeight", "GenVtx_z", "PV_z")
"""How the names of branches begin that a file may lack."""
HARD_FLAGS = (1 << 7) | (1 << 8) | 1
PROMPT_FLAGS, TAU_FLAGS = 1 | (1 << 13), (1 << 5) | (1 << 13)

Particle = tuple[float, float, float, float, int, int, int]
"""pT, eta, phi, mass, pdgId, status, statusFlags."""


def correction_set(folder: Path, seed: int = 1, **changed: Any) -> CorrectionSet:
    """Write a set with every payload there is, some documents replaced by name.

    The uncertainties are large enough to see each variation.
    """
    found = small_corrections.documents(seed)
    replaced = {name: (found[name][0], document) for name, document in changed.items()}
    return sets.write(folder, "everything", found | replaced)


def nano_file(
    folder: Path, kind: Kind, n: int, seed: int, lacking: tuple[str, ...] = ()
) -> tuple[dict[str, Any], Path]:
    """Return the branches of n events and the file that holds them; those that begin with a word of ``lacking`` go."""
    branches = {
        name: {key: its for key, its in branch.items() if not f"{name}_{key}".startswith(lacking)}
        if isinstance(branch, dict)
        else branch
        for name, branch in nano_events(kind, n, seed).items()
        if not name.startswith(lacking)
    }
    folder.mkdir(parents=True, exist_ok=True)
    return branches, small_nano.write(folder / f"{kind}{seed}.root", branches)


def nano_events(kind: Kind, n: int, seed: int) -> dict[str, Any]:
    """Return the branches of n events."""
    rng = np.random.default_rng([seed, n])
    records = [_record(rng, kind) for _ in range(n)]
    muons = [muon for record in records for muon in record["muons"]]
    counts = [len(record["muons"]) for record in records]
    missing = np.array([record["missing"] for record in records])
    missing_pt = np.abs(missing).astype("f4")
    missing_pt[_some(rng, n, 0.002)] = np.nan
    branches: dict[str, Any] = {
        "run": rng.integers(270_000, 285_000, n, dtype="u4"),
        "luminosityBlock": rng.integers(1, 3000, n, dtype="u4"),
        "event": rng.integers(1, 2**36, n, dtype="u8"),
        "HLT_IsoMu24": rng.random(n) < 0.8,
        "HLT_IsoTkMu24": rng.random(n) < 0.8,
        "MET_pt": missing_pt,
        "MET_phi": np.angle(missing).astype("f4"),
        "PV_z": rng.normal(0, 4, n).astype("f4"),
        "Muon": _muon_columns(rng, muons, counts),
        "Electron": _electron_columns(rng, n),
        "TrigObj": _trigger_columns(rng, muons, counts),
    }
    branches |= {flag: rng.random(n) < 0.99 for flag in small_nano.FLAGS}
    branches |= _jacobians(rng, branches["Muon"], counts)
    if kind != "data":
        branches["GenPart"] = _generated_columns(records)
        branches |= _weights(rng, kind, n)
    return branches


def _some(rng: np.random.Generator, n: int, fraction: float) -> Any:
    return rng.random(n) < fraction


# One event


def _record(rng: np.random.Generator, kind: Kind) -> dict[str, Any]:
    """Return an event's generated particles, its measured muons, and the missing momentum that goes with them."""
    boson = kind if kind in ("W", "Z") else str(rng.choice(["W", "Z"]))
    leptons = _leptons(rng, boson)
    generated = [_hard(*lepton) for lepton in leptons] if kind in ("W", "Z") else []
    if generated and rng.random() < 0.02:  # a record without its leptons has the boson itself
        generated = [_copy(leptons)]
    muons = []
    for p, identity in leptons:
        final = _final(rng, p, identity)
        generated += final
        muons += [_measured(rng, particle) for particle in final if _seen(rng, particle)]
    if rng.random() < 0.15:
        soft = (rng.uniform(5, 30), rng.uniform(-2.5, 2.5), rng.uniform(-np.pi, np.pi), 0.10566, 13, 1, 0)
        generated.append(soft)
        muons.append(_measured(rng, soft))
    qt = sum(_transverse(p) for p, _ in leptons)
    direction = qt / abs(qt)
    recoil = (-0.92 * abs(qt) + rng.normal(0, 8.5) + 1j * rng.normal(0, 8)) * direction
    return {"generated": generated, "muons": muons, "missing": -recoil - sum(muon["at"] for muon in muons)}


def _leptons(rng: np.random.Generator, boson: str) -> list[tuple[Any, int]]:
    """Return (momentum, pdgId) of a boson's two decay products; some of them are taus."""
    mass = np.clip(rng.normal(80.4, 4), 50, 110) if boson == "W" else rng.uniform(58, 122)
    qt = rng.uniform(80, 150) if rng.random() < 0.03 else rng.exponential(12)
    rapidity, angle = rng.normal(0, 1.1), rng.uniform(-np.pi, np.pi)
    across = np.hypot(mass, qt)
    q = np.array(
        [qt * np.cos(angle), qt * np.sin(angle), across * np.sinh(rapidity), across * np.cosh(rapidity)]
    )
    direction = rng.normal(size=3)
    direction *= mass / 2 / np.linalg.norm(direction)
    both = [_boosted(np.array([*way, mass / 2]), q, mass) for way in (direction, -direction)]
    flavour = 15 if rng.random() < 0.1 else 13
    if boson == "Z":
        return [(both[0], flavour), (both[1], -flavour)]
    charge = rng.choice([-1, 1])
    return [(both[0], -flavour * charge), (both[1], (flavour + 1) * charge)]


def _boosted(p: Any, frame: Any, mass: float) -> Any:
    energy = (p[3] * frame[3] + p[:3] @ frame[:3]) / mass
    along = (p[3] + energy) / (frame[3] + mass)
    return np.array([*(p[:3] + along * frame[:3]), energy])


def _transverse(p: Any) -> complex:
    return complex(p[0], p[1])


def _kinematics(p: Any) -> tuple[float, float, float]:
    pt = np.hypot(p[0], p[1])
    return pt, np.arcsinh(p[2] / pt), np.arctan2(p[1], p[0])


def _hard(p: Any, identity: int) -> Particle:
    return (*_kinematics(p), 0.0, identity, 23, HARD_FLAGS)


def _copy(leptons: list[tuple[Any, int]]) -> Particle:
    total = leptons[0][0] + leptons[1][0]
    charge = -sum(np.sign(identity) for _, identity in leptons if identity % 2)
    mass = np.sqrt(total[3] ** 2 - total[:3] @ total[:3])
    return (*_kinematics(total), mass, int(24 * charge) if charge else 23, 62, 1 << 13)


def _final(rng: np.random.Generator, p: Any, identity: int) -> list[Particle]:
    """Return what is left of a lepton after radiation; a tau leaves a muon and two neutrinos."""
    pt, eta, phi = _kinematics(p)
    kept = 1 - min(rng.exponential(0.02), 0.9)
    way = np.sign(identity)
    if abs(identity) == 15:
        part = rng.uniform(0.5, 0.95)
        neutrinos = [(pt * (1 - part) / 2, eta, phi, 0.0, int(way * i), 1, TAU_FLAGS) for i in (16, -14)]
        return [(pt * part * kept, eta, phi, 0.10566, int(way * 13), 1, TAU_FLAGS), *neutrinos]
    if abs(identity) == 13:
        return [(pt * kept, eta, phi, 0.10566, identity, 1, PROMPT_FLAGS)]
    return [(pt, eta, phi, 0.0, identity, 1, PROMPT_FLAGS)]


def _seen(rng: np.random.Generator, particle: Particle) -> bool:
    return abs(particle[4]) == 13 and particle[0] > 8 and abs(particle[1]) < 2.5 and rng.random() < 0.85


def _measured(rng: np.random.Generator, particle: Particle) -> dict[str, Any]:
    """Return a muon as the detector has it: some are far off, some have the wrong charge, some are not numbers."""
    pt, eta, phi, _, identity, *_ = particle
    width = 0.15 if rng.random() < 0.05 else 0.015
    pt = max(pt * (1 + rng.normal(0, width)), 3.0)
    eta, phi = eta + rng.normal(0, 0.003), phi + rng.normal(0, 0.003)
    charge = -np.sign(identity) * (-1 if rng.random() < 0.02 else 1)
    return {
        "pt": np.nan if rng.random() < 0.001 else pt,
        "eta": eta,
        "phi": (phi + np.pi) % (2 * np.pi) - np.pi,
        "charge": charge,
        "at": complex(pt * np.cos(phi), pt * np.sin(phi)),
    }


# Columns


def _muon_columns(rng: np.random.Generator, muons: list[dict[str, Any]], counts: list[int]) -> dict[str, Any]:
    total = len(muons)
    pt, eta, phi, charge = (
        np.array([muon[name] for muon in muons]) for name in ("pt", "eta", "phi", "charge")
    )
    flat: dict[str, Any] = {
        "mass": np.full(total, 0.10566, "f4"),
        "dxy": rng.normal(0, 0.015, total).astype("f4"),
        "dxybs": rng.normal(0, 0.015, total).astype("f4"),
        "pfRelIso04_all": rng.exponential(0.07, total).astype("f4"),
        "looseId": rng.random(total) < 0.97,
        "mediumId": rng.random(total) < 0.96,
        "isGlobal": rng.random(total) < 0.98,
        "highPurity": rng.random(total) < 0.98,
        "standalonePt": (np.nan_to_num(pt, nan=30.0) * rng.uniform(0.7, 1.3, total)).astype("f4"),
        "standaloneEta": (eta + rng.normal(0, 0.06, total)).astype("f4"),
        "standalonePhi": (phi + rng.normal(0, 0.06, total)).astype("f4"),
        "standaloneNumberOfValidHits": rng.choice([0, 1, 20], total, p=[0.02, 0.05, 0.93]).astype("u1"),
        "cvhNValidPixelHits": rng.integers(-1, 7, total).astype("i4"),
    }
    # the refits of data and of simulation, and the plain track, differ: only one of them is right
    for prefix, width in (("", 3e-2), ("cvh", 0.0), ("cvhideal", 2e-2)):
        names = [
            f"{prefix}{name.capitalize()}" if prefix else name for name in ("pt", "eta", "phi", "charge")
        ]
        factor = 1 + rng.normal(0, width, total)
        values = (pt * factor, eta + 0.1 * (factor - 1), phi + 0.1 * (factor - 1), charge)
        flat |= {name: value.astype("f4") for name, value in zip(names, values, strict=True)}
        flat[names[3]] = flat[names[3]].astype("i4")
    return {name: ak.unflatten(values, counts) for name, values in flat.items()}


def _jacobians(rng: np.random.Generator, muons: dict[str, Any], counts: list[int]) -> dict[str, Any]:
    """Return the jacobians of tracks with up to five global parameters, and put their sizes beside the muons."""
    sizes = rng.integers(0, 6, sum(counts)).astype("i4")
    muons["cvhmergedGlobalIdxs_Counts"] = ak.unflatten(sizes, counts)
    muons["cvhJacRef_Counts"] = ak.unflatten(3 * sizes, counts)
    by_event = ak.to_numpy(ak.sum(muons["cvhmergedGlobalIdxs_Counts"], axis=1))
    total = int(by_event.sum())
    indices = rng.integers(0, small_momentum.CVH_PARAMETERS, total).astype("i4")
    return {
        "Muon_cvhmergedGlobalIdxs_Vals": ak.unflatten(indices, by_event),
        "Muon_cvhJacRef_Vals": ak.unflatten(rng.normal(0, 1, 3 * total).astype("f4"), 3 * by_event),
    }


def _electron_columns(rng: np.random.Generator, n: int) -> dict[str, Any]:
    counts = rng.choice([0, 1], n, p=[0.9, 0.1])
    total = counts.sum()
    flat = {
        "pt": rng.uniform(5, 40, total).astype("f4"),
        "eta": rng.uniform(-2.6, 2.6, total).astype("f4"),
        "phi": rng.uniform(-np.pi, np.pi, total).astype("f4"),
        "mass": np.full(total, 0.000511, "f4"),
        "charge": rng.choice([-1, 1], total).astype("i4"),
        "dxy": rng.normal(0, 0.04, total).astype("f4"),
        "dz": rng.normal(0, 0.15, total).astype("f4"),
        "cutBased": rng.choice([0, 1, 4], total).astype("i4"),
    }
    return {name: ak.unflatten(values, counts) for name, values in flat.items()}


def _trigger_columns(
    rng: np.random.Generator, muons: list[dict[str, Any]], counts: list[int]
) -> dict[str, Any]:
    total = len(muons)
    flat = {
        "pt": np.array([muon["pt"] for muon in muons]).astype("f4"),
        "eta": (np.array([muon["eta"] for muon in muons]) + rng.normal(0, 0.06, total)).astype("f4"),
        "phi": (np.array([muon["phi"] for muon in muons]) + rng.normal(0, 0.06, total)).astype("f4"),
        "id": rng.choice([11, 13], total, p=[0.03, 0.97]).astype("i4"),
        "filterBits": rng.choice([0, 8, 16, 32, 48], total, p=[0.1, 0.1, 0.3, 0.3, 0.2]).astype("i4"),
    }
    return {name: ak.unflatten(values, counts) for name, values in flat.items()}


def _generated_columns(records: list[dict[str, Any]]) -> dict[str, Any]:
    counts = [len(record["generated"]) for record in records]
    flat = np.array([particle for record in records for particle in record["generated"]])
    types = {
        "pt": "f4",
        "eta": "f4",
        "phi": "f4",
        "mass": "f4",
        "pdgId": "i4",
        "status": "i4",
        "statusFlags": "i4",
    }
    return {
        name: ak.unflatten(flat[:, i].astype(type_), counts) for i, (name, type_) in enumerate(types.items())
    }


def _weights(rng: np.random.Generator, kind: Kind, n: int) -> dict[str, Any]:
    """Return the weights of simulated events, a few of which are not finite."""
    gen = rng.choice([-1.5, 2.0], n, p=[0.1, 0.9])
    gen[_some(rng, n, 0.002)] = np.nan
    ecal = rng.uniform(0.9, 1.0, n)
    flat = {
        "genWeight": gen,
        "Pileup_nTrueInt": rng.uniform(-1, 70, n),
        "GenVtx_z": rng.normal(0, 5, n),
        "L1PreFiringWeight_ECAL_Nom": ecal,
        "L1PreFiringWeight_ECAL_Up": np.clip(ecal - rng.uniform(0, 0.05, n), 0, 1),
        "L1PreFiringWeight_ECAL_Dn": np.clip(ecal + rng.uniform(0, 0.05, n), 0, 1),
    }
    branches: dict[str, Any] = {name: values.astype("f4") for name, values in flat.items()}
    if kind == "top":
        return branches
    pdf = rng.normal(1, 0.05, (n, PDF_MEMBERS))
    pdf[_some(rng, n, 0.02), 3] = 20.0  # beyond the clipping
    pdf[_some(rng, n, 0.01), 5] = -15.0
    pdf[_some(rng, n, 0.002), 7] = np.inf
    blocks = {
        "LHEPdfWeight": pdf,
        "MEParamWeight": 1 + rng.normal(0, 1e-3, (n, 1)) * np.arange(-100, 101, 10),
        "MEParamWeightAltSet1": 1 + rng.normal(0, 1e-2, (n, 1)) * np.arange(-2, 3),
    }
    if kind == "Z":
        blocks["MEParamWeightAltSet4"] = 1 + rng.normal(0, 1e-2, (n, 1)) * np.arange(-5, 6)
    return branches | {name: ak.from_regular(block.astype("f4")) for name, block in blocks.items()}
