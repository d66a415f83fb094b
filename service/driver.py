"""The driver: takes up jobs, shares the workers among them, writes down what comes back. One is active at a time.

It may be killed at any moment: all it knows is in the ledger, and the next one goes on from there.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from sqlalchemy.exc import OperationalError

from binworks.service import failures, fairshare, gc, lease, logs, workforce
from binworks.service.cluster import Cluster
from binworks.service.conduct import Conduct, unit_keys
from binworks.service.database import Database
from binworks.service.lease import LeaseLostError
from binworks.service.ledger import Ledger, Settled
from binworks.service.model import JobState
from binworks.service.retry import WAITED_FOR, Again, Kind, decide
from binworks.service.rim import OUT_OF_STEP, CancelledByUserError, JobFailedError, Rim, leaf, within
from binworks.service.settings import Settings
from binworks.service.store import Store
from binworks.service.tasks import Failure
from binworks.service.work import Work
from binworks.tensors.code import source_digest
from binworks.tensors.errors import BinworksError

POLL_SECONDS = 0.25
PATIENCE_SECONDS = 5.0
ALIVE = "driver-alive"
"""File of the home that a driver touches while it works, or waits for the lease: for those who look after it."""
NO_WORKERS = "No worker is connected; the job goes on when there is one."

log = logging.getLogger("binworks.service.driver")  # not `__main__`, as which it runs


class Driver:
    """Conducts all jobs.

    Parameters
    ----------
    rim : Rim
        The world.
    """

    def __init__(self, rim: Rim) -> None:
        self.rim = rim
        self.conducts: dict[str, Conduct] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._attempts: dict[str, set[asyncio.Task[None]]] = {}
        self._outcomes: asyncio.Queue[tuple[Conduct, Settled]] = asyncio.Queue()
        self._wake = asyncio.Event()
        self._noted: dict[str, str | None] = {}
        self._group: asyncio.TaskGroup

    async def run(self) -> None:
        """Wait for the lease, then work for ever.

        Raises
        ------
        LeaseLostError
            If another driver takes over.
        """
        holder, seconds = lease.identity(), self.rim.settings.lease_seconds
        while not await self._take_over(holder, seconds):
            self._show_life()
            await asyncio.sleep(POLL_SECONDS)
        log.info("%s is the driver", holder)
        try:
            async with self.rim.cluster.connected(), asyncio.TaskGroup() as group:
                self._group = group
                for loop in (
                    self._renew,
                    self._poll,
                    self._dispatch,
                    self._settle,
                    self._tell_notes,
                    self._collect,
                ):
                    group.create_task(loop())
        finally:
            await self._end_all()

    async def _take_over(self, holder: str, seconds: float) -> bool:
        try:
            return await self.rim.call(self.rim.ledger.take_over, holder, seconds)
        except OperationalError as error:
            # locked for long by a driver that is frozen, or not there for a while
            log.warning("the lease cannot be asked for: %s", error.orig)
            return False

    def _show_life(self) -> None:
        with suppress(OSError):  # a full disk
            (self.rim.settings.home / ALIVE).touch()

    async def give_back(self) -> None:
        """Let another driver start at once."""
        await self.rim.call(self.rim.ledger.renew, 0.0)

    async def _renew(self) -> None:
        seconds = self.rim.settings.lease_seconds
        while True:
            await asyncio.sleep(seconds / 4)
            await self.rim.call(self.rim.ledger.renew, seconds)

    # jobs

    async def _poll(self) -> None:
        while True:
            self._show_life()
            for job, state in await self.rim.call(self.rim.ledger.active):
                if state == JobState.CANCELLING:
                    await self._end(job)
                    await self._close(job, JobState.CANCELLED, "asked for")
                elif job not in self._tasks:
                    self._tasks[job] = asyncio.create_task(self._conduct(job), name=f"job {job}")
            for job in [job for job, task in self._tasks.items() if task.done()]:
                await self._finish(job)
            await asyncio.sleep(POLL_SECONDS)

    async def _finish(self, job: str) -> None:
        task = self._tasks[job]
        await self._end(job)
        if not task.cancelled():
            task.result()  # what is raised here ends the driver

    async def _end(self, job: str) -> None:
        """Stop all that is under way for a job."""
        self.conducts.pop(job, None)
        self._noted.pop(job, None)
        self.rim.trouble.pop(job, None)
        task = self._tasks.pop(job, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._stop_attempts(job)

    async def _close(self, job: str, state: JobState, why: str, failure: Failure | None = None) -> None:
        """Write down that a job has come to its end before it was done, and free the workers that are at it."""
        running = await self.rim.call(self.rim.ledger.running, job)
        await self.rim.call(self.rim.ledger.move, job, state, why, failure)
        keys = [key for unit, token, splits in running for key in unit_keys(job, unit, token, splits)]
        self._group.create_task(self.rim.cluster.call_off(keys), name=f"call off {job}")

    async def _end_all(self) -> None:
        for job in list(self._tasks):
            await self._end(job)

    async def _conduct(self, job: str) -> None:
        """Bring a job to its end; begin anew where a disk or the database failed for a while."""
        logs.tell(lambda: {"job": job})
        tries, trouble = Counter[Kind](), None
        while True:
            conduct = self.conducts[job] = Conduct(self.rim, job)
            conduct.trouble = trouble
            try:
                await conduct.run()
            except Exception as error:  # noqa: BLE001 -- a fault in one job must not end the others
                cause = leaf(error)
            else:
                return
            await self._stop_attempts(job)
            # what was brought back is written down before the ledger is looked at again
            await self._outcomes.join()
            if isinstance(cause, LeaseLostError):
                raise cause
            if isinstance(cause, CancelledByUserError):
                return  # the next poll sees to it
            failure = cause.failure if isinstance(cause, JobFailedError) else _of(cause)
            decision = decide(
                failure.kind, tries[failure.kind], 0, self.rim.policy(skip=False), self.rim.clock()
            )
            ours = failure == OUT_OF_STEP or not isinstance(cause, JobFailedError)
            log.warning(
                "%s",
                failure.message,
                extra={"job": job, "code": failure.code},
                exc_info=cause if ours else None,
            )
            if not ours or not isinstance(decision, Again):
                await self._close(job, JobState.FAILED, failure.code, failure)
                return
            trouble = conduct.trouble = failure.message if failure.kind in WAITED_FOR else None
            tries[failure.kind] += 1
            await asyncio.sleep(max(0.0, decision.at - self.rim.clock()))

    async def _stop_attempts(self, job: str) -> None:
        attempts = self._attempts.pop(job, set())
        for attempt in attempts:
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)

    # units

    async def _dispatch(self) -> None:
        """Start units as workers come free, by fair share over all jobs."""
        while True:
            await within(self._wake, POLL_SECONDS)
            self._wake.clear()
            now = self.rim.clock()
            conducts = {
                job: conduct for job, conduct in self.conducts.items() if conduct.workload is not None
            }
            for conduct in conducts.values():
                for rank, work in enumerate(conduct.resumed()):
                    self._attempt(conduct, work, rank)
            shares = [conduct.share(now) for conduct in conducts.values()]
            chosen = Counter(fairshare.choose(shares, self.rim.cluster.threads))
            ranks = {share.job: share.in_flight for share in shares}
            for job, count in chosen.items():
                begun = await conducts[job].begin(count)
                if self.conducts.get(job) is conducts[job]:
                    for rank, work in enumerate(begun, ranks[job]):
                        self._attempt(conducts[job], work, rank)

    def _attempt(self, conduct: Conduct, work: Work, rank: int) -> None:
        async def attempt() -> None:
            logs.tell(lambda: {"job": conduct.job, "unit": work.status.unit})
            await self._outcomes.put((conduct, await conduct.attempt(work, rank)))

        attempts = self._attempts.setdefault(conduct.job, set())
        # within the driver's group: an attempt that ends without an outcome must end the driver, not hang the job
        task = self._group.create_task(attempt(), name=f"unit {conduct.job}/{work.status.unit}")
        attempts.add(task)
        task.add_done_callback(attempts.discard)

    async def _settle(self) -> None:
        """Write down outcomes as they come, all that are there in one transaction."""
        while True:
            batch = [await self._outcomes.get()]
            while not self._outcomes.empty():
                batch.append(self._outcomes.get_nowait())
            taken = await self.rim.call(self.rim.ledger.settle, [settled for _, settled in batch])
            for (conduct, settled), accepted in zip(batch, taken, strict=True):
                about = {"job": settled.job, "unit": settled.after.unit, "worker": settled.worker}
                if isinstance(settled.outcome, Failure):
                    log.warning("%s", settled.outcome.message, extra={**about, "code": settled.outcome.code})
                if not accepted:
                    log.warning("a late twin is ignored", extra=about)
                if self.conducts.get(conduct.job) is conduct:
                    conduct.settle(settled, accepted=accepted)
                self._outcomes.task_done()
            self._wake.set()

    async def _tell_notes(self) -> None:
        """Say so when jobs cannot get on, for want of workers or space."""
        seen = self.rim.clock()
        while True:
            await asyncio.sleep(1.0)
            seen = self.rim.clock() if self.rim.cluster.threads else seen
            alone = self.rim.clock() - seen > PATIENCE_SECONDS
            for job in list(self._tasks):
                trouble = self.conducts[job].trouble if job in self.conducts else None
                trouble = trouble or self.rim.trouble.get(job)
                note = self._why_alone() if alone else trouble
                if self._noted.get(job, "") != note:  # what an earlier driver said may be out of date
                    self._noted[job] = note
                    await self.rim.call(self.rim.ledger.note, job, note)

    def _why_alone(self) -> str:
        status = workforce.read(self.rim.settings.home)
        reason = None if status is None else status.cluster.reason
        return NO_WORKERS if reason is None else f"{NO_WORKERS} The cluster says: {reason}"

    async def _collect(self) -> None:
        """Remove now and then what nobody needs any more."""
        rim = self.rim
        while True:
            await asyncio.sleep(rim.settings.gc_seconds)
            try:
                report = await asyncio.to_thread(
                    gc.collect, rim.ledger.database, rim.store, rim.settings, rim.clock()
                )
            except (BinworksError, OSError, OperationalError):
                log.warning("garbage is not collected this time", exc_info=True)
            else:
                log.info("collected %s", report)


def _of(error: BaseException) -> Failure:
    if isinstance(error, OperationalError):
        return Failure(Kind.TRANSIENT, "database-failed", f"The job database does not answer: {error.orig}.")
    return failures.of(error)


async def run(settings: Settings) -> None:
    """Be the driver of a home until a signal comes."""
    database = Database(settings.database_url)
    database.create_tables()
    store = Store.open(settings.store_url)
    store.remove_stale_drafts()
    ledger = Ledger(database)
    source_digest()  # taken now: later edits of the files are not this service's code
    driver = Driver(Rim(settings, ledger, store, Cluster(settings.scheduler, settings.tls), time.time))
    working = asyncio.create_task(driver.run(), name="driver")
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, working.cancel)
    try:
        await working
    except asyncio.CancelledError:
        await driver.give_back()
    finally:
        database.close()


def main() -> None:
    """Start the driver: ``python -m binworks.service.driver --home FOLDER``."""
    parser = argparse.ArgumentParser(description="Conduct the jobs of a service.")
    parser.add_argument("--home", type=Path, required=True, help="folder of the service")
    settings = Settings.load(parser.parse_args().home)
    logs.begin(settings, "driver.log")
    asyncio.run(run(settings))


if __name__ == "__main__":
    main()
