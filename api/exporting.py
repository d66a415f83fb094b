"""The process that makes files for fits, started when something waits, and ended with the API."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from typing import IO

from sqlalchemy.exc import OperationalError

from binworks.service.environment import WORKER
from binworks.service.exports import Exports
from binworks.service.settings import Settings

POLL_SECONDS = 2.0
"""What another API process left behind when it ended is seen this often."""
GRACE_SECONDS = 5.0
HEALTHY_SECONDS = 10.0
FAILED_SECONDS = 1.0
LONGEST_PAUSE = 30.0

log = logging.getLogger(__name__)


class Exporting:
    """Sees to it that what waits is made.

    Parameters
    ----------
    settings : Settings
        Of the service.
    exports : Exports
        Where it waits.
    """

    def __init__(self, settings: Settings, exports: Exports) -> None:
        self._exports = exports
        self._command = (sys.executable, "-m", "binworks.service.exporting", "--home", str(settings.home))
        self._output = settings.logs / "exporting.out" if settings.log_to == "files" else None
        self._woken = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run(), name="exporting")

    def wake(self) -> None:
        """Look now; any thread may ask."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._woken.set)

    async def close(self) -> None:
        """End the process and stop looking."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        pause = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), POLL_SECONDS)
            self._woken.clear()
            try:
                pause = await self._look(pause)
            except OperationalError as error:
                log.warning("nobody knows what is to be exported: %s", error.orig)
            except Exception:  # whatever it is: else nothing would be exported any more
                log.exception("what is to be exported could not be seen to")
                pause = FAILED_SECONDS
            await asyncio.sleep(pause)

    async def _look(self, pause: float) -> float:
        """See whether something waits, and have it made; return for how long to leave it alone after that."""
        if not await asyncio.to_thread(self._exports.waiting):
            return 0.0
        begun = time.monotonic()
        code = await self._child()
        if code == 0 or time.monotonic() - begun > HEALTHY_SECONDS:
            return 0.0
        where = self._output.name if self._output else "what it wrote"
        log.error("the process that exports ended with %d; see %s", code, where)
        return min(2 * pause + 0.5, LONGEST_PAUSE)

    async def _child(self) -> int:
        """Run the process to its end; return its code."""
        with self._opened() as output:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                "--parent",
                str(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **WORKER},
            )
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                await _end(process)

    def _opened(self) -> contextlib.AbstractContextManager[IO[bytes] | None]:
        """Return where its output goes; None: where ours does."""
        if self._output is None:
            return contextlib.nullcontext()
        self._output.parent.mkdir(parents=True, exist_ok=True)
        return self._output.open("ab")


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), GRACE_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
