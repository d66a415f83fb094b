"""What a snapshot says of itself: the attributes of its groups and its manifest. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from binworks.processors.dataset import Dataset
from binworks.service.model import ResolvedJob
from binworks.service.tasks import Recipe, WriteDataset
from binworks.service.tree import Sum
from binworks.service.work import Work, Workload

GENERATION_SCHEMA = "binworks.generation/1"
MANIFEST_SCHEMA = "binworks.manifest/1"
MOST_SUMS = 16
"""Stored sums that are read for a data set of a snapshot, unless it is the last: they take a worker seconds."""


@dataclass(frozen=True)
class Cut:
    """What is in a snapshot, fixed at one moment.

    Parameters
    ----------
    n : int
        Its number.
    final : bool
        Whether no unit can be added any more.
    values : dict
        How to get each data set's sum.
    works : list of Work
        The units that are in.
    skipped : list of Work
        The units that are left out for ever.
    unreadable : sequence
        Files left out for ever, as JSON of `binworks.service.model.MissingFile`.
    events : int
        Of all units.
    created : float
        Seconds since 1970.
    """

    n: int
    final: bool
    values: Mapping[str, str | Sum | None]
    works: list[Work]
    skipped: list[Work]
    unreadable: Sequence[Mapping[str, Any]]
    events: int
    created: float

    @property
    def done(self) -> int:
        """Events that are in."""
        return sum(work.events for work in self.works)

    @property
    def complete(self) -> bool:
        """Whether it is final and lacks nothing."""
        return self.final and not self.skipped and not self.unreadable

    @property
    def fraction(self) -> float:
        """Part of the units' events that is in."""
        return self.done / self.events if self.events else float(self.final)


def cut(
    workload: Workload, n: int, *, final: bool, unreadable: Sequence[Mapping[str, Any]], now: float
) -> Cut:
    """Fix what is in a snapshot that begins now: all that is done, or the largest sums if more is to come."""
    tops = {name: tree.tops(None if final else MOST_SUMS) for name, tree in workload.trees.items()}
    inside = {
        (name, position)
        for name, nodes in tops.items()
        for node in nodes
        for position in workload.trees[name].units(node)
    }
    return Cut(
        n=n,
        final=final,
        values={name: tree.value(among=tops[name]) for name, tree in workload.trees.items()},
        # copies: a unit whose stored sums are found lost meanwhile is filled anew, but is in this snapshot
        works=[copy(work) for work in workload.done() if (work.dataset, work.position) in inside],
        skipped=workload.skipped(),
        unreadable=list(unreadable),
        events=workload.events,
        created=now,
    )


def row(snapshot: Cut) -> dict[str, Any]:
    """Return what the ledger keeps of it."""
    return {
        "final": snapshot.final,
        "complete": snapshot.complete,
        "events": snapshot.done,
        "units": len(snapshot.works),
        "fraction": snapshot.fraction,
    }


def dataset_attributes(dataset: Dataset) -> dict[str, Any]:
    """Return what the group of a data set says besides counts and digest."""
    return {**dataset.model_dump(mode="json", exclude={"files"}), "group": dataset.group or dataset.name}


def write_dataset(
    store: str, key: str, recipe: Recipe, dataset: Dataset, value: str | Sum | None
) -> WriteDataset:
    """Return the task that writes a data set of a snapshot.

    Parameters
    ----------
    store, key : str
        Address, and where.
    recipe : Recipe
        For the shapes, if there is no value.
    dataset : Dataset
        Which.
    value : str or Sum or None
        How to get its sums.
    """
    return WriteDataset(
        store=store,
        key=key,
        recipe=recipe,
        dataset=dataset.model_copy(update={"files": dataset.files[:1]}).model_dump_json(),
        value=value,
        attributes=dataset_attributes(dataset),
    )


def root_attributes(job: str, resolved: ResolvedJob, snapshot: Cut) -> dict[str, Any]:
    """Return what the group of the snapshot says: enough to know how far it can be trusted."""
    return {
        "schema": GENERATION_SCHEMA,
        "job": job,
        "generation": snapshot.n,
        "created": datetime.fromtimestamp(snapshot.created, UTC).isoformat(),
        "final": snapshot.final,
        "complete": snapshot.complete,
        "fraction": snapshot.fraction,
        "events": {"total": snapshot.events, "done": snapshot.done},
        "missing": {
            "events": sum(work.events for work in snapshot.skipped),
            "units": [work.status.unit for work in snapshot.skipped],
            "files": [entry["path"] for entry in snapshot.unreadable],
        },
        "luminosity": resolved.luminosity,
        "processor": resolved.request.processor,
        "systematics": list(resolved.systematics),
        "datasets": [dataset.name for dataset in resolved.datasets],
    }


def manifest(
    job: str, resolved: ResolvedJob, snapshot: Cut, datasets: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the document whose creation publishes the snapshot.

    Parameters
    ----------
    datasets : mapping
        ``digest`` and ``counts`` of each data set's sums.
    """
    return {
        **root_attributes(job, resolved, snapshot),
        "schema": MANIFEST_SCHEMA,
        "code": resolved.code,
        "corrections": resolved.corrections_digest,
        "row": row(snapshot),
        "datasets": {name: dict(facts) for name, facts in datasets.items()},
        "units": [
            {
                "unit": work.status.unit,
                "dataset": work.dataset,
                "partial": work.partial,
                "digest": work.digest,
                "entries": work.counts["entries"],
            }
            for work in snapshot.works
        ],
        "unreadable": [dict(entry) for entry in snapshot.unreadable],
    }
