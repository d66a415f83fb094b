"""Random but valid payloads of muon efficiencies, prefire, pixel hits and vertex."""

from __future__ import annotations

from typing import Any

import numpy as np

ETA_48 = np.round(np.linspace(-2.4, 2.4, 49), 10).tolist()
PT_RANGE = (26.0, 60.0)
UT_RANGE = (-40.0, 60.0)
COEFFICIENTS = {"reco": 4, "tracking": 3, "idip": 4, "trigger": 12, "iso": 12, "veto": 4}
WITH_UT = ("trigger", "iso")
WITH_SIMULATED = ("iso", "veto")
ALTERNATIVES = {
    "reco": ("altBackground",),
    "tracking": ("altBackground",),
    "idip": ("altBackground", "altSignal"),
    "trigger": ("altBackground",),
    "iso": ("altBackground", "closure"),
    "veto": ("altReco", "altTracking", "altIdip"),
}
PREFIRE_EDGES = [0.0, 0.2, 0.3, 0.55, 0.83, 1.24, 1.4, 1.6, 1.8, 2.1, 2.25, 2.4]


def documents(rng: np.random.Generator) -> dict[str, tuple[str, Any]]:
    """Return name -> (kind, document)."""
    found: dict[str, tuple[str, Any]] = {
        f"efficiency_{step}": ("efficiency", efficiency_document(rng, step)) for step in COEFFICIENTS
    }
    found["prefire"] = ("prefire", prefire_document(rng))
    pixel_edges = {"eta": [-2.4, -1.4, 0.0, 1.4, 2.4], "hits": [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5]}
    found["pixel_hits"] = ("correctionlib", table_document(rng, "pixel_hits", pixel_edges, "ratio"))
    vertex_edges = {"z": [-12.0, -6.0, -2.0, 2.0, 6.0, 12.0], "nTrueInt": [0.0, 15.0, 30.0, 60.0]}
    found["vertex"] = ("correctionlib", table_document(rng, "vertex", vertex_edges, "weight"))
    return found


def efficiency_document(rng: np.random.Generator, step: str) -> dict[str, Any]:
    """Return the scale factors of a step: 2 % off 1, less than 1 % of slope in all."""
    n = COEFFICIENTS[step]
    charges = [0] if step == "iso" else [-1, 1]
    shape = (48, len(charges), n)

    def polynomial(constant: float, spread: float, slope: float) -> Any:
        values = rng.uniform(-slope / n, slope / n, shape)
        values[..., 0] = rng.uniform(constant - spread, constant + spread, shape[:2])
        return values

    root = rng.normal(0, 1e-3, (*shape, n))
    factor = polynomial(0.98, 0.01, 0.01)
    return {
        "schema": "binworks.efficiency/2",
        "step": step,
        "eta_edges": list(ETA_48),
        "charges": charges,
        "pt_range": list(PT_RANGE),
        "ut_range": list(UT_RANGE) if step in WITH_UT else None,
        "coefficients": factor.tolist(),
        "covariance": (root @ np.swapaxes(root, -1, -2) / n).tolist(),
        "simulated": polynomial(0.9, 0.03, 0.05).tolist() if step in WITH_SIMULATED else None,
        "alternatives": {
            name: (factor + rng.uniform(-2e-3 / n, 2e-3 / n, shape)).tolist() for name in ALTERNATIVES[step]
        },
    }


def prefire_document(rng: np.random.Generator) -> dict[str, Any]:
    """Return probabilities of up to 10 % (20 % in the hot spot) that rise near 20 GeV."""

    def region(size: int, largest: float) -> dict[str, Any]:
        return {
            "plateau": rng.uniform(0.01, largest, size).tolist(),
            "middle": rng.uniform(15.0, 30.0, size).tolist(),
            "slope": rng.uniform(-8.0, -1.0, size).tolist(),
            "uncertainty": rng.uniform(0.05, 0.3, size).tolist(),
        }

    hot_spot = {name: values[0] for name, values in region(1, 0.2).items()}
    return {
        "schema": "binworks.prefire/1",
        "eta_edges": list(PREFIRE_EDGES),
        **region(11, 0.1),
        "hot_spot": {"eta": [1.24, 1.6], "phi": [2.44, 2.79], **hot_spot},
        "systematic": 0.11,
    }


def table_document(
    rng: np.random.Generator, name: str, edges: dict[str, list[float]], output: str
) -> dict[str, Any]:
    """Return a correctionlib document with one number, within 20 % of 1, for each bin of two real inputs."""
    size = int(np.prod([len(its) - 1 for its in edges.values()]))
    return {
        "schema_version": 2,
        "corrections": [
            {
                "name": name,
                "version": 1,
                "inputs": [{"name": key, "type": "real"} for key in edges],
                "output": {"name": output, "type": "real"},
                "data": {
                    "nodetype": "multibinning",
                    "inputs": list(edges),
                    "edges": list(edges.values()),
                    "content": rng.uniform(0.8, 1.2, size).tolist(),
                    "flow": "clamp",
                },
            }
        ],
    }
