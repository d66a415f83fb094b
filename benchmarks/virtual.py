"""An event loop whose time is virtual: when nothing is left to do, it jumps to the next timer.

So a run of hours takes as long as the work that the loop itself has to do.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

THREAD_SECONDS = 0.005
"""What a call of the default executor takes: a document that is written and synced."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop with virtual time; calls that go to threads run at once, and their results come later.

    Parameters
    ----------
    call_seconds : float
        What a call of an executor takes that has one thread: they come one after the other. On the default
        executor all run side by side.
    """

    def __init__(self, call_seconds: float = 0.003) -> None:
        self.now = 0.0
        self.call_seconds = call_seconds
        self.calls = 0
        self.in_calls = 0.0
        """Processor seconds of what ran for executors."""
        self.outside = 0.0
        """Processor seconds of what ran within `not_counted`."""
        self._free: dict[Executor, float] = {}
        super().__init__(_Jumping(self))

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self.now

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Call a function now, and give its result after the time that a thread would take."""
        future: asyncio.Future[T] = self.create_future()
        begin, outside = time.process_time(), self.outside
        try:
            deliver: tuple[Callable[..., None], Any] = (future.set_result, func(*args))
        except Exception as error:  # noqa: BLE001 -- it belongs to whoever waits
            deliver = (future.set_exception, error)
        self.in_calls += time.process_time() - begin - (self.outside - outside)
        self.calls += 1
        self.call_at(self._end(executor), _unless_cancelled, future, *deliver)
        return future

    def _end(self, executor: Executor | None) -> float:
        if executor is None:
            return self.now + THREAD_SECONDS
        self._free[executor] = end = max(self.now, self._free.get(executor, 0.0)) + self.call_seconds
        return end

    @contextmanager
    def not_counted(self) -> Iterator[None]:
        """Keep the processor seconds of a block apart: they are not the driver's."""
        begin = time.process_time()
        try:
            yield
        finally:
            self.outside += time.process_time() - begin


class _Jumping(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self.loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise RuntimeError("nothing is left that could ever happen")
        self.loop.now += max(timeout, 0.0)
        return []


def _unless_cancelled(future: asyncio.Future[Any], deliver: Callable[[Any], None], value: Any) -> None:
    if not future.done():
        deliver(value)


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]], call_seconds: float = 0.003) -> T:
    """Run a coroutine in virtual time and return what it returns."""
    loop = VirtualLoop(call_seconds)
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(main(loop))
    finally:
        asyncio.set_event_loop(None)
        loop.close()
