from __future__ import annotations

import json
from dataclasses import replace

import hist
import numpy as np
import pytest
from toy_w import AXES, MASS_EXPANSION, SHIFTS, expected_data, mass_name, toy_tensor

from binworks.tensors.errors import RequestError
from binworks.tensors.fit import FitResult, chi2_probability, enough_events, fit_linear, fit_mass
from binworks.tensors.fit_model import Merge, build
from binworks.tensors.fitbuild import from_tensor
from binworks.tensors.histogram import Float64
from binworks.tensors.spline import Spline
from binworks.tensors.tensor import Tensor

EVENTS = 1e6


@pytest.fixture(scope="module")
def exact() -> Tensor:
    return toy_tensor(EVENTS)


@pytest.fixture(scope="module")
def drawn() -> Tensor:
    return toy_tensor(EVENTS, rng=np.random.default_rng(7))


@pytest.mark.parametrize("shift", [s for s in SHIFTS if s])
@pytest.mark.parametrize("rebin", [{}, {"eta": 16}])
def test_an_injected_shift_comes_back_within_a_tenth_of_an_mev(
    drawn: Tensor, shift: int, rebin: dict[str, int]
):
    pseudo_data = drawn.variations("mass", [mass_name(shift)])[0].sum(axis=0)
    result = fit_mass(drawn, pseudo_data, rebin=rebin)
    assert result.mass_shift == pytest.approx(shift, abs=0.1)
    assert result.chi2 == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shift", [-95.0, -37.3, -0.5, 4.9, 61.7, 99.9])
def test_a_shift_between_the_templates_comes_back_as_well(exact: Tensor, shift: float):
    result = fit_mass(exact, expected_data(EVENTS, shift))
    assert result.mass_shift == pytest.approx(shift, abs=0.1)
    assert not result.beyond_templates


@pytest.mark.parametrize("shift", [-250.0, 180.0])
def test_a_shift_beyond_the_templates_comes_back_and_says_so(exact: Tensor, shift: float):
    result = fit_mass(exact, expected_data(EVENTS, shift))
    assert result.mass_shift == pytest.approx(shift, abs=0.1)
    assert result.beyond_templates


def test_pulls_of_toys_have_no_bias_and_cover():
    pulls = []
    rng = np.random.default_rng(20260301)
    truth = toy_tensor(EVENTS)
    effects = np.concatenate([truth.shifts(group).sum(axis=1) for group in ("momentum_scale", "theory")])
    for _ in range(150):
        mean = expected_data(EVENTS, 40.0) + np.tensordot(rng.normal(size=len(effects)), effects, axes=1)
        result = fit_mass(toy_tensor(EVENTS, rng=rng), rng.poisson(mean), rebin={"eta": 16})
        pulls.append((result.mass_shift - 40.0) / result.uncertainty)
    assert np.mean(pulls) == pytest.approx(0, abs=0.15)
    assert np.std(pulls) == pytest.approx(1, abs=0.1)


def test_bins_of_few_events_do_not_pull_the_mass_but_need_merging_to_keep_its_scale():
    rng = np.random.default_rng(4)
    pull, fine, merged = [], [], []
    for _ in range(60):
        unshifted = toy_tensor(3e5, rng=rng, nuisances=False)
        result = fit_mass(unshifted, rebin={"eta": 3})
        pull.append(result.mass_shift / result.uncertainty)
        shifted = rng.poisson(expected_data(3e5, 80.0))
        fine.append(fit_mass(unshifted, shifted, rebin={"eta": 3}).mass_shift)
        merged.append(fit_mass(unshifted, shifted, rebin={"eta": 48}).mass_shift)
    assert np.mean(pull) == pytest.approx(0, abs=0.35)  # with the variance of the observed counts: -0.55
    assert np.mean(fine) < 68  # 300 events a bin: the noise of the slope hides a quarter of the shift
    assert np.mean(merged) == pytest.approx(80, abs=4 * np.std(merged) / np.sqrt(60))


def _with_everything(tensor: Tensor, **options: object) -> tuple[FitResult, Float64]:
    rng = np.random.default_rng(3)
    data = rng.poisson(expected_data(EVENTS, 30.0) * 1.002).astype(float)
    return fit_mass(tensor, data, floating=["W"], **options), data  # type: ignore[arg-type]


@pytest.mark.parametrize("rebin", [{}, {"eta": 48, "pt": 3}])
def test_the_closed_form_is_the_brute_force_minimum(drawn: Tensor, rebin: dict[str, int]):
    """More bins than nuisances, and fewer: all parameters explicit, by least squares about the fitted point."""
    result, data = _with_everything(drawn, rebin=rebin)
    model = build(drawn, Merge(drawn.axes, rebin), data, ["W"])
    assert (len(model.data) > len(model.names)) == (not rebin)
    _, slope = model.spline.weights(result.mass_shift)
    deviation = np.sqrt((result.prediction + result.variances).ravel())
    derivatives = np.vstack([slope @ model.templates, model.shifts])
    priors = np.diag(model.constrained.astype(float))[model.constrained]
    matrix = np.vstack([(derivatives / deviation).T, priors])
    residual = (
        model.data - result.prediction.ravel()
    ) / deviation + derivatives.T @ result.values / deviation
    target = np.concatenate([residual, np.zeros(len(priors))])
    values, chi2, _, _ = np.linalg.lstsq(matrix, target)
    assert values[0] == pytest.approx(result.mass_shift, rel=1e-8, abs=1e-4)
    np.testing.assert_allclose(values[1:], result.values[1:], rtol=1e-6, atol=1e-8)
    assert chi2[0] == pytest.approx(result.chi2, rel=1e-8)
    np.testing.assert_allclose(np.linalg.inv(matrix.T @ matrix), result.covariance, rtol=1e-7, atol=1e-9)


def test_the_squares_of_the_impacts_add_up_to_the_total(drawn: Tensor):
    result, _ = _with_everything(drawn)
    assert set(result.impacts) == {"data", "simulation", "momentum_scale", "theory"}
    assert np.sqrt(sum(part**2 for part in result.impacts.values())) == pytest.approx(
        result.uncertainty, rel=1e-9
    )
    assert all(part > 0 for part in result.impacts.values())


def test_constraints_are_between_nothing_and_the_prior(drawn: Tensor):
    result, _ = _with_everything(drawn)
    assert np.all(result.uncertainties[result.constrained] <= 1 + 1e-12)
    assert np.all(result.uncertainties > 0)
    assert result.parameters[:2] == ("massW", "norm_W")
    assert result.groups[:3] == ("mass", "floating", "momentum_scale")


def test_a_nuisance_of_which_data_know_all_is_pulled_to_its_truth(exact: Tensor):
    nuisances = exact.expansions["theory"].nuisances
    data = expected_data(EVENTS) + 1.5 * exact.shifts("theory")[8].sum(axis=0)
    result = fit_mass(exact, data)
    row = result.parameters.index(nuisances[8].name)
    assert result.values[row] == pytest.approx(1.5, abs=0.1)
    assert result.uncertainties[row] < 0.2


def test_the_uncertainty_is_statistics_alone_without_nuisances():
    tensor = toy_tensor(EVENTS, nuisances=False)
    result = fit_mass(tensor, expected_data(EVENTS))
    slope = (expected_data(EVENTS, 1.0) - expected_data(EVENTS, -1.0)) / 2
    expected = 1 / np.sqrt(np.sum(slope**2 / (2 * expected_data(EVENTS))))
    assert result.uncertainty == pytest.approx(expected, rel=1e-3)
    assert result.impacts["data"] == pytest.approx(result.impacts["simulation"], rel=1e-6)


def test_chi2_follows_its_distribution(drawn: Tensor):
    result = fit_mass(drawn, rebin={"eta": 16})
    assert result.ndf == 3 * 30 * 2 - 1
    assert 0.001 < result.p_value < 0.999


@pytest.mark.parametrize(("chi2", "ndf"), [(0.3, 1), (7.1, 4), (2900.0, 2879), (171.5, 179), (0.0, 3)])
def test_the_probability_is_that_of_the_textbook(chi2: float, ndf: int):
    from scipy.stats import chi2 as distribution

    assert chi2_probability(chi2, ndf) == pytest.approx(distribution.sf(chi2, ndf), rel=1e-9)


def test_a_summary_is_json(drawn: Tensor):
    result, _ = _with_everything(drawn)
    summary = json.loads(json.dumps(result.summary()))
    assert summary["mass_shift_mev"] == result.mass_shift
    assert summary["parameters"][0]["name"] == "massW"


def test_bins_with_nothing_are_left_out(exact: Tensor):
    tensor = _without(exact, np.s_[:, 3, 4, 1])
    data = expected_data(EVENTS, 20.0)
    data[3, 4, 1] = 0
    result = fit_mass(tensor, data)
    assert result.ndf == 2880 - 1 - 1
    assert not result.used[3, 4, 1]
    assert result.mass_shift == pytest.approx(20, abs=0.1)


def test_events_where_none_are_expected_are_an_error_that_names_the_bin(exact: Tensor):
    tensor = _without(exact, np.s_[:, 3, 4, 1])
    with pytest.raises(
        RequestError, match=r"eta -2\.1\.\.-2, pt 30\.\.31, charge 0\.\.2 \(1 such bins\)"
    ) as caught:
        fit_mass(tensor, expected_data(EVENTS))
    assert caught.value.code == "empty-bin"


def _without(tensor: Tensor, where: object) -> Tensor:
    """Return the tensor with nothing expected in some bins."""
    nominal, variances = tensor.nominal.copy(), tensor.variances.copy()
    nominal[where] = variances[where] = 0  # type: ignore[index]
    return replace(tensor, nominal=nominal, variances=variances)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ({"data": np.zeros((2, 2))}, "bad-data", r"shape \(2, 2\) do not fit bins of shape \(48, 30, 2\)"),
        ({"data": np.full((48, 30, 2), np.nan)}, "bad-data", "2880 bins of the data hold no finite number"),
        ({"floating": ["w"]}, "unknown-process", "no process named 'w'"),
        ({"floating": ["W", "W"]}, "singular-fit", "cannot determine norm_W, norm_W"),
        ({"rebin": {"etaa": 2}}, "unknown-axis", "no axis named 'etaa'"),
        ({"rebin": {"eta": 5}}, "bad-rebin", "5 bins of axis 'eta' cannot be merged: it has 48"),
        ({"rebin": {"pt": 30, "eta": 48, "charge": 2}, "floating": ["W"]}, "singular-fit", "massW"),
    ],
)
def test_a_wrong_request_is_refused(drawn: Tensor, options: dict[str, object], code: str, message: str):
    with pytest.raises(RequestError, match=message) as caught:
        fit_mass(drawn, **options)  # type: ignore[arg-type]
    assert caught.value.code == code


def test_a_tensor_without_data_is_refused(drawn: Tensor):
    with pytest.raises(RequestError, match="no data") as caught:
        fit_mass(replace(drawn, data=None))
    assert caught.value.code == "no-data"


def test_a_tensor_without_mass_templates_is_refused(drawn: Tensor):
    without = {group: e for group, e in drawn.expansions.items() if group != "mass"}
    with pytest.raises(RequestError, match="needs four templates") as caught:
        fit_mass(replace(drawn, expansions=without))
    assert caught.value.code == "unknown-systematic"


def test_a_mass_without_effect_is_refused(drawn: Tensor):
    flat = {key: value for key, value in drawn.blocks.items() if key[1] != "mass"}
    with pytest.raises(RequestError, match="cannot determine massW") as caught:
        fit_mass(replace(drawn, blocks=flat))
    assert caught.value.code == "singular-fit"


def test_merging_bins_leaves_flow_bins_apart():
    axes = (hist.axis.Regular(4, 0, 4, name="x"), hist.axis.Integer(0, 2, name="y", flow=False))
    merge = Merge(axes, {"x": 2})
    values = np.arange(12.0).reshape(6, 2)
    assert merge.shape == (4, 2)
    np.testing.assert_array_equal(merge(values).reshape(4, 2), [[0, 1], [6, 8], [14, 16], [10, 11]])
    assert merge.label(0) == "x -inf..0, y 0..1"
    assert merge.label(7) == "x 4..inf, y 1..2"


def test_enough_events_merges_no_more_than_needed(drawn: Tensor):
    assert enough_events(drawn, per_bin=100) == {"eta": 1, "charge": 1}
    assert enough_events(drawn) == {"eta": 16, "charge": 1}
    assert enough_events(drawn, per_bin=20_000) == {"eta": 48, "charge": 2}
    assert enough_events(drawn, per_bin=1e9) == {"eta": len(AXES[0]), "charge": 2}


def test_the_spline_is_exact_at_nodes_for_cubics_and_a_parabola_beyond():
    nodes = [-3.0, -1.0, 0.0, 2.0, 5.0]
    spline = Spline(nodes)
    np.testing.assert_allclose([spline.weights(x)[0] for x in nodes], np.eye(5), atol=1e-14)
    cubic = np.polynomial.Polynomial([1, -2, 0.5, 0.3])
    for x in (-2.2, 0.7, 4.9):
        value, slope = spline.weights(x)
        assert value @ cubic(np.array(nodes)) == pytest.approx(cubic(x))
        assert slope @ cubic(np.array(nodes)) == pytest.approx(cubic.deriv()(x))
    edge, d = 5.0, 1.5
    parabola = cubic(edge) + d * cubic.deriv()(edge) + d**2 / 2 * cubic.deriv(2)(edge)
    assert spline.weights(edge + d)[0] @ cubic(np.array(nodes)) == pytest.approx(parabola)
    with pytest.raises(ValueError, match="four increasing nodes"):
        Spline([0, 1, 2])


def test_the_mass_expansion_of_the_toy_has_the_names_of_the_processor():
    assert len(MASS_EXPANSION.variations) == 21
    assert mass_name(-100) == "massShiftW100MeVDown"


@pytest.mark.parametrize("shift", [-40.0, 0.0, 25.0])
def test_the_fit_of_an_export_agrees_with_that_of_its_tensor(shift: float) -> None:
    tensor = toy_tensor(3e6, shift=shift)
    one, two = fit_mass(tensor), fit_linear(from_tensor(tensor))
    assert two.mass_shift == pytest.approx(one.mass_shift, abs=0.01 * one.uncertainty)
    assert two.uncertainty == pytest.approx(one.uncertainty, rel=0.01)
    assert two.parameters == one.parameters
    assert set(two.impacts) == set(one.impacts)
    for group, impact in one.impacts.items():
        assert two.impacts[group] == pytest.approx(impact, rel=0.03, abs=0.01 * one.uncertainty)
    np.testing.assert_allclose(two.uncertainties, one.uncertainties, rtol=0.02)
