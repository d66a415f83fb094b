"""Correction payloads: what is refused, what the kernels compute, and the plain reference beside each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import correctionlib
import numpy as np
import pytest
import small_corrections
from hypothesis import given
from hypothesis import strategies as st

from binworks.corrections import efficiency, momentum_scale, pileup, resolution, sets, theory
from binworks.corrections.tables import load_table
from binworks.tensors.errors import PayloadError


@pytest.fixture(scope="module")
def corrections(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return small_corrections.write(tmp_path_factory.mktemp("corrections"))


def refused(folder: Path, name: str, change: Any) -> PayloadError:
    """Return what the loaders say of a set in which one document was changed."""
    document = small_corrections.documents()[name][1]
    change(document)
    found = small_corrections.write(folder, **{name: document})
    load = {
        "momentum_scale": lambda: momentum_scale.load(found, is_data=True),
        "resolution": lambda: resolution.load(found, is_data=False),
        "efficiency_idip": lambda: efficiency.load(found, "idip"),
        "pileup": lambda: pileup.load(found),
        "theory": lambda: theory.load(found),
    }[name]
    with pytest.raises(PayloadError) as caught:
        load()
    return caught.value


@pytest.mark.parametrize(
    ("name", "change", "code", "word"),
    [
        ("momentum_scale", lambda d: d.update(extra=1), "bad-payload", "extra"),
        ("momentum_scale", lambda d: d.pop("covariance"), "bad-payload", "covariance"),
        ("momentum_scale", lambda d: d["data"]["A"].pop(), "wrong-axes", "(48,)"),
        ("momentum_scale", lambda d: d["eta_edges"].__setitem__(7, 0.0), "wrong-axes", "Edge 7"),
        ("momentum_scale", lambda d: d["covariance"][0].__setitem__(1, 1.0), "bad-covariance", "symmetric"),
        ("momentum_scale", lambda d: d["covariance"][3].__setitem__(3, -1.0), "bad-covariance", "negative"),
        ("momentum_scale", lambda d: d.update(schema="binworks.momentum_scale/9"), "bad-payload", "schema"),
        ("resolution", lambda d: d["mc"].update(a=[0.0] * 24, b=[0.0] * 24, c=[0.0] * 24), "bad-payload", "zero"),
        ("efficiency_idip", lambda d: d.update(step="reco"), "bad-payload", "reco"),
        ("efficiency_idip", lambda d: d.update(pt_range=[56.0, 26.0]), "bad-payload", "pt_range"),
        ("efficiency_idip", lambda d: d["coefficients"].pop(), "wrong-axes", "(48, 2, 4)"),
        ("pileup", lambda d: d["corrections"][0]["data"]["content"].pop(), "wrong-axes", "variations"),
        ("pileup", lambda d: d["corrections"][0].update(name="pu"), "bad-payload", "no correction 'pileup'"),
        ("pileup", lambda d: d.update(schema_version=1), "bad-payload", "correctionlib"),
        ("pileup", lambda d: d["corrections"][0]["inputs"].append({"name": "x", "type": "real"}), "wrong-axes", "'x'"),
        ("theory", lambda d: d["corrections"][0]["data"]["content"].pop(0), "missing-bins", "nominal"),
        ("theory", lambda d: d["corrections"][0]["data"]["content"][1]["value"]["content"].pop(),
         "missing-bins", "no value"),
        ("theory", lambda d: d["corrections"][0]["inputs"][0].update(name="m"), "bad-payload", "correctionlib"),
    ],
)  # fmt: skip
def test_a_wrong_payload_is_refused_with_the_reason(
    name: str, change: Any, code: str, word: str, tmp_path: Path
) -> None:
    error = refused(tmp_path, name, change)
    assert error.code == code
    assert word in str(error)
    assert name in str(error)


def test_a_payload_that_was_changed_is_refused(tmp_path: Path) -> None:
    found = small_corrections.write(tmp_path)
    path = tmp_path / "pileup.json"
    path.write_text(path.read_text().replace("7.0", "7.1"))
    with pytest.raises(PayloadError, match="sha256") as caught:
        pileup.load(found)
    assert caught.value.code == "wrong-hash"


def test_a_set_that_was_changed_after_it_was_named_is_refused(tmp_path: Path) -> None:
    digest = small_corrections.write(tmp_path).digest
    sets.write(tmp_path, "small", {})
    with pytest.raises(PayloadError, match="changed after"):
        sets.load(tmp_path, digest)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "not-json"),
        ("{}", "bad-payload"),
        ('{"schema":"binworks.corrections/1","name":"../x","payloads":{}}', "bad-payload"),
        (
            json.dumps(
                {
                    "schema": "binworks.corrections/1",
                    "name": "x",
                    "payloads": {"p": {"file": "../secret.json", "sha256": "0" * 64, "kind": "k"}},
                }
            ),
            "bad-payload",
        ),
    ],
)
def test_a_malformed_manifest_is_refused(text: str, code: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(PayloadError) as caught:
        sets.load(tmp_path)
    assert caught.value.code == code


def test_a_missing_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(PayloadError, match="nowhere"):
        sets.load(tmp_path / "nowhere")


def test_the_same_documents_give_the_same_digest(tmp_path: Path) -> None:
    first, second = (small_corrections.write(tmp_path / name).digest for name in "ab")
    assert first == second


@given(st.floats(-5, 400), st.sampled_from(["nominal", "up", "down"]))
def test_the_dense_pileup_table_is_correctionlibs(corrections: Any, n_true: float, variation: str) -> None:
    table = pileup.load(corrections)
    document = corrections.payload("pileup", "correctionlib")
    reference = correctionlib.CorrectionSet.from_string(json.dumps(document))["pileup"].evaluate(
        n_true, variation
    )
    row = pileup.pileup_bin(n_true, table)
    assert table.weights[row, pileup.VARIATIONS.index(variation)] == min(reference, 5.0)


@given(
    st.floats(0, 500), st.floats(0, 9), st.floats(0, 500), st.sampled_from([-1, 0, 1]),
    st.sampled_from(["nominal", *small_corrections.THEORY_VARIATIONS]),
)  # fmt: skip
def test_the_dense_theory_table_is_correctionlibs(
    corrections: Any, mass: float, absy: float, qt: float, charge: int, variation: str
) -> None:
    table, names = theory.load(corrections)
    document = corrections.payload("theory", "correctionlib")
    reference = correctionlib.CorrectionSet.from_string(json.dumps(document))["theory"]
    row = theory.theory_row(mass, absy, qt, charge, table)
    assert row[["nominal", *names].index(variation)] == reference.evaluate(mass, absy, qt, charge, variation)


def test_a_formula_is_not_taken_for_a_table(tmp_path: Path) -> None:
    formula = {"nodetype": "formula", "expression": "x", "parser": "TFormula", "variables": ["nTrueInt"]}
    document = small_corrections.documents()["pileup"][1]
    document["corrections"][0]["data"]["content"][0]["value"] = formula
    found = small_corrections.write(tmp_path, pileup=document)
    with pytest.raises(PayloadError, match="formula is not piecewise constant"):
        load_table(found, "pileup", ("nTrueInt", "variation"), {})


@given(st.floats(1, 1000), st.integers(0, 47), st.sampled_from([-1, 1]))
def test_the_momentum_scale_is_its_formula(corrections: Any, pt: float, b: int, q: int) -> None:
    scale, _ = momentum_scale.load(corrections, is_data=True)
    k = 1 / pt
    expected = 1 / (k + k * (scale.A[b] - scale.e[b] * k + q * scale.M[b] / k))
    assert momentum_scale.corrected_pt(pt, b, q, scale) == pytest.approx(expected, rel=1e-12)


def test_outside_the_eta_bins_the_momentum_stays(corrections: Any) -> None:
    scale, _ = momentum_scale.load(corrections, is_data=True)
    assert momentum_scale.corrected_pt(31.0, -1, 1, scale) == 31.0


@given(st.floats(0.2, 5), st.floats(0.003, 0.1))
def test_the_scale_score_is_the_derivative_of_the_log_density(ratio: float, width: float) -> None:
    ratio = float(np.clip(ratio, 1 - 5 * width, 1 + 5 * width))

    def log_density(s: float) -> float:
        r = ratio / (1 + s)
        return -0.5 * ((r - 1) / width) ** 2 - np.log(1 + s)

    h = 1e-6
    slope = (log_density(h) - log_density(-h)) / (2 * h)
    assert resolution.scale_score(ratio, width) == pytest.approx(slope, rel=1e-5, abs=1e-4)


def test_a_scale_variation_makes_no_events() -> None:
    width = 0.02
    r = np.random.default_rng(1).normal(1, width, 200_000)
    scores = np.array([resolution.scale_score(x, width) for x in r])
    assert abs(scores.mean()) < 5 * scores.std() / np.sqrt(len(r))


@given(st.floats(0, 200), st.integers(0, 47), st.integers(0, 1))
def test_scale_factors_are_their_polynomial(
    corrections: Any, pt: float, eta_bin: int, charge_bin: int
) -> None:
    factors, _ = efficiency.load(corrections, "idip")
    x = efficiency.scaled_pt(pt, factors)
    expected = np.polynomial.polynomial.polyval(
        np.clip((pt - 41) / 15, -1, 1), factors.coefficients[eta_bin, charge_bin]
    )
    assert efficiency.scale_factor(x, eta_bin, charge_bin, factors) == pytest.approx(expected, rel=1e-12)
