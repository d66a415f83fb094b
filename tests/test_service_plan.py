"""The plan depends on the files alone, loses nothing, and its sums depend on the set of units alone."""

from __future__ import annotations

from itertools import pairwise

import hist
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from binworks.service import plan
from binworks.service.plan import FileFacts
from binworks.service.tree import FAN_IN, Sum, Tree, names_in
from binworks.tensors.accumulator import Accumulator, ordered_sum
from binworks.tensors.histogram import Histogram


@st.composite
def file_lists(draw: st.DrawFn) -> dict[str, list[FileFacts]]:
    datasets = draw(st.lists(st.sampled_from(["W", "Z", "data"]), unique=True, min_size=1))
    found = {}
    for name in datasets:
        sizes = draw(st.lists(st.lists(st.integers(0, 50), max_size=6), max_size=6))
        found[name] = [_file(f"{name}{i}", clusters) for i, clusters in enumerate(sizes)]
    return found


def _file(path: str, clusters: list[int]) -> FileFacts:
    edges = tuple(int(edge) for edge in np.cumsum([0, *clusters]))
    return FileFacts(path, f"uuid-{path}", 1000, edges[-1], edges)


@given(file_lists(), st.integers(1, 120))
def test_every_event_is_in_exactly_one_unit(files: dict[str, list[FileFacts]], unit_events: int) -> None:
    units = plan.cut(files, unit_events)
    covered = {
        (unit.dataset, piece.path, entry)
        for unit in units
        for piece in unit.pieces
        for entry in range(piece.start, piece.stop)
    }
    assert sum(unit.events for unit in units) == len(covered)
    assert covered == {
        (name, f.path, entry) for name, found in files.items() for f in found for entry in range(f.entries)
    }


@given(file_lists(), st.integers(1, 120))
def test_units_are_numbered_in_order_cut_at_clusters_and_not_too_large(
    files: dict[str, list[FileFacts]], unit_events: int
) -> None:
    units = plan.cut(files, unit_events)
    clusters = {(name, f.path): f.clusters for name, found in files.items() for f in found}
    assert [unit.number for unit in units] == list(range(len(units)))
    assert all(0 < unit.turn < 1 and unit.events > 0 for unit in units)
    for unit in units:
        widest = max(b - a for p in unit.pieces for a, b in pairwise(clusters[unit.dataset, p.path]))
        assert unit.events <= unit_events + widest
        for piece in unit.pieces:
            assert {piece.start, piece.stop} <= set(clusters[unit.dataset, piece.path])


@given(file_lists(), st.integers(1, 120), st.lists(st.integers(1, 50), min_size=1, max_size=4))
def test_a_file_added_at_the_end_leaves_all_units_but_the_last_as_they_were(
    files: dict[str, list[FileFacts]], unit_events: int, clusters: list[int]
) -> None:
    name = next(iter(files))
    before = plan.cut({name: files[name]}, unit_events)
    after = plan.cut({name: [*files[name], _file("new", clusters)]}, unit_events)
    settled = [unit.pieces for unit in before[:-1]]
    assert [unit.pieces for unit in after[: len(settled)]] == settled


def test_partials_are_named_by_what_decides_their_bits_not_by_where_files_lie() -> None:
    here, there = (plan.Piece(path, "uuid", 10, 0, 5) for path in ("/here/f.root", "root://there//f.root"))
    name = plan.partial_name({"code": "a"}, [here])
    assert name == plan.partial_name({"code": "a"}, [there])
    changed = [
        plan.Piece("/here/f.root", *rest)
        for rest in (("other", 10, 0, 5), ("uuid", 11, 0, 5), ("uuid", 10, 0, 4))
    ]
    names = {plan.partial_name({"code": "a"}, [piece]) for piece in changed} | {
        plan.partial_name({"code": "b"}, [here])
    }
    assert len(names | {name}) == 5
    assert plan.partial_name({"code": "a"}, [here, changed[0]]) != plan.partial_name(
        {"code": "a"}, [changed[0], here]
    )


def _leaf(position: int) -> Accumulator:
    axis = hist.axis.Regular(3, 0, 1, name="x", flow=False)
    values = np.random.default_rng(position).lognormal(0, 10, 3)
    return Accumulator({"nominal": Histogram((axis,), values)}, {"entries": position})


def _worth(value: str | Sum | None, stored: dict[str, Accumulator]) -> Accumulator | None:
    if value is None:
        return None
    if isinstance(value, str):
        return stored[value]
    parts = [part for child in value.children if (part := _worth(child, stored)) is not None]
    return ordered_sum(parts)


def _bits(value: Accumulator | None) -> tuple[bytes, int] | None:
    return None if value is None else (value.histograms["nominal"].values.tobytes(), value.counts["entries"])


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[int], set[int]]:
    leaves = draw(st.integers(0, 150))
    order = draw(st.permutations(range(leaves)))
    lost = draw(st.sets(st.integers(0, max(leaves - 1, 0)), max_size=leaves // 2))
    return leaves, list(order), lost


@given(histories(), st.integers(1, 40))
def test_a_sum_depends_only_on_which_units_are_in_it(
    history: tuple[int, list[int], set[int]], pause: int
) -> None:
    leaves, order, lost = history
    stored = {f"u{i}": _leaf(i) for i in range(leaves)}
    merged, plain = Tree(leaves), Tree(leaves)
    for step, position in enumerate(order, 1):
        for tree in (merged, plain):
            tree.settle_leaf(position, None if position in lost else f"u{position}")
        if step % pause == 0:
            for node, names in list(merged.ready()):
                name = plan.merged_name(names)
                stored[name] = ordered_sum(stored[part] for part in names)
                merged.stored[node] = name
        assert len(names_in(merged.value())) <= len(names_in(plain.value()))
        if step % pause == 0 or step == leaves:
            assert _bits(_worth(merged.value(), stored)) == _bits(_worth(plain.value(), stored))


@given(st.integers(1, 700))
def test_a_tree_has_one_root_above_all_units(leaves: int) -> None:
    tree = Tree(leaves)
    reached, level = {tree.root}, tree.root[0]
    while level:
        assert all(len(tree.children(node)) <= FAN_IN for node in reached)
        reached, level = {child for node in reached for child in tree.children(node)}, level - 1
    assert reached == {(0, position) for position in range(leaves)}


def test_a_data_set_without_units_has_no_value() -> None:
    tree = Tree(0)
    assert list(tree.ready()) == []
    assert tree.value() is None
