"""W mass: 21 dense weights, -100 to +100 MeV in steps of 10; one free parameter."""

from __future__ import annotations

from typing import Any

from binworks.tensors.expansion import Nuisance
from binworks.tensors.groups.base import VariationGroup, dense_group
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel

NAME = "mass"
SHIFTS_MEV = tuple(range(-100, 101, 10))
W_MASS, W_WIDTH = 80.379, 2.085


def variation_name(shift: int) -> str:
    """Return the template's name for a shift in MeV."""
    return f"massShiftW{abs(shift)}MeV" + ("" if shift == 0 else "Up" if shift > 0 else "Down")


def group() -> VariationGroup:
    """Return the group; the nuisance ``massW`` is unconstrained, in units of 10 MeV."""
    nuisance = Nuisance("massW", NAME, variation_name(10), variation_name(-10), constrained=False)
    return dense_group(NAME, [variation_name(shift) for shift in SHIFTS_MEV], [nuisance])


@kernel
def breit_wigner_ratio(s: float, shift_mev: float) -> float:
    """Return the ratio of running-width Breit-Wigners at s = mass^2 (GeV^2), shifted over nominal.

    ``1 / ((s - m^2)^2 + s^2 width^2 / m^2)``, the width kept.
    """
    m2 = W_MASS * W_MASS
    m2_shifted = (W_MASS + 1e-3 * shift_mev) ** 2
    g2 = s * s * W_WIDTH * W_WIDTH
    return ((s - m2) ** 2 + g2 / m2) / ((s - m2_shifted) ** 2 + g2 / m2_shifted)


@kernel
def add_weights(block: Float64, cell: int, w: float, weights: Any) -> None:
    """Add w times each of the file's mass weights."""
    for j in range(block.shape[1]):
        block[cell, j] += w * weights[j]


@kernel
def add_breit_wigner(block: Float64, cell: int, w: float, mass: float) -> None:
    """Add w times the ratio at the generated mass (GeV), for files without mass weights."""
    for j in range(block.shape[1]):
        block[cell, j] += w * breit_wigner_ratio(mass * mass, -100.0 + 10.0 * j)
