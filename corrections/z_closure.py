"""How well the momentum scale closes on Z -> mu mu: the covariance of what is left over, in 24 eta bins.

What is left over has the form of the scale itself, dk/k = A - e k + q M / k with k = 1/pT, but leaves the energy loss e
alone. The uncertainty of the Z mass, to which the closure is tied, moves all A together.
"""

from __future__ import annotations

from typing import Literal

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

KIND = "z_closure"


class ClosureDocument(Document):
    """The payload."""

    schema_: Literal["binworks.z_closure/1"] = Field(alias="schema")
    eta_edges: list[float]
    covariance: list[list[float]]
    mz_shift: float


def load(corrections: CorrectionSet) -> tuple[Float64, float]:
    """Return the covariance, shape (72, 72) in the order A, e, M, and the shift of A by the Z mass's uncertainty.

    Raises
    ------
    PayloadError
        If the payload is wrong, or if e is not zero in the covariance.
    """
    document = read_document(ClosureDocument, corrections, KIND, KIND)
    where = f"{corrections.name}/{KIND}"
    check_edges(document.eta_edges, ETA_EDGES_24, f"{where}: eta_edges")
    covariance = finite_array(document.covariance, (72, 72), f"{where}: covariance")
    check_covariance(covariance, f"{where}: covariance")
    if covariance[24:48].any() or covariance[:, 24:48].any():
        raise PayloadError(
            "Rows and columns 24 to 47, of e, must be zero.",
            code="bad-covariance",
            where=f"{where}: covariance",
        )
    return covariance, float(finite_array(document.mz_shift, (), f"{where}: mz_shift"))
