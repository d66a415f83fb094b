"""One job's units in the memory of the driver: which wait, which are under way, which sums are there.

No I/O and no clock: the driver tells it what happened and asks what may start. The ledger has the same
facts durably, and this is made from it anew whenever a driver starts.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from binworks.service.model import UnitState
from binworks.service.plan import Piece
from binworks.service.retry import MAX_BACKOFF_SECONDS
from binworks.service.tasks import Receipt
from binworks.service.tree import FAN_IN, Node, Tree
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
    lent : str or None
        Partial of the same events with other variation groups.
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
    lent: str | None = None
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
        In unit order.
    sums : iterable of (data set, node, name)
        What is stored above the units.
    """

    def __init__(
        self, datasets: Sequence[str], works: Iterable[Work], sums: Iterable[tuple[str, Node, str]] = ()
    ) -> None:
        self.works = {work.status.unit: work for work in works}
        leaves = Counter(work.dataset for work in self.works.values())
        self.trees = {name: Tree(leaves[name]) for name in datasets}
        self.events = sum(work.events for work in self.works.values())
        self.skipped_events = 0
        self.running: set[int] = set()
        self._ready: list[tuple[float, int]] = []
        self._delayed: list[tuple[float, int]] = []
        for work in self.works.values():
            self._place(work)
        self.resumed = [self.works[unit] for unit in sorted(self.running)]
        """Those that run already: an earlier driver began them."""
        for dataset, node, name in sums:
            self.trees[dataset].stored[node] = name

    def waiting(self, now: float) -> int:
        """Return how many units could start now."""
        # a time that is further off than any wait was written before the clock was set back
        while self._delayed and not now < self._delayed[0][0] <= now + MAX_BACKOFF_SECONDS:
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

    def reopen(self, name: str) -> tuple[Work, list[Node]] | None:
        """Let a unit wait again because a stored sum is damaged or lost.

        Parameters
        ----------
        name : str
            Of the sum: a unit's partial, or one of several units'. In the latter case any unit below will do: the sums
            above it are made anew.

        Returns
        -------
        (Work, list of Node) or None
            The unit, and the sums above it that do not count any more; None if no such sum is known.
        """
        for dataset, tree in self.trees.items():
            found = min((node for node, stored in tree.stored.items() if stored == name), default=None)
            if found is None:
                continue
            below = FAN_IN ** found[0]
            leaves = range(found[1] * below, (found[1] + 1) * below)
            position = next(leaf for leaf in leaves if (0, leaf) in tree.stored)
            work = next(w for w in self.works.values() if (w.dataset, w.position) == (dataset, position))
            work.status, work.digest, work.counts = work.status.reopened(), None, {}
            dropped = tree.unsettle_leaf(position)
            self._place(work)
            return work, dropped
        return None

    def _place(self, work: Work) -> None:
        status = work.status
        if status.state == UnitState.RUNNING:
            self.running.add(status.unit)
        elif status.state == UnitState.PENDING:
            heapq.heappush(self._delayed, (status.not_before, status.unit))
        elif status.state == UnitState.DONE:
            self.trees[work.dataset].settle_leaf(work.position, work.partial)
        elif status.state == UnitState.SKIPPED:
            self.skipped_events += work.events
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


def from_rows(rows: Iterable[Any], lent: Mapping[int, str]) -> list[Work]:
    """Return the units of a job from their rows in the ledger; those that ran still do.

    Parameters
    ----------
    rows : iterable
        In unit order.
    lent : mapping
        By unit: partial of the same events with other variation groups.
    """
    positions: Counter[str] = Counter()
    works = []
    for row in rows:
        status = Status(
            row.unit,
            UnitState(row.state),
            row.token,
            row.attempts,
            row.failures,
            row.kills,
            row.not_before,
            row.splits,
        )
        works.append(
            Work(
                status=status,
                dataset=row.dataset,
                position=positions[row.dataset],
                pieces=tuple(Piece(**piece) for piece in row.ranges),
                partial=row.partial,
                turn=row.turn,
                digest=row.digest,
                counts=row.counts or {},
                lent=lent.get(row.unit),
            )
        )
        positions[row.dataset] += 1
    return works


def document_of(works: Iterable[Work]) -> list[dict[str, Any]]:
    """Return the plan as JSON."""
    return [
        {
            "unit": work.status.unit,
            "dataset": work.dataset,
            "pieces": [asdict(piece) for piece in work.pieces],
            "partial": work.partial,
        }
        for work in works
    ]


def sum_counts(works: Iterable[Work]) -> Mapping[str, int]:
    """Return the counts of units, added up."""
    total: dict[str, int] = {}
    for work in works:
        for name, count in work.counts.items():
            total[name] = total.get(name, 0) + count
    return dict(sorted(total.items()))
