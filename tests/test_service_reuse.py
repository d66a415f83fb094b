"""What is there is not made again; what is made in another way, in steps or group by group, has the same bits."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint, version
from pathlib import Path
from typing import Any

import brute_force_cases
import numpy as np
import pytest
import service_toys
import small_corrections
import small_nano
from coffea_analysis import Analysis
from driver_bench import Bench, benches
from hypothesis import given, settings
from hypothesis import strategies as st
from worker_tasks import failed, received, recipe, unit

from binworks.corrections import sets
from binworks.processors import registry, run
from binworks.processors.dataset import Dataset
from binworks.processors.run import run_files
from binworks.service import layout, plan, rim, worker
from binworks.service.model import JobView
from binworks.service.plan import Piece
from binworks.service.retry import Kind
from binworks.service.store import Store
from binworks.service.tasks import FillUnit, Recipe
from binworks.tensors import code
from binworks.tensors.accumulator import Accumulator

N = 900
SOME = ("pdf", "mass", "momentum_scale", "z_closure", "prefire")


@pytest.fixture(scope="module", autouse=True)
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with service_toys.registered(tmp_path_factory.mktemp("toys")):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with corrections, and a small file in which no event is odd."""
    folder = tmp_path_factory.mktemp("inputs")
    sets.write(folder / "small", "small", small_corrections.documents())
    small_nano.write(folder / "W.root", small_nano.events(N, 1, pdf_members=7))
    return folder


def fill(
    store: Path, inputs: Path, systematics: tuple[str, ...], lent: str | None = None, file: str = "W.root"
) -> FillUnit:
    what = recipe("w_mass", inputs, systematics, pdf_members=7)
    task = unit(store, what, str(inputs / file))
    return replace(task, partial=plan.partial_name(what.facts(), task.pieces), lent=lent)


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Return the groups of each processor that fills, as it begins."""
    seen: list[tuple[str, ...]] = []
    original = run.fill_ranges

    def spy(processor: Any, *rest: Any, **named: Any) -> Accumulator:
        seen.append(processor.systematics)
        return original(processor, *rest, **named)

    monkeypatch.setattr(run, "fill_ranges", spy)
    return seen


@pytest.mark.parametrize(
    ("channel", "kind"),
    [("w_mass", "W"), ("w_mass", "Z"), ("w_mass", "data"), ("z_wlike", "Z"), ("z_dilepton", "Z")],
)
def test_what_a_group_adds_depends_on_no_other_group(
    folder: Path, tmp_path: Path, channel: str, kind: brute_force_cases.Kind
) -> None:
    corrections = sets.load(folder / "small")
    _, path = brute_force_cases.nano_file(tmp_path, kind, 600, 1)
    about: dict[str, Any] = {"kind": "data"} if kind == "data" else {"boson": kind}
    dataset = Dataset(name="D", files=(str(path),), **about)

    def make(groups: tuple[str, ...] | None) -> Any:
        return registry.create(channel, {"replicas": 5}, corrections, groups)

    every = tuple(make(None).systematics_known)
    whole = run_files(make(every), dataset)
    assert kind == "data" or whole.counts["selected"] > 40
    for groups in [(), *(() if kind == "data" else ((name,) for name in every))]:
        alone = run_files(make(groups), dataset)
        assert alone.counts == whole.counts
        for name, found in alone.histograms.items():
            assert found.uhi() == whole.histograms[name].uhi()
            assert found.values.tobytes() == whole.histograms[name].values.tobytes(), (groups, name)
        assert _variances(alone) == _variances(whole)


def _variances(sums: Accumulator) -> bytes:
    variances = sums.histograms["nominal"].variances
    assert variances is not None
    return variances.tobytes()


@pytest.mark.parametrize("added", SOME)
def test_adding_a_group_fills_that_group_alone(
    folder: Path, tmp_path: Path, filled: list[tuple[str, ...]], added: str
) -> None:
    others = tuple(name for name in SOME if name != added)
    whole = received(worker.run(fill(tmp_path / "whole", folder, SOME)))
    lent = fill(tmp_path / "store", folder, others)
    received(worker.run(lent))
    filled.clear()
    completed = received(worker.run(fill(tmp_path / "store", folder, SOME, lent.partial)))
    assert (completed.digest, completed.counts) == (whole.digest, whole.counts)
    assert not completed.reused
    shared = {"momentum_scale", "z_closure"}  # of one block
    assert filled == ([] if added in shared else [(added,)])


def test_a_job_with_fewer_groups_fills_nothing(
    folder: Path, tmp_path: Path, filled: list[tuple[str, ...]]
) -> None:
    whole = received(worker.run(fill(tmp_path / "whole", folder, ("mass",))))
    lent = fill(tmp_path / "store", folder, SOME)
    received(worker.run(lent))
    filled.clear()
    assert (
        received(worker.run(fill(tmp_path / "store", folder, ("mass",), lent.partial))).digest == whole.digest
    )
    assert filled == []


def test_an_odd_event_in_either_part_has_everything_filled(
    folder: Path, tmp_path: Path, filled: list[tuple[str, ...]]
) -> None:
    odd = small_nano.events(N, 1, pdf_members=7)
    pdf = np.asarray(odd["LHEPdfWeight"]).copy()
    pdf[:, 3] = np.where(
        np.arange(N) % 50 == 7, np.nan, pdf[:, 3]
    )  # in a column that only the group looks at
    odd["LHEPdfWeight"] = small_nano.ak.from_regular(pdf)
    small_nano.write(folder / "odd.root", odd)
    with_pdf, without = ("pdf", "mass"), ("mass",)
    expected = {
        groups: received(worker.run(fill(tmp_path / "whole", folder, groups, file="odd.root")))
        for groups in (with_pdf, without)
    }
    assert (
        expected[with_pdf].counts["odd/weight not finite"]
        > 0
        == expected[without].counts["odd/weight not finite"]
    )
    for asked, other in ((with_pdf, without), (without, with_pdf)):
        store = tmp_path / "-".join(asked)
        lent = fill(store, folder, other, file="odd.root")
        received(worker.run(lent))
        filled.clear()
        found = received(worker.run(fill(store, folder, asked, lent.partial, file="odd.root")))
        assert (found.digest, found.counts) == (expected[asked].digest, expected[asked].counts)
        assert set(filled[-1]) == set(asked)


@pytest.mark.parametrize("damage", ["lost", "bytes", "other options"])
def test_a_partial_that_cannot_be_lent_has_everything_filled(
    folder: Path, tmp_path: Path, filled: list[tuple[str, ...]], damage: str
) -> None:
    whole = received(worker.run(fill(tmp_path / "whole", folder, ("mass", "prefire"))))
    lent = fill(tmp_path / "store", folder, ("mass",))
    if damage == "other options":
        options = lent.recipe.options.replace('"2016"', '"2017-on"')
        assert options != lent.recipe.options
        lent = replace(lent, recipe=replace(lent.recipe, options=options))
    if damage != "lost":
        received(worker.run(lent))
    if damage == "bytes":
        spoil(Store.open(str(tmp_path / "store")), lent.partial)
    filled.clear()
    found = received(worker.run(fill(tmp_path / "store", folder, ("mass", "prefire"), lent.partial)))
    assert found.digest == whole.digest
    assert filled == [("mass", "prefire")]


def spoil(store: Store, partial: str) -> None:
    """Change a byte of stored sums, and no size."""
    (victim,) = (store.key_path(layout.partial(partial)) / "nominal" / "values").rglob("c.0*")
    stored = bytearray(victim.read_bytes())
    stored[-1] ^= 1
    victim.write_bytes(stored)


# steps


pieces_of = st.lists(st.integers(1, 40), min_size=1, max_size=5)


@given(pieces_of, st.integers(0, 6), st.integers(1, 30))
def test_steps_end_in_order_cover_all_events_and_halving_keeps_the_ends(
    sizes: list[int], splits: int, grain: int
) -> None:
    pieces = [Piece("f", "u", 1, 100 * i, 100 * i + n) for i, n in enumerate(sizes)]
    ends = plan.step_ends(pieces, 2**splits, grain)
    assert len(ends) == 2**splits
    assert list(ends) == sorted(ends)
    assert ends[0] > 0
    assert ends[-1] == sum(sizes)
    assert set(ends) <= set(plan.step_ends(pieces, 2 ** (splits + 1), grain))
    starts = (0, *ends[:-1])
    parts = [plan.between(pieces, start, end) for start, end in zip(starts, ends, strict=True)]
    entries = [entry for part in parts for piece in part for entry in range(piece.start, piece.stop)]
    assert entries == [entry for piece in pieces for entry in range(piece.start, piece.stop)]
    for part in parts:
        for piece in part:
            whole = pieces[piece.start // 100]
            assert (piece.start - whole.start) % grain == 0
            assert piece.stop == whole.stop or (piece.stop - whole.start) % grain == 0


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, tuple[str, ...], str]:
    """Return a toy, its files and the digest of its whole fill."""
    folder = tmp_path_factory.mktemp("toy")
    files = service_toys.write_all(folder / "d", 3, 1100)
    what = recipe()
    return what, files, received(worker.run(unit(folder, what, *files))).digest


@settings(max_examples=8)
@given(
    st.integers(1, 3),
    st.lists(st.sampled_from(["on", "again", "lost", "smaller", "from the start"]), max_size=8),
)
def test_a_unit_in_steps_has_the_bits_of_one_that_is_filled_at_once(
    toy: tuple[Recipe, tuple[str, ...], str],
    tmp_path_factory: pytest.TempPathFactory,
    splits: int,
    happens: list[str],
) -> None:
    what, files, digest = toy
    folder = tmp_path_factory.mktemp("steps")
    task = unit(folder, what, *files)
    store = Store.open(str(folder))
    step = 0
    for what_happens in [*happens, *["on"] * 8]:
        receipt = received(worker.run(replace(task, splits=splits, step=step)))
        if step == 2**splits - 1:
            break
        assert receipt.counts["entries"] == plan.step_ends(task.pieces, 2**splits)[step]
        if what_happens == "lost":  # what was stored so far
            for name in store.children("partials"):
                store.remove(layout.partial(name))
        if what_happens in ("smaller", "from the start"):
            splits, step = splits + (what_happens == "smaller" and splits < 4), 0
        elif what_happens != "again":
            step += 1
    last = received(worker.run(replace(task, splits=splits, step=2**splits - 1)))
    assert last.digest == digest
    assert store.children("partials") == [task.partial]


def test_the_w_in_steps_has_the_bits_of_the_w_at_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "CHUNK", 400)
    whole = received(worker.run(fill(tmp_path / "whole", folder, SOME)))
    task = replace(fill(tmp_path / "steps", folder, SOME), splits=2)
    receipts = [received(worker.run(replace(task, step=step))) for step in range(4)]
    assert [receipt.counts["entries"] for receipt in receipts] == [225, 450, 675, 900]
    assert (receipts[-1].digest, receipts[-1].counts) == (whole.digest, whole.counts)


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_coffea_processor_in_steps_adds_the_chunks_that_it_would_add_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "CHUNK", 130)
    place = f"{Analysis.__module__}:{Analysis.__qualname__}"
    entry = EntryPoint("mine", place, registry.GROUP)
    monkeypatch.setattr(registry, "_entries", lambda: {"mine": entry})
    files = [str(small_nano.write(tmp_path / f"{i}.root", small_nano.events(300, i))) for i in range(2)]
    task = unit(tmp_path / "whole", recipe("mine"), *files)
    whole = received(worker.run(task))
    Store.open(str(tmp_path / "steps"))
    steps = replace(task, store=str(tmp_path / "steps"), splits=2)
    receipts = [received(worker.run(replace(steps, step=step))) for step in range(4)]
    assert [receipt.counts["entries"] for receipt in receipts] == [260, 300, 560, 600]
    assert (receipts[-1].digest, receipts[-1].counts) == (whole.digest, whole.counts)


def test_a_unit_that_takes_too_much_memory_at_once_can_be_filled_in_steps(
    toy: tuple[Recipe, tuple[str, ...], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "CHUNK", 4000)
    original = service_toys.Toy.fill

    def greedy(self: Any, columns: Any, dataset: Dataset, sums: Accumulator) -> None:
        if columns.size > 1000:
            np.empty(columns.size << 40)
        original(self, columns, dataset, sums)

    monkeypatch.setattr(service_toys.Toy, "fill", greedy)
    what, files, digest = toy
    task = unit(tmp_path, what, *files)
    failure = failed(worker.run(task))
    assert (failure.kind, failure.code) == (Kind.RESOURCE, "out-of-memory")
    receipts = [received(worker.run(replace(task, splits=2, step=step))) for step in range(4)]
    assert receipts[-1].digest == digest


# names


def test_what_decides_the_bits_changes_the_name_and_nothing_else_does(folder: Path, tmp_path: Path) -> None:
    what = recipe("w_mass", folder, ("mass",))
    (piece,) = unit(tmp_path, what, str(folder / "W.root")).pieces
    documents = small_corrections.documents()
    documents["pileup"][1]["description"] = "another word"
    sets.write(tmp_path / "small", "small", documents)
    changed = recipe("w_mass", tmp_path, ("mass",))
    assert changed.corrections_digest != what.corrections_digest
    others = [
        changed,
        recipe("w_mass", None, ("mass",)),
        recipe("w_mass", folder, ("mass", "pdf")),
        recipe("w_mass", folder, ("mass",), flavour="2017-on"),
        recipe("z_wlike", folder, ("mass_Z",)),
        replace(what, code="f" * 64),
    ]
    names = [plan.partial_name(recipe.facts(), [piece]) for recipe in (what, *others)]
    pieces = [replace(piece, uuid="other"), replace(piece, size=piece.size + 1), replace(piece, stop=5)]
    names += [plan.partial_name(what.facts(), [changed]) for changed in pieces]
    assert len(set(names)) == len(names)
    elsewhere = replace(what, corrections="/elsewhere")
    moved = replace(piece, path="root://elsewhere//W.root")
    assert plan.partial_name(elsewhere.facts(), [moved]) == names[0]
    bases = [plan.base_name(recipe.facts(), [piece]) for recipe in (what, *others)]
    assert bases[3] == bases[0]
    assert len(set(bases)) == len(bases) - 1
    assert not set(bases) & set(names)


def test_the_code_is_more_than_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry.code_digest("w_mass") != registry.code_digest("z_wlike")
    before = code.source_digest.__wrapped__()
    assert code.source_digest.__wrapped__() == before
    for library in code.LIBRARIES:
        with monkeypatch.context() as newer:
            newer.setattr(
                code, "version", lambda name, newer=library: "9" if name == newer else version(name)
            )
            assert code.source_digest.__wrapped__() != before


# whole jobs


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    monkeypatch.setattr(rim, "TICK_SECONDS", 0.01)
    with benches(tmp_path) as made:
        yield made


def drive(bench: Bench, job: JobView) -> tuple[list[bool], dict[str, str]]:
    """Run a job; return whether each unit was found, and the digests of the result."""
    (view,) = bench.drive(job.id, seconds=120)
    assert view.complete, view
    return [unit.reused for unit in bench.running.units(job.id)], bench.running.digests(job.id)


def test_a_job_finds_again_all_that_it_would_fill_alike_wherever_the_files_are(
    make: Callable[..., Bench], tmp_path: Path, filled: list[tuple[str, ...]]
) -> None:
    bench = make()
    files = service_toys.write_all(tmp_path / "data", 2, 1500)
    reused, digests = drive(bench, bench.running.submit({"D": files}))
    assert not any(reused)
    filled.clear()
    shutil.copytree(tmp_path / "data", tmp_path / "moved")
    moved = [str(tmp_path / "moved" / Path(file).name) for file in files]
    about = {"name": "D", "cross_section": 5.0, "files": moved}
    again = bench.running.submit({}, datasets=[about], label="again", priority=3, on_error={"skip": 0.1})
    reused, found = drive(bench, again)
    assert (all(reused), found, filled) == (True, digests, [])

    more = service_toys.write_all(tmp_path / "data", 3, 1500)[2:]
    reused, found = drive(bench, bench.running.submit({"D": (*moved, *more)}))
    assert reused[:3] == [True] * 3
    assert not any(reused[3:])
    assert found != digests
    # by now the first two are written anew: other files of the same names
    reused, _ = drive(bench, bench.running.submit({"D": files}))
    assert not any(reused)
    reused, found = drive(bench, bench.running.submit({"D": moved}, options={"tag": "other"}))
    assert (any(reused), found) == (False, digests)


def test_a_job_with_one_more_group_fills_that_group_alone(
    make: Callable[..., Bench], folder: Path, tmp_path: Path, filled: list[tuple[str, ...]]
) -> None:
    bench = make()
    (tmp_path / "data").mkdir()
    file = str(shutil.copy(folder / "W.root", tmp_path / "data"))

    def submit(*systematics: str) -> JobView:
        dataset = {"name": "D", "files": [file], "boson": "W"}
        asked = {"processor": "w_mass", "options": {"pdf_members": 7}, "systematics": list(systematics)}
        return bench.running.submit({}, datasets=[dataset], **asked)

    drive(bench, submit("mass", "width_W"))
    filled.clear()
    more = submit("mass", "pdf", "width_W")
    _, digests = drive(bench, more)
    assert filled == [("pdf",)]
    filled.clear()
    _, fewer = drive(bench, submit("mass"))
    assert filled == []
    _, resolved = bench.ledger.load(more.id)
    dataset = Dataset(name="D", files=(file,), boson="W")
    assert digests == {"D": service_toys.serial(tmp_path / "serial", dataset, resolved)}
    assert fewer != digests


def test_bytes_that_rotted_are_found_out_when_they_are_added_up_and_made_again(
    make: Callable[..., Bench], tmp_path: Path
) -> None:
    bench = make()
    files = service_toys.write_all(tmp_path / "data", 3, 1500)
    first = bench.running.submit({"D": files[:2]})
    drive(bench, first)
    rotten = bench.ledger.units(first.id)[1].partial
    spoil(bench.running.store, rotten)
    more = bench.running.submit({"D": files})
    reused, digests = drive(bench, more)
    assert reused[:3] == [True, False, True]
    _, resolved = bench.ledger.load(more.id)
    dataset = Dataset(name="D", files=files)
    assert digests == {"D": service_toys.serial(tmp_path / "serial", dataset, resolved)}
