"""Whether what is stored is what the ledger says: checks that change nothing and return findings."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.engine import Connection, Row

from binworks.processors.fileindex import DamagedIndexError, FileIndex
from binworks.service import jobstate, layout
from binworks.service.database import Database, exports, generations, jobs, merges, units
from binworks.service.garbage import superseded
from binworks.service.gc import PARTIALS, leftover, numbers
from binworks.service.model import JobState, ResolvedJob, UnitState
from binworks.service.objects import ROOT
from binworks.service.snapshot import GENERATION_SCHEMA
from binworks.service.store import Store
from binworks.tensors.errors import RequestError, TransientError

Level = Literal["damage", "garbage"]
UNREADABLE = (TransientError, ValueError, KeyError, TypeError, AttributeError)
MANIFEST_ONLY = frozenset({"code", "corrections", "row", "units", "unreadable"})
"""Fields that a manifest has and the root of its snapshot has not."""


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Parameters
    ----------
    kind : str
        One word for programs.
    where : str
        Key in the store, or part of the database.
    message : str
        What was expected, what was found.
    level : "damage" or "garbage"
        Garbage harms nobody; `binworks gc` removes it.
    job, n, name : optional
        Job, snapshot, and data set, group or partial concerned.
    needed : bool
        Whether an unfinished job needs it.
    outcome : str or None
        After an attempt to repair it: ``repaired``, ``refused`` or ``lost``.
    hint : str or None
        What to do.
    """

    kind: str
    where: str
    message: str
    level: Level = "damage"
    job: str | None = None
    n: int | None = None
    name: str | None = None
    needed: bool = False
    outcome: str | None = None
    hint: str | None = None

    @property
    def place(self) -> tuple[str, str]:
        """What makes it the same when it is found again."""
        return self.kind, self.where


@dataclass(frozen=True)
class Expected:
    """What the ledger says of stored sums."""

    digest: str | None
    needed: bool


class Checks:
    """The checks of one store.

    Parameters
    ----------
    database, store
        Of the service.
    quick : bool
        Whether to look only if things are there, without reading sums.
    """

    def __init__(self, database: Database, store: Store, *, quick: bool) -> None:
        self.database = database
        self.store = store
        self.quick = quick

    # stored sums

    def expected(self, names: Collection[str] | None = None) -> dict[str, Expected]:
        """Return what the ledger says of all stored sums, or of some."""
        found: dict[str, Expected] = {}
        with self.database.read() as connection:
            for table in (units, merges):
                query = select(table.c.partial, table.c.digest, jobs.c.state).join_from(table, jobs)
                if table is units:
                    query = query.where(units.c.state == UnitState.DONE)
                if names is not None:
                    query = query.where(table.c.partial.in_(names))
                for name, digest, state in connection.execute(query):
                    needed = state not in jobstate.FINISHED or (name in found and found[name].needed)
                    found[name] = Expected(digest, needed)
        return found

    def partial(self, name: str, expected: Mapping[str, Expected]) -> list[Finding]:
        """Check stored sums; what is found is looked at twice, as the service goes on meanwhile."""
        if not self._partial(name, expected.get(name)):
            return []
        found = self._partial(name, self.expected([name]).get(name))
        return [] if found is None else [found]

    def _partial(self, name: str, expected: Expected | None) -> Finding | None:
        key = layout.partial(name)
        about: dict[str, Any] = {"name": name, "needed": expected is not None and expected.needed}
        missing = Finding("partial-missing", key, "The ledger counts it, and it is not there.", **about)
        if not self.store.exists(f"{key}/{ROOT}"):
            if self.store.nbytes(key) and _is_folder(self.store):
                return replace(missing, kind="partial-damaged", message="Its root document is missing.")
            return missing if about["needed"] else None
        if self.quick:
            return None
        try:
            self.store.read_accumulator(key)
            digest = self.store.attributes(key)["digest"]
        except RequestError:  # removed meanwhile
            return missing if about["needed"] else None
        except TransientError as error:
            return Finding("partial-damaged", key, self._told(error), **about)
        if expected is not None and expected.digest not in (None, digest):
            message = f"It has the digest {digest}, the receipt says {expected.digest}."
            return Finding("partial-damaged", key, message, **about)
        return None

    # file indexes

    def indexes(self) -> Iterator[Finding]:
        """Check the indexes of input files; they are made again if they are gone."""
        for name in self.store.children("indexes"):
            key = f"indexes/{name}"
            try:
                index = FileIndex.from_bytes(self.store.read_bytes(key))
            except DamagedIndexError as error:
                yield Finding("index-damaged", key, f"It cannot be read: {error}.")
            except RequestError:  # replaced meanwhile
                continue
            else:
                if f"{index.uuid}-{index.size}" != name:
                    yield Finding("index-damaged", key, f"It is that of {index.uuid}, {index.size} bytes.")

    # jobs

    def job(self, job: str) -> list[Finding]:
        """Check what is stored of a job; what is found is looked at twice, as the service goes on meanwhile."""
        first = self._job(job)
        if not first:
            return []
        found = {finding.place for finding in first}
        return [finding for finding in self._job(job) if finding.place in found]

    def _job(self, job: str) -> list[Finding]:
        facts = load(self.database, job)
        if facts is None:
            return []
        found = [f for row in facts.generations if row.published for f in self._generation(facts, row)]
        found += self._expansions(facts)
        found += self._exports(facts)
        return found + list(self._unpublished(facts))

    def _generation(self, facts: Facts, row: Row[Any]) -> Iterator[Finding]:
        about: dict[str, Any] = {"job": facts.id, "n": row.n}
        key = layout.manifest(facts.id, row.n)
        try:
            said = self.store.read_json(key)
            check = facts.check(said, row)
        except RequestError:
            yield Finding("manifest-damaged", key, "It is not there.", **about)
            return
        except UNREADABLE as error:
            yield Finding("manifest-damaged", key, self._told(error), **about)
            return
        for kind, message in check:
            yield Finding(kind, key, message, **about)
        for name, described in said["datasets"].items():
            place = layout.dataset(facts.id, row.n, name)
            problem = self.data_set(place, described)
            if problem:
                yield Finding("data-set-damaged", place, problem, **about, name=name)
        root = layout.generation(facts.id, row.n)
        problem = self.metadata(root, facts.root(said))
        if problem:
            yield Finding("metadata-differ", f"{root}/{ROOT}", problem, **about)

    def data_set(self, key: str, described: Mapping[str, Any]) -> str | None:
        """Return what is wrong with a data set of a snapshot, by what the manifest says of it."""
        try:
            attributes = self.store.attributes(key)
            if attributes["digest"] != described["digest"]:
                return f"It has the digest {attributes['digest']}, the manifest says {described['digest']}."
            if any(attributes["counts"].get(kind) != count for kind, count in described["counts"].items()):
                return "Its counts are not those of the manifest."
            if not self.quick:
                self.store.read_accumulator(key, described["digest"])
        except RequestError:
            return "It is not there."
        except UNREADABLE as error:
            return self._told(error)
        return None

    def metadata(self, key: str, attributes: Mapping[str, Any]) -> str | None:
        """Return how the root of a snapshot differs from what lies below, or from the manifest."""
        try:
            root = self.store.read_json(f"{key}/{ROOT}")
            listed = root["consolidated_metadata"]["metadata"]
            below: dict[str, Any] = {}
            for name in attributes["datasets"]:
                document = self.store.read_json(f"{key}/{name}/{ROOT}")
                inner = document.pop("consolidated_metadata")["metadata"]
                below |= {name: document, **{f"{name}/{path}": found for path, found in inner.items()}}
        except RequestError as error:
            return f"{error.where} is not there."
        except UNREADABLE as error:
            return self._told(error)
        if listed != below:
            return "The consolidated metadata are not those of the groups."
        return (
            None if root.get("attributes") == attributes else "Its attributes are not those of the manifest."
        )

    def _expansions(self, facts: Facts) -> Iterator[Finding]:
        """Check how variation groups expand: those that are there, and those that stored blocks need."""
        groups = set(self.store.children(f"{layout.job(facts.id)}/expansions"))
        published = [row.n for row in facts.generations if row.published]
        if published:
            groups |= self._blocks(facts, published[-1])
        for group in sorted(groups):
            key = layout.expansion(facts.id, group)
            try:
                if self.quick:
                    self.store.attributes(key)
                else:
                    self.store.read_arrays(key)
            except (RequestError, *UNREADABLE) as error:
                message = "It is not there." if isinstance(error, RequestError) else self._told(error)
                yield Finding("expansion-damaged", key, message, job=facts.id, name=group)

    def _exports(self, facts: Facts) -> Iterator[Finding]:
        """Check the files for fits that are said to be ready."""
        with self.database.read() as connection:
            rows = _of_job(connection, exports, facts.id, exports.c.id)
        for row in rows:
            if row.state != "ready":
                continue
            key = layout.export(facts.id, row.id, row.fence)
            problem = self._file(key, layout.exports(facts.id, row.id), row.bytes, row.sha256)
            if problem:
                yield Finding("export-damaged", key, problem, job=facts.id, name=row.id)

    def _file(self, key: str, within: str, nbytes: int, sha256: str) -> str | None:
        try:
            with self.store.opened(key, within) as file:
                if file.size != nbytes:
                    return f"It has {file.size} bytes, the ledger says {nbytes}."
                digest = hashlib.sha256()
                for start in range(0, 0 if self.quick else nbytes, file.block):
                    digest.update(file.read(start, min(start + file.block, nbytes)))
        except RequestError:
            return "It is not there."
        if self.quick or digest.hexdigest() == sha256:
            return None
        return f"It has the sha256 {digest.hexdigest()}, the ledger says {sha256}."

    def _blocks(self, facts: Facts, n: int) -> set[str]:
        names: set[str] = set()
        for dataset in facts.resolved.datasets:
            try:
                names |= set(self.store.histogram_names(layout.dataset(facts.id, n, dataset.name)))
            except (RequestError, *UNREADABLE):  # told elsewhere
                continue
        return names & set(facts.resolved.systematics)

    def _unpublished(self, facts: Facts) -> Iterator[Finding]:
        """Look for snapshots that are there and cannot be read."""
        rows = {row.n: row for row in facts.generations}
        groups, manifests = (set(numbers(self.store, f"{layout.job(facts.id)}/{kind}")) for kind in "gm")
        for n in sorted(groups | manifests):
            row = rows.get(n)
            if row is not None and (row.published or not facts.finished):
                continue  # it is being written, or the next driver sees to it
            about: dict[str, Any] = {"job": facts.id, "n": n}
            key = layout.generation(facts.id, n)
            if n in manifests and not self._is_garbage(facts, n):
                message = "It has a manifest, and the ledger does not know that it is published."
                yield Finding("row-missing", key, message, **about)
            else:
                message = "It was never published." if n not in manifests else "It was superseded."
                yield Finding("abandoned-snapshot", key, message, "garbage", **about)

    def _is_garbage(self, facts: Facts, n: int) -> bool:
        """Whether its row is missing because the collector took it."""
        this = leftover(self.store, facts.id, n)
        later = [replace(this, n=row.n, row=True) for row in facts.generations if row.published]
        return not this.readable or this in superseded([this, *later], float("inf"), 0.0)

    def _told(self, error: Exception) -> str:
        """Return what is wrong with what was stored; a bucket that does not answer is another matter."""
        if not isinstance(error, TransientError):
            return f"It cannot be read: {error!r}."
        if error.code != "damaged" and not _is_folder(self.store):
            raise error
        return error.message

    # what nobody refers to

    def orphans(self, expected: Collection[str]) -> Iterator[Finding]:
        """Look for what no job refers to."""
        with self.database.read() as connection:
            known = set(connection.execute(select(jobs.c.id)).scalars())
            planned = set(connection.execute(select(units.c.partial).distinct()).scalars())
        folders = [job for job in self.store.children("jobs") if job not in known]
        names = [name for name in self.store.children(PARTIALS) if name not in planned.union(expected)]
        drafts = self.store.children("tmp")
        for kind, where, listed, what in (
            ("orphan-folder", "jobs", folders, "folders of jobs that do not exist"),
            ("orphan-partial", PARTIALS, names, "partials that no job refers to"),
            ("draft", "tmp", drafts, "drafts and things put aside"),
        ):
            if listed:
                shown = ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")
                yield Finding(kind, where, f"{len(listed):,} {what}: {shown}", "garbage")


@dataclass(frozen=True)
class Facts:
    """What the ledger says of a job."""

    row: Row[Any]
    resolved: ResolvedJob
    generations: list[Row[Any]]
    units: dict[int, Row[Any]]

    @property
    def id(self) -> str:
        """Of the job."""
        found: str = self.row.id
        return found

    @property
    def finished(self) -> bool:
        """Whether the job is."""
        return JobState(self.row.state).finished

    def of(self, dataset: str) -> list[Row[Any]]:
        """Return the units of a data set, in order."""
        return [row for _, row in sorted(self.units.items()) if row.dataset == dataset]

    def root(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Return the attributes that the root of a snapshot must have, by its manifest."""
        common = {name: value for name, value in said.items() if name not in MANIFEST_ONLY}
        names = [dataset.name for dataset in self.resolved.datasets]
        return {**common, "schema": GENERATION_SCHEMA, "datasets": names}

    def check(self, said: Mapping[str, Any], row: Row[Any]) -> list[tuple[str, str]]:
        """Compare a manifest with the ledger; return kinds and messages of what differs.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is not a manifest.
        """
        told = [("job", said["job"], self.id), ("generation", said["generation"], row.n)]
        told += [("code", said["code"], self.resolved.code)]
        told += [("data sets", sorted(said["datasets"]), sorted(d.name for d in self.resolved.datasets))]
        found = [
            ("manifest-differs", f"Its {what} is {value!r}, the ledger's {ours!r}.")
            for what, value, ours in told
            if value != ours
        ]
        differ = [name for name, value in said["row"].items() if getattr(row, name) != value]
        if differ:
            found.append(("row-differs", f"The ledger says otherwise about {', '.join(differ)}."))
        message = self._wrong_sums(said) or self._wrong_units(said, row)
        return [*found, ("entries-differ", message)] if message else found

    def _wrong_sums(self, said: Mapping[str, Any]) -> str | None:
        entries: Counter[str] = Counter()
        for unit in said["units"]:
            entries[unit["dataset"]] += unit["entries"]
        for name, described in said["datasets"].items():
            counted = described["counts"].get("entries", 0)
            if counted != entries[name]:
                return f"{name} has {counted} entries, its units have {entries[name]}."
        return None

    def _wrong_units(self, said: Mapping[str, Any], row: Row[Any]) -> str | None:
        if row.n <= self.row.retried_after:
            return None  # the job may have been planned anew since
        for unit in said["units"]:
            known = self.units.get(unit["unit"])
            if known is None or known.partial != unit["partial"]:
                return f"Unit {unit['unit']} is not in the plan."
            done = known.state == UnitState.DONE
            if done and (known.digest, known.entries) != (unit["digest"], unit["entries"]):
                return (
                    f"Unit {unit['unit']} has {known.entries} entries in the ledger, here {unit['entries']}."
                )
        done = sum(known.state == UnitState.DONE for known in self.units.values())
        if row.final and self.finished and done != len(said["units"]):
            return f"The ledger counts {done} units, here there are {len(said['units'])}."
        return None


def load(database: Database, job: str) -> Facts | None:
    """Return what the ledger says of a job; None if it was deleted."""
    with database.read() as connection:
        row = connection.execute(select(jobs).where(jobs.c.id == job)).one_or_none()
        if row is None:
            return None
        resolved = ResolvedJob.model_validate({**row.resolved, "request": row.request})
        rows = _of_job(connection, generations, job, generations.c.n)
        mine = _of_job(connection, units, job, units.c.unit)
    return Facts(row, resolved, rows, {unit.unit: unit for unit in mine})


def _of_job(connection: Connection, table: Any, job: str, order: Any) -> list[Row[Any]]:
    return list(connection.execute(select(table).where(table.c.job == job).order_by(order)))


def settled(before: Iterable[Finding], after: Iterable[Finding]) -> list[Finding]:
    """Return findings with what became of them: repaired if they are not found any more, else lost."""
    still = {finding.place for finding in after}
    return [
        finding
        if finding.level == "garbage"
        else replace(finding, outcome="lost" if finding.place in still else "repaired")
        for finding in before
    ]


def _is_folder(store: Store) -> bool:
    """Whether groups appear whole: one without a root is then not being written, but damaged."""
    try:
        return bool(store.root)
    except RequestError:
        return False
