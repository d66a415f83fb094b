"""Spectra smoothed by exp(polynomial): a weighted least-squares fit of ln N.

The logarithm is linearised at the fit itself, ln N = ln mu + (N - mu) / mu, and the weights mu^2 / V are those of the
expected events, so the fit is iterated. For many events that is the fit of ln N with the weights N^2 / V; for few it
has no bias, as no weight knows of a fluctuation, and a bin that is empty or that a subtraction made negative counts
like any other: it needs no logarithm. Without a background it is the maximum of the Poisson likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial.chebyshev import chebvander
from numpy.typing import NDArray

from binworks.tensors.histogram import Float64

Bools = NDArray[np.bool_]

LARGEST_STEP = 2.0
"""Change of ln mu in one iteration, at most: far from the solution the linear step is too long."""
WHOLE_STEPS, MOST_STEPS = 25, 150
"""Iterations with the whole step, and in all: what circles about its solution is led there by half steps."""
PRECISION = 1e-11
"""Of ln mu, where the iteration ends."""
LARGEST_LOG = 20.0
"""Of events per unit, so that no matrix becomes singular where there are none; such a row is not found."""
NARROWEST = 0.1
"""Width of what other rows say of a shape, at least."""


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

    @property
    def values(self) -> Float64:
        """What is left after subtraction."""
        return self.observed - self.background

    def variance(self, expected: Float64) -> Float64:
        """Return the variance of `values` if so much were expected.

        An event has the row's mean ratio of variance to content: 1 for data, its weight for weighted events.
        """
        total, spread = self.observed.sum(axis=-1), self.observed_variance.sum(axis=-1)
        ratio = np.divide(spread, total, out=np.ones_like(total), where=(total > 0) & (spread > 0))
        events = expected + np.maximum(self.background, 0.0)
        variance: Float64 = ratio[:, np.newaxis] * events + self.background_variance
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

    def expected(self, coefficients: Float64) -> tuple[Float64, Float64]:
        """Return the expected events and the weights of their logarithms."""
        mu = self.widths * np.exp(np.clip(coefficients @ self.basis.T, -LARGEST_LOG, LARGEST_LOG))
        return mu, mu**2 / self.spectra.variance(mu)

    def information(self, weights: Float64) -> Float64:
        """Return the inverse of the coefficients' covariance."""
        matrix: Float64 = np.einsum("rb,bs,bt->rst", weights, self.basis, self.basis)
        matrix += self.precision[..., np.newaxis] * np.eye(self.basis.shape[1])
        return matrix

    def solve(self, weights: Float64, residuals: Float64, coefficients: Float64) -> Float64:
        """Return the change of the coefficients that the residuals of ln N ask for."""
        slope = np.einsum("rb,bt->rt", weights * residuals, self.basis)
        slope += self.precision * (self.centre - coefficients)
        change: Float64 = np.linalg.solve(self.information(weights), slope[..., np.newaxis])[..., 0]
        return change


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
    """Fit exp(polynomial) to each row; a row that has too few events for it borrows its shape from the others.

    Where the events leave the curve open (it falls to nothing at one end), its coefficients but the first get a
    Gaussian prior: mean and spread of the rows whose curves were found.

    Returns
    -------
    Smoothed
    boolean array, shape (rows,)
        Which rows borrowed.
    """
    alone = smooth(spectra, edges, degree)
    borrows = ~alone.found
    if alone.found.all() or not alone.found.any() or degree == 0:
        return alone, np.zeros_like(borrows)
    found = alone.coefficients[alone.found]
    spread = np.sqrt(found.var(axis=0) + NARROWEST**2)
    precision = borrows[:, np.newaxis] * np.append(0.0, spread[1:] ** -2)
    centre = np.broadcast_to(found.mean(axis=0), precision.shape)
    few = _Problem(spectra, alone.basis, np.diff(edges), centre, precision)
    helped = _fit(few)
    chosen = {
        name: np.where(
            borrows.reshape(-1, *[1] * (getattr(alone, name).ndim - 1)),
            getattr(helped, name),
            getattr(alone, name),
        )
        for name in ("coefficients", "covariance", "projection", "found")
    }
    return replace(alone, **chosen), borrows


def _fit(problem: _Problem) -> Smoothed:
    values, basis = problem.spectra.values, problem.basis
    coefficients = _start(problem)
    changed = np.full(len(values), np.inf)
    for iteration in range(MOST_STEPS):
        mu, weights = problem.expected(coefficients)
        change = problem.solve(weights, (values - mu) / mu, coefficients)
        changed = np.abs(change @ basis.T).max(axis=-1)
        length = np.minimum(
            1.0 if iteration < WHOLE_STEPS else 0.5, LARGEST_STEP / np.maximum(changed, PRECISION)
        )
        coefficients = coefficients + change * length[:, np.newaxis]
        if changed.max(initial=0.0) < PRECISION:
            break
    mu, weights = problem.expected(coefficients)
    covariance = np.asarray(np.linalg.inv(problem.information(weights)), np.float64)
    projection = np.einsum("rst,bt,rb->rsb", covariance, basis, weights / mu)
    return Smoothed(basis, coefficients, covariance, projection, changed < PRECISION)


def _start(problem: _Problem) -> Float64:
    """Return the fit of ln N, where a bin that has next to nothing is set to half its uncertainty."""
    spectra = problem.spectra
    least = np.sqrt(spectra.variance(np.maximum(spectra.values, 1.0))) / 2
    values = np.maximum(spectra.values, least)
    zero = np.zeros_like(problem.centre)
    return problem.solve(values**2 / spectra.variance(values), np.log(values / problem.widths), zero)
