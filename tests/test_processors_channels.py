"""What the channels promise besides the physics: the same bits however events come, and errors that say why."""

from __future__ import annotations

import pickle
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import brute_force_cases
import numpy as np
import pytest
import small_corrections
import small_nano
from coffea.nanoevents import NanoAODSchema, NanoEventsFactory
from coffea.processor import IterativeExecutor, Runner

from binworks.corrections import sets
from binworks.processors import registry
from binworks.processors.dataset import Dataset
from binworks.processors.reading import inspect
from binworks.processors.run import Range, fill_ranges, run_files
from binworks.tensors.accumulator import Accumulator, check_oddities, ordered_sum
from binworks.tensors.errors import InputError, PhysicsError

N = 1500
COUNTS_OF_PHYSICS = {
    "w_mass": {
        "mass": 1, "mass_Z": 1, "width_W": 1, "width_Z": 1, "sin2theta": 1, "pdf": 60, "theory": 32,
        "angular": 353, "ew": 7, "efficiency_reco": 384, "efficiency_tracking": 288, "efficiency_idip": 384,
        "efficiency_trigger": 1152, "efficiency_iso": 576, "efficiency_systematics": 343, "veto_stat": 384,
        "veto_systematics": 147, "momentum_scale": 144, "z_closure": 72, "calibration_mz": 1,
        "resolution": 72, "pixel_hits": 49, "prefire": 14,
    },
    "z_wlike": {
        "mass_Z": 1, "width_Z": 1, "sin2theta": 1, "pdf": 60, "theory": 22, "angular": 177, "ew": 6,
        "efficiency_reco": 384, "efficiency_tracking": 288, "efficiency_idip": 384,
        "efficiency_trigger": 1152, "efficiency_iso": 576, "efficiency_systematics": 343,
        "momentum_scale": 144, "z_closure": 72, "calibration_mz": 1, "resolution": 72, "pixel_hits": 49,
        "prefire": 14,
    },
}  # fmt: skip
AFTER_THE_LOOP = {"w_mass": 4 + 387, "z_wlike": 3}
PUBLISHED = {"w_mass": 4858, "z_wlike": 3750}


@pytest.fixture(scope="module")
def corrections(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return brute_force_cases.correction_set(tmp_path_factory.mktemp("corrections"))


@pytest.fixture(scope="module")
def wmass(corrections: Any) -> Any:
    return registry.create("w_mass", {}, corrections)


@pytest.fixture(scope="module")
def signal(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Dataset]:
    events, path = brute_force_cases.nano_file(tmp_path_factory.mktemp("nano"), "W", N, 1)
    return events, Dataset(name="Wmunu", files=(str(path),), boson="W")


@pytest.fixture(scope="module")
def filled(wmass: Any, signal: tuple[dict[str, Any], Dataset]) -> Accumulator:
    return run_files(wmass, signal[1])


def assert_same_bits(ours: Accumulator, expected: Accumulator) -> None:
    assert ours.counts == expected.counts
    assert ours.histograms.keys() == expected.histograms.keys()
    for name, h in expected.histograms.items():
        np.testing.assert_array_equal(ours.histograms[name].values, h.values)


@pytest.mark.parametrize("channel", ["w_mass", "z_wlike"])
def test_the_nuisances_are_those_of_the_published_measurement(channel: str, corrections: Any) -> None:
    expansions = registry.create(channel, {}, corrections).expansions()
    assert {e.group: len(e.nuisances) for e in expansions} == COUNTS_OF_PHYSICS[channel]
    assert sum(len(e.nuisances) for e in expansions) == PUBLISHED[channel] - AFTER_THE_LOOP[channel]


@pytest.mark.parametrize("channel", ["w_mass", "z_wlike", "z_dilepton"])
def test_names_are_unique_and_every_nuisance_has_its_templates(channel: str, corrections: Any) -> None:
    expansions = registry.create(channel, {}, corrections).expansions()
    variations = [name for e in expansions for name in e.variations]
    nuisances = [n for e in expansions for n in e.nuisances]
    assert len(set(variations)) == len(variations)
    assert len({n.name for n in nuisances}) == len(nuisances)
    assert {name for n in nuisances for name in (n.up, n.down) if name} <= set(variations)


def test_groups_that_are_made_by_name_only_are_not_in_the_default(corrections: Any) -> None:
    asked = registry.create("w_mass", {"replicas": 7}, corrections, ["bootstrap", "pileup"])
    assert {e.group: (len(e.variations), len(e.nuisances)) for e in asked.expansions()} == {
        "pileup": (2, 1),
        "bootstrap": (7, 0),
    }


def test_the_sum_of_signs_is_over_all_events_also_those_not_selected(
    signal: Any, filled: Accumulator
) -> None:
    weights = signal[0]["genWeight"]
    assert filled.counts["sum_sign"] == np.sign(weights[np.isfinite(weights)]).sum()
    assert filled.counts["entries"] == N > filled.counts["selected"] > 100


def test_the_bits_do_not_depend_on_how_ranges_are_cut(wmass: Any, signal: Any, filled: Accumulator) -> None:
    facts = inspect(signal[1].files[0])
    cuts = [0, 1, 500, 501, 777, N]
    ranges = [Range(facts.path, facts.uuid, a, b) for a, b in pairwise(cuts)]
    assert_same_bits(fill_ranges(wmass, signal[1], ranges), filled)


def test_rntuple_holds_the_same_cells(wmass: Any, signal: Any, filled: Accumulator, tmp_path: Path) -> None:
    path = small_nano.write(tmp_path / "w.rntuple.root", signal[0])
    assert inspect(str(path)).format == "rntuple"
    assert_same_bits(run_files(wmass, signal[1].model_copy(update={"files": (str(path),)})), filled)


@pytest.fixture(scope="module")
def without_refit(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the processor for a set without the correction whose branches NanoEvents cannot hold."""
    documents = {name: found for name, found in small_corrections.documents().items() if name != "cvh"}
    return registry.create("w_mass", {}, sets.write(tmp_path_factory.mktemp("set"), "small", documents))


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_nanoevents_give_the_same_bits_as_columns(wmass: Any, without_refit: Any, signal: Any) -> None:
    events = NanoEventsFactory.from_root(
        {signal[1].files[0]: "Events"},
        schemaclass=NanoAODSchema,
        metadata={"dataset": "Wmunu", "kind": "mc", "boson": "W"},
        mode="virtual",
    ).events()
    assert_same_bits(without_refit.process(events)["Wmunu"], run_files(without_refit, signal[1]))
    with pytest.raises(InputError, match="cvhJacRef_Vals"):
        wmass.process(events)


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_it_runs_under_coffeas_own_runner(without_refit: Any, signal: Any) -> None:
    filled = run_files(without_refit, signal[1])
    run = Runner(IterativeExecutor(status=False), chunksize=1000, schema=NanoAODSchema)
    fileset = {"Wmunu": {"files": {signal[1].files[0]: "Events"}, "metadata": {"kind": "mc", "boson": "W"}}}
    out = run(fileset, processor_instance=without_refit)
    assert out["Wmunu"].counts == filled.counts
    np.testing.assert_allclose(
        out["Wmunu"].histograms["pdf"].values, filled.histograms["pdf"].values, rtol=1e-12, atol=1e-12
    )


def test_it_travels_small_and_comes_back_the_same(wmass: Any, signal: Any, filled: Accumulator) -> None:
    packed = pickle.dumps(wmass)
    assert len(packed) < 1000
    assert_same_bits(run_files(pickle.loads(packed), signal[1]), filled)


def test_partial_sums_add_up(wmass: Any, signal: Any, filled: Accumulator) -> None:
    facts = inspect(signal[1].files[0])
    halves = [
        fill_ranges(wmass, signal[1], [Range(facts.path, facts.uuid, a, b)]) for a, b in ((0, 700), (700, N))
    ]
    total = ordered_sum(halves)
    assert total.counts == filled.counts
    for name, h in filled.histograms.items():
        largest = np.abs(h.values).max()
        np.testing.assert_allclose(total.histograms[name].values, h.values, rtol=0, atol=1e-12 * largest)


def test_the_nominal_does_not_depend_on_what_is_varied_where_all_weights_are_finite(
    corrections: Any, tmp_path: Path
) -> None:
    path = small_nano.write(tmp_path / "w.root", small_nano.events(N, 1, pdf_members=7))
    dataset = Dataset(name="W", files=(str(path),), boson="W")
    some = ["mass", "pdf", "theory", "efficiency_iso", "prefire"]
    many = run_files(registry.create("w_mass", {"pdf_members": 7}, corrections, some), dataset)
    few = run_files(registry.create("w_mass", {}, corrections, ["mass"]), dataset)
    assert few.histograms.keys() == {"nominal", "mass"}
    for name in ("nominal", "mass"):
        np.testing.assert_array_equal(few.histograms[name].values, many.histograms[name].values)


@pytest.mark.parametrize("found", [0, 3])
def test_a_weight_block_that_lacks_weights_is_an_error_that_says_which_systematic_to_leave_out(
    corrections: Any, signal: Any, tmp_path: Path, found: int
) -> None:
    events = dict(signal[0])
    weights = events.pop("MEParamWeightAltSet1")
    if found:
        events["MEParamWeightAltSet1"] = weights[:, :found]
    dataset = signal[1].model_copy(update={"files": (str(small_nano.write(tmp_path / "w.root", events)),)})
    with pytest.raises(InputError, match="width_W") as caught:
        run_files(registry.create("w_mass", {}, corrections), dataset)
    assert caught.value.code == "wrong-block"
    assert f"MEParamWeightAltSet1 has {found} weights an event, expected 5" in str(caught.value)
    groups = [name for name in COUNTS_OF_PHYSICS["w_mass"] if name != "width_W"]
    run_files(registry.create("w_mass", {}, corrections, groups), dataset)


@pytest.mark.parametrize(
    ("collection", "field", "oddity"),
    [
        ("Muon", "pfRelIso04_all", "kinematics"),
        ("Muon", "pt", "kinematics"),
        ("GenPart", "pt", "generator"),
        (None, "genWeight", "weight"),
        (None, "Pileup_nTrueInt", "weight"),
        (None, "MET_pt", "kinematics"),
    ],
)
@pytest.mark.parametrize(("channel", "kind"), [("w_mass", "W"), ("z_wlike", "Z")])
def test_numbers_that_are_not_finite_are_counted_and_the_events_named(
    corrections: Any, tmp_path: Path, channel: str, kind: str, collection: str, field: str, oddity: str
) -> None:
    events, _ = brute_force_cases.nano_file(tmp_path, kind, 300, 5)  # type: ignore[arg-type]
    events = {name: value for name, value in events.items() if "cvh" not in name}
    if collection is None:
        events[field] = np.full_like(events[field], np.nan)
    else:
        table = {name: value for name, value in events[collection].items() if "cvh" not in name}
        events[collection] = table | {field: table[field] * np.float32(np.nan)}
    path = small_nano.write(tmp_path / "nan.root", events)
    dataset = Dataset(name="x", files=(str(path),), boson=kind)  # type: ignore[arg-type]
    filled = run_files(registry.create(channel, {}, corrections, ["efficiency_iso"]), dataset)
    assert filled.counts[f"odd/{oddity} not finite"] > 10
    assert filled.counts["selected"] == 0
    assert all(np.isfinite(h.values).all() for h in filled.histograms.values())
    assert len(filled.examples["odd"]) == 10
    with pytest.raises(PhysicsError, match=f"{oddity} not finite"):
        check_oddities(filled.counts, filled.examples)


def test_each_loop_is_compiled_once_for_data_and_simulation_with_and_without_corrections(
    corrections: Any, tmp_path: Path
) -> None:
    code = (
        "import sys; from binworks.corrections import sets; from binworks.processors import registry\n"
        "from binworks.processors.dataset import Dataset; from binworks.processors.run import run_files\n"
        "for path, kind, boson in zip(sys.argv[2:], ('mc', 'mc', 'data'), ('W', None, None)):\n"
        "    for loaded in (None, sets.load(sys.argv[1])):\n"
        "        processor = registry.create('w_mass', {}, loaded)\n"
        "        run_files(processor, Dataset(name='x', files=(path,), kind=kind, boson=boson))\n"
        "modules = [m for name, m in sys.modules.items() if name.startswith('binworks.processors')]\n"
        "kernels = {f for m in modules for f in vars(m).values() if hasattr(f, 'py_func')}\n"
        "loops = [f for f in kernels if f.py_func.__name__.startswith(('fill_', 'find_', 'weigh_', 'add_vectors'))]\n"
        "print(max(len(f.signatures) for f in loops), sum(len(f.signatures) for f in loops) > 15)"
    )
    files = [
        str(brute_force_cases.nano_file(tmp_path, kind, 100, 3)[1])  # type: ignore[arg-type]
        for kind in ("W", "top", "data")
    ]
    call = [sys.executable, "-c", code, str(corrections.folder), *files]
    assert subprocess.run(call, check=True, capture_output=True, text=True).stdout.split() == ["1", "True"]
