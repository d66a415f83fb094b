"""Muon momentum: helix-fit corrections, smearing, closure and response, each with its plain reference."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import small_momentum
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline
from scipy.special import ndtr, ndtri

from binworks.corrections import cvh, resolution, response, sets, z_closure
from binworks.tensors import random
from binworks.tensors.errors import PayloadError

DOCUMENTS = small_momentum.documents(np.random.default_rng(11))
ETAS, PHIS = st.floats(-2.4, 2.4), st.floats(-3.1, 3.1)
CHARGES, KS = st.sampled_from([-1, 1]), st.floats(1 / 200, 1 / 5)


@pytest.fixture(scope="module")
def corrections(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return sets.write(tmp_path_factory.mktemp("momentum"), "momentum", DOCUMENTS)


LOADERS: dict[str, Any] = {
    "cvh": lambda found: cvh.load(found, is_data=True),
    "resolution": resolution.load_covariance,
    "response": response.load,
    "z_closure": z_closure.load,
}


def put(key: str, *place: Any) -> Any:
    """Return a change of a document: the last of ``place`` is put where the others lead."""

    def change(document: Any) -> None:
        inner = document[key]
        for index in place[:-2]:
            inner = inner[index]
        inner[place[-2]] = place[-1]

    return change


def swap_quantiles(document: Any) -> None:
    row = document["quantiles"][1][2][0]
    row[4], row[5] = row[5], row[4]


def bend_spline(document: Any) -> None:
    row = document["quantiles"][1][2][1]
    for j in range(8):  # far apart, then close together: the spline overshoots
        row[j] = row[8] - 1e-6 * (8 - j)


@pytest.mark.parametrize(
    ("name", "change", "code", "word"),
    [
        ("cvh", lambda d: d.update(extra=1), "bad-payload", "extra"),
        ("cvh", lambda d: d["mc"].pop(), "wrong-axes", "(40,)"),
        ("cvh", lambda d: d.update(data=[], mc=[]), "bad-payload", "no parameters"),
        ("cvh", put("data", 3, "x"), "bad-payload", "data.3"),
        ("resolution", lambda d: d.update(schema="binworks.resolution/3"), "bad-payload", "schema"),
        ("resolution", lambda d: d.pop("covariance"), "bad-payload", "covariance"),
        ("resolution", lambda d: d["covariance"].pop(), "wrong-axes", "(72, 72)"),
        ("resolution", put("covariance", 5, 5, -1.0), "bad-covariance", "negative"),
        ("resolution", put("eta_edges", 3, 0.0), "wrong-axes", "Edge 3"),
        ("z_closure", lambda d: d.update(extra=1), "bad-payload", "extra"),
        ("z_closure", lambda d: d.pop("mz_shift"), "bad-payload", "mz_shift"),
        ("z_closure", put("eta_edges", 3, 0.0), "wrong-axes", "Edge 3"),
        ("z_closure", put("covariance", 0, 1, 1.0), "bad-covariance", "symmetric"),
        ("z_closure", put("covariance", 30, 30, 1e-12), "bad-covariance", "of e"),
        ("response", lambda d: d.update(charges=[1, -1]), "bad-payload", "charges"),
        ("response", lambda d: d["gen_pt_edges"].pop(), "wrong-axes", "(4, 5, 2, 21)"),
        ("response", put("gen_pt_edges", 1, 5.0), "bad-payload", "must rise"),
        ("response", lambda d: d.update(gen_eta_edges=[0.0]), "wrong-axes", "two edges"),
        ("response", put("probabilities", 0, 0.0), "bad-payload", "between 0 and 1"),
        ("response", put("probabilities", 20, 1.0), "bad-payload", "between 0 and 1"),
        ("response", put("probabilities", 3, 0.5), "bad-payload", "must rise"),
        ("response", lambda d: d.update(probabilities=[0.1, 0.3, 0.5, 0.7]), "wrong-axes", "5 probabilities"),
        ("response", lambda d: d["quantiles"][2][1][0].pop(), "wrong-axes", "shape"),
        ("response", swap_quantiles, "bad-payload", "[1, 2, 0, 4]"),
        ("response", bend_spline, "bad-payload", "falls between"),
    ],
)  # fmt: skip
def test_a_wrong_payload_is_refused_with_the_reason(
    name: str, change: Any, code: str, word: str, tmp_path: Path
) -> None:
    kind, document = copy.deepcopy(DOCUMENTS[name])
    change(document)
    found = sets.write(tmp_path, "broken", {name: (kind, document)})
    with pytest.raises(PayloadError) as caught:
        LOADERS[name](found)
    assert caught.value.code == code
    assert word in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_a_number_that_is_not_finite_is_refused(name: str, value: str, tmp_path: Path) -> None:
    kind, document = copy.deepcopy(DOCUMENTS[name])
    inner = document[{"cvh": "data", "response": "quantiles"}.get(name, "covariance")]
    while isinstance(inner[1], list):
        inner = inner[1]
    inner[1] = 12345.0
    sets.write(tmp_path, "broken", {name: (kind, document)})
    path, manifest = tmp_path / f"{name}.json", tmp_path / "manifest.json"
    before = path.read_bytes()
    after = before.replace(b"12345.0", value.encode())
    path.write_bytes(after)
    digests = [hashlib.sha256(text).hexdigest() for text in (before, after)]
    manifest.write_text(manifest.read_text().replace(*digests))
    with pytest.raises(PayloadError) as caught:
        LOADERS[name](sets.load(tmp_path))
    assert caught.value.code == "not-finite"


@st.composite
def helices(draw: Any) -> tuple[Any, ...]:
    """Return (pt, eta, phi, charge) and (jacobian, indices) of a muon that moves a little."""
    n = draw(st.integers(1, 6))
    indices = np.array(
        draw(st.lists(st.integers(0, small_momentum.CVH_PARAMETERS - 1), min_size=n, max_size=n))
    )
    jacobian = np.array(draw(st.lists(st.floats(-100, 100), min_size=3 * n, max_size=3 * n)))
    muon = (draw(st.floats(5, 200)), draw(ETAS), draw(PHIS), draw(CHARGES))
    return muon, (jacobian, indices)


def cvh_reference(muon: Any, jacobian: Any, indices: Any, x: Any) -> tuple[float, ...]:
    """Return the muon after the change, by vectors."""
    pt, eta, phi, charge = muon
    qop, dip = charge / (pt * np.cosh(eta)), np.arctan(np.sinh(eta))
    qop, dip, phi = np.array([qop, dip, phi]) + np.reshape(jacobian, (3, -1)).astype(float) @ x[indices]
    return np.cos(dip) / abs(qop), np.arcsinh(np.tan(dip)), phi, np.sign(qop)


@given(helices(), st.sampled_from([np.float32, np.float64]), st.sampled_from([np.int32, np.uint32, np.int64]))
def test_a_helix_moves_by_jacobian_times_parameters(
    corrections: Any, helix: Any, real: Any, integer: Any
) -> None:
    muon, (jacobian, indices) = helix
    parameters = cvh.load(corrections, is_data=True)
    jacobian, indices = jacobian.astype(real), indices.astype(integer)
    expected = cvh_reference(muon, jacobian, indices, parameters.x)
    pt, eta, phi, charge = cvh.corrected(*muon, jacobian, indices, parameters.x)
    assert (pt, eta, phi) == pytest.approx(expected[:3], rel=1e-11, abs=1e-11)
    assert charge == expected[3]


@given(helices())
def test_parameters_of_zero_or_none_change_no_bit(helix: Any) -> None:
    muon, (jacobian, indices) = helix
    zero = cvh.Parameters(np.zeros(small_momentum.CVH_PARAMETERS))
    assert cvh.corrected(*muon, jacobian, indices, zero.x) == muon
    assert cvh.corrected(*muon, jacobian, indices, cvh.identity().x) == muon
    ones = cvh.Parameters(np.ones(small_momentum.CVH_PARAMETERS))
    assert cvh.corrected(*muon, jacobian[:0], indices[:0], ones.x) == muon
    assert cvh.corrected(*muon, 0 * jacobian, indices, ones.x) == muon
    single = tuple(np.float32(value) for value in muon[:3])
    assert cvh.corrected(*single, muon[3], jacobian, indices, zero.x) == (*single, muon[3])


def test_data_and_simulation_have_parameters_of_their_own(corrections: Any) -> None:
    data, simulation = (cvh.load(corrections, is_data=is_data).x for is_data in (True, False))
    assert data.tolist() == DOCUMENTS["cvh"][1]["data"]
    assert simulation.tolist() == DOCUMENTS["cvh"][1]["mc"]


@pytest.mark.parametrize("index", [-1, 40, 2**31 - 1])
def test_an_index_outside_the_table_gives_not_a_number(corrections: Any, index: int) -> None:
    parameters = cvh.load(corrections, is_data=True)
    found = cvh.corrected(40.0, 1.0, 0.5, 1, np.ones(6), np.array([3, index]), parameters.x)
    assert np.isnan(found[:3]).all()


def test_a_jacobian_of_another_length_gives_not_a_number(corrections: Any) -> None:
    found = cvh.corrected(
        40.0, 1.0, 0.5, 1, np.ones(5), np.array([3, 4]), cvh.load(corrections, is_data=True).x
    )
    assert np.isnan(found[:3]).all()


def test_a_track_bent_the_other_way_has_the_other_charge() -> None:
    bent = cvh.Parameters(np.array([-0.05]))  # q/p was 1/40
    pt, eta, phi, charge = cvh.corrected(
        40.0, 0.0, 3.0, 1, np.array([1.0, 0.0, -20.0]), np.array([0]), bent.x
    )
    assert pt == pytest.approx(40.0)
    assert (eta, charge) == (0.0, -1)
    assert phi == pytest.approx(4.0 - 2 * np.pi)


def test_a_dip_angle_beyond_the_beam_line_gives_not_a_number() -> None:
    found = cvh.corrected(40.0, 2.0, 0.5, 1, np.array([0.0, 1.0, 0.0]), np.array([0]), np.ones(1))
    assert np.isnan(found[:3]).all()


@given(KS, st.integers(0, 23))
def test_the_extra_width_is_the_difference_in_quadrature(corrections: Any, k: float, b: int) -> None:
    data, simulation = (resolution.load(corrections, is_data=is_data) for is_data in (True, False))
    squares = [
        t.a[b] ** 2 + t.c[b] ** 2 / k**2 + t.b[b] ** 2 / (1 + t.d[b] ** 2 * k**2) for t in (data, simulation)
    ]
    expected = np.sqrt(max(0.0, squares[0] - squares[1]))
    assert resolution.extra_width(k, b, data, simulation) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_where_simulation_is_wider_or_nothing_is_known_nothing_is_smeared(corrections: Any) -> None:
    data, simulation = (resolution.load(corrections, is_data=is_data) for is_data in (True, False))
    extra = [resolution.extra_width(1 / 40, b, data, simulation) for b in range(24)]
    swapped = [resolution.extra_width(1 / 40, b, simulation, data) for b in range(24)]
    assert all(x == 0 or y == 0 for x, y in zip(extra, swapped, strict=True))
    assert max(extra) > 0
    assert resolution.extra_width(1 / 40, -1, data, simulation) == 0
    assert resolution.smeared_k(1 / 40, 0.0, 2.5) == 1 / 40


@given(KS, st.floats(0, 1), st.floats(-8.3, 8.3))
def test_a_smeared_momentum_is_positive(k: float, extra: float, g: float) -> None:
    smeared = resolution.smeared_k(k, extra, g)
    assert smeared == pytest.approx(k * max(1 + extra * g, 0.1), rel=1e-12)
    assert smeared > 0


def test_smeared_simulation_is_as_wide_as_data(corrections: Any) -> None:
    data, simulation = (resolution.load(corrections, is_data=is_data) for is_data in (True, False))
    k = 1 / 40
    b = int(np.argmax([resolution.extra_width(k, j, data, simulation) for j in range(24)]))
    extra = resolution.extra_width(k, b, data, simulation)
    unsmeared = k * np.random.default_rng(3).normal(1, resolution.relative_width(k, b, simulation), 100_000)
    smeared = [
        resolution.smeared_k(x, extra, random.normal(1, 2, event, 0)) for event, x in enumerate(unsmeared)
    ]
    assert np.std(smeared) / k == pytest.approx(resolution.relative_width(k, b, data), rel=3 / 200_000**0.5)


def test_the_covariances_are_those_of_the_payload(corrections: Any) -> None:
    covariance, mz_shift = z_closure.load(corrections)
    assert covariance.tolist() == DOCUMENTS["z_closure"][1]["covariance"]
    assert mz_shift == DOCUMENTS["z_closure"][1]["mz_shift"]
    assert resolution.load_covariance(corrections).tolist() == DOCUMENTS["resolution"][1]["covariance"]


class Density:
    """The density of one bin, by scipy."""

    def __init__(self, pt_bin: int, eta_bin: int, charge: int) -> None:
        document = DOCUMENTS["response"][1]
        self.quantiles = np.array(document["quantiles"])[pt_bin, eta_bin, (charge + 1) // 2]
        self.spline = CubicSpline(self.quantiles, ndtri(document["probabilities"]), bc_type="natural")
        self.where = (
            np.mean(document["gen_pt_edges"][pt_bin : pt_bin + 2]),
            np.mean(document["gen_eta_edges"][eta_bin : eta_bin + 2]),
            charge,
        )

    def log(self, r: Any) -> Any:
        return -(self.spline(r) ** 2) / 2 + np.log(self.spline(r, 1))

    def below(self, r: Any) -> Any:
        return ndtr(self.spline(r))

    def scores(self, r: Any, table: Any) -> Any:
        return np.array([response.scores(x, *self.where, table) for x in np.atleast_1d(r)]).T


BINS = st.tuples(st.integers(0, 4), st.integers(0, 4), CHARGES)


@given(BINS, st.floats(0, 1))
def test_the_scores_are_those_of_scipys_spline(
    corrections: Any, where: tuple[int, int, int], place: float
) -> None:
    density = Density(*where)
    first, last = density.quantiles[[0, -1]]
    r = first + place * (last - first)
    z, z1, z2, z3 = (density.spline(r, j) for j in range(4))
    slope, bend = -z * z1 + z2 / z1, -(z1**2) - z * z2 + z3 / z1 - (z2 / z1) ** 2
    scale, width = response.scores(r, *density.where, response.load(corrections))
    assert scale == pytest.approx(-1 - r * slope, rel=1e-10, abs=1e-8)
    assert width == pytest.approx((slope**2 + bend) / 2, rel=1e-9, abs=1e-5)


@given(BINS, st.integers(0, 19), st.floats(0.1, 0.9))
def test_the_scores_are_derivatives_of_the_log_density(
    corrections: Any, where: tuple[int, int, int], piece: int, place: float
) -> None:
    density = Density(*where)
    left, right = density.quantiles[piece : piece + 2]
    r, h = left + place * (right - left), 0.01 * (right - left)
    scale, width = response.scores(r, *density.where, response.load(corrections))
    shifted = [density.log(r / (1 + s)) - np.log1p(s) for s in (-h, h)]
    assert scale == pytest.approx((shifted[1] - shifted[0]) / (2 * h), rel=1e-3, abs=0.05)
    p = np.exp(density.log(r + h * np.arange(-1, 2)))
    assert width == pytest.approx(
        (p[0] - 2 * p[1] + p[2]) / (2 * h**2 * p[1]), rel=1e-3, abs=1e-3 / density.quantiles.std() ** 2
    )


@given(st.floats(0.9, 1.1), st.floats(0.002, 0.05), st.floats(-3, 3))
def test_a_gaussian_response_has_the_scores_of_a_gaussian(middle: float, sigma: float, pull: float) -> None:
    z = small_momentum.RESPONSE_SCORES
    knots = np.broadcast_to(middle + sigma * z, (1, 1, 2, len(z))).copy()
    edges = np.array([0.0, 1.0])
    table = response.Response(edges, edges, knots, response.natural_spline(knots, z))
    r = middle + sigma * pull
    scale, width = response.scores(r, 0.5, 0.5, 1, table)
    assert scale == pytest.approx(-1 + r * pull / sigma, rel=1e-8, abs=1e-6 / sigma)
    assert width == pytest.approx((pull**2 - 1) / (2 * sigma**2), rel=1e-8, abs=1e-6 / sigma**2)


@pytest.mark.parametrize("where", [(0, 0, 1), (2, 4, -1), (4, 2, 1)])
def test_a_change_of_scale_or_width_makes_no_events(corrections: Any, where: tuple[int, int, int]) -> None:
    density = Density(*where)
    probability = (np.arange(20_000) + 0.5) / 20_000
    fine = np.linspace(*density.quantiles[[0, -1]], 20_000)
    r = np.interp(probability, density.below(fine), fine)
    for score in density.scores(r, response.load(corrections)):
        assert abs(score.mean()) < 0.01 * score.std()


@pytest.mark.parametrize("where", [(0, 0, 1), (2, 4, -1), (4, 2, 1)])
def test_the_scores_predict_what_shifting_and_smearing_do(
    corrections: Any, where: tuple[int, int, int]
) -> None:
    density, table = Density(*where), response.load(corrections)
    edges = np.linspace(*density.quantiles[[2, -3]], 13)
    size = density.quantiles.std()
    shifted = [np.diff(density.below(edges / (1 + s))) for s in (-0.01 * size, 0.01 * size)]
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    sigma = 0.02 * size
    smeared = np.diff(density.below(edges[:, None] - sigma * nodes), axis=0) @ weights / weights.sum()
    fine = np.linspace(edges[:-1], edges[1:], 401)
    scores = density.scores(fine.ravel(), table).reshape(2, *fine.shape)
    predicted = np.trapezoid(np.exp(density.log(fine)) / (2 * np.pi) ** 0.5 * scores, fine[None], axis=1)
    expected = np.array(
        [(shifted[1] - shifted[0]) / (0.02 * size), (smeared - np.diff(density.below(edges))) / sigma**2]
    )
    for found, brute_force in zip(predicted, expected, strict=True):
        assert np.abs(found - brute_force).max() < 0.005 * np.abs(brute_force).max()


def test_outside_the_table_the_nearest_bin_and_quantile_are_taken(corrections: Any) -> None:
    table = response.load(corrections)
    first, last = Density(0, 0, -1).quantiles[0], Density(4, 4, 1).quantiles[-1]
    assert response.scores(-3.0, 1.0, -9.0, -1, table) == response.scores(first, 11.0, -2.3, -1, table)
    assert response.scores(9.0, 900.0, 9.0, 1, table) == response.scores(last, 149.0, 2.3, 1, table)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_not_a_number_has_no_scores(corrections: Any, place: int) -> None:
    muon = [1.0, 40.0, 0.5]
    muon[place] = np.nan
    assert np.isnan(response.scores(*muon, 1, response.load(corrections))).all()


def test_with_and_without_a_payload_the_kernels_get_one_type(corrections: Any) -> None:
    assert numba.typeof(response.identity()) == numba.typeof(response.load(corrections))
    assert numba.typeof(cvh.identity()) == numba.typeof(cvh.load(corrections, is_data=True))
