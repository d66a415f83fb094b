"""How many workers our backlog asks for: not Dask's, which never holds more than a few units a worker."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from sqlalchemy import case, func, select
from sqlalchemy.engine import Connection

from binworks.service.database import jobs, units
from binworks.service.model import JobState, UnitState

PACE_SECONDS = 120.0
"""A worker should find so much to do: it takes a batch system some time to start one, and it is warm then."""
USUAL_SECONDS = 30.0
"""Of a unit, while none of its job has been filled yet."""

_FINISHED = [state.value for state in JobState if state.finished]


@dataclass(frozen=True)
class Backlog:
    """What one unfinished job has left.

    Parameters
    ----------
    units : int
        That are not settled.
    seconds : float or None
        Of a unit that was filled; None: none was yet.
    """

    units: int
    seconds: float | None


def backlog(connection: Connection) -> list[Backlog]:
    """Return what is left of each unfinished job, of those too that are not planned yet."""
    waits = units.c.state.in_((UnitState.PENDING, UnitState.RUNNING))
    filled = (units.c.state == UnitState.DONE) & ~units.c.reused
    query = (
        select(
            func.sum(case((waits, 1), else_=0)).label("units"),
            func.avg(case((filled, units.c.seconds))).label("seconds"),
        )
        .select_from(jobs.outerjoin(units, units.c.job == jobs.c.id))
        .where(jobs.c.state.not_in(_FINISHED))
        .group_by(jobs.c.id)
    )
    return [Backlog(int(row.units), row.seconds) for row in connection.execute(query)]


def wanted(left: list[Backlog]) -> int:
    """Return how many workers of one thread would do all that is left in `PACE_SECONDS`.

    Never more than there are units; at least one for each job, which is planned, summed and written, too.
    """
    work = sum(job.units * (USUAL_SECONDS if job.seconds is None else job.seconds) for job in left)
    most = sum(max(job.units, 1) for job in left)
    return min(max(math.ceil(work / PACE_SECONDS), len(left)), most)


class Scaler:
    """From what is wanted now to how many workers there should be: more at once, fewer only after a while.

    Parameters
    ----------
    minimum, maximum : int
        Bounds.
    idle : float
        Seconds for which workers that are not wanted any more are kept.
    """

    def __init__(self, minimum: int, maximum: int, idle: float) -> None:
        self.minimum = minimum
        self.maximum = maximum
        self.idle = idle
        self._lately: deque[tuple[float, int]] = deque()

    def decide(self, now_wanted: int, now: float) -> int:
        """Return how many workers there should be: the most that were wanted lately, within the bounds.

        Parameters
        ----------
        now_wanted : int
            By the backlog.
        now : float
            Seconds of any clock that only goes forward.
        """
        while self._lately and self._lately[-1][1] <= now_wanted:
            self._lately.pop()
        self._lately.append((now, now_wanted))
        while self._lately[0][0] < now - self.idle:
            self._lately.popleft()
        return min(max(self._lately[0][1], self.minimum), self.maximum)
