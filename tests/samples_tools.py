"""What the tests of the samples share: small truths, events, and a look into files."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import uproot

from binworks.samples.arrays import Float64, Jagged
from binworks.samples.events import PROMPT, Events
from binworks.samples.generator import Collisions, Generator
from binworks.samples.processes import find
from binworks.samples.simulation import simulate
from binworks.samples.truth import Truth


@cache
def collisions(process: str, n: int = 4000) -> Collisions:
    """Return generated collisions, made once a test session."""
    return Generator(find(process), np.random.SeedSequence(11)).draw(n)


@cache
def events(process: str, n: int = 4000) -> Events:
    """Return simulated events with their branches, made once a test session."""
    return simulate(find(process), collisions(process, n), np.random.default_rng(5), branches=True)


def gun(n: int, seed: int = 1, mass: float = 80.4) -> Events:
    """Return events of a boson with one muon, flat in pT (20 to 60 GeV), eta and azimuth; no branches."""
    rng = np.random.default_rng(seed)
    angle, qt = rng.uniform(-np.pi, np.pi, n), rng.exponential(15.0, n)
    charge = 2 * rng.integers(0, 2, n) - 1
    muons = {
        "pt": rng.uniform(20, 60, n),
        "eta": rng.uniform(-2.4, 2.4, n),
        "phi": rng.uniform(-np.pi, np.pi, n),
        "charge": charge,
        "origin": np.full(n, PROMPT),
    }
    one, nothing = np.ones(n, np.int64), np.zeros(0)
    return Events(
        boson_charge=charge.astype(np.int8),
        boson_mass=np.full(n, mass),
        boson_rapidity=np.zeros(n),
        recoiling=qt[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1),
        other=np.zeros((n, 2)),
        muons=Jagged(one, muons),
        electrons=Jagged(0 * one, {"pt": nothing, "eta": nothing, "phi": nothing}),
    )


def chi2(sample: Float64, weights: Float64, reference: Float64, edges: Float64) -> float:
    """Return chi2 of a weighted sample against another one, bin by bin of the edges, totals included."""
    observed = np.histogram(reference, edges)[0]
    expected, variance = (np.histogram(sample, edges, weights=weights**power)[0] for power in (1, 2))
    return float(((observed - expected) ** 2 / np.maximum(observed + variance, 1.0)).sum())


def quiet_truth(**changes: Any) -> Truth:
    """Return a truth in which data do not differ from simulation, but for the changes."""
    return Truth.draw(3, (), 0.0).model_copy(update=changes)


def digest(path: Path) -> str:
    """Return the sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read(path: Path) -> Any:
    """Return all events of a file as one awkward array."""
    with uproot.open(path) as file:
        return file["Events"].arrays()
