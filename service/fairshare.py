"""Which job may start its next unit: the one that has least in flight for its weight.

So a short job starts at once behind a long one, and jobs of equal priority get equal parts of the workers.
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
    job : str
        Its id.
    priority : int
        Each step doubles its weight.
    created : float
        The older one goes first where all else is equal.
    in_flight, waiting : int
        Units under way, and units that could start now.
    """

    job: str
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
    queue = [_place(share, 0) for share in shares if share.waiting]
    heapq.heapify(queue)
    chosen: list[str] = []
    by_job = {share.job: share for share in shares}
    given: dict[str, int] = {}
    while queue and len(chosen) < free:
        job = heapq.heappop(queue)[2]
        chosen.append(job)
        given[job] = given.get(job, 0) + 1
        if given[job] < by_job[job].waiting:
            heapq.heappush(queue, _place(by_job[job], given[job]))
    return chosen


def window(threads: int) -> int:
    """Return how many units may be in flight.

    Few threads have no reserve, and a unit waits beside each that runs; of many threads some are kept free, which
    would not stay so if units waited beside others.
    """
    reserve = threads // RESERVE
    return threads - reserve if reserve else UNITS_PER_THREAD * threads


def _place(share: Share, given: int) -> tuple[float, float, str]:
    return ((share.in_flight + given + 1) / 2.0**share.priority, share.created, share.job)
