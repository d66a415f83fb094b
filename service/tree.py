"""The tree along which a data set's partials are summed; it fixes every bit of the result.

The leaves are the units of the data set in unit order; every node above has up to eight children. The value
of a node is the sum of those of its children that have a value, from left to right. So the value of the
root depends on nothing but which units are in it: not on workers, order, retries, or earlier snapshots.

A node is *settled* when nothing below it can change any more: each unit is done or left out for ever. A
settled node is summed once, stored, and used by all later sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

FAN_IN = 8

Node = tuple[int, int]
"""(level, position); level 0 are the units."""


@dataclass(frozen=True)
class Sum:
    """What to add up, from left to right: names of stored sums, or sums that are not stored."""

    children: tuple[str | Sum, ...]


@dataclass
class Tree:
    """Which sums of a data set are there.

    Parameters
    ----------
    leaves : int
        Units of the data set.
    stored : dict
        Names of stored sums by node.
    empty : set
        Settled nodes without a value: all their units are left out.
    """

    leaves: int
    stored: dict[Node, str] = field(default_factory=dict)
    empty: set[Node] = field(default_factory=set)

    @property
    def root(self) -> Node:
        """The node that is the whole data set."""
        level = 0
        while self.width(level) > 1:
            level += 1
        return (level, 0)

    def width(self, level: int) -> int:
        """Return the number of nodes on a level."""
        below: int = FAN_IN**level
        return -(-self.leaves // below)

    def children(self, node: Node) -> list[Node]:
        """Return the nodes just below, from left to right."""
        level, position = node
        first = position * FAN_IN
        return [(level - 1, p) for p in range(first, min(first + FAN_IN, self.width(level - 1)))]

    def settled(self, node: Node) -> bool:
        """Whether the node's value is known for ever."""
        return node in self.stored or node in self.empty

    def settle_leaf(self, position: int, name: str | None) -> None:
        """Note that a unit is done, or (without a name) left out."""
        if name is None:
            self.empty.add((0, position))
        else:
            self.stored[0, position] = name

    def ready(self) -> Iterator[tuple[Node, tuple[str, ...]]]:
        """Give the nodes that can be summed and stored now, each with the names of its children.

        Nodes with one child that has a value, or none, need no sum; they are settled on the way.
        """
        for level in range(1, self.root[0] + 1):
            for position in range(self.width(level)):
                node = (level, position)
                below = self.children(node)
                if self.settled(node) or not all(self.settled(child) for child in below):
                    continue
                names = tuple(self.stored[child] for child in below if child in self.stored)
                if not names:
                    self.empty.add(node)
                elif len(names) == 1:
                    self.stored[node] = names[0]
                else:
                    yield node, names

    def value(self, node: Node | None = None) -> str | Sum | None:
        """Return how to get the value of a node (default: the root) from what is stored; None if none."""
        node = node or self.root
        if node in self.stored:
            return self.stored[node]
        if node in self.empty or node[0] == 0:
            return None
        parts = tuple(part for child in self.children(node) if (part := self.value(child)) is not None)
        return parts[0] if len(parts) == 1 else Sum(parts) if parts else None


def names_in(value: str | Sum | None) -> Sequence[str]:
    """Return the names of the stored sums that a value is made of."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    return [name for child in value.children for name in names_in(child)]
