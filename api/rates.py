"""Who asks how often: buckets that fill steadily."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

LARGEST = 20_000
"""Buckets that are kept."""


class Buckets:
    """Buckets of requests, one for each who asks; they fill steadily, and who finds his empty must wait.

    Parameters
    ----------
    rate : float
        Requests a second.
    burst : float
        What a full bucket holds.
    clock : callable
        Seconds, steadily growing.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self.burst = burst
        self.clock = clock
        self._buckets: dict[Hashable, tuple[float, float]] = {}

    def take(self, who: Hashable) -> float:
        """Take one; return 0, or the seconds until there is one to take."""
        wait = self.wait(who)
        if not wait:
            content, now = self._buckets[who]
            self._buckets[who] = (content - 1, now)
        return wait

    def wait(self, who: Hashable) -> float:
        """Return the seconds until there is one to take, 0 for now."""
        now = self.clock()
        content, then = self._buckets.get(who, (self.burst, now))
        content = min(content + (now - then) * self.rate, self.burst)
        if who not in self._buckets and len(self._buckets) >= LARGEST:
            self._forget(now)
        self._buckets[who] = (content, now)
        return 0.0 if content >= 1 else (1 - content) / self.rate

    def _forget(self, now: float) -> None:
        """Drop those that are full by now; if nearly all are in use, all: better too generous than ever larger."""
        kept = {
            who: (content, then)
            for who, (content, then) in self._buckets.items()
            if content + (now - then) * self.rate < self.burst
        }
        self._buckets = kept if len(kept) < LARGEST // 2 else {}
