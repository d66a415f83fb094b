"""What a variation group is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from binworks.tensors.axes import column_axis
from binworks.tensors.expansion import Expansion, Nuisance
from binworks.tensors.histogram import Float64, Histogram


@dataclass(frozen=True)
class VariationGroup:
    """A group: the compact columns that the kernel fills, and how they become variations.

    Parameters
    ----------
    columns : tuple of str
        What each column sums.
    expansion : Expansion
        Its ``group`` is the group's name.
    """

    columns: tuple[str, ...]
    expansion: Expansion

    @property
    def name(self) -> str:
        """The group's name, also of its compact histogram."""
        return self.expansion.group

    def block(self, axes: Sequence[Any]) -> Histogram:
        """Return the empty compact histogram over the nominal axes."""
        return Histogram.zeros([*axes, column_axis(self.columns)])


def dense_group(name: str, variations: Sequence[str], nuisances: Sequence[Nuisance]) -> VariationGroup:
    """Return a group whose columns are the variations themselves: true event-by-event weights."""
    identity = np.eye(len(variations))
    return VariationGroup(
        tuple(variations), Expansion.dense(name, variations, nuisances, identity, deviations=False)
    )


def paired_nuisances(group: str, variations: Sequence[str]) -> tuple[Nuisance, ...]:
    """Return a nuisance for each NameUp/NameDown pair, and a mirrored one for each name without a partner."""
    known = set(variations)
    nuisances = []
    for name in variations:
        if name.endswith("Up") and f"{name[:-2]}Down" in known:
            nuisances.append(Nuisance(name[:-2], group, name, f"{name[:-2]}Down"))
        elif not (name.endswith("Down") and f"{name[:-4]}Up" in known):
            nuisances.append(Nuisance(name, group, name))
    return tuple(nuisances)


def eigen_shifts(covariance: Float64) -> Float64:
    """Return the eigenvectors of a covariance, times the root of their eigenvalues, largest first.

    Parameters
    ----------
    covariance : array, shape (..., n, n)

    Returns
    -------
    array, shape (..., n shifts, n parameters)
        The outer products of the shifts sum to the covariance. Signs are fixed (largest component positive), so that
        names mean the same on every machine.
    """
    values, vectors = np.linalg.eigh(covariance)
    shifts = np.swapaxes(vectors * np.sqrt(np.maximum(values, 0.0))[..., np.newaxis, :], -1, -2)[..., ::-1, :]
    largest = np.take_along_axis(shifts, np.abs(shifts).argmax(axis=-1)[..., np.newaxis], axis=-1)
    oriented: Float64 = shifts * np.where(largest < 0, -1.0, 1.0)
    return oriented
