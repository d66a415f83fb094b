"""The momenta of all muons of a range, corrected before any cut: CVH, then scale, then (simulation) resolution."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from binworks.corrections import cvh, momentum_scale, resolution
from binworks.corrections.sets import CorrectionSet, holding
from binworks.processors.columns import Columns
from binworks.tensors import random
from binworks.tensors.axes import ETA_BINS, ETA_HIGH, ETA_LOW
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import regular_bin

Array = NDArray[Any]


class Momenta(NamedTuple):
    """Corrected muons, shape (muons,) each: pT (GeV), eta, phi, charge."""

    pt: Array
    eta: Array
    phi: Array
    charge: Array


class Calibration(NamedTuple):
    """Compiled payloads of one kind of data set; ``smears`` says whether there is a resolution to match."""

    parameters: Array
    scale: Any
    data_width: Any
    simulated_width: Any
    smears: bool


def calibration(corrections: CorrectionSet | None, *, is_data: bool) -> Calibration:
    """Return what the set says of muon momenta; payloads that it does not have change nothing.

    Raises
    ------
    PayloadError
        If a payload is wrong.
    """
    held = partial(holding, corrections)

    scale, widths, parameters = held("momentum_scale"), held("resolution"), held("cvh")
    return Calibration(
        (cvh.load(parameters, is_data=is_data) if parameters else cvh.identity()).x,
        momentum_scale.load(scale, is_data=is_data)[0] if scale else momentum_scale.identity(),
        resolution.load(widths, is_data=True) if widths else resolution.unknown(),
        resolution.load(widths, is_data=False) if widths else resolution.unknown(),
        widths is not None and not is_data,
    )


def corrected_momenta(columns: Columns, constants: Calibration) -> Momenta:
    """Return the corrected momenta of the range's muons.

    A muon whose jacobian is incomplete, or whose parameters are not in the table, is not a number.
    """
    offsets = columns.offsets["muon"]
    pt, eta, phi = (columns[f"muon.{name}"].astype(np.float64) for name in ("pt", "eta", "phi"))
    momenta = Momenta(pt, eta, phi, columns["muon.charge"].copy())
    if len(constants.parameters) > 0 and "cvh_jacobian" in columns.offsets and "cvh_index" in columns.offsets:
        refit(
            offsets,
            (columns.offsets["cvh_jacobian"], columns["cvh_jacobian.value"], columns["muon.jacobian_size"]),
            (columns.offsets["cvh_index"], columns["cvh_index.value"], columns["muon.parameters"]),
            constants.parameters,
            momenta,
        )
    calibrate((columns["run"], columns["lumi"], columns["event"]), offsets, constants, momenta)
    return momenta


@kernel
def refit(offsets: Array, jacobian: Any, index: Any, parameters: Array, momenta: Any) -> None:
    """Apply the CVH correction to all muons of each event; their jacobians and indices follow each other."""
    jacobian_offsets, jacobians, sizes = jacobian
    index_offsets, indices, counts = index
    for i in range(len(offsets) - 1):
        j, p = jacobian_offsets[i], index_offsets[i]
        for m in range(offsets[i], offsets[i + 1]):
            j_end, p_end = j + sizes[m], p + counts[m]
            if j_end > jacobian_offsets[i + 1] or p_end > index_offsets[i + 1]:
                momenta.pt[m] = np.nan
            else:
                momenta.pt[m], momenta.eta[m], momenta.phi[m], momenta.charge[m] = cvh.corrected(
                    momenta.pt[m],
                    momenta.eta[m],
                    momenta.phi[m],
                    momenta.charge[m],
                    jacobians[j:j_end],
                    indices[p:p_end],
                    parameters,
                )
            j, p = j_end, p_end


@kernel
def calibrate(keys: Any, offsets: Array, constants: Any, momenta: Any) -> None:
    """Correct the scale and match the resolution of all muons; each one's random number is that of its event."""
    run, lumi, event = keys
    for i in range(len(offsets) - 1):
        for m in range(offsets[i], offsets[i + 1]):
            eta_bin = regular_bin(momenta.eta[m], ETA_LOW, ETA_HIGH, ETA_BINS)
            pt = momentum_scale.corrected_pt(momenta.pt[m], eta_bin, momenta.charge[m], constants.scale)
            if constants.smears and eta_bin >= 0 and np.isfinite(pt):
                k = 1.0 / pt
                extra = resolution.extra_width(
                    k, eta_bin // 2, constants.data_width, constants.simulated_width
                )
                if extra > 0.0:
                    g = random.normal(run[i], lumi[i], event[i], m - offsets[i])
                    pt = 1.0 / resolution.smeared_k(k, extra, g)
            momenta.pt[m] = pt
