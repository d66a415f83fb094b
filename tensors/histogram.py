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
        empty = hist.Hist(
            *self.axes, storage=hist.storage.Weight() if self.variances is not None else hist.storage.Double()
        )
        described: dict[str, Any] = serialization.to_uhi(empty)
        described["axes"] = [_plain(axis) for axis in described["axes"]]
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
        storage = {"type": described["storage"]["type"], "values": values}
        if variances is not None:
            storage["variances"] = variances
        plain = {
            **described,
            "axes": [_infinite_edges(axis) for axis in described["axes"]],
            "storage": storage,
        }
        axes = tuple(hist.Hist(serialization.from_uhi(plain)).axes)
        return cls(axes, values, variances, dict(described.get("metadata") or {}))

    def check_like(self, other: Histogram, name: str) -> None:
        """Refuse a sum with a histogram of other axes or another storage.

        Raises
        ------
        ConflictError
            Naming the histogram and both shapes.
        """
        if self.axes != other.axes or (self.variances is None) != (other.variances is None):
            raise ConflictError(
                f"Histogram {name!r} cannot be summed: one part has axes {self.axes!r}, another {other.axes!r}.",
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
