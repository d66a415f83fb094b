"""Response of the muon momentum: the density of r = (q/p)_reco / (q/p)_gen in bins of generated pT, eta and charge.

The payload has quantiles of r. Their normal scores Phi^-1(p), as a natural cubic spline z(r) with two continuous
derivatives, give the distribution function Phi(z(r)) and the density p with ln p = -z^2/2 + ln z' + constant. From it
follows what a small change of scale or width does to the weight of an event, where it stands.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from binworks.corrections.payload import Document, read_document
from binworks.corrections.quantiles import normal_scores, rising
from binworks.corrections.sets import CorrectionSet
from binworks.tensors.errors import PayloadError
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import clamped_bin

KIND = "response"
LEAST_QUANTILES = 5


class ResponseDocument(Document):
    """The payload."""

    schema_: Literal["binworks.response/1"] = Field(alias="schema")
    gen_pt_edges: list[float]
    gen_eta_edges: list[float]
    charges: tuple[Literal[-1], Literal[1]]
    probabilities: list[float]
    quantiles: list[list[list[list[float]]]]


class Response(NamedTuple):
    """What the kernel needs: edges (GeV; eta), n quantiles of r in each bin, and z(r) between them.

    ``knots`` has shape (pt, eta, 2 charges -1 and 1, n), ``coefficients`` (pt, eta, 2, n - 1, 4):
    z = c0 + c1 x + c2 x^2 + c3 x^3, x = r - knot.
    """

    pt_edges: Float64
    eta_edges: Float64
    knots: Float64
    coefficients: Float64


def load(corrections: CorrectionSet) -> Response:
    """Return the splines.

    Raises
    ------
    PayloadError
        If the payload is wrong, or if a spline falls between two quantiles.
    """
    document = read_document(ResponseDocument, corrections, KIND, KIND)
    where = f"{corrections.name}/{KIND}"
    pt_edges = _edges(document.gen_pt_edges, f"{where}: gen_pt_edges")
    eta_edges = _edges(document.gen_eta_edges, f"{where}: gen_eta_edges")
    probits = normal_scores(document.probabilities, LEAST_QUANTILES, f"{where}: probabilities")
    shape = (len(pt_edges) - 1, len(eta_edges) - 1, 2, len(probits))
    knots = rising(document.quantiles, shape, f"{where}: quantiles")
    coefficients = natural_spline(knots, probits)
    falling = np.argwhere(_least_slope(knots, coefficients) <= 0)
    if len(falling):
        pt, eta, charge, j = falling[0].tolist()
        raise PayloadError(
            f"The spline falls between quantiles {j} and {j + 1} of bin ({pt}, {eta}), charge {2 * charge - 1}.",
            code="bad-payload",
            where=f"{where}: quantiles",
            hint="Take fewer or smoother quantiles.",
        )
    return Response(pt_edges, eta_edges, knots, coefficients)


def identity() -> Response:
    """Return a Gaussian response of 1 %, for jobs without a payload: they have no use for its scores."""
    edges, pulls = np.array([0.0, 1.0]), np.linspace(-3.0, 3.0, LEAST_QUANTILES)
    knots = np.tile(1.0 + 0.01 * pulls, (1, 1, 2, 1))
    return Response(edges, edges, knots, natural_spline(knots, pulls))


def _edges(values: list[float], where: str) -> Float64:
    if len(values) < 2:
        raise PayloadError(f"Expected two edges or more, got {len(values)}.", code="wrong-axes", where=where)
    return rising(values, (len(values),), where)


def natural_spline(knots: Float64, values: Float64) -> Float64:
    """Return the pieces' coefficients, shape (..., n - 1, 4), of natural cubic splines through values at the knots.

    Parameters
    ----------
    knots : array (..., n)
        Rising, three at least.
    values : array (n,)
        The same for all splines.
    """
    h = np.diff(knots)
    slope = np.diff(values) / h
    bend = np.zeros(knots.shape)  # second derivatives: zero at both ends
    diagonal, right = 2 * (h[..., :-1] + h[..., 1:]), 6 * np.diff(slope)
    inner = diagonal.shape[-1]
    for j in range(1, inner):  # elimination, then back substitution, of the tridiagonal equations
        ratio = h[..., j] / diagonal[..., j - 1]
        diagonal[..., j] -= ratio * h[..., j]
        right[..., j] -= ratio * right[..., j - 1]
    for j in range(inner - 1, -1, -1):
        bend[..., j + 1] = (right[..., j] - h[..., j + 1] * bend[..., j + 2]) / diagonal[..., j]
    pieces = (
        np.broadcast_to(values[:-1], h.shape),
        slope - h * (2 * bend[..., :-1] + bend[..., 1:]) / 6,
        bend[..., :-1] / 2,
        np.diff(bend) / (6 * h),
    )
    return np.ascontiguousarray(np.stack(pieces, axis=-1))


def _least_slope(knots: Float64, coefficients: Float64) -> Float64:
    """Return the least slope within each piece, shape (..., n - 1): at an end, or where a parabola has its vertex."""
    h = np.diff(knots)
    c1, c2, c3 = (coefficients[..., j] for j in (1, 2, 3))
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = -c2 / (3 * c3)
    vertex = np.where((vertex > 0) & (vertex < h), vertex, 0.0)
    slopes = [c1 + 2 * c2 * x + 3 * c3 * x**2 for x in (0.0, h, vertex)]
    return np.asarray(np.minimum.reduce(slopes))


@kernel
def scores(r: float, gen_pt: float, gen_eta: float, charge: int, response: Any) -> tuple[float, float]:
    """Return how ln p changes with scale and with width: (d ln p / ds, d ln p / d(sigma^2)), both at zero.

    s is the change r -> r (1 + s), so the first is ``-1 - r l'`` with l = ln p; sigma^2 is the variance of a Gaussian
    with which p is convoluted, so the second is ``(l'^2 + l'') / 2``. The mean of either over p is zero: such a change
    moves events, it makes none. r is taken within the outermost quantiles, and the nearest bin (GeV; eta of the
    generated muon) outside the table. Not a number if r, pT or eta is none.
    """
    pt_bin = clamped_bin(gen_pt, response.pt_edges)
    eta_bin = clamped_bin(gen_eta, response.eta_edges)
    if pt_bin < 0 or eta_bin < 0 or np.isnan(r):
        return np.nan, np.nan
    sign = 1 if charge > 0 else 0
    knots = response.knots[pt_bin, eta_bin, sign]
    last = len(knots) - 1
    inside = min(max(np.float64(r), knots[0]), knots[last])
    piece = clamped_bin(inside, knots)
    c = response.coefficients[pt_bin, eta_bin, sign, piece]
    x = inside - knots[piece]
    z = c[0] + x * (c[1] + x * (c[2] + x * c[3]))
    z1 = c[1] + x * (2.0 * c[2] + x * 3.0 * c[3])
    z2 = 2.0 * c[2] + 6.0 * c[3] * x
    bend = z2 / z1
    first = bend - z * z1
    second = 6.0 * c[3] / z1 - bend * bend - z1 * z1 - z * z2
    return -1.0 - inside * first, 0.5 * (first * first + second)
