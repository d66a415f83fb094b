"""Muon momentum resolution: (sigma_k / k)^2 = a^2 + c^2 / k^2 + b^2 / (1 + d^2 k^2) in 24 eta bins, k = 1/pT.

Where data is wider than simulation, k of simulated muons is smeared by a Gaussian of the difference in quadrature. The
covariance is that of (a^2, c^2, b^2), in which the square of the width is linear.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import Field

from binworks.corrections.payload import (
    ETA_EDGES_24,
    Document,
    check_covariance,
    check_edges,
    finite_array,
    read_document,
)
from binworks.corrections.sets import CorrectionSet
from binworks.tensors.errors import PayloadError
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel

KIND = "resolution"
LEAST_FACTOR = 0.1
"""Smearing multiplies k by no less, so that k stays positive; a smearing of 10 % would get there at nine widths."""


class ResolutionParameters(Document):
    """Parameters of one sample kind, 24 eta bins each."""

    a: list[float]
    b: list[float]
    c: list[float]
    d: list[float]


class ResolutionDocument(Document):
    """The payload."""

    schema_: Literal["binworks.resolution/2"] = Field(alias="schema")
    eta_edges: list[float]
    data: ResolutionParameters
    mc: ResolutionParameters
    covariance: list[list[float]]


class Resolution(NamedTuple):
    """What the kernel needs: a, b (dimensionless), c (1/GeV), d (GeV), each of shape (24,)."""

    a: Float64
    b: Float64
    c: Float64
    d: Float64


def load(corrections: CorrectionSet, *, is_data: bool) -> Resolution:
    """Return the parameters for data or simulation.

    Raises
    ------
    PayloadError
        If the payload is wrong or a width would be zero.
    """
    document, where = _read(corrections)
    source = document.data if is_data else document.mc
    tables = Resolution(
        *(finite_array(getattr(source, p), (24,), f"{where}: {p}") for p in ("a", "b", "c", "d"))
    )
    if (tables.a**2 + tables.b**2 + tables.c**2 == 0).any():
        raise PayloadError("The resolution is zero in a bin.", code="bad-payload", where=where)
    return tables


def load_covariance(corrections: CorrectionSet) -> Float64:
    """Return the covariance of (a^2, c^2, b^2), shape (72, 72): 24 bins each, in that order.

    Raises
    ------
    PayloadError
        If the payload is wrong.
    """
    document, where = _read(corrections)
    covariance = finite_array(document.covariance, (72, 72), f"{where}: covariance")
    check_covariance(covariance, f"{where}: covariance")
    return covariance


def _read(corrections: CorrectionSet) -> tuple[ResolutionDocument, str]:
    """Return the document, its edges checked, and where it stands."""
    document = read_document(ResolutionDocument, corrections, KIND, KIND)
    where = f"{corrections.name}/{KIND}"
    check_edges(document.eta_edges, ETA_EDGES_24, f"{where}: eta_edges")
    return document, where


def unknown() -> Resolution:
    """Return a flat 1 % resolution, for jobs without a payload."""
    ones = finite_array([1.0] * 24, (24,), "unknown")
    return Resolution(0.01 * ones, 0.0 * ones, 0.0 * ones, 0.0 * ones)


@kernel
def relative_width(k: float, eta_bin: int, resolution: Any) -> float:
    """Return sigma_k / k at k = 1/pT (1/GeV) in one of the 24 bins."""
    a, b, c, d = resolution.a[eta_bin], resolution.b[eta_bin], resolution.c[eta_bin], resolution.d[eta_bin]
    return float((a * a + (c / k) ** 2 + b * b / (1.0 + (d * k) ** 2)) ** 0.5)


@kernel
def extra_width(k: float, eta_bin: int, data: Any, simulation: Any) -> float:
    """Return by how much data is wider than simulation, in quadrature and relative to k; 0 where it is not.

    0 outside the eta bins, too (``eta_bin`` below 0): there the resolution is not known.
    """
    if eta_bin < 0:
        return 0.0
    wide = relative_width(k, eta_bin, data)
    narrow = relative_width(k, eta_bin, simulation)
    return float(max(0.0, wide * wide - narrow * narrow) ** 0.5)


@kernel
def smeared_k(k: float, extra: float, g: float) -> float:
    """Return k (1 + extra g) for a standard normal g, at least `LEAST_FACTOR` of k."""
    return float(k * max(1.0 + extra * g, LEAST_FACTOR))
