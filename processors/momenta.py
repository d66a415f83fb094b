"""The momenta of all muons of a range, corrected before any cut: CVH, then scale, then (simulation) resolution."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from binworks.corrections import cvh, momentum_scale, resolution
from binworks.corrections.sets import CorrectionSet
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

    def held(name: str) -> CorrectionSet | None:
        return corrections if corrections is not None and name in corrections else None

    scale, widths, parameters = held("momentum_scale"), held("resolution"), held("cvh")
    return Calibration(
        (cvh.load(parameters, is_data=is_data) if parameters else cvh.identity()).x,
        momentum_scale.load(scale, is_data=is_data)[0] if scale else momentum_scale.identity(),
        resolution.load(widths, is_data=True) if widths else resolution.unknown(),
        resolution.load(widths, is_data=False) if widths else resolution.unknown(),
        widths is not None and not is_data,
    )


def corrected_momenta(columns: Columns, constants: Calibration) -> Momenta:
    """Return the corrected momenta of the range's muons."""
    offsets = columns.offsets["muon"]
    count = int(offsets[-1])
    momenta = Momenta(np.empty(count), np.empty(count), np.empty(count), np.empty(count, np.int32))
    none = np.zeros(len(offsets), np.int64)
    correct(
        (columns["run"], columns["lumi"], columns["event"]),
        offsets,
        tuple(columns[f"muon.{name}"] for name in ("pt", "eta", "phi", "charge")),
        (
            columns.offsets.get("cvh_jacobian", none),
            columns["cvh_jacobian.value"],
            columns["muon.jacobian_size"],
        ),
        (columns.offsets.get("cvh_index", none), columns["cvh_index.value"], columns["muon.parameters"]),
        constants,
        momenta,
    )
    return momenta


@kernel
def correct(
    keys: Any, offsets: Array, measured: Any, jacobian: Any, index: Any, constants: Any, out: Any
) -> None:
    """Fill ``out``; a muon whose jacobian or parameters are incomplete becomes not a number."""
    run, lumi, event = keys
    pts, etas, phis, charges = measured
    jacobian_offsets, jacobians, sizes = jacobian
    index_offsets, indices, counts = index
    for i in range(len(offsets) - 1):
        j, p = jacobian_offsets[i], index_offsets[i]
        for m in range(offsets[i], offsets[i + 1]):
            pt: float = np.float64(pts[m])
            eta: float = np.float64(etas[m])
            phi: float = np.float64(phis[m])
            charge = charges[m]
            if len(constants.parameters) > 0 and sizes[m] > 0:
                j_end, p_end = j + sizes[m], p + counts[m]
                if j_end <= jacobian_offsets[i + 1] and p_end <= index_offsets[i + 1]:
                    pt, eta, phi, charge = cvh.corrected(
                        pt, eta, phi, charge, jacobians[j:j_end], indices[p:p_end], constants.parameters
                    )
                else:
                    pt = np.nan
                j, p = j_end, p_end
            eta_bin = regular_bin(eta, ETA_LOW, ETA_HIGH, ETA_BINS)
            pt = momentum_scale.corrected_pt(pt, eta_bin, charge, constants.scale)
            if constants.smears and eta_bin >= 0 and np.isfinite(pt):
                k = 1.0 / pt
                extra = resolution.extra_width(
                    k, eta_bin // 2, constants.data_width, constants.simulated_width
                )
                if extra > 0.0:
                    g = random.normal(run[i], lumi[i], event[i], m - offsets[i])
                    pt = 1.0 / resolution.smeared_k(k, extra, g)
            out.pt[m], out.eta[m], out.phi[m], out.charge[m] = pt, eta, phi, charge
