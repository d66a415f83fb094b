"""What a variation group is, and the few ways in which groups become nuisances.

Two layouts of a muon's own variations: where the muon's eta (and charge) is an axis of the histogram, its columns are
few and the expansion looks at the cell's place (``own``); where it is not, as for two muons, the columns carry the eta
bin and charge themselves (``spread``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from binworks.tensors.axes import ETA_BINS, column_axis
from binworks.tensors.expansion import Expansion, Nuisance
from binworks.tensors.histogram import Float64, Histogram

Layout = Literal["own", "spread"]
CHARGES = ("minus", "plus")


@dataclass(frozen=True)
class VariationGroup:
    """A group: the compact columns that the kernel fills, and how they become variations.

    Parameters
    ----------
    columns : tuple of str
        What each column sums.
    expansion : Expansion
        Its ``group`` is the group's name, its ``block`` that of the compact histogram.
    """

    columns: tuple[str, ...]
    expansion: Expansion

    @property
    def name(self) -> str:
        """The group's name."""
        return self.expansion.group

    def block(self, axes: Sequence[Any]) -> Histogram:
        """Return the empty compact histogram over the nominal axes."""
        return Histogram.zeros([*axes, column_axis(self.columns)])


def dense_group(name: str, variations: Sequence[str], nuisances: Sequence[Nuisance]) -> VariationGroup:
    """Return a group whose columns are the variations themselves: true event-by-event weights."""
    identity = np.eye(len(variations))
    return VariationGroup(tuple(variations), Expansion.dense(name, variations, nuisances, identity, base=0.0))


def symmetrised_group(name: str, columns: Sequence[str], averaged: Sequence[str] = ()) -> VariationGroup:
    """Return a group of full weights whose asymmetric pairs become two nuisances of the same variance.

    A pair NameUp, NameDown becomes ``NameSymAvg`` (nominal + (up - down) / 2) and ``NameSymDiff`` (the mean of up and
    down), each mirrored; the names in ``averaged`` keep their up and down templates and are one nuisance; a column
    without a partner is one nuisance, mirrored.
    """
    known = {column: i for i, column in enumerate(columns)}
    variations, rows, base = list(columns), [*np.eye(len(columns))], [0.0] * len(columns)
    nuisances = []
    for nuisance in paired_nuisances(name, columns):
        if nuisance.down is None or nuisance.name in averaged:
            nuisances.append(nuisance)
            continue
        for suffix, sign in (("SymAvg", -0.5), ("SymDiff", 0.5)):
            row = np.zeros(len(columns))
            row[known[nuisance.up]], row[known[nuisance.down]] = 0.5, sign
            rows.append(row)
            base.append(1.0 if sign < 0 else 0.0)
            variations.append(f"{nuisance.name}{suffix}")
            nuisances.append(Nuisance(variations[-1], name, variations[-1]))
    expansion = Expansion.dense(name, variations, nuisances, np.array(rows), base=np.array(base))
    return VariationGroup(tuple(columns), expansion)


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


def mirrored(group: str, names: Sequence[str]) -> list[Nuisance]:
    """Return a nuisance for each template; down is the mirror of up."""
    return [Nuisance(name, group, name) for name in names]


def ratio_group(name: str, prefix: str, sources: Sequence[str], layout: Layout) -> VariationGroup:
    """Return a group of ratios by muon: for each source one nuisance an eta bin, and one for all bins together.

    Columns are the deviations w (ratio - 1). ``own``: one column a source. ``spread``: for each source 48 eta bins and
    then the product over all muons, so that the product of two muons is exact.

    Parameters
    ----------
    name, prefix : str
        Of the group, and of its templates ``{prefix}{source}eta{e}`` and ``{prefix}{source}all``.
    sources : sequence of str
        What the ratios are of; each ends in an underscore or is empty.
    layout : "own" or "spread"
    """
    places = [*(f"eta{e}" for e in range(ETA_BINS)), "all"]
    names = [f"{prefix}{source}{place}" for source in sources for place in places]
    if layout == "spread":
        expansion = Expansion.dense(name, names, mirrored(name, names), np.eye(len(names)), base=1.0)
        return VariationGroup(tuple(names), expansion)
    coefficients = np.zeros((len(sources), ETA_BINS + 1, ETA_BINS, len(sources)))
    for s in range(len(sources)):
        coefficients[s, :ETA_BINS, :, s] = np.eye(ETA_BINS)
        coefficients[s, ETA_BINS, :, s] = 1.0
    full = coefficients.reshape(len(names), ETA_BINS, len(sources))
    expansion = Expansion.dense(name, names, mirrored(name, names), full, block_axes=("eta",), base=1.0)
    return VariationGroup(tuple(f"{prefix}{source}ratio-1" for source in sources), expansion)


def linear_group(
    name: str,
    names: Sequence[str],
    shifts: Float64,
    columns: Sequence[str],
    layout: Layout,
    block: str | None = None,
) -> VariationGroup:
    """Return a group whose templates are nominal + sum over eta bins and columns of shift times derivative.

    Parameters
    ----------
    shifts : array, shape (names, 48 eta, columns)
        Of each template.
    """
    nuisances = mirrored(name, names)
    if layout == "own":
        expansion = Expansion.dense(
            name, names, nuisances, shifts, block_axes=("eta",), base=1.0, block=block
        )
        return VariationGroup(tuple(columns), expansion)
    expansion = Expansion.dense(name, names, nuisances, shifts.reshape(len(names), -1), base=1.0, block=block)
    return VariationGroup(tuple(f"eta{e}:{column}" for e in range(ETA_BINS) for column in columns), expansion)


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
