"""What each worker of a worker host imports: it tells the host how it is, and drains when the host asks.

The host names a file in the worker's environment. Beside it lies a file for each worker process, with what it is at;
when the named file appears, the worker takes no new tasks, hands those that wait on to others, ends those it is at,
lets their results be fetched, and leaves the scheduler. SIGTERM would do none of this: Dask then drops what runs.

Dask calls `dask_setup` with its worker when all other preparations are made: this preload must be named last.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from binworks.deploy.worker import DRAIN, JOINED, STARTING

LOOK_SECONDS = 0.5
JOIN_LOOK_SECONDS = 0.1
DELIVERY_SECONDS = 60.0
"""A result that nobody fetches for so long is given to another worker instead, if there is one."""

log = logging.getLogger("distributed.binworks")
_watching: set[asyncio.Task[None]] = set()
"""The event loop itself keeps no task alive."""


async def dask_setup(worker: Any) -> None:
    """Watch for the file; a worker that would join while its host drains does not."""
    if not (named := os.environ.get(DRAIN)):
        return
    drain = Path(named)
    while drain.exists():
        await asyncio.sleep(LOOK_SECONDS)
    task = asyncio.create_task(_watch(worker, drain), name="drain")
    _watching.add(task)
    task.add_done_callback(_watching.discard)


async def _watch(worker: Any, drain: Path) -> None:
    tell(drain, STARTING)
    while worker.status.name == "init":
        await asyncio.sleep(JOIN_LOOK_SECONDS)
    tell(drain, JOINED)
    while not drain.exists():
        await asyncio.sleep(LOOK_SECONDS)
    try:
        await leave(worker)
    except Exception:  # the scheduler is gone, and with it all that could be saved
        log.warning("the worker could not take leave", exc_info=True)
        await close(worker, "drain-failed")


def tell(drain: Path, state: str) -> None:
    """Write down for the host what this process is at."""
    own = drain.with_name(str(os.getpid()))
    draft = own.with_suffix(".new")
    draft.write_text(state)
    draft.replace(own)


async def leave(worker: Any) -> None:
    """Drain a worker and close it and its nanny.

    Parameters
    ----------
    worker : distributed.Worker
        Registered with its scheduler.
    """
    log.info("%s drains", worker.address)
    state, stimulus = worker.state, f"drain-{time.time()}"
    # not "paused": the worker's look at its memory would let it go on
    worker.handle_worker_status_change("closing_gracefully", stimulus)
    while state.executing or state.long_running:
        hand_back(worker, stimulus)
        await asyncio.sleep(JOIN_LOOK_SECONDS)
    end = time.monotonic() + DELIVERY_SECONDS
    while (state.ready or worker.data) and time.monotonic() < end:
        hand_back(worker, stimulus)
        await asyncio.sleep(JOIN_LOOK_SECONDS)
    if worker.data:
        # not removed here: it would hear of that by its heartbeat, and end while its nanny ends it
        await worker.scheduler.retire_workers(
            workers=[worker.address], close_workers=False, remove=False, stimulus_id=stimulus
        )
    log.info("%s has drained", worker.address)
    await close(worker, "drained")


async def close(worker: Any, reason: str) -> None:
    """Let the nanny end the worker and itself: a worker that ends by itself leaves Dask complaining."""
    with suppress(OSError):  # the worker closes its connections before the nanny answers
        await worker.rpc(worker.nanny).terminate(reason=reason)


def hand_back(worker: Any, stimulus: str) -> None:
    """Give tasks that wait for a thread back to the scheduler, which takes them off and sends no more.

    Some may have been on their way here; those that were given back already do not matter.
    """
    for waiting in list(worker.state.ready):
        worker.batched_send(
            {"op": "reschedule", "key": waiting.key, "worker": worker.address, "stimulus_id": stimulus}
        )
