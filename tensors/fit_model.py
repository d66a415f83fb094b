"""What the fit needs of a tensor: flat arrays over the bins that are used, summed over processes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from binworks.tensors.errors import RequestError, unknown_name
from binworks.tensors.fitinput import FitChannel, FitInput
from binworks.tensors.histogram import Float64
from binworks.tensors.spline import Spline
from binworks.tensors.tensor import Tensor

MASS_TEMPLATE = re.compile(r"massShiftW(\d+)MeV(Up|Down)?")
MASS_STEPS = np.arange(-10.0, 11.0)
MASS_STEP_MEV = 10.0
"""What +1 of the free mass is."""
FLOATING, NORM = "floating", "norm_"
"""Group, and start of the name, of a parameter that is the normalisation of a process."""


class Merge:
    """Adds neighbouring bins of an array along its last axes, and flattens them; flow bins stay apart.

    Parameters
    ----------
    axes : sequence of hist axes
    factors : mapping
        How many bins become one, by axis name.

    Raises
    ------
    RequestError
        ``unknown-axis``, or ``bad-rebin`` where the factor does not divide the number of bins.
    """

    def __init__(self, axes: Sequence[Any], factors: Mapping[str, int]) -> None:
        for name in factors:
            if name not in [axis.name for axis in axes]:
                raise unknown_name("axis", name, [axis.name for axis in axes])
        self.axes = axes
        self.starts = [_starts(axis, factors.get(axis.name, 1)) for axis in axes]
        self.shape = tuple(len(starts) for starts in self.starts)

    def __call__(self, array: Float64) -> Float64:
        """Return the sums, shape (leading axes, merged bins)."""
        lead = array.ndim - len(self.axes)
        for number, starts in enumerate(self.starts):
            array = np.add.reduceat(array, starts, axis=lead + number)
        return array.reshape((*array.shape[:lead], -1))

    def full(self, values: Float64, used: NDArray[np.bool_]) -> Float64:
        """Return the values of the used bins among zeros, in the shape of the merged bins."""
        out = np.zeros(len(used))
        out[used] = values
        return out.reshape(self.shape)

    def label(self, flat: int) -> str:
        """Return the ranges of a merged bin."""
        parts = []
        for axis, starts, index in zip(
            self.axes, self.starts, np.unravel_index(flat, self.shape), strict=True
        ):
            edges = [-np.inf] * axis.traits.underflow + list(axis.edges) + [np.inf] * axis.traits.overflow
            stops = [*starts[1:], axis.extent]
            parts.append(f"{axis.name} {edges[starts[index]]:g}..{edges[stops[index]]:g}")
        return ", ".join(parts)


@dataclass(frozen=True)
class FitModel:
    """Templates and shifts over the used bins.

    Parameters
    ----------
    spline : Spline
        Over the mass shifts in MeV.
    templates : array, shape (mass shifts, bins)
    names, groups : tuple of str
        Parameters: the mass, floating normalisations, nuisances.
    constrained : boolean array, shape (parameters,)
    shifts : array, shape (parameters - 1, bins)
        Effect of +1 of each parameter but the mass.
    nominal, variances, data : arrays, shape (bins,)
    used : boolean array over all merged bins, flat
    """

    spline: Spline
    templates: Float64
    names: tuple[str, ...]
    groups: tuple[str, ...]
    constrained: NDArray[np.bool_]
    shifts: Float64
    nominal: Float64
    variances: Float64
    data: Float64
    used: NDArray[np.bool_]

    @cached_property
    def systematic(self) -> Float64:
        """Covariance of the bins from the constrained nuisances, shape (bins, bins)."""
        shifts = self.shifts[self.constrained[1:]]
        return shifts.T @ shifts


def build(tensor: Tensor, merge: Merge, data: Float64 | None, floating: Sequence[str]) -> FitModel:
    """Return the model of a tensor; see `binworks.tensors.fit.fit_mass` for the arguments and errors."""
    for process in floating:
        if process not in tensor.processes:
            raise unknown_name("process", process, list(tensor.processes))
    masses, templates = mass_templates(tensor)
    nominal, variances = merge(tensor.nominal.sum(axis=0)), merge(tensor.variances.sum(axis=0))
    observed = merge(_observed(tensor, data))
    used = nominal > 0
    _check_empty(merge, observed, used)
    groups = [name for name in tensor.expansions if name != "mass"]
    rows = [merge(tensor.nominal[[tensor.processes.index(process)]])[:, used] for process in floating]
    rows += [merge(tensor.total_shifts(group))[:, used] for group in groups]
    nuisances = [nuisance for group in groups for nuisance in tensor.expansions[group].nuisances]
    priors = [False] * (1 + len(floating)) + [nuisance.constrained for nuisance in nuisances]
    return FitModel(
        spline=Spline(masses),
        templates=merge(templates.sum(axis=1))[:, used],
        names=("massW", *(NORM + process for process in floating), *(n.name for n in nuisances)),
        groups=("mass", *(FLOATING for _ in floating), *(n.group for n in nuisances)),
        constrained=np.array(priors),
        shifts=np.concatenate([np.empty((0, int(used.sum()))), *rows]),
        nominal=nominal[used],
        variances=variances[used],
        data=observed[used],
        used=used,
    )


def model_of(fit: FitInput) -> FitModel:
    """Return the model of what the export formats write; see `binworks.tensors.fit.fit_linear`."""
    interest = [number for number, parameter in enumerate(fit.parameters) if parameter.interest]
    if len(interest) != 1:
        names = ", ".join(fit.parameters[number].name for number in interest) or "none"
        raise RequestError(
            f"The fit needs one parameter of interest, the free mass; there are: {names}.",
            code="no-parameter-of-interest",
        )
    parts = [_channel_model(channel, len(fit.parameters), interest[0]) for channel in fit.channels]
    templates, shifts, nominal, variances, data = (
        np.concatenate(arrays, axis=-1) for arrays in zip(*parts, strict=True)
    )
    used = np.concatenate([channel.used for channel in fit.channels]) & (nominal > 0)
    others = [parameter for parameter in fit.parameters if not parameter.interest]
    mass = fit.parameters[interest[0]]
    inflation = float(fit.metadata.get("inflation", 1.0))
    return FitModel(
        spline=Spline((MASS_STEP_MEV * MASS_STEPS).tolist()),
        templates=templates[:, used],
        names=(mass.name, *(p.name for p in others)),
        groups=(mass.groups[0], *(p.groups[0] for p in others)),
        constrained=np.array([False, *(p.constrained for p in others)]),
        shifts=np.delete(shifts, interest[0], axis=0)[:, used],
        nominal=nominal[used],
        variances=inflation**2 * variances[used],
        data=data[used],
        used=used,
    )


def _channel_model(channel: FitChannel, parameters: int, interest: int) -> tuple[Float64, ...]:
    """Return mass templates, shifts of all parameters, nominal, variances and data, summed over processes."""
    bins = channel.data.size
    templates, shifts = np.zeros((len(MASS_STEPS), bins)), np.zeros((parameters, bins))
    for number, nominal in enumerate(channel.nominal):
        varied = np.broadcast_to(nominal, templates.shape)
        for effect in channel.effects(number):
            where = slice(None) if effect.cells is None else effect.cells
            mine = nominal[where]
            down = -effect.up if effect.down is None else effect.down
            rows = np.arange(bins)[where]
            shifts[effect.parameters[:, np.newaxis], rows] += mine * (effect.up - down) / 2
            if interest in effect.parameters:
                varied = varied.copy()
                row = int(np.flatnonzero(effect.parameters == interest)[0])
                varied[:, where] = mine * np.exp(_log_at(effect.up[row], down[row]))
        templates += varied
    variances = channel.variances.sum(axis=0)
    return templates, shifts, channel.nominal.sum(axis=0), variances, channel.data


def _log_at(up: Float64, down: Float64) -> Float64:
    """Return ln(template / nominal) at the steps of the mass: through up, nominal and down, a parabola."""
    steps = MASS_STEPS[:, np.newaxis]
    return steps * (up - down) / 2 + steps**2 * (up + down) / 2


def mass_templates(tensor: Tensor) -> tuple[list[float], Float64]:
    r"""Return the mass shifts in MeV, rising, and their templates, shape (shifts, processes, \*bins).

    Raises
    ------
    RequestError
        ``unknown-systematic`` if the tensor has fewer than four.
    """
    names = tensor.expansions["mass"].variations if "mass" in tensor.expansions else ()
    found = [(match, name) for name in names if (match := MASS_TEMPLATE.fullmatch(name))]
    shifts = {(-1 if match[2] == "Down" else 1) * float(match[1]): name for match, name in found}
    if len(shifts) < 4:
        raise RequestError(
            f"A mass needs four templates massShiftW<n>MeV or more in the group 'mass'; the tensor has {len(shifts)}.",
            code="unknown-systematic",
            hint="Run the job with the systematic 'mass'.",
        )
    return sorted(shifts), tensor.variations("mass", [shifts[shift] for shift in sorted(shifts)])


def _observed(tensor: Tensor, data: Float64 | None) -> Float64:
    observed = tensor.data if data is None else np.asarray(data, float)
    if observed is None:
        hint = "Give pseudo-data, or add a data set of kind data to the job."
        raise RequestError("The tensor has no data.", code="no-data", hint=hint)
    if observed.shape != tensor.nominal.shape[1:]:
        message = f"Data of shape {observed.shape} do not fit bins of shape {tensor.nominal.shape[1:]}."
        raise RequestError(message, code="bad-data")
    if not np.all(np.isfinite(observed)):
        message = f"{np.sum(~np.isfinite(observed))} bins of the data hold no finite number."
        raise RequestError(message, code="bad-data")
    return observed


def _check_empty(merge: Merge, observed: Float64, used: NDArray[np.bool_]) -> None:
    lost = np.flatnonzero(~used & (observed != 0))
    if len(lost):
        first = int(lost[0])
        raise RequestError(
            f"{observed[first]:g} events are observed where none are expected: {merge.label(first)} "
            f"({len(lost)} such bins).",
            code="empty-bin",
            hint="Merge bins (rebin) or simulate more events.",
        )


def _starts(axis: Any, factor: int) -> list[int]:
    if factor < 1 or len(axis) % factor:
        message = f"{factor} bins of axis {axis.name!r} cannot be merged: it has {len(axis)}."
        raise RequestError(message, code="bad-rebin", hint="Give a divisor of the number of bins.")
    low = int(axis.traits.underflow)
    flow = [low + len(axis)] if axis.traits.overflow else []
    return [0] * low + [low + i for i in range(0, len(axis), factor)] + flow
