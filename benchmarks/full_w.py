"""A service with a finished W job of full size and made-up sums: every group, every block as large as a real one.

Nothing is simulated or filled; job database and store are written by hand as the driver and the workers would.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import brute_force_cases
from hand_made_service import HandMade

from binworks.processors import registry
from binworks.service.model import JobState
from binworks.tensors.accumulator import Accumulator
from binworks.tensors.axes import w_axes
from binworks.tensors.expansion import Expansion
from binworks.tensors.groups.base import VariationGroup
from binworks.tensors.histogram import Histogram

DATASET = "Wplusmunu"


@dataclass(frozen=True)
class FullW:
    """The service, the id of its job, and the expansions of its groups."""

    made: HandMade
    job: str
    expansions: tuple[Expansion, ...]


def groups(folder: Path) -> tuple[VariationGroup, ...]:
    """Return all groups of the W channel, for random corrections of every kind."""
    processor = registry.create("w_mass", {}, brute_force_cases.correction_set(folder))
    found: tuple[VariationGroup, ...] = tuple(processor._groups.values())
    return found


def sums(seed: int, of: Sequence[VariationGroup]) -> Accumulator:
    """Return random sums on the W axes; groups that share a block have it once."""
    rng = np.random.default_rng(seed)
    nominal = Histogram.zeros(w_axes(), variances=True)
    nominal.values[...] = rng.gamma(3.0, 100.0, nominal.values.shape)
    nominal.variances = nominal.values.copy()
    histograms = {"nominal": nominal}
    for group in of:
        expansion = group.expansion
        if expansion.block in histograms:
            continue
        block = group.block(w_axes())
        scale = 0.01 if expansion.base.all() else 1.0
        noise = rng.uniform(0.9, 1.1, block.values.shape)
        block.values[...] = scale * nominal.values[..., np.newaxis] * noise
        histograms[expansion.block] = block
    return Accumulator(histograms, {"entries": 100_000, "selected": 60_000, "sum_sign": 90_000})


def serve(home: Path) -> FullW:
    """Return the service; its API process is not started."""
    made = HandMade.make(home)
    of = groups(home / "made-up-corrections")
    job = made.submit(datasets=[DATASET])
    made.move(job, JobState.RUNNING)
    made.publish(job, {DATASET: sums(1, of)}, groups=of)
    made.move(job, JobState.FINALIZING, JobState.SUCCEEDED)
    return FullW(made, job, tuple(group.expansion for group in of))
