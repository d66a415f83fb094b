"""Masses, widths and the weak mixing angle: dense weights of the matrix element, a nuisance each.

The mass that a channel measures is free; the other boson's is a nuisance. A file without mass weights gets the ratio of
running-width Breit-Wigners at the generated mass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from binworks.tensors.expansion import Expansion, Nuisance
from binworks.tensors.groups.base import VariationGroup, dense_group
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel

NAME, MASS_Z, WIDTH_W, WIDTH_Z, SIN2THETA = "mass", "mass_Z", "width_W", "width_Z", "sin2theta"
SHIFTS_MEV = tuple(range(-100, 101, 10))
WIDTH_STEPS = (-2, -1, 0, 1, 2)
WIDTH_STEP_MEV = {"W": 42.0, "Z": 2.3}
SIN2THETA_STEPS = tuple(range(-5, 6))
"""Of 0.0001 each; the nuisance moves by one."""
MZ_UNCERTAINTY_MEV = 2.1
W_MASS, W_WIDTH, Z_MASS, Z_WIDTH = 80.379, 2.085, 91.1876, 2.4941


def variation_name(shift: int, boson: Literal["W", "Z"] = "W") -> str:
    """Return the template's name for a shift in MeV."""
    return f"massShift{boson}{abs(shift)}MeV" + ("" if shift == 0 else "Up" if shift > 0 else "Down")


def group() -> VariationGroup:
    """Return the W's group; the nuisance ``massW`` is unconstrained, in units of 10 MeV."""
    nuisance = Nuisance("massW", NAME, variation_name(10), variation_name(-10), constrained=False)
    return dense_group(NAME, [variation_name(shift) for shift in SHIFTS_MEV], [nuisance])


def z_group(*, measured: bool) -> VariationGroup:
    """Return the Z's group: ``massZ`` is free in units of 10 MeV if measured, else a nuisance of 2.1 MeV.

    The templates of 2.1 MeV lie on the line between nominal and those of 10 MeV.
    """
    columns = [variation_name(shift, "Z") for shift in SHIFTS_MEV]
    if measured:
        free = Nuisance("massZ", MASS_Z, variation_name(10, "Z"), variation_name(-10, "Z"), constrained=False)
        return dense_group(MASS_Z, columns, [free])
    part = MZ_UNCERTAINTY_MEV / 10
    rows = np.vstack([np.eye(len(columns)), np.zeros((2, len(columns)))])
    rows[-2, SHIFTS_MEV.index(10)] = rows[-1, SHIFTS_MEV.index(-10)] = part
    names = [*columns, "massShiftZ2p1MeVUp", "massShiftZ2p1MeVDown"]
    base = np.array([0.0] * len(columns) + [1 - part] * 2)
    expansion = Expansion.dense(
        MASS_Z, names, [Nuisance("massZ", MASS_Z, names[-2], names[-1])], rows, base=base
    )
    return VariationGroup(tuple(columns), expansion)


def width_group(boson: Literal["W", "Z"]) -> VariationGroup:
    """Return the group of a width: five weights, a nuisance of one step."""
    names = _steps(f"width{boson}", WIDTH_STEPS)
    name = {"W": WIDTH_W, "Z": WIDTH_Z}[boson]
    return dense_group(name, names, [_one_step(f"width{boson}", name)])


def sin2theta_group() -> VariationGroup:
    """Return the group of the weak mixing angle in Z production: eleven weights, a nuisance of one step."""
    names = _steps("sin2thetaZ", SIN2THETA_STEPS)
    return dense_group(SIN2THETA, names, [_one_step("sin2thetaZ", SIN2THETA)])


def _steps(name: str, steps: Sequence[int]) -> list[str]:
    return [f"{name}{abs(step)}" + ("" if step == 0 else "Up" if step > 0 else "Down") for step in steps]


def _one_step(name: str, group_name: str) -> Nuisance:
    return Nuisance(name, group_name, f"{name}1Up", f"{name}1Down")


@kernel
def breit_wigner_ratio(s: float, shift_mev: float, pole: float, width: float) -> float:
    """Return the ratio of running-width Breit-Wigners at s = mass^2 (GeV^2), shifted over nominal.

    ``1 / ((s - m^2)^2 + s^2 width^2 / m^2)``, the width (GeV) kept.
    """
    m2 = pole * pole
    m2_shifted = (pole + 1e-3 * shift_mev) ** 2
    g2 = s * s * width * width
    return ((s - m2) ** 2 + g2 / m2) / ((s - m2_shifted) ** 2 + g2 / m2_shifted)


@kernel
def add_weights(block: Float64, cell: int, w: float, weights: Any) -> None:
    """Add w times each of the file's weights, which are ratios to the generated event."""
    for j in range(block.shape[1]):
        block[cell, j] += w * weights[j]


@kernel
def add_breit_wigner(block: Float64, cell: int, w: float, mass: float, pole: float, width: float) -> None:
    """Add w times the ratio at the generated mass (GeV), for files without mass weights."""
    for j in range(block.shape[1]):
        block[cell, j] += w * breit_wigner_ratio(mass * mass, -100.0 + 10.0 * j, pole, width)
