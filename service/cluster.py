"""The one file that speaks to Dask: it sends a task to some worker and brings back its outcome, or says it was lost.

Everything here may fail at any moment and nothing is kept here: the ledger knows what is done. When the
scheduler is gone, what was under way is `LostError`, and the cluster connects again for as long as it
lives.

Units go on being filled when the driver ends: its successor asks for them under the same keys. So what nobody
wants any more must be called off by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
import traceback
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from distributed import Client, Future, Security, fire_and_forget, get_worker
from distributed.client import FutureCancelledError
from distributed.scheduler import KilledWorker

from binworks.deploy import dask  # noqa: F401  one TLS connection that ends must not end others
from binworks.deploy.tls import Certificates
from binworks.service import logs
from binworks.service.retry import Kind
from binworks.service.tasks import AbandonedError, Failure, FillUnit, Outcome, Task
from binworks.tensors.errors import RequestError

TOPIC = "binworks"
CONNECT_SECONDS = 5.0
HEARTBEAT_SECONDS = 1.0
LOOK_SECONDS = 5.0
"""How often a task's time limit is looked at: each look goes through all that wait for the same connection."""
TICK_SECONDS = 0.3
SILENCE_SECONDS = 20.0
RESTART_SECONDS = 30.0
STOP_SECONDS = 3.0
"""A worker that does not stop what was called off is restarted after this."""
CANCELLED_ON_WORKER = ("cancelled", "resumed")

Key = tuple[str, ...]
"""Name of a task on the cluster: its kind first, a token that is never used for another task last."""
Answer = tuple[Outcome, str]
"""An outcome, and the address of its worker."""

log = logging.getLogger(__name__)


class LostError(Exception):
    """The task is lost through no fault of its own; whoever wants it must ask again.

    Parameters
    ----------
    with_worker : bool
        Whether a worker died that held it, but had not begun it.
    """

    def __init__(self, *, with_worker: bool) -> None:
        super().__init__("lost with a worker" if with_worker else "lost with the scheduler")
        self.with_worker = with_worker


class Cluster:
    """The workers behind one scheduler; use within ``async with cluster.connected()``.

    Parameters
    ----------
    address : str
        Of the scheduler.
    tls : Path, optional
        Folder of certificates; connections are then encrypted, and both ends show theirs. They are read anew for
        each connection.

    Raises
    ------
    RequestError
        Code ``tls-differs`` if the address says otherwise.
    """

    def __init__(self, address: str, tls: Path | None = None) -> None:
        if address.startswith("tls://") != (tls is not None):
            raise RequestError(
                "The scheduler's address and the setting `tls` do not agree.",
                code="tls-differs",
                where=address,
                hint="It begins with tls:// if a folder of certificates is set, and with tcp:// if none is.",
            )
        self.address = address
        self.certificates = None if tls is None else Certificates(tls)
        self.threads = 0
        self._client: Client | None = None
        self._lost: asyncio.Future[None] | None = None
        self._begun: dict[str, tuple[str, float]] = {}
        """Worker and begin of what runs, by token."""

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Cluster]:
        """Keep a connection for as long as the block runs; it may come late, and come back."""
        keeper = asyncio.create_task(self._keep(), name="cluster")
        try:
            yield self
        finally:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper

    async def run(
        self, task: Task, key: Key, *, seconds: float, priority: float = 0.0
    ) -> tuple[Outcome, str | None]:
        """Do a task on some worker; return the outcome, and the worker's address.

        If a task of this key is under way already, that one is waited for.

        Parameters
        ----------
        task : Task
            Small.
        key : tuple of str
            Of this task alone.
        seconds : float
            After this time of running it is given up and its worker is restarted.
        priority : float
            Larger ones run first.

        Raises
        ------
        LostError
            If the scheduler is not there or goes away, or a worker dies that had not begun it.
        """
        client, lost = self._client, self._lost
        if client is None or lost is None:
            raise LostError(with_worker=False)
        future = client.submit(execute, task, key[-1], key=key, priority=priority, retries=0, pure=False)
        if isinstance(task, FillUnit):
            fire_and_forget(future)
        result = asyncio.create_task(_result(future))
        try:
            return await self._wait(result, lost, key, seconds)
        finally:
            # not cancelled: futures gathered together share one request, and would all be cancelled with it
            result.add_done_callback(_retrieve)
            future.release()
            if result.done():
                self._begun.pop(key[-1], None)

    async def call_off(self, keys: Sequence[Key]) -> None:
        """Stop tasks that nobody wants any more; a worker that does not listen is restarted.

        Parameters
        ----------
        keys : sequence of tuple of str
            Those that are not known, or done, do not matter.
        """
        if not keys:
            return None
        while (client := self._client) is None:
            await asyncio.sleep(TICK_SECONDS)
        log.info("calling off %d tasks", len(keys), extra={"job": keys[0][1]})
        await client.cancel([Future(key, client) for key in keys], force=True)
        end, wanted = time.monotonic() + STOP_SECONDS, set(keys)
        # the workers are asked: what was begun a moment ago, or under an earlier driver, nobody has told here
        while deaf := await self._at_work(client, wanted):
            if time.monotonic() > end:
                return await self.restart(deaf)
            await asyncio.sleep(TICK_SECONDS)
        return None

    async def _at_work(self, client: Client, keys: set[Key]) -> list[str]:
        """Return the workers of which a thread is still at one of these tasks."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                found: dict[str, set[Key]] = await client.run(keys_at_work, on_error="ignore")
                return [address for address, at_work in found.items() if not keys.isdisjoint(at_work)]
        return []

    async def restart(self, workers: Sequence[str]) -> None:
        """Restart workers: a thread cannot be stopped otherwise, nor other code be loaded."""
        if self._client is not None:
            with contextlib.suppress(OSError, TimeoutError):
                await self._client.restart_workers(workers, timeout=RESTART_SECONDS, raise_for_error=False)

    async def _wait(
        self, result: asyncio.Task[Answer], lost: asyncio.Future[None], key: Key, seconds: float
    ) -> tuple[Outcome, str | None]:
        token = key[-1]
        events: set[asyncio.Future[Any]] = {result, lost}
        look = min(LOOK_SECONDS, max(seconds / 4, HEARTBEAT_SECONDS))
        while not result.done():
            await asyncio.wait(events, timeout=look, return_when=asyncio.FIRST_COMPLETED)
            if lost.done():
                raise LostError(with_worker=False)
            if token in self._begun and time.monotonic() - self._begun[token][1] > seconds:
                return await self._give_up(key, seconds)
        error = None if result.cancelled() else result.exception()
        if error is None and not result.cancelled():
            return result.result()
        if isinstance(error, KilledWorker):
            if token not in self._begun:
                raise LostError(with_worker=True)
            return _killed(error), error.last_worker.address
        if error is None or isinstance(error, FutureCancelledError | OSError | TimeoutError | AbandonedError):
            raise LostError(with_worker=False)
        broken = Failure(
            Kind.CODE,
            "worker-broken",
            f"{type(error).__name__}: {error}",
            hint="Workers must have the same version of binworks and its libraries as the service.",
            traceback="".join(traceback.format_exception(error)),
        )
        return broken, None

    async def _give_up(self, key: Key, seconds: float) -> Answer:
        """Restart a worker that hangs."""
        address = self._begun[key[-1]][0]
        log.warning(
            "a task ran for more than %.0f s, its worker is restarted", seconds, extra={"worker": address}
        )
        if self._client is not None:
            await self._client.cancel([Future(key, self._client)], force=True)
        await self.restart([address])
        late = Failure(
            Kind.RESOURCE,
            "timed-out",
            f"It ran for more than {seconds:.0f} s on {address}.",
            hint="A file server may hang, or the unit is too large: see unit_timeout and unit_events.",
        )
        return late, address

    async def _keep(self) -> None:
        while True:
            try:
                async with Client(
                    self.address,
                    asynchronous=True,
                    timeout=CONNECT_SECONDS,
                    set_as_default=False,
                    security=self._security(),
                ) as client:
                    await self._watch(client)
            except (OSError, TimeoutError) as error:
                log.info("no scheduler at %s: %s", self.address, str(error) or type(error).__name__)
            await asyncio.sleep(HEARTBEAT_SECONDS)

    def _security(self) -> Security | None:
        if self.certificates is None:
            return None
        found = self.certificates
        files = [
            path.resolve(strict=True)
            for path in (found.ca("client"), found.cert("client"), found.key("client"))
        ]
        authority, certificate, key = map(
            str, files
        )  # Python's own error would not name the one that is missing
        return Security(
            require_encryption=True,
            tls_min_version=ssl.TLSVersion.TLSv1_3,
            tls_ca_file=authority,
            tls_client_cert=certificate,
            tls_client_key=key,
        )

    async def _watch(self, client: Client) -> None:
        """Look after a connection until it breaks."""
        self._begun.clear()
        client.subscribe_topic(TOPIC, self._note)
        for event in await client.get_events(TOPIC):  # of tasks that began before this driver did
            await self._note(event)
        self._lost = asyncio.get_running_loop().create_future()
        self._client = client
        log.info("connected to %s", self.address)
        try:
            while client.status == "running":
                async with asyncio.timeout(SILENCE_SECONDS):
                    nthreads = await client.nthreads()
                self.threads = sum(nthreads.values())
                await asyncio.sleep(HEARTBEAT_SECONDS)
        finally:
            log.warning("the connection to %s is gone", self.address)
            self.threads = 0
            self._client = None
            self._lost.set_result(None)

    async def _note(self, event: tuple[float, dict[str, Any]]) -> None:
        moment, message = event
        if message["ended"]:
            self._begun.pop(message["token"], None)
        else:
            began = time.monotonic() - max(0.0, time.time() - moment)
            self._begun[message["token"]] = (message["worker"], began)


async def _result(future: Any) -> Answer:
    answer: Answer = await future
    return answer


def _retrieve(result: asyncio.Task[Answer]) -> None:
    if not result.cancelled():
        result.exception()


def _killed(error: KilledWorker) -> Failure:
    return Failure(
        Kind.KILLED,
        "worker-died",
        f"The worker at {error.last_worker.address} died while it ran this.",
        hint="It may need more memory than a worker has, or crash in compiled code: see the worker's log.",
    )


def keys_at_work(dask_worker: Any) -> set[Key]:
    """Return the tasks that the threads of a worker are at, also those that were called off."""
    return set(dask_worker.active_threads.values())


def _subject(key: Key) -> dict[str, object]:
    """Return the job of a task, and the unit if it fills one."""
    kind, job, *names = key
    return {"job": job, "unit": int(names[0])} if kind == "unit" else {"job": job}


def execute(task: Task, token: str) -> Answer:
    """Do a task, on a worker; stop when nobody wants it any more."""
    from binworks.service.worker import run  # numba, uproot and coffea: on workers only

    worker = get_worker()
    key = worker.get_current_task()
    about = {"token": token, "worker": worker.address}

    def progress(_events: int) -> None:
        state = worker.state.tasks.get(key)
        if state is None or state.state in CANCELLED_ON_WORKER:
            raise AbandonedError

    worker.log_event(TOPIC, {**about, "ended": False})
    try:
        with logs.about(worker=worker.address, **_subject(key)):
            return run(task, progress), worker.address
    finally:
        worker.log_event(TOPIC, {**about, "ended": True})
