"""Recoil of the hadrons against the boson: simulation is morphed so that its quantiles become those of data.

u has components, the first parallel to the boson's transverse momentum, the second perpendicular to it. They are
morphed one after the other (Knothe-Rosenblatt): at boson pT z, component n has the score t_n = Phi^-1(F_mc(u_n | z,
t_1 .. t_n-1)) and becomes u'_n = Q_data(t_n | z, t_1 .. t_n-1). The scores of earlier components are what data and
simulation have in common.

Between the quantiles given, Q is a monotone cubic in the score (F. N. Fritsch and J. Butland, SIAM J. Sci. Stat.
Comput. 5 (1984) 300), beyond them a straight line. The score t and the shift u' - u are tabulated at each knot of (z,
t_1 .. t_n-1) on a grid of u, and interpolated linearly in all of them. A mean of rising functions rises, so u'_n rises
with u_n everywhere. The grid adds no more than h^2/8 times the shift's second derivative, for a step h: below 0.01 GeV
if a few dozen quantiles describe a smooth distribution.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from binworks.corrections.payload import Document, read_document
from binworks.corrections.quantiles import normal_scores, rising
from binworks.corrections.sets import CorrectionSet
from binworks.tensors.errors import PayloadError
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel

KIND = "recoil"
COMPONENTS = ("parallel", "perpendicular")
LEAST_QUANTILES = 5
POINTS = 801
"""Of the grid of u."""
FARTHEST_SCORE = 5.0
"""The grid reaches from the least to the greatest simulated u of this score; beyond, shift and score stay as there."""
LEAST_TAIL = 0.25
"""The straight line is as steep as the spline where it begins, but at least this part of the outermost secant."""

Int64 = NDArray[np.int64]


class ComponentDocument(Document):
    """Quantiles of one component, in data and simulation."""

    name: str
    given: list[list[float]]
    data: list[Any]
    mc: list[Any]


class RecoilDocument(Document):
    """The payload."""

    schema_: Literal["binworks.recoil/1"] = Field(alias="schema")
    boson_pt: list[float]
    probabilities: list[float]
    components: list[ComponentDocument]


class Recoil(NamedTuple):
    """What the kernel needs, for n components; none at all changes nothing.

    ``boson_pt`` (GeV) are the knots in z. Those of component c in the score of an earlier component e are
    ``knots[begin[c, e] : end[c, e]]``. The grid of u is ``low + step * arange(POINTS)`` (GeV), each of shape (n,).
    ``shift`` (GeV) and ``score`` have a row of ``POINTS`` for each place in (z, t_1, ..); component c's begin at
    row ``row[c]``; the last component has no ``score``, as nothing depends on it.
    """

    boson_pt: Float64
    knots: Float64
    begin: Int64
    end: Int64
    low: Float64
    step: Float64
    row: Int64
    shift: Float64
    score: Float64


class Curves(NamedTuple):
    """Quantile functions Q(t): scores (n,), quantiles and slopes of shape (rows, n), two tails' slopes (rows, 2)."""

    scores: Float64
    values: Float64
    slopes: Float64
    tails: Float64


def load(corrections: CorrectionSet, names: tuple[str, ...] = COMPONENTS) -> Recoil:
    """Return the tables of the components, which must have these names in this order.

    Raises
    ------
    PayloadError
        If the payload is wrong.
    """
    document = read_document(RecoilDocument, corrections, KIND, KIND)
    where = f"{corrections.name}/{KIND}"
    found = tuple(component.name for component in document.components)
    if found != names:
        raise PayloadError(
            f"Expected the components {list(names)}, got {list(found)}.", code="wrong-axes", where=where
        )
    boson_pt = _knots(document.boson_pt, f"{where}: boson_pt")
    scores = normal_scores(document.probabilities, LEAST_QUANTILES, f"{where}: probabilities")
    conditions, tables = [], []
    for index, component in enumerate(document.components):
        here = f"{where}: {component.name}"
        given = _conditions(component.given, index, here)
        shape = (len(boson_pt), *(len(knots) for knots in given if component.given), len(scores))
        data, simulation = (
            curves(scores, rising(quantiles, shape, f"{here}, {side}").reshape(-1, len(scores)))
            for side, quantiles in (("data", component.data), ("mc", component.mc))
        )
        conditions.append(given)
        tables.append(tabulated(data, simulation))
    return _assembled(boson_pt, conditions, tables)


def identity() -> Recoil:
    """Return a table without components, which changes nothing."""
    none, nowhere = np.zeros(0), np.zeros((0, 0), np.int64)
    return Recoil(none, none, nowhere, nowhere, none, none, np.zeros(0, np.int64), none, none)


def _knots(values: list[float], where: str) -> Float64:
    if not values:
        raise PayloadError("Expected one knot or more, got none.", code="wrong-axes", where=where)
    return rising(values, (len(values),), where)


def _conditions(given: list[list[float]], index: int, where: str) -> list[Float64]:
    """Return the knots in each earlier component's score; one knot if the component does not depend on it."""
    if len(given) not in (0, index):
        raise PayloadError(
            f"Component {index} is given none or all of the {index} earlier ones, got knots for {len(given)}.",
            code="wrong-axes",
            where=where,
        )
    return [_knots(knots, f"{where}, given") for knots in given or [[0.0]] * index]


def _assembled(
    boson_pt: Float64, conditions: list[list[Float64]], tables: list[tuple[Float64, Float64, Float64]]
) -> Recoil:
    """Lay the components' knots and tables, each (grid, shift, score), after each other."""
    n = len(tables)
    begin, end = np.zeros((n, n), np.int64), np.zeros((n, n), np.int64)
    flat: list[float] = []
    for c, given in enumerate(conditions):
        for e, knots in enumerate(given):
            begin[c, e] = len(flat)
            flat.extend(knots.tolist())
            end[c, e] = len(flat)
    rows = [len(shift) for _, shift, _ in tables]
    grids = np.array([grid for grid, _, _ in tables])
    return Recoil(
        boson_pt,
        np.array(flat, np.float64),
        begin,
        end,
        np.ascontiguousarray(grids[:, 0]),
        (grids[:, -1] - grids[:, 0]) / (POINTS - 1),
        np.cumsum([0, *rows[:-1]], dtype=np.int64),
        np.concatenate([shift.reshape(-1) for _, shift, _ in tables]),
        np.concatenate([np.zeros(0), *(score.reshape(-1) for _, _, score in tables[:-1])]),
    )


def curves(scores: Float64, values: Float64) -> Curves:
    """Return the monotone cubics through quantiles, shape (rows, n), that rise with the scores, shape (n,).

    A slope is the harmonic mean of the secants beside, weighted by the intervals; at an end it is that of a parabola,
    or zero where this would fall.
    """
    h = np.diff(scores)
    secant = np.diff(values) / h
    slopes = np.empty(values.shape)
    left, right = h[:-1] + 2 * h[1:], 2 * h[:-1] + h[1:]
    slopes[:, 1:-1] = (left + right) / (left / secant[:, :-1] + right / secant[:, 1:])
    for end, beside in ((0, 1), (-1, -2)):
        share = h[end] / (h[end] + h[beside])
        slopes[:, end] = np.maximum((1 + share) * secant[:, end] - share * secant[:, beside], 0.0)
    tails = np.maximum(slopes[:, [0, -1]], LEAST_TAIL * secant[:, [0, -1]])
    return Curves(scores, values, slopes, tails)


def tabulated(data: Curves, simulation: Curves) -> tuple[Float64, Float64, Float64]:
    """Return the grid of u, shape (POINTS,), and shift and score there, each of shape (rows, POINTS)."""
    farthest = max(FARTHEST_SCORE, *np.abs(simulation.scores))
    ends = np.array([-farthest, farthest])
    reach = np.array([quantile(simulation, row, ends) for row in range(len(simulation.values))])
    grid = np.linspace(reach[:, 0].min(), reach[:, 1].max(), POINTS)
    shift, score = np.zeros((2, len(reach), POINTS))
    for row in range(len(reach)):
        score[row] = score_of(simulation, row, grid)
        if not np.array_equal(data.values[row], simulation.values[row]):  # else exactly zero
            shift[row] = quantile(data, row, score[row]) - grid
    return grid, shift, score


def quantile(curve: Curves, row: int, t: Float64) -> Float64:
    """Return Q(t) of a row."""
    s, q = curve.scores, curve.values[row]
    piece = np.clip(np.searchsorted(s, t, side="right") - 1, 0, len(s) - 2)
    inside = _cubic(curve, row, piece, (t - s[piece]) / np.diff(s)[piece])
    below, above = q[0] + (t - s[0]) * curve.tails[row, 0], q[-1] + (t - s[-1]) * curve.tails[row, 1]
    return np.where(t < s[0], below, np.where(t > s[-1], above, inside))


def score_of(curve: Curves, row: int, u: Float64) -> Float64:
    """Return t with Q(t) = u of a row: by bisection, as the cubics rise but may be flat at a point."""
    s, q = curve.scores, curve.values[row]
    piece = np.clip(np.searchsorted(q, u, side="right") - 1, 0, len(q) - 2)
    low, high = np.zeros(len(u)), np.ones(len(u))
    for _ in range(52):
        middle = (low + high) / 2
        under = _cubic(curve, row, piece, middle) < u
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    inside = s[piece] + (low + high) / 2 * np.diff(s)[piece]
    below, above = s[0] + (u - q[0]) / curve.tails[row, 0], s[-1] + (u - q[-1]) / curve.tails[row, 1]
    return np.where(u < q[0], below, np.where(u > q[-1], above, inside))


def _cubic(curve: Curves, row: int, piece: Any, x: Float64) -> Float64:
    """Return Q at the part x in [0, 1] of pieces: Hermite's polynomial."""
    q, d, h = curve.values[row], curve.slopes[row], np.diff(curve.scores)[piece]
    rise = q[piece + 1] - q[piece]
    bend = (d[piece] + d[piece + 1]) * h - 2 * rise
    return np.asarray(q[piece] + x * (h * d[piece] + x * (rise - h * d[piece] - bend + x * bend)))


@kernel
def is_active(recoil: Any) -> bool:
    """Whether the table has components."""
    return len(recoil.low) > 0


@kernel
def morph(boson_pt: float, u: Any, recoil: Any, out: Any, place: Any) -> None:
    """Set ``out`` to the morphed components of the recoil ``u`` (GeV), at a boson pT (GeV).

    Both have one number for each component, as has ``place``, which is overwritten; the three are different arrays. A
    table without components copies. Outside the knots of boson pT and of scores, the outermost are taken. All are not
    a number if one given is not finite.
    """
    n = len(recoil.low)
    odd = not np.isfinite(boson_pt)
    for c in range(len(u)):
        out[c] = u[c]
        odd = odd or not np.isfinite(u[c])
    if n == 0:
        return
    if odd:
        out[:] = np.nan
        return
    # in boson pT, and then in the scores of the components before
    place[0] = _place(boson_pt, recoil.boson_pt, 0, len(recoil.boson_pt))
    for c in range(n - 1):  # the scores first, each where its component will be ...
        out[c] = _interpolated(recoil.score, c, u[c], out, place, recoil)
    for c in range(n - 1, -1, -1):  # ... then, from the last component on, what depends on those before it
        out[c] = u[c] + _interpolated(recoil.shift, c, u[c], out, place, recoil)


@kernel
def _interpolated(table: Float64, c: int, u: float, scores: Float64, place: Float64, recoil: Any) -> float:
    """Return component c's table at u, linear in u, boson pT and the earlier scores; fills ``place`` for these."""
    knots, begin, end = recoil.knots, recoil.begin, recoil.end
    for e in range(c):
        place[e + 1] = _place(scores[e], knots, begin[c, e], end[c, e])
    x = min(max((u - recoil.low[c]) / recoil.step[c], 0.0), POINTS - 1.0)
    i = min(int(x), POINTS - 2)
    first = recoil.row[c] * POINTS + i
    total = 0.0
    for corner in range(2 << c):  # the lower or the upper neighbour in each
        weight = 1.0
        row = 0
        for axis in range(c + 1):
            knot = int(place[axis])
            part = place[axis] - knot
            upper = corner >> axis & 1
            weight *= part if upper == 1 else 1.0 - part
            row = row * (1 if axis == 0 else end[c, axis - 1] - begin[c, axis - 1]) + knot + upper
        if weight > 0.0:  # else the upper neighbour may not be there
            cell = first + row * POINTS
            total += weight * (table[cell] + (x - i) * (table[cell + 1] - table[cell]))
    return float(total)


@kernel
def _place(x: float, knots: Float64, begin: int, end: int) -> float:
    """Return the knot below x plus the part of the way to the next; the first or last knot if outside."""
    if x <= knots[begin]:
        return 0.0
    for i in range(begin + 1, end):
        if x < knots[i]:
            return float(i - 1 - begin + (x - knots[i - 1]) / (knots[i] - knots[i - 1]))
    return float(end - 1 - begin)
