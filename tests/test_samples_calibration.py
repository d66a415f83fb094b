"""The correction set belongs to the truth: central values within their covariance, tables exactly."""

from __future__ import annotations

import numpy as np
import pytest
from samples_tools import collisions

from binworks.corrections import (
    angular,
    cvh,
    efficiency,
    electroweak,
    momentum_scale,
    pileup,
    pixel_hits,
    prefire,
    recoil,
    resolution,
    response,
    theory,
    vertex,
    z_closure,
)
from binworks.samples import theory as theory_truth
from binworks.samples.calibration import write_corrections
from binworks.samples.conditions import draw_conditions, pileup_profile
from binworks.samples.payload_efficiency import ALTERNATIVES
from binworks.samples.payload_theory import (
    ANGULAR_QT_EDGES,
    ANGULAR_Y_EDGES,
    angular_coefficients,
)
from binworks.samples.truth import DEMO_EFFECTS, EFFECTS, STEPS, Truth
from binworks.tensors.errors import RequestError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    truth = Truth.draw(7, EFFECTS)
    return truth, write_corrections(tmp_path_factory.mktemp("set"), "demo", truth)


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    return write_corrections(tmp_path_factory.mktemp("none"), "none", Truth.draw(7, (), 0.0))


def pull2(difference, covariance) -> float:
    return float(difference @ np.linalg.solve(covariance, difference))


def test_momentum_scale_is_off_by_its_uncertainty(made):
    truth, corrections = made
    found, covariance = momentum_scale.load(corrections, is_data=True)
    scale = truth.momentum_scale
    difference = np.concatenate([found.A - scale.A, found.e - scale.e, found.M - scale.M])
    assert 80 < pull2(difference, covariance) < 220  # chi2 of 144
    none, _ = momentum_scale.load(corrections, is_data=False)
    assert not np.any([none.A, none.e, none.M])


def test_resolution_is_off_by_its_uncertainty_and_wider_in_data(made):
    truth, corrections = made
    found, covariance = resolution.load(corrections, is_data=True), resolution.load_covariance(corrections)
    wide, narrow = truth.resolution["data"], truth.resolution["mc"]
    difference = [np.square(getattr(found, p)) - np.square(getattr(wide, p)) for p in "acb"]
    assert 30 < pull2(np.concatenate(difference), covariance) < 130  # chi2 of 72
    assert (np.array(wide.a) > 1.04 * np.array(narrow.a)).all()
    assert (np.array(wide.c) > 1.04 * np.array(narrow.c)).all()


@pytest.mark.parametrize("step", STEPS)
def test_scale_factors_are_off_by_their_uncertainty(made, step):
    truth, corrections = made
    found, covariance, names = efficiency.load(corrections, step)
    charges = covariance.shape[1]
    difference = found.coefficients[:, :charges] - np.array(truth.efficiency[step].coefficients)
    total = sum(pull2(difference[i], covariance[i]) for i in np.ndindex(48, charges))
    n = difference.size
    assert abs(total - n) < 5 * np.sqrt(2 * n)
    assert 0.9 < found.coefficients[:, :, 0].min() < found.coefficients[:, :, 0].max() < 1.03
    assert set(names) == set(ALTERNATIVES[step])
    shift = found.alternatives[:, :, :charges] - found.coefficients[:, :charges]
    assert 1e-4 < np.abs(shift).max() <= 1e-3


def test_veto_factors_are_the_product_of_tracking_and_reco(made):
    truth, corrections = made
    found, covariance, names = efficiency.load(corrections, "veto")
    x = np.linspace(-1, 1, 50)
    expected = 1.0
    for step in ("tracking", "reco"):
        coefficients = np.array(truth.efficiency[step].coefficients)
        expected = expected * (coefficients @ np.vander(x, coefficients.shape[2], increasing=True).T)
    powers = np.vander(x, 4, increasing=True)
    error = np.sqrt(np.einsum("xi,ecij,xj->ecx", powers, covariance, powers))
    pulls = (found.coefficients @ powers.T - expected) / error
    assert np.abs(pulls).max() < 5
    assert 0.7 < pulls.std() < 1.3
    assert set(names) == {"reco", "tracking", "idip"}


def test_alternatives_are_as_many_as_the_fit_has_nuisances(made):
    _, corrections = made
    steps = sum(len(efficiency.load(corrections, step).alternatives) for step in STEPS)
    assert steps * 49 == 343
    assert len(efficiency.load(corrections, "veto").alternatives) * 49 == 147


def test_pileup_weights_turn_simulation_into_data(made):
    truth, corrections = made
    rng = np.random.default_rng(1)
    crossings = draw_conditions(200_000, truth.pileup["mc"], truth.vertex["mc"], rng)
    weights = pileup.load(corrections)
    row = np.clip(np.searchsorted(weights.edges, crossings.n_true, side="right") - 1, 0, 99)
    weighted = [np.average(crossings.n_true, weights=weights.weights[row, i]) for i in range(3)]
    assert weights.weights[row, 0].mean() == pytest.approx(1, abs=0.005)
    assert weighted[0] == pytest.approx(23.0, abs=0.1)
    assert weighted[1] / weighted[0] == pytest.approx(1.046, abs=0.005)
    assert weighted[2] / weighted[0] == pytest.approx(0.954, abs=0.005)
    assert pileup_profile(truth.pileup["data"]).sum() == pytest.approx(1)


def test_theory_payload_is_the_truth_that_data_are_drawn_with(made):
    truth, corrections = made
    table, names = theory.load(corrections)
    rng = np.random.default_rng(2)
    charge, absy, qt = rng.integers(-1, 2, 500), rng.uniform(0, 6, 500), rng.uniform(0, 150, 500)
    expected = theory_truth.lookup(theory_truth.nominal_weights(truth.theory), charge, absy, qt)
    rows = [table.weights[theory.bin_of(80.0, absy[i], qt[i], charge[i], table)] for i in range(500)]
    np.testing.assert_allclose([row[0] for row in rows], expected, atol=1e-6)
    assert 0.85 < expected.min() < expected.max() < 1.15
    up, down = (names.index(f"resumTNP_gamma_cusp{way}") + 1 for way in ("Up", "Down"))
    np.testing.assert_allclose([(row[up] + row[down]) / 2 for row in rows], expected, atol=1e-6)
    up, down = (names.index(f"resumTransition{way}") + 1 for way in ("Up", "Down"))
    assert np.abs([(row[up] + row[down]) / 2 / row[0] - 1 for row in rows]).max() > 1e-4


@pytest.mark.parametrize("fixture", ["made", "unchanged"])
def test_a_z_feels_sixteen_theory_nuisances_and_a_w_five_more(fixture, request):
    found = request.getfixturevalue(fixture)
    table, names = theory.load(found[1] if fixture == "made" else found)
    felt = theory.names_for(table, names, (0,))
    assert len(names) == len(theory.names_for(table, names, (-1, 1))) == 2 * 21
    assert len(felt) == 2 * 16
    assert {name.removesuffix("Up").removesuffix("Down") for name in set(names) - set(felt)} == {
        "scetlibNPDeltaLambda2",
        "scetlibNPLambda6",
        "scetlibNPLambdaInf",
        "mbRange",
        "mcRange",
    }


def test_electroweak_weights_vary_and_one_of_them_the_w_alone(made):
    table, names = electroweak.load(made[1])
    assert (table.weights[..., 0] == 1).all()
    assert electroweak.names_for(table, names, (-1, 1)) == names
    assert set(names) - set(electroweak.names_for(table, names, (0,))) == {"ewVirtualCorr2"}
    assert len(names) == 7
    assert np.abs(table.weights - 1).max() < 0.03


def test_angular_densities_are_positive_at_every_angle_and_variation(made):
    table = angular.load(made[1])
    terms = np.zeros(9)
    for cosine in np.linspace(-1, 1, 21):
        for phi in np.linspace(-np.pi, np.pi, 17):
            angular.polynomials(cosine, phi, terms)
            density = np.einsum("yqchv,h->yqcv", table.coefficients, terms)
            assert density.min() > 0.005
    nominal = table.coefficients[..., :1]
    assert (np.abs(table.coefficients - nominal)[..., 1:, 1:].max(axis=(0, 1, 2)) > 1e-4).all()
    assert (table.coefficients[..., 0, :] == 1).all()


def test_forward_backward_coefficients_are_like_those_of_the_generator():
    generated = collisions("Wplusmunu", 12_000)
    particle = np.where(generated.lepton_ids[:, :1] > 0, generated.leptons[:, 0], generated.leptons[:, 1])
    other = generated.leptons.sum(axis=1) - particle
    momenta = [(*p, np.linalg.norm(p), *q, np.linalg.norm(q)) for p, q in zip(particle, other, strict=True)]
    cosine = np.array([angular.collins_soper(*both)[0] for both in momenta])
    total = particle + other
    energy = np.linalg.norm(particle, axis=1) + np.linalg.norm(other, axis=1)
    rapidity = np.abs(np.arctanh(total[:, 2] / energy))
    found, expected = [], []
    coefficients = angular_coefficients()[2, 5]
    for i in range(8):
        inside = (rapidity >= ANGULAR_Y_EDGES[i]) & (rapidity < ANGULAR_Y_EDGES[i + 1])
        place = np.searchsorted(ANGULAR_QT_EDGES, np.hypot(*total[inside, :2].T), side="right") - 1
        found.append(4 * cosine[inside].mean())
        expected.append(coefficients[i, np.clip(place, 0, coefficients.shape[1] - 1)].mean())
    np.testing.assert_allclose(found, expected, atol=0.2)  # some 0.06 from the statistics


def test_without_effects_every_correction_changes_nothing(unchanged):
    scale, _ = momentum_scale.load(unchanged, is_data=True)
    assert not np.any([scale.A, scale.e, scale.M])
    same = [resolution.load(unchanged, is_data=flag) for flag in (True, False)]
    np.testing.assert_array_equal(np.array(same[0]), np.array(same[1]))
    for step in (*STEPS, "veto"):
        coefficients = efficiency.load(unchanged, step).efficiency.coefficients
        assert (coefficients[..., 0] == 1).all()
        assert not coefficients[..., 1:].any()
    assert (theory.load(unchanged)[0].weights[..., 0] == 1).all()
    assert (pileup.load(unchanged).weights[:60, 0] == 1).all()
    assert (vertex.load(unchanged).weights == 1).all()
    assert not prefire.load(unchanged).plateau.any()
    assert not recoil.load(unchanged).shift.any()
    assert "cvh" not in unchanged


def test_without_effects_the_uncertainties_stay(made, unchanged):
    _, changed = made
    for step in (*STEPS, "veto"):
        np.testing.assert_array_equal(
            efficiency.load(unchanged, step).covariance, efficiency.load(changed, step).covariance
        )
        assert efficiency.load(unchanged, step).alternatives
    for found in (changed, unchanged):
        assert z_closure.load(found)[0].shape == (72, 72)
        assert z_closure.load(found)[1] == pytest.approx(2.3e-5, rel=0.01)
        assert resolution.load_covariance(found).any()
        assert (pixel_hits.load(found).ratios != 1).any()
        assert response.load(found).knots.shape == (20, 24, 2, 21)
    np.testing.assert_array_equal(prefire.load(changed).uncertainty, prefire.load(unchanged).uncertainty)


def test_parameters_of_the_refit_are_the_truth_and_none_for_simulation(made):
    truth, corrections = made
    np.testing.assert_array_equal(cvh.load(corrections, is_data=True).x, truth.cvh)
    assert not cvh.load(corrections, is_data=False).x.any()


def test_the_same_truth_gives_the_same_set_and_another_seed_another(made, tmp_path):
    truth, corrections = made
    assert write_corrections(tmp_path / "again", "demo", truth).digest == corrections.digest
    other = write_corrections(tmp_path / "other", "demo", Truth.draw(8, EFFECTS))
    assert other.digest != corrections.digest


def test_one_effect_less_leaves_the_other_payloads_as_they_are(made, tmp_path):
    truth, corrections = made
    fewer = truth.model_copy(update={"effects": tuple(e for e in EFFECTS if e != "momentum_scale")})
    found = write_corrections(tmp_path, "demo", fewer).manifest.payloads
    before = corrections.manifest.payloads
    assert {name for name in before if found[name].sha256 != before[name].sha256} == {"momentum_scale"}


def test_truth_is_the_same_for_the_same_seed_and_survives_json():
    truth = Truth.draw(5)
    assert truth == Truth.draw(5)
    assert truth != Truth.draw(6)
    assert Truth.model_validate_json(truth.model_dump_json(by_alias=True)) == truth
    assert set(truth.effects) == set(DEMO_EFFECTS)
    assert abs(truth.mass_shift_mev) <= 80
    assert len({Truth.draw(seed).mass_shift_mev for seed in range(10)}) == 10


def test_mass_shift_is_what_was_asked_for_and_none_without_the_effect():
    assert Truth.draw(5, mass_shift_mev=-25.0).mass_shift_mev == -25.0
    assert Truth.draw(5, [e for e in EFFECTS if e != "mass"]).mass_shift_mev == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_no_efficiency_of_any_truth_reaches_one(seed, tmp_path):
    """Where it did, data could not follow the scale factor, and the loader would refuse the set."""
    truth = Truth.draw(seed, EFFECTS)
    corrections = write_corrections(tmp_path, "demo", truth)
    for step in (*STEPS, "veto"):
        efficiency.load(corrections, step)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((5, ["recol"]), "unknown-effect", "recoil"),
        ((-1,), "bad-seed", "-1"),
        ((5, DEMO_EFFECTS, 1e6), "bad-mass-shift", "1000"),
        ((5, DEMO_EFFECTS, float("nan")), "bad-mass-shift", "nan"),
    ],
)
def test_wrong_truths_are_refused_by_name(arguments, code, says):
    with pytest.raises(RequestError, match=says) as caught:
        Truth.draw(*arguments)
    assert caught.value.code == code
