"""The collector: removes what nobody needs, while the service works. What is garbage is decided in `garbage`.

Write transactions are one at a time, and a plan's units are written before any worker looks for their partials. So a
partial is removed within a write transaction that has looked whether an unfinished job refers to it: a job that comes
later finds nothing and fills it. The row of a snapshot goes in the transaction that has looked for pins; its files go
after that, and if that is cut short, the next run goes on.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from sqlalchemy import and_, delete, func, or_, select
from sqlalchemy.engine import Connection, Row

from binworks.service import jobstate, layout
from binworks.service.database import Database, exports, files, generations, jobs, merges, pins, units
from binworks.service.exports import attempts
from binworks.service.garbage import Generation, Partial, superseded, unused
from binworks.service.settings import Settings
from binworks.service.store import Store
from binworks.tensors.errors import BinworksError, RequestError, TransientError

PARTIALS = "partials"
BATCH = 50
LOCK_SECONDS = 0.1
"""Others wait for the write lock no longer than this and one removal."""
PAUSE_SECONDS = 0.05
RUN_SECONDS = 20.0
DAY = 86_400.0

T = TypeVar("T")


@dataclass
class Report:
    """What was removed, or would be.

    Parameters
    ----------
    snapshots, partials, folders : int
        Superseded or abandoned snapshots; stored sums; folders of jobs that were deleted.
    exports : int
        Files for fits that nobody read for long.
    nbytes : int
        Of all these in the store.
    freeable : int or None
        Bytes of what is kept for a while and needed by nothing: partials that no unfinished job refers to, superseded
        snapshots that are not pinned. None if it was not asked for.
    finished : bool
        Whether all garbage was dealt with; if not, the next run goes on.
    """

    snapshots: int = 0
    partials: int = 0
    folders: int = 0
    exports: int = 0
    nbytes: int = 0
    freeable: int | None = None
    finished: bool = True

    def __str__(self) -> str:
        counts = f"{self.snapshots} snapshots, {self.partials} partials, {self.exports} exports"
        return f"{counts}, {self.folders} job folders: {self.nbytes} bytes"


def collect(
    database: Database,
    store: Store,
    settings: Settings,
    now: float,
    *,
    seconds: float = RUN_SECONDS,
    dry_run: bool = False,
    thorough: bool = False,
) -> Report:
    """Remove garbage; any number of these may run beside the service and each other.

    Parameters
    ----------
    database, store, settings
        Of the service.
    now : float
        Seconds since 1970.
    seconds : float
        About how long it may take; the next run goes on.
    dry_run : bool
        Whether to say only what would be removed.
    thorough : bool
        Whether to look through the folders of old jobs too, and to add up what could be freed.

    Raises
    ------
    TransientError
        If the store does not answer.
    """
    if not dry_run:
        store.remove_stale_drafts()
    collector = _Collector(database, store, settings, now, time.monotonic() + seconds, dry_run, thorough)
    # last what must write into the database: it may be on the disk that is full
    for step in (collector.folders, collector.partials, collector.snapshots, collector.exports):
        step()
    if thorough:
        collector.add_up_freeable()
    return collector.report


@dataclass(frozen=True)
class _Rows:
    """What the ledger says of stored sums at one moment.

    Parameters
    ----------
    used, bases : dict
        When they were last used, and their names without variation groups, by name.
    referred : set
        Names that unfinished jobs refer to.
    planned : set
        The unfinished jobs that had a plan, with the time of their start: such a plan does not change. A job that is
        planned anew starts anew.
    """

    used: dict[str, float]
    bases: dict[str, str]
    referred: set[str]
    planned: set[tuple[str, float | None]]


class _Collector:
    def __init__(
        self,
        database: Database,
        store: Store,
        settings: Settings,
        now: float,
        end: float,
        dry_run: bool,
        thorough: bool,
    ) -> None:
        self.database = database
        self.store = store
        self.settings = settings
        self.now = now
        self.end = end
        self.dry_run = dry_run
        self.thorough = thorough
        self.report = Report()
        self._freeable: list[str] = []
        self._removed: set[str] = set()

    @property
    def _late(self) -> bool:
        if time.monotonic() > self.end:
            self.report.finished = False
        return not self.report.finished

    def _remove(self, key: str) -> None:
        self._weigh(key)
        if not self.dry_run:
            self.store.remove(key)

    def _weigh(self, key: str) -> None:
        self.report.nbytes += self.store.nbytes(key)
        self._removed.add(key)

    # folders of jobs

    def folders(self) -> None:
        """Remove the folders of jobs that were deleted; ids are never used again."""
        found = self.store.children("jobs")
        with self.database.read() as connection:
            known = set(connection.execute(select(jobs.c.id)).scalars())
            used = known or connection.execute(select(files.c.id).limit(1)).first()
        if found and not used:
            raise RequestError(
                f"This ledger has never known a job, and the store has {len(found)}.",
                code="wrong-ledger",
                where=self.database.engine.url.render_as_string(hide_password=True),
                hint="Nothing was removed. Is this the right home, and is its job database where it was "
                "(BINWORKS_DATABASE)?",
            )
        for job in found:
            if job not in known and not self._late:
                self._remove(layout.job(job))
                self.report.folders += 1

    # snapshots

    def snapshots(self) -> None:
        """Remove snapshots that are superseded, or were never published."""
        stored = self._stored()
        with self.database.read() as connection:
            rows = list(_generations(connection, stored))
        known = [*rows, *self._leftovers(stored, {(row.job, row.n) for row in rows})]
        # a row without files stays: its number must not be used again
        garbage = [g for g in self._superseded(known) if g.readable or (g.job, g.n) in stored]
        self._freeable += [
            layout.generation(g.job, g.n) for g in superseded(known, self.now, -math.inf) if g.readable
        ]
        for batch in _batches(garbage):
            if self._late:
                return
            for found in batch if self.dry_run else self._forget(batch, stored):
                self._remove(layout.manifest(found.job, found.n))
                self._remove(layout.generation(found.job, found.n))
                self.report.snapshots += 1
        if not self.dry_run:
            with self.database.write() as connection:
                connection.execute(delete(pins).where(pins.c.until <= self.now))

    def _superseded(self, known: Collection[Generation]) -> list[Generation]:
        return superseded(known, self.now, self.settings.keep_snapshots_seconds)

    def _stored(self) -> dict[tuple[str, int], bool]:
        """Return the snapshots of which something is stored, and whether they have a manifest."""
        query = select(jobs.c.id)
        if not self.thorough:  # rows tell all, but for what a crash left behind
            ended = self.now - self.settings.keep_snapshots_seconds - DAY
            query = query.where(or_(jobs.c.finished.is_(None), jobs.c.finished > ended))
        with self.database.read() as connection:
            recent = list(connection.execute(query).scalars())
        found: dict[tuple[str, int], bool] = {}
        for job in recent:
            found |= {(job, n): False for n in numbers(self.store, f"{layout.job(job)}/g")}
            found |= {(job, n): True for n in numbers(self.store, f"{layout.job(job)}/m")}
        return found

    def _leftovers(
        self, stored: Mapping[tuple[str, int], bool], rows: Collection[tuple[str, int]]
    ) -> Iterator[Generation]:
        """Give the stored snapshots without a row: an earlier run was cut short, or the ledger has lost it."""
        for job, n in stored:
            if (job, n) not in rows:
                yield leftover(self.store, job, n)

    def _forget(
        self, batch: Sequence[Generation], stored: Mapping[tuple[str, int], bool]
    ) -> list[Generation]:
        """Take away the rows of those that are still garbage; return these."""
        asked = {(found.job, found.n) for found in batch}
        with self.database.write() as connection:
            rows = list(_generations(connection, stored, {job for job, _ in asked}))
            known = [*rows, *(found for found in batch if not found.row)]
            garbage = [g for g in self._superseded(known) if (g.job, g.n) in asked]
            last = {row.job: row.n for row in sorted(rows, key=lambda row: row.n)}
            for g in garbage:
                if g.n < last.get(g.job, 0):  # the last number must not be used again
                    pinned, place = (pins.c.job == g.job, pins.c.n == g.n), generations.c.job == g.job
                    connection.execute(delete(pins).where(*pinned))
                    connection.execute(delete(generations).where(place, generations.c.n == g.n))
        return garbage

    # files for fits

    def exports(self) -> None:
        """Remove files for fits that nobody read for long, and those of attempts that were cut short."""
        unread = self.now - self.settings.keep_exports_days * DAY
        with self.database.read() as connection:
            rows = connection.execute(select(exports)).all()
        for row in rows:
            if self._late:
                return
            old = row.state in ("ready", "failed") and row.asked < unread
            forgotten = old and (self.dry_run or self._forget_export(row))
            self.report.exports += forgotten
            for left in attempts(self.store, row.job, row.id, row.fence if forgotten else row.fence - 1):
                self._remove(left)
        if self.thorough:
            self._nobodys_exports()

    def _forget_export(self, row: Row[Any]) -> bool:
        """Take away its row, unless somebody has asked for it meanwhile."""
        same = (exports.c.id == row.id, exports.c.asked == row.asked, exports.c.state == row.state)
        with self.database.write() as connection:
            return bool(connection.execute(delete(exports).where(*same)).rowcount)

    def _nobodys_exports(self) -> None:
        """Remove files whose rows are gone: a removal was cut short."""
        for job in self.store.children("jobs"):
            for name in self.store.children(layout.exports(job)):
                there = attempts(self.store, job, name, sys.maxsize)
                with self.database.read() as connection:
                    known = connection.execute(select(exports.c.id).where(exports.c.id == name)).first()
                if known is None:  # whoever asks for it from now on has a larger number
                    for left in there or [layout.exports(job, name)]:
                        self._remove(left)
                    self.report.exports += bool(there)

    # partials

    def partials(self) -> None:
        """Remove stored sums that no unfinished job refers to, a few at a time."""
        names = self.store.children(PARTIALS)
        with self.database.read() as connection:
            rows = _rows(connection)
        idle = [self._partial(name, rows) for name in names if name not in rows.referred]
        self._freeable += [layout.partial(found.name) for found in idle]
        keep = self.settings.keep_partials_days * DAY
        old = [self._with_children(found) for found in unused(idle, rows.referred, self.now, keep)]
        for batch in _batches(unused(old, rows.referred, self.now, keep)):
            if self._late:
                return
            sizes = {found.name: self.store.nbytes(layout.partial(found.name)) for found in batch}
            for name in sizes if self.dry_run else self._discard(batch, rows.planned):
                self.report.partials += 1
                self.report.nbytes += sizes[name]
                self._removed.add(layout.partial(name))

    def _partial(self, name: str, rows: _Rows) -> Partial:
        used = rows.used.get(name)
        if used is None:
            used = self.store.modified(layout.partial(name))
        base = rows.bases.get(name)
        return Partial(name, used, (base,) if base else ())

    def _with_children(self, found: Partial) -> Partial:
        try:
            children = self.store.attributes(layout.partial(found.name)).get("children", [])
        except BinworksError:  # gone, or damaged, or it cannot be read at the moment
            return replace(found, used=None)
        return replace(found, through=(*found.through, *children[:1]))

    def _discard(self, batch: Sequence[Partial], planned: Collection[tuple[str, float | None]]) -> list[str]:
        """Remove those that are still unused; return their names."""
        left, removed = list(batch), list[str]()
        while left:
            begin = time.monotonic()
            with self.database.write() as connection:
                names = frozenset[str]().union(*(found.names for found in left))
                referred = _referred(connection, names, planned)
                left = [found for found in left if found.names.isdisjoint(referred)]
                while left and time.monotonic() - begin < LOCK_SECONDS:
                    name = left.pop().name
                    self.store.remove(layout.partial(name))
                    removed.append(name)
            time.sleep(PAUSE_SECONDS)  # let others have the lock
        return removed

    def add_up_freeable(self) -> None:
        """Add up the bytes of what is kept although nothing needs it now."""
        self.report.freeable = sum(
            self.store.nbytes(key) for key in self._freeable if key not in self._removed
        )


def numbers(store: Store, prefix: str) -> list[int]:
    """Return the numbers of the snapshots that have something below a key: groups, or manifests."""
    names = (name.removesuffix(".json") for name in store.children(prefix))
    return [int(name) for name in names if name.isdecimal()]


def leftover(store: Store, job: str, n: int) -> Generation:
    """Return a stored snapshot of which the ledger knows nothing, by what its manifest says."""
    created, readable, final = 0.0, True, True
    try:
        said = store.read_json(layout.manifest(job, n))
        created, final = datetime.fromisoformat(said["created"]).timestamp(), bool(said["final"])
    except RequestError:  # none: it was never published
        readable = False
    except (TransientError, ValueError, KeyError, TypeError):
        pass  # it cannot be read: it may have been a result
    return Generation(job, n, created, readable=readable, final=final, finished=False, row=False)


def _generations(
    connection: Connection, stored: Mapping[tuple[str, int], bool], of: Collection[str] | None = None
) -> Iterator[Generation]:
    """Give all snapshots that have a row; one that has a manifest counts as published."""
    columns = (generations.c.job, generations.c.n, generations.c.created, generations.c.final)
    pinned = and_(pins.c.job == generations.c.job, pins.c.n == generations.c.n)
    query = select(*columns, generations.c.published, jobs.c.state, pins.c.until)
    query = query.select_from(generations.join(jobs).outerjoin(pins, pinned))
    if of is not None:
        query = query.where(generations.c.job.in_(of))
    for row in connection.execute(query):
        yield Generation(
            job=row.job,
            n=row.n,
            created=row.created,
            readable=row.published or stored.get((row.job, row.n), False),
            final=row.final,
            finished=row.state in jobstate.FINISHED,
            pinned=row.until or 0.0,
        )


def _rows(connection: Connection) -> _Rows:
    unfinished = jobs.c.state.in_(jobstate.ACTIVE)
    filled = select(
        units.c.partial, func.max(units.c.base).label("base"), func.max(units.c.finished).label("used")
    )
    merged = select(merges.c.partial, func.max(jobs.c.finished).label("used")).join(jobs)
    used: dict[str, float] = {}
    bases: dict[str, str] = {}
    for name, base, last in connection.execute(filled.group_by(units.c.partial)):
        bases[name] = base
        if last is not None:
            used[name] = last
    for name, last in connection.execute(merged.group_by(merges.c.partial)):
        if last is not None:
            used[name] = max(last, used.get(name, 0.0))
    referred: set[str] = set()
    for column in (units.c.partial, units.c.base, merges.c.partial):
        query = select(column).join_from(column.table, jobs).where(unfinished).distinct()
        referred |= set(connection.execute(query).scalars())
    plans = select(jobs.c.id, jobs.c.started).where(unfinished, jobs.c.planned)
    planned = {(job, started) for job, started in connection.execute(plans)}
    return _Rows(used, bases, referred - {""}, planned)


def _referred(
    connection: Connection, names: Collection[str], planned: Collection[tuple[str, float | None]]
) -> set[str]:
    """Return those of the names that unfinished jobs refer to by now; the units of some plans are known already."""
    unfinished = jobs.c.state.in_(jobstate.ACTIVE)
    merged = select(merges.c.partial).join(jobs).where(unfinished, merges.c.partial.in_(names))
    found = set(connection.execute(merged).scalars())
    active = connection.execute(select(jobs.c.id, jobs.c.started).where(unfinished)).all()
    new = [job for job, started in active if (job, started) not in planned]
    for column in (units.c.partial, units.c.base) if new else ():
        query = select(column).where(units.c.job.in_(new), column.in_(names)).distinct()
        found |= set(connection.execute(query).scalars())
    return found


def _batches(found: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(found), BATCH):
        yield found[start : start + BATCH]


def command(
    home: Annotated[Path, typer.Option(envvar="BINWORKS_HOME", help="Folder of the service.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Remove what nobody needs any more; the service may run meanwhile, and does the same now and then.

    That is: superseded snapshots that nobody reads, partials that were not used for long, folders of deleted jobs, and
    what crashed writers left behind. The results of jobs stay.

    For example:

    binworks gc --home binworks-home --dry-run
    """
    settings = Settings.load(home)
    database = Database(settings.database_url)
    try:
        database.create_tables()
        store = Store.open(settings.store_url)
        report = collect(
            database, store, settings, time.time(), seconds=math.inf, dry_run=dry_run, thorough=True
        )
    finally:
        database.close()
    if as_json:
        typer.echo(json.dumps({**asdict(report), "dry_run": dry_run}))
    else:
        _tell(report, dry_run=dry_run)


def _tell(report: Report, *, dry_run: bool) -> None:
    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    table.add_row("would be removed" if dry_run else "removed", decimal(report.nbytes))
    table.add_row("snapshots", f"{report.snapshots:,}")
    table.add_row("partials", f"{report.partials:,}")
    table.add_row("files for fits", f"{report.exports:,}")
    table.add_row("folders of deleted jobs", f"{report.folders:,}")
    table.add_row("kept for a while, needed by no job", decimal(report.freeable or 0))
    Console(highlight=False).print(table)
