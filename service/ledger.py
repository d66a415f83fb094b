"""What the driver writes down: which files there are, which units are done, which sums and snapshots are stored.

Each method is one transaction and holds only while this driver has the lease. A unit counts once however
often it was tried: a receipt is taken only with the token of the present attempt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import and_, bindparam, delete, func, insert, select, update
from sqlalchemy.engine import Connection, Row

from binworks.service import anew, jobstate, lease, quotas, views
from binworks.service.database import Database, files, generations, jobs, merges, units
from binworks.service.jobs import add_event, move
from binworks.service.model import JobState, ResolvedJob, UnitState
from binworks.service.plan import FileFacts, Unit
from binworks.service.quotas import Limits
from binworks.service.tasks import Failure, Receipt
from binworks.service.tree import Node
from binworks.service.units import Status


@dataclass(frozen=True)
class FileKey:
    """What makes a local file another one for the index."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Settled:
    """The outcome of an attempt, and where the unit is after it."""

    job: str
    token: str
    after: Status
    dataset: str
    outcome: Receipt | Failure | None
    worker: str | None = None


class Ledger:
    """The driver's side of the job database.

    Parameters
    ----------
    database : Database
        Where it is kept.
    clock : callable
        Seconds since 1970.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self.database = database
        self.clock = clock
        self.fence = 0

    # the lease

    def take_over(self, holder: str, seconds: float) -> bool:
        """Become the active driver, if there is none."""
        with self.database.write() as connection:
            fence = lease.acquire(connection, holder, self.clock(), seconds)
        if fence is None:
            return False
        self.fence = fence
        return True

    def renew(self, seconds: float) -> None:
        """Stay the active driver; with zero seconds, stop being it."""
        with self.database.write() as connection:
            lease.renew(connection, self.fence, self.clock(), seconds)

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with self.database.write() as connection:
            lease.check(connection, self.fence)
            yield connection

    # jobs

    def active(self) -> list[tuple[str, JobState]]:
        """Return the jobs that are not finished, oldest first."""
        query = select(jobs.c.id, jobs.c.state).where(jobs.c.state.in_(jobstate.ACTIVE))
        with self.database.read() as connection:
            return [
                (row.id, JobState(row.state)) for row in connection.execute(query.order_by(jobs.c.created))
            ]

    def load(self, job: str) -> tuple[Row[Any], ResolvedJob]:
        """Return a job's row and what it is to do."""
        with self.database.read() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job)).one()
        return row, ResolvedJob.model_validate({**row.resolved, "request": row.request})

    def move(self, job: str, state: JobState, why: str, failure: Failure | None = None) -> bool:
        """Bring a job into another state; False if it is to be cancelled instead."""
        with self._write() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job)).one()
            if row.state == JobState.CANCELLING and state != JobState.CANCELLED:
                return False
            error = None if failure is None else failure.problem()
            move(connection, row, state, self.clock(), why, error)
            if failure is not None:
                connection.execute(update(jobs).where(jobs.c.id == job).values(traceback=failure.traceback))
            if state.finished:
                _recall(connection, job)
            return True

    def note(self, job: str, text: str | None) -> None:
        """Say why a job does not get on, or that it does again; what is said already is not said again."""
        with self._write() as connection:
            said = connection.execute(select(jobs.c.note).where(jobs.c.id == job)).one_or_none()
            if said is not None and said.note != text:
                connection.execute(update(jobs).where(jobs.c.id == job).values(note=text))
                add_event(connection, job, "note", self.clock(), {"note": text})

    def leave_out(self, job: str, unreadable: Sequence[Mapping[str, Any]]) -> None:
        """Write down which files cannot be read, as JSON of `binworks.service.model.MissingFile`."""
        with self._write() as connection:
            values = {"unreadable": list(unreadable)}
            connection.execute(update(jobs).where(jobs.c.id == job).values(**values))

    def progress(self, job: str) -> None:
        """Tell a job's readers how far it is."""
        now = self.clock()
        with self._write() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job)).one()
            add_event(connection, job, "progress", now, views.progress(connection, row, now))

    # the file index

    def indexed(self, keys: Sequence[FileKey]) -> dict[str, FileFacts]:
        """Return what is known of these files, by path."""
        found: dict[str, FileFacts] = {}
        with self.database.read() as connection:
            for key in keys:
                query = select(files.c.info).where(
                    files.c.path == key.path, files.c.size == key.size, files.c.mtime_ns == key.mtime_ns
                )
                info = connection.execute(query).scalar()
                if info is not None:
                    found[key.path] = FileFacts(**{**info, "clusters": tuple(info["clusters"])})
        return found

    def index(self, key: FileKey, facts: FileFacts) -> None:
        """Keep the facts of a file; they replace older ones of the same path."""
        with self._write() as connection:
            connection.execute(delete(files).where(files.c.path == key.path))
            connection.execute(insert(files).values(**asdict(key), info=asdict(facts)))

    # the plan

    def write_plan(
        self,
        job: str,
        plan: Sequence[Unit],
        names: Sequence[str],
        bases: Sequence[str],
        unreadable: Sequence[Mapping[str, Any]],
        limits: Limits,
    ) -> None:
        """Write down all units of a job, once.

        Parameters
        ----------
        plan, names, bases : sequences
            The units, the names of their partials, and those names without the variation groups.
        unreadable : sequence
            Files that are left out, as JSON of `binworks.service.model.MissingFile`.
        limits : Limits
            What the owner may have in the queue.

        Raises
        ------
        ConflictError
            ``too-many-units``.
        """
        rows = [
            {
                "job": job,
                "unit": unit.number,
                "dataset": unit.dataset,
                "ranges": [asdict(piece) for piece in unit.pieces],
                "events": unit.events,
                "turn": unit.turn,
                "partial": name,
                "base": base,
                "state": UnitState.PENDING,
            }
            for unit, name, base in zip(plan, names, bases, strict=True)
        ]
        with self._write() as connection:
            owner = connection.execute(select(jobs.c.owner).where(jobs.c.id == job)).scalar_one()
            quotas.check_units(connection, owner, len(rows), limits, self.clock())
            if rows:
                connection.execute(insert(units), rows)
            done = {"planned": True, "unreadable": list(unreadable)}
            connection.execute(update(jobs).where(jobs.c.id == job).values(**done))

    def units(self, job: str) -> list[Row[Any]]:
        """Return the units of a job, in order."""
        with self.database.read() as connection:
            return list(connection.execute(select(units).where(units.c.job == job).order_by(units.c.unit)))

    def lent(self, job: str, systematics: Sequence[str]) -> dict[int, str]:
        """Return partials of earlier jobs that have the same events and other variation groups, by unit.

        Parameters
        ----------
        systematics : sequence of str
            Those of the job: where there are several partials, the one that has most of them.
        """
        mine, other = units.alias(), units.alias()
        same = and_(
            mine.c.base == other.c.base,
            mine.c.partial != other.c.partial,
            other.c.state == UnitState.DONE,
        )
        wanted = (mine.c.job == job, mine.c.base != "", mine.c.state != UnitState.DONE)
        found = select(mine.c.unit, other.c.partial, other.c.job).join(other, same).where(*wanted)
        with self.database.read() as connection:
            rows = connection.execute(found).all()
            owners = select(jobs.c.id, jobs.c.resolved).where(jobs.c.id.in_({row.job for row in rows}))
            shared = {
                row.id: len(set(row.resolved["systematics"]) & set(systematics))
                for row in connection.execute(owners)
            }
        return {row.unit: row.partial for row in sorted(rows, key=lambda row: shared[row.job])}

    # units under way

    def start(self, job: str, statuses: Sequence[Status]) -> bool:
        """Write down that attempts begin; False if the job has ended."""
        now = self.clock()
        with self._write() as connection:
            if (
                connection.execute(select(jobs.c.state).where(jobs.c.id == job)).scalar_one()
                in jobstate.FINISHED
            ):
                return False
            begun = [
                {
                    "of_job": job,
                    "of_unit": status.unit,
                    "state": status.state,
                    "token": status.token,
                    "attempts": status.attempts,
                    "started": now,
                }
                for status in statuses
            ]
            if begun:
                connection.execute(_BEGUN, begun)
            return True

    def running(self, job: str) -> list[tuple[int, str, int]]:
        """Return the units that are under way: number, token, splits."""
        query = select(units.c.unit, units.c.token, units.c.splits).where(
            units.c.job == job, units.c.state == UnitState.RUNNING
        )
        with self.database.read() as connection:
            return [(row.unit, row.token, row.splits) for row in connection.execute(query)]

    def reopen(self, job: str, dataset: str, status: Status, dropped: Sequence[Node]) -> None:
        """Let a unit wait again whose stored sum is lost, and forget the sums above it."""
        values = {
            "state": status.state,
            "token": None,
            "failures": status.failures,
            "kills": status.kills,
            "not_before": status.not_before,
            "finished": None,
            **anew.FORGOTTEN,
        }
        with self._write() as connection:
            place = (units.c.job == job, units.c.unit == status.unit, units.c.state == UnitState.DONE)
            connection.execute(update(units).where(*place).values(**values))
            for level, position in dropped:
                node = (merges.c.level == level, merges.c.position == position)
                connection.execute(
                    delete(merges).where(merges.c.job == job, merges.c.dataset == dataset, *node)
                )

    def settle(self, outcomes: Sequence[Settled]) -> list[bool]:
        """Write down how attempts ended; False for those that are not the present ones any more."""
        now = self.clock()
        with self._write() as connection:
            return [self._settle(connection, settled, now) for settled in outcomes]

    def _settle(self, connection: Connection, settled: Settled, now: float) -> bool:
        after = settled.after
        values: dict[str, Any] = {
            "state": after.state,
            "token": after.token,
            "failures": after.failures,
            "kills": after.kills,
            "not_before": after.not_before,
            "splits": after.splits,
            "worker": settled.worker,
        }
        if after.state != UnitState.PENDING:
            values["finished"] = now
        if isinstance(settled.outcome, Receipt):
            values |= _receipt(settled.outcome)
        elif isinstance(settled.outcome, Failure):
            values |= {"error": settled.outcome.problem(), "traceback": settled.outcome.traceback}
        present = {"of_job": settled.job, "of_unit": after.unit, "of_token": settled.token}
        taken = connection.execute(_ENDED, {**present, **values}).rowcount == 1
        if isinstance(settled.outcome, Failure) and settled.outcome.code == "file-changed":
            connection.execute(delete(files).where(files.c.path == settled.outcome.where))
        if taken and isinstance(settled.outcome, Failure):
            told = {
                "unit": after.unit,
                "dataset": settled.dataset,
                "state": after.state,
                "attempts": after.attempts,
            }
            add_event(
                connection, settled.job, "unit-failed", now, {**told, "error": settled.outcome.problem()}
            )
        return taken

    # stored sums

    def merged(self, job: str, dataset: str, node: Node, name: str, receipt: Receipt) -> None:
        """Write down that a node of the tree is summed and stored."""
        with self._write() as connection:
            level, position = node
            place = {"job": job, "dataset": dataset, "level": level, "position": position}
            cost = {"digest": receipt.digest, "seconds": receipt.seconds}
            connection.execute(insert(merges).values(**place, partial=name, **cost))

    def sums(self, job: str) -> list[tuple[str, Node, str]]:
        """Return the stored sums of a job: data set, node, name."""
        with self.database.read() as connection:
            rows = connection.execute(select(merges).where(merges.c.job == job))
            return [(row.dataset, (row.level, row.position), row.partial) for row in rows]

    # snapshots

    def new_generation(self, job: str) -> int:
        """Return the number of a snapshot that is about to be written."""
        with self._write() as connection:
            last = connection.execute(
                select(func.max(generations.c.n)).where(generations.c.job == job)
            ).scalar_one()
            n: int = (last or 0) + 1
            empty = {"events": 0, "units": 0, "fraction": 0.0}
            connection.execute(insert(generations).values(job=job, n=n, created=self.clock(), **empty))
        return n

    def unpublished(self, job: str) -> list[int]:
        """Return the snapshots that were begun and not published; their numbers are not used again."""
        begun = (generations.c.job == job, generations.c.published.is_(False))
        with self.database.read() as connection:
            return list(connection.execute(select(generations.c.n).where(*begun)).scalars())

    def has_final(self, job: str) -> bool:
        """Whether the last snapshot is published, since the job was tried again if it was."""
        last = (generations.c.job == job, generations.c.published, generations.c.final)
        query = select(generations.c.n).join(jobs).where(*last, generations.c.n > jobs.c.retried_after)
        with self.database.read() as connection:
            return connection.execute(query).first() is not None

    def publish(self, job: str, n: int, facts: Mapping[str, Any]) -> None:
        """Write down that a snapshot can be read.

        Parameters
        ----------
        facts : mapping
            ``final``, ``complete``, ``events``, ``units``, ``fraction``, ``bytes``, ``seconds``.
        """
        place = (generations.c.job == job, generations.c.n == n)
        with self._write() as connection:
            connection.execute(update(generations).where(*place).values(published=True, **facts))
            row = connection.execute(select(generations).where(*place)).one()
            told = views.generation(row).model_dump(mode="json")
            add_event(connection, job, "snapshot", self.clock(), told)


_OF = (units.c.job == bindparam("of_job"), units.c.unit == bindparam("of_unit"))
_BEGUN = update(units).where(*_OF, units.c.state == UnitState.PENDING)
_ENDED = update(units).where(*_OF, units.c.state == UnitState.RUNNING, units.c.token == bindparam("of_token"))
"""Made once: to put a statement together takes longer than to execute it. What is set is in the parameters."""


def _recall(connection: Connection, job: str) -> None:
    running = (units.c.job == job, units.c.state == UnitState.RUNNING)
    connection.execute(update(units).where(*running).values(state=UnitState.PENDING, token=None))


def _receipt(receipt: Receipt) -> dict[str, Any]:
    return {
        "digest": receipt.digest,
        "entries": receipt.counts["entries"],
        "sum_sign": receipt.counts.get("sum_sign", 0),
        "bytes": receipt.nbytes,
        "counts": receipt.counts,
        "seconds": receipt.seconds,
        "commit_seconds": receipt.commit,
        "reused": receipt.reused,
        "error": None,
        "traceback": None,
    }
