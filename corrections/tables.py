"""Lookup tables: a correctionlib v2 document, compiled once to a dense array.

The grid of bin centres is evaluated by correctionlib itself, so the dense table holds its numbers exactly. Only
documents made of binnings and categories are piecewise constant, others are refused; an input may be replaced by its
absolute value on the way. Edges are placed such that a lookup among them finds correctionlib's bin for every number,
those at an edge included.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import correctionlib
import numpy as np

from binworks.corrections.sets import CorrectionSet
from binworks.tensors.errors import PayloadError
from binworks.tensors.histogram import Float64

KIND = "correctionlib"
LARGEST_TABLE = 1 << 26
"""Numbers in a dense table, half a gigabyte."""
_HALVINGS = 128
_KEYS = {
    "document": {"schema_version", "description", "corrections", "compound_corrections"},
    "correction": {"name", "description", "version", "inputs", "output", "generic_formulas", "data"},
    "binning": {"nodetype", "input", "edges", "content", "flow"},
    "multibinning": {"nodetype", "inputs", "edges", "content", "flow"},
    "category": {"nodetype", "input", "content", "default"},
    "transform": {"nodetype", "input", "rule", "content"},
}
"""What each part of a document may contain: correctionlib's evaluator would overlook anything else."""


@dataclass(frozen=True)
class DenseTable:
    """A piecewise constant function on a grid.

    Parameters
    ----------
    axes : dict
        For each input in order: bin edges (array) or category keys (tuple).
    values : array
        One dimension an input.
    refusing : frozenset of str
        Binned inputs for which the document has no value outside the edges. For the others the nearest bin is taken.
    """

    axes: Mapping[str, Any]
    values: Float64
    refusing: frozenset[str] = frozenset()

    def at(self, *point: Any) -> Float64:
        """Return the values at points, inputs in the order of the axes; arrays are broadcast.

        Raises
        ------
        PayloadError
            ``missing-bins`` if the document has no value there.
        """
        places = [self._place(name, given) for name, given in zip(self.axes, point, strict=True)]
        return np.asarray(self.values[tuple(places)], dtype=np.float64)

    def _place(self, name: str, given: Any) -> Any:
        axis = self.axes[name]
        if isinstance(axis, tuple):
            flat = np.ravel(given).tolist()
            if unknown := [key for key in flat if key not in axis]:
                raise PayloadError(f"{name} has no key {unknown[0]!r}.", code="missing-bins")
            return np.reshape([axis.index(key) for key in flat], np.shape(given))
        x = np.asarray(given, dtype=np.float64)
        outside = np.isnan(x) | ((x < axis[0]) | (x >= axis[-1]) if name in self.refusing else False)
        if outside.any():
            raise PayloadError(f"There is no value at {name} = {x[outside].flat[0]}.", code="missing-bins")
        return np.clip(np.searchsorted(axis, x, side="right") - 1, 0, len(axis) - 2)


def load_table(
    corrections: CorrectionSet,
    payload: str,
    inputs: Sequence[str],
    first: Mapping[str, Any],
    *,
    keys: Mapping[str, Sequence[Any]] | None = None,
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
    keys : mapping, optional
        All keys of an axis, in order: each must have a value, others must not be there.

    Raises
    ------
    PayloadError
        If the document is not correctionlib's, lacks the correction or an input, is not piecewise constant, or has
        values that are not finite.
    """
    where = f"{corrections.name}/{payload}"
    document, evaluators = _read(corrections, payload, where)
    if payload not in evaluators:
        raise PayloadError(
            f"There is no correction {payload!r} in the document.", code="bad-payload", where=where
        )
    names = [variable.name for variable in evaluators[payload].inputs]
    if sorted(names) != sorted(inputs):
        raise PayloadError(
            f"Expected the inputs {list(inputs)}, got {names}.", code="wrong-axes", where=where
        )
    return _compiled(document, evaluators[payload], inputs, first, keys or {}, where)


def load_binned(corrections: CorrectionSet, payload: str, inputs: Sequence[str]) -> DenseTable:
    """Compile the correction of the payload's name to a dense table whose inputs are all binned.

    Raises
    ------
    PayloadError
        As `load_table`, and if an input is a category.
    """
    table = load_table(corrections, payload, inputs, {})
    for name in inputs:
        if isinstance(table.axes[name], tuple):
            raise PayloadError(
                f"Input {name!r} must be binned.", code="wrong-axes", where=f"{corrections.name}/{payload}"
            )
    return table


def load_tables(corrections: CorrectionSet, payload: str) -> dict[str, DenseTable]:
    """Compile every correction of a payload to a dense table, its inputs in the order of the document.

    Raises
    ------
    PayloadError
        As for `load_table`.
    """
    document, evaluators = _read(corrections, payload, f"{corrections.name}/{payload}")
    return {
        name: _compiled(
            document,
            evaluator,
            [i.name for i in evaluator.inputs],
            {},
            {},
            f"{corrections.name}/{payload}/{name}",
        )
        for name, evaluator in evaluators.items()
    }


def _read(corrections: CorrectionSet, payload: str, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the document and correctionlib's evaluator of each correction."""
    document = corrections.payload(payload, KIND)
    try:
        evaluators = correctionlib.CorrectionSet.from_string(json.dumps(document))
    except (RuntimeError, ValueError) as error:
        raise PayloadError(
            f"correctionlib refuses the document: {error}.", code="bad-payload", where=where
        ) from None
    _check_keys(document, "document", where)
    for correction in document["corrections"]:
        _check_keys(correction, "correction", f"{where}: {correction['name']}")
    if not evaluators:
        raise PayloadError("The document has no corrections.", code="bad-payload", where=where)
    return document, dict(evaluators.items())


def _check_keys(found: Mapping[str, Any], part: str, where: str) -> None:
    if unknown := sorted(set(found) - _KEYS[part]):
        raise PayloadError(f"A {part} has no key {unknown[0]!r}.", code="bad-payload", where=where)


def _compiled(
    document: Mapping[str, Any],
    evaluator: Any,
    inputs: Sequence[str],
    first: Mapping[str, Any],
    keys: Mapping[str, Sequence[Any]],
    where: str,
) -> DenseTable:
    content = next(c for c in document["corrections"] if c["name"] == evaluator.name)["data"]
    found = _Found()
    for node, absolute in _nodes(content, frozenset(), f"{where}: data"):
        found.add(node, absolute, where)
    axes = {name: found.axis(name, first, keys, where) for name in inputs}
    types = {variable.name: variable.type for variable in evaluator.inputs}
    for name, axis in axes.items():
        if (types[name] == "real") is isinstance(axis, tuple):
            raise PayloadError(
                f"Input {name!r} is {types[name]}: real numbers are binned, others are categories.",
                code="wrong-axes",
                where=where,
            )
    size = int(np.prod([float(len(_points(axis))) for axis in axes.values()]))
    if size > LARGEST_TABLE:
        raise PayloadError(
            f"The table would hold {size:,} numbers, more than {LARGEST_TABLE:,}.",
            code="bad-payload",
            where=where,
        )
    values = _grid(evaluator, axes, where)
    if not np.isfinite(values).all():
        raise PayloadError("Every value must be finite.", code="not-finite", where=where)
    return DenseTable(axes, values, frozenset(found.refusing & set(axes)))


@dataclass
class _Found:
    """What the nodes of a tree say of each input."""

    edges: dict[str, set[float]] = field(default_factory=dict)
    keys: dict[str, list[Any]] = field(default_factory=dict)
    refusing: set[str] = field(default_factory=set)

    def add(self, node: Mapping[str, Any], absolute: frozenset[str], where: str) -> None:
        """Take note of one node."""
        if node["nodetype"] == "category":
            listed = [item["key"] for item in node["content"]]
            if len(set(listed)) < len(listed):
                raise PayloadError(
                    f"A key of {node['input']!r} is there twice.", code="bad-payload", where=where
                )
            if "default" in node and not all(isinstance(key, str) for key in listed):
                raise PayloadError(
                    f"A default does for any {node['input']!r}: list the keys.",
                    code="bad-payload",
                    where=where,
                )
            known = self.keys.setdefault(node["input"], [])
            known.extend(key for key in listed if key not in known)
            return
        several = node["nodetype"] == "multibinning"
        names = node["inputs"] if several else [node["input"]]
        for name, edges in zip(names, node["edges"] if several else [node["edges"]], strict=True):
            self._bin(name, _edge_list(edges), node["flow"], absolute=name in absolute)

    def _bin(self, name: str, edges: Sequence[float], flow: Any, *, absolute: bool) -> None:
        its = set(edges)
        if flow == "error":
            self.refusing.add(name)
        elif flow != "clamp":  # a value of its own outside: two more bins
            its |= {-np.inf, np.inf}
        if absolute:  # a <= |x| < b is also -b < x <= -a: edges are the next numbers above -b and -a
            positive = [edge for edge in its if edge > 0]
            its = {*positive, *(float(np.nextafter(-edge, np.inf)) for edge in positive)}
        self.edges.setdefault(name, set()).update(its)

    def axis(self, name: str, first: Mapping[str, Any], keys: Mapping[str, Sequence[Any]], where: str) -> Any:
        """Return the edges (array) or the keys (tuple) of an input."""
        if name in self.edges:
            return np.array(sorted(self.edges[name]))
        if name not in self.keys:
            raise PayloadError(f"Input {name!r} is not binned.", code="wrong-axes", where=where)
        found = tuple(sorted(self.keys[name], key=lambda key: key != first.get(name, key)))
        if name in first and found[0] != first[name]:
            raise PayloadError(
                f"Input {name!r} lacks the category {first[name]!r}.", code="missing-bins", where=where
            )
        if name not in keys:
            return found
        if unknown := [key for key in found if key not in keys[name]]:
            message = f"Input {name!r} has the category {unknown[0]!r}, expected {list(keys[name])}."
            raise PayloadError(message, code="wrong-axes", where=where)
        if missing := [key for key in keys[name] if key not in found]:
            message = f"Input {name!r} lacks the category {missing[0]!r}."
            raise PayloadError(message, code="missing-bins", where=where)
        return tuple(keys[name])


def _nodes(
    content: Any, absolute: frozenset[str], where: str
) -> Iterator[tuple[dict[str, Any], frozenset[str]]]:
    """Give each binning and category of a tree, with the inputs whose absolute value it sees."""
    if isinstance(content, (int, float)):
        return
    kind = content["nodetype"]
    if kind not in _KEYS:
        raise PayloadError(f"A {kind} is not piecewise constant.", code="bad-payload", where=where)
    _check_keys(content, kind, where)
    if kind == "transform":
        yield from _nodes(content["content"], absolute | {_made_absolute(content, where)}, f"{where}.content")
        return
    yield content, absolute
    for i, child in enumerate(content["content"]):
        inner = child["value"] if kind == "category" else child
        yield from _nodes(inner, absolute, f"{where}.content[{i}]")
    for key in ("default", "flow"):
        if content.get(key) == "wrap":
            raise PayloadError("A table cannot wrap around.", code="bad-payload", where=where)
        if content.get(key) is not None and not isinstance(content[key], str):
            yield from _nodes(content[key], absolute, f"{where}.{key}")


def _made_absolute(node: Mapping[str, Any], where: str) -> str:
    """Return the input that a transform replaces by its absolute value."""
    rule, name = node["rule"], str(node["input"])
    formula = isinstance(rule, Mapping) and rule.get("nodetype") == "formula"
    if not formula or rule["variables"] != [name] or rule["expression"].replace(" ", "") != "abs(x)":
        raise PayloadError(
            f"The transform of {name!r} is not its absolute value.", code="bad-payload", where=where
        )
    return name


def _edge_list(edges: Any) -> list[float]:
    if isinstance(edges, Mapping):
        return _uniform_edges(float(edges["low"]), float(edges["high"]), int(edges["n"]))
    return [float(edge) for edge in edges]  # "inf" and "-inf" are strings in JSON


@cache
def _uniform_edges(low: float, high: float, n: int) -> list[float]:
    """Return the smallest number of each of correctionlib's n equal bins, and the end of the last.

    Its bin is a product rounded down, so that number can be some units in the last place off the edge; it is found by
    asking correctionlib for the bin of the middle of an ever smaller interval.
    """
    node = {
        "nodetype": "binning",
        "input": "x",
        "edges": {"n": n, "low": low, "high": high},
        "content": [float(i) for i in range(n)],
        "flow": "clamp",
    }
    correction = {
        "name": "bin",
        "version": 1,
        "inputs": [{"name": "x", "type": "real"}],
        "output": {"name": "bin", "type": "real"},
        "data": node,
    }
    text = json.dumps({"schema_version": 2, "corrections": [correction]})
    bins = correctionlib.CorrectionSet.from_string(text)["bin"]
    wanted = np.arange(1, n)
    middle = np.linspace(low, high, n + 1)[1:-1]
    below, edges = middle - (high - low) / (2 * n), middle + (high - low) / (2 * n)
    for _ in range(_HALVINGS):
        middle = below / 2 + edges / 2
        inside = np.asarray(bins.evaluate(middle)) >= wanted
        below, edges = np.where(inside, below, middle), np.where(inside, middle, edges)
    return [low, *edges.tolist(), high]


def _grid(evaluator: Any, axes: Mapping[str, Any], where: str) -> Float64:
    """Evaluate a point in each bin; keys that are words go in one by one, correctionlib takes no arrays of them."""
    points = {name: _points(axis) for name, axis in axes.items()}
    words = [name for name in axes if isinstance(axes[name], tuple) and isinstance(axes[name][0], str)]
    numbers = [name for name in axes if name not in words]
    mesh = np.meshgrid(*[points[name] for name in numbers], indexing="ij")
    columns = {name: np.ascontiguousarray(grid).ravel() for name, grid in zip(numbers, mesh, strict=True)}
    values = np.empty([len(points[name]) for name in axes])
    for chosen in itertools.product(*[enumerate(points[name]) for name in words]):
        fixed = dict(zip(words, chosen, strict=True))
        arguments = {name: word for name, (_, word) in fixed.items()} | columns
        cell = tuple(fixed[name][0] if name in fixed else slice(None) for name in axes)
        ordered = [arguments[variable.name] for variable in evaluator.inputs]
        try:
            values[cell] = np.reshape(evaluator.evaluate(*ordered), values[cell].shape)
        except (IndexError, RuntimeError):
            raise _without_value(evaluator, ordered, where) from None
    return values


def _without_value(evaluator: Any, arguments: Sequence[Any], where: str) -> PayloadError:
    """Return the error that names the first point at which there is no value."""
    for row in zip(*np.broadcast_arrays(*arguments), strict=True):
        point = [number.item() for number in row]
        try:
            evaluator.evaluate(*point)
        except (IndexError, RuntimeError) as error:
            named = ", ".join(f"{v.name} = {x}" for v, x in zip(evaluator.inputs, point, strict=True))
            return PayloadError(
                f"A bin of the grid has no value: {named} ({error}).", code="missing-bins", where=where
            )
    return PayloadError("A bin of the grid has no value.", code="missing-bins", where=where)


def _points(axis: Any) -> Any:
    """Return a point in each bin, or the keys."""
    if isinstance(axis, tuple):
        return axis
    finite = axis[np.isfinite(axis)] if np.isfinite(axis).any() else np.zeros(1)
    beyond = np.maximum(np.abs(finite), 1.0)
    edges = np.clip(axis, finite[0] - beyond[0], finite[-1] + beyond[-1])
    return edges[:-1] / 2 + edges[1:] / 2
