"""Files: the same seed gives the same bytes, whoever writes them; everybody can read them; nothing half done stays."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from coffea.nanoevents import NanoAODSchema, NanoEventsFactory
from samples_tools import digest, quiet_truth, read
from typer.testing import CliRunner

from binworks.corrections import sets
from binworks.processors.dataset import Dataset
from binworks.processors.reading import inspect
from binworks.samples.bulk import make_bulk, plan_bulk
from binworks.samples.cli import command
from binworks.samples.demo import make_demo, plan_demo
from binworks.samples.processes import PROCESSES
from binworks.samples.production import FileTask, produce, produce_all, split
from binworks.samples.rootfile import open_events
from binworks.samples.truth import EFFECTS, Truth
from binworks.tensors.errors import RequestError, TransientError

pytest.importorskip("pythia8mc", exc_type=ImportError)

NEEDED = [
    "run",
    "luminosityBlock",
    "event",
    "nMuon",
    "Muon_pt",
    "Muon_eta",
    "Muon_phi",
    "Muon_charge",
    "Muon_dxy",
    "Muon_dxybs",
    "Muon_pfRelIso04_all",
    "Muon_vtxAgnPfRelIso04_all",
    "Muon_looseId",
    "Muon_mediumId",
    "Muon_isGlobal",
    "Muon_highPurity",
    "Muon_standalonePt",
    "Muon_standaloneEta",
    "Muon_standalonePhi",
    "Muon_standaloneNumberOfValidHits",
    "Muon_cvhNValidPixelHits",
    "Electron_pt",
    "Electron_eta",
    "Electron_dxy",
    "Electron_dz",
    "Electron_cutBased",
    "HLT_IsoMu24",
    "HLT_IsoTkMu24",
    "TrigObj_pt",
    "TrigObj_eta",
    "TrigObj_phi",
    "TrigObj_id",
    "TrigObj_filterBits",
    "DeepMETPVRobust_pt",
    "DeepMETPVRobust_phi",
    "DeepMETResolutionTune_pt",
    "DeepMETResolutionTune_phi",
    "PuppiMET_pt",
    "PuppiMET_phi",
    "MET_pt",
    "MET_phi",
    "PV_npvsGood",
    "PV_z",
    "Flag_globalSuperTightHalo2016Filter",
    "Flag_EcalDeadCellTriggerPrimitiveFilter",
    "Flag_goodVertices",
    "Flag_HBHENoiseIsoFilter",
    "Flag_HBHENoiseFilter",
    "Flag_BadPFMuonFilter",
]
SIMULATED = [
    "genWeight",
    "Pileup_nTrueInt",
    "GenVtx_z",
    "nGenPart",
    "GenPart_pt",
    "GenPart_eta",
    "GenPart_phi",
    "GenPart_mass",
    "GenPart_pdgId",
    "GenPart_status",
    "GenPart_statusFlags",
    "GenPart_genPartIdxMother",
    "LHEPart_pt",
    "LHEPart_eta",
    "LHEPart_phi",
    "LHEPart_mass",
    "LHEPart_pdgId",
    "LHEPart_status",
    "nLHEPdfWeight",
    "LHEPdfWeight",
    "LHEPdfWeightAltSet1",
    "LHEScaleWeight",
    "MEParamWeight",
    "MEParamWeightAltSet1",
    "L1PreFiringWeight_ECAL_Nom",
    "L1PreFiringWeight_ECAL_Up",
    "L1PreFiringWeight_ECAL_Dn",
]


def bulk(folder: Path, process: str = "Wplusmunu", events: int = 600, **options) -> list[FileTask]:
    return plan_bulk(folder, process, events, quiet_truth(), **{"file_events": 300, **options})


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return make_demo(plan_demo(folder, 3000, Truth.draw(1)), jobs=1)


def test_one_and_two_processes_write_the_same_bytes(tmp_path):
    one = produce_all(bulk(tmp_path / "one"), jobs=1)
    two = produce_all(bulk(tmp_path / "elsewhere" / "two"), jobs=2)
    assert [digest(r.path) for r in one] == [digest(r.path) for r in two]
    assert [r.entries for r in two] == [300, 300]


def test_data_are_the_same_bytes_for_the_same_seed_and_others_for_another(tmp_path):
    made = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        path = tmp_path / name / "data_0.root"
        produce(FileTask(path, Truth.draw(seed), 0, luminosity=0.05))
        made.append(path)
    assert digest(made[0]) == digest(made[1]) != digest(made[2])


def test_each_file_has_its_own_identity_and_no_present_time(tmp_path):
    results = produce_all(bulk(tmp_path), jobs=1)
    files = [uproot.open(result.path) for result in results]
    assert files[0].file.uuid != files[1].file.uuid
    stamps = {key.fDatime for file in files for key in file._keys}
    assert len(stamps) == 1


def test_samples_of_one_seed_that_differ_have_different_identities(tmp_path):
    tasks = [
        FileTask(
            tmp_path / f"{shift}.root", Truth.draw(1, mass_shift_mev=shift), 0, process="Nonprompt", events=10
        )
        for shift in (0.0, 10.0)
    ]
    uuids = [inspect(str(produce(task).path)).uuid for task in tasks]
    assert uuids[0] != uuids[1]


@pytest.mark.parametrize("process", PROCESSES)
def test_branches_are_those_of_nanoaod(demo, process):
    with uproot.open(demo.folder / "data" / f"{process}_0.root") as file:
        branches = set(file["Events"].keys())
        lhe = PROCESSES[process].boson is not None
    assert ("MEParamWeightAltSet4" in branches) == (PROCESSES[process].boson == "Z")
    missing = {*NEEDED, *SIMULATED} - branches
    assert (
        not missing
        if lhe
        else missing and all(name.lstrip("n").startswith(("LHE", "MEP")) for name in missing)
    )


def test_data_have_no_generator_and_triggered_events_only(demo):
    path = demo.folder / "data" / "data_0.root"
    with uproot.open(path) as file:
        branches = set(file["Events"].keys())
        arrays = file["Events"].arrays(["HLT_IsoMu24", "HLT_IsoTkMu24", "event", "run"])
    assert not set(NEEDED) - branches
    assert not [
        b for b in branches if b.startswith(("gen", "Gen", "LHE", "MEP", "Pileup", "L1", "PS", "nGen"))
    ]
    assert ak.all(arrays.HLT_IsoMu24 | arrays.HLT_IsoTkMu24)
    assert len(set(arrays.event.tolist())) == len(arrays)
    assert 0.4 < ak.mean(arrays.event % 2) < 0.6


def test_event_numbers_are_unique_over_all_files_and_of_both_parities(demo):
    catalogue = json.loads(demo.catalogue.read_text())
    numbers = np.concatenate(
        [
            uproot.open(demo.folder / path)["Events/event"].array(library="np")
            for dataset in catalogue["datasets"]
            for path in dataset["files"]
        ]
    )
    assert len(np.unique(numbers)) == len(numbers)
    assert 0.45 < (numbers % 2).mean() < 0.55


def test_runs_hold_the_sums_of_the_events(tmp_path):
    result = produce(bulk(tmp_path, "Zmumu", 400, file_events=400, negative=0.1)[0])
    with uproot.open(result.path) as file:
        sums = file["Runs"].arrays(library="np")
        weights = file["Events/genWeight"].array(library="np")
    assert sums["genEventCount"].tolist() == [400]
    assert sums["genEventSumw"][0] == weights.sum() < 380
    assert sums["genEventSumw2"][0] == (weights**2).sum()


def test_weight_blocks_are_jagged_branches_of_constant_length(demo):
    with uproot.open(demo.folder / "data" / "Wplusmunu_0.root") as file:
        events = file["Events"]
        for name, length in (("LHEPdfWeight", 61), ("LHEScaleWeight", 9), ("MEParamWeight", 21)):
            assert events[name].typename == "float[]"
            assert (events[f"n{name}"].array(library="np") == length).all()
            assert ak.all(ak.num(events[name].array()) == length)
        assert ak.all(events["LHEPdfWeight"].array()[:, 0] == 1)
        assert ak.all(events["MEParamWeight"].array()[:, 10] == 1)


def test_coffea_reads_a_file_with_its_nanoaod_schema(demo):
    path = demo.folder / "data" / "Wplusmunu_0.root"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the schema misses cross references that a compact file lacks
        events = NanoEventsFactory.from_root(
            {str(path): "Events"}, schemaclass=NanoAODSchema, mode="virtual"
        ).events()
        muons = events.Muon[events.Muon.pt > 26]
        for collection in ("Electron", "TrigObj", "LHEPart", "MET", "PV", "GenVtx", "Flag", "Pileup"):
            assert ak.fields(events[collection])
            assert len(ak.materialize(events[collection])) == len(events)
        mother = events.GenPart.parent.pdgId
        boson = ak.flatten(mother[(abs(events.GenPart.pdgId) == 13) & (events.GenPart.status == 23)])
    raw = read(path)
    assert ak.all(ak.num(muons) == ak.sum(raw.Muon_pt > 26, axis=1))
    assert set(boson.tolist()) == {24}
    assert ak.num(events.LHEPdfWeight)[0] == 61
    assert events.HLT.IsoMu24.tolist() == raw.HLT_IsoMu24.tolist()


def test_ntuple_and_tree_hold_the_same_values(tmp_path):
    tree = produce(bulk(tmp_path / "tree", "Ztautau", 300)[0]).path
    ntuple = produce(bulk(tmp_path / "ntuple", "Ztautau", 300, layout="rntuple")[0]).path
    first, second = read(tree), read(ntuple)
    assert set(first.fields) == set(second.fields)
    for name in first.fields:
        assert ak.array_equal(first[name], second[name], dtype_exact=False), name
    assert inspect(str(ntuple)).format == "rntuple"
    again = produce(bulk(tmp_path / "again", "Ztautau", 300, layout="rntuple")[0]).path
    assert digest(again) == digest(ntuple)


REFIT = ("Muon_cvhJacRef_Vals", "Muon_cvhmergedGlobalIdxs_Vals")


@pytest.mark.parametrize("layout", ["ttree", "rntuple"])
@pytest.mark.parametrize("process", [None, "Zmumu"])
def test_refitted_tracks_have_lists_with_counters_of_their_own(tmp_path, layout, process):
    truth = Truth.draw(1, ("cvh",), 0.0)
    task = FileTask(
        tmp_path / "x.root", truth, 0, process=process, events=300, luminosity=0.05, layout=layout
    )
    events = read(produce(task).path)
    prefix = "Muon_cvh" if process is None else "Muon_cvhideal"
    assert {f"{prefix}{name}" for name in ("Pt", "Eta", "Phi", "Charge")} <= set(events.fields)
    for name in REFIT:
        counts = events[name.replace("_Vals", "_Counts")]
        assert ak.all(ak.num(counts) == events.nMuon)
        assert ak.all(ak.sum(counts, axis=1) == ak.num(events[name]))
        assert ak.all(events[f"n{name}"] == ak.num(events[name]))
    assert ak.max(events[REFIT[1]]) < len(truth.cvh)
    if process is not None:  # simulation is fitted with what it was made with
        np.testing.assert_allclose(ak.flatten(events.Muon_cvhidealPt), ak.flatten(events.Muon_pt), rtol=1e-6)


def test_files_without_the_refit_have_none_of_its_branches(demo):
    for name in ("data", "Zmumu"):
        with uproot.open(demo.folder / "data" / f"{name}_0.root") as file:
            branches = set(file["Events"].keys())
        assert {name for name in branches if "cvh" in name} == {"Muon_cvhNValidPixelHits"}


def test_resampled_events_are_new_measurements_of_the_pool(tmp_path):
    summary = make_bulk(bulk(tmp_path, events=1000, file_events=600, pool=200), jobs=1)
    assert summary.entries == 1000
    events = ak.concatenate([read(path) for path in summary.files])
    assert len(np.unique(events.event)) == 1000
    masses = events.GenPart_mass[:, 0].to_numpy()
    assert len(np.unique(masses)) == len(np.unique(masses[:200]))
    first, second = events[:200], events[200:400]
    assert ak.all(first.LHEPdfWeight == second.LHEPdfWeight)
    assert not np.allclose(first.GenPart_phi[:, 0], second.GenPart_phi[:, 0])
    assert first.PV_z.tolist() != second.PV_z.tolist()
    again = make_bulk(bulk(tmp_path / "again", events=1000, file_events=600, pool=200), jobs=1)
    assert [digest(p) for p in again.files] == [digest(p) for p in summary.files]


def test_a_sample_of_no_events_is_a_file_with_all_branches(tmp_path):
    tasks = [bulk(tmp_path, process, 0)[0] for process in PROCESSES]
    for task in (*tasks, *bulk(tmp_path, events=0, pool=100)):
        result = produce(task)
        assert result.entries == 0
        with uproot.open(result.path) as file:
            assert file["Events"].num_entries == 0
            assert not set(NEEDED) - set(file["Events"].keys())
        assert inspect(str(result.path)).entries == 0


def test_clusters_are_baskets(tmp_path, monkeypatch):
    monkeypatch.setattr("binworks.samples.production.CLUSTER", 100)
    result = produce(bulk(tmp_path, "Nonprompt", 250)[0])
    assert inspect(str(result.path)).clusters == (0, 84, 167, 250)


def test_demo_writes_what_it_promises(demo):
    catalogue = json.loads(demo.catalogue.read_text())
    assert catalogue["schema"] == "binworks.catalogue/1"
    datasets = {d["name"]: Dataset.model_validate(d) for d in catalogue["datasets"]}
    assert set(datasets) == {"data", *PROCESSES}
    assert catalogue["luminosity"] == pytest.approx(3000 / (8871 + 6386))
    assert datasets["Wtaunu"].boson == "W"
    assert datasets["Nonprompt"].prompt is False
    assert all((demo.folder / path).is_file() for d in datasets.values() for path in d.files)
    assert "momentum_scale" in sets.load(demo.corrections)
    truth = Truth.model_validate_json((demo.folder / "truth.json").read_text())
    assert truth.hidden.mass_shift_mev == Truth.draw(1).mass_shift_mev
    assert str(truth.hidden.mass_shift_mev) not in demo.catalogue.read_text()
    entries = demo.entries
    assert entries["Wplusmunu"] + entries["Wminusmunu"] == pytest.approx(6000, abs=1)


def test_an_error_leaves_neither_a_file_nor_a_folder(tmp_path):
    def interrupted():
        with open_events(tmp_path / "x.root", np.random.SeedSequence(1)) as file:
            file.extend({"event": np.arange(3)})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_passing_error_that_names_the_file(tmp_path):
    with (
        pytest.raises(TransientError, match="No space left") as caught,
        open_events(tmp_path / "x.root", np.random.SeedSequence(1)),
    ):
        raise OSError(28, "No space left on device")
    assert caught.value.code == "write-failed"
    assert "x.root" in str(caught.value)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="file/inside") as caught:
        produce(bulk(tmp_path / "file" / "inside")[0])
    assert caught.value.code == "unwritable-folder"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ({"process": "Wplusmuno"}, "unknown-process", "Wplusmunu"),
        ({"events": -3}, "bad-events", "-3"),
        ({"file_events": 0}, "bad-events", "at least one"),
        ({"pool": -1}, "bad-events", "pool"),
        ({"negative": 0.6}, "bad-share", "0.6"),
    ],
)
def test_wrong_samples_are_refused_by_name(tmp_path, arguments, code, says):
    with pytest.raises(RequestError, match=says) as caught:
        bulk(tmp_path, **arguments)
    assert caught.value.code == code


def test_wrong_numbers_of_events_and_jobs_are_refused(tmp_path):
    with pytest.raises(RequestError, match="between 1"):
        plan_demo(tmp_path, 0, Truth.draw(1))
    with pytest.raises(RequestError, match="positive, got 0"):
        produce_all(bulk(tmp_path), jobs=0)


def test_an_error_of_one_task_ends_the_others(tmp_path):
    tasks = [*bulk(tmp_path), FileTask(tmp_path / "x.root", quiet_truth(), 9, process="Zmuu", events=1)]
    with pytest.raises(RequestError, match="Zmuu"):
        produce_all(tasks, jobs=2)


@pytest.mark.parametrize(("total", "largest"), [(0, 10), (1, 10), (10, 10), (11, 10), (100, 7)])
def test_files_are_equal_and_hold_all_events(total, largest):
    sizes = split(total, largest)
    assert sum(sizes) == total
    assert max(sizes) <= largest
    assert max(sizes) - min(sizes) <= 1


def test_command_line_makes_a_sample_and_prints_json(tmp_path):
    words = ["resample", "Zmumu", "--events", "300", "--pool", "100", "--out", str(tmp_path), "--json"]
    result = CliRunner().invoke(command, words, catch_exceptions=False)
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    assert facts["entries"] == 300
    assert len(read(Path(facts["files"][0]))) == 300
    assert (tmp_path / "truth.json").is_file()


@pytest.mark.parametrize(
    ("words", "effects"), [(["all"], EFFECTS), (["none"], ()), (["vertex", "cvh"], ("vertex", "cvh"))]
)
def test_command_line_takes_effects_by_name_or_all(tmp_path, words, effects):
    options = [option for word in words for option in ("--effect", word)]
    command_words = ["demo", "--events", "50", "--out", str(tmp_path), "--jobs", "1", "--json", *options]
    result = CliRunner().invoke(command, command_words, catch_exceptions=False)
    assert result.exit_code == 0
    truth = Truth.model_validate_json((tmp_path / "truth.json").read_text())
    assert set(truth.effects) == set(effects)


def test_command_line_shows_examples():
    for words in (["demo", "--help"], ["generate", "--help"], ["resample", "--help"]):
        result = CliRunner().invoke(command, words)
        assert result.exit_code == 0
        assert "Example" in result.stdout
