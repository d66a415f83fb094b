"""Recoil: what is refused, the laws of quantile morphing, and scipy's splines beside the tables."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import small_momentum
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator, RegularGridInterpolator
from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats import norm

from binworks.corrections import recoil, sets
from binworks.tensors.errors import PayloadError

DOCUMENT = small_momentum.recoil_document(np.random.default_rng(11))
SCORES = ndtri(DOCUMENT["probabilities"])
BOSON_PT = DOCUMENT["boson_pt"]
ACCURACY = 0.001
"""Of the tables, in GeV, for the quantiles of these tests."""

PTS = st.floats(0, 120)
RECOILS = st.floats(-150, 150)


def load(folder: Path, document: Any, names: tuple[str, ...] = recoil.COMPONENTS) -> recoil.Recoil:
    return recoil.load(sets.write(folder, "recoil", {"recoil": ("recoil", document)}), names)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> recoil.Recoil:
    return load(tmp_path_factory.mktemp("recoil"), DOCUMENT)


def morphed(boson_pt: float, u: Any, table: recoil.Recoil) -> Any:
    out = np.full(len(u), np.inf)
    recoil.morph(boson_pt, np.array(u, float), table, out, np.empty(len(u)))
    return out


def component(index: int, change: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda document: change(document["components"][index])


def swap_quantiles(part: Any) -> None:
    row = part["mc"][2]
    row[3], row[4] = row[4], row[3]


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        (lambda d: d.update(extra=1), "bad-payload", "extra"),
        (lambda d: d.update(schema="binworks.recoil/2"), "bad-payload", "schema"),
        (lambda d: d.update(boson_pt=[]), "wrong-axes", "one knot"),
        (lambda d: d["boson_pt"].reverse(), "bad-payload", "must rise"),
        (lambda d: d["boson_pt"].pop(), "wrong-axes", "(3, 15)"),
        (lambda d: d["probabilities"].__setitem__(0, 0.0), "bad-payload", "between 0 and 1"),
        (lambda d: d["probabilities"].__setitem__(-1, 1.0), "bad-payload", "between 0 and 1"),
        (lambda d: d["probabilities"].reverse(), "bad-payload", "must rise"),
        (lambda d: d.update(probabilities=[0.2, 0.4, 0.6, 0.8]), "wrong-axes", "5 probabilities"),
        (lambda d: d["components"].reverse(), "wrong-axes", "['perpendicular', 'parallel']"),
        (lambda d: d["components"].pop(), "wrong-axes", "['parallel']"),
        (component(0, lambda c: c.update(name="along")), "wrong-axes", "along"),
        (component(0, lambda c: c.update(extra=1)), "bad-payload", "extra"),
        (component(0, lambda c: c["given"].append([0.0])), "wrong-axes", "Component 0"),
        (component(0, lambda c: c["data"][1].pop()), "wrong-axes", "parallel, data"),
        (component(0, swap_quantiles), "bad-payload", "[2, 3]"),
        (component(1, lambda c: c["given"].append([0.0])), "wrong-axes", "knots for 2"),
        (component(1, lambda c: c["given"][0].reverse()), "bad-payload", "perpendicular, given"),
        (component(1, lambda c: c["given"][0].pop()), "wrong-axes", "(4, 2, 15)"),
        (component(1, lambda c: c.update(given=[])), "wrong-axes", "(4, 15)"),
        (component(1, lambda c: c["mc"][0][0].__setitem__(0, "x")), "wrong-axes", "perpendicular, mc"),
    ],
)  # fmt: skip
def test_a_wrong_payload_is_refused_with_the_reason(
    change: Any, code: str, word: str, tmp_path: Path
) -> None:
    document = copy.deepcopy(DOCUMENT)
    change(document)
    with pytest.raises(PayloadError) as caught:
        load(tmp_path, document)
    assert caught.value.code == code
    assert word in str(caught.value)
    assert "recoil" in str(caught.value)


@given(PTS, st.lists(RECOILS, min_size=2, max_size=2))
def test_without_a_payload_no_bit_changes(boson_pt: float, u: list[float]) -> None:
    assert not recoil.is_active(recoil.identity())
    assert morphed(boson_pt, u, recoil.identity()).tolist() == u


@given(PTS, RECOILS, RECOILS)
def test_where_data_and_simulation_agree_no_bit_changes(
    tmp_path_factory: pytest.TempPathFactory, boson_pt: float, along: float, across: float
) -> None:
    document = copy.deepcopy(DOCUMENT)
    for part in document["components"]:
        part["data"] = part["mc"]
    same = load(tmp_path_factory.mktemp("same"), document)
    assert recoil.is_active(same)
    assert morphed(boson_pt, [along, across], same).tolist() == [along, across]


def test_agreement_at_one_boson_pt_is_exact_there(tmp_path: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    for part in document["components"]:
        part["data"][1] = part["mc"][1]
    partly = load(tmp_path, document)
    assert morphed(BOSON_PT[1], [-3.3, 4.4], partly).tolist() == [-3.3, 4.4]
    assert (morphed(BOSON_PT[2], [-3.3, 4.4], partly) != [-3.3, 4.4]).all()


@given(PTS, RECOILS, RECOILS, st.floats(0, 20), st.integers(0, 1))
def test_a_component_rises_with_itself(
    table: recoil.Recoil, boson_pt: float, along: float, across: float, step: float, which: int
) -> None:
    u = [along, across]
    below = morphed(boson_pt, u, table)[which]
    u[which] += step
    assert morphed(boson_pt, u, table)[which] >= below - 1e-12


@given(st.integers(0, 2**32 - 1), st.floats(0.3, 3.0))
def test_a_component_rises_however_odd_the_quantiles_are(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    data, simulation = np.cumsum(rng.lognormal(0, spread, (2, 1, 9)), axis=-1)
    scores = np.linspace(-2, 2, 9)
    grid, shift, score = recoil.tabulated(recoil.curves(scores, data), recoil.curves(scores, simulation))
    assert (np.diff(grid + shift) >= -1e-9 * np.ptp(data)).all()
    assert (np.diff(score) > 0).all()


@pytest.mark.parametrize("knot", range(4))
def test_quantiles_of_simulation_become_quantiles_of_data(table: recoil.Recoil, knot: int) -> None:
    along, across = DOCUMENT["components"]
    for first, u, expected in zip(SCORES, along["mc"][knot], along["data"][knot], strict=True):
        assert morphed(BOSON_PT[knot], [u, 0.0], table)[0] == pytest.approx(expected, abs=ACCURACY)
        for i, given_score in enumerate(across["given"][0]):
            if abs(first - given_score) < 0.2:  # here the second component is conditional on that knot
                parallel = np.interp(given_score, SCORES, along["mc"][knot])
                for v, wanted in zip(across["mc"][knot][i], across["data"][knot][i], strict=True):
                    found = morphed(BOSON_PT[knot], [parallel, v], table)[1]
                    assert found == pytest.approx(wanted, abs=0.02)


def exact(quantiles: Any, u: float) -> tuple[float, float]:
    """Return score and morphed u, given (data, simulation) quantiles: scipy's splines and its root finder."""
    data, simulation = (PchipInterpolator(SCORES, q, extrapolate=False) for q in quantiles)
    score = brentq(lambda t: simulation(t) - u, SCORES[0], SCORES[-1], xtol=1e-14)
    return score, float(data(score))


@given(st.integers(0, 3), st.floats(0.001, 0.999))
def test_one_component_is_data_after_simulation(table: recoil.Recoil, knot: int, place: float) -> None:
    along = DOCUMENT["components"][0]
    lowest, highest = np.array(along["mc"][knot])[[0, -1]]
    u = lowest + place * (highest - lowest)
    _, expected = exact((along["data"][knot], along["mc"][knot]), u)
    assert morphed(BOSON_PT[knot], [u, 0.0], table)[0] == pytest.approx(expected, abs=ACCURACY)


@given(st.integers(0, 14), st.floats(0, 1), st.booleans())
def test_the_tables_are_scipys_splines_at_their_points(knot: int, place: float, conditional: bool) -> None:
    part = DOCUMENT["components"][int(conditional)]
    data, simulation = (np.reshape(part[side], (-1, 15)) for side in ("data", "mc"))
    row = knot % len(data)
    grid, shift, score = recoil.tabulated(recoil.curves(SCORES, data), recoil.curves(SCORES, simulation))
    inside = np.flatnonzero((grid > simulation[row, 0]) & (grid < simulation[row, -1]))
    j = inside[int(place * (len(inside) - 1))]
    expected_score, expected = exact((data[row], simulation[row]), grid[j])
    assert score[row, j] == pytest.approx(expected_score, abs=1e-12)
    assert grid[j] + shift[row, j] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def interpolation_reference(boson_pt: float, u: Any, table: recoil.Recoil) -> list[float]:
    """Return the morphed components by scipy's linear interpolation of the tables."""
    scores: list[float] = []
    result = []
    for c, x in enumerate(u):
        knots = [table.knots[table.begin[c, e] : table.end[c, e]] for e in range(c)]
        axes = [table.boson_pt, *knots, table.low[c] + table.step[c] * np.arange(recoil.POINTS)]
        shape = [len(axis) for axis in axes]
        first = table.row[c] * recoil.POINTS
        axes = [axis if len(axis) > 1 else np.array([axis[0], axis[0] + 1]) for axis in axes]
        where = [
            np.clip(y, a[0], a[n - 1]) for y, a, n in zip((boson_pt, *scores, x), axes, shape, strict=True)
        ]

        def at(flat: Any) -> float:
            values = flat[first : first + np.prod(shape)].reshape(shape)  # noqa: B023
            for axis, size in enumerate(shape):  # noqa: B023
                values = np.repeat(values, 2, axis) if size == 1 else values
            return RegularGridInterpolator(axes, values)(where)[0]  # noqa: B023

        result.append(x + at(table.shift))
        if c < len(u) - 1:
            scores.append(at(table.score))
    return result


@given(PTS, RECOILS, RECOILS)
def test_the_kernel_is_linear_interpolation_of_the_tables(
    table: recoil.Recoil, boson_pt: float, along: float, across: float
) -> None:
    expected = interpolation_reference(boson_pt, [along, across], table)
    assert morphed(boson_pt, [along, across], table) == pytest.approx(expected, rel=1e-11, abs=1e-11)


def chain_document(rng: np.random.Generator) -> dict[str, Any]:
    """Return three Gaussian components: the middle of each depends on the scores before it, linearly."""
    knots = [np.linspace(-4.0, 4.0, 3).tolist(), np.linspace(-4.0, 4.0, 5).tolist()]
    parts = []
    for c, name in enumerate("abc"):
        given = knots[:c]
        scores = np.meshgrid(BOSON_PT, *given, indexing="ij")[1:]
        sides = {}
        for side in ("data", "mc"):
            middle = rng.normal() + sum(rng.normal() * t for t in scores)
            width = rng.uniform(5, 10)
            sides[side] = (
                np.broadcast_to(middle, (len(BOSON_PT), *map(len, given)))[..., None] + width * SCORES
            )
        parts.append({"name": name, "given": given} | {side: q.tolist() for side, q in sides.items()})
    return {**DOCUMENT, "components": parts}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, recoil.Recoil]:
    document = chain_document(np.random.default_rng(3))
    return document, load(tmp_path_factory.mktemp("chain"), document, ("a", "b", "c"))


@given(PTS, st.lists(st.floats(-4, 4), min_size=3, max_size=3))
def test_three_gaussian_components_are_morphed_by_their_scores(
    chain: tuple[Any, recoil.Recoil], boson_pt: float, scores: list[float]
) -> None:
    document, table = chain
    sides = {}
    for side in ("data", "mc"):
        sides[side] = []
        for part in document["components"]:
            quantiles = np.array(part[side])[0]
            axes = (*part["given"], SCORES)
            linear = RegularGridInterpolator(axes, quantiles, bounds_error=False, fill_value=None)
            sides[side].append(float(linear(scores[: len(part["given"]) + 1])[0]))
    assert morphed(boson_pt, sides["mc"], table) == pytest.approx(sides["data"], abs=1e-8)


@given(PTS, st.lists(RECOILS, min_size=3, max_size=3))
def test_three_components_are_linear_interpolation_of_the_tables(
    chain: tuple[Any, recoil.Recoil], boson_pt: float, u: list[float]
) -> None:
    expected = interpolation_reference(boson_pt, u, chain[1])
    assert morphed(boson_pt, u, chain[1]) == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_a_component_may_depend_on_no_other(tmp_path: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    part = document["components"][1]
    part["given"], part["data"], part["mc"] = (
        [],
        [row[0] for row in part["data"]],
        [row[0] for row in part["mc"]],
    )
    alone = load(tmp_path, document)
    across = {morphed(10.0, [along, 5.0], alone)[1] for along in (-40.0, -10.0, 20.0)}
    assert len(across) == 1
    assert across != {5.0}


def test_morphed_simulation_is_distributed_as_data(table: recoil.Recoil) -> None:
    """At a knot of boson pT: two conditional distributions at once, drawn from scores that are interpolated alike."""
    rng, knot, size = np.random.default_rng(5), 2, 20_000
    t = norm.ppf(rng.uniform(*norm.cdf([-1.5, 1.5]), size))  # within the knots of the condition
    v = norm.ppf(rng.uniform(*norm.cdf(SCORES[[0, -1]]), size))
    along, across = DOCUMENT["components"]
    drawn = {}
    for side in ("data", "mc"):
        first = PchipInterpolator(SCORES, along[side][knot])(t)
        rows = np.array([PchipInterpolator(SCORES, q)(v) for q in across[side][knot]])
        second = [np.interp(x, across["given"][0], column) for x, column in zip(t, rows.T, strict=True)]
        drawn[side] = np.stack([first, second], axis=1)
    found = np.array([morphed(BOSON_PT[knot], u, table) for u in drawn["mc"]])
    difference = np.abs(found - drawn["data"])
    assert difference[:, 0].max() < ACCURACY
    assert (
        difference[:, 1].max() < 0.1
    )  # quantiles and scores are interpolated between knots in another order
    assert difference[:, 1].mean() < 0.02


def test_outside_the_table_the_outermost_values_hold(table: recoil.Recoil) -> None:
    assert morphed(500.0, [-10.0, 5.0], table).tolist() == morphed(BOSON_PT[-1], [-10.0, 5.0], table).tolist()
    assert morphed(0.0, [-10.0, 5.0], table).tolist() == morphed(BOSON_PT[0], [-10.0, 5.0], table).tolist()
    far = morphed(10.0, [5000.0, -5000.0], table) - [5000.0, -5000.0]
    farther = morphed(10.0, [6000.0, -6000.0], table) - [6000.0, -6000.0]
    assert far == pytest.approx(farther, abs=1e-9)


@pytest.mark.parametrize(
    "odd", [(np.nan, -10.0, 5.0), (10.0, np.nan, 5.0), (10.0, -10.0, np.nan), (np.inf, 1.0, 1.0)]
)
def test_what_is_not_finite_becomes_not_a_number(
    table: recoil.Recoil, odd: tuple[float, float, float]
) -> None:
    assert np.isnan(morphed(odd[0], odd[1:], table)).all()


def test_all_tables_are_of_one_type(table: recoil.Recoil) -> None:
    assert numba.typeof(recoil.identity()) == numba.typeof(table)
