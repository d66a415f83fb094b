"""What the documents of a correction set share: correctionlib's nodes, and draws within a calibration's uncertainty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from binworks.samples.arrays import Float64
from binworks.samples.truth import Truth

_KEY = 0xCA11
_DIGITS = 9


def stream(truth: Truth, payload: str) -> np.random.Generator:
    """Return the random numbers of one payload, whatever else is in the set."""
    return np.random.default_rng((_KEY, truth.seed, *payload.encode()))


def fluctuated(central: Float64, covariance: Float64, rng: np.random.Generator) -> Float64:
    """Return one draw about central values of shape (..., n), each with its covariance (..., n, n)."""
    values, vectors = np.linalg.eigh(covariance)
    pulls = np.sqrt(np.maximum(values, 0.0)) * rng.standard_normal(values.shape)
    shift: Float64 = np.einsum("...ij,...j->...i", vectors, pulls)
    return central + shift


def numbers(values: Any) -> Any:
    """Return nested lists of numbers of nine digits, which keep the files short."""
    array = np.asarray(values, np.float64)
    return np.array([float(f"{value:.{_DIGITS}g}") for value in array.ravel()]).reshape(array.shape).tolist()


def table(axes: Mapping[str, Any], values: Float64) -> dict[str, Any]:
    """Return a node that is constant in each bin; axes by name: edges. Beyond them it is that of the nearest bin."""
    return {
        "nodetype": "multibinning",
        "inputs": list(axes),
        "edges": [[float(edge) for edge in edges] for edges in axes.values()],
        "content": numbers(np.ravel(values)),
        "flow": "clamp",
    }


def category(variable: str, content: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a node that chooses by a key."""
    pairs = [{"key": key, "value": value} for key, value in content.items()]
    return {"nodetype": "category", "input": variable, "content": pairs}


def correction(
    name: str, description: str, inputs: Mapping[str, tuple[str, str]], data: dict[str, Any]
) -> dict[str, Any]:
    """Return a correctionlib document with one correction; its inputs by name: type and description."""
    content = {
        "name": name,
        "description": description,
        "version": 1,
        "inputs": [{"name": key, "type": kind, "description": text} for key, (kind, text) in inputs.items()],
        "output": {"name": "value", "type": "real", "description": description},
        "data": data,
    }
    return {"schema_version": 2, "description": description, "corrections": [content]}
