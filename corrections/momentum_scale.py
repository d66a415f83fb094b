"""Muon momentum scale: k = 1/pT is corrected by dk/k = A - e k + q M / k in 48 eta bins.

A is the magnetic field, e the energy loss (GeV), M the misalignment (1/GeV). The payload holds what is *applied* to
the measured k, for data and for simulation, and the 144 x 144 covariance of (A, e, M) from the J/psi calibration.
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
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel

KIND = "momentum_scale"


class ScaleParameters(Document):
    """Parameters of one sample kind, 48 eta bins each."""

    A: list[float]
    e: list[float]
    M: list[float]


class ScaleDocument(Document):
    """The payload."""

    schema_: Literal["binworks.momentum_scale/1"] = Field(alias="schema")
    eta_edges: list[float]
    data: ScaleParameters
    mc: ScaleParameters
    covariance: list[list[float]]


class MomentumScale(NamedTuple):
    """What the kernel needs: A, e (GeV), M (1/GeV), each of shape (48,)."""

    A: Float64
    e: Float64
    M: Float64


def load(corrections: CorrectionSet, *, is_data: bool) -> tuple[MomentumScale, Float64]:
    """Return the parameters for data or simulation and the covariance, shape (144, 144) in the order A, e, M.

    Raises
    ------
    PayloadError
        If the payload is wrong.
    """
    document = read_document(ScaleDocument, corrections, KIND, KIND)
    where = f"{corrections.name}/{KIND}"
    check_edges(document.eta_edges, ETA_EDGES_48, f"{where}: eta_edges")
    covariance = finite_array(document.covariance, (144, 144), f"{where}: covariance")
    check_covariance(covariance, f"{where}: covariance")
    source = document.data if is_data else document.mc
    tables = [finite_array(getattr(source, p), (48,), f"{where}: {p}") for p in ("A", "e", "M")]
    return MomentumScale(*tables), covariance


def identity() -> MomentumScale:
    """Return parameters that change nothing."""
    return MomentumScale(*finite_array([[0.0] * 48] * 3, (3, 48), "identity"))


@kernel
def corrected_pt(pt: float, eta_bin: int, charge: int, scale: Any) -> float:
    """Return pT (GeV) after k -> k (1 + A - e k + q M / k); unchanged outside the eta bins."""
    if eta_bin < 0:
        return pt
    k = 1.0 / pt
    return float(pt / (1.0 + scale.A[eta_bin] - scale.e[eta_bin] * k + charge * scale.M[eta_bin] / k))
