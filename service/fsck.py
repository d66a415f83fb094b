"""``binworks fsck``: whether all is there that the ledger counts, with the bits that it had; and repairs."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy import select
from sqlalchemy.exc import DatabaseError, OperationalError

from binworks.service.database import Database, jobs
from binworks.service.gc import PARTIALS
from binworks.service.repair import Repairs
from binworks.service.settings import Settings
from binworks.service.soundness import Checks, Finding
from binworks.service.store import Store

DAMAGED = 1
BATCH = 1000
RESTORE = "Restore the job database from a backup, then check again."
COLLECT = "binworks gc removes what is garbage."


@dataclass
class Report:
    """What was found.

    Parameters
    ----------
    findings : list of Finding
        Damage and garbage.
    checked : dict
        How many things of each kind were looked at.
    """

    findings: list[Finding] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Whether no damage is left."""
        return all(f.level == "garbage" or f.outcome == "repaired" for f in self.findings)

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"sound": self.sound, **asdict(self)}


def check(
    database: Database,
    store: Store,
    settings: Settings,
    *,
    quick: bool = False,
    repair: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Report:
    """Check a store against its ledger and its digests; the service may run meanwhile.

    Parameters
    ----------
    database, store, settings
        Of the service.
    quick : bool
        Whether to look only if things are there, without reading sums.
    repair : bool
        Whether to repair what can be repaired.
    progress : callable
        Called with the number of things that are checked, and of all.
    """
    report = Report()
    report.findings += list(_database(database))
    if report.findings:
        return report
    database.create_tables()
    checks = Checks(database, store, quick=quick)
    repairs = Repairs(database, store, settings, checks) if repair else None
    expected = checks.expected()
    names = sorted({*store.children(PARTIALS), *(name for name, about in expected.items() if about.needed)})
    with database.read() as connection:
        ids = list(connection.execute(select(jobs.c.id).order_by(jobs.c.created)).scalars())
    total = len(names) + len(ids)
    damaged: list[Finding] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            for done, found in enumerate(
                pool.map(lambda name: checks.partial(name, expected), batch), start + 1
            ):
                damaged += found
                progress(done, total)
    report.findings += damaged if repairs is None else repairs.partials(damaged)
    for done, job in enumerate(ids, len(names) + 1):
        found = checks.job(job)
        report.findings += repairs.job(job, found) if repairs and found else found
        progress(done, total)
    indexes = list(checks.indexes())
    report.findings += indexes if repairs is None else map(repairs.index, indexes)
    report.findings += checks.orphans(expected)
    report.checked = {"partials": len(names), "jobs": len(ids), "indexes": len(store.children("indexes"))}
    return report


def _database(database: Database) -> Iterator[Finding]:
    """Let SQLite check its file; a server looks after its own."""
    if database.engine.dialect.name != "sqlite":
        return
    try:
        with database.read() as connection:
            told = list(connection.exec_driver_sql("PRAGMA integrity_check(5)").scalars())
            loose = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    except (DatabaseError, sqlite3.DatabaseError) as error:
        if isinstance(error, OperationalError | sqlite3.OperationalError):
            raise
        told, loose = [str(getattr(error, "orig", error))], []
    if told != ["ok"]:
        yield Finding("database-damaged", "database", "; ".join(told), hint=RESTORE)
    elif loose:
        message = f"{len(loose)} rows belong to rows that do not exist."
        yield Finding("database-damaged", "database", message, hint=RESTORE)


def command(
    home: Annotated[Path, typer.Option(envvar="BINWORKS_HOME", help="Folder of the service.")],
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Look only if things are there; do not read the sums.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check what is stored against the ledger and its digests; the exit code is 1 if damage is left.

    The service may run meanwhile. Only units of unfinished jobs are not repaired while it does.

    For example:

    binworks fsck --home binworks-home --quick

    binworks fsck --home binworks-home --repair
    """
    settings = Settings.load(home)
    database = Database(settings.database_url)
    bar = Progress(console=Console(stderr=True), transient=True, disable=as_json)
    try:
        with bar:
            task = bar.add_task("checking", total=None)
            report = check(
                database,
                Store.open(settings.store_url),
                settings,
                quick=quick,
                repair=repair,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    finally:
        database.close()
    if as_json:
        typer.echo(json.dumps(report.document()))
    else:
        _tell(report)
    if not report.sound:
        raise typer.Exit(DAMAGED)


def _tell(report: Report) -> None:
    console = Console(highlight=False)
    if report.findings:
        table = Table("finding", "where", "what", "", box=None, header_style="bold")
        for finding in sorted(report.findings, key=lambda found: found.level):
            style = {"repaired": "green"}.get(
                finding.outcome or "", "red" if finding.level == "damage" else "dim"
            )
            table.add_row(finding.kind, finding.where, finding.message, finding.outcome or "", style=style)
        console.print(table)
        for hint in dict.fromkeys(finding.hint for finding in report.findings if finding.hint):
            console.print(hint)
    if any(finding.level == "garbage" for finding in report.findings):
        console.print(COLLECT)
    checked = ", ".join(f"{count:,} {kind}" for kind, count in report.checked.items()) or "the job database"
    console.print(f"Checked {checked}: {'sound' if report.sound else 'DAMAGED'}.")
