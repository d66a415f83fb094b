"""The correction set belongs to the truth: central values within their covariance, tables exactly."""

from __future__ import annotations

import numpy as np
import pytest

from binworks.corrections import efficiency, momentum_scale, pileup, resolution, theory
from binworks.samples import theory as theory_truth
from binworks.samples.calibration import write_corrections
from binworks.samples.conditions import draw_conditions, pileup_profile
from binworks.samples.truth import DEMO_EFFECTS, EFFECTS, Truth
from binworks.tensors.errors import RequestError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    truth = Truth.draw(7)
    return truth, write_corrections(tmp_path_factory.mktemp("set"), "demo", truth)


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


def test_scale_factors_are_off_by_their_uncertainty(made):
    truth, corrections = made
    found, covariance, _ = efficiency.load(corrections, "idip")
    difference = found.coefficients - np.array(truth.efficiency["idip"].coefficients)
    total = sum(pull2(difference[i], covariance[i]) for i in np.ndindex(48, 2))
    assert 290 < total < 490  # chi2 of 384
    assert 0.95 < found.coefficients[:, :, 0].min() < found.coefficients[:, :, 0].max() < 1.03


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
    rows = [theory.theory_row(80.0, absy[i], qt[i], charge[i], table) for i in range(500)]
    np.testing.assert_allclose([row[0] for row in rows], expected, atol=1e-6)
    assert 0.85 < expected.min() < expected.max() < 1.15
    assert len(names) == 42
    up, down = (names.index(f"resumTNP_gamma_cusp{way}") + 1 for way in ("Up", "Down"))
    np.testing.assert_allclose([(row[up] + row[down]) / 2 for row in rows], expected, atol=1e-6)


def test_without_effects_every_correction_is_the_identity_up_to_its_uncertainty(tmp_path):
    corrections = write_corrections(tmp_path, "none", Truth.draw(7, (), 0.0))
    scale, covariance = momentum_scale.load(corrections, is_data=True)
    assert pull2(np.concatenate([scale.A, scale.e, scale.M]), covariance) < 220
    np.testing.assert_allclose(theory.load(corrections)[0].weights[..., 0], 1)
    np.testing.assert_allclose(pileup.load(corrections).weights[:60, 0], 1)
    same = [resolution.load(corrections, is_data=flag) for flag in (True, False)]
    np.testing.assert_array_equal(np.array(same[0]), np.array(same[1]))


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
