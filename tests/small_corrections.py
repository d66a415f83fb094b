"""A small correction set with random payloads, every kind that the W channel knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from binworks.corrections import sets
from binworks.corrections.sets import CorrectionSet

ETA_48 = np.round(np.linspace(-2.4, 2.4, 49), 10).tolist()
ETA_24 = np.round(np.linspace(-2.4, 2.4, 25), 10).tolist()
THEORY_VARIATIONS = ("resumTNP1Up", "resumTNP1Down", "matching")
QT_EDGES = [0.0, 5.0, 20.0, 100.0]
Y_EDGES = [0.0, 1.0, 2.5, 5.0]
MASS_EDGES = [0.0, 80.0, "inf"]


def _covariance(rng: np.random.Generator, n: int, size: float) -> Any:
    root = rng.normal(0, size, (n, n))
    return root @ root.T / n


def documents(seed: int = 5) -> dict[str, tuple[str, Any]]:
    """Return name -> (kind, document)."""
    rng = np.random.default_rng(seed)

    def scale() -> dict[str, Any]:
        sizes = {"A": 1e-3, "e": 1e-2, "M": 1e-4}
        return {name: rng.normal(0, size, 48).tolist() for name, size in sizes.items()}

    def width() -> dict[str, Any]:
        return {
            name: np.full(24, value).tolist()
            for name, value in {"a": 0.01, "b": 0.005, "c": 1e-4, "d": 20.0}.items()
        }

    idip = np.zeros((48, 2, 4))
    idip[..., 0] = rng.normal(0.98, 0.01, (48, 2))
    idip[..., 1:] = rng.normal(0, 0.01, (48, 2, 3))
    covariance = [[_covariance(rng, 4, 0.002).tolist() for _ in range(2)] for _ in range(48)]
    return {
        "momentum_scale": (
            "momentum_scale",
            {
                "schema": "binworks.momentum_scale/1",
                "eta_edges": list(ETA_48),
                "data": scale(),
                "mc": scale(),
                "covariance": _covariance(rng, 144, 1e-4).tolist(),
            },
        ),
        "resolution": (
            "resolution",
            {"schema": "binworks.resolution/1", "eta_edges": list(ETA_24), "data": width(), "mc": width()},
        ),
        "efficiency_idip": (
            "efficiency",
            {
                "schema": "binworks.efficiency/1",
                "step": "idip",
                "eta_edges": list(ETA_48),
                "charges": [-1, 1],
                "pt_range": [26.0, 56.0],
                "coefficients": idip.tolist(),
                "covariance": covariance,
            },
        ),
        "pileup": ("correctionlib", pileup_document(rng)),
        "theory": ("correctionlib", theory_document(rng)),
    }


def pileup_document(rng: np.random.Generator) -> dict[str, Any]:
    """Return the weights in nTrueInt; one is beyond the cap of 5."""

    def binned(size: int) -> dict[str, Any]:
        content = rng.uniform(0.5, 1.5, size).tolist()
        content[3] = 7.0
        edges = np.arange(0.0, 10.0 * size + 1, 10.0).tolist()
        return {
            "nodetype": "binning",
            "input": "nTrueInt",
            "edges": edges,
            "content": content,
            "flow": "clamp",
        }

    keys = [{"key": key, "value": binned(6)} for key in ("nominal", "up", "down")]
    return _document(
        "pileup",
        [("nTrueInt", "real"), ("variation", "string")],
        {"nodetype": "category", "input": "variation", "content": keys},
    )


def theory_document(rng: np.random.Generator) -> dict[str, Any]:
    """Return a table in (mass, |y|, qT, charge) with variations."""

    def cube() -> dict[str, Any]:
        size = (len(MASS_EDGES) - 1) * (len(Y_EDGES) - 1) * (len(QT_EDGES) - 1)
        return {
            "nodetype": "multibinning",
            "inputs": ["mass", "absy", "qt"],
            "edges": [MASS_EDGES, Y_EDGES, QT_EDGES],
            "content": rng.uniform(0.8, 1.2, size).tolist(),
            "flow": "clamp",
        }

    def by_charge() -> dict[str, Any]:
        return {
            "nodetype": "category",
            "input": "charge",
            "content": [{"key": q, "value": cube()} for q in (-1, 0, 1)],
        }

    keys = [{"key": key, "value": by_charge()} for key in ("nominal", *THEORY_VARIATIONS)]
    inputs = [("mass", "real"), ("absy", "real"), ("qt", "real"), ("charge", "int"), ("variation", "string")]
    return _document("theory", inputs, {"nodetype": "category", "input": "variation", "content": keys})


def _document(name: str, inputs: list[tuple[str, str]], data: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema_version": 2,
        "corrections": [
            {
                "name": name,
                "version": 1,
                "inputs": [{"name": n, "type": t} for n, t in inputs],
                "output": {"name": "weight", "type": "real"},
                "data": data,
            }
        ],
    }


def write(folder: Path, **changed: Any) -> CorrectionSet:
    """Write the set, with documents replaced by name."""
    payloads = documents() | {name: (documents()[name][0], document) for name, document in changed.items()}
    return sets.write(folder, "small", payloads)
