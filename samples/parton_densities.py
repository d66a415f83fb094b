"""Parton densities of the proton, tabulated from Pythia's evaluators and interpolated for many events at once.

Next to the generator's own set there are alternative ones, and a family of 29 smooth deformations of the densities,
``f_i(x) -> f_i(x) (1 + d_k(i, x))``, which play the role of the eigenvectors of a Hessian set: each direction changes
a combination of flavours (all quarks, the sea, up against down, ...) by a Chebyshev polynomial in log x.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from binworks.samples.arrays import Float64, Int64
from binworks.samples.generator import GENERATOR_PDF, proton

ALTERNATIVES = (17, 14, 20)
"""Pythia's numbers of NNPDF3.1 LO with alpha_s 0.130, NNPDF2.3 LO with 0.119, NNPDF3.1 NNLO."""
EIGENVECTORS = 29

_QUARKS = np.array([-5, -4, -3, -2, -1, 1, 2, 3, 4, 5])
_LOG_X = np.linspace(np.log(1e-6), 0.0, 400)
_LOG_Q = np.linspace(np.log(4.0), np.log(26_000.0), 24)
_SMALLEST = 1e-12  # a density is not below this times 1, so that ratios stay finite
_SIZE = 0.007
_Z_MASS = 91.1876

# what a direction does to bbar, cbar, sbar, ubar, dbar, d, u, s, c, b
_DIRECTIONS = np.array(
    [
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],  # all quarks
        [0.5, 0.5, 1.0, 1.0, 1.0, -0.3, -0.3, 1.0, 0.5, 0.5],  # sea against valence
        [0.0, 0.0, 0.0, 0.3, -0.3, -1.0, 1.0, 0.0, 0.0, 0.0],  # up against down
        [0.0, 0.0, 0.0, 1.0, -1.0, -0.2, 0.2, 0.0, 0.0, 0.0],  # their antiquarks
        [0.0, 0.2, 2.0, -0.3, -0.3, -0.1, -0.1, 2.0, 0.2, 0.0],  # strange
        [2.0, 2.0, -0.2, -0.2, -0.2, -0.1, -0.1, -0.2, 2.0, 2.0],  # heavy quarks
        [0.0, 0.0, -0.5, -0.5, -0.5, 0.8, 0.8, 0.5, 0.0, 0.0],  # quarks against antiquarks
    ]
)
_ORDERS = 4


@dataclass(frozen=True)
class DensityTable:
    """x f(x, Q) of one set on a grid.

    Parameters
    ----------
    values : array, shape (10 quarks, log x, log Q)
    """

    values: Float64

    def xf(self, ids: Int64, x: Float64, q: Float64) -> Float64:
        """Return x f for each parton, bilinear in log x and log Q; arrays of one shape."""
        flavour = np.searchsorted(_QUARKS, ids)
        i, u = _place(np.log(x), _LOG_X)
        j, v = _place(np.log(q), _LOG_Q)
        t = self.values
        low = t[flavour, i, j] * (1 - u) + t[flavour, i + 1, j] * u
        high = t[flavour, i, j + 1] * (1 - u) + t[flavour, i + 1, j + 1] * u
        return np.maximum(low * (1 - v) + high * v, _SMALLEST)


@cache
def density_table(pdf: int = GENERATOR_PDF) -> DensityTable:
    """Return a set, tabulated; ``pdf`` is its number in Pythia's list of proton sets."""
    evaluate = proton(pdf).xf
    xs, scales = np.exp(_LOG_X).tolist(), np.exp(2 * _LOG_Q).tolist()
    return DensityTable(
        np.array([[[evaluate(i, x, s) for s in scales] for x in xs] for i in _QUARKS.tolist()])
    )


def deformations(ids: Int64, x: Float64) -> Float64:
    """Return d_k(i, x) of the 29 directions; shape (n, 29) for ids and x of shape (n,)."""
    flavour = np.searchsorted(_QUARKS, ids)
    position = np.clip(1.0 + np.log(x) / 5.0, -1.0, 1.0)  # -1 at x = 5e-5, +1 at x = 1
    polynomials = np.stack(
        [np.ones_like(position), position, 2 * position**2 - 1, 4 * position**3 - 3 * position], axis=1
    )
    sizes = _SIZE / (1.0 + np.arange(_ORDERS))
    strengths = _DIRECTIONS.T[flavour]
    grid = strengths[:, :, None] * (sizes * polynomials)[:, None, :]
    last = _SIZE / 5 * strengths[:, :1] * polynomials[:, 1:2] * polynomials[:, 3:4]
    return np.concatenate([grid.reshape(len(x), EIGENVECTORS - 1), last], axis=1)


def alpha_s_response(table: DensityTable, ids: Int64, x: Float64, q: Float64, change: float) -> Float64:
    """Return d ln f for a change of alpha_s(m_Z), the densities kept at Q0 = 5 GeV.

    The densities evolve in t = ln(alpha_s(Q0) / alpha_s(Q)) / b, so that, to leading order, another coupling is another
    length of evolution: df = (df / d ln Q^2) (d t) / (alpha_s(Q) / 2 pi), with alpha_s running at one loop.
    """
    step = 1.05
    slope = np.log(table.xf(ids, x, q * step) / table.xf(ids, x, q / step)) / (4 * np.log(step))
    at_z, b = 0.118, 23.0 / (12.0 * np.pi)

    def running(scale: Float64) -> Float64:
        result: Float64 = at_z / (1.0 + 2.0 * b * at_z * np.log(scale / _Z_MASS))
        return result

    here = running(q)
    start = running(np.full(1, 5.0))
    result: Float64 = slope * (start - here) / (b * here) * change / at_z**2
    return result


def _place(values: Float64, grid: Float64) -> tuple[Int64, Float64]:
    """Return the cell and the fraction within it on a uniform grid; outside, the nearest point."""
    position = np.clip((values - grid[0]) / (grid[1] - grid[0]), 0.0, len(grid) - 1.000001)
    cell = position.astype(np.int64)
    return cell, position - cell
