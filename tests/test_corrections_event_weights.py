"""Weights of whole events: prefire, vertex, pixel hits; each beside a plain reference or correctionlib."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import correctionlib
import numpy as np
import pytest
import small_efficiencies
from hypothesis import given
from hypothesis import strategies as st

from binworks.corrections import pixel_hits, prefire, sets, vertex
from binworks.corrections.sets import CorrectionSet
from binworks.tensors.errors import PayloadError

DOCUMENTS = small_efficiencies.documents(np.random.default_rng(4))
PREFIRE = DOCUMENTS["prefire"][1]

muons = st.tuples(st.floats(0, 300), st.floats(-3, 3), st.floats(-3.2, 3.2), st.booleans())
in_hot_spot = st.tuples(st.floats(0, 300), st.floats(1.2, 1.65), st.floats(2.4, 2.8), st.booleans())
events = st.lists(muons | in_hot_spot, max_size=6)


@pytest.fixture(scope="module")
def corrections(tmp_path_factory: pytest.TempPathFactory) -> CorrectionSet:
    return sets.write(tmp_path_factory.mktemp("corrections"), "small", DOCUMENTS)


@pytest.fixture(scope="module")
def table(corrections: CorrectionSet) -> prefire.Prefire:
    return prefire.load(corrections)


def region_of(eta: float, phi: float) -> int:
    """Return the region, by comparing one border after the other."""
    spot = PREFIRE["hot_spot"]
    if spot["eta"][0] < eta < spot["eta"][1] and spot["phi"][0] < phi < spot["phi"][1]:
        return 11
    edges = PREFIRE["eta_edges"]
    return next((b for b in range(11) if edges[b] <= abs(eta) < edges[b + 1]), -1)


def probability(pt: float, region: int, relative: float = 0.0) -> float:
    """Return p of a muon with the plateau changed by a relative amount."""
    if region < 0:
        return 0.0
    its = {
        name: PREFIRE["hot_spot"][name] if region == 11 else PREFIRE[name][region]
        for name in ("plateau", "middle", "slope")
    }
    rise = np.exp(min((pt - its["middle"]) / its["slope"], 700.0))
    return float(its["plateau"] * (1 + relative) / (rise + 1))


def product(event: Any, change: dict[int, float]) -> float:
    """Return the event's weight with plateaus of some regions changed by relative amounts."""
    return math.prod(
        1 - probability(pt, r, change.get(r, 0.0))
        for pt, eta, phi, loose in event
        if loose and (r := region_of(eta, phi)) >= 0
    )


def evaluated(event: Any, table: prefire.Prefire, before: int = 0, after: int = 0) -> tuple[float, Any]:
    """Return factor and ratios of an event that lies between muons of other events."""
    other = (60.0, 1.4, 2.6, True)
    columns = np.array([*[other] * before, *event, *[other] * after]).reshape(-1, 4)
    pt, eta, phi, loose = (np.ascontiguousarray(c) for c in columns.T)
    ratios = np.full((prefire.VARIATIONS, 2), 9.0)
    end = before + len(event)
    factor = prefire.event_factor(before, end, pt, eta, phi, loose.astype(bool), table, ratios)
    return factor, ratios


@given(events, st.integers(0, 2), st.integers(0, 2))
def test_the_prefire_weight_is_the_product_over_loose_muons(
    table: Any, event: Any, before: int, after: int
) -> None:
    factor, ratios = evaluated(event, table, before, after)
    nominal = product(event, {})
    assert factor == pytest.approx(nominal, rel=1e-12)
    sizes = [*PREFIRE["uncertainty"], PREFIRE["hot_spot"]["uncertainty"]]
    for r, size in enumerate(sizes):
        expected = [product(event, {r: sign * size}) / nominal for sign in (1, -1)]
        np.testing.assert_allclose(ratios[r], expected, rtol=1e-12)
    every = [
        product(event, dict.fromkeys(range(12), sign * PREFIRE["systematic"])) / nominal for sign in (1, -1)
    ]
    np.testing.assert_allclose(ratios[prefire.SYSTEMATIC], every, rtol=1e-12)


@given(events)
def test_only_regions_with_a_loose_muon_are_varied(table: Any, event: Any) -> None:
    _, ratios = evaluated(event, table)
    touched = {region_of(eta, phi) for _, eta, phi, loose in event if loose} - {-1}
    for r in set(range(12)) - touched:
        assert (ratios[r] == 1.0).all()


@given(muons | in_hot_spot, st.floats(0, 1))
def test_for_one_muon_the_ratios_are_linear_in_the_uncertainty(
    table: Any, muon: Any, fraction: float
) -> None:
    less = table._replace(uncertainty=fraction * table.uncertainty, systematic=fraction * table.systematic)
    full, part = evaluated([muon], table)[1], evaluated([muon], less)[1]
    np.testing.assert_allclose(part - 1, fraction * (full - 1), atol=1e-15)
    np.testing.assert_allclose(full[:, 0] + full[:, 1], 2.0, rtol=1e-14)


@given(st.floats(-3, 3), st.floats(-3.2, 3.2))
def test_regions_are_bins_of_eta_but_for_the_hot_spot(table: Any, eta: float, phi: float) -> None:
    assert prefire.region(eta, phi, table) == region_of(eta, phi)


def test_borders_of_regions_and_numbers_that_are_none(table: Any) -> None:
    for b, edge in enumerate(PREFIRE["eta_edges"][:-1]):
        assert prefire.region(-edge, 0.0, table) == b
    assert prefire.region(2.4, 0.0, table) == -1
    assert prefire.region(1.5, 2.6, table) == 11
    assert prefire.region(-1.5, 2.6, table) == region_of(-1.5, 2.6) == 6
    assert prefire.region(1.24, 2.6, table) == 5
    assert prefire.region(1.5, 2.44, table) == 6
    assert prefire.region(math.nan, 2.6, table) == -1
    assert prefire.region(1.5, math.nan, table) == 6


def test_a_loose_muon_without_momentum_makes_the_weight_not_finite(table: Any) -> None:
    assert math.isnan(evaluated([(math.nan, 0.1, 0.0, True)], table)[0])
    assert evaluated([(math.nan, 0.1, 0.0, False)], table)[0] == 1.0
    assert evaluated([(math.nan, 3.0, 0.0, True)], table)[0] == 1.0


@given(st.integers(0, 11), st.floats(0, 200), st.floats(0, 200))
def test_the_probability_rises_with_momentum_to_its_plateau(
    table: Any, region: int, pt: float, other: float
) -> None:
    low, high = (prefire.lost(x, region, table) for x in sorted((pt, other)))
    assert 0 <= low <= high <= table.plateau[region]
    assert prefire.lost(pt, region, table) == pytest.approx(probability(pt, region), rel=1e-12)


@given(events)
def test_without_prefire_the_weight_is_one(event: Any) -> None:
    factor, ratios = evaluated(event, prefire.identity())
    assert factor == 1.0
    assert (ratios == 1.0).all()


def evaluator(name: str) -> Any:
    return correctionlib.CorrectionSet.from_string(json.dumps(DOCUMENTS[name][1]))[name]


@given(st.floats(-30, 30), st.floats(-5, 200))
def test_the_vertex_weight_is_correctionlibs(corrections: Any, z: float, n_true: float) -> None:
    found = vertex.weight(z, n_true, vertex.load(corrections))
    assert found == evaluator("vertex").evaluate(z, n_true)


@given(st.floats(-3, 3), st.floats(0, 20) | st.integers(0, 20))
def test_the_ratio_of_pixel_hits_is_correctionlibs(corrections: Any, eta: float, hits: float) -> None:
    found = pixel_hits.ratio(eta, hits, pixel_hits.load(corrections))
    assert found == evaluator("pixel_hits").evaluate(eta, float(hits))


@pytest.mark.parametrize("hits", [-1, -1.0, math.nan])
def test_unknown_pixel_hits_change_nothing(corrections: Any, hits: float) -> None:
    assert pixel_hits.ratio(0.3, hits, pixel_hits.load(corrections)) == 1.0


@pytest.mark.parametrize(
    ("z", "n_true"), [(math.nan, 20.0), (1.0, math.nan), (math.inf, 20.0), (1.0, -math.inf)]
)
def test_a_vertex_that_is_not_finite_has_no_weight(corrections: Any, z: float, n_true: float) -> None:
    assert math.isnan(vertex.weight(z, n_true, vertex.load(corrections)))
    assert math.isnan(vertex.weight(z, n_true, vertex.identity()))


def test_a_muon_without_eta_has_no_ratio_of_pixel_hits(corrections: Any) -> None:
    assert math.isnan(pixel_hits.ratio(math.nan, 2, pixel_hits.load(corrections)))


@given(st.floats(-100, 100), st.floats(0, 300))
def test_without_tables_the_weights_are_one(first: float, second: float) -> None:
    assert vertex.weight(first, second, vertex.identity()) == 1.0
    assert pixel_hits.ratio(first, second, pixel_hits.identity()) == 1.0


def data(document: Any) -> Any:
    return document["corrections"][0]["data"]


@pytest.mark.parametrize(
    ("name", "change", "code", "word"),
    [
        ("prefire", lambda d: d.update(extra=1), "bad-payload", "extra"),
        ("prefire", lambda d: d.pop("systematic"), "bad-payload", "systematic"),
        ("prefire", lambda d: d["hot_spot"].update(extra=1), "bad-payload", "hot_spot.extra"),
        ("prefire", lambda d: d["hot_spot"].pop("middle"), "bad-payload", "hot_spot.middle"),
        ("prefire", lambda d: d.update(schema="binworks.prefire/2"), "bad-payload", "schema"),
        ("prefire", lambda d: d["eta_edges"].pop(), "wrong-axes", "eta_edges: Expected shape (12,)"),
        ("prefire", lambda d: d["eta_edges"].reverse(), "wrong-axes", "eta_edges: Edges"),
        ("prefire", lambda d: d["eta_edges"].__setitem__(0, -0.1), "wrong-axes", "eta_edges: Edges"),
        ("prefire", lambda d: d["middle"].pop(), "wrong-axes", "middle: Expected shape (11,)"),
        ("prefire", lambda d: d["hot_spot"].update(eta=[1.6, 1.24]), "wrong-axes", "hot_spot.eta"),
        ("prefire", lambda d: d["hot_spot"].update(phi=[2.4, 2.4]), "wrong-axes", "hot_spot.phi"),
        ("prefire", lambda d: d["plateau"].__setitem__(2, 1.0), "bad-payload", "plateau must be from 0"),
        ("prefire", lambda d: d["plateau"].__setitem__(2, -0.1), "bad-payload", "plateau must be from 0"),
        ("prefire", lambda d: d["plateau"].__setitem__(2, 0.99), "bad-payload", "when varied up"),
        ("prefire", lambda d: d["slope"].__setitem__(2, 1.0), "bad-payload", "slope must be negative"),
        ("prefire", lambda d: d["slope"].__setitem__(2, 0.0), "bad-payload", "slope must be negative"),
        ("prefire", lambda d: d["hot_spot"].update(slope=1.0), "bad-payload", "hot_spot.slope"),
        ("prefire", lambda d: d["uncertainty"].__setitem__(0, -0.1), "bad-payload", "uncertainty must be"),
        ("prefire", lambda d: d["hot_spot"].update(uncertainty=1.1), "bad-payload", "hot_spot.uncertainty"),
        ("prefire", lambda d: d.update(systematic=-0.1), "bad-payload", "systematic must be"),
        ("vertex", lambda d: data(d)["content"].__setitem__(3, -0.1), "bad-payload", "weight is negative"),
        ("vertex", lambda d: data(d)["content"].pop(), "bad-payload", "correctionlib refuses"),
        ("vertex", lambda d: d["corrections"][0].update(name="z"), "bad-payload", "no correction 'vertex'"),
        ("vertex", lambda d: d["corrections"][0]["inputs"].append({"name": "x", "type": "real"}), "wrong-axes", "'x'"),
        ("pixel_hits", lambda d: data(d)["content"].__setitem__(3, -0.1), "bad-payload", "ratio is negative"),
        ("pixel_hits", lambda d: d["corrections"][0]["inputs"].append({"name": "x", "type": "real"}), "wrong-axes",
         "'x'"),
    ],
)  # fmt: skip
def test_a_wrong_payload_is_refused_with_the_field(
    name: str, change: Any, code: str, word: str, tmp_path: Path
) -> None:
    kind, document = copy.deepcopy(DOCUMENTS[name])
    change(document)
    found = sets.write(tmp_path, "small", {name: (kind, document)})
    error = refused(name, found)
    assert error.code == code
    assert word in str(error)


@pytest.mark.parametrize(("name", "second"), [("vertex", "nTrueInt"), ("pixel_hits", "hits")])
def test_an_input_of_single_values_is_not_taken_for_bins(name: str, second: str, tmp_path: Path) -> None:
    kind, document = copy.deepcopy(DOCUMENTS[name])
    document["corrections"][0]["inputs"][1]["type"] = "int"
    binned = data(document) | {"inputs": data(document)["inputs"][:1], "edges": data(document)["edges"][:1]}
    binned["content"] = binned["content"][: len(binned["edges"][0]) - 1]
    keys = [{"key": key, "value": binned} for key in (0, 1)]
    document["corrections"][0]["data"] = {"nodetype": "category", "input": second, "content": keys}
    error = refused(name, sets.write(tmp_path, "small", {name: (kind, document)}))
    assert error.code == "wrong-axes"
    assert f"Input {second!r} must be binned" in str(error)


@pytest.mark.parametrize(("name", "second"), [("vertex", "nTrueInt"), ("pixel_hits", "hits")])
def test_a_bin_without_a_value_is_refused(name: str, second: str, tmp_path: Path) -> None:
    """Two binnings of the second input, the first of which ends early and does not clamp."""
    kind, document = copy.deepcopy(DOCUMENTS[name])
    first_input, edges = data(document)["inputs"][0], data(document)["edges"]

    def binning(its: list[float]) -> dict[str, Any]:
        content = [1.0] * (len(its) - 1)
        return {"nodetype": "binning", "input": second, "edges": its, "content": content, "flow": "error"}

    content = [binning(edges[1][:-1]), *[binning(edges[1])] * (len(edges[0]) - 2)]
    document["corrections"][0]["data"] = {
        "nodetype": "binning", "input": first_input, "edges": edges[0], "content": content, "flow": "clamp",
    }  # fmt: skip
    error = refused(name, sets.write(tmp_path, "small", {name: (kind, document)}))
    assert error.code == "missing-bins"


@pytest.mark.parametrize("field", ["eta_edges", "plateau", "middle", "slope", "uncertainty", "hot_spot"])
def test_a_prefire_number_that_is_not_finite_is_refused_with_the_field(field: str) -> None:
    document = copy.deepcopy(PREFIRE)
    if field == "hot_spot":
        document["hot_spot"]["middle"] = math.inf
    else:
        document[field][5] = math.nan
    corrections: Any = Given(document)
    with pytest.raises(PayloadError, match=field) as caught:
        prefire.load(corrections)
    assert caught.value.code == "not-finite"


class Given:
    """A correction set of one document, which a JSON file could not hold."""

    name = "small"

    def __init__(self, document: Any) -> None:
        self.document = document

    def payload(self, name: str, kind: str) -> Any:
        return self.document


def refused(name: str, corrections: CorrectionSet) -> PayloadError:
    load = {"prefire": prefire.load, "vertex": vertex.load, "pixel_hits": pixel_hits.load}[name]
    with pytest.raises(PayloadError) as caught:
        load(corrections)
    assert f"small/{name}" in str(caught.value)
    return caught.value
