"""What the tests of the samples share: small truths, events, and a look into files."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import uproot

from binworks.samples.events import Events
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
