"""What the page of a job shows besides its state: where its numbers come from, how fast it went, what went wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from sqlalchemy import func, select

from binworks.api.context import Context
from binworks.api.snapshots import Snapshot
from binworks.service.database import job_events, jobs
from binworks.service.model import JobView, MissingFile, ResolvedJob, UnitState, UnitView
from binworks.service.requests import correction_sets

POINTS = 300
"""Of a chart when the page comes; more are averaged."""
FAILURES = 50
_HOST = re.compile(r"[A-Za-z0-9.\-\[\]:]{1,253}", re.ASCII)


@dataclass(frozen=True)
class Provenance:
    """What decides the numbers of a job.

    Parameters
    ----------
    code : str
        Digest of the processor's code.
    options : mapping
        All, defaults filled in.
    systematics : sequence of str
        Variation groups.
    corrections : str or None
        Name of the set.
    corrections_digest : str or None
        sha256 of its manifest.
    payloads : sequence of (str, str)
        Name and sha256; empty if the set is not there any more, or another one.
    files : int
        Of all data sets.
    unit_events : int
    """

    code: str
    options: Mapping[str, Any]
    systematics: Sequence[str]
    corrections: str | None
    corrections_digest: str | None
    payloads: Sequence[tuple[str, str]]
    files: int
    unit_events: int


@dataclass(frozen=True)
class Failures:
    """What is not in the result.

    Parameters
    ----------
    units : sequence of UnitView
        The first that failed or were left out.
    files : sequence of MissingFile
        The first that could not be opened.
    more : int
        Units that are not listed.
    """

    units: Sequence[UnitView]
    files: Sequence[MissingFile]
    more: int


def provenance(context: Context, job: str) -> Provenance:
    """Return what decides the numbers of a job that exists."""
    with context.database.read() as connection:
        row = connection.execute(select(jobs.c.request, jobs.c.resolved).where(jobs.c.id == job)).one()
    resolved = ResolvedJob.model_validate({"request": row.request, **row.resolved})
    name, digest = resolved.request.corrections, resolved.corrections_digest
    held = correction_sets(context.settings).get(name) if name else None
    there = held is not None and held.digest == digest
    entries = held.manifest.payloads if held is not None and there else {}
    return Provenance(
        code=resolved.code,
        options=resolved.options,
        systematics=resolved.systematics,
        corrections=name,
        corrections_digest=digest,
        payloads=[(payload, entry.sha256) for payload, entry in sorted(entries.items())],
        files=sum(len(dataset.files) for dataset in resolved.datasets),
        unit_events=resolved.unit_events,
    )


def digests(snapshot: Snapshot) -> dict[str, str]:
    """Return the digests of a snapshot's sums by data set."""
    return {name: snapshot.dataset(name)["digest"] for name in snapshot.facts()["datasets"]}


def newest_event(context: Context, job: str) -> int:
    """Return the id of the last line of a job's diary."""
    with context.database.read() as connection:
        query = select(func.max(job_events.c.id)).where(job_events.c.job == job)
        return connection.execute(query).scalar_one() or 0


def throughput(context: Context, job: str) -> list[tuple[float, float]]:
    """Return the moments (seconds since 1970) at which a job told its progress, and its events per second."""
    query = (
        select(job_events.c.time, job_events.c.data)
        .where(job_events.c.job == job, job_events.c.kind == "progress")
        .order_by(job_events.c.id)
    )
    with context.database.read() as connection:
        told = [(row.time, row.data) for row in connection.execute(query)]
    return _thinned([(time, data.get("rate") or 0.0) for time, data in told])


def failures(context: Context, view: JobView) -> Failures:
    """Return what failed or was left out, the first of it."""
    lost: list[UnitView] = []
    if view.counts.units.failed:
        for state in (UnitState.FAILED, UnitState.SKIPPED):
            lost += context.jobs.units(view.id, state=state, limit=FAILURES)
    lost = sorted(lost, key=lambda unit: unit.unit)[:FAILURES]
    unopened = [entry for entry in view.missing.files if entry.unit is None]
    return Failures(lost, unopened[:FAILURES], view.counts.units.failed - len(lost))


def address(request: Request, context: Context) -> str:
    """Return the address under which the browser knows the service; the settings' if its header is no address."""
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        return context.settings.url
    return f"{request.url.scheme}://{host}{request.scope.get('root_path', '')}"


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Average neighbours until there are few enough for a picture."""
    together = -(-len(points) // POINTS) or 1
    groups = (points[i : i + together] for i in range(0, len(points), together))
    return [(group[-1][0], sum(rate for _, rate in group) / len(group)) for group in groups]
