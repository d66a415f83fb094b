"""Lookup tables: a correctionlib v2 document, compiled once to a dense array.

The grid of bin centres is evaluated by correctionlib itself, so the dense table holds its numbers exactly; only
documents made of binnings and categories are piecewise constant, others are refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import correctionlib
import numpy as np

from binworks.corrections.sets import CorrectionSet
from binworks.tensors.errors import PayloadError
from binworks.tensors.histogram import Float64

KIND = "correctionlib"


@dataclass(frozen=True)
class DenseTable:
    """A piecewise constant function on a grid.

    Parameters
    ----------
    axes : dict
        For each input in order: bin edges (array) or category keys (tuple).
    values : array
        One dimension an input.
    """

    axes: Mapping[str, Any]
    values: Float64


def load_table(
    corrections: CorrectionSet, payload: str, inputs: Sequence[str], first: Mapping[str, Any]
) -> DenseTable:
    """Compile the correction of the payload's name to a dense table.

    Parameters
    ----------
    corrections : CorrectionSet
        Holds the payload.
    payload : str
        Name of the payload and of the correction within it.
    inputs : sequence of str
        Names of its inputs, in the order of the table's dimensions.
    first : mapping
        Category keys that must come first on their axis (``{"variation": "nominal"}``).

    Raises
    ------
    PayloadError
        If the document is not correctionlib's, lacks the correction or an input, is not piecewise constant, or has
        values that are not finite.
    """
    document = corrections.payload(payload, KIND)
    where = f"{corrections.name}/{payload}"
    try:
        evaluators = correctionlib.CorrectionSet.from_string(json.dumps(document))
    except (RuntimeError, ValueError) as error:
        raise PayloadError(
            f"correctionlib refuses the document: {error}.", code="bad-payload", where=where
        ) from None
    if payload not in list(evaluators):
        raise PayloadError(
            f"There is no correction {payload!r} in the document.", code="bad-payload", where=where
        )
    evaluator = evaluators[payload]
    names = [variable.name for variable in evaluator.inputs]
    if sorted(names) != sorted(inputs):
        raise PayloadError(
            f"Expected the inputs {list(inputs)}, got {names}.", code="wrong-axes", where=where
        )
    content = next(c for c in document["corrections"] if c["name"] == payload)["data"]
    axes = _axes(content, inputs, first, where)
    points = [_points(axes[name]) for name in inputs]
    grid = dict(zip(inputs, np.meshgrid(*points, indexing="ij"), strict=True))
    shape = tuple(len(p) for p in points)
    values = np.empty(shape)
    strings = [name for name in inputs if isinstance(axes[name], tuple) and isinstance(axes[name][0], str)]
    try:
        for index in np.ndindex(*[shape[inputs.index(name)] for name in strings]):
            chosen = dict(zip(strings, index, strict=True))
            key = tuple(chosen.get(name, slice(None)) for name in inputs)
            arguments = [
                axes[n][chosen[n]] if n in chosen else np.ascontiguousarray(grid[n][key]).ravel()
                for n in names
            ]
            values[key] = np.reshape(evaluator.evaluate(*arguments), values[key].shape)
    except (IndexError, RuntimeError) as error:
        raise PayloadError(
            f"A bin of the grid has no value: {error}.", code="missing-bins", where=where
        ) from None
    if not np.isfinite(values).all():
        raise PayloadError("Every value must be finite.", code="not-finite", where=where)
    return DenseTable(axes, values)


def _axes(content: Any, inputs: Sequence[str], first: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Collect, over the whole tree, the edges of each binned input and the keys of each category."""
    edges: dict[str, set[float]] = {}
    keys: dict[str, list[Any]] = {}
    for node in _nodes(content, where):
        if node["nodetype"] == "category":
            known = keys.setdefault(node["input"], [])
            known.extend(item["key"] for item in node["content"] if item["key"] not in known)
        else:
            several = node["nodetype"] == "multibinning"
            for name, its in (
                zip(node["inputs"], node["edges"], strict=True)
                if several
                else [(node["input"], node["edges"])]
            ):
                edges.setdefault(name, set()).update(_edge_list(its))
    axes: dict[str, Any] = {}
    for name in inputs:
        if name in keys:
            axes[name] = tuple(sorted(keys[name], key=lambda key: key != first.get(name, key)))
            if name in first and axes[name][0] != first[name]:
                raise PayloadError(
                    f"Input {name!r} lacks the category {first[name]!r}.", code="missing-bins", where=where
                )
        elif name in edges:
            axes[name] = np.array(sorted(edges[name]))
        else:
            raise PayloadError(f"Input {name!r} is not binned.", code="wrong-axes", where=where)
    return axes


def _nodes(content: Any, where: str) -> Iterator[dict[str, Any]]:
    if isinstance(content, (int, float)):
        return
    if not isinstance(content, dict) or content.get("nodetype") not in {
        "binning",
        "multibinning",
        "category",
    }:
        kind = content.get("nodetype") if isinstance(content, dict) else type(content).__name__
        raise PayloadError(f"A {kind} is not piecewise constant.", code="bad-payload", where=where)
    yield content
    for child in content["content"]:
        yield from _nodes(child["value"] if content["nodetype"] == "category" else child, where)
    if isinstance(content.get("default"), dict):
        yield from _nodes(content["default"], where)


def _edge_list(edges: Any) -> list[float]:
    if isinstance(edges, Mapping):  # uniform binning
        return [float(e) for e in np.linspace(edges["low"], edges["high"], edges["n"] + 1)]
    return [float(edge) for edge in edges]  # "inf" and "-inf" are strings in JSON


def _points(axis: Any) -> Any:
    """Return a point in each bin, or the keys' places."""
    if isinstance(axis, tuple):
        return np.array(axis) if not isinstance(axis[0], str) else np.arange(len(axis))
    finite = np.clip(
        axis,
        axis[1] - 1.0 if np.isinf(axis[0]) else axis[0],
        axis[-2] + 1.0 if np.isinf(axis[-1]) else axis[-1],
    )
    return (finite[:-1] + finite[1:]) / 2
