"""Reading: facts of a file, the flavour table, and every way in which a file can be bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import small_nano
import uproot

from binworks.processors import registry
from binworks.processors.columns import Field, resolve
from binworks.processors.dataset import Dataset
from binworks.processors.reading import inspect, read
from binworks.processors.run import Range, fill_ranges, run_files
from binworks.tensors.accumulator import check_oddities
from binworks.tensors.errors import BinworksError, InputError, PhysicsError, RequestError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
FIELDS = (Field("muon.pt", ("Muon_pt",), "f4", "jagged"), Field("run", ("run",), "i8"))


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return small_nano.write(tmp_path / "good.root", small_nano.events(1200, 1), cluster=500)


def test_a_files_facts_are_its_entries_identity_and_clusters(good: Path) -> None:
    facts = inspect(str(good))
    assert (facts.entries, facts.clusters, facts.format) == (1200, (0, 500, 1000, 1200), "ttree")
    assert facts.size == good.stat().st_size
    assert facts.uuid == str(uproot.open(good).file.uuid)


def test_a_range_holds_just_its_events(good: Path) -> None:
    with uproot.open(good) as file:
        expected = file["Events"]["Muon_pt"].array()[450:777]
    columns = read(str(good), inspect(str(good)).uuid, FIELDS, 450, 777)
    np.testing.assert_array_equal(columns["muon.pt"], ak.to_numpy(ak.flatten(expected)))
    np.testing.assert_array_equal(np.diff(columns.offsets["muon"]), ak.to_numpy(ak.num(expected)))
    assert columns.size == 327


def test_the_first_branch_present_wins() -> None:
    wanted = Field("met.pt", ("DeepMETPVRobust_pt", "PuppiMET_pt", "MET_pt"))
    assert resolve([wanted], {"MET_pt", "PuppiMET_pt"}, "f")["met.pt"] == ("PuppiMET_pt",)


def test_cvh_muons_are_taken_where_the_file_has_them(tmp_path: Path) -> None:
    events = small_nano.events(500, 1)
    events["Muon"] |= {f"cvhideal{q}": events["Muon"][q.lower()] for q in ("Pt", "Eta", "Phi", "Charge")}
    events["Muon"]["cvhidealPt"] = events["Muon"]["pt"] * 2
    path = str(small_nano.write(tmp_path / "cvh.root", events))
    processor = registry.create("w_mass", {"pdf_members": 7})
    columns = read(
        path, inspect(path).uuid, processor.fields(Dataset(name="W", files=(path,), boson="W")), 0, 500
    )
    np.testing.assert_array_equal(columns["muon.pt"], 2 * ak.to_numpy(ak.flatten(events["Muon"]["pt"])))


def write_bad(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.root"
    events = small_nano.events(2000, 1)
    if kind == "not-root":
        path.write_text("this is a log file, not a histogram")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        small_nano.write(path, events)
        path.write_bytes(path.read_bytes()[:-20_000])
    elif kind == "no-events":
        small_nano.write(path, events, tree="Delphes")
    elif kind == "folder":
        path.mkdir()
    elif kind == "no-muons":
        small_nano.write(path, {name: value for name, value in events.items() if name != "Muon"})
    elif kind == "varying":
        events["LHEPdfWeight"] = ak.concatenate(
            [events["LHEPdfWeight"][:1500], events["LHEPdfWeight"][1500:, :5]]
        )
        small_nano.write(path, events)
    elif kind == "cut header":
        path.write_bytes(b"root" + bytes(20))
    elif kind == "flipped":
        small_nano.write(path, events)
        text = bytearray(path.read_bytes())
        middle = len(text) // 2
        text[middle : middle + 2000] = bytes(2000)
        path.write_bytes(bytes(text))
    return path


@pytest.mark.parametrize(
    ("kind", "code", "word"),
    [
        ("missing", "missing-file", "does not exist"),
        ("not-root", "not-root", "not a ROOT file"),
        ("empty", "not-root", "not a ROOT file"),
        ("truncated", "truncated-file", "header says"),
        ("no-events", "no-events", "Delphes"),
        ("folder", "unreadable-file", "cannot be opened"),
        ("no-muons", "missing-branch", "Muon_pt"),
        ("varying", "varying-block", "LHEPdfWeight"),
        ("flipped", "corrupt-file", "cannot be read"),
        ("cut header", "corrupt-file", "cannot be read"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(kind: str, code: str, word: str, tmp_path: Path) -> None:
    path = write_bad(kind, tmp_path)
    processor = registry.create("w_mass", {"pdf_members": 7})
    with pytest.raises(InputError) as caught:
        run_files(processor, Dataset(name="W", files=(str(path),), boson="W"))
    assert caught.value.code == code
    assert word in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_without_events_is_no_error(tmp_path: Path) -> None:
    path = small_nano.write(tmp_path / "none.root", small_nano.events(0, 1))
    filled = run_files(registry.create("w_mass"), Dataset(name="W", files=(str(path),), boson="W"))
    assert filled.counts["entries"] == 0


def test_a_file_that_was_replaced_since_the_plan_is_refused(good: Path) -> None:
    facts = inspect(str(good))
    small_nano.write(good, small_nano.events(1200, 2))
    processor = registry.create("w_mass", {"pdf_members": 7})
    with pytest.raises(InputError, match="was replaced") as caught:
        fill_ranges(
            processor, Dataset(name="W", files=(str(good),), boson="W"), [Range(str(good), facts.uuid, 0, 10)]
        )
    assert caught.value.code == "file-changed"


def poison(events: dict[str, Any], where: str) -> None:
    if where == "gen weight":
        events["genWeight"][5] = np.nan
    elif where == "missing momentum":
        events["MET_pt"][:] = np.where(np.arange(len(events["MET_pt"])) % 2, events["MET_pt"], np.inf)
    elif where == "muon pT":
        events["Muon"]["pt"] = events["Muon"]["pt"] * np.nan
    elif where == "pdf weight":
        events["LHEPdfWeight"] = events["LHEPdfWeight"] * np.inf


@pytest.mark.parametrize("where", ["gen weight", "missing momentum", "muon pT", "pdf weight"])
def test_a_number_that_is_not_finite_is_counted_and_named(where: str, tmp_path: Path) -> None:
    events = small_nano.events(1000, 1)
    poison(events, where)
    path = small_nano.write(tmp_path / "odd.root", events)
    filled = run_files(
        registry.create("w_mass", {"pdf_members": 7}), Dataset(name="W", files=(str(path),), boson="W")
    )
    assert filled.counts["odd/kinematics not finite"] + filled.counts["odd/weight not finite"] > 0
    assert all(np.isfinite(h.values).all() for h in filled.histograms.values())
    if where == "gen weight":
        assert filled.examples == {"odd": ["1:0:5"]}
    with pytest.raises(PhysicsError, match="run:lumi:event"):
        check_oddities(filled.counts, filled.examples)
    check_oddities(filled.counts, filled.examples, limit=1.0)


@pytest.mark.parametrize(
    ("call", "code", "word"),
    [
        (("w_mas", {}, None, None), "unknown-processor", "Did you mean w_mass"),
        (("w_mass", {"flavor": "2016"}, None, None), "unknown-option", "Did you mean flavour"),
        (("w_mass", {"flavour": "2015"}, None, None), "bad-option", "flavour"),
        (("w_mass", {"pdf_members": 1000}, None, None), "bad-option", "pdf_members"),
        (("w_mass", {}, None, ["masss"]), "unknown-systematic", "Did you mean mass"),
        (("w_mass", {}, None, ["theory"]), "missing-correction", "theory"),
    ],
)
def test_what_cannot_be_asked_for_is_named(call: tuple[Any, ...], code: str, word: str) -> None:
    with pytest.raises(RequestError) as caught:
        registry.create(*call)
    assert caught.value.code == code
    assert word in str(caught.value)


def test_the_description_of_a_processor_lists_its_options_and_groups() -> None:
    described = registry.describe("w_mass")
    assert {"mass", "pdf", "momentum_scale", "efficiency_idip", "pileup"} <= set(described["systematics"])
    assert {"flavour", "pdf_branch", "pdf_members"} <= set(described["options"]["properties"])


@pytest.mark.skipif(
    not (SHARED / "nano_dy.root").exists(), reason="the real CMS files are not beside the project"
)
@pytest.mark.parametrize(
    ("name", "kind", "boson", "members", "selected"),
    [
        ("nano_dy", "mc", "Z", 33, 2),
        ("nano_dy_rntuple", "mc", "Z", 33, 2),
        ("nano_dimuon", "data", None, 61, 0),
        ("nano_tt_v15", "mc", None, 61, 0),
    ],
)
def test_real_cms_files_run(name: str, kind: Any, boson: Any, members: int, selected: int) -> None:
    processor = registry.create("w_mass", {"flavour": "2017-on", "pdf_members": members}, None, ["pdf"])
    dataset = Dataset(name=name, files=(str(SHARED / f"{name}.root"),), kind=kind, boson=boson)
    filled = run_files(processor, dataset)
    assert filled.counts["entries"] == (200 if name == "nano_tt_v15" else 40)
    assert filled.counts["selected"] == selected
    assert not any(count for oddity, count in filled.counts.items() if oddity.startswith("odd/"))


def test_errors_survive_the_way_between_processes() -> None:
    import pickle

    error = InputError("gone", code="missing-file", where="a.root", hint="Look.")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, BinworksError)
    assert (str(again), again.code) == ("a.root: gone Look.", "missing-file")


def test_a_pdf_block_of_another_length_is_refused_with_the_option_to_set(good: Path) -> None:
    with pytest.raises(
        InputError, match=r"LHEPdfWeight has 7 weights an event, expected 61.*pdf_members"
    ) as caught:
        run_files(registry.create("w_mass"), Dataset(name="W", files=(str(good),), boson="W"))
    assert caught.value.code == "wrong-block"
    assert str(good) in str(caught.value)


def read_all(path: Path, *fields: Field) -> None:
    facts = inspect(str(path))
    read(str(path), facts.uuid, fields, 0, facts.entries)


def jagged(name: str, branch: str) -> Field:
    return Field(name, (branch,), "f4", "jagged")


def write_columns(path: Path, columns: dict[str, Any], layout: str) -> Path:
    with uproot.recreate(path, compression=uproot.ZSTD(1)) as file:
        if layout == "ttree":
            file.mktree("Events", columns)
        else:
            file.mkrntuple("Events", ak.zip(columns, depth_limit=1))
    return path


@pytest.mark.parametrize("layout", ["ttree", "rntuple"])
def test_uneven_branches_of_a_collection_are_named_with_the_entry(layout: str, tmp_path: Path) -> None:
    even = ak.unflatten(np.arange(300.0), [3] * 100)
    uneven = ak.concatenate([even[:70], even[70:, :2]])
    columns = {"Muon_pt": even, "Muon_eta": uneven, "run": np.arange(100)}
    path = write_columns(tmp_path / "f.root", columns, layout)
    with pytest.raises(
        InputError, match=r"f\.root \[0:100\]: Muon_eta: .* muon branches: 2 .* 3 at entry 70\."
    ) as caught:
        read_all(path, jagged("muon.pt", "Muon_pt"), jagged("muon.eta", "Muon_eta"))
    assert caught.value.code == "uneven-collection"


@pytest.mark.parametrize("layout", ["ttree", "rntuple"])
def test_a_block_whose_length_varies_is_named_with_the_entry(layout: str, tmp_path: Path) -> None:
    block = ak.unflatten(np.arange(300.0), [3] * 100)
    columns = {"LHEPdfWeight": ak.concatenate([block[:40], block[40:, :1]]), "run": np.arange(100)}
    path = write_columns(tmp_path / "f.root", columns, layout)
    with pytest.raises(InputError, match=r"f\.root \[0:100\]: LHEPdfWeight: .* 1 at entry 40") as caught:
        read_all(path, Field("pdf", ("LHEPdfWeight",), "f4", "block"))
    assert caught.value.code == "varying-block"


@pytest.mark.parametrize("layout", ["ttree", "rntuple"])
@pytest.mark.parametrize("kind", ["flat", "jagged"])
def test_a_branch_that_holds_no_numbers_is_named(layout: str, kind: Any, tmp_path: Path) -> None:
    columns = {"name": ak.Array(["a", "bb", ""]), "run": np.arange(3)}
    path = write_columns(tmp_path / "f.root", columns, layout)
    with pytest.raises(InputError, match=r"f\.root \[0:3\]: name: It holds string") as caught:
        read_all(path, Field("muon.name", ("name",), "f4", kind))
    assert caught.value.code == "bad-input"


def test_lists_of_lists_are_no_columns(tmp_path: Path) -> None:
    columns = {"hits": ak.Array([[[1.0, 2.0], [3.0]], [], [[4.0]]]), "run": np.arange(3)}
    path = write_columns(tmp_path / "f.root", columns, "rntuple")
    with pytest.raises(InputError, match=r"hits: It holds var \* var \* float64"):
        read_all(path, jagged("muon.hits", "hits"))


@pytest.mark.parametrize("branch", ["run", "Muon_pt"])
@pytest.mark.parametrize("how", ["overwritten", "of another length"])
def test_a_damaged_basket_is_named_by_branch_file_and_entry(branch: str, how: str, good: Path) -> None:
    with uproot.open(good) as file:
        basket = file["Events"][branch].member("fBasketSeek")[1]
        size = file["Events"][branch].member("fBasketBytes")[1]
    text = bytearray(good.read_bytes())
    if how == "overwritten":
        text[basket + size - 40 : basket + size] = bytes(40)
    else:
        text[basket + 3] ^= 1  # the last byte of the length at the start of its key
    good.write_bytes(bytes(text))
    fields = {"run": Field("run", ("run",), "i8"), "Muon_pt": jagged("muon.pt", "Muon_pt")}
    pattern = rf"good\.root \[0:1200\]: {branch}: .* basket that begins at entry 500: "
    with pytest.raises(InputError, match=pattern) as caught:
        read_all(good, fields[branch])
    assert caught.value.code == "corrupt-file"


def test_a_file_that_is_cut_while_it_is_read_is_named_by_branch_and_entry(good: Path) -> None:
    facts = inspect(str(good))
    read(str(good), facts.uuid, FIELDS, 0, 500)
    with good.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(InputError, match=r"\[500:1000\]: Muon_pt: .* entry 500: EOFError: .* ends at byte"):
        read(str(good), facts.uuid, FIELDS, 500, 1000)
