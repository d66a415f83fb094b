"""One job's units in the memory of the driver: which wait, which are under way, which sums are there.

No I/O and no clock: the driver tells it what happened and asks what may start. The ledger has the same
facts durably, and this is made from it anew whenever a driver starts.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from binworks.service.model import UnitState
from binworks.service.plan import Piece
from binworks.service.tasks import Receipt
from binworks.service.tree import Node, Tree
from binworks.service.units import Status


@dataclass
class Work:
    """A unit of work.

    Parameters
    ----------
    status : Status
        Where it is.
    dataset, position : str, int
        Its data set, and its place among the data set's units.
    pieces, partial, turn
        From the plan.
    digest, counts
        Of the receipt; None and empty before.
    bystander : int
        How often a worker died that held it without having begun it.
    """

    status: Status
    dataset: str
    position: int
    pieces: tuple[Piece, ...]
    partial: str
    turn: float
    digest: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    bystander: int = 0

    @property
    def events(self) -> int:
        """How many."""
        return sum(piece.events for piece in self.pieces)


class Workload:
    """The units of a job and the trees of their sums.

    Parameters
    ----------
    datasets : sequence of str
        All of the job, also those without events.
    works : iterable of Work
        In unit order; those that run are taken as waiting.
    sums : iterable of (data set, node, name)
        What is stored above the units.
    """

    def __init__(
        self, datasets: Sequence[str], works: Iterable[Work], sums: Iterable[tuple[str, Node, str]] = ()
    ) -> None:
        self.works = {work.status.unit: work for work in works}
        leaves = {name: sum(work.dataset == name for work in self.works.values()) for name in datasets}
        self.trees = {name: Tree(count) for name, count in leaves.items()}
        self.running: set[int] = set()
        self._ready: list[tuple[float, int]] = []
        self._delayed: list[tuple[float, int]] = []
        for work in self.works.values():
            self._place(work)
        for dataset, node, name in sums:
            self.trees[dataset].stored[node] = name

    def waiting(self, now: float) -> int:
        """Return how many units could start now."""
        while self._delayed and self._delayed[0][0] <= now:
            _, unit = heapq.heappop(self._delayed)
            heapq.heappush(self._ready, (self.works[unit].turn, unit))
        return len(self._ready)

    def begin(self, tokens: Iterable[str]) -> list[Work]:
        """Start as many units as there are tokens, those whose turn it is."""
        begun = []
        for token in tokens:
            _, unit = heapq.heappop(self._ready)
            work = self.works[unit]
            work.status = work.status.started(token)
            self.running.add(unit)
            begun.append(work)
        return begun

    def end(self, after: Status, receipt: Receipt | None) -> None:
        """Take note of how an attempt ended."""
        work = self.works[after.unit]
        work.status = after
        self.running.discard(after.unit)
        if receipt is not None:
            work.digest, work.counts = receipt.digest, receipt.counts
        self._place(work)

    def _place(self, work: Work) -> None:
        status = work.status
        if status.state == UnitState.PENDING:
            heapq.heappush(self._delayed, (status.not_before, status.unit))
        elif status.state == UnitState.DONE:
            self.trees[work.dataset].settle_leaf(work.position, work.partial)
        elif status.state == UnitState.SKIPPED:
            self.trees[work.dataset].settle_leaf(work.position, None)

    @property
    def settled(self) -> bool:
        """Whether every data set's sum is there."""
        return all(tree.leaves == 0 or tree.settled(tree.root) for tree in self.trees.values())

    def done(self) -> list[Work]:
        """Return the units that are in the result, in order."""
        return [work for work in self.works.values() if work.status.state == UnitState.DONE]

    def skipped(self) -> list[Work]:
        """Return the units that are left out, in order."""
        return [work for work in self.works.values() if work.status.state == UnitState.SKIPPED]

    @property
    def events(self) -> int:
        """Events of all units."""
        return sum(work.events for work in self.works.values())


def from_rows(rows: Iterable[Any]) -> list[Work]:
    """Return the units of a job from their rows in the ledger; those that ran wait again."""
    positions: dict[str, int] = {}
    works = []
    for row in rows:
        position = positions.setdefault(row.dataset, 0)
        positions[row.dataset] += 1
        state = UnitState(row.state)
        status = Status(
            row.unit,
            UnitState.PENDING if state == UnitState.RUNNING else state,
            None,
            row.attempts,
            row.failures,
            row.kills,
            row.not_before,
        )
        pieces = tuple(Piece(**piece) for piece in row.ranges)
        works.append(
            Work(status, row.dataset, position, pieces, row.partial, row.turn, row.digest, row.counts or {})
        )
    return works


def sum_counts(works: Iterable[Work]) -> Mapping[str, int]:
    """Return the counts of units, added up."""
    total: dict[str, int] = {}
    for work in works:
        for name, count in work.counts.items():
            total[name] = total.get(name, 0) + count
    return dict(sorted(total.items()))
