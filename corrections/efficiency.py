"""Muon efficiency scale factors, smooth in pT within each (eta, charge) bin: SF = sum_j c_j x^j.

x = 2 (pT - low) / (high - low) - 1 runs over [-1, 1]; pT is clipped to the payload's range. The coefficients carry a
covariance per bin, from the fit to the tag-and-probe efficiencies.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import Field

from binworks.corrections.payload import (
    ETA_EDGES_48,
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

KIND = "efficiency"
COEFFICIENTS = {"idip": 4}
"""Steps known, and how many coefficients each has."""


class EfficiencyDocument(Document):
    """The payload of one step."""

    schema_: Literal["binworks.efficiency/1"] = Field(alias="schema")
    step: str
    eta_edges: list[float]
    charges: tuple[Literal[-1], Literal[1]]
    pt_range: tuple[float, float]
    coefficients: list[list[list[float]]]
    covariance: list[list[list[list[float]]]]


class Efficiency(NamedTuple):
    """What the kernel needs: pT range (GeV) and coefficients of shape (48 eta, 2 charges, coefficients)."""

    low: float
    high: float
    coefficients: Float64


def load(corrections: CorrectionSet, step: str) -> tuple[Efficiency, Float64]:
    """Return the scale factors of a step and the covariance, shape (48, 2, n, n).

    Raises
    ------
    PayloadError
        If the payload is wrong.
    """
    name = f"efficiency_{step}"
    document = read_document(EfficiencyDocument, corrections, name, KIND)
    where = f"{corrections.name}/{name}"
    if document.step != step:
        raise PayloadError(
            f"The payload is for step {document.step!r}, expected {step!r}.", code="bad-payload", where=where
        )
    low, high = document.pt_range
    if not 0 < low < high:
        raise PayloadError(f"pt_range must rise, got {low} to {high}.", code="bad-payload", where=where)
    check_edges(document.eta_edges, ETA_EDGES_48, f"{where}: eta_edges")
    n = COEFFICIENTS[step]
    coefficients = finite_array(document.coefficients, (48, 2, n), f"{where}: coefficients")
    covariance = finite_array(document.covariance, (48, 2, n, n), f"{where}: covariance")
    check_covariance(covariance, f"{where}: covariance")
    return Efficiency(low, high, coefficients), covariance


def identity(step: str) -> Efficiency:
    """Return scale factors that are 1 everywhere."""
    coefficients = finite_array(
        [[[1.0] + [0.0] * (COEFFICIENTS[step] - 1)] * 2] * 48, (48, 2, COEFFICIENTS[step]), "identity"
    )
    return Efficiency(26.0, 56.0, coefficients)


@kernel
def scaled_pt(pt: float, efficiency: Any) -> float:
    """Return x in [-1, 1] for pT (GeV), clipped to the payload's range."""
    x = 2.0 * (pt - efficiency.low) / (efficiency.high - efficiency.low) - 1.0
    return float(min(max(x, -1.0), 1.0))


@kernel
def scale_factor(x: float, eta_bin: int, charge_bin: int, efficiency: Any) -> float:
    """Return the scale factor at x in one (eta, charge) bin."""
    row = efficiency.coefficients[eta_bin, charge_bin]
    total: float = 0.0
    for j in range(len(row) - 1, -1, -1):
        total = total * x + row[j]
    return float(total)
