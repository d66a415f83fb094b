"""Efficiency scale factors: what is refused, the polynomials in pT and uT, and muons that fail a step."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import small_efficiencies
from hypothesis import given
from hypothesis import strategies as st

from binworks.corrections import efficiency as efficiency
from binworks.corrections import sets
from binworks.tensors.errors import PayloadError

DOCUMENTS = small_efficiencies.documents(np.random.default_rng(3))
STEPS = tuple(efficiency.COEFFICIENTS)
FAILING = ("iso", "veto")

steps = st.sampled_from(STEPS)
pts, uts = st.floats(1, 500), st.floats(-300, 300)
eta_bins, charge_bins = st.integers(0, 47), st.integers(0, 1)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, efficiency.Loaded]:
    found = sets.write(tmp_path_factory.mktemp("corrections"), "small", DOCUMENTS)
    return {step: efficiency.load(found, step) for step in STEPS}


def basis_of(pt: float, ut: float, step: Any) -> Any:
    out = np.full(12, np.nan)
    n = efficiency.fill_basis(pt, ut, step, out)
    assert n == step.coefficients.shape[2]
    assert np.isnan(out[n:]).all()
    return out


def reference(coefficients: Any, pt: float, ut: float, step: str) -> float:
    """Return the polynomial as NumPy writes it."""
    x = np.clip(np.interp(pt, small_efficiencies.PT_RANGE, [-1, 1]), -1, 1)
    if step not in small_efficiencies.WITH_UT:
        return float(np.polynomial.polynomial.polyval(x, coefficients))
    y = np.clip(np.interp(ut, small_efficiencies.UT_RANGE, [-1, 1]), -1, 1)
    return float(np.polynomial.polynomial.polyval2d(x, y, np.reshape(coefficients, (4, 3))))


@given(steps, pts, uts, eta_bins, charge_bins)
def test_scale_factors_are_their_polynomial(
    loaded: Any, name: str, pt: float, ut: float, eta: int, charge: int
) -> None:
    step = loaded[name].efficiency
    document = DOCUMENTS[f"efficiency_{name}"][1]
    column = min(charge, len(document["charges"]) - 1)
    basis = basis_of(pt, ut, step)
    expected = reference(document["coefficients"][eta][column], pt, ut, name)
    assert efficiency.scale_factor(basis, eta, charge, step) == pytest.approx(expected, rel=1e-12)
    for a, alternative in enumerate(loaded[name].alternatives):
        expected = reference(document["alternatives"][alternative][eta][column], pt, ut, name)
        found = efficiency.alternative_factor(a, basis, eta, charge, step)
        assert found == pytest.approx(expected, rel=1e-12)


@given(st.sampled_from(FAILING), pts, uts, eta_bins, charge_bins)
def test_muons_that_pass_and_that_fail_stay_as_many_as_they_were(
    loaded: Any, name: str, pt: float, ut: float, eta: int, charge: int
) -> None:
    step = loaded[name].efficiency
    document = DOCUMENTS[f"efficiency_{name}"][1]
    column = min(charge, len(document["charges"]) - 1)
    e = reference(document["simulated"][eta][column], pt, ut, name)
    basis = basis_of(pt, ut, step)
    passing = efficiency.scale_factor(basis, eta, charge, step)
    failing, _ = efficiency.failing_factor(basis, eta, charge, step)
    assert passing * e + failing * (1 - e) == pytest.approx(1, rel=1e-12)
    for a in range(len(loaded[name].alternatives)):
        passing = efficiency.alternative_factor(a, basis, eta, charge, step)
        failing = efficiency.failing_alternative(a, basis, eta, charge, step)
        assert passing * e + failing * (1 - e) == pytest.approx(1, rel=1e-12)


@given(st.sampled_from(FAILING), pts, uts, eta_bins, charge_bins, st.integers(0, 11), st.floats(-0.1, 0.1))
def test_the_slope_is_what_a_shifted_coefficient_does_to_the_failing_factor(
    loaded: Any, name: str, pt: float, ut: float, eta: int, charge: int, k: int, shift: float
) -> None:
    step = loaded[name].efficiency
    k %= efficiency.COEFFICIENTS[name]
    basis = basis_of(pt, ut, step)
    factor, slope = efficiency.failing_factor(basis, eta, charge, step)
    shifted = step._replace(coefficients=step.coefficients.copy())
    shifted.coefficients[eta, charge, k] += shift
    expected, unchanged = efficiency.failing_factor(basis, eta, charge, shifted)
    assert factor + slope * shift * basis[k] == pytest.approx(expected, abs=1e-12)
    assert unchanged == slope


@given(steps, pts, uts, eta_bins, charge_bins)
def test_the_identity_is_one_for_muons_that_pass_and_that_fail(
    name: str, pt: float, ut: float, eta: int, charge: int
) -> None:
    step = efficiency.identity(name)
    basis = basis_of(pt, ut, step)
    assert efficiency.scale_factor(basis, eta, charge, step) == 1.0
    factor, slope = efficiency.failing_factor(basis, eta, charge, step)
    assert factor == 1.0
    assert slope == 0.0


@given(steps, st.floats(0, 1000), st.floats(0, 1000), st.booleans(), st.booleans())
def test_outside_its_range_a_muon_counts_as_the_border(
    loaded: Any, name: str, far_pt: float, far_ut: float, high_pt: bool, high_ut: bool
) -> None:
    step = loaded[name].efficiency
    pt, ut = small_efficiencies.PT_RANGE[high_pt], small_efficiencies.UT_RANGE[high_ut]
    outside = basis_of(pt + far_pt if high_pt else pt - far_pt, ut + far_ut if high_ut else ut - far_ut, step)
    np.testing.assert_array_equal(outside, basis_of(pt, ut, step))
    n = efficiency.COEFFICIENTS[name]
    np.testing.assert_array_equal(np.abs(outside[:n]), 1.0)


@given(steps, st.floats(1, 100, width=32), st.floats(-50, 50, width=32))
def test_single_precision_columns_are_computed_in_double_precision(
    loaded: Any, name: str, pt: float, ut: float
) -> None:
    step = loaded[name].efficiency
    np.testing.assert_array_equal(
        basis_of(np.float32(pt), np.float32(ut), step),  # type: ignore[arg-type]
        basis_of(pt, ut, step),
    )


def test_a_ut_that_is_not_a_number_is_not_taken_for_one(loaded: Any) -> None:
    for name in STEPS:
        step = loaded[name].efficiency
        factor = efficiency.scale_factor(basis_of(40.0, math.nan, step), 7, 1, step)
        assert math.isnan(factor) == (name in small_efficiencies.WITH_UT)


def test_all_steps_have_one_type_so_that_a_loop_may_run_over_them(loaded: Any, tmp_path: Path) -> None:
    bare = copy.deepcopy(DOCUMENTS)
    bare["efficiency_idip"][1]["alternatives"] = {}
    found = sets.write(tmp_path, "small", bare)
    every = [efficiency.load(found, step).efficiency for step in STEPS]
    every += [entry.efficiency for entry in loaded.values()]
    every += [efficiency.identity(step) for step in STEPS]
    assert len({numba.typeof(step) for step in every}) == 1

    @numba.njit  # type: ignore[untyped-decorator]
    def product(pt: float, ut: float, chain: Any, out: Any) -> float:
        total = 1.0
        for s in range(len(chain)):
            efficiency.fill_basis(pt, ut, chain[s], out)
            total *= efficiency.scale_factor(out, 5, 1, chain[s])
        return total

    chain = tuple(loaded[step].efficiency for step in efficiency.STEPS)
    expected = math.prod(
        reference(step.coefficients[5, 1], 33.0, 12.0, name)
        for name, step in zip(efficiency.STEPS, chain, strict=True)
    )
    assert product(33.0, 12.0, chain, np.empty(12)) == pytest.approx(expected, rel=1e-12)


def test_what_is_loaded_has_the_shapes_of_its_step(loaded: Any) -> None:
    for name, (step, covariance, alternatives) in loaded.items():
        n, charges = efficiency.COEFFICIENTS[name], 1 if name == "iso" else 2
        assert covariance.shape == (48, charges, n, n)
        assert alternatives == tuple(sorted(small_efficiencies.ALTERNATIVES[name]))
        assert step.coefficients.shape == step.simulated.shape == (48, 2, n)
        assert step.alternatives.shape == (len(alternatives), 48, 2, n)
        assert (step.simulated == 0).all() == (name not in FAILING)


def test_isolation_is_the_same_for_both_charges(loaded: Any) -> None:
    step = loaded["iso"].efficiency
    for values in (step.coefficients, step.simulated, step.alternatives):
        np.testing.assert_array_equal(values[..., 0, :], values[..., 1, :])


def first(document: Any, field: str) -> Any:
    """Return the row of the first bin and charge."""
    return document[field][0][0]


@pytest.mark.parametrize(
    ("name", "change", "code", "word"),
    [
        ("reco", lambda d: d.update(extra=1), "bad-payload", "extra"),
        ("reco", lambda d: d.pop("alternatives"), "bad-payload", "alternatives"),
        ("reco", lambda d: d.update(schema="binworks.efficiency/1"), "bad-payload", "schema"),
        ("reco", lambda d: d.update(step="idip"), "bad-payload", "'idip', expected 'reco'"),
        ("reco", lambda d: d["eta_edges"].__setitem__(7, 0.0), "wrong-axes", "eta_edges: Edge 7"),
        ("reco", lambda d: d.update(charges=[0]), "wrong-axes", "charges must be [-1, 1]"),
        ("reco", lambda d: d.update(charges=[1, -1]), "wrong-axes", "charges must be [-1, 1]"),
        ("iso", lambda d: d.update(charges=[-1, 1]), "wrong-axes", "charges must be [0]"),
        ("idip", lambda d: d.update(pt_range=[60.0, 26.0]), "bad-payload", "pt_range"),
        ("idip", lambda d: d.update(pt_range=[-1.0, 26.0]), "bad-payload", "pt_range"),
        ("idip", lambda d: d.update(pt_range=[26.0]), "bad-payload", "pt_range"),
        ("idip", lambda d: d.update(ut_range=[-30.0, 30.0]), "bad-payload", "ut_range must be null"),
        ("trigger", lambda d: d.update(ut_range=None), "bad-payload", "ut_range must be given"),
        ("trigger", lambda d: d.update(ut_range=[30.0, -30.0]), "bad-payload", "ut_range must rise"),
        ("trigger", lambda d: d.update(simulated=d["coefficients"]), "bad-payload", "simulated must be null"),
        ("iso", lambda d: d.update(simulated=None), "bad-payload", "simulated must be given"),
        ("veto", lambda d: d.update(simulated=None), "bad-payload", "simulated must be given"),
        ("idip", lambda d: d["coefficients"].pop(), "wrong-axes", "coefficients: Expected shape (48, 2, 4)"),
        ("idip", lambda d: d["coefficients"][3].pop(), "wrong-axes", "coefficients: Expected numbers of shape"),
        ("tracking", lambda d: [row.append(0.0) for bin_ in d["coefficients"] for row in bin_], "wrong-axes",
         "coefficients: Expected shape (48, 2, 3), got (48, 2, 4)"),
        ("trigger", lambda d: [row.pop() for bin_ in d["coefficients"] for row in bin_], "wrong-axes",
         "coefficients: Expected shape (48, 2, 12), got (48, 2, 11)"),
        ("veto", lambda d: d["simulated"].pop(), "wrong-axes", "simulated: Expected shape"),
        ("veto", lambda d: d["alternatives"]["altReco"].pop(), "wrong-axes", "alternatives.altReco: Expected shape"),
        ("veto", lambda d: d["covariance"].pop(), "wrong-axes", "covariance: Expected shape (48, 2, 4, 4)"),
        ("idip", lambda d: first(d, "covariance")[0].__setitem__(1, 1.0), "bad-covariance", "symmetric"),
        ("idip", lambda d: first(d, "covariance")[2].__setitem__(2, -1.0), "bad-covariance", "negative"),
        ("idip", lambda d: d["alternatives"].update({"no name": d["coefficients"]}), "bad-payload", "no name"),
        ("idip", lambda d: first(d, "coefficients").__setitem__(0, 0.0), "bad-payload", "coefficients: A scale"),
        ("idip", lambda d: d["alternatives"]["altSignal"][4][1].__setitem__(0, -1.0), "bad-payload",
         "alternatives.altSignal: A scale factor must be positive"),
        ("iso", lambda d: first(d, "coefficients").__setitem__(0, 1.2), "bad-payload", "must be below 1"),
        ("veto", lambda d: d["alternatives"]["altIdip"][0][1].__setitem__(0, 1.2), "bad-payload",
         "alternatives.altIdip: Scale factor times simulated"),
        ("iso", lambda d: first(d, "simulated").__setitem__(0, 1.05), "bad-payload", "simulated: The efficiency"),
        ("iso", lambda d: first(d, "simulated").__setitem__(0, 0.01), "bad-payload", "simulated: The efficiency"),
        ("iso", lambda d: first(d, "simulated").__setitem__(5, 0.2), "bad-payload", "between 0 and 1"),
    ],
)  # fmt: skip
def test_a_wrong_payload_is_refused_with_the_field(
    name: str, change: Any, code: str, word: str, tmp_path: Path
) -> None:
    kind, document = copy.deepcopy(DOCUMENTS[f"efficiency_{name}"])
    change(document)
    found = sets.write(tmp_path, "small", {f"efficiency_{name}": (kind, document)})
    with pytest.raises(PayloadError) as caught:
        efficiency.load(found, name)
    assert caught.value.code == code
    assert word in str(caught.value)
    assert f"efficiency_{name}" in str(caught.value)


@pytest.mark.parametrize("field", ["coefficients", "covariance", "simulated", "alternatives"])
def test_a_number_that_is_not_finite_is_refused_with_the_field(field: str, tmp_path: Path) -> None:
    document = copy.deepcopy(DOCUMENTS["efficiency_veto"][1])
    table = document[field]["altReco"] if field == "alternatives" else document[field]
    target = table[11][1][2] if field == "covariance" else table[11][1]
    target[2] = 1e999
    corrections: Any = Given(document)
    with pytest.raises(PayloadError, match=field) as caught:
        efficiency.load(corrections, "veto")
    assert caught.value.code == "not-finite"


class Given:
    """A correction set of one document, which a JSON file could not hold."""

    name = "small"

    def __init__(self, document: Any) -> None:
        self.document = document

    def payload(self, name: str, kind: str) -> Any:
        return self.document
