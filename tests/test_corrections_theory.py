"""Weights of W and Z production: lookups, the Collins-Soper frame, angular ratios; a plain reference beside each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import correctionlib
import numpy as np
import pytest
import small_theory
from hypothesis import given
from hypothesis import strategies as st

from binworks.corrections import angular, electroweak, sets, theory
from binworks.tensors.errors import PayloadError
from binworks.tensors.groups.theory import group as theory_group

ANGLES = st.floats(-np.pi, np.pi)
COSINES = st.floats(-1, 1)
CHARGES = st.sampled_from([-1, 0, 1])
BIG = st.floats(-1e6, 1e6)
RAPIDITIES = st.floats(-5, 5).filter(lambda y: abs(y) > 1e-6)
"""Without that of exactly zero: rounding decides where such a boson goes."""


def written(folder: Path, **changed: Any) -> sets.CorrectionSet:
    documents = small_theory.documents(np.random.default_rng(7))
    return sets.write(folder, "small", documents | {k: ("correctionlib", d) for k, d in changed.items()})


@pytest.fixture(scope="module")
def corrections(tmp_path_factory: pytest.TempPathFactory) -> sets.CorrectionSet:
    return written(tmp_path_factory.mktemp("corrections"))


@pytest.fixture(scope="module")
def coefficients(corrections: sets.CorrectionSet) -> angular.Angular:
    return angular.load(corrections)


def evaluator(corrections: sets.CorrectionSet, name: str) -> Any:
    document = json.dumps(corrections.payload(name, "correctionlib"))
    return correctionlib.CorrectionSet.from_string(document)[name]


# tables


@given(BIG, CHARGES, st.floats(-1, 2), st.integers(0, 7))
def test_an_electroweak_weight_is_correctionlibs(
    corrections: sets.CorrectionSet, mass: float, charge: int, radiated: float, column: int
) -> None:
    table, names = electroweak.load(corrections)
    expected = evaluator(corrections, "ew").evaluate(mass, charge, radiated, ["nominal", *names][column])
    assert table.weights[electroweak.bin_of(mass, charge, radiated, table)][column] == expected


@given(BIG, BIG, CHARGES, st.sampled_from(angular.HELICITIES), st.sampled_from(angular.VARIATIONS))
def test_an_angular_coefficient_is_correctionlibs(
    corrections: sets.CorrectionSet,
    coefficients: angular.Angular,
    absy: float,
    qt: float,
    charge: int,
    helicity: int,
    variation: str,
) -> None:
    expected = evaluator(corrections, "angular").evaluate(absy, qt, charge, helicity, variation)
    i = np.clip(np.searchsorted(coefficients.absy, absy, "right") - 1, 0, 2)
    j = np.clip(np.searchsorted(coefficients.qt, qt, "right") - 1, 0, 10)
    v = angular.VARIATIONS.index(variation)
    assert coefficients.coefficients[i, j, charge + 1, helicity + 1, v] == expected


def test_a_z_sees_22_of_the_32_theory_nuisances(corrections: sets.CorrectionSet) -> None:
    table, names = theory.load(corrections)
    of_w, of_z = (theory.names_for(table, names, charges) for charges in ((-1, 1), (0,)))
    assert of_w == names
    assert set(names) - set(of_z) == {
        f"{name}{way}" for name in small_theory.W_ONLY_PAIRS for way in ("Up", "Down")
    }
    counts = [len(theory_group(found).expansion.nuisances) for found in (of_w, of_z)]
    assert counts == [32, 22]


def test_a_pair_is_kept_whole_if_one_side_changes_something(corrections: sets.CorrectionSet) -> None:
    table, names = theory.load(corrections)
    weights = table.weights.copy()
    up = names.index("mbRangeUp") + 1
    weights[0, 0, 0, 1, up] *= 1.01
    found = theory.names_for(table._replace(weights=weights), names, (0,))
    assert {"mbRangeUp", "mbRangeDown"} <= set(found)


def test_a_z_sees_six_electroweak_variations_and_a_w_seven(corrections: sets.CorrectionSet) -> None:
    table, names = electroweak.load(corrections)
    assert electroweak.names_for(table, names, (0,)) == small_theory.EW_VARIATIONS
    assert set(electroweak.names_for(table, names, (-1, 1))) == set(names)
    assert len(names) == 7


def test_a_charge_that_is_not_in_a_table_is_not_weighted(tmp_path: Path) -> None:
    documents = {n: d for n, (_, d) in small_theory.documents(np.random.default_rng(7)).items()}
    for document in documents.values():
        for item in document["corrections"][0]["data"]["content"]:
            del item["value"]["content"][1]
    found = written(tmp_path, **documents)
    assert (theory.load(found)[0].weights[:, :, :, 1] == 1).all()
    assert (electroweak.load(found)[0].weights[:, 1] == 1).all()
    unpolarised = angular.load(found).coefficients[:, :, 1]
    assert (unpolarised == angular.identity().coefficients[0, 0, 1]).all()
    assert theory.names_for(*theory.load(found), (0,)) == ()


@pytest.mark.parametrize("mass", [-np.inf, 0.0, 91.0, np.inf, np.nan])
def test_identities_change_nothing_anywhere(mass: float) -> None:
    assert electroweak.identity().weights[
        electroweak.bin_of(mass, 0, mass, electroweak.identity())
    ].tolist() == [1.0]
    out, scratch = np.zeros(18), np.zeros(9)
    angular.fill_ratios(mass, mass, 1, 0.3, 1.0, angular.identity(), scratch, out)
    assert (out == 1).all()


def category(document: Any, *path: int) -> Any:
    """Return the node below the top along a path of categories."""
    node = document["corrections"][0]["data"]
    for place in path:
        node = node["content"][place]["value"]
    return node


def set_first(node: Any, value: float) -> None:
    node["content"][0] = value


@pytest.mark.parametrize(
    ("name", "change", "code", "word"),
    [
        ("angular", lambda d: category(d, 0, 0)["content"].pop(3), "missing-bins", "helicity = 2"),
        ("angular", lambda d: [category(d, v, q)["content"].pop(3) for v in range(5) for q in range(3)],
         "missing-bins", "lacks the category 2"),
        ("angular", lambda d: category(d)["content"].pop(), "missing-bins", "showerDown"),
        ("angular", lambda d: category(d)["content"][1].update(key="scaleUpp"), "wrong-axes", "scaleUpp"),
        ("angular", lambda d: category(d, 0, 0)["content"][8].update(key=8), "wrong-axes", "category 8"),
        ("angular", lambda d: [category(d, v)["content"][2].update(key=2) for v in range(5)],
         "wrong-axes", "among -1, 0, 1"),
        ("angular", lambda d: set_first(category(d, 0, 1, 0), 0.0), "bad-payload", "not positive"),
        ("angular", lambda d: category(d, 2, 1, 4).update(colour=1), "bad-payload", "'colour'"),
        ("angular", lambda d: category(d, 0, 1, 4)["content"].pop(), "bad-payload", "refuses"),
        ("ew", lambda d: category(d)["content"].pop(0), "missing-bins", "nominal"),
        ("ew", lambda d: category(d, 1)["content"].pop(0), "missing-bins", "charge = -1"),
        ("ew", lambda d: category(d, 0)["content"][2].update(key=2), "missing-bins", "charge"),
        ("ew", lambda d: set_first(category(d, 0, 2), -1.0), "bad-payload", "not positive"),
        ("ew", lambda d: d["corrections"][0]["inputs"][0].update(name="m"), "bad-payload", "refuses"),
        ("theory", lambda d: category(d)["content"].pop(1), "missing-bins", "'resumTNP_gamma_cuspUp'"),
        ("theory", lambda d: category(d)["content"].pop(30), "missing-bins", "'resumTransitionDown'"),
        ("theory", lambda d: category(d)["content"][1].update(key="resumTNP_new"), "missing-bins", "resumTNP"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused_with_the_reason(
    name: str, change: Any, code: str, word: str, tmp_path: Path
) -> None:
    document = small_theory.documents(np.random.default_rng(7))[name][1]
    change(document)
    load = {"angular": angular.load, "ew": electroweak.load, "theory": theory.load}[name]
    with pytest.raises(PayloadError) as caught:
        load(written(tmp_path, **{name: document}))
    assert (caught.value.code, word in str(caught.value)) == (code, True), str(caught.value)
    assert name in str(caught.value)


# the Collins-Soper frame


def boost(vector: Any, velocity: Any) -> Any:
    """Return a four-momentum (px, py, pz, e) as seen after a boost by a velocity."""
    momentum, energy = np.asarray(vector[:3]), vector[3]
    speed2 = velocity @ velocity
    if speed2 == 0:
        return np.asarray(vector)
    gamma = 1 / np.sqrt(1 - speed2)
    along = velocity @ momentum
    moved = momentum + ((gamma - 1) * along / speed2 + gamma * energy) * velocity
    return np.array([*moved, gamma * (energy + along)])


def event(
    mass: float, y: float, qt: float, phi_v: float, cosine: float, phi: float, masses: tuple[float, float]
) -> tuple[Any, Any]:
    """Return the four-momenta of particle and antiparticle with these angles in the boson's rest frame."""
    m1, m2 = masses
    e1 = (mass**2 + m1**2 - m2**2) / (2 * mass)
    momentum = np.sqrt(e1**2 - m1**2)
    sine = np.sqrt(1 - cosine**2)
    forward = 1.0 if y >= 0 else -1.0
    direction = np.array([sine * np.cos(phi), forward * sine * np.sin(phi), forward * cosine])
    transverse = np.array([qt / np.hypot(mass, qt), 0, 0])
    turn = np.array([[np.cos(phi_v), -np.sin(phi_v), 0], [np.sin(phi_v), np.cos(phi_v), 0], [0, 0, 1]])
    found = []
    for sign, energy in ((1, e1), (-1, mass - e1)):
        moved = boost([*(sign * momentum * direction), energy], transverse)
        moved = boost(moved, np.array([0, 0, np.tanh(y)]))
        found.append(np.array([*(turn @ moved[:3]), moved[3]]))
    return found[0], found[1]


def reference_angles(particle: Any, antiparticle: Any) -> tuple[float, float]:
    """Return the angles by boosting two massless beams into the rest frame of the pair."""
    boson = particle + antiparticle
    forward = 1.0 if boson[2] >= 0 else -1.0
    velocity = -boson[:3] / boson[3]
    one, two = (boost([0, 0, s * forward * 6500, 6500], velocity)[:3] for s in (1, -1))
    one, two = one / np.linalg.norm(one), two / np.linalg.norm(two)
    z = (one - two) / np.linalg.norm(one - two)
    x = -(one + two) / np.linalg.norm(one + two)  # away from the beams, hence along the boson's way
    y = np.cross(z, x)
    lepton = boost(particle, velocity)[:3]
    return z @ lepton / np.linalg.norm(lepton), np.arctan2(y @ lepton, x @ lepton)


def same_direction(found: Any, cosine: float, phi: float, tolerance: float) -> None:
    """Compare directions as vectors: at a pole phi means nothing."""
    assert found[0] == pytest.approx(cosine, abs=tolerance)
    sine = np.sqrt(1 - cosine**2)
    turned = sine * np.exp(1j * found[1]) - sine * np.exp(1j * phi)
    assert abs(turned) < tolerance


@given(
    st.floats(20, 500), RAPIDITIES, st.just(0.0) | st.floats(1e-2, 150), ANGLES, COSINES, ANGLES,
    st.sampled_from([(0.0, 0.0), (0.10566, 0.0), (0.0, 1.777), (0.10566, 0.10566)]),
)  # fmt: skip
def test_the_angles_that_an_event_was_made_with_come_back(
    mass: float, y: float, qt: float, phi_v: float, cosine: float, phi: float, masses: tuple[float, float]
) -> None:
    particle, antiparticle = event(mass, y, qt, phi_v, cosine, phi, masses)
    found = angular.collins_soper(*particle, *antiparticle)
    if qt == 0:  # no direction of the boson: angles are from the detector's x axis
        momentum = (particle + antiparticle)[:2]
        direction = np.arctan2(momentum[1], momentum[0]) if momentum.any() else 0.0
        phi += (phi_v - direction) if (particle + antiparticle)[2] >= 0 else direction - phi_v
    same_direction(found, cosine, phi, 1e-9)


@given(st.floats(20, 200), RAPIDITIES, st.floats(0.1, 100), ANGLES, st.floats(-0.999999, 0.999999), ANGLES)
def test_the_frame_is_that_of_two_boosted_beams(
    mass: float, y: float, qt: float, phi_v: float, cosine: float, phi: float
) -> None:
    particle, antiparticle = event(mass, y, qt, phi_v, cosine, phi, (0.0, 0.10566))
    expected = reference_angles(particle, antiparticle)
    same_direction(angular.collins_soper(*particle, *antiparticle), *expected, 1e-9)


@given(st.floats(0.1, 3), st.floats(0.1, 3), COSINES, ANGLES)
def test_a_boost_along_the_beams_changes_no_angle_until_the_boson_turns(
    y: float, step: float, cosine: float, phi: float
) -> None:
    pair = event(91.0, y, 20.0, 1.0, cosine, phi, (0.0, 0.0))
    faster = [boost(p, np.array([0, 0, np.tanh(step)])) for p in pair]
    same_direction(angular.collins_soper(*np.concatenate(faster)), cosine, phi, 1e-9)
    turned = [boost(p, np.array([0, 0, -np.tanh(y + step)])) for p in pair]
    same_direction(angular.collins_soper(*np.concatenate(turned)), -cosine, -phi, 1e-9)


@given(RAPIDITIES, st.floats(0.1, 50), COSINES, ANGLES)
def test_the_antiparticle_goes_the_other_way(y: float, qt: float, cosine: float, phi: float) -> None:
    particle, antiparticle = event(80.0, y, qt, 0.4, cosine, phi, (0.0, 0.0))
    same_direction(angular.collins_soper(*antiparticle, *particle), -cosine, phi + np.pi, 1e-9)


def test_a_pair_without_a_rest_frame_has_no_angles() -> None:
    assert np.isnan(angular.collins_soper(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)).all()
    assert np.isnan(angular.collins_soper(1.0, 0.0, 0.0, 1.0, np.nan, 0.0, 0.0, 1.0)).all()


# polynomials and ratios


def reference_polynomials(cosine: Any, phi: Any) -> Any:
    theta = np.arccos(cosine)
    return np.array(
        [
            1 + cosine**2,
            (1 - 3 * cosine**2) / 2,
            np.sin(2 * theta) * np.cos(phi),
            np.sin(theta) ** 2 * np.cos(2 * phi) / 2,
            np.sin(theta) * np.cos(phi),
            cosine,
            np.sin(theta) ** 2 * np.sin(2 * phi),
            np.sin(2 * theta) * np.sin(phi),
            np.sin(theta) * np.sin(phi),
        ]
    )


def sphere() -> tuple[Any, Any, Any]:
    """Return points and weights that integrate the polynomials exactly."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    around = np.arange(12) * 2 * np.pi / 12
    cosine, phi = (grid.ravel() for grid in np.meshgrid(nodes, around, indexing="ij"))
    return cosine, phi, np.repeat(weights, 12) * 2 * np.pi / 12


def polynomials(cosine: float, phi: float) -> Any:
    out = np.zeros(9)
    angular.polynomials(cosine, phi, out)
    return out


@given(COSINES, ANGLES)
def test_the_polynomials_are_their_formulas(cosine: float, phi: float) -> None:
    expected = reference_polynomials(cosine, phi)
    np.testing.assert_allclose(polynomials(cosine, phi), expected, rtol=1e-12, atol=1e-12)


def test_only_the_unpolarised_term_has_an_integral() -> None:
    cosine, phi, weight = sphere()
    integral = weight @ np.array([polynomials(c, p) for c, p in zip(cosine, phi, strict=True)])
    np.testing.assert_allclose(integral, [16 * np.pi / 3, *[0] * 8], atol=1e-12)


def ratios(table: angular.Angular, absy: float, qt: float, charge: int, cosine: float, phi: float) -> Any:
    scratch, out = np.full(9, np.nan), np.full(18, np.nan)
    angular.fill_ratios(absy, qt, charge, cosine, phi, table, scratch, out)
    return out


def reference_ratios(
    table: angular.Angular, absy: float, qt: float, charge: int, cosine: float, phi: float
) -> Any:
    i = np.clip(np.searchsorted(table.absy, absy, "right") - 1, 0, len(table.absy) - 2)
    j = np.clip(np.searchsorted(table.qt, qt, "right") - 1, 0, len(table.qt) - 2)
    nominal, scale_up, scale_down, shower_up, shower_down = table.coefficients[i, j, charge + 1].T
    p = reference_polynomials(cosine, phi)
    varied = []
    for h in range(1, 9):
        for source in (scale_up, scale_down):
            alone = nominal.copy()
            alone[h] = source[h]
            varied.append(alone @ p)
    varied += [shower_up @ p, shower_down @ p]
    return np.clip(np.array(varied) / (nominal @ p), -10, 10)


@given(st.floats(0, 9), st.floats(0, 500), CHARGES, COSINES, ANGLES)
def test_a_ratio_is_the_density_with_one_coefficient_replaced(
    coefficients: angular.Angular, absy: float, qt: float, charge: int, cosine: float, phi: float
) -> None:
    found = ratios(coefficients, absy, qt, charge, cosine, phi)
    expected = reference_ratios(coefficients, absy, qt, charge, cosine, phi)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@given(st.floats(0, 5), st.floats(0, 100), CHARGES)
def test_a_varied_helicity_makes_no_events(
    coefficients: angular.Angular, absy: float, qt: float, charge: int
) -> None:
    cosine, phi, weight = sphere()
    i, j = (
        np.searchsorted(edges[1:-1], x, "right")
        for edges, x in ((coefficients.absy, absy), (coefficients.qt, qt))
    )
    density = coefficients.coefficients[i, j, charge + 1, :, 0] @ reference_polynomials(cosine, phi)
    found = np.array(
        [ratios(coefficients, absy, qt, charge, c, p)[:16] for c, p in zip(cosine, phi, strict=True)]
    )
    np.testing.assert_allclose((weight * density) @ found, weight @ density, rtol=1e-12)


def test_ratios_are_clipped_and_what_is_not_a_number_stays_so(coefficients: angular.Angular) -> None:
    steep = coefficients.coefficients.copy()
    steep[..., 5, 1:3] = [1e3, -1e3]
    found = ratios(coefficients._replace(coefficients=steep), 1.0, 5.0, 1, 1.0, 0.0)
    assert found[8:10].tolist() == [10.0, -10.0]
    assert np.isnan(ratios(coefficients, 1.0, 5.0, 1, np.nan, 0.0)).all()
