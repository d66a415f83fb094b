"""A small correction set with random payloads, every kind that the channels know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import small_efficiencies
import small_momentum
import small_theory

from binworks.corrections import sets
from binworks.corrections.sets import CorrectionSet

ETA_48 = np.round(np.linspace(-2.4, 2.4, 49), 10).tolist()


def documents(seed: int = 5) -> dict[str, tuple[str, Any]]:
    """Return name -> (kind, document)."""
    rng = np.random.default_rng(seed)
    return {
        "momentum_scale": ("momentum_scale", momentum_scale_document(rng)),
        "pileup": ("correctionlib", pileup_document(rng)),
        **small_momentum.documents(rng),
        **small_efficiencies.documents(rng),
        **small_theory.documents(rng),
    }


def momentum_scale_document(rng: np.random.Generator) -> dict[str, Any]:
    """Return parameters that move muons visibly, and a covariance of small shifts."""

    def scale() -> dict[str, Any]:
        sizes = {"A": 1e-3, "e": 1e-2, "M": 1e-4}
        return {name: rng.normal(0, size, 48).tolist() for name, size in sizes.items()}

    root = rng.normal(0, 1e-4, (144, 144))
    return {
        "schema": "binworks.momentum_scale/1",
        "eta_edges": list(ETA_48),
        "data": scale(),
        "mc": scale(),
        "covariance": (root @ root.T / 144).tolist(),
    }


def pileup_document(rng: np.random.Generator) -> dict[str, Any]:
    """Return the weights in nTrueInt; one is beyond the cap of 5."""

    def binned(size: int) -> dict[str, Any]:
        content = rng.uniform(0.5, 1.5, size)
        content[3] = 7.0
        return small_theory.binned({"nTrueInt": np.arange(0.0, 10.0 * size + 1, 10.0).tolist()}, content)

    keys = {key: binned(6) for key in ("nominal", "up", "down")}
    inputs = {"nTrueInt": "real", "variation": "string"}
    return small_theory.document("pileup", inputs, small_theory.category("variation", keys))


def write(folder: Path, **changed: Any) -> CorrectionSet:
    """Write the set, with documents replaced by name."""
    payloads = documents() | {name: (documents()[name][0], document) for name, document in changed.items()}
    return sets.write(folder, "small", payloads)
