"""Payloads of muon efficiencies: scale factors of each step and of the veto, as tag and probe would find them.

Their central values lie off the truth by one draw from their covariance; alternatives are shifted by 0.1 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from binworks.samples.arrays import Float64
from binworks.samples.documents import fluctuated, numbers, stream
from binworks.samples.efficiency import WITH_UT, EfficiencyCurve, monomials
from binworks.samples.truth import ETA_EDGES, Truth

ALTERNATIVES = {
    "reco": ("syst", "altBkg"),
    "tracking": ("syst", "altBkg"),
    "idip": ("syst",),
    "trigger": ("syst",),
    "iso": ("syst",),
    "veto": ("reco", "tracking", "idip"),
}
ERRORS = {"reco": 0.001, "tracking": 0.0005, "idip": 0.0015, "trigger": 0.002, "iso": 0.001, "veto": 0.0004}
"""Of the efficiency in one of ten bins of pT, at eta = 0."""
VETO_STEPS = ("tracking", "reco")
"""What a muon needs so that the veto sees it."""
VETO_RANGE = (15.0, 60.0)
_VETO_POWERS = 4
_SHIFT = 1e-3
_BINS, _UT_BINS = 10, 5


def efficiency(step: str, truth: Truth) -> dict[str, Any]:
    """Return the payload of one step."""
    source = truth.efficiency[step]
    exact = np.asarray(source.coefficients)
    with_ut = exact.shape[2] == WITH_UT
    simulated = None
    if step == "iso":
        simulated = _fitted(truth, (step,), exact.shape[1:], source.pt_range, source.ut_range, scaled=False)
    return _document(
        step,
        truth,
        exact if truth.has(f"efficiency_{step}") else None,
        exact.shape,
        simulated,
        pt_range=list(source.pt_range),
        ut_range=list(source.ut_range) if with_ut else None,
    )


def veto(truth: Truth) -> dict[str, Any]:
    """Return the factors for the muon that the veto misses: one without a track, or unseen by the muon chambers."""
    shape, limits = (2, _VETO_POWERS), truth.efficiency[VETO_STEPS[0]].ut_range
    simulated = _fitted(truth, VETO_STEPS, shape, VETO_RANGE, limits, scaled=False)
    exact = None
    if any(truth.has(f"efficiency_{step}") for step in VETO_STEPS):
        exact = _fitted(truth, VETO_STEPS, shape, VETO_RANGE, limits, scaled=True)
    return _document(
        "veto", truth, exact, simulated.shape, simulated, pt_range=list(VETO_RANGE), ut_range=None
    )


def polynomial_covariance(step: str, charges: int, n: int) -> Float64:
    """Return the covariance of a fit to ten bins of pT, and five of uT, shape (48, charges, n, n)."""
    x = np.linspace(-0.9, 0.9, _BINS)
    y = np.linspace(-0.8, 0.8, _UT_BINS) if n == WITH_UT else np.zeros(1)
    grid = np.meshgrid(x, y, indexing="ij")
    basis = monomials(grid[0].ravel(), grid[1].ravel(), n)
    eta = np.abs((ETA_EDGES[:-1] + ETA_EDGES[1:]) / 2)
    error = ERRORS[step] * (1 + eta / 2.4) * np.sqrt(len(y))
    unit = np.linalg.inv(basis.T @ basis)
    unit = (unit + unit.T) / 2
    return np.broadcast_to(error[:, None, None, None] ** 2 * unit, (48, charges, n, n))


def _document(
    step: str,
    truth: Truth,
    exact: Float64 | None,
    shape: tuple[int, ...],
    simulated: Float64 | None,
    **ranges: Any,
) -> dict[str, Any]:
    """Return a payload; without an effect (``exact`` None) the factors are 1."""
    rng = stream(truth, f"efficiency_{step}")
    covariance = polynomial_covariance(step, *shape[1:])
    central = np.zeros(shape)
    central[:, :, 0] = 1.0
    if exact is not None:
        central = fluctuated(exact, covariance, rng)
    sizes = _SHIFT / np.arange(1, shape[2] + 1)
    shifts = {name: sizes * rng.uniform(-1, 1, shape) for name in ALTERNATIVES[step]}
    return {
        "schema": "binworks.efficiency/2",
        "step": step,
        "eta_edges": ETA_EDGES.tolist(),
        "charges": [-1, 1] if shape[1] > 1 else [0],
        **ranges,
        "coefficients": numbers(central),
        "covariance": numbers(covariance),
        "simulated": None if simulated is None else numbers(simulated),
        "alternatives": {name: numbers(central + shift) for name, shift in shifts.items()},
    }


def _fitted(
    truth: Truth,
    steps: Sequence[str],
    shape: tuple[int, ...],
    pt_range: tuple[float, float],
    ut_range: tuple[float, float],
    *,
    scaled: bool,
) -> Float64:
    """Return the polynomials nearest to a product of steps, shape (48, charges, n).

    The product is that of the efficiencies in simulation, or (``scaled``) of the scale factors that are an effect.
    """
    charges, n = shape
    x, y = np.linspace(-1, 1, 41), np.linspace(-1, 1, 9) if n == WITH_UT else np.zeros(1)
    x, y = (axis.ravel() for axis in np.meshgrid(x, y, indexing="ij"))
    pt, ut = (between(axis, limits) for axis, limits in ((x, pt_range), (y, ut_range)))
    result = np.zeros((48, charges, n))
    for eta_bin, row in np.ndindex(48, charges):
        product = np.ones(len(x))
        for step in steps:
            curve = EfficiencyCurve(truth.efficiency[step], scaled=False)
            arguments = (pt, np.full(len(x), eta_bin), np.full(len(x), 2 * row - 1), ut)
            if not scaled:
                product = product * curve(*arguments)
            elif truth.has(f"efficiency_{step}"):
                product = product * curve.scale_factor(*arguments)
        result[eta_bin, row] = np.linalg.lstsq(monomials(x, y, n), product, rcond=None)[0]
    return result


def between(place: Float64, limits: tuple[float, float]) -> Float64:
    """Return the values at places from -1 to 1 between the limits."""
    low, high = limits
    return low + (high - low) * (place + 1) / 2
