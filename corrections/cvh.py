"""Corrections of the continuous variable helix fit: (q/p, lambda, phi) of a muon moves by J x.

x are global parameters of alignment, magnetic field and material, the same for all muons. The file has, per muon, the
indices of the parameters that its track sees and the jacobian J of its momentum with respect to them.
lambda = pi/2 - theta is the dip angle; q/p is in 1/GeV, angles are in radians.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from binworks.corrections.payload import Document, finite_array, read_document
from binworks.corrections.sets import CorrectionSet
from binworks.tensors.errors import PayloadError
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import delta_phi

KIND = "cvh"


class CvhDocument(Document):
    """The payload."""

    schema_: Literal["binworks.cvh/1"] = Field(alias="schema")
    data: list[float]
    mc: list[float]


class Parameters(NamedTuple):
    """What the kernel needs, as ``x``: the global parameters by index, shape (n,); none at all changes nothing."""

    x: Float64


def load(corrections: CorrectionSet, *, is_data: bool) -> Parameters:
    """Return the parameters for data or simulation.

    Raises
    ------
    PayloadError
        If the payload is wrong, empty, or not of one length for data and simulation.
    """
    document = read_document(CvhDocument, corrections, KIND, KIND)
    where = f"{corrections.name}/{KIND}"
    size = len(document.data)
    if size == 0:
        raise PayloadError("There are no parameters.", code="bad-payload", where=f"{where}: data")
    tables = {
        "data": finite_array(document.data, (size,), f"{where}: data"),
        "mc": finite_array(document.mc, (size,), f"{where}: mc"),
    }
    return Parameters(tables["data" if is_data else "mc"])


def identity() -> Parameters:
    """Return parameters that change nothing."""
    return Parameters(np.zeros(0))


@kernel
def corrected(
    pt: float, eta: float, phi: float, charge: int, jacobian: Any, indices: Any, x: Float64
) -> tuple[float, float, float, int]:
    """Return pT (GeV), eta, phi and charge of a muon after (q/p, lambda, phi) += J x.

    ``indices`` has shape (n,), ``jacobian`` (3 n,): a row for q/p, one for lambda, one for phi. What does not move
    comes back bit for bit; the charge flips if q/p changes its sign. pT, eta and phi are not a number if an index is
    not in the table, if the jacobian has another length, or if lambda would leave (-pi/2, pi/2).
    """
    pt, eta, phi, charge = np.float64(pt), np.float64(eta), np.float64(phi), int(charge)
    n = len(indices)
    if len(x) == 0 or n == 0:
        return pt, eta, phi, charge
    if len(jacobian) != 3 * n:
        return np.nan, np.nan, np.nan, charge
    curvature = 0.0
    dip = 0.0
    turn = 0.0
    for j in range(n):
        index = indices[j]
        if index < 0 or index >= len(x):
            return np.nan, np.nan, np.nan, charge
        curvature += np.float64(jacobian[j]) * x[index]
        dip += np.float64(jacobian[n + j]) * x[index]
        turn += np.float64(jacobian[2 * n + j]) * x[index]
    if turn != 0.0:
        phi = delta_phi(phi + turn, 0.0)
    if curvature != 0.0 or dip != 0.0:
        pt, eta, charge = _moved(pt, eta, charge, curvature, dip)
        if np.isnan(pt):
            return np.nan, np.nan, np.nan, charge
    return pt, eta, phi, charge


@kernel
def _moved(pt: float, eta: float, charge: int, curvature: float, dip: float) -> tuple[float, float, int]:
    """Return pT, eta and charge after q/p += curvature and lambda += dip."""
    angle = math.atan(math.sinh(eta)) + dip
    if not abs(angle) < 0.5 * math.pi:
        return np.nan, np.nan, charge
    moved = charge / (pt * math.cosh(eta)) + curvature
    flipped = charge if moved * charge >= 0.0 else -charge
    return float(math.cos(angle) / abs(moved)), math.asinh(math.tan(angle)) if dip != 0.0 else eta, flipped
