"""What the files of a job hold: from the file index where they are known, else by opening them, once, on a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from binworks.processors.dataset import Dataset
from binworks.service import replicas
from binworks.service.ledger import FileKey
from binworks.service.model import MissingFile, Problem
from binworks.service.plan import FileFacts
from binworks.service.retry import BAD_FILE, Kind
from binworks.service.rim import JobFailedError, Rim, succeeded
from binworks.service.tasks import Failure, IndexFile

FILES_AT_ONCE = 16
MOST_AT_ONCE = 1000


@dataclass
class Index:
    """The files of a job by data set, in their order, and those that cannot be read."""

    readable: dict[str, list[FileFacts]] = field(default_factory=dict)
    unreadable: list[dict[str, Any]] = field(default_factory=list)


async def index(
    rim: Rim, job: str, datasets: Sequence[Dataset], *, skip: bool, owner: str | None = None
) -> Index:
    """Return what the files hold.

    Files on servers are opened for each job, with its owner's credential: partials are shared between owners, and
    this is where those are kept out who may not read the file.

    Parameters
    ----------
    rim : Rim
        The world.
    job : str
        For the names of tasks.
    datasets : sequence of Dataset
        All of the job.
    skip : bool
        Whether unreadable files are noted; otherwise the first one ends the job.
    owner : str, optional
        Whose credential is used for files on servers; default: what the workers have.

    Raises
    ------
    JobFailedError
        Naming the file.
    """
    paths = list(dict.fromkeys(path for dataset in datasets for path in dataset.files))
    keys = await asyncio.to_thread(_keys, paths)
    found: dict[str, FileFacts | Failure] = dict(await rim.call(rim.ledger.indexed, list(keys.values())))
    fresh = [path for path in paths if path not in found]
    found |= await _open_all(rim, job, fresh, keys, skip=skip, owner=owner)
    return _sorted(datasets, found)


async def _open_all(
    rim: Rim, job: str, paths: Sequence[str], keys: Mapping[str, FileKey], *, skip: bool, owner: str | None
) -> dict[str, FileFacts | Failure]:
    """Open files, some at a time, and keep what they say; a failure ends it all unless files may be skipped."""
    found: dict[str, FileFacts | Failure] = {}
    coming = iter(paths)

    async def open_some() -> None:
        for path in coming:
            outcome = await rim.task(
                partial(_look, rim, path, owner), "index", job, seconds=rim.settings.index_timeout
            )
            if isinstance(outcome, Failure) and outcome.kind in BAD_FILE and skip:
                found[path] = outcome
                continue
            found[path] = facts = replace(succeeded(outcome, FileFacts), path=path)
            if path in keys:
                await rim.call(rim.ledger.index, keys[path], facts)

    async with asyncio.TaskGroup() as group:
        # one a worker: where all are busy, each file waits for the end of a unit, and few at a time would wait anew
        for _ in range(min(max(FILES_AT_ONCE, rim.cluster.threads), MOST_AT_ONCE)):
            group.create_task(open_some())
    return found


def _look(rim: Rim, path: str, owner: str | None, tries: int) -> IndexFile:
    return IndexFile(replicas.turn(path, rim.settings.replicas, tries), rim.settings.store_url, owner)


def _keys(paths: Iterable[str]) -> dict[str, FileKey]:
    """Return what tells a local file from a later one of the same path; others are opened for each job."""
    keys = {}
    for path in paths:
        try:
            found = Path(path).stat()
        except OSError:  # the worker says what is wrong with it; or it is not a local file
            continue
        keys[path] = FileKey(path, found.st_size, found.st_mtime_ns)
    return keys


def _sorted(datasets: Sequence[Dataset], found: dict[str, FileFacts | Failure]) -> Index:
    result = Index()
    for dataset in datasets:
        result.readable[dataset.name] = mine = []
        for path in dataset.files:
            facts = found[path]
            if isinstance(facts, FileFacts):
                mine.append(facts)
            else:
                error = Problem.model_validate(facts.problem())
                missing = MissingFile(path=path, dataset=dataset.name, error=error)
                result.unreadable.append(missing.model_dump(mode="json"))
        _refuse_twins(dataset.name, mine)
    return result


def _refuse_twins(dataset: str, files: Sequence[FileFacts]) -> None:
    seen: dict[tuple[str, int], str] = {}
    for file in files:
        other = seen.setdefault((file.uuid, file.size), file.path)
        if other != file.path:
            raise JobFailedError(
                Failure(
                    Kind.INPUT,
                    "duplicate-file",
                    f"It is the same file as {other}: the events of data set {dataset!r} would count twice.",
                    where=file.path,
                    hint="List each file once.",
                )
            )
