"""Spectra smoothed by exp(polynomial): a weighted least-squares fit of ln N.

The logarithm is linearised at the fit itself, ln N = ln mu + (N - mu) / mu, and the weights mu^2 / V are those of the
expected events, so the fit is iterated. For many events that is the fit of ln N with the weights N^2 / V; for few it
has no bias, as no weight knows of a fluctuation, and a bin that is empty or that a subtraction made negative counts
like any other: it needs no logarithm. Without a background it is the maximum of the Poisson likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
from numpy.polynomial.chebyshev import chebvander
from numpy.typing import NDArray

from binworks.tensors.histogram import Float64

Bools = NDArray[np.bool_]

LARGEST_STEP = 2.0
"""Change of ln mu in one iteration, at most: far from the solution the linear step is too long."""
CAREFUL_STEPS, MOST_STEPS = 6, 100
"""Iterations with fixed weights, before Newton's; in all."""
PRECISION = 1e-11
"""Of ln mu, where the iteration ends."""
LARGEST_LOG = 20.0
"""Of events per unit; a row that gets there is not found."""
SMALLEST = 1e-9
"""Events that are next to none."""
NARROWEST = 0.1
"""Spread of shapes, at least."""
OPEN = 0.5
"""Uncertainty of ln mu above which a curve is left open."""


@dataclass(frozen=True)
class Spectra:
    """What is smoothed: events minus background, row by row.

    Parameters
    ----------
    observed, observed_variance : arrays, shape (rows, bins)
        Events, and their sum of squared weights.
    background, background_variance : arrays, shape (rows, bins)
        What is subtracted.
    """

    observed: Float64
    observed_variance: Float64
    background: Float64
    background_variance: Float64

    def of(self, rows: NDArray[np.int64]) -> Spectra:
        """Return some rows."""
        return Spectra(*(getattr(self, part.name)[rows] for part in fields(self)))

    @property
    def values(self) -> Float64:
        """What is left after subtraction."""
        return self.observed - self.background

    def together(self) -> Spectra:
        """Return the sum of all rows, one row."""
        return Spectra(*(getattr(self, part.name).sum(axis=0, keepdims=True) for part in fields(self)))

    @cached_property
    def ratio(self) -> Float64:
        """Each row's mean ratio of variance to content: 1 for data, their weight for weighted events."""
        total, spread = self.observed.sum(axis=-1), self.observed_variance.sum(axis=-1)
        ratio: Float64 = np.divide(spread, total, out=np.ones_like(total), where=(total > 0) & (spread > 0))
        return ratio

    def variance(self, expected: Float64) -> Float64:
        """Return the variance of `values` if so much were expected."""
        events = expected + np.maximum(self.background, 0.0)
        variance: Float64 = self.ratio[:, np.newaxis] * events + self.background_variance
        return variance


@dataclass(frozen=True)
class Smoothed:
    """The fitted polynomials of some rows.

    Parameters
    ----------
    basis : array, shape (bins, terms)
        Chebyshev polynomials at the bins' centres, which lie within -1 and 1.
    coefficients : array, shape (rows, terms)
        ln(events per unit of the axis) = basis @ coefficients.
    covariance : array, shape (rows, terms, terms)
    projection : array, shape (rows, terms, bins)
        Change of the coefficients by change of the content of a bin, weights fixed.
    found : boolean array, shape (rows,)
        False where there were too few events to find a curve.
    """

    basis: Float64
    coefficients: Float64
    covariance: Float64
    projection: Float64
    found: Bools


@dataclass(frozen=True)
class _Problem:
    """A fit; ``precision`` (rows, terms) is that of the shape's prior ``centre``, 0 where there is none."""

    spectra: Spectra
    basis: Float64
    widths: Float64
    centre: Float64
    precision: Float64

    def of(self, rows: NDArray[np.int64]) -> _Problem:
        """Return the same of some rows."""
        return replace(
            self, spectra=self.spectra.of(rows), centre=self.centre[rows], precision=self.precision[rows]
        )

    def expected(self, coefficients: Float64) -> tuple[Float64, Float64]:
        """Return the expected events and the weights of their logarithms."""
        mu = self.widths * np.exp(np.clip(coefficients @ self.basis.T, -LARGEST_LOG, LARGEST_LOG))
        return mu, mu**2 / self.spectra.variance(mu)

    def information(self, weights: Float64) -> Float64:
        """Return the inverse of the coefficients' covariance."""
        matrix: Float64 = np.einsum("rb,bs,bt->rst", weights, self.basis, self.basis)
        matrix += self.precision[..., np.newaxis] * np.eye(self.basis.shape[1])
        return matrix

    def slope(self, weights: Float64, residuals: Float64, coefficients: Float64) -> Float64:
        """Return what vanishes at the solution."""
        events: Float64 = np.einsum("rb,bt->rt", weights * residuals, self.basis)
        return events + self.precision * (self.centre - coefficients)

    def step(self, coefficients: Float64, iteration: int) -> Float64:
        """Return the change of the coefficients that leads nearer to the solution.

        The weights change with the coefficients. At first that is left out, which leads near from anywhere but may
        circle about the solution; then, where the curvature that includes it is positive, it is Newton's step.
        """
        mu, weights = self.expected(coefficients)
        residuals = (self.spectra.values - mu) / mu
        matrix = self.information(weights)
        if iteration >= CAREFUL_STEPS:
            share = 1 - self.spectra.ratio[:, np.newaxis] * mu / self.spectra.variance(mu)
            curved = self.information(weights * (1 - residuals * share))
            positive = np.linalg.eigvalsh(curved)[:, 0] > 0
            matrix = np.where(positive[:, np.newaxis, np.newaxis], curved, 2 * matrix)
        return _solved(matrix, self.slope(weights, residuals, coefficients))


def _solved(matrices: Float64, vectors: Float64) -> Float64:
    """Solve row by row; where there are no events the matrix would be singular."""
    regular = matrices + SMALLEST * np.eye(matrices.shape[-1])
    return np.asarray(np.linalg.solve(regular, vectors[..., np.newaxis])[..., 0], np.float64)


def chebyshev(edges: Float64, degree: int) -> Float64:
    """Return T_0 .. T_degree at the centres of the bins, shape (bins, degree + 1); the edges' range is -1 to 1."""
    centres = (edges[1:] + edges[:-1]) / 2
    basis: Float64 = chebvander(2 * (centres - edges[0]) / (edges[-1] - edges[0]) - 1, degree)
    return basis


def smooth(spectra: Spectra, edges: Float64, degree: int) -> Smoothed:
    """Fit exp(polynomial) to each row.

    Parameters
    ----------
    spectra : Spectra
    edges : array, shape (bins + 1,)
        Finite edges of the bins, of which there must be more than the degree.
    degree : int
        Of the polynomial.
    """
    none = np.zeros((len(spectra.observed), degree + 1))
    return _fit(_Problem(spectra, chebyshev(edges, degree), np.diff(edges), none, none))


def smooth_alike(spectra: Spectra, edges: Float64, degree: int) -> tuple[Smoothed, Bools]:
    """Fit exp(polynomial) to each row; a row with too few events for it borrows its shape from all rows together.

    Where the events leave the curve open (no fit, or ln mu uncertain by more than `OPEN` in a bin), the coefficients
    but the first get a Gaussian prior: the curve of the sum of all rows, and the spread of the rows about it.

    Returns
    -------
    Smoothed
    boolean array, shape (rows,)
        Which rows borrowed.
    """
    alone = smooth(spectra, edges, degree)
    variance = np.einsum("bs,rst,bt->rb", alone.basis, alone.covariance, alone.basis)
    borrows = ~alone.found | (variance.max(axis=-1) > OPEN**2)
    together = smooth(spectra.together(), edges, degree)
    if degree == 0 or len(borrows) == 1 or not borrows.any() or not together.found[0]:
        return alone, np.zeros_like(borrows)
    centre = np.broadcast_to(together.coefficients, alone.coefficients.shape)
    width = _spread(alone, centre) + np.diagonal(together.covariance[0])
    precision = np.append(0.0, 1 / width[1:])
    some = _Problem(spectra, alone.basis, np.diff(edges), centre, np.broadcast_to(precision, centre.shape))
    rows = np.flatnonzero(borrows)
    for name, parts in vars(_fit(some.of(rows))).items():
        if name != "basis":
            getattr(alone, name)[rows] = parts
    return alone, borrows


def _spread(rows: Smoothed, centre: Float64) -> Float64:
    """Return the variance of the rows' true coefficients about the centre; shape (terms,)."""
    variances = np.where(rows.found[:, np.newaxis], np.diagonal(rows.covariance, axis1=1, axis2=2), np.inf)
    least = NARROWEST**2
    weights = 1 / (variances + least) ** 2
    beyond = np.where(np.isfinite(variances), (rows.coefficients - centre) ** 2 - variances, 0.0)
    total = np.maximum(weights.sum(axis=0), np.finfo(float).tiny)
    spread: Float64 = np.maximum((weights * beyond).sum(axis=0) / total, least)
    return spread


def _fit(problem: _Problem) -> Smoothed:
    basis = problem.basis
    coefficients = _start(problem)
    found = np.zeros(len(coefficients), np.bool_)
    for iteration in range(MOST_STEPS):
        rows = np.flatnonzero(~found)
        if not len(rows):
            break
        change = problem.of(rows).step(coefficients[rows], iteration)
        changed = np.abs(change @ basis.T).max(axis=-1)
        length = np.minimum(1.0, LARGEST_STEP / np.maximum(changed, PRECISION))
        coefficients[rows] += change * length[:, np.newaxis]
        found[rows] = changed < PRECISION
    mu, weights = problem.expected(coefficients)
    information = np.where(
        found[:, np.newaxis, np.newaxis], problem.information(weights), np.eye(basis.shape[1])
    )
    covariance = np.asarray(np.linalg.inv(information), np.float64)
    projection = np.einsum("rst,bt,rb->rsb", covariance, basis, weights / mu)
    return Smoothed(basis, coefficients, covariance, projection, found)


def _start(problem: _Problem) -> Float64:
    """Return the fit of ln N, where a bin that has next to nothing is set to half its uncertainty."""
    spectra = problem.spectra
    least = np.sqrt(spectra.variance(np.maximum(spectra.values, 1.0))) / 2
    values = np.maximum(spectra.values, least)
    weights = values**2 / spectra.variance(values)
    slope = problem.slope(weights, np.log(values / problem.widths), np.zeros_like(problem.centre))
    return _solved(problem.information(weights), slope)
