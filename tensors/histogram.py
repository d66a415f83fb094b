"""One named histogram: axes, sums of weights, and (where kept) sums of squared weights.

The arrays include the flow bins of the axes that have them, so that a `Histogram` and a `hist.Hist` hold the same
numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import boost_histogram.serialization as serialization
import hist
import numpy as np
from numpy.typing import NDArray

from binworks.tensors.errors import ConflictError

Float64 = NDArray[np.float64]
LARGEST = float(np.finfo(np.float64).max)
"""Stands for infinity in JSON, which has none; any reader then bins every finite value alike."""


@dataclass
class Histogram:
    """Sums of weights over a grid of cells.

    Parameters
    ----------
    axes : tuple of hist axes
        Named axes; the name is unique within the histogram.
    values : array, shape = extents of the axes (flow bins included)
        Sum of weights.
    variances : array of the same shape, or None
        Sum of squared weights.
    metadata : mapping
        Small JSON-able facts (label, unit, what the values are).
    """

    axes: tuple[Any, ...]
    values: Float64
    variances: Float64 | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def zeros(
        cls, axes: Iterable[Any], *, variances: bool = False, metadata: Mapping[str, Any] | None = None
    ) -> Histogram:
        """Return an empty histogram over the axes."""
        axes = tuple(axes)
        shape = tuple(axis.extent for axis in axes)
        return cls(axes, np.zeros(shape), np.zeros(shape) if variances else None, dict(metadata or {}))

    @classmethod
    def from_hist(cls, h: hist.Hist) -> Histogram:
        """Return the same sums as a plain `hist.Hist` (Double, Weight or integer storages)."""
        view = h.view(flow=True)
        if view.dtype.names and set(view.dtype.names) == {"value", "variance"}:
            return cls(tuple(h.axes), np.array(view["value"], float), np.array(view["variance"], float))
        if view.dtype.names:
            raise ConflictError(
                f"A histogram with storage {h.storage_type.__name__} cannot be summed bin by bin.",
                code="storage",
            )
        return cls(tuple(h.axes), np.array(view, float))

    def to_hist(self) -> hist.Hist:
        """Return a `hist.Hist` with Weight storage, or Double where no variances are kept."""
        weighted = self.variances is not None
        h = hist.Hist(*self.axes, storage=hist.storage.Weight() if weighted else hist.storage.Double())
        if weighted:
            h.view(flow=True)["value"] = self.values
            h.view(flow=True)["variance"] = self.variances
        else:
            h.view(flow=True)[...] = self.values
        return h

    def axis(self, name: str) -> int:
        """Return the position of the axis of that name."""
        return [axis.name for axis in self.axes].index(name)

    def uhi(self) -> dict[str, Any]:
        """Return the UHI schema v1 description; arrays are named ``values`` and ``variances`` relative to it."""
        storage = hist.storage.Double() if self.variances is None else hist.storage.Weight()
        one = hist.axis.Integer(
            0, 1, flow=False
        )  # never all axes at once: the sums would be held a second time
        described: dict[str, Any] = serialization.to_uhi(hist.Hist(one, storage=storage))
        alone = (serialization.to_uhi(hist.Hist(axis, storage=storage))["axes"] for axis in self.axes)
        described["axes"] = [_plain(axis) for (axis,) in alone]
        described["metadata"] = {**_plain(described.get("metadata") or {}), **self.metadata}
        described["storage"] = {"type": described["storage"]["type"], "values": "values"}
        if self.variances is not None:
            described["storage"]["variances"] = "variances"
        return described

    @classmethod
    def from_uhi(
        cls, described: Mapping[str, Any], values: Float64, variances: Float64 | None = None
    ) -> Histogram:
        """Return the histogram that `uhi` described, with its arrays given."""
        axes = axes_of(described)
        extents = tuple(axis.extent for axis in axes)
        if np.shape(values) != extents:
            raise ValueError(f"the sums have the shape {np.shape(values)}, the axes {extents}")
        return cls(axes, values, variances, dict(described.get("metadata") or {}))

    def copy(self) -> Histogram:
        """Return a copy with arrays of its own."""
        variances = None if self.variances is None else self.variances.copy()
        return Histogram(self.axes, self.values.copy(), variances, dict(self.metadata))

    def add(self, other: Histogram, name: str) -> Histogram:
        """Add another's sums; return self, or a larger one if the other has categories that self lacks.

        Raises
        ------
        ConflictError
            ``axes-differ``, naming the histogram, if axes that are not categories or the storage differ.
        """
        if (self.variances is None) != (other.variances is None):
            raise _axes_differ(name, self, other)
        if self.axes != other.axes:
            axes = _union(self, other, name)
            return self._on(axes).add(other._on(axes), name)
        self.values += other.values
        if self.variances is not None and other.variances is not None:
            self.variances += other.variances
        return self

    def _on(self, axes: tuple[Any, ...]) -> Histogram:
        """Return the same sums over axes that have more categories."""
        out = Histogram.zeros(axes, variances=self.variances is not None, metadata=self.metadata)
        places = np.ix_(*[_places(old, new) for old, new in zip(self.axes, axes, strict=True)])
        out.values[places] = self.values
        if out.variances is not None:
            out.variances[places] = self.variances
        return out


def axes_of(described: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the axes that a UHI description has; the sums need not be there."""
    return tuple(map(_axis_of, described["axes"]))


def _axis_of(described: Mapping[str, Any]) -> Any:
    empty = {"type": "double", "values": np.zeros(_extent(described))}
    alone = {"uhi_schema": 1, "axes": [_infinite_edges(described)], "storage": empty, "metadata": {}}
    return hist.Hist(serialization.from_uhi(alone)).axes[0]


def _extent(described: Mapping[str, Any]) -> int:
    """Return the number of bins of an axis, flow bins included."""
    if described["type"] == "boolean":
        return 2
    if described["type"].startswith("category"):
        return len(described["categories"]) + bool(described["flow"])
    flow = bool(described["overflow"]) + bool(described["underflow"])
    return flow + (described["bins"] if described["type"] == "regular" else len(described["edges"]) - 1)


_CATEGORIES = (hist.axis.StrCategory, hist.axis.IntCategory)


def _union(one: Histogram, other: Histogram, name: str) -> tuple[Any, ...]:
    """Return the axes with the categories of both: those of the first, then the new ones as they come."""
    if [axis.name for axis in one.axes] != [axis.name for axis in other.axes]:
        raise _axes_differ(name, one, other)
    axes = []
    for mine, theirs in zip(one.axes, other.axes, strict=True):
        if mine == theirs:
            axes.append(mine)
        elif type(mine) is type(theirs) and isinstance(mine, _CATEGORIES) and _flow(mine) == _flow(theirs):
            keys = dict.fromkeys([*mine, *theirs])
            axes.append(type(mine)(list(keys), name=mine.name, label=mine.label, overflow=_flow(mine)))
        else:
            raise _axes_differ(name, one, other)
    return tuple(axes)


def _flow(axis: Any) -> bool:
    return bool(axis.traits.overflow)


def _places(old: Any, new: Any) -> NDArray[np.int64]:
    """Return where each bin of the old axis, flow included, stands on the new one."""
    if old == new:
        return np.arange(old.extent)
    places = [new.index(key) for key in old]
    return np.array([*places, new.extent - 1] if _flow(old) else places, np.int64)


def _axes_differ(name: str, one: Histogram, other: Histogram) -> ConflictError:
    return ConflictError(
        f"Histogram {name!r} cannot be summed: one part has axes {one.axes!r}, another {other.axes!r}.",
        code="axes-differ",
    )


def _plain(value: Any) -> Any:
    """Turn arrays into lists and infinities into the largest float, so that the description is JSON."""
    if isinstance(value, np.ndarray):
        return np.nan_to_num(value, posinf=LARGEST, neginf=-LARGEST).tolist()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _infinite_edges(axis: Mapping[str, Any]) -> dict[str, Any]:
    """Undo what `_plain` did to infinite edges."""
    if axis["type"] != "variable":
        return dict(axis)
    edges = np.array(axis["edges"], float)
    return {**axis, "edges": np.where(np.abs(edges) >= LARGEST, np.copysign(np.inf, edges), edges)}
