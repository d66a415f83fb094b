"""Histograms over REST: the same sums in every format, named variations, honest about what is missing."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import brute_force_cases
import hist
import numpy as np
import pytest
import uhi.io.json
import uhi.io.zip
import uhi.schema
from hand_made_service import GROUPS, Served, filled
from test_api_jobs import problem

from binworks.api import preview
from binworks.processors import registry
from binworks.service.model import JobState
from binworks.tensors import incomplete
from binworks.tensors.axes import w_axes
from binworks.tensors.expansion import Expansion
from binworks.tensors.groups.base import VariationGroup
from binworks.tensors.histogram import Histogram
from binworks.tensors.select import crop

pytest_plugins = ["served_fixture"]

NOMINAL = "/histograms/Wplusmunu/nominal"


def test_the_list_has_every_data_set_with_its_counts_and_histograms(served: Served) -> None:
    with served.http() as http:
        listed = http.get(f"/v1/jobs/{served.job}/histograms").json()
    assert (listed["generation"], listed["complete"], listed["luminosity"]) == (1, True, 100.0)
    found = {entry["name"]: entry for entry in listed["datasets"]}
    assert list(found) == list(served.sums)
    for name, sums in served.sums.items():
        assert found[name]["counts"] == sums.counts
        assert set(found[name]["histograms"]) == set(sums.histograms)
    assert found["Wplusmunu"]["group"] == "W"
    assert found["SingleMuon"]["kind"] == "data"


def test_uhi_json_is_valid_and_holds_the_stored_bits(served: Served) -> None:
    with served.http() as http:
        answer = http.get(f"/v1/jobs/{served.job}{NOMINAL}")
    assert answer.headers["content-type"] == "application/json"
    described = json.loads(answer.text)
    uhi.schema.validate(described)
    assert described["metadata"]["complete"] is True
    h = hist.Hist(json.loads(answer.text, object_hook=uhi.io.json.object_hook))
    stored = served.sums["Wplusmunu"].histograms["nominal"]
    assert np.array_equal(h.values(), stored.values)
    assert np.array_equal(h.variances(), stored.variances)
    assert [axis.name for axis in h.axes] == ["eta", "pt", "charge", "mt", "relIso"]


def test_npy_and_zip_hold_the_same_bits_as_uhi_json(served: Served) -> None:
    with served.http() as http:
        path = f"/v1/jobs/{served.job}{NOMINAL}"
        plain = http.get(path).json()["storage"]
        for array in ("values", "variances"):
            answer = http.get(path, params={"array": array}, headers={"Accept": "application/x-npy"})
            assert answer.headers["content-type"] == "application/x-npy"
            assert np.array_equal(np.load(io.BytesIO(answer.content)), np.array(plain[array]))
        packed = http.get(path, headers={"Accept": "application/zip"}).content
    read = uhi.io.zip.read(zipfile.ZipFile(io.BytesIO(packed)), "histogram")
    assert np.array_equal(read["storage"]["variances"], np.array(plain["variances"]))
    hist.Hist(read)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", "application/json"),
        ("text/html, application/*;q=0.5", "application/json"),
        ("application/zip;q=0.3, application/x-npy;q=0.9", "application/x-npy"),
        ("application/json;q=0, application/zip", "application/zip"),
    ],
)
def test_the_best_accepted_format_is_sent(served: Served, accept: str, expected: str) -> None:
    with served.http() as http:
        answer = http.get(f"/v1/jobs/{served.job}{NOMINAL}", headers={"Accept": accept})
    assert answer.headers["content-type"] == expected
    assert answer.headers["Vary"] == "Accept, Cookie, Authorization"


def test_a_format_that_is_not_there_is_refused(served: Served) -> None:
    with served.http() as http:
        answer = http.get(f"/v1/jobs/{served.job}{NOMINAL}", headers={"Accept": "text/csv"})
    assert "application/x-npy" in problem(answer, 406, "not-acceptable")["detail"]


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: str(group.name))
def test_a_named_variation_is_the_expansion_of_the_compact_block(served: Served, group: Any) -> None:
    sums = served.sums["Wplusmunu"].histograms
    names = group.expansion.variations[:: max(1, len(group.expansion.variations) // 3)]
    expected = group.expansion.expand(sums["nominal"], sums[group.name], names)
    with served.http() as http:
        for row, name in enumerate(names):
            answer = http.get(
                f"/v1/jobs/{served.job}{NOMINAL}",
                params={"variation": name},
                headers={"Accept": "application/x-npy"},
            )
            assert np.array_equal(np.load(io.BytesIO(answer.content)), expected[row])
            assert not np.array_equal(expected[row], sums["nominal"].values)


def w_groups(tmp_path: Path) -> list[VariationGroup]:
    """Return all groups of the W channel."""
    processor = registry.create("w_mass", {}, brute_force_cases.correction_set(tmp_path))
    return list(processor._groups.values())


def test_a_template_made_of_its_own_columns_has_the_bits_of_the_full_expansion(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    nominal = Histogram.zeros(w_axes())
    nominal.values[...] = rng.gamma(3.0, 100.0, nominal.values.shape)
    for group in w_groups(tmp_path):
        expansion = group.expansion
        block = group.block(w_axes())
        block.values[...] = rng.normal(size=(*nominal.values.shape, 1)) * rng.normal(size=len(group.columns))
        names = expansion.variations[:: max(1, len(expansion.variations) // 5)]
        expected = expansion.expand(nominal, block, names)
        read: set[int] = set()

        def column(number: int, values: Any = block.values, read: set[int] = read) -> Any:
            read.add(number)
            return values[..., number]

        for name, values in zip(names, expected, strict=True):
            assert np.array_equal(expansion.expand_one(nominal, name, column), values), name
        assert len(read) <= len(group.columns)


SLICES = [
    (["mt:2", "relIso:0"], {"mt": 2, "relIso": 0}, ["eta", "pt", "charge"]),
    (
        ["eta:3:40", "pt:5:6", "charge:1"],
        {"eta": (3, 40), "pt": (5, 6), "charge": 1},
        ["eta", "pt", "mt", "relIso"],
    ),
]


@pytest.mark.parametrize(("asked", "select", "left"), SLICES)
@pytest.mark.parametrize("variation", [None, "effEta3Charge1", "massShiftW10MeVUp"])
def test_a_slice_holds_the_bits_of_the_part_and_the_axes_left(
    served: Served, asked: list[str], select: Any, left: list[str], variation: str | None
) -> None:
    path = f"/v1/jobs/{served.job}{NOMINAL}"
    named = {} if variation is None else {"variation": variation}
    with served.http() as http:
        whole = http.get(path, params=named, headers={"Accept": "application/x-npy"})
        part = http.get(path, params={**named, "select": asked}, headers={"Accept": "application/x-npy"})
        described = http.get(path, params={**named, "select": asked})
    nominal = served.sums["Wplusmunu"].histograms["nominal"]
    expected = crop(Histogram(nominal.axes, np.load(io.BytesIO(whole.content))), select)
    assert np.array_equal(np.load(io.BytesIO(part.content)), expected.values)
    assert part.headers["ETag"] != whole.headers["ETag"]
    h = hist.Hist(json.loads(described.text, object_hook=uhi.io.json.object_hook))
    assert [axis.name for axis in h.axes] == left
    assert [axis.edges[0] for axis in h.axes] == [axis.edges[0] for axis in expected.axes]


def test_a_slice_of_a_block_is_read_without_the_rest(served: Served) -> None:
    made = served.made
    job = made.finished({"Wplusmunu": filled(22)})
    path = f"/v1/jobs/{job}/histograms/Wplusmunu/wide"
    headers = {"Accept": "application/x-npy"}
    expected = filled(22).histograms["wide"].values
    (shard, *_) = sorted(made.store.key_path(f"jobs/{job}/g/1/Wplusmunu/wide/values").glob("c.*"))
    stored = bytearray(shard.read_bytes())
    stored[len(stored) // 2 : len(stored) // 2 + 100_000] = bytes(
        100_000
    )  # the first chunk and the index are whole
    shard.write_bytes(stored)
    with served.http() as http:
        part = http.get(path, params={"select": ["column:1:3", "mt:2"]}, headers=headers)
        assert np.array_equal(np.load(io.BytesIO(part.content)), expected[:, :, :, 2, :, 1:3])
        one = http.get(f"/v1/jobs/{job}{NOMINAL}", params={"variation": "wide2Up"}, headers=headers)
        assert np.array_equal(np.load(io.BytesIO(one.content)), expected[..., 2])
        assert http.get(path, headers=headers).json()["code"] == "damaged"
        lost = http.get(f"/v1/jobs/{job}{NOMINAL}", params={"variation": "wide35Up"}, headers=headers)
        assert (lost.status_code, lost.json()["code"]) == (503, "damaged")


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        (["mu:1"], 404, "unknown-axis"),
        (["mt:3"], 404, "unknown-bin"),
        (["eta:40:49"], 404, "unknown-bin"),
        (["eta:7:7"], 404, "unknown-bin"),
        (["mt:1", "mt:2"], 422, "invalid-request"),
        (["mt"], 422, "invalid-request"),
        (["mt:-1"], 422, "invalid-request"),
    ],
)
def test_a_slice_that_cannot_be_is_refused(served: Served, asked: list[str], status: int, code: str) -> None:
    with served.http() as http:
        problem(http.get(f"/v1/jobs/{served.job}{NOMINAL}", params={"select": asked}), status, code)


def test_what_is_not_there_is_named(served: Served) -> None:
    base = f"/v1/jobs/{served.job}"
    with served.http() as http:
        wrong = problem(http.get(f"{base}{NOMINAL}?variation=massShiftW11MeVUp"), 404, "unknown-variation")
        assert "massShiftW10MeVUp" in wrong["hint"]
        problem(http.get(f"{base}/histograms/Wplusmumu/nominal"), 404, "unknown-data-set")
        problem(http.get(f"{base}/histograms/Wplusmunu/nominl"), 404, "unknown-histogram")
        problem(http.get(f"{base}{NOMINAL}?generation=7"), 404, "unknown-generation")
        problem(
            http.get(f"{base}/histograms/SingleMuon/nominal?variation=massShiftW10MeVUp"),
            404,
            "unknown-variation",
        )
        problem(http.get(f"{base}/expansions/nothing"), 404, "unknown-systematic")
        headers = {"Accept": "application/x-npy"}
        problem(
            http.get(f"{base}/histograms/Wplusmunu/mass?array=variances", headers=headers),
            404,
            "no-variances",
        )


def test_an_answer_has_a_strong_tag_a_digest_and_a_pinned_address(served: Served) -> None:
    with served.http() as http:
        answer = http.get(f"/v1/jobs/{served.job}{NOMINAL}", headers={"Accept": "application/zip"})
        digest = base64.b64encode(hashlib.sha256(answer.content).digest()).decode()
        assert answer.headers["Repr-Digest"] == f"sha-256=:{digest}:"
        tag = answer.headers["ETag"]
        assert not tag.startswith("W/")
        headers = {"Accept": "application/zip", "If-None-Match": f'"other", {tag}'}
        again = http.get(f"/v1/jobs/{served.job}{NOMINAL}", headers=headers)
        assert (again.status_code, again.content) == (304, b"")
        other = http.get(f"/v1/jobs/{served.job}{NOMINAL}", headers={"If-None-Match": tag})
        assert other.status_code == 200, "another format has another tag"
        assert "no-cache" in answer.headers["Cache-Control"]
        pinned = http.get(answer.headers["Content-Location"], headers={"Accept": "application/zip"})
        assert pinned.content == answer.content
        assert "immutable" in pinned.headers["Cache-Control"]


def test_a_result_that_lacks_events_says_so_and_readers_keep_their_generation(served: Served) -> None:
    made = served.made
    first, second = filled(11, groups=()), filled(12, groups=())
    job = made.submit()
    made.move(job, JobState.RUNNING)
    made.publish(job, {"Wplusmunu": first}, groups=(), complete=False)
    with served.http() as http:
        path = f"/v1/jobs/{job}{NOMINAL}"
        partial = http.get(path)
        assert partial.headers["Binworks-Complete"] == "false"
        assert partial.headers["Binworks-Fraction"] == "0.4"
        assert partial.json()["metadata"]["fraction"] == 0.4
        listed = http.get(f"/v1/jobs/{job}/histograms").json()
        assert (listed["complete"], listed["fraction"]) == (False, 0.4)
        made.publish(job, {"Wplusmunu": second}, groups=())
        assert http.get(partial.headers["Content-Location"]).content == partial.content
        latest = http.get(path)
        assert (latest.headers["Binworks-Complete"], latest.headers["Binworks-Fraction"]) == ("true", "1")
        assert np.array_equal(latest.json()["storage"]["values"], second.histograms["nominal"].values)


def test_expansions_come_over_whole(served: Served) -> None:
    with served.http() as http:
        listed = http.get(f"/v1/jobs/{served.job}/expansions").json()
        assert [entry["group"] for entry in listed] == [group.name for group in GROUPS]
        for group, entry in zip(GROUPS, listed, strict=True):
            assert tuple(entry["variations"]) == group.expansion.variations
            answer = http.get(f"/v1/jobs/{served.job}/expansions/{group.name}")
            with np.load(io.BytesIO(answer.content), allow_pickle=False) as arrays:
                found = Expansion.from_arrays(json.loads(str(arrays["description"])), arrays)
            assert found.nuisances == group.expansion.nuisances
            for field in ("variation", "block", "column", "coefficient"):
                assert np.array_equal(getattr(found, field), getattr(group.expansion, field))


def test_an_incomplete_result_says_so_in_every_answer(served: Served) -> None:
    job = served.made.incomplete({"Wplusmunu": filled(13, groups=())})
    with served.http() as http:
        for path in ("/histograms", NOMINAL, f"{NOMINAL}/preview.png"):
            headers = http.get(f"/v1/jobs/{job}{path}").headers
            assert (headers["Binworks-Complete"], headers["Binworks-Fraction"]) == ("false", "0.931"), path
        listed = http.get(f"/v1/jobs/{job}/histograms").json()
        assert listed["missing"]["files"] == ["a.root", "b.root"]
        view = http.get(f"/v1/jobs/{job}").json()
        assert (view["state"], view["complete"], view["missing"]["events"]) == ("succeeded", False, 10)
        stored = http.get(f"/v1/jobs/{job}/zarr/1/zarr.json").json()["attributes"]
        assert (stored["complete"], stored["fraction"]) == (False, 0.931)
        told = [event.data for event in served.made.jobs.events(job) if event.kind == "snapshot"]
        assert (told[-1]["final"], told[-1]["complete"], told[-1]["fraction"]) == (True, False, 0.931)


def test_the_preview_of_an_incomplete_result_carries_a_mark() -> None:
    sums = filled(1, groups=()).histograms["nominal"]
    mark = incomplete.mark({"complete": False, "fraction": 0.931, "missing": {"files": ["a.root"]}})
    assert mark == "INCOMPLETE: 93.1 % of the events, and 1 file could not be opened"
    marked = preview.projections(sums, "W: nominal", mark)
    assert marked.get_supxlabel() == mark
    assert preview.png(marked).startswith(b"\x89PNG")
    assert preview.projections(sums, "W: nominal").get_supxlabel() == ""


@pytest.mark.parametrize(
    ("fraction", "shown"), [(0.931, "93.1 %"), (0.99999, "99.999 %"), (1.0, "100.0 %"), (0.0, "0.0 %")]
)
def test_a_part_is_never_rounded_to_the_whole(fraction: float, shown: str) -> None:
    assert incomplete.percent(fraction) == shown


def test_the_preview_is_a_picture(served: Served) -> None:
    with served.http() as http:
        answer = http.get(f"/v1/jobs/{served.job}{NOMINAL}/preview.png")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG")
    width, height = (int.from_bytes(answer.content[i : i + 4], "big") for i in (16, 20))
    assert (width, height) >= (800, 400)


@pytest.mark.parametrize("damage", ["emptied", "cut short"])
def test_damaged_sums_are_an_error_not_zeros(served: Served, damage: str) -> None:
    made = served.made
    job = made.finished({"Wplusmunu": filled(21)})
    block = made.store.key_path(f"jobs/{job}/g/1/Wplusmunu/wide/values")
    for file in block.glob("c.*"):
        os.truncate(file, 0 if damage == "emptied" else file.stat().st_size // 2)
    with served.http() as http:
        assert http.get(f"/v1/jobs/{job}/histograms").status_code == 200
        assert http.get(f"/v1/jobs/{job}{NOMINAL}").status_code == 200
        damaged = http.get(f"/v1/jobs/{job}/histograms/Wplusmunu/wide", headers={"Accept": "application/zip"})
    assert damaged.status_code >= 500
    assert damaged.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in damaged.text
    assert damaged.json()["code"] == "damaged"
    where = f"jobs/{job}/g/1/Wplusmunu/wide"
    assert damaged.json()["where"] == where
    logged = [line for line in logged_by(served) if where in line["message"]]
    assert logged
    assert all("Traceback" in line["traceback"] for line in logged)


def logged_by(served: Served) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (served.made.settings.logs / "api.log").read_text().splitlines()]


def test_no_token_is_in_the_log(served: Served) -> None:
    with served.http() as http:
        http.get(f"/v1/jobs?cursor={served.made.tokens['alice']}")
        http.get(f"/v1/nothing/{served.made.tokens['alice']}")
    assert logged_by(served)
    text = (served.made.settings.logs / "api.log").read_text() + served.api.log.read_text()
    for token in served.made.tokens.values():
        assert token not in text
