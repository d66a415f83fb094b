"""Any piecewise constant correctionlib document becomes a dense table, to the last bit; others are refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import correctionlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_theory import category, document

from binworks.corrections import sets
from binworks.corrections.tables import DenseTable, load_table, load_tables
from binworks.tensors.errors import PayloadError

SYSTEMATICS = ("AltSig", "massBin", "stat", "syst", "nominal", "systup", "systdown")
ETA, PT = [0.0, 0.9, 1.2, 2.1, 2.4], [15.0, 20.0, 25.0, 30.0, 40.0, 120.0, "inf"]


def muon_document(seed: int = 3) -> dict[str, Any]:
    """Return scale factors laid out as CMS does: |eta|, then pT, then what they are; nothing outside."""
    rng = np.random.default_rng(seed)

    def axis(name: str, edges: list[Any], content: list[Any]) -> dict[str, Any]:
        return {
            "nodetype": "binning",
            "input": name,
            "edges": list(edges),
            "content": content,
            "flow": "error",
        }

    def factors() -> dict[str, Any]:
        return category("scale_factors", {key: float(rng.normal(1, 0.1)) for key in SYSTEMATICS})

    rows = [axis("pt", PT, [factors() for _ in PT[1:]]) for _ in ETA[1:]]
    tree = {
        "nodetype": "transform",
        "input": "eta",
        "rule": {"nodetype": "formula", "expression": "abs(x)", "parser": "TFormula", "variables": ["eta"]},
        "content": axis("eta", ETA, rows),
    }
    return document("muon", {"eta": "real", "pt": "real", "scale_factors": "string"}, tree)


def one_input(node: dict[str, Any]) -> dict[str, Any]:
    """Return a document of one real input x."""
    return document("table", {"x": "real"}, node)


def in_x(edges: Any, content: list[Any], flow: Any) -> dict[str, Any]:
    return {"nodetype": "binning", "input": "x", "edges": edges, "content": content, "flow": flow}


def compiled(folder: Path, made: Any, name: str = "table") -> DenseTable:
    found = sets.write(folder, "small", {name: ("correctionlib", made)})
    return load_tables(found, name)[name]


def reference(made: dict[str, Any]) -> Any:
    return next(iter(correctionlib.CorrectionSet.from_string(json.dumps(made)).values()))


@pytest.fixture(scope="module")
def muon(tmp_path_factory: pytest.TempPathFactory) -> tuple[DenseTable, Any]:
    made = muon_document()
    return compiled(tmp_path_factory.mktemp("muon"), made, "muon"), reference(made)


AT_EDGES = st.sampled_from([sign * edge for edge in ETA for sign in (-1, 1)])


@given(AT_EDGES | st.floats(-3, 3), st.floats(10, 500) | st.just(15.0), st.sampled_from(SYSTEMATICS))
def test_scale_factors_are_correctionlibs_and_refused_where_it_refuses(
    muon: tuple[DenseTable, Any], eta: float, pt: float, systematic: str
) -> None:
    table, expected = muon
    try:
        value = expected.evaluate(eta, pt, systematic)
    except RuntimeError:
        with pytest.raises(PayloadError, match="There is no value at"):
            table.at(eta, pt, systematic)
    else:
        assert table.at(eta, pt, systematic) == value


def test_a_lookup_takes_arrays(muon: tuple[DenseTable, Any]) -> None:
    table, expected = muon
    rng = np.random.default_rng(1)
    eta, pt = rng.uniform(-2.4, 2.4, 1000), rng.uniform(15, 200, 1000)
    np.testing.assert_array_equal(table.at(eta, pt, "syst"), expected.evaluate(eta, pt, "syst"))
    assert table.at(eta[:, None], pt[None, :3], np.array(["stat"] * 3)).shape == (1000, 3)
    with pytest.raises(PayloadError, match="no key 'systt'"):
        table.at(eta, pt, "systt")


def test_the_public_muon_scale_factors_are_correctionlibs(root: Path, tmp_path: Path) -> None:
    source = root.parent / "shared/data/muon_Z.json.gz"
    if not source.exists():
        pytest.skip(f"{source.name} is not there")
    found = sets.write(tmp_path, "cms", {"muon_Z": ("correctionlib", source)})
    expected = correctionlib.CorrectionSet.from_file(str(source))
    tables = load_tables(found, "muon_Z")
    assert set(tables) == set(expected)
    assert len(tables) == 29
    rng = np.random.default_rng(2)
    for name, table in tables.items():
        eta_edges, pt_edges, keys = table.axes.values()
        eta = rng.uniform(eta_edges[0], eta_edges[-1], 2000)
        pt = rng.uniform(pt_edges[0], 250, 2000)
        places = np.arange(len(eta_edges) - 2)
        eta[places], eta[places + 100] = eta_edges[1:-1], -eta_edges[1:-1]
        pt[: len(pt_edges) - 1] = pt_edges[:-1]
        for key in keys:
            np.testing.assert_array_equal(table.at(eta, pt, key), expected[name].evaluate(eta, pt, key))


@pytest.mark.parametrize(
    ("low", "high", "n"), [(-2.4, 2.4, 48), (0.0, 99.0, 99), (1e-3, 1e3, 777), (0.0, 1.0, 1)]
)
def test_equal_bins_begin_where_correctionlibs_do(low: float, high: float, n: int, tmp_path: Path) -> None:
    made = one_input(in_x({"n": n, "low": low, "high": high}, [float(i) for i in range(n)], "clamp"))
    table, expected = compiled(tmp_path, made), reference(made)
    edges = table.axes["x"]
    x = np.concatenate([edges, np.nextafter(edges[:-1], -np.inf), np.linspace(low, high, n + 1), [-1e9, 1e9]])
    np.testing.assert_array_equal(table.at(x), expected.evaluate(x))


FLOWS = {
    "clamp": "clamp",
    "a number": 7.0,
    "a node": in_x([-5.0, 0.5, 9.0], [1.5, 2.5], "clamp"),
}


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize(
    "edges", [[0.0, 1.0, 2.0], ["-inf", 1.0, 2.0], [0.0, 1.0, "inf"], ["-inf", 0.0, "inf"]]
)
def test_outside_the_edges_the_flow_is_followed(flow: str, edges: list[Any], tmp_path: Path) -> None:
    made = one_input(in_x(edges, [10.0, 20.0], FLOWS[flow]))
    x = np.array([-1e300, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 9.0, 10.0, 1e300])
    np.testing.assert_array_equal(compiled(tmp_path, made).at(x), reference(made).evaluate(x))


def test_the_middle_of_one_endless_bin_is_found(tmp_path: Path) -> None:
    assert compiled(tmp_path, one_input(in_x(["-inf", "inf"], [3.0], "clamp"))).at(-4.0) == 3.0


def test_a_bin_may_be_cut_where_another_is_not(tmp_path: Path) -> None:
    tree = category(
        "q", {-1: in_x([0.0, 2.0], [1.0], "clamp"), 1: in_x([0.0, 1.0, 2.0], [2.0, 3.0], "clamp")}
    )
    made = document("table", {"x": "real", "q": "int"}, tree)
    table = compiled(tmp_path, made)
    assert table.values.tolist() == [[1.0, 2.0], [1.0, 3.0]]
    assert table.at(1.5, 1) == 3.0


def test_bare_infinities_are_read_as_some_write_them(tmp_path: Path) -> None:
    text = json.dumps(one_input(in_x([0.0, 1.0, float("inf")], [1.0, 2.0], "clamp")))
    assert "Infinity" in text
    (tmp_path / "bare.json").write_text(text)
    assert compiled(tmp_path / "set", tmp_path / "bare.json").at(1e9) == 2.0


# what is refused


def changed(change: Any) -> dict[str, Any]:
    made = muon_document()
    change(made["corrections"][0])
    return made


def pt_axis(correction: dict[str, Any]) -> Any:
    return correction["data"]["content"]["content"][2]


def squared(correction: dict[str, Any]) -> None:
    correction["data"]["rule"]["expression"] = "x*x"


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda c: pt_axis(c)["content"][3]["content"].pop(1), "missing-bins", "scale_factors = massBin"),
        (lambda c: pt_axis(c)["edges"].__setitem__(0, 17.0), "missing-bins", "pt = 16.0"),
        (lambda c: pt_axis(c).update(flow="wrap"), "bad-payload", "wrap"),
        (lambda c: pt_axis(c)["content"].pop(), "bad-payload", "number of content nodes"),
        (lambda c: pt_axis(c)["edges"].sort(key=str), "bad-payload", "monotone"),
        (lambda c: pt_axis(c).update(colour="red"), "bad-payload", "data.content.content[2]: A binning has no key"),
        (lambda c: pt_axis(c)["content"][0].update(colour="red"), "bad-payload", "content[0]: A category has no"),
        (lambda c: c.update(author="me"), "bad-payload", "A correction has no key 'author'"),
        (lambda c: pt_axis(c)["content"][0]["content"].append({"key": "stat", "value": 1.0}), "bad-payload",
         "'scale_factors' is there twice"),
        (lambda c: pt_axis(c)["content"][0]["content"][0].update(value=float("nan")), "not-finite", "finite"),
        (squared, "bad-payload", "not its absolute value"),
        (lambda c: c["inputs"].append({"name": "phi", "type": "real"}), "wrong-axes", "'phi' is not binned"),
        (lambda c: c["data"].update(content={"nodetype": "formula", "expression": "x", "parser": "TFormula",
                                             "variables": ["pt"]}), "bad-payload", "formula is not piecewise"),
        (lambda c: c.update(data=1.0), "wrong-axes", "'eta' is not binned"),
    ],
)  # fmt: skip
def test_a_wrong_document_is_refused_with_what_and_where(
    change: Any, code: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "muon.json").write_text(json.dumps(changed(change)))
    with pytest.raises(PayloadError) as caught:
        compiled(tmp_path / "set", tmp_path / "muon.json", "muon")
    assert caught.value.code == code, str(caught.value)
    assert words in str(caught.value)
    assert "small/muon" in str(caught.value)


@pytest.mark.parametrize(
    ("tree", "code", "words"),
    [
        (category("x", {1: 2.0}), "bad-payload", "refuses"),
        (in_x([0.0, 1.0], [1.0], "error") | {"input": "q"}, "wrong-axes", "'q' is int"),
        (category("q", {1: 2.0}) | {"default": 3.0}, "bad-payload", "list the keys"),
    ],
)
def test_integers_are_categories_of_listed_keys(
    tree: dict[str, Any], code: str, words: str, tmp_path: Path
) -> None:
    whole = in_x([0.0, 1.0], [tree], "clamp")
    with pytest.raises(PayloadError) as caught:
        compiled(tmp_path, document("table", {"x": "real", "q": "int"}, whole))
    assert caught.value.code == code, str(caught.value)
    assert words in str(caught.value)


def test_a_table_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    names = [f"x{i}" for i in range(4)]
    nodes: Any = 1.0
    for name in names:
        many = [nodes] + [1.0] * 99
        nodes = {"nodetype": "binning", "input": name, "edges": {"n": 100, "low": 0.0, "high": 1.0},
                 "content": many, "flow": "clamp"}  # fmt: skip
    with pytest.raises(PayloadError, match="100,000,000 numbers"):
        compiled(tmp_path, document("table", dict.fromkeys(names, "real"), nodes))


def test_inputs_and_name_must_be_those_asked_for(tmp_path: Path) -> None:
    found = sets.write(tmp_path, "small", {"muon": ("correctionlib", muon_document())})
    with pytest.raises(PayloadError, match="Expected the inputs") as caught:
        load_table(found, "muon", ("eta", "pt", "variation"), {})
    assert caught.value.code == "wrong-axes"
    other = sets.write(tmp_path, "small", {"electron": ("correctionlib", muon_document())})
    with pytest.raises(PayloadError, match="no correction 'electron'"):
        load_table(other, "electron", ("eta", "pt", "scale_factors"), {})


# compressed payloads


def compressed(folder: Path, text: bytes) -> sets.CorrectionSet:
    path = folder / "source.json.gz"
    path.write_bytes(gzip.compress(text))
    return sets.write(folder / "set", "small", {"muon": ("correctionlib", path)})


def test_a_compressed_payload_is_the_same_table(tmp_path: Path) -> None:
    made = muon_document()
    found = compressed(tmp_path, json.dumps(made).encode())
    assert found.manifest.payloads["muon"].file == "muon.json.gz"
    assert (tmp_path / "set/muon.json.gz").read_bytes() == (tmp_path / "source.json.gz").read_bytes()
    expected = compiled(tmp_path / "plain", made, "muon")
    np.testing.assert_array_equal(load_tables(found, "muon")["muon"].values, expected.values)


def test_the_hash_is_that_of_the_stored_bytes(tmp_path: Path) -> None:
    text = json.dumps(muon_document()).encode()
    found = compressed(tmp_path, text)
    (tmp_path / "set/muon.json.gz").write_bytes(gzip.compress(text, compresslevel=1))
    with pytest.raises(PayloadError, match="sha256") as caught:
        load_tables(found, "muon")
    assert caught.value.code == "wrong-hash"


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-20], lambda b: b"no gzip", lambda b: b[:40] + b"\0" + b[41:]]
)
def test_a_damaged_compressed_payload_is_refused(damage: Any, tmp_path: Path) -> None:
    path = tmp_path / "source.json.gz"
    path.write_bytes(damage(gzip.compress(json.dumps(muon_document()).encode())))
    found = sets.write(tmp_path / "set", "small", {"muon": ("correctionlib", path)})
    with pytest.raises(PayloadError, match=r"muon\.json\.gz") as caught:
        load_tables(found, "muon")
    assert caught.value.code == "not-json"


def test_a_payload_that_unpacks_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "LARGEST_TEXT", 1 << 20)
    found = compressed(tmp_path, b" " * (1 << 20) + b"1")
    with pytest.raises(PayloadError, match="more than 1,048,576 bytes"):
        found.payload("muon", "correctionlib")
    assert compressed(tmp_path, b" " * ((1 << 20) - 1) + b"1").payload("muon", "correctionlib") == 1
