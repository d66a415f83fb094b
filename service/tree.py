"""The tree along which a data set's partials are summed; it fixes every bit of the result.

The leaves are the units of the data set in unit order; every node above has up to eight children. The value
of a node is the sum of those of its children that have a value, from left to right. So the value of the
root depends on nothing but which units are in it: not on workers, order, retries, or earlier snapshots.

A node is *settled* when nothing below it can change any more: each unit is done or left out for ever. A
settled node is summed once, stored, and used by all later sums. Only a stored partial that is found damaged
makes nodes unsettled again: its unit and all above it.

Each node knows how many of its children are settled, so that a unit costs one step a level, not a look at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

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
        Names of stored sums by node. Whoever stores one adds it here; `unsettle_leaf` takes them out.
    empty : set
        Settled nodes without a value: all their units are left out.
    """

    leaves: int
    stored: dict[Node, str] = field(default_factory=dict)
    empty: set[Node] = field(default_factory=set)
    _news: list[Node] = field(init=False, repr=False)
    _seen: int = field(default=0, init=False, repr=False)
    _settled: Counter[Node] = field(default_factory=Counter, init=False, repr=False)
    _whole: dict[Node, tuple[str, ...]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._news = list(self.empty)  # settled without a value, and not counted yet

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
        leaf = (0, position)
        if name is not None:
            self.stored[leaf] = name
        elif not self.settled(leaf):
            self.empty.add(leaf)
            self._news.append(leaf)

    def unsettle_leaf(self, position: int) -> list[Node]:
        """Note that a unit is to be filled again, and return the sums above it that do not count any more.

        Parameters
        ----------
        position : int
            Of the unit.

        Returns
        -------
        list of Node
            From the lowest to the root; among them such as bore the name of the only child with a value.
        """
        self._count()
        dropped = []
        for node in self._path(position):
            if not self.settled(node):
                self._whole.pop(node, None)
                continue
            if node in self.stored:
                del self.stored[node]
                self._seen -= 1
                dropped.append(node)
            self.empty.discard(node)
            self._settled[_above(node)] -= 1
        return [node for node in dropped if node[0]]

    def ready(self) -> Iterator[tuple[Node, tuple[str, ...]]]:
        """Give the nodes that can be summed and stored now, each with the names of its children.

        Nodes with one child that has a value, or none, need no sum; they are settled on the way.
        """
        self._count()
        yield from sorted(self._whole.items())

    def _count(self) -> None:
        """Count what was settled since the last time; settle what needs no sum."""
        while news := [*self._news, *islice(reversed(self.stored), len(self.stored) - self._seen)]:
            self._news, self._seen = [], len(self.stored)
            for node in news:
                self._whole.pop(node, None)
                self._count_child(_above(node))

    def _count_child(self, node: Node) -> None:
        self._settled[node] += 1
        if node[0] > self.root[0] or self.settled(node) or self._settled[node] < len(self.children(node)):
            return
        names = tuple(self.stored[child] for child in self.children(node) if child in self.stored)
        if not names:
            self.empty.add(node)
            self._news.append(node)
        elif len(names) == 1:
            self.stored[node] = names[0]
        else:
            self._whole[node] = names

    def _path(self, position: int) -> Iterator[Node]:
        """Give a leaf and all above it."""
        return ((level, position // FAN_IN**level) for level in range(self.root[0] + 1))

    def value(self, node: Node | None = None, among: Collection[Node] | None = None) -> str | Sum | None:
        """Return how to get the value of a node from what is stored; None if there is none.

        Parameters
        ----------
        node : (level, position)
            Default: the root.
        among : collection of Node, optional
            Some of `tops`; then it is the value of the units below these alone.
        """
        node = node or self.root
        if node in self.stored:
            return self.stored[node] if among is None or node in among else None
        if node in self.empty or node[0] == 0:
            return None
        below = self.children(node)
        parts = tuple(part for child in below if (part := self.value(child, among)) is not None)
        return parts[0] if len(parts) == 1 else Sum(parts) if parts else None

    def tops(self, most: int | None = None) -> list[Node]:
        """Return the stored nodes that have no stored node above them, the largest first.

        Parameters
        ----------
        most : int, optional
            No more than these. While a thousand workers fill, a thousand units are alone of their node; to read
            them all takes a worker minutes. The few largest have most of the events.
        """
        found, level = [], [self.root]
        while level:
            found += [node for node in level if node in self.stored]
            level = [
                child for node in level if node[0] and not self.settled(node) for child in self.children(node)
            ]
        return found[:most]

    def units(self, node: Node) -> range:
        """Return the positions of the units below a node."""
        each = FAN_IN ** node[0]
        return range(node[1] * each, min((node[1] + 1) * each, self.leaves))


def names_in(value: str | Sum | None) -> Sequence[str]:
    """Return the names of the stored sums that a value is made of."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    return [name for child in value.children for name in names_in(child)]


def _above(node: Node) -> Node:
    level, position = node
    return (level + 1, position // FAN_IN)
