"""Small NanoAOD files with random content that visits every corner of the W selection; for tests only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

FLAGS = ("Flag_goodVertices", "Flag_HBHENoiseFilter", "Flag_BadPFMuonFilter")


def _muons(rng: np.random.Generator, n: int) -> dict[str, Any]:
    counts = rng.choice([0, 1, 2, 3], n, p=[0.05, 0.75, 0.15, 0.05])
    total = counts.sum()
    eta = rng.uniform(-2.6, 2.6, total)
    phi = rng.uniform(-np.pi, np.pi, total)
    flat = {
        "pt": rng.uniform(10, 60, total).astype("f4"),
        "eta": eta.astype("f4"),
        "phi": phi.astype("f4"),
        "mass": np.full(total, 0.10566, "f4"),
        "charge": rng.choice([-1, 1], total).astype("i4"),
        "dxy": rng.normal(0, 0.02, total).astype("f4"),
        "dxybs": rng.normal(0, 0.02, total).astype("f4"),
        "pfRelIso04_all": rng.exponential(0.1, total).astype("f4"),
        "looseId": rng.random(total) < 0.95,
        "mediumId": rng.random(total) < 0.9,
        "isGlobal": rng.random(total) < 0.95,
        "highPurity": rng.random(total) < 0.95,
        "standalonePt": rng.uniform(12, 60, total).astype("f4"),
        "standaloneEta": (eta + rng.normal(0, 0.1, total)).astype("f4"),
        "standalonePhi": (phi + rng.normal(0, 0.1, total)).astype("f4"),
        "standaloneNumberOfValidHits": rng.choice([0, 1, 20], total, p=[0.05, 0.05, 0.9]).astype("u1"),
    }
    return {name: ak.unflatten(values, counts) for name, values in flat.items()}


def _near(rng: np.random.Generator, angles: Any, width: float) -> Any:
    counts = ak.num(angles)
    flat = ak.to_numpy(ak.flatten(angles))
    return ak.unflatten((flat + rng.normal(0, width, len(flat))).astype("f4"), counts)


def _electrons(rng: np.random.Generator, n: int) -> dict[str, Any]:
    counts = rng.choice([0, 1], n, p=[0.8, 0.2])
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


def _trigger_objects(rng: np.random.Generator, muons: Mapping[str, Any]) -> dict[str, Any]:
    counts = ak.num(muons["eta"])
    total = int(ak.sum(counts))
    return {
        "pt": muons["pt"],
        "eta": _near(rng, muons["eta"], 0.1),
        "phi": _near(rng, muons["phi"], 0.1),
        "id": ak.unflatten(rng.choice([11, 13], total, p=[0.05, 0.95]).astype("i4"), counts),
        "filterBits": ak.unflatten(rng.choice([0, 8, 16, 32, 48], total).astype("i4"), counts),
    }


def _generated(rng: np.random.Generator, muons: Mapping[str, Any], boson: str | None) -> dict[str, Any]:
    """Return a boson's two hard leptons (with tau and without), then a status-1 muon near each reconstructed one."""
    n = len(muons["pt"])
    counts = ak.num(muons["pt"])
    total = int(ak.sum(counts))
    near = {
        "pt": ak.values_astype(muons["pt"] * ak.unflatten(rng.normal(1, 0.02, total), counts), "f4"),
        "eta": _near(rng, muons["eta"], 0.05),
        "phi": _near(rng, muons["phi"], 0.05),
        "mass": ak.values_astype(ak.full_like(muons["pt"], 0.10566), "f4"),
        "pdgId": ak.values_astype(-13 * muons["charge"], "i4"),
        "status": ak.values_astype(ak.full_like(muons["charge"], 1), "i4"),
        "statusFlags": ak.unflatten(rng.choice([0, 1, 32], total, p=[0.05, 0.9, 0.05]).astype("i4"), counts),
    }
    if boson is None:
        return near
    charge = rng.choice([-1, 1], n)
    ids = np.stack([-13 * charge, 14 * charge] if boson == "W" else [np.full(n, 13), np.full(n, -13)], axis=1)
    hard = {
        "pt": rng.uniform(20, 60, (n, 2)).astype("f4"),
        "eta": rng.normal(0, 1.5, (n, 2)).astype("f4"),
        "phi": rng.uniform(-np.pi, np.pi, (n, 2)).astype("f4"),
        "mass": np.zeros((n, 2), "f4"),
        "pdgId": ids.astype("i4"),
        "status": np.full((n, 2), 23, "i4"),
        "statusFlags": np.full((n, 2), (1 << 7) | (1 << 8) | 1, "i4"),
    }
    return {
        name: ak.concatenate([ak.from_regular(ak.from_numpy(hard[name])), near[name]], axis=1)
        for name in near
    }


def events(
    n: int, seed: int, *, kind: str = "mc", boson: str | None = "W", pdf_members: int = 7
) -> dict[str, Any]:
    """Return branches of n events."""
    rng = np.random.default_rng(seed)
    muons = _muons(rng, n)
    branches: dict[str, Any] = {
        "run": np.full(n, 1, "u4"),
        "luminosityBlock": np.arange(n, dtype="u4") // 100,
        "event": np.arange(n, dtype="u8"),
        "HLT_IsoMu24": rng.random(n) < 0.8,
        "HLT_IsoTkMu24": rng.random(n) < 0.8,
        "MET_pt": rng.exponential(30, n).astype("f4"),
        "MET_phi": rng.uniform(-np.pi, np.pi, n).astype("f4"),
        "Muon": muons,
        "Electron": _electrons(rng, n),
        "TrigObj": _trigger_objects(rng, muons),
    }
    branches |= {flag: rng.random(n) < 0.98 for flag in FLAGS}
    if kind == "mc":
        branches["genWeight"] = rng.choice([-1.5, 2.0], n, p=[0.1, 0.9]).astype("f4")
        branches["Pileup_nTrueInt"] = rng.uniform(-1, 70, n).astype("f4")
        branches["GenPart"] = _generated(rng, muons, boson)
        if boson is not None:
            pdf = rng.normal(1, 0.05, (n, pdf_members)).astype("f4")
            pdf[::50, 3] = 20.0  # beyond the clipping
            branches["LHEPdfWeight"] = ak.from_regular(ak.from_numpy(pdf))
        if boson == "W":
            slope = rng.normal(0, 0.001, n)
            shifts = np.arange(-100, 101, 10)
            mass = 1 + slope[:, None] * shifts
            branches["MEParamWeight"] = ak.from_regular(ak.from_numpy(mass.astype("f4")))
        branches |= _more_weights(n, seed, boson)
    return branches


def _more_weights(n: int, seed: int, boson: str | None) -> dict[str, Any]:
    """Return vertices, prefire weights, and the matrix element's weights but for the W mass.

    They have a generator of their own, so that they change no other branch.
    """
    rng = np.random.default_rng([seed, 1])
    ecal = rng.uniform(0.9, 1.0, n)
    flat = {
        "GenVtx_z": rng.normal(0, 5, n),
        "L1PreFiringWeight_ECAL_Nom": ecal,
        "L1PreFiringWeight_ECAL_Up": ecal - 0.02,
        "L1PreFiringWeight_ECAL_Dn": ecal + 0.02,
    }
    branches: dict[str, Any] = {name: values.astype("f4") for name, values in flat.items()}
    steps = {}
    if boson is not None:
        steps["MEParamWeightAltSet1"] = (0.01, np.arange(-2, 3))
    if boson == "Z":
        steps |= {
            "MEParamWeight": (0.001, np.arange(-100, 101, 10)),
            "MEParamWeightAltSet4": (0.01, np.arange(-5, 6)),
        }
    for name, (size, shifts) in steps.items():
        block = 1 + rng.normal(0, size, n)[:, None] * shifts
        branches[name] = ak.from_regular(ak.from_numpy(block.astype("f4")))
    return branches


def write(path: Path, branches: Mapping[str, Any], *, tree: str = "Events", cluster: int = 500) -> Path:
    """Write the branches as a TTree (or, by the suffix ``.rntuple.root``, an RNTuple) in clusters of events."""
    columns = {
        name: ak.zip(dict(value)) if isinstance(value, dict) else value for name, value in branches.items()
    }
    size = len(branches["run"])
    with uproot.recreate(path, compression=uproot.ZSTD(1)) as file:
        if path.name.endswith(".rntuple.root"):
            flat = {}
            for name, value in branches.items():
                flat |= (
                    {f"{name}_{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
                )
            file.mkrntuple(tree, ak.zip(flat, depth_limit=1))
            return path
        for start in range(0, max(size, 1), cluster):
            part = {name: value[start : start + cluster] for name, value in columns.items()}
            if start == 0:
                file.mktree(tree, {name: _kind(value) for name, value in part.items()})
            if size:
                file[tree].extend(part)
    return path


def _kind(value: Any) -> Any:
    return value.dtype if isinstance(value, np.ndarray) else ak.type(value).content
