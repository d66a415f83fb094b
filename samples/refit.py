"""Tracks refitted with corrections of the detector model, by a few global parameters each (CVH).

There are four parameters in each of 24 regions of eta: the field (relative), a shift of the curvature (1/GeV), a tilt
and a turn (radians). Each track comes with the derivatives J of its (q/p, lambda, phi) with respect to those that it
feels, and with their numbers; ``(q/p, lambda, phi) + J x`` is right. Tracks of the barrel do not feel the turn.
"""

from __future__ import annotations

import numpy as np

from binworks.samples.arrays import Array, Bools, Column, Float64, Int64, Jagged
from binworks.samples.kinematics import wrapped
from binworks.samples.truth import REFIT_KINDS, REFIT_REGIONS

_MAX_ETA, _BARREL = 2.4, 1.2
_BENDING = 0.5  # how the azimuth follows the curvature, GeV


def refit(muons: Jagged, x: Float64, prefix: str) -> tuple[Jagged, dict[str, Column]]:
    """Return the muons with their refit, and the lists of derivatives and of numbers of parameters.

    Parameters
    ----------
    muons : Jagged
        Rightly measured; those that are not ``hard`` keep their momentum and feel no parameter.
    x : array, shape (96,)
        Global parameters.
    prefix : str
        ``cvh`` (data) or ``cvhideal`` (simulation) of the fields Pt, Eta, Phi, Charge.
    """
    region = np.clip(((muons["eta"] + _MAX_ETA) * 5).astype(np.int64), 0, REFIT_REGIONS - 1)
    numbers = REFIT_KINDS * region[:, None] + np.arange(REFIT_KINDS)
    field, shift, tilt, turn = (x[numbers] * muons["hard"][:, None]).T
    turn = turn * (np.abs(muons["eta"]) >= _BARREL)
    curvature = muons["charge"] / (muons["pt"] * np.cosh(muons["eta"]))
    refitted = (curvature - shift) / (1 + field)
    angle = np.arctan(np.sinh(muons["eta"])) - tilt
    moved = {
        "Pt": np.cos(angle) / np.abs(refitted),
        "Eta": np.arcsinh(np.tan(angle)),
        "Phi": wrapped(muons["phi"] - _BENDING * refitted * field - turn),
    }
    felt = _felt(muons)
    derivatives = _derivatives(refitted)[np.broadcast_to(felt[:, None, :], (len(felt), 3, REFIT_KINDS))]
    kept = {name: np.where(muons["hard"], values, muons[name.lower()]) for name, values in moved.items()}
    sizes = felt.sum(axis=1)
    fields = {
        **{f"{prefix}{name}": values for name, values in kept.items()},
        f"{prefix}Charge": muons["charge"],
        "cvhJacRef_Counts": (3 * sizes).astype(np.int32),
        "cvhmergedGlobalIdxs_Counts": sizes.astype(np.int32),
    }
    lists: dict[str, Column] = {
        "Muon_cvhJacRef_Vals": _by_event(muons, 3 * sizes, derivatives),
        "Muon_cvhmergedGlobalIdxs_Vals": _by_event(muons, sizes, numbers[felt].astype(np.int32)),
    }
    return muons.replace(**fields), lists


def _felt(muons: Jagged) -> Bools:
    """Return which of its region's parameters a muon feels, shape (muons, 4)."""
    felt = np.repeat(muons["hard"][:, None], REFIT_KINDS, axis=1)
    felt[:, -1] &= np.abs(muons["eta"]) >= _BARREL
    return felt


def _derivatives(curvature: Float64) -> Float64:
    """Return J at the refitted tracks, shape (muons, 3, 4): rows q/p, lambda, phi; columns field, shift, tilt, turn."""
    result = np.zeros((len(curvature), 3, REFIT_KINDS))
    result[:, 0, 0] = curvature
    result[:, 2, 0] = _BENDING * curvature
    result[:, 0, 1] = result[:, 1, 2] = result[:, 2, 3] = 1.0
    return result


def _by_event(muons: Jagged, sizes: Int64, values: Array) -> Jagged:
    """Return one list of numbers an event: what its muons have, one after the other."""
    counts = np.bincount(muons.event, sizes, minlength=len(muons.counts)).astype(np.int64)
    return Jagged(counts, {"": values})
