"""Publishing a snapshot: workers write the data sets; then come metadata, manifest, and the ledger's row.

Until the manifest is there the snapshot does not exist, and its number is never used for another attempt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from binworks.service import layout, snapshot
from binworks.service.model import ResolvedJob
from binworks.service.rim import Rim, succeeded
from binworks.service.snapshot import Cut
from binworks.service.tasks import Receipt, Recipe
from binworks.service.work import Work, Workload, sum_counts
from binworks.tensors.errors import TransientError

log = logging.getLogger(__name__)


class Publisher:
    """Publishes the snapshots of one job.

    Parameters
    ----------
    rim : Rim
        The world.
    job : str
        Its id.
    resolved : ResolvedJob
        What it is to do.
    recipe : Recipe
        For the shapes of data sets that have no events yet.
    """

    def __init__(self, rim: Rim, job: str, resolved: ResolvedJob, recipe: Recipe) -> None:
        self.rim = rim
        self.job = job
        self.resolved = resolved
        self.recipe = recipe
        self.unreadable: Sequence[dict[str, Any]] = ()
        self.writing = False
        """Whether workers write a snapshot, so that it may still be given up."""

    async def tidy(self) -> None:
        """Finish or remove what an earlier driver left half published."""
        for n in await self.rim.call(self.rim.ledger.unpublished, self.job):
            keys = (layout.manifest(self.job, n), layout.generation(self.job, n))
            # both: a driver that was frozen may wake up and write the manifest of what was removed here
            if all(self.rim.store.exists(key) for key in keys):
                document = self.rim.store.read_json(layout.manifest(self.job, n))
                await self.rim.call(self.rim.ledger.publish, self.job, n, document["row"])
            else:
                await asyncio.to_thread(self.rim.store.remove, layout.generation(self.job, n))

    async def publish(self, workload: Workload, *, final: bool) -> None:
        """Publish what is there now.

        Raises
        ------
        JobFailedError
            If it cannot be written.
        """
        # there is one already if a driver died after it, or if it was found in the store: nothing comes after the last
        if await self.rim.call(self.rim.ledger.has_final, self.job):
            return
        n = await self.rim.call(self.rim.ledger.new_generation, self.job)
        cut = snapshot.cut(workload, n, final=final, unreadable=self.unreadable, now=self.rim.clock())
        try:
            self.writing = True
            async with asyncio.TaskGroup() as group:
                writing = {name: group.create_task(self._write(cut, name)) for name in cut.values}
        finally:
            self.writing = False
        receipts = {name: task.result() for name, task in writing.items()}
        size = await asyncio.to_thread(self._seal, cut, {name: r.digest for name, r in receipts.items()})
        cost = {"bytes": size, "seconds": sum(receipt.seconds for receipt in receipts.values())}
        await self.rim.call(self.rim.ledger.publish, self.job, n, {**snapshot.row(cut), **cost})
        log.info("snapshot %d has %.1f%% of the events", n, 100 * cut.fraction, extra={"job": self.job})

    async def _write(self, cut: Cut, name: str) -> Receipt:
        dataset = next(found for found in self.resolved.datasets if found.name == name)
        key = layout.dataset(self.job, cut.n, name)
        task = snapshot.write_dataset(
            self.rim.settings.store_url, key, self.recipe, dataset, cut.values[name]
        )
        seconds = self.rim.settings.unit_timeout
        outcome = await self.rim.task(task, "snapshot", self.job, str(cut.n), name, seconds=seconds)
        return succeeded(outcome, Receipt)

    def _seal(self, cut: Cut, digests: dict[str, str]) -> int:
        """Make the data sets one group, publish it, and return its bytes."""
        store = self.rim.store
        works: dict[str, list[Work]] = {name: [] for name in digests}
        for work in cut.works:
            works[work.dataset].append(work)
        datasets = {
            name: {"digest": digest, "counts": sum_counts(works[name])} for name, digest in digests.items()
        }
        attributes = snapshot.root_attributes(self.job, self.resolved, cut)
        store.seal(layout.generation(self.job, cut.n), attributes)
        document = snapshot.manifest(self.job, self.resolved, cut, datasets)
        if not store.create_json(layout.manifest(self.job, cut.n), document):
            raise TransientError(
                "A snapshot of this number is published already; the next one is taken.",
                code="snapshot-exists",
                where=layout.manifest(self.job, cut.n),
                hint="The ledger may be older than the store: `binworks fsck` tells.",
            )
        return store.nbytes(layout.generation(self.job, cut.n))
