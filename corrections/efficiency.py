"""Muon efficiency scale factors, data over simulation, of the five steps of a muon and of the veto.

Within each (eta, charge) bin a factor is a polynomial: SF = sum_k c_k x^i y^j with x = 2 (pT - low) / (high - low) - 1
and y likewise from uT, the projection of the boson's transverse momentum on the muon's direction. k is i for the steps
that know pT only, and 3 i + j (i < 4, j < 3) for trigger and isolation. Both x and y are clipped to [-1, 1].

A muon that *fails* a step has the factor (1 - SF e) / (1 - e), with e the efficiency in simulation, so that muons which
pass and muons which fail together stay as many as they were: the step of the anti-isolated muon, and of the second
muon of a Z that the veto lost.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
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
COEFFICIENTS = {"reco": 4, "tracking": 3, "idip": 4, "trigger": 12, "iso": 12, "veto": 4}
"""Steps known, and how many coefficients each has."""
STEPS = ("reco", "tracking", "idip", "trigger", "iso")
"""Those whose product weights the selected muon."""
ETA_BINS = 48
UT_POWERS = 3
WITH_UT = 12
"""The number of coefficients of a step that knows uT: four powers of pT times three of uT."""
GRID_POINTS = 33
"""Points a direction at which a loader looks for impossible efficiencies."""

Coefficients = list[list[list[float]]]
Alternative = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class EfficiencyDocument(Document):
    """The payload of one step."""

    schema_: Literal["binworks.efficiency/2"] = Field(alias="schema")
    step: str
    eta_edges: list[float]
    charges: list[int]
    pt_range: tuple[float, float]
    ut_range: tuple[float, float] | None
    coefficients: Coefficients
    covariance: list[list[list[list[float]]]]
    simulated: Coefficients | None
    alternatives: dict[Alternative, Coefficients]


class Efficiency(NamedTuple):
    """What the kernels need of a step, of one type for all steps.

    The range in pT and uT (GeV; -1 to 1 where uT is not known); coefficients and the efficiency in simulation of shape
    (48 eta, 2 charges, n), the latter zero where no muon can fail; alternative coefficients of shape
    (alternatives, 48, 2, n). Factors without charge are there twice.
    """

    low: float
    high: float
    ut_low: float
    ut_high: float
    coefficients: Float64
    simulated: Float64
    alternatives: Float64


class Loaded(NamedTuple):
    """A step: what the kernels need, the covariance of shape (48, charges, n, n), the names of the alternatives."""

    efficiency: Efficiency
    covariance: Float64
    alternatives: tuple[str, ...]


def load(corrections: CorrectionSet, step: str) -> Loaded:
    """Return the scale factors of a step; the covariance has one charge for isolation, else two.

    Raises
    ------
    PayloadError
        If the payload is wrong, or if it makes an efficiency that is not between 0 and 1.
    """
    name = f"efficiency_{step}"
    where = f"{corrections.name}/{name}"
    document = read_document(EfficiencyDocument, corrections, name, KIND)
    charges = _check_form(document, step, where)
    shape = (ETA_BINS, charges, COEFFICIENTS[step])
    coefficients = finite_array(document.coefficients, shape, f"{where}: coefficients")
    covariance = finite_array(document.covariance, (*shape, shape[-1]), f"{where}: covariance")
    check_covariance(covariance, f"{where}: covariance")
    simulated = np.zeros(shape)
    if document.simulated is not None:
        simulated = finite_array(document.simulated, shape, f"{where}: simulated")
        _check_simulated(simulated, f"{where}: simulated")
    alternatives = {
        key: finite_array(values, shape, f"{where}: alternatives.{key}")
        for key, values in document.alternatives.items()
    }
    factors = {"coefficients": coefficients}
    factors |= {f"alternatives.{key}": values for key, values in alternatives.items()}
    for field, values in factors.items():
        _check_factors(values, simulated, f"{where}: {field}")
    efficiency = Efficiency(
        *document.pt_range,
        *(document.ut_range or (-1.0, 1.0)),
        _both_charges(coefficients),
        _both_charges(simulated),
        _both_charges(np.array(list(alternatives.values())).reshape(-1, *shape)),
    )
    return Loaded(efficiency, covariance, tuple(alternatives))


def identity(step: str) -> Efficiency:
    """Return scale factors that are 1 everywhere, for muons that pass and for those that fail."""
    shape = (ETA_BINS, 2, COEFFICIENTS[step])
    coefficients = np.zeros(shape)
    coefficients[..., 0] = 1.0
    return Efficiency(26.0, 60.0, -1.0, 1.0, coefficients, np.zeros(shape), np.zeros((0, *shape)))


@kernel
def fill_basis(pt: float, ut: float, step: Any, out: Float64) -> int:
    """Write the monomials x^i y^j at pT and uT (GeV) into the front of ``out`` and return how many there are.

    Outside its range a number counts as the border; uT that is not a number makes a step that knows uT not a number.
    """
    n = step.coefficients.shape[2]
    x = _unit(pt, step.low, step.high)
    y = _unit(ut, step.ut_low, step.ut_high)
    powers = UT_POWERS if n == WITH_UT else 1
    row = 1.0
    for i in range(n // powers):
        value = row
        for j in range(powers):
            out[i * powers + j] = value
            value *= y
        row *= x
    return int(n)


@kernel
def scale_factor(basis: Float64, eta_bin: int, charge_bin: int, step: Any) -> float:
    """Return SF of a muon that passes the step."""
    return _polynomial(basis, step.coefficients[eta_bin, charge_bin])


@kernel
def failing_factor(basis: Float64, eta_bin: int, charge_bin: int, step: Any) -> tuple[float, float]:
    """Return (1 - SF e) / (1 - e) of a muon that fails the step, and its derivative with respect to SF."""
    factor = _polynomial(basis, step.coefficients[eta_bin, charge_bin])
    simulated = _polynomial(basis, step.simulated[eta_bin, charge_bin])
    return (1.0 - factor * simulated) / (1.0 - simulated), -simulated / (1.0 - simulated)


@kernel
def alternative_factor(a: int, basis: Float64, eta_bin: int, charge_bin: int, step: Any) -> float:
    """Return what alternative ``a`` has in the place of `scale_factor`."""
    return _polynomial(basis, step.alternatives[a, eta_bin, charge_bin])


@kernel
def failing_alternative(a: int, basis: Float64, eta_bin: int, charge_bin: int, step: Any) -> float:
    """Return what alternative ``a`` has in the place of `failing_factor`; the simulation is the same."""
    factor = _polynomial(basis, step.alternatives[a, eta_bin, charge_bin])
    simulated = _polynomial(basis, step.simulated[eta_bin, charge_bin])
    return (1.0 - factor * simulated) / (1.0 - simulated)


@kernel
def _unit(value: float, low: float, high: float) -> float:
    x = 2.0 * (np.float64(value) - low) / (high - low) - 1.0
    if x < -1.0:
        return -1.0
    if x > 1.0:
        return 1.0
    return x


@kernel
def _polynomial(basis: Float64, row: Float64) -> float:
    total: float = 0.0
    for k in range(len(row)):
        total += row[k] * basis[k]
    return total


def _check_form(document: EfficiencyDocument, step: str, where: str) -> int:
    """Refuse what does not belong to the step; return the number of charges."""
    if document.step != step:
        raise PayloadError(
            f"The payload is for step {document.step!r}, expected {step!r}.", code="bad-payload", where=where
        )
    check_edges(document.eta_edges, ETA_EDGES_48, f"{where}: eta_edges")
    charges = [0] if step == "iso" else [-1, 1]
    if document.charges != charges:
        raise PayloadError(
            f"charges must be {charges} for step {step!r}, got {document.charges}.",
            code="wrong-axes",
            where=f"{where}: charges",
        )
    for name, found, wanted in (
        ("ut_range", document.ut_range, COEFFICIENTS[step] == WITH_UT),
        ("simulated", document.simulated, step in ("iso", "veto")),
    ):
        if (found is not None) != wanted:
            raise PayloadError(
                f"{name} must {'be given' if wanted else 'be null'} for step {step!r}.",
                code="bad-payload",
                where=f"{where}: {name}",
            )
    low, high = document.pt_range
    ut_low, ut_high = document.ut_range or (-1.0, 1.0)
    if not 0 < low < high < np.inf:
        raise PayloadError(f"pt_range must rise, got {low} to {high}.", code="bad-payload", where=where)
    if not -np.inf < ut_low < ut_high < np.inf:
        raise PayloadError(f"ut_range must rise, got {ut_low} to {ut_high}.", code="bad-payload", where=where)
    return len(charges)


def _check_simulated(simulated: Float64, where: str) -> None:
    values = _on_grid(simulated)
    if values.min() <= 0 or values.max() >= 1:
        raise PayloadError(
            f"The efficiency in simulation must lie between 0 and 1, but runs from {values.min():.6g} to "
            f"{values.max():.6g}.",
            code="bad-payload",
            where=where,
        )


def _check_factors(coefficients: Float64, simulated: Float64, where: str) -> None:
    factors = _on_grid(coefficients)
    if factors.min() <= 0:
        raise PayloadError(
            f"A scale factor must be positive, but falls to {factors.min():.6g}.",
            code="bad-payload",
            where=where,
        )
    largest = (factors * _on_grid(simulated)).max()
    if largest >= 1:
        raise PayloadError(
            f"Scale factor times simulated is the efficiency in data and must be below 1, but rises to {largest:.6g}.",
            code="bad-payload",
            where=where,
        )


def _on_grid(coefficients: Float64) -> Float64:
    """Return the polynomials, shape (48, charges, n), at points all over the range: (48, charges, points)."""
    n = coefficients.shape[-1]
    x = np.linspace(-1.0, 1.0, GRID_POINTS)
    if n == WITH_UT:
        basis = np.polynomial.polynomial.polyvander2d(
            *np.meshgrid(x, x), [n // UT_POWERS - 1, UT_POWERS - 1]
        ).reshape(-1, n)
    else:
        basis = np.polynomial.polynomial.polyvander(x, n - 1)
    values: Float64 = coefficients @ basis.T
    return values


def _both_charges(values: Float64) -> Float64:
    """Return the array with two charges in the last but one axis."""
    return np.ascontiguousarray(np.repeat(values, 2, axis=-2) if values.shape[-2] == 1 else values)
