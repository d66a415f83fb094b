"""Correction payloads: what is refused, what the kernels compute, and the plain reference beside each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import correctionlib
import pytest
import small_corrections
from hypothesis import given
from hypothesis import strategies as st

from binworks.corrections import momentum_scale, pileup, sets
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
        "pileup": lambda: pileup.load(found),
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
        ("pileup", lambda d: d["corrections"][0]["data"]["content"].pop(), "wrong-axes", "variations"),
        ("pileup", lambda d: d["corrections"][0].update(name="pu"), "bad-payload", "no correction 'pileup'"),
        ("pileup", lambda d: d.update(schema_version=1), "bad-payload", "correctionlib"),
        ("pileup", lambda d: d["corrections"][0]["inputs"].append({"name": "x", "type": "real"}), "wrong-axes", "'x'"),
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
