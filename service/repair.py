"""Repairs of what a check has found. Each may be cut short at any moment and begun again, and never makes it worse."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.engine import Connection

from binworks.service import anew, jobstate, layout, lease, plan, snapshot, views, worker
from binworks.service.database import Database, generations, jobs, merges, units
from binworks.service.exports import Exports, attempts
from binworks.service.jobs import add_event
from binworks.service.model import UnitState
from binworks.service.objects import ROOT
from binworks.service.rim import token
from binworks.service.settings import Settings
from binworks.service.snapshot import Cut
from binworks.service.soundness import Checks, Facts, Finding, load, settled
from binworks.service.store import Store
from binworks.service.tasks import Prepare, Receipt, Recipe
from binworks.service.tree import FAN_IN, Sum, Tree
from binworks.service.work import from_rows, sum_counts
from binworks.tensors.errors import BinworksError

PASSES = 3
"""One thing may hide another: a data set that is not there, that the metadata lack it."""
STOP_FIRST = (
    "A driver is at work: stop the service and repair again. What it comes upon, it makes anew itself."
)
SUBMIT_AGAIN = "What it could be made from is gone, or was changed: submit the job again."


class Repairs:
    """The repairs of one store.

    Parameters
    ----------
    database, store, settings
        Of the service.
    checks : Checks
        How to see whether it helped.
    """

    def __init__(self, database: Database, store: Store, settings: Settings, checks: Checks) -> None:
        self.database = database
        self.store = store
        self.settings = settings
        self.checks = checks

    # stored sums and file indexes

    def partials(self, findings: Sequence[Finding]) -> list[Finding]:
        """Put damaged sums aside; those that an unfinished job needs are to be filled again.

        Units change only while no driver is at work.
        """
        needed = {str(finding.name) for finding in findings if finding.needed}
        reopened = not needed or self._reopen(needed)
        outcomes = []
        for finding in findings:
            if finding.needed and not reopened:
                outcomes.append(replace(finding, outcome="refused", hint=STOP_FIRST))
                continue
            self.store.put_aside(finding.where)
            outcomes.append(replace(finding, outcome="repaired"))
        return outcomes

    def _reopen(self, names: Collection[str]) -> bool:
        """Let units wait again, and forget sums, that lack these partials; False if a driver is at work."""
        now = time.time()
        with self.database.write() as connection:
            fence = lease.acquire(connection, lease.identity(), now, self.settings.lease_seconds)
            if fence is None:
                return False  # a driver that was only frozen cannot write any more: the number has changed
            active = select(jobs.c.id).where(jobs.c.state.in_(jobstate.ACTIVE))
            for job in connection.execute(active).scalars().all():
                _reopen_units(connection, job, names)
            lease.renew(connection, fence, now, 0.0)
        return True

    def index(self, finding: Finding) -> Finding:
        """Remove the index of a file; the next reader makes it again."""
        self.store.remove(finding.where)
        return replace(finding, outcome="repaired")

    # jobs

    def job(self, job: str, findings: Sequence[Finding]) -> list[Finding]:
        """Repair what can be repaired of a job's snapshots; the rest is lost."""
        left = list(findings)
        for _ in range(PASSES):
            for finding in left:
                facts = load(self.database, job)
                if facts is not None and finding.level == "damage":
                    self._mend(facts, finding)
            left = self.checks.job(job)
            if not any(finding.level == "damage" for finding in left):
                break
        known = {finding.place for finding in findings}
        new = [finding for finding in left if finding.place not in known]
        return [
            replace(finding, hint=SUBMIT_AGAIN) if finding.outcome == "lost" else finding
            for finding in settled([*findings, *new], left)
        ]

    def _mend(self, facts: Facts, finding: Finding) -> None:
        n, name = finding.n or 0, str(finding.name)
        mend = {
            "data-set-damaged": lambda: self._rebuild(facts, n, name),
            "metadata-differ": lambda: self._seal(facts, n),
            "manifest-damaged": lambda: self._write_manifest(facts, n),
            "row-differs": lambda: self._publish(facts, n),
            "row-missing": lambda: self._make_readable(facts, n),
            "expansion-damaged": lambda: self._expand(facts, finding.where),
            "export-damaged": lambda: self._forget_export(facts, name),
        }.get(finding.kind)
        if mend is not None:
            try:
                mend()
            except (BinworksError, ValueError, KeyError, TypeError):
                return  # the next check says what is left

    def _forget_export(self, facts: Facts, name: str) -> None:
        """Take a file for a fit away; whoever asks for it again gets a new one."""
        fence = Exports(self.database).delete(facts.id, name)
        for left in attempts(self.store, facts.id, name, fence):
            self.store.remove(left)

    def _rebuild(self, facts: Facts, n: int, name: str) -> None:
        """Add up a data set again, aside; it takes the place of the damaged one if it has the manifest's digest."""
        said = self.store.read_json(layout.manifest(facts.id, n))
        digest = said["datasets"][name]["digest"]
        dataset = next(found for found in facts.resolved.datasets if found.name == name)
        attributes = snapshot.dataset_attributes(dataset)
        for value in self._values(facts, said, name):
            aside = f"tmp/rebuilt-{token()}"
            recipe = Recipe.of(facts.resolved)
            task = snapshot.write_dataset(self.settings.store_url, aside, recipe, dataset, value)
            outcome = worker.run(task)
            if isinstance(outcome, Receipt) and outcome.digest == digest:
                sums = self.store.read_accumulator(aside, digest)
                key = layout.dataset(facts.id, n, name)
                self.store.put_aside(key)
                self.store.write_accumulator(key, sums, attributes)
            self.store.remove(aside)
            if isinstance(outcome, Receipt) and outcome.digest == digest:
                return

    def _values(self, facts: Facts, said: dict[str, Any], name: str) -> Iterator[str | Sum | None]:
        """Give the ways to add up a data set along its tree: from the units, and from sums that are stored."""
        partials = {unit["unit"]: unit["partial"] for unit in said["units"] if unit["dataset"] == name}
        rows = facts.of(name)
        if not partials.items() <= {row.unit: row.partial for row in rows}.items():
            return  # the job was planned anew since
        tree = Tree(len(rows))
        for position, row in enumerate(rows):
            tree.settle_leaf(position, partials.get(row.unit))
        yield tree.value() if rows else None
        tried: set[tuple[int, int]] = set()
        while ready := [(node, names) for node, names in tree.ready() if node not in tried]:
            for node, names in ready:
                tried.add(node)
                merged = plan.merged_name(names)
                if self.store.exists(layout.partial(merged)):
                    tree.stored[node] = merged
        if tried:
            yield tree.value()

    def _seal(self, facts: Facts, n: int) -> None:
        said = self.store.read_json(layout.manifest(facts.id, n))
        root = layout.generation(facts.id, n)
        self.store.remove(f"{root}/{ROOT}")
        self.store.seal(root, facts.root(said))

    def _write_manifest(self, facts: Facts, n: int) -> None:
        """Write the manifest again, if the ledger still tells exactly what is in the snapshot."""
        row = next(found for found in facts.generations if found.n == n)
        attributes = self.store.attributes(layout.generation(facts.id, n))
        works = from_rows([unit for _, unit in sorted(facts.units.items())], {})
        cut = Cut(
            n=n,
            final=row.final,
            values={},
            works=[work for work in works if work.status.state == UnitState.DONE],
            skipped=[work for work in works if work.status.state == UnitState.SKIPPED],
            unreadable=facts.row.unreadable,
            events=sum(work.events for work in works),
            created=datetime.fromisoformat(attributes["created"]).timestamp(),
        )
        same = snapshot.root_attributes(facts.id, facts.resolved, cut) == attributes
        if not same or any(getattr(row, name) != value for name, value in snapshot.row(cut).items()):
            return
        datasets = {}
        for name in attributes["datasets"]:
            key = layout.dataset(facts.id, n, name)
            counts = sum_counts(work for work in cut.works if work.dataset == name)
            datasets[name] = {"digest": self.store.attributes(key)["digest"], "counts": counts}
            self.store.read_accumulator(key)
        key = layout.manifest(facts.id, n)
        self.store.remove(key)
        self.store.create_json(key, snapshot.manifest(facts.id, facts.resolved, cut, datasets))

    def _make_readable(self, facts: Facts, n: int) -> None:
        """Publish a snapshot that only the ledger lacks, if all of it is sound or can be made so."""
        said = self.store.read_json(layout.manifest(facts.id, n))
        if facts.check(said, _row(said, n)):
            if (
                not facts.finished
            ):  # the ledger is older than the store: the job makes it anew, under this number
                self.store.put_aside(layout.generation(facts.id, n))
                self.store.remove(layout.manifest(facts.id, n))
            return
        for name, described in said["datasets"].items():
            key = layout.dataset(facts.id, n, name)
            if self.checks.data_set(key, described):
                self._rebuild(facts, n, name)
            if self.checks.data_set(key, described):
                return
        if self.checks.metadata(layout.generation(facts.id, n), facts.root(said)):
            self._seal(facts, n)
        self._publish(facts, n)

    def _publish(self, facts: Facts, n: int) -> None:
        """Let the ledger say what the manifest says."""
        said = self.store.read_json(layout.manifest(facts.id, n))
        created = datetime.fromisoformat(said["created"]).timestamp()
        nbytes = self.store.nbytes(layout.generation(facts.id, n))
        place = (generations.c.job == facts.id, generations.c.n == n)
        with self.database.write() as connection:
            if connection.execute(select(jobs.c.id).where(jobs.c.id == facts.id)).first() is None:
                return
            before = connection.execute(select(generations).where(*place)).one_or_none()
            if before is None:
                values = {"job": facts.id, "n": n, "created": created, "bytes": nbytes, "published": True}
                connection.execute(insert(generations).values(**values, **said["row"]))
            else:
                connection.execute(update(generations).where(*place).values(published=True, **said["row"]))
            if before is None or not before.published:
                row = connection.execute(select(generations).where(*place)).one()
                told = views.generation(row).model_dump(mode="json")
                add_event(connection, facts.id, "snapshot", time.time(), told)

    def _expand(self, facts: Facts, key: str) -> None:
        self.store.put_aside(key)
        worker.run(Prepare(self.settings.store_url, facts.id, Recipe.of(facts.resolved)))


def _row(said: dict[str, Any], n: int) -> Any:
    """Return a manifest as the row that it should have."""
    return type("Said", (), {"n": n, **said["row"]})


def _reopen_units(connection: Connection, job: str, names: Collection[str]) -> None:
    """Let units of a job wait again that lack their partial; forget the sums above them, and those that lack theirs."""
    rows = connection.execute(
        select(units.c.unit, units.c.dataset, units.c.partial, units.c.state)
        .where(units.c.job == job)
        .order_by(units.c.unit)
    ).all()
    for row, position in _positions(rows):
        if row.partial in names and row.state == UnitState.DONE:
            place = (units.c.job == job, units.c.unit == row.unit)
            connection.execute(update(units).where(*place).values(**anew.FRESH, **anew.FORGOTTEN))
            _forget_above(connection, job, row.dataset, 0, position)
    sums = select(merges).where(merges.c.job == job, merges.c.partial.in_(names))
    for row in connection.execute(sums).all():
        connection.execute(delete(merges).where(merges.c.id == row.id))
        _forget_above(connection, job, row.dataset, row.level, row.position)


def _positions(rows: Sequence[Any]) -> Iterator[tuple[Any, int]]:
    """Give each unit with its place among those of its data set."""
    counted: dict[str, int] = {}
    for row in rows:
        yield row, counted.get(row.dataset, 0)
        counted[row.dataset] = counted.get(row.dataset, 0) + 1


def _forget_above(connection: Connection, job: str, dataset: str, level: int, position: int) -> None:
    """Forget the sums above a node of the tree; they are found again by name."""
    place = (merges.c.job == job, merges.c.dataset == dataset)
    for row in connection.execute(select(merges).where(*place, merges.c.level > level)).all():
        if row.position == position // FAN_IN ** (row.level - level):
            connection.execute(delete(merges).where(merges.c.id == row.id))
