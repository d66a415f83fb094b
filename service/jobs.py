"""The jobs as users see and change them: create, look, list, cancel, and what happened to each.

What the driver writes is in `binworks.service.ledger`; both work on the same tables.
"""

from __future__ import annotations

from collections.abc import Callable

from binworks.service.database import Database
from binworks.service.model import GenerationView, JobEvent, JobPage, JobState, JobView, UnitState, UnitView
from binworks.service.requests import ResolvedJob


class Jobs:
    """Repository of jobs.

    Parameters
    ----------
    database : Database
        Where they are kept.
    max_active : int
        Jobs of one owner that may be unfinished at a time.
    clock : callable
        Seconds since 1970.
    """

    def __init__(self, database: Database, *, max_active: int = 100, clock: Callable[[], float] = ...) -> None: ...

    def create(self, resolved: ResolvedJob, owner: str, idempotency_key: str | None = None) -> tuple[JobView, bool]:
        """Store a job durably; return it, and whether it is new.

        The same owner and key with the same request give the job that is there.

        Raises
        ------
        ConflictError
            Code ``idempotency-key-reused`` if the key came with another request before; code ``too-many-jobs`` if the
            owner has too many unfinished ones.
        """

    def get(self, job: str, owner: str | None = None) -> JobView:
        """Return a job as it is now.

        Raises
        ------
        RequestError
            Code ``unknown-job`` if there is none, or it is another owner's (``owner=None``: everybody's are seen).
        """

    def list(self, *, owner: str | None = None, state: JobState | None = None, cursor: str | None = None, limit: int = 50) -> JobPage:
        """Return a page of jobs, newest first.

        Raises
        ------
        RequestError
            Code ``bad-cursor``.
        """

    def cancel(self, job: str, owner: str | None = None) -> JobView:
        """Ask for the end of a job; once it is finished, nothing changes."""

    def units(self, job: str, *, state: UnitState | None = None, after: int = -1, limit: int = 1000) -> list[UnitView]:
        """Return units of a job in unit order, from the one after ``after``."""

    def generations(self, job: str) -> list[GenerationView]:
        """Return the snapshots that can be read, oldest first."""

    def events(self, job: str, after: int = 0, limit: int = 1000) -> list[JobEvent]:
        """Return what happened to a job after the event of that id, oldest first."""
