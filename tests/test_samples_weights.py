"""The generator's weights are what they claim: closed forms, exact ones at no shift, and the generator agrees."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from samples_tools import collisions

from binworks.samples import parton_densities, theory_weights
from binworks.samples.generator import Generator
from binworks.samples.processes import W_MASS, W_WIDTH, Z_MASS, Z_WIDTH, find
from binworks.tensors.groups.mass import breit_wigner_ratio

pytest.importorskip("pythia8mc", exc_type=ImportError)


def test_mass_weights_are_the_closed_form_and_one_at_no_shift():
    generated = collisions("Wplusmunu")
    weights = theory_weights.mass_weights(theory_weights.w_resonance(generated), W_MASS, W_WIDTH)
    assert weights.shape == (len(generated), 21)
    assert (weights[:, 10] == 1).all()
    m, shifted = 80.379, 80.479
    s = generated.mass**2
    expected = ((s - m**2) ** 2 + s**2 * 2.085**2 / m**2) / (
        (s - shifted**2) ** 2 + s**2 * 2.085**2 / shifted**2
    )
    np.testing.assert_allclose(weights[:, 20], expected, rtol=1e-12)


def test_processors_compute_the_same_mass_weights_from_the_mass():
    generated = collisions("Wplusmunu")
    weights = theory_weights.mass_weights(theory_weights.w_resonance(generated), W_MASS, W_WIDTH)
    for event in range(20):
        for j, shift in enumerate(range(-100, 101, 10)):
            assert weights[event, j] == pytest.approx(
                breit_wigner_ratio(generated.mass[event] ** 2, shift, W_MASS, W_WIDTH), rel=1e-9
            )


@pytest.mark.parametrize("process", ["Wplusmunu", "Wminusmunu"])
def test_mean_mass_weight_is_the_cross_section_that_data_are_drawn_with(process):
    generated = collisions(process, 12_000)
    weights = theory_weights.mass_weights(theory_weights.w_resonance(generated), W_MASS, W_WIDTH)
    expected = (1 + 0.1 / W_MASS) ** find(process).mass_exponent
    error = weights[:, 20].std() / np.sqrt(len(generated))
    assert weights[:, 20].mean() == pytest.approx(expected, abs=4 * error)


def test_weighted_w_equals_one_generated_at_the_shifted_mass():
    nominal = collisions("Wplusmunu", 12_000)
    shifted = Generator(find("Wplusmunu"), np.random.SeedSequence(12), mass_shift_mev=1000.0).draw(12_000)
    resonance = theory_weights.w_resonance(nominal)
    weights = resonance(W_MASS + 1, W_WIDTH) / resonance(W_MASS, W_WIDTH)
    assert _chi2(nominal.mass, weights, shifted.mass) < 45  # 20 bins
    assert _chi2(nominal.mass, np.ones(len(nominal)), shifted.mass) > 200


def test_weighted_z_equals_one_generated_at_the_shifted_mass_in_mass_and_angle():
    z = find("Zmumu")
    moved = dataclasses.replace(z, settings=(*z.settings, f"23:m0 = {Z_MASS + 1}"))
    nominal = collisions("Zmumu", 12_000)
    shifted = Generator(moved, np.random.SeedSequence(13)).draw(12_000)
    resonance = theory_weights.z_resonance(nominal)
    weights = resonance(Z_MASS + 1, Z_WIDTH) / resonance(Z_MASS, Z_WIDTH)
    assert _chi2(nominal.mass, weights, shifted.mass) < 45
    angle = theory_weights._cos_theta
    assert _chi2(angle(nominal), weights, angle(shifted)) < 45


@pytest.mark.parametrize("process", ["Wplusmunu", "Zmumu"])
def test_every_weight_is_finite_positive_and_one_where_nothing_is_varied(process):
    blocks = theory_weights.theory_weights(find(process), collisions(process))
    sizes = {name: block.shape[1] for name, block in blocks.items()}
    assert sizes == {
        "LHEPdfWeight": 61,
        "LHEPdfWeightAltSet1": 1,
        "LHEPdfWeightAltSet2": 1,
        "LHEPdfWeightAltSet3": 1,
        "LHEScaleWeight": 9,
        "MEParamWeight": 21,
        "MEParamWeightAltSet1": 5,
        **({"MEParamWeightAltSet4": 11} if process == "Zmumu" else {}),
    }
    for name, block in blocks.items():
        assert np.isfinite(block).all(), name
        assert (block > 0).all(), name
    assert (blocks["LHEPdfWeight"][:, 0] == 1).all()
    assert (blocks["LHEScaleWeight"][:, 4] == 1).all()
    assert (blocks["MEParamWeightAltSet1"][:, 2] == 1).all()
    if process == "Zmumu":
        assert (blocks["MEParamWeightAltSet4"][:, 5] == 1).all()


def test_mixing_weights_change_the_forward_backward_asymmetry_and_little_else():
    generated = collisions("Zmumu", 12_000)
    weights = theory_weights.mixing_weights(generated)
    assert weights.shape == (len(generated), 11)
    peak = np.abs(generated.mass - Z_MASS) < 3
    cosine = theory_weights._cos_theta(generated)[peak]
    asymmetry = [np.average(np.sign(cosine), weights=row) for row in weights[peak].T]
    # A = 3/4 A_q A_l with A_l = 2 (1 - 4 s) / (1 + (1 - 4 s)^2), whose slope outweighs that of A_q
    down = np.abs(generated.parton_ids[peak, 0]) % 2 == 1

    def expected(sin2: float) -> float:
        def polarisation(charge: float) -> float:
            vector = 1 - 4 * sin2 * charge
            return 2 * vector / (1 + vector**2)

        return (
            0.75
            * polarisation(1.0)
            * (down.mean() * polarisation(1 / 3) + (1 - down.mean()) * polarisation(2 / 3))
        )

    s = theory_weights.SIN2_THETA
    slope = (expected(s + 5e-4) - expected(s - 5e-4)) / 10
    np.testing.assert_allclose(np.diff(asymmetry), slope, rtol=0.05)
    assert np.abs(weights.mean(axis=0) - 1).max() < 2e-3
    np.testing.assert_allclose(weights[:, 0] + weights[:, 10], 2, atol=1e-4)


def test_pdf_pairs_are_opposite_and_of_a_few_percent():
    weights = theory_weights.pdf_weights(collisions("Wplusmunu"))
    pairs = weights[:, 1:59].reshape(len(weights), 29, 2)
    np.testing.assert_allclose(
        pairs.mean(axis=2), 1, atol=2e-3
    )  # opposite up to the product of two small ones
    total = np.sqrt(((pairs[:, :, 0] - 1).mean(axis=0) ** 2).sum())
    assert 0.005 < total < 0.05
    alpha_s = weights[:, 59:]
    np.testing.assert_allclose(alpha_s.prod(axis=1), 1, rtol=1e-12)
    assert 0.001 < alpha_s[:, 0].mean() - 1 < 0.03


def test_tabulated_densities_are_those_of_pythia():
    from binworks.samples.generator import GENERATOR_PDF, proton

    evaluator = proton(GENERATOR_PDF)
    ids, x, q = np.array([1, 2, -1, -3, 4]), np.array([2e-4, 3e-3, 0.02, 0.1, 0.3]), np.full(5, 80.4)
    expected = [evaluator.xf(int(i), xi, qi**2) for i, xi, qi in zip(ids, x, q, strict=True)]
    found = parton_densities.density_table().xf(ids, x, q)
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    np.testing.assert_allclose(found[:3], expected[:3], rtol=2e-4)


def test_scale_weights_follow_the_densities_of_pythia():
    from binworks.samples.generator import GENERATOR_PDF, proton

    evaluator, generated = proton(GENERATOR_PDF), collisions("Wplusmunu")
    weights = theory_weights.scale_weights(generated)

    def luminosity(i: int, q: float) -> float:
        pairs = zip(generated.parton_ids[i], generated.parton_x[i], strict=True)
        return float(np.prod([evaluator.xf(int(parton), x, q**2) for parton, x in pairs]))

    for i in range(20):
        q = generated.mass[i]
        assert weights[i, 5] == pytest.approx(luminosity(i, 2 * q) / luminosity(i, q), rel=2e-3)
        assert weights[i, 3] == weights[i, 0] == weights[i, 6]


def test_shower_weights_keep_the_total_and_shift_the_boson_pt():
    source = Generator(find("Wplusmunu"), np.random.SeedSequence(14), shower_weights=True)
    generated = source.draw(4000)
    assert generated.shower_weights is not None
    weights = theory_weights.shower_weights(generated.shower_weights)
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.03)
    assert (weights[:, [1, 3]] == 1).all()
    qt = np.hypot(*generated.leptons.sum(axis=1)[:, :2].T)
    assert weights[qt < 5, 0].mean() > 1.05 > 0.95 > weights[qt > 20, 0].mean()


def _chi2(sample, weights, reference, bins: int = 20) -> float:
    """Return chi2 of the shape of a weighted sample against a reference, in equally filled bins."""
    edges = np.quantile(reference, np.linspace(0, 1, bins + 1))
    share = weights / weights.sum()
    found, squares = (np.histogram(sample, edges, weights=w)[0] for w in (share, share**2))
    expected = np.histogram(reference, edges)[0] / len(reference)
    return float(((found - expected) ** 2 / (squares + expected / len(reference))).sum())
