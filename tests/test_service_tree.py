"""The tree that counts gives what a look at all its nodes would give, whatever happens in whatever order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from binworks.service import plan
from binworks.service.tree import FAN_IN, Node, Tree, names_in

History = tuple[int, list[tuple[str, int]]]


class Plain:
    """The definition: all nodes are looked at, each time."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.stored = dict(tree.stored)
        self.empty = set(tree.empty)

    def settled(self, node: Node) -> bool:
        return node in self.stored or node in self.empty

    def ready(self) -> list[tuple[Node, tuple[str, ...]]]:
        found = []
        for level in range(1, self.tree.root[0] + 1):
            for position in range(self.tree.width(level)):
                node = (level, position)
                below = self.tree.children(node)
                if self.settled(node) or not all(map(self.settled, below)):
                    continue
                names = tuple(self.stored[child] for child in below if child in self.stored)
                if not names:
                    self.empty.add(node)
                elif len(names) == 1:
                    self.stored[node] = names[0]
                else:
                    found.append((node, names))
        return found

    def unsettle_leaf(self, position: int) -> list[Node]:
        path = [(level, position // FAN_IN**level) for level in range(self.tree.root[0] + 1)]
        dropped = [node for node in path[1:] if node in self.stored]
        for node in path:
            self.stored.pop(node, None)
            self.empty.discard(node)
        return dropped


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Units that are done, left out or filled again, sums that are stored, and looks in between."""
    leaves = draw(st.integers(1, 100))
    order = draw(st.permutations(range(leaves)))
    story = []
    for position in order:
        story.append((draw(st.sampled_from(["done", "done", "done", "lost"])), position))
        then = draw(st.sampled_from(["", "", "look", "merge", "merge", "again"]))
        if then:
            story.append((then, draw(st.integers(0, leaves - 1))))
    return leaves, story


@given(histories())
def test_counting_gives_what_looking_at_all_nodes_gives(history: History) -> None:
    leaves, story = history
    tree = Tree(leaves)
    plain = Plain(tree)
    for step, (what, which) in enumerate(story):
        if what == "done" and not tree.settled((0, which)):
            tree.settle_leaf(which, f"u{which}")
            plain.stored[0, which] = f"u{which}"
        elif what == "lost" and not tree.settled((0, which)):
            tree.settle_leaf(which, None)
            plain.empty.add((0, which))
        elif what == "again":
            assert list(tree.ready()) == plain.ready()
            assert tree.unsettle_leaf(which) == plain.unsettle_leaf(which)
        elif what == "merge":
            for node, names in list(tree.ready())[: 1 + which % 3]:
                tree.stored[node] = plain.stored[node] = f"{step}:{'+'.join(names)}"
        if what not in ("done", "lost"):
            assert list(tree.ready()) == plain.ready()
            assert (tree.stored, tree.empty) == (plain.stored, plain.empty)
            assert tree.value() == Tree(leaves, plain.stored, plain.empty).value()


@given(histories())
def test_a_tree_made_from_the_ledger_goes_on_as_the_one_that_was_lost(history: History) -> None:
    leaves, story = history
    tree = Tree(leaves)
    for what, which in story:
        if what in ("done", "lost") and not tree.settled((0, which)):
            tree.settle_leaf(which, f"u{which}" if what == "done" else None)
        elif what == "merge":
            for node, names in list(tree.ready())[:1]:
                tree.stored[node] = "+".join(names)
    expected = Tree(leaves, dict(tree.stored), {node for node in tree.empty if node[0] == 0})
    assert list(tree.ready()) == list(expected.ready())
    assert (tree.stored, tree.empty) == (expected.stored, expected.empty)


@given(histories(), st.integers(1, 12))
def test_a_value_of_few_sums_is_that_of_the_units_it_has(history: History, most: int) -> None:
    leaves, story = history
    tree = Tree(leaves)
    for what, which in story:
        if what in ("done", "lost") and not tree.settled((0, which)):
            tree.settle_leaf(which, f"u{which}" if what == "done" else None)
        elif what in ("merge", "look"):
            for node, names in list(tree.ready()):
                tree.stored[node] = "+".join(names)
    tops = tree.tops(most)
    names = names_in(tree.value(among=tops))
    assert len(names) == len(tops) == min(most, len(names_in(tree.value())))
    inside = [
        position
        for node in sorted(tops, key=lambda node: tree.units(node).start)
        for position in tree.units(node)
    ]
    assert "+".join(names) == "+".join(f"u{p}" for p in inside if (0, p) in tree.stored)
    if len(names) < most:
        assert tree.value(among=tops) == tree.value()


def test_a_unit_that_is_filled_again_is_summed_again_up_to_the_root() -> None:
    tree = Tree(FAN_IN**2)
    for position in range(tree.leaves):
        tree.settle_leaf(position, f"u{position}")
    for _ in range(2):
        for node, names in list(tree.ready()):
            tree.stored[node] = "+".join(names)
    whole = dict(tree.stored)
    assert tree.settled(tree.root)
    assert tree.unsettle_leaf(9) == [(1, 1), (2, 0)]
    assert not tree.settled(tree.root)
    assert list(tree.ready()) == []
    tree.settle_leaf(9, "u9")
    for _ in range(2):
        for node, names in list(tree.ready()):
            tree.stored[node] = "+".join(names)
    assert tree.stored == whole


def test_a_unit_costs_a_look_at_its_ancestors_only() -> None:
    looks = 0

    class Watched(Tree):
        def children(self, node: Node) -> list[Node]:
            nonlocal looks
            looks += 1
            return super().children(node)

    tree = Watched(FAN_IN**4)
    for position in range(tree.leaves):
        tree.settle_leaf(position, f"u{position}")
        while whole := list(tree.ready()):
            tree.stored.update({node: plan.merged_name(names) for node, names in whole})
    assert tree.settled(tree.root)
    assert looks < 3 * tree.leaves
