"""The W kernel against the plain reference, cell by cell and variation by variation."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_corrections
import small_nano
from coffea.nanoevents import NanoAODSchema, NanoEventsFactory
from coffea.processor import IterativeExecutor, Runner
from reference_w_mass import Reference, histogram

from binworks.processors import registry
from binworks.processors.dataset import Dataset
from binworks.processors.reading import inspect
from binworks.processors.run import Range, fill_ranges, run_files
from binworks.tensors.accumulator import Accumulator, ordered_sum
from binworks.tensors.expansion import Expansion

N, MEMBERS = 3000, 7
CELL_AXES = ("eta", "pt", "charge", "mt", "relIso")


@pytest.fixture(scope="module")
def corrections(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return small_corrections.write(tmp_path_factory.mktemp("corrections"))


@pytest.fixture(scope="module")
def wmass(corrections: Any) -> Any:
    return registry.create("w_mass", {"pdf_members": MEMBERS}, corrections)


@pytest.fixture(scope="module")
def signal(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Dataset]:
    events = small_nano.events(N, 1, pdf_members=MEMBERS)
    path = small_nano.write(tmp_path_factory.mktemp("nano") / "w.root", events)
    return events, Dataset(name="Wmunu", files=(str(path),), boson="W")


@pytest.fixture(scope="module")
def filled(wmass: Any, signal: tuple[dict[str, Any], Dataset]) -> Accumulator:
    return run_files(wmass, signal[1])


class Truth:
    """The reference's selected events, each with its muon and the factors of its weight, worked out once."""

    def __init__(self, corrections: Any, events: dict[str, Any], boson: str | None) -> None:
        self.reference = Reference(corrections, is_data=False, boson=boson)
        self.events = events
        self.selected = [
            (i, muon, self.reference.factors(events, i, muon)) for i, muon in self.reference.selected(events)
        ]

    def fill(self, ratio: Callable[[int, dict[str, float], dict[str, Any]], float]) -> Any:
        """Fill the cells with the nominal weight times a ratio that is worked out event by event."""
        h = histogram()
        for i, muon, found in self.selected:
            weight = found["sign"] * found["idip"] * found["pileup"]["nominal"]
            if self.reference.boson is not None:
                weight *= found["theory"]["nominal"] * found["pdf"][0]
            h.fill(*[muon[axis] for axis in CELL_AXES], weight=weight * ratio(i, muon, found))
        return h


@pytest.fixture(scope="module")
def truth(corrections: Any, signal: tuple[dict[str, Any], Dataset]) -> Truth:
    return Truth(corrections, signal[0], "W")


def assert_same(ours: Any, reference: Any) -> None:
    np.testing.assert_allclose(ours, reference, rtol=1e-12, atol=1e-12)


def expansion(wmass: Any, group: str) -> Expansion:
    return next(e for e in wmass.expansions() if e.group == group)


def expand(wmass: Any, filled: Accumulator, group: str, names: list[str]) -> Any:
    return expansion(wmass, group).expand(filled.histograms["nominal"], filled.histograms[group], names)


def test_the_nominal_cells_are_those_of_the_plain_reference(truth: Truth, filled: Accumulator) -> None:
    h = truth.fill(lambda *_: 1.0)
    nominal = filled.histograms["nominal"]
    assert (nominal.values != 0).sum() > 300
    assert_same(nominal.values, h.values())
    assert_same(nominal.variances, h.variances())


def test_data_cells_are_counts_with_the_data_scale(corrections: Any, wmass: Any, tmp_path: Path) -> None:
    events = small_nano.events(N, 2, kind="data")
    dataset = Dataset(name="data", files=(str(small_nano.write(tmp_path / "d.root", events)),), kind="data")
    filled = run_files(wmass, dataset)
    h = histogram()
    for _, muon in Reference(corrections, is_data=True, boson=None).selected(events):
        h.fill(*[muon[axis] for axis in CELL_AXES])
    assert filled.histograms.keys() == {"nominal"}
    assert filled.counts["selected"] == h.sum().value > 300
    np.testing.assert_array_equal(filled.histograms["nominal"].values, h.values())


def test_simulation_without_a_boson_has_no_theory(corrections: Any, wmass: Any, tmp_path: Path) -> None:
    events = small_nano.events(N, 3, boson=None)
    dataset = Dataset(name="top", files=(str(small_nano.write(tmp_path / "t.root", events)),))
    filled = run_files(wmass, dataset)
    h = Truth(corrections, events, None).fill(lambda *_: 1.0)
    assert filled.histograms.keys() == {"nominal", "momentum_scale", "efficiency_idip", "pileup"}
    assert_same(filled.histograms["nominal"].values, h.values())


def test_the_sum_of_signs_is_over_all_events_also_those_not_selected(
    signal: Any, filled: Accumulator
) -> None:
    assert filled.counts["sum_sign"] == np.sign(signal[0]["genWeight"]).sum()
    assert filled.counts["entries"] == N > filled.counts["selected"]


def test_mass_templates_are_the_files_weights(wmass: Any, truth: Truth, filled: Accumulator) -> None:
    for name, column in (("massShiftW100MeVDown", 0), ("massShiftW0MeV", 10), ("massShiftW30MeVUp", 13)):
        h = truth.fill(lambda i, *_, column=column: float(truth.events["MEParamWeight"][i, column]))
        assert_same(expand(wmass, filled, "mass", [name])[0], h.values())


def test_without_mass_weights_they_are_ratios_of_breit_wigners(
    wmass: Any, signal: Any, truth: Truth, tmp_path: Path
) -> None:
    events = {name: value for name, value in signal[0].items() if name != "MEParamWeight"}
    dataset = signal[1].model_copy(update={"files": (str(small_nano.write(tmp_path / "w.root", events)),)})
    filled = run_files(wmass, dataset)

    def running(s: float, mass: float) -> float:
        return 1 / ((s - mass**2) ** 2 + s**2 * 2.085**2 / mass**2)

    def ratio(i: int, *_: Any) -> float:
        s = truth.reference.boson_kinematics(events, i)[0] ** 2
        return running(s, 80.379 + 0.05) / running(s, 80.379)

    assert_same(expand(wmass, filled, "mass", ["massShiftW50MeVUp"])[0], truth.fill(ratio).values())


def test_pdf_templates_are_member_over_central_clipped(wmass: Any, truth: Truth, filled: Accumulator) -> None:
    for name, member in (("pdf1Up", 1), ("pdf2Up", 3), ("pdfAlphaSDown", 6)):
        h = truth.fill(lambda i, muon, f, member=member: np.clip(f["pdf"][member] / f["pdf"][0], -10, 10))
        assert_same(expand(wmass, filled, "pdf", [name])[0], h.values())


@pytest.mark.parametrize(
    ("group", "name", "key"),
    [
        ("pileup", "pileupUp", "up"),
        ("theory", "matching", "matching"),
        ("theory", "resumTNP1Down", "resumTNP1Down"),
    ],
)
def test_pileup_and_theory_templates_replace_their_factor(
    wmass: Any, truth: Truth, filled: Accumulator, group: str, name: str, key: str
) -> None:
    h = truth.fill(lambda i, muon, f: f[group][key] / f[group]["nominal"])
    assert_same(expand(wmass, filled, group, [name])[0], h.values())


def eigen_shift(covariance: Any, row: int) -> Any:
    """Return one eigenvector times the root of its eigenvalue, largest first, its largest component positive."""
    values, vectors = np.linalg.eigh(np.array(covariance))
    shift = vectors[:, ::-1][:, row] * np.sqrt(max(values[::-1][row], 0))
    return shift * np.sign(shift[np.abs(shift).argmax()])


@pytest.mark.parametrize("row", [0, 7, 143])
def test_momentum_scale_templates_are_brute_force_weights(
    wmass: Any, truth: Truth, filled: Accumulator, row: int
) -> None:
    shift = eigen_shift(truth.reference.scale_covariance, row)

    def ratio(_: int, muon: dict[str, float], found: dict[str, Any]) -> float:
        b, k = found["block"][0], 1 / muon["pt"]
        change = shift[b] - shift[48 + b] * k + muon["charge"] * shift[96 + b] / k
        return float(1 + found["score"] * change)

    assert_same(
        expand(wmass, filled, "momentum_scale", [f"muonScaleStat{row}"])[0], truth.fill(ratio).values()
    )


@pytest.mark.parametrize(("eta", "charge", "j"), [(0, 0, 0), (20, 1, 2), (47, 1, 3)])
def test_efficiency_templates_are_brute_force_weights(
    wmass: Any, truth: Truth, filled: Accumulator, eta: int, charge: int, j: int
) -> None:
    shift = eigen_shift(truth.reference.idip["covariance"][eta][charge], j)
    h = truth.fill(lambda i, muon, f: 1 + (shift @ f["idip terms"] if f["block"] == (eta, charge) else 0.0))
    name = f"effStat_idip_eta{eta}_{'plus' if charge else 'minus'}_{j}"
    assert_same(expand(wmass, filled, "efficiency_idip", [name])[0], h.values())


def test_every_template_has_a_nuisance_and_names_are_unique(wmass: Any) -> None:
    variations = [name for e in wmass.expansions() for name in e.variations]
    nuisances = {e.group: len(e.nuisances) for e in wmass.expansions()}
    assert len(set(variations)) == len(variations)
    assert nuisances == {
        "mass": 1,
        "pdf": 3,
        "momentum_scale": 144,
        "efficiency_idip": 384,
        "pileup": 1,
        "theory": 2,
    }


def test_the_bits_do_not_depend_on_how_ranges_are_cut(wmass: Any, signal: Any, filled: Accumulator) -> None:
    facts = inspect(signal[1].files[0])
    cuts = [0, 1, 500, 501, 1777, N]
    ranges = [Range(facts.path, facts.uuid, a, b) for a, b in pairwise(cuts)]
    again = fill_ranges(wmass, signal[1], ranges)
    assert again.counts == filled.counts
    for name, h in filled.histograms.items():
        np.testing.assert_array_equal(again.histograms[name].values, h.values)


def test_rntuple_holds_the_same_cells(wmass: Any, signal: Any, filled: Accumulator, tmp_path: Path) -> None:
    path = small_nano.write(tmp_path / "w.rntuple.root", signal[0])
    assert inspect(str(path)).format == "rntuple"
    again = run_files(wmass, signal[1].model_copy(update={"files": (str(path),)}))
    for name, h in filled.histograms.items():
        np.testing.assert_array_equal(again.histograms[name].values, h.values)


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_nanoevents_give_the_same_bits_as_columns(wmass: Any, signal: Any, filled: Accumulator) -> None:
    events = NanoEventsFactory.from_root(
        {signal[1].files[0]: "Events"},
        schemaclass=NanoAODSchema,
        metadata={"dataset": "Wmunu", "kind": "mc", "boson": "W"},
        mode="virtual",
    ).events()
    out = wmass.process(events)["Wmunu"]
    assert out.counts == filled.counts
    for name, h in filled.histograms.items():
        np.testing.assert_array_equal(out.histograms[name].values, h.values)


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_it_runs_under_coffeas_own_runner(wmass: Any, signal: Any, filled: Accumulator) -> None:
    run = Runner(IterativeExecutor(status=False), chunksize=1000, schema=NanoAODSchema)
    fileset = {"Wmunu": {"files": {signal[1].files[0]: "Events"}, "metadata": {"kind": "mc", "boson": "W"}}}
    out = run(fileset, processor_instance=wmass)
    assert out["Wmunu"].counts == filled.counts
    assert_same(out["Wmunu"].histograms["pdf"].values, filled.histograms["pdf"].values)


def test_it_travels_small_and_comes_back_the_same(wmass: Any, signal: Any, filled: Accumulator) -> None:
    packed = pickle.dumps(wmass)
    assert len(packed) < 1000
    again = run_files(pickle.loads(packed), signal[1])
    np.testing.assert_array_equal(again.histograms["pdf"].values, filled.histograms["pdf"].values)


def test_partial_sums_add_up(wmass: Any, signal: Any, filled: Accumulator) -> None:
    facts = inspect(signal[1].files[0])
    halves = [
        fill_ranges(wmass, signal[1], [Range(facts.path, facts.uuid, a, b)])
        for a, b in ((0, 1500), (1500, N))
    ]
    total = ordered_sum(halves)
    assert total.counts == filled.counts
    for name, h in filled.histograms.items():
        assert_same(total.histograms[name].values, h.values)


def test_the_nominal_does_not_depend_on_what_is_varied(
    corrections: Any, signal: tuple[dict[str, Any], Dataset], filled: Accumulator
) -> None:
    few = run_files(registry.create("w_mass", {}, corrections, ["mass"]), signal[1])
    assert few.histograms.keys() == {"nominal", "mass"}
    for name in ("nominal", "mass"):
        np.testing.assert_array_equal(few.histograms[name].values, filled.histograms[name].values)


def test_one_compilation_serves_data_and_simulation_with_and_without_corrections(
    corrections: Any, tmp_path: Path
) -> None:
    code = (
        "import sys; from binworks.corrections import sets; from binworks.processors import registry, w_mass\n"
        "from binworks.processors.dataset import Dataset; from binworks.processors.run import run_files\n"
        "for path, kind, boson in zip(sys.argv[2:], ('mc', 'mc', 'data'), ('W', None, None)):\n"
        "    for loaded in (None, sets.load(sys.argv[1])):\n"
        "        for systematics in (None, ['mass']):\n"
        "            processor = registry.create('w_mass', {'pdf_members': 7}, loaded, systematics)\n"
        "            run_files(processor, Dataset(name='x', files=(path,), kind=kind, boson=boson))\n"
        "print(len(w_mass.fill_events.signatures))"
    )
    files = [
        str(small_nano.write(tmp_path / f"{i}.root", small_nano.events(100, i, kind=kind, boson=boson)))
        for i, (kind, boson) in enumerate((("mc", "W"), ("mc", None), ("data", None)))
    ]
    call = [sys.executable, "-c", code, str(corrections.folder), *files]
    assert subprocess.run(call, check=True, capture_output=True, text=True).stdout.strip() == "1"
