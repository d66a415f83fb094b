"""A correction set on the command line: every payload is checked, described and drawn."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import small_corrections
from hypothesis import given
from hypothesis import strategies as st
from test_corrections_tables import muon_document

from binworks.corrections import efficiency, resolution, sets, show
from binworks.corrections.plots import efficiencies, muons, page, theory
from binworks.tensors.errors import PayloadError, RequestError

BINWORKS = str(Path(sys.executable).parent / "binworks")


@pytest.fixture(scope="module")
def corrections(tmp_path_factory: pytest.TempPathFactory) -> sets.CorrectionSet:
    documents = small_corrections.documents() | {"muon": ("correctionlib", muon_document())}
    return sets.write(tmp_path_factory.mktemp("corrections"), "small", documents)


def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "COLUMNS": "250", "NO_COLOR": "1"}
    if "BINWORKS_KERNEL_CACHE" in os.environ:
        environment["BINWORKS_KERNEL_CACHE"] = os.environ["BINWORKS_KERNEL_CACHE"]
    command = [BINWORKS, "corrections", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def test_every_payload_with_a_meaning_is_tried_here(corrections: sets.CorrectionSet) -> None:
    assert set(show.READERS) | {"muon"} == set(corrections.manifest.payloads)


@pytest.mark.parametrize("name", [*show.READERS, "muon"])
def test_a_payload_is_checked_described_and_drawn(
    corrections: sets.CorrectionSet, name: str, tmp_path: Path
) -> None:
    out = tmp_path / "page.png"
    (shown,) = show.show(corrections, [name], out)
    assert shown.error is None
    assert shown.page is not None
    assert shown.page.holds
    assert np.isfinite([shown.page.low, shown.page.high]).all()
    assert shown.page.low <= shown.page.high
    assert shown.file == out
    pixels = matplotlib.image.imread(out)
    assert pixels.shape[1] >= 800
    assert pixels[::4, ::4, :3].std() > 0.03, "an empty page"
    figure = show.draw(corrections, name, shown.page)
    drawn = [axes for axes in figure.axes if axes.get_visible() and axes.axison]
    assert all(axes.get_xlabel() or axes.get_ylabel() or axes.get_title(loc="left") for axes in drawn)
    assert f"{name}   (small, {shown.sha256[:12]})" == figure.get_suptitle()


def test_a_set_is_listed(corrections: sets.CorrectionSet) -> None:
    lines = run("show", str(corrections.folder)).stdout.splitlines()
    assert lines[0] == f"small  {corrections.digest[:12]}"
    rows = {words[0]: line for line in lines[2:] if (words := line.split()) and not line.startswith("    ")}
    assert set(rows) == set(corrections.manifest.payloads)
    assert "32 nuisances" in rows["theory"]
    assert corrections.entry("cvh").sha256[:12] in rows["cvh"]


def test_several_payloads_are_drawn_to_files_of_their_names(
    corrections: sets.CorrectionSet, tmp_path: Path
) -> None:
    out = tmp_path / "page.pdf"
    said = run("show", str(corrections.folder), "pileup", "ew", "--json", "-o", str(out)).stdout
    document = json.loads(said)
    assert (document["name"], document["digest"]) == ("small", corrections.digest)
    files = [tmp_path / "page-pileup.pdf", tmp_path / "page-ew.pdf"]
    assert [row["file"] for row in document["payloads"]] == list(map(str, files))
    assert [file.read_bytes()[:5] for file in files] == [b"%PDF-"] * 2
    first = document["payloads"][0]
    assert first["sha256"] == corrections.entry("pileup").sha256
    assert (first["quantity"], first["high"]) == ("weight", 5.0)


def test_a_set_with_wrong_payloads_shows_the_others_and_fails(tmp_path: Path) -> None:
    documents = small_corrections.documents()
    chosen: dict[str, tuple[str, Any]] = {name: documents[name] for name in ("pileup", "cvh", "prefire")}
    chosen["cvh"][1]["extra"] = 1
    chosen["noise"] = ("noise", {})
    sets.write(tmp_path, "broken", chosen)
    text = (tmp_path / "prefire.json").read_text()
    (tmp_path / "prefire.json").write_text(text + " ")
    done = run("show", str(tmp_path), "--json", code=2)
    rows = {row["name"]: row for row in json.loads(done.stdout)["payloads"]}
    codes = {name: row["error"]["code"] for name, row in rows.items() if "error" in row}
    assert codes == {"cvh": "bad-payload", "prefire": "wrong-hash", "noise": "wrong-kind"}
    assert "extra" in rows["cvh"]["error"]["message"]
    assert "broken/cvh" in done.stderr
    table = run("show", str(tmp_path), code=2)
    assert "sha256" in table.stdout
    assert "nTrueInt" in table.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere/manifest.json"),
        (["SET", "pileups"], "no payload 'pileups'"),
        (["SET", "pileup", "-o", "page.txt"], "cannot be saved"),
        (["SET", "pileup", "-o", "nowhere/page.png"], "cannot be written"),
        ([], "SET_FOLDER"),
    ],
)
def test_what_cannot_be_shown_is_said(
    corrections: sets.CorrectionSet, arguments: list[str], words: str
) -> None:
    given = [str(corrections.folder) if word == "SET" else word for word in arguments]
    assert words in run("show", *given, code=2).stderr


def test_the_command_above_still_asks_the_service() -> None:
    assert "where the service is" in run(code=2).stderr
    helped = run("--help").stdout
    assert "show" in helped
    assert "--url" in helped
    assert "-o page.png" in run("show", "--help").stdout


def test_a_compressed_table_is_shown(tmp_path: Path, root: Path) -> None:
    source = root.parent / "shared/data/muon_Z.json.gz"
    if not source.exists():
        pytest.skip(f"{source.name} is not there")
    found = sets.write(tmp_path / "set", "cms", {"muon_Z": ("correctionlib", source)})
    (shown,) = show.show(found, [], tmp_path / "page.svg")
    assert shown.page is not None
    assert "29 corrections in eta, pt, scale_factors" in shown.page.holds
    assert (tmp_path / "page.svg").read_text().count("NUM_") >= 9


def test_a_page_is_drawn_from_what_was_checked(tmp_path: Path) -> None:
    found = sets.write(tmp_path, "small", {"pileup": small_corrections.documents()["pileup"]})
    before = show.read(found, "pileup")
    shutil.rmtree(tmp_path)
    assert show.draw(found, "pileup", before).axes
    with pytest.raises(PayloadError, match="cannot be read"):
        show.read(found, "pileup")


def test_an_unknown_format_is_refused_before_anything_is_read(corrections: sets.CorrectionSet) -> None:
    with pytest.raises(RequestError, match=r"\.png, \.pdf, \.svg") as caught:
        show.show(corrections, ["nothing"], Path("page.jpeg"))
    assert caught.value.code == "unknown-format"


# what is drawn


EDGES = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8, unique=True).map(sorted)


@given(EDGES, st.booleans(), st.booleans())
def test_edges_without_end_become_finite_and_still_rise(edges: list[float], below: bool, above: bool) -> None:
    endless = [*([-np.inf] if below else []), *edges, *([np.inf] if above else [])]
    found = page.finite_edges(endless)
    assert np.isfinite(found).all()
    assert len(found) == len(endless)
    assert found[int(below) : len(found) - int(above)].tolist() == edges
    assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize("edges", [[-np.inf, np.inf], [-np.inf, 3.0, np.inf], [3.0, np.inf]])
def test_bins_without_any_width_can_be_drawn(edges: list[float]) -> None:
    found = page.finite_edges(edges)
    assert (np.diff(found) > 0).all()
    assert [x for x in edges if np.isfinite(x)] == [
        y for x, y in zip(edges, found, strict=True) if np.isfinite(x)
    ]


@given(st.integers(1, 40), st.integers(1, 9))
def test_what_is_picked_is_spread_from_end_to_end(count: int, wanted: int) -> None:
    found = page.spread(count, wanted)
    assert found[0] == 0
    assert wanted == 1 or found[-1] == count - 1
    assert len(found) == min(count, wanted)


@pytest.mark.parametrize("step", efficiency.COEFFICIENTS)
def test_drawn_scale_factors_are_those_of_the_kernel(corrections: sets.CorrectionSet, step: str) -> None:
    table = efficiency.load(corrections, step).efficiency
    out = np.zeros(12)
    for pt, ut in ((table.low, table.ut_low), (41.3, 0.7), (table.high, table.ut_high)):
        n = efficiency.fill_basis(pt, ut, table, out)
        np.testing.assert_allclose(efficiencies.basis(table, pt, ut), out[:n], rtol=1e-12, atol=1e-12)


def test_drawn_uncertainties_are_those_of_the_covariance(corrections: sets.CorrectionSet) -> None:
    data = resolution.load(corrections, is_data=True)
    covariance = resolution.load_covariance(corrections)
    pt = np.array([20.0, 70.0])
    errors = muons._width_errors(covariance, data, pt)
    bin_, h = 5, 1e-9
    slopes = []
    for part in range(3):
        squares = [np.square(data.a), np.square(data.c), np.square(data.b)]
        squares[part] = squares[part] + h
        a, c, b = map(np.sqrt, squares)
        moved = muons._widths(resolution.Resolution(a, b, c, data.d), pt)
        slopes.append((moved - muons._widths(data, pt))[bin_] / h)
    own = covariance[np.ix_(*[[bin_, bin_ + 24, bin_ + 48]] * 2)]
    expected = np.sqrt(np.einsum("ip,ij,jp->p", slopes, own, slopes))
    np.testing.assert_allclose(errors[bin_], expected, rtol=1e-2)


def test_an_effect_is_half_of_up_minus_down_or_the_single_side() -> None:
    weights = np.array([[2.0, 2.2, 1.9, 2.1]])
    names, found = theory.effects(("aUp", "aDown", "b"), weights)
    assert names == ["a", "b"]
    np.testing.assert_allclose(found, [[0.075, 0.05]])
