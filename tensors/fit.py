r"""The fit of the W mass: a linearised likelihood whose minimum has a closed form.

A bin with d events observed and m expected contributes (d - m)^2 / V, V being the Poisson variance of the data
plus the variance of the simulation. Constrained nuisances are not parameters of the minimisation: each adds the
outer product of its shift to the covariance, C = V + S S^T, and the free parameters (the mass, and what the caller
lets float) follow from one small linear system. Pulls, constraints and impacts come from the same matrices.

Two things are not linear, so the closed form is repeated about the present point until the mass stands still:

- The templates of the group ``mass``, which a cubic spline joins; it is exact at the templates.
- The Poisson variance, which is that of the *prediction*. Taken from the observed counts it gives more weight to
  bins that fluctuated downwards, and the many bins with few events pull the mass by two standard deviations.

The simulation makes the slope of the templates fluctuate as well. That looks like a steeper slope, and fitted shifts
come out too small, by about 100 to 300 divided by the number of simulated events in a bin. So bins must be large
enough: `enough_events`. Little is lost by it, since the mass stands in the shape of pT, not of eta or charge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import erfc, exp, lgamma, log, sqrt
from typing import Any

import hist
import numpy as np
from numpy.typing import NDArray

from binworks.tensors.errors import RequestError
from binworks.tensors.fit_model import FLOATING, NORM, FitModel, Merge, build, model_of
from binworks.tensors.fitinput import FitInput
from binworks.tensors.histogram import Float64
from binworks.tensors.tensor import Tensor

TOLERANCE_MEV = 1e-4
MAX_STEPS = 50
SHORTEST, LONGEST = 0.1, 2.0
"""Limits of a step of the mass, relative to that of the closed form."""
BLIND = 1e-6
"""A parameter of which the data know less than 1 / BLIND units (MeV, prior deviations) is not determined."""
FLOOR = 1e-3
"""However far nuisances go, a bin's prediction stays above this fraction of what it was before the fit."""


@dataclass(frozen=True)
class FitResult:
    """What was fitted, in MeV for the mass and in prior standard deviations for nuisances.

    Parameters
    ----------
    mass_shift, uncertainty : float
        Fitted W mass minus the mass of the simulation, and its total standard uncertainty, MeV.
    impacts : dict
        Parts of the uncertainty in MeV, whose squares add up to that of the total: ``data`` (statistics),
        ``simulation`` (statistics), then a variation group each.
    chi2, ndf : float, int
        At the minimum.
    parameters, groups : tuple of str
        The mass, floating normalisations (group ``floating``) and nuisances; the variation group of each.
    values : array, shape (parameters,)
        Fitted; for a constrained nuisance its pull.
    covariance : array, shape (parameters, parameters)
        After the fit.
    constrained : boolean array, shape (parameters,)
    rebin : dict
        How many bins were merged, by axis.
    data, nominal, prediction, variances : arrays over the merged bins
        Observed; expected before and after the fit; variance of the simulation.
    used : boolean array over the merged bins
        False where nothing is expected and nothing observed.
    steps : int
        Closed-form steps until the mass stood still.
    beyond_templates : bool
        Whether the mass is outside the range of the templates.
    """

    mass_shift: float
    uncertainty: float
    impacts: dict[str, float]
    chi2: float
    ndf: int
    parameters: tuple[str, ...]
    groups: tuple[str, ...]
    values: Float64
    covariance: Float64
    constrained: NDArray[np.bool_]
    rebin: dict[str, int]
    data: Float64
    nominal: Float64
    prediction: Float64
    variances: Float64
    used: NDArray[np.bool_]
    steps: int
    beyond_templates: bool

    @property
    def uncertainties(self) -> Float64:
        """Standard uncertainties after the fit, shape (parameters,); 1 for a nuisance the data know nothing of."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def floating(self) -> tuple[str, ...]:
        """Processes whose normalisation was free."""
        pairs = zip(self.parameters, self.groups, strict=True)
        return tuple(name.removeprefix(NORM) for name, group in pairs if group == FLOATING)

    @property
    def p_value(self) -> float:
        """Probability of a larger chi2."""
        return chi2_probability(self.chi2, self.ndf)

    def summary(self) -> dict[str, Any]:
        """Return all but the arrays over bins and the covariance, JSON-able."""
        rows = zip(
            self.parameters, self.groups, self.values, self.uncertainties, self.constrained, strict=True
        )  # fmt: skip
        return {
            "mass_shift_mev": self.mass_shift,
            "uncertainty_mev": self.uncertainty,
            "impacts_mev": self.impacts,
            "chi2": self.chi2,
            "ndf": self.ndf,
            "p_value": self.p_value,
            "rebin": self.rebin,
            "steps": self.steps,
            "beyond_templates": self.beyond_templates,
            "parameters": [
                {
                    "name": name,
                    "group": group,
                    "value": float(x),
                    "uncertainty": float(dx),
                    "constrained": bool(prior),
                }
                for name, group, x, dx, prior in rows
            ],
        }


def fit_mass(
    tensor: Tensor,
    data: Float64 | None = None,
    *,
    floating: Sequence[str] = (),
    rebin: Mapping[str, int] | None = None,
) -> FitResult:
    """Fit the W mass.

    Parameters
    ----------
    tensor : Tensor
        With a group ``mass`` of templates named ``massShiftW<n>MeV[Up|Down]``.
    data : array, shape bins, optional
        Fitted in place of the tensor's data, for example pseudo-data.
    floating : sequence of str
        Processes whose normalisation is free; fitted is its relative change.
    rebin : mapping, optional
        How many bins to merge, by axis.

    Raises
    ------
    RequestError
        ``no-data``, ``bad-data`` (shape, not finite), ``unknown-systematic`` (no mass templates),
        ``unknown-process``, ``unknown-axis``, ``bad-rebin``, ``empty-bin`` (events where none are expected; a bin
        with neither is left out), ``singular-fit`` (a free parameter without effect, or two with the same),
        ``no-convergence``.
    """
    merge = Merge(tensor.axes, rebin or {})
    return _fit(build(tensor, merge, data, floating), merge, rebin or {})


def fit_linear(fit: FitInput) -> FitResult:
    """Fit the parameter of interest of what the export formats write; the result's bins are flat, channel by channel.

    All other parameters act linearly, with the slope that a log-normal one has at 0: half the difference of the
    logarithms of its templates. So what other programs find for the same input can be compared with this.

    Raises
    ------
    RequestError
        ``no-parameter-of-interest`` if there is not exactly one such parameter; ``singular-fit``; ``no-convergence``.
    """
    model = model_of(fit)
    return _fit(model, Merge([hist.axis.Integer(0, len(model.used), name="bin", flow=False)], {}), {})


def _fit(model: FitModel, merge: Merge, rebin: Mapping[str, int]) -> FitResult:
    values, system, steps = _minimise(model)
    covariance, follows = system.covariance()
    point, nodes, pulls = system.point, model.spline.nodes, values[model.constrained]
    residual = model.data - point.prediction
    return FitResult(
        mass_shift=float(values[0]),
        uncertainty=float(np.sqrt(covariance[0, 0])),
        impacts=_impacts(system, follows),
        chi2=float(np.sum(residual**2 / point.variance) + np.sum(pulls**2)),
        ndf=len(residual) - int(np.sum(~model.constrained)),
        parameters=model.names,
        groups=model.groups,
        values=values,
        covariance=covariance,
        constrained=model.constrained,
        rebin=dict(rebin),
        data=merge.full(model.data, model.used),
        nominal=merge.full(model.nominal, model.used),
        prediction=merge.full(point.prediction, model.used),
        variances=merge.full(model.variances, model.used),
        used=model.used.reshape(merge.shape),
        steps=steps,
        beyond_templates=bool(not nodes[0] <= values[0] <= nodes[-1]),
    )


def enough_events(
    tensor: Tensor, per_bin: float = 5000.0, axes: Sequence[str] = ("eta", "charge")
) -> dict[str, int]:
    """Return the finest ``rebin`` that leaves so many equivalent simulated events in an average bin.

    The first axis is merged before the next one is touched. With 5000, fitted shifts are too small by 2 to 6 %.
    """
    nominal, variances = tensor.nominal.sum(axis=0), tensor.variances.sum(axis=0)
    content = nominal.sum() ** 2 / variances.sum() / nominal.size
    factors = {}
    for axis in axes:
        size = next(len(candidate) for candidate in tensor.axes if candidate.name == axis)
        divisors = [n for n in range(1, size + 1) if size % n == 0]
        factors[axis] = next((n for n in divisors if content * n >= per_bin), size)
        content *= factors[axis]
    return factors


def chi2_probability(chi2: float, ndf: int) -> float:
    """Return the probability of a larger chi2, by the finite sum that the incomplete gamma function is here."""
    if ndf <= 0:
        return float("nan")
    x = chi2 / 2
    if x <= 0:
        return 1.0
    order, total = (0.5, erfc(sqrt(x))) if ndf % 2 else (1.0, exp(-x))
    while order < ndf / 2:
        total += exp(order * log(x) - x - lgamma(order + 1))
        order += 1
    return min(total, 1.0)


@dataclass(frozen=True)
class _Point:
    """The model at given values of its parameters."""

    prediction: Float64
    slope: Float64
    variance: Float64

    @classmethod
    def of(cls, model: FitModel, values: Float64) -> _Point:
        here, derivative = model.spline.weights(values[0])
        prediction = here @ model.templates + values[1:] @ model.shifts
        prediction = np.maximum(prediction, FLOOR * model.nominal)
        return cls(prediction, derivative @ model.templates, prediction + model.variances)


class _System:
    """The linear system about a point: C = V + S S^T, and the derivatives G of the free parameters."""

    def __init__(self, model: FitModel, values: Float64) -> None:
        self.model, self.values, self.point = model, values, _Point.of(model, values)
        prior = model.constrained
        self.free = np.vstack([self.point.slope, model.shifts[~prior[1:]]])
        self.shifts = model.shifts[prior[1:]]
        residual = model.data - self.point.prediction + values[prior] @ self.shifts
        solved = self._solve(np.vstack([self.free, residual]).T)
        self.weighted_free, self.weighted_residual = solved[:, :-1], solved[:, -1]
        self.information = self.free @ self.weighted_free
        _check_regular(self.information, [model.names[i] for i in np.flatnonzero(~prior)])

    def step(self) -> Float64:
        """Return the values of the parameters at the minimum of the linearised likelihood."""
        prior = self.model.constrained
        move = _solve(self.information, self.free @ self.weighted_residual)
        values = self.values.copy()
        values[~prior] += move
        values[prior] = self.shifts @ (self.weighted_residual - self.weighted_free @ move)
        return values

    def covariance(self) -> tuple[Float64, Float64]:
        """Return the covariance of the parameters, and how the mass follows each bin of the data (MeV an event)."""
        prior = self.model.constrained
        free = np.linalg.inv(self.information)
        pulled = self.shifts @ self.weighted_free
        out = np.empty((len(prior), len(prior)))
        out[np.ix_(~prior, ~prior)] = free
        out[np.ix_(prior, ~prior)] = -pulled @ free
        out[np.ix_(~prior, prior)] = -free @ pulled.T
        reduced = np.eye(len(pulled)) - self.shifts @ self._solve(self.shifts.T)
        out[np.ix_(prior, prior)] = reduced + pulled @ free @ pulled.T
        return out, self.weighted_free @ free[:, 0]

    def _solve(self, columns: Float64) -> Float64:
        """Return C^-1 columns, through the smaller of the two possible matrices (Woodbury's identity)."""
        shifts, variance = self.shifts, self.point.variance
        if len(shifts) >= len(variance):
            return _solve(np.diag(variance) + self.model.systematic, columns)
        weighted, scaled = shifts / variance, columns / variance[:, np.newaxis]
        return scaled - weighted.T @ _solve(np.eye(len(shifts)) + weighted @ shifts.T, shifts @ scaled)


def _solve(matrix: Float64, columns: Float64) -> Float64:
    return np.asarray(np.linalg.solve(matrix, columns), np.float64)


def _minimise(model: FitModel) -> tuple[Float64, _System, int]:
    """Return the fitted values, the system about them, and the number of steps.

    Where the mass templates are noisy, the closed form steps too far; what the last step left over says by how much.
    """
    system = _System(model, np.zeros(len(model.names)))
    moved = before = 0.0
    for steps in range(1, MAX_STEPS + 1):
        values = system.step()
        step = values[0] - system.values[0]
        if abs(step) < TOLERANCE_MEV:
            return values, _System(model, values), steps
        secant = moved / (before - step) if moved and before != step else 1.0
        moved, before = step * min(max(secant, SHORTEST), LONGEST), step
        values[0] = system.values[0] + moved
        system = _System(model, values)
    raise RequestError(
        f"The fit did not settle within {MAX_STEPS} steps; its mass shift was {system.values[0]:.1f} MeV.",
        code="no-convergence",
        hint="Look at the data and the mass templates; merge bins with few events.",
    )


def _impacts(system: _System, follows: Float64) -> dict[str, float]:
    """Return the parts of the mass uncertainty: its variance is a sum over what C is made of, so they add up."""
    model = system.model
    parts = {
        "data": float(np.sum(follows**2 * system.point.prediction)),
        "simulation": float(np.sum(follows**2 * model.variances)),
    }
    groups = [model.groups[i] for i in np.flatnonzero(model.constrained)]
    for group, moved in zip(groups, system.shifts @ follows, strict=True):
        parts[group] = parts.get(group, 0.0) + float(moved**2)
    return {name: sqrt(variance) for name, variance in parts.items()}


def _check_regular(information: Float64, names: Sequence[str]) -> None:
    """Refuse free parameters that the data cannot tell apart."""
    scale = np.sqrt(np.diag(information))
    blind = [name for name, size in zip(names, scale, strict=True) if not size > BLIND]
    if not blind:
        eigenvalues, vectors = np.linalg.eigh(information / np.outer(scale, scale))
        if eigenvalues[0] > 1e-10:
            return
        blind = [name for name, part in zip(names, vectors[:, 0], strict=True) if abs(part) > 0.1]
    raise RequestError(
        f"The data cannot determine {', '.join(blind)}: without effect, or with the same effect as another.",
        code="singular-fit",
        hint="Let fewer parameters float.",
    )
