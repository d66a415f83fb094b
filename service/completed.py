"""Results that are there already: the newest job that has all that a new request would give.

Files on disks are compared by size and time of change with what the file index noted when the job read them. Files
behind a protocol (``root://``) are trusted by their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.engine import Connection, Row

from binworks.service.database import files, generations, jobs, units
from binworks.service.model import JobState, ResolvedJob

PATHS_AT_ONCE = 500


def find(connection: Connection, resolved: ResolvedJob, owner: str) -> Row[Any] | None:
    """Return the newest succeeded job of an owner whose complete result is that of this request."""
    whole = exists().where(generations.c.job == jobs.c.id, generations.c.published, generations.c.complete)
    query = (
        select(jobs)
        .where(jobs.c.owner == owner, jobs.c.state == JobState.SUCCEEDED, whole)
        .where(jobs.c.resolved["code"].as_string() == resolved.code)
        .order_by(jobs.c.created.desc(), jobs.c.id.desc())
    )
    wanted = _decisive(resolved.model_dump(mode="json"))
    for row in connection.execute(query):
        if _decisive({**row.resolved, "request": row.request}) == wanted and _as_read(connection, row):
            return row
    return None


def _decisive(document: dict[str, Any]) -> dict[str, Any]:
    """Return what decides the bits of a result, and whether it is one."""
    request = document["request"]
    kept = {key: value for key, value in document.items() if key not in ("request", "corrections")}
    return {**kept, "processor": request["processor"], "odd_limit": request["odd_limit"]}


def _as_read(connection: Connection, row: Row[Any]) -> bool:
    """Whether the job's local files are still those that it read."""
    ranges = connection.execute(select(units.c.ranges).where(units.c.job == row.id)).scalars()
    read = {piece["path"]: (piece["uuid"], piece["size"]) for pieces in ranges for piece in pieces}
    named = (path for dataset in row.resolved["datasets"] for path in dataset["files"])
    local = [path for path in dict.fromkeys(named) if "://" not in path]
    found = {known.path: known for known in _index(connection, local)}
    return all(path in found and _unchanged(path, found[path], read.get(path)) for path in local)


def _index(connection: Connection, paths: Sequence[str]) -> Iterator[Row[Any]]:
    for first in range(0, len(paths), PATHS_AT_ONCE):
        some = paths[first : first + PATHS_AT_ONCE]
        yield from connection.execute(select(files).where(files.c.path.in_(some)))


def _unchanged(path: str, known: Row[Any], read: tuple[str, int] | None) -> bool:
    try:
        now = Path(path).stat()
    except OSError:
        return False
    if (now.st_size, now.st_mtime_ns) != (known.size, known.mtime_ns):
        return False
    # a file without events is in no unit
    return read == (known.info["uuid"], known.info["size"]) if read else known.info["entries"] == 0
