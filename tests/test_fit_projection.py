from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from toy_w import expected_data, toy_tensor

from binworks.tensors.errors import RequestError
from binworks.tensors.fit import FitResult, fit_mass
from binworks.tensors.projection import project
from binworks.tensors.tensor import Tensor

EVENTS = 1e6


@pytest.fixture(scope="module")
def fitted() -> tuple[Tensor, FitResult]:
    tensor = toy_tensor(EVENTS, rng=np.random.default_rng(8), shift=30.0)
    return tensor, fit_mass(tensor, floating=["W"])


@pytest.mark.parametrize(("axis", "summed"), [("eta", (1, 2)), ("pt", (0, 2)), ("charge", (0, 1))])
def test_the_sum_over_processes_is_the_fitted_prediction(
    fitted: tuple[Tensor, FitResult], axis: str, summed: tuple[int, int]
):
    tensor, result = fitted
    projected = project(tensor, result, axis)
    np.testing.assert_allclose(projected.postfit.sum(axis=0), result.prediction.sum(axis=summed), rtol=1e-9)
    np.testing.assert_allclose(projected.prefit.sum(axis=0), result.nominal.sum(axis=summed), rtol=1e-12)
    np.testing.assert_array_equal(projected.data, result.data.sum(axis=summed))


def test_the_mass_effect_is_that_of_the_templates(fitted: tuple[Tensor, FitResult]):
    projected = project(*fitted)
    tensor, _ = fitted
    shifted = tensor.variations("mass", ["massShiftW10MeVUp"])[0].sum(axis=(0, 1, 3))
    np.testing.assert_allclose(
        projected.mass_effect(10.0), shifted / tensor.nominal.sum(axis=(0, 1, 3)) - 1, atol=1e-12
    )
    assert 0.001 < projected.mass_effect(10.0).max() < 0.002  # 0.1 %, above the Jacobian peak


def test_fitted_predictions_scatter_about_the_truth_by_their_uncertainty():
    drawn = toy_tensor(EVENTS)
    exact = replace(drawn, variances=np.zeros_like(drawn.variances))
    effects = np.concatenate([exact.shifts(group).sum(axis=1) for group in ("momentum_scale", "theory")])
    projected = project(exact, fit_mass(exact, rebin={"eta": 16}))
    rng = np.random.default_rng(2)
    missed = []
    for _ in range(100):
        truth = expected_data(EVENTS) + np.tensordot(rng.normal(size=len(effects)), effects, axes=1)
        result = fit_mass(exact, rng.poisson(truth), rebin={"eta": 16})
        missed.append(
            (result.prediction.sum(axis=(0, 2)) - truth.sum(axis=(0, 2))) / projected.postfit_uncertainty
        )
    assert np.std(missed) == pytest.approx(1, abs=0.1)
    assert np.all(projected.postfit_uncertainty < projected.prefit_uncertainty)


def test_an_unknown_axis_and_missing_data_are_refused(fitted: tuple[Tensor, FitResult]):
    tensor, result = fitted
    with pytest.raises(RequestError, match="no axis named 'phi'"):
        project(tensor, result, "phi")
    with pytest.raises(RequestError, match="no data"):
        project(replace(tensor, data=None), result)
