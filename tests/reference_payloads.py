"""Payloads evaluated from their JSON documents, one number at a time and by other means than the kernels.

Tables by correctionlib, polynomials by NumPy, splines and the normal distribution by scipy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import correctionlib
import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator, RegularGridInterpolator
from scipy.optimize import brentq
from scipy.stats import norm, poisson


def bin_of(value: float, edges: Sequence[float]) -> int:
    """Return the bin among the edges, the nearest one outside."""
    return int(np.clip(np.digitize(value, edges) - 1, 0, len(edges) - 2))


def eigen_shifts(covariance: Any) -> Any:
    """Return eigenvectors (rows) times the roots of their eigenvalues, largest first, largest component positive."""
    values, vectors = np.linalg.eigh(np.array(covariance))
    rows = [vectors[:, i] * np.sqrt(max(values[i], 0.0)) for i in reversed(range(len(values)))]
    return np.array([row * (-1 if row[np.abs(row).argmax()] < 0 else 1) for row in rows])


class Table:
    """A correctionlib document with one correction."""

    def __init__(self, document: Any) -> None:
        described = document["corrections"][0]
        self.inputs = [item["name"] for item in described["inputs"]]
        self.correction = correctionlib.CorrectionSet.from_string(json.dumps(document))[described["name"]]
        content = described["data"].get("content", [])
        self.keys = [item["key"] for item in content if isinstance(item, dict)]

    def __call__(self, **inputs: Any) -> float:
        """Return the value."""
        return float(self.correction.evaluate(*[inputs[name] for name in self.inputs]))


class Efficiency:
    """A step's scale factors."""

    def __init__(self, document: Any) -> None:
        self.document = document
        self.by_charge = len(document["charges"]) == 2
        self.coefficients = np.array(document["coefficients"])
        self.shifts = np.array(
            [[eigen_shifts(matrix) for matrix in matrices] for matrices in document["covariance"]]
        )
        self.alternatives = {name: np.array(rows) for name, rows in document["alternatives"].items()}

    def place(self, eta: float, charge: float) -> tuple[int, int]:
        """Return the bins of eta and charge."""
        return bin_of(eta, self.document["eta_edges"]), int(self.by_charge and charge > 0)

    def factor(self, row: Any, place: tuple[int, int], pt: float, ut: float, *, fails: bool) -> float:
        """Return the factor of a muon with these coefficients in place of the nominal ones."""
        scale = self._polynomial(row, pt, ut)
        if not fails:
            return scale
        simulated = self._polynomial(np.array(self.document["simulated"][place[0]][place[1]]), pt, ut)
        return (1 - scale * simulated) / (1 - simulated)

    def _polynomial(self, row: Any, pt: float, ut: float) -> float:
        x = self._unit(pt, self.document["pt_range"])
        if self.document["ut_range"] is None:
            return float(np.polynomial.Polynomial(row)(x))
        y = self._unit(ut, self.document["ut_range"])
        return float(np.polynomial.polynomial.polyval2d(x, y, np.reshape(row, (4, 3))))

    @staticmethod
    def _unit(value: float, borders: Sequence[float]) -> float:
        low, high = borders
        return float(np.interp(value, [low, high], [-1, 1]))


class Prefire:
    """The probability that a muon loses the event; regions 0 to 10 are bins of abs(eta), 11 is the hot spot."""

    def __init__(self, document: Any) -> None:
        self.document = document

    def probability(self, pt: float, eta: float, phi: float) -> tuple[int | None, float]:
        """Return the region (None outside the detector) and the probability."""
        spot = self.document["hot_spot"]
        if spot["eta"][0] < eta < spot["eta"][1] and spot["phi"][0] < phi < spot["phi"][1]:
            return 11, self._fermi(pt, spot["plateau"], spot["middle"], spot["slope"])
        edges = self.document["eta_edges"]
        if not edges[0] <= abs(eta) < edges[-1]:
            return None, 0.0
        region = bin_of(abs(eta), edges)
        return region, self._fermi(
            pt, *[self.document[name][region] for name in ("plateau", "middle", "slope")]
        )

    def uncertainty(self, region: int) -> float:
        """Return the region's own, relative to its plateau."""
        spot = self.document["hot_spot"]
        return float(spot["uncertainty"] if region == 11 else self.document["uncertainty"][region])

    @staticmethod
    def _fermi(pt: float, plateau: float, middle: float, slope: float) -> float:
        return float(plateau / (np.exp((pt - middle) / slope) + 1))


class Scale:
    """The momentum scale: k = 1/pT becomes k (1 + A - e k + q M / k)."""

    def __init__(self, document: Any, kind: str) -> None:
        self.edges = document["eta_edges"]
        self.parameters = document[kind]

    def corrected(self, pt: float, eta: float, charge: float) -> float:
        """Return pT after the correction; unchanged outside the eta bins."""
        if not self.edges[0] <= eta < self.edges[-1]:
            return pt
        a, e, m = (self.parameters[name][bin_of(eta, self.edges)] for name in ("A", "e", "M"))
        k = 1 / pt
        return 1 / (k * (1 + a - e * k + charge * m / k))


class Resolution:
    """Relative widths of k = 1/pT in data and simulation."""

    def __init__(self, document: Any) -> None:
        self.document = document
        self.edges = document["eta_edges"]

    def width(self, kind: str, k: float, eta: float) -> float:
        """Return sigma / k."""
        b = bin_of(eta, self.edges)
        p = {name: self.document[kind][name][b] for name in "abcd"}
        squared = p["a"] ** 2 + (p["c"] / k) ** 2 + p["b"] ** 2 / (1 + (p["d"] * k) ** 2)
        return float(np.sqrt(squared))

    def smeared(self, pt: float, eta: float, gauss: float) -> float:
        """Return simulated pT with the part of data's width that it lacks; unchanged outside the eta bins."""
        if not self.edges[0] <= eta < self.edges[-1]:
            return pt
        k = 1 / pt
        lacking = self.width("data", k, eta) ** 2 - self.width("mc", k, eta) ** 2
        return 1 / (k * (1 + np.sqrt(max(lacking, 0.0)) * gauss))


class Response:
    """The density of r = (q/p)_reco / (q/p)_gen: its normal score is a natural cubic spline through the quantiles."""

    def __init__(self, document: Any) -> None:
        self.document = document
        scores = norm.ppf(document["probabilities"])
        self.splines = [
            [[CubicSpline(row, scores, bc_type="natural") for row in by_charge] for by_charge in by_eta]
            for by_eta in document["quantiles"]
        ]

    def scores(self, pt: float, eta: float, charge: float, r: float) -> tuple[float, float]:
        """Return d ln p / d scale and d ln p / d variance at r, given the generated pT (GeV), eta and charge."""
        z = self.splines[bin_of(pt, self.document["gen_pt_edges"])][
            bin_of(eta, self.document["gen_eta_edges"])
        ][int(charge > 0)]
        r = np.clip(r, z.x[0], z.x[-1])
        z0, z1, z2, z3 = (float(z(r, order)) for order in range(4))
        first = -z0 * z1 + z2 / z1
        second = -(z1**2) - z0 * z2 + z3 / z1 - (z2 / z1) ** 2
        return -1 - r * first, (first**2 + second) / 2


def philox(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Return the four words of Philox4x32-10 (Salmon et al., SC11, doi 10.1145/2063384.2063405)."""
    word = 2**32
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, word)
        high1, low1 = divmod(0xCD9E8D57 * c2, word)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % word, (k1 + 0xBB67AE85) % word
    return [c0, c1, c2, c3]


def normal(run: int, lumi: int, event: int, index: int) -> float:
    """Return the normal number of a muon, from the first 26 bits of each of the first two words of stream 1."""
    high, low = divmod(event, 2**32)
    first, second, *_ = philox((low, high, lumi, index), (run, 1))
    bits = (first >> 6) * 2**26 + (second >> 6)
    return float(norm.ppf((bits + 0.5) / 2**52))


def poisson_counts(run: int, lumi: int, event: int, size: int) -> Any:
    """Return how often each replica has the event: four replicas share a block of stream 2, a word each."""
    high, low = divmod(event, 2**32)
    words = [philox((low, high, lumi, block), (run, 2)) for block in range((size + 3) // 4)]
    limits = np.round(2.0**32 * poisson.cdf(np.arange(20), 1.0))
    return np.searchsorted(limits, np.ravel(words)[:size], side="right")


class Quantiles:
    """A quantile function: a monotone cubic in the normal score, straight beyond the outermost quantiles.

    A straight line is as steep as the cubic where it begins, but at least a quarter as steep as the outermost secant.
    """

    def __init__(self, scores: Any, values: Any) -> None:
        self.scores, self.values = np.asarray(scores), np.asarray(values)
        self.inside = PchipInterpolator(self.scores, self.values)
        secants = np.diff(self.values) / np.diff(self.scores)
        self.tails = [max(float(self.inside(self.scores[i], 1)), 0.25 * float(secants[i])) for i in (0, -1)]

    def at(self, t: float) -> float:
        """Return the quantile of a score."""
        for i, outside in ((0, t < self.scores[0]), (-1, t > self.scores[-1])):
            if outside:
                return float(self.values[i] + self.tails[i] * (t - self.scores[i]))
        return float(self.inside(t))

    def score(self, u: float) -> float:
        """Return the score whose quantile is u."""
        for i, outside in ((0, u <= self.values[0]), (-1, u >= self.values[-1])):
            if outside:
                return float(self.scores[i] + (u - self.values[i]) / self.tails[i])
        return float(
            brentq(lambda t: self.inside(t) - u, self.scores[0], self.scores[-1], xtol=1e-15, rtol=1e-15)
        )


class Recoil:
    """Morphs u = (along, across) of simulation into that of data, component by component.

    Shift and score are tabulated at 801 points of u, from the least to the greatest quantile of a score of 5 (or of the
    outermost one), at each knot of boson pT and of the score of the component before; linear in between.
    """

    def __init__(self, document: Any) -> None:
        self.knots = np.array(document["boson_pt"])
        scores = norm.ppf(document["probabilities"])
        self.farthest = max(5.0, *np.abs(scores))
        self.tables = [self._tables(scores, component) for component in document["components"]]

    def morphed(self, boson_pt: float, along: float, across: float) -> tuple[float, float]:
        """Return both components after morphing (GeV)."""
        if not np.isfinite([boson_pt, along, across]).all():
            return np.nan, np.nan
        condition, found = [boson_pt], []
        for u, (shift, score) in zip((along, across), self.tables, strict=True):
            depth = len(shift.grid) - 1
            place = [*condition[:depth], u]
            inside = [np.clip(x, axis[0], axis[-1]) for x, axis in zip(place, shift.grid, strict=True)]
            found.append(u + float(shift(inside)[0]))
            condition.append(float(score(inside)[0]))
        return found[0], found[1]

    def _tables(self, scores: Any, component: Any) -> tuple[RegularGridInterpolator, RegularGridInterpolator]:
        axes = [self.knots, *(np.array(knots) for knots in component["given"])]
        shape = tuple(len(axis) for axis in axes)
        data, simulation = (
            [Quantiles(scores, row) for row in np.reshape(component[side], (-1, len(scores)))]
            for side in ("data", "mc")
        )
        low = min(curve.at(-self.farthest) for curve in simulation)
        high = max(curve.at(self.farthest) for curve in simulation)
        grid = np.linspace(low, high, 801)
        score = np.array([[curve.score(u) for u in grid] for curve in simulation])
        shift = np.array([[curve.at(t) for t in row] for curve, row in zip(data, score, strict=True)]) - grid
        same = [np.array_equal(d.values, s.values) for d, s in zip(data, simulation, strict=True)]
        shift[same] = 0.0
        axes.append(grid)
        return tuple(RegularGridInterpolator(axes, table.reshape(*shape, -1)) for table in (shift, score))
