"""Small random payloads of the theory: the weights of W and Z, their angular coefficients, electroweak weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

TNP = ("gamma_cusp", "gamma_mu_q", "gamma_nu", "h_qqV", "s", "b_qqV", "b_qqbarV", "b_qqS", "b_qqDS", "b_qg")
PAIRS = (
    *(f"resumTNP_{name}" for name in TNP),
    "scetlibNPgammaCnu",
    "scetlibNPgammaOmegaNu",
    "scetlibNPLambda2",
    "scetlibNPLambda4",
    "resumTransition",
    "resumFOScale",
)
W_ONLY_PAIRS = ("scetlibNPDeltaLambda2", "scetlibNPLambda6", "scetlibNPLambdaInf", "mbRange", "mcRange")
"""These leave a Z as it is."""
THEORY_VARIATIONS = tuple(f"{name}{way}" for name in (*PAIRS, *W_ONLY_PAIRS) for way in ("Up", "Down"))
EW_VARIATIONS = ("ewISRCorr0", "ewISRCorr1", "ewFSRCorr0", "ewFSRCorr1", "ewVirtualCorr0", "ewVirtualCorr1")
W_ONLY_EW_VARIATIONS = ("ewVirtualCorr2",)
ANGULAR_VARIATIONS = ("nominal", "scaleUp", "scaleDown", "showerUp", "showerDown")
CHARGES = (-1, 0, 1)
HELICITIES = tuple(range(-1, 8))

MASS_EDGES = [0.0, 80.0, "inf"]
ABSY_EDGES = [0.0, 1.0, 2.5, 5.0]
QT_EDGES = [0.0, 2.0, 5.0, 10.0, 20.0, 40.0, 100.0]
ANGULAR_QT_EDGES = [0.0, 3.0, 5.0, 7.0, 9.0, 11.0, 14.0, 18.0, 23.0, 30.0, 40.0, 100.0]
RADIATED_EDGES = [0.0, 0.01, 0.05, 0.2, 1.0]


def documents(rng: np.random.Generator) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return name -> (kind, document) of `theory`, `angular` and `ew`."""
    return {
        "theory": ("correctionlib", theory_document(rng)),
        "angular": ("correctionlib", angular_document(rng)),
        "ew": ("correctionlib", electroweak_document(rng)),
    }


def theory_document(rng: np.random.Generator) -> dict[str, Any]:
    """Return weights in (mass, |y|, qT, charge), with all pairs of variations that a fit knows."""
    axes = {"mass": MASS_EDGES, "absy": ABSY_EDGES, "qt": QT_EDGES}
    w_only = {f"{name}{way}" for name in W_ONLY_PAIRS for way in ("Up", "Down")}
    inputs = ("mass", "absy", "qt", "charge", "variation")
    return _weights(rng, "theory", inputs, axes, THEORY_VARIATIONS, w_only)


def electroweak_document(rng: np.random.Generator) -> dict[str, Any]:
    """Return weights in (mass, charge, radiated)."""
    axes = {"mass": MASS_EDGES, "radiated": RADIATED_EDGES}
    names = (*EW_VARIATIONS, *W_ONLY_EW_VARIATIONS)
    inputs = ("mass", "charge", "radiated", "variation")
    return _weights(rng, "ew", inputs, axes, names, set(W_ONLY_EW_VARIATIONS))


def angular_document(rng: np.random.Generator) -> dict[str, Any]:
    """Return coefficients in (|y|, qT, charge, helicity); so small that every angle has a positive density."""
    axes = {"absy": ABSY_EDGES, "qt": ANGULAR_QT_EDGES}

    def coefficient(helicity: int) -> dict[str, Any]:
        return binned(axes, rng.uniform(0.8, 1.2, 33) if helicity < 0 else rng.uniform(-0.05, 0.05, 33))

    def of_charge() -> dict[str, Any]:
        return category("helicity", {h: coefficient(h) for h in HELICITIES})

    variations = {name: category("charge", {q: of_charge() for q in CHARGES}) for name in ANGULAR_VARIATIONS}
    types = {"absy": "real", "qt": "real", "charge": "int", "helicity": "int", "variation": "string"}
    return document("angular", types, category("variation", variations))


def _weights(
    rng: np.random.Generator,
    name: str,
    inputs: Sequence[str],
    axes: dict[str, Sequence[Any]],
    variations: Sequence[str],
    w_only: set[str],
) -> dict[str, Any]:
    """Return a table of weights by axes and charge; the variations in `w_only` change nothing at charge 0."""
    shape = (len(CHARGES), int(np.prod([len(edges) - 1 for edges in axes.values()])))
    nominal = rng.uniform(0.8, 1.2, shape)
    tables = {"nominal": nominal}
    for variation in variations:
        tables[variation] = nominal * rng.uniform(0.9, 1.1, shape)
        if variation in w_only:
            tables[variation][CHARGES.index(0)] = nominal[CHARGES.index(0)]
    content = {
        key: category("charge", {q: binned(axes, table[i]) for i, q in enumerate(CHARGES)})
        for key, table in tables.items()
    }
    types = {**dict.fromkeys(axes, "real"), "charge": "int", "variation": "string"}
    return document(name, {key: types[key] for key in inputs}, category("variation", content))


def binned(axes: dict[str, Sequence[Any]], values: Any) -> dict[str, Any]:
    """Return a node that is constant in each bin."""
    return {
        "nodetype": "multibinning",
        "inputs": list(axes),
        "edges": [list(edges) for edges in axes.values()],
        "content": np.asarray(values).tolist(),
        "flow": "clamp",
    }


def category(name: str, content: dict[Any, Any]) -> dict[str, Any]:
    """Return a node that chooses by key."""
    items = [{"key": key, "value": value} for key, value in content.items()]
    return {"nodetype": "category", "input": name, "content": items}


def document(name: str, inputs: dict[str, str], data: dict[str, Any]) -> dict[str, Any]:
    """Return a correctionlib document with one correction."""
    return {
        "schema_version": 2,
        "corrections": [
            {
                "name": name,
                "version": 1,
                "inputs": [{"name": key, "type": kind} for key, kind in inputs.items()],
                "output": {"name": "weight", "type": "real"},
                "data": data,
            }
        ],
    }
