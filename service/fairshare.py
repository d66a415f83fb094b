"""Which job may start its next unit: an owner is chosen who has least in flight, and of his jobs the one with least.

So a short job starts at once behind a long one, owners get equal parts of the workers however many jobs they have, and
an owner's jobs of equal priority get equal parts of his.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

UNITS_PER_THREAD = 2
"""Units in flight: one that runs and one that waits beside it, so that no worker idles between two."""
RESERVE = 50
"""Of so many threads one is kept free of units: what others wait for (to open a file, to add up sums) begins there at
once. Dask gives such a task to the worker that holds least and, if all are at work, lets it wait for a whole unit."""


@dataclass(frozen=True)
class Share:
    """A job that wants to work.

    Parameters
    ----------
    job, owner : str
        Its id, and whose it is.
    priority : int
        Each step doubles its weight among the owner's jobs.
    created : float
        The older one goes first where all else is equal.
    in_flight, waiting : int
        Units under way, and units that could start now.
    """

    job: str
    owner: str
    priority: int
    created: float
    in_flight: int
    waiting: int


def choose(shares: Sequence[Share], threads: int) -> list[str]:
    """Return the jobs that may start a unit now, one entry a unit, in the order to start them.

    Parameters
    ----------
    shares : sequence of Share
        All jobs at work.
    threads : int
        Of all workers.
    """
    free = window(threads) - sum(share.in_flight for share in shares)
    owners: dict[str, _Owner] = {}
    for share in sorted(shares, key=lambda share: (share.created, share.job)):
        owners.setdefault(share.owner, _Owner(len(owners))).add(share)
    queue = [owner for owner in owners.values() if owner.queue]
    heapq.heapify(queue)
    chosen: list[str] = []
    while queue and len(chosen) < free:
        chosen.append(queue[0].give())
        if queue[0].queue:
            heapq.heapreplace(queue, queue[0])
        else:
            heapq.heappop(queue)
    return chosen


class _Owner:
    """An owner's jobs, by what each has in flight for its weight.

    Parameters
    ----------
    rank : int
        Goes first where all else is equal: the owner of the oldest job.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.in_flight = 0
        self.queue: list[tuple[float, float, str, int, Share]] = []

    def __lt__(self, other: _Owner) -> bool:
        return (self.in_flight, self.rank) < (other.in_flight, other.rank)

    def add(self, share: Share) -> None:
        self.in_flight += share.in_flight
        if share.waiting:
            heapq.heappush(self.queue, _place(share, 0))

    def give(self) -> str:
        """Return the job that starts a unit."""
        *_, given, share = self.queue[0]
        self.in_flight += 1
        if given + 1 < share.waiting:
            heapq.heapreplace(self.queue, _place(share, given + 1))
        else:
            heapq.heappop(self.queue)
        return share.job


def window(threads: int) -> int:
    """Return how many units may be in flight.

    Few threads have no reserve, and a unit waits beside each that runs; of many threads some are kept free, which
    would not stay so if units waited beside others.
    """
    reserve = threads // RESERVE
    return threads - reserve if reserve else UNITS_PER_THREAD * threads


def _place(share: Share, given: int) -> tuple[float, float, str, int, Share]:
    return ((share.in_flight + given + 1) / 2.0**share.priority, share.created, share.job, given, share)
