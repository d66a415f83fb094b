"""A driver on a bench: everything of it is real but the cluster, which runs tasks in threads of this process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from service_toys import Running

from binworks.service import worker
from binworks.service.database import Database
from binworks.service.driver import Driver
from binworks.service.jobs import Jobs
from binworks.service.ledger import Ledger
from binworks.service.model import JobView
from binworks.service.rim import Rim
from binworks.service.settings import Settings
from binworks.service.store import Store
from binworks.service.tasks import Failure, Outcome, Task


class HereCluster:
    """Runs tasks in threads of this process; ``mischief`` may raise or return a failure instead."""

    def __init__(self, mischief: Callable[[Task], Failure | None] = lambda _: None) -> None:
        self.threads = 3
        self.mischief = mischief
        self.seen: list[Task] = []
        self.asked: list[tuple[str, ...]] = []
        self.called_off: list[tuple[str, ...]] = []
        self.restarted: list[str] = []

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[HereCluster]:
        yield self

    async def run(
        self, task: Task, key: tuple[str, ...], *, seconds: float, priority: float = 0.0
    ) -> tuple[Outcome, str]:
        assert seconds > 0
        assert len(set(key)) == len(key) or key[0] == "merge"
        self.seen.append(task)
        self.asked.append(key)
        await asyncio.sleep(0)
        return self.mischief(task) or await asyncio.to_thread(worker.run, task), "here"

    async def restart(self, workers: Sequence[str]) -> None:
        self.restarted += workers

    async def call_off(self, keys: Sequence[tuple[str, ...]]) -> None:
        self.called_off += keys


class Bench:
    """A driver on a bench: everything of it is real but the cluster."""

    def __init__(self, folder: Path, cluster: HereCluster, store: Store | None = None) -> None:
        self.settings = Settings(
            home=folder,
            data_roots=(str(folder),),
            unit_events=1000,
            backoff_seconds=0.01,
            snapshot_seconds=0.2,
        )
        self.cluster = cluster
        self.database = Database(self.settings.database_url)
        self.database.create_tables()
        self.ledger = Ledger(self.database)
        store = store or Store.open(self.settings.store_url)
        self.rim = Rim(self.settings, self.ledger, store, cluster, time.time)  # type: ignore[arg-type]
        self.running = Running(None, self.settings, Jobs(self.database))  # type: ignore[arg-type]

    def drive(
        self, *jobs: str, meanwhile: Callable[[], Any] = lambda: None, seconds: float = 30.0
    ) -> list[JobView]:
        """Run the driver until the jobs are finished."""

        async def run() -> None:
            driver = asyncio.create_task(Driver(self.rim).run())
            end = time.monotonic() + seconds
            while not driver.done() and not all(self.running.jobs.get(job).state.finished for job in jobs):
                assert time.monotonic() < end, [self.running.jobs.get(job) for job in jobs]
                meanwhile()
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.1)  # a job that has ended may still have something called off
            driver.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await driver
            self.ledger.renew(0.0)

        asyncio.run(run())
        return [self.running.jobs.get(job) for job in jobs]


@contextlib.contextmanager
def benches(folder: Path) -> Iterator[Callable[..., Bench]]:
    """Give what makes benches, all in one folder; at the end they are closed."""
    made: list[Bench] = []

    def one(*mischief: Callable[[Task], Failure | None], store: Store | None = None) -> Bench:
        made.append(Bench(folder, HereCluster(*mischief), store))
        return made[-1]

    yield one
    for bench in made:
        bench.rim.thread.shutdown()
        bench.database.close()
