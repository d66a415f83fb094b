"""A fitted tensor seen along one axis: what a plot of data over prediction needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from binworks.tensors.errors import RequestError, unknown_name
from binworks.tensors.fit import FitResult
from binworks.tensors.fit_model import mass_templates
from binworks.tensors.histogram import Float64
from binworks.tensors.spline import Spline
from binworks.tensors.tensor import Tensor


@dataclass(frozen=True)
class Projection:
    """Sums over all axes but one.

    Parameters
    ----------
    axis : str
    edges : array, shape (bins + 1,)
    data : array, shape (bins,)
    processes : tuple of str
    prefit, postfit : arrays, shape (processes, bins)
        Expected events.
    simulation : array, shape (bins,)
        Standard deviation from the number of simulated events.
    prefit_uncertainty, postfit_uncertainty : arrays, shape (bins,)
        Standard deviation of the sum over processes: nuisances before the fit; all parameters after it.
    mass_nodes, mass_curves : tuple of float, array of shape (nodes, bins)
        Mass shifts in MeV, and their relative effect on the prediction.
    """

    axis: str
    edges: Float64
    data: Float64
    processes: tuple[str, ...]
    prefit: Float64
    postfit: Float64
    simulation: Float64
    prefit_uncertainty: Float64
    postfit_uncertainty: Float64
    mass_nodes: tuple[float, ...]
    mass_curves: Float64

    def mass_effect(self, shift: float) -> Float64:
        """Return the relative change of the prediction by a mass shift in MeV, shape (bins,)."""
        weights, _ = Spline(self.mass_nodes).weights(shift)
        effect: Float64 = weights @ self.mass_curves
        return effect


def project(tensor: Tensor, result: FitResult, axis: str = "pt", data: Float64 | None = None) -> Projection:
    """Return the tensor along an axis, before and after a fit of it.

    Parameters
    ----------
    tensor : Tensor
    result : FitResult
        Of this tensor, with any merging of bins.
    axis : str
    data : array, shape bins, optional
        What was fitted in place of the tensor's data.

    Raises
    ------
    RequestError
        ``unknown-axis``, ``no-data``.
    """
    observed = tensor.data if data is None else data
    if observed is None:
        raise RequestError("The tensor has no data.", code="no-data", hint="Give what was fitted.")
    along = _Along(tensor, axis)
    nodes, templates = mass_templates(tensor)
    curves, nominal = along(templates), along(tensor.nominal)
    weights, slope = Spline(nodes).weights(result.mass_shift)
    effects = np.concatenate(
        [
            np.tensordot(slope, curves, axes=1)[np.newaxis],
            *(_alone(nominal, tensor.processes.index(name)) for name in result.floating),
            *(along(tensor.shifts(group)) for group in tensor.expansions if group != "mass"),
        ]
    )
    total, expected = effects.sum(axis=1), nominal.sum(axis=0)
    variance = np.einsum("pb,pq,qb->b", total, result.covariance, total, optimize=True)
    return Projection(
        axis=axis,
        edges=along.edges,
        data=along(observed),
        processes=tensor.processes,
        prefit=nominal,
        postfit=np.tensordot(weights, curves, axes=1) + np.tensordot(result.values[1:], effects[1:], axes=1),
        simulation=np.sqrt(along(tensor.variances).sum(axis=0)),
        prefit_uncertainty=np.sqrt(np.sum(total[result.constrained] ** 2, axis=0)),
        postfit_uncertainty=np.sqrt(variance),
        mass_nodes=tuple(nodes),
        mass_curves=np.divide(
            curves.sum(axis=1), expected, out=np.ones_like(curves[:, 0]), where=expected > 0
        )
        - 1,
    )


class _Along:
    """Sums arrays over all bins axes but one, and drops the flow bins of that one."""

    def __init__(self, tensor: Tensor, name: str) -> None:
        names = [axis.name for axis in tensor.axes]
        if name not in names:
            raise unknown_name("axis", name, names)
        keep = names.index(name)
        axis = tensor.axes[keep]
        self.edges = np.asarray(axis.edges)
        self._rest = tuple(i - len(names) for i in range(len(names)) if i != keep)
        low = int(axis.traits.underflow)
        self._inside = slice(low, low + len(axis))

    def __call__(self, array: Float64) -> Float64:
        sums: Float64 = array.sum(axis=self._rest)
        return sums[..., self._inside]


def _alone(nominal: Float64, row: int) -> Float64:
    """Return the effect of a floating normalisation, shape (1, processes, bins)."""
    effect = np.zeros((1, *nominal.shape))
    effect[0, row] = nominal[row]
    return effect
