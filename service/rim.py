"""What the conduct of jobs goes through to reach the world: the ledger, the store, the cluster, the clock."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import ParamSpec, TypeVar

from binworks.service.cluster import Cluster, LostError
from binworks.service.ledger import Ledger
from binworks.service.retry import WAITED_FOR, Again, Kind, Policy, decide
from binworks.service.settings import Settings
from binworks.service.store import Store
from binworks.service.tasks import Failure, Outcome, Recipe, Task
from binworks.tensors.errors import BinworksError

TICK_SECONDS = 0.5
URGENT = 1e6
"""Priority of all that is short and that others wait for."""
BYSTANDER_LIMIT = 10
UNLUCKY = Failure(
    Kind.KILLED,
    "workers-die",
    f"{BYSTANDER_LIMIT} workers died that held it, before any of them began it.",
    hint="Workers do not stay alive: see their logs.",
)

OUT_OF_STEP = Failure(
    Kind.TRANSIENT, "out-of-step", "The ledger knows more than this driver; it looks again."
)

STALE = "It is not this service's code: workers must be started anew, or get the service's version."

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)


class JobFailedError(Exception):
    """The job cannot succeed any more."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class CancelledByUserError(Exception):
    """The job is to be cancelled; the driver sees to it."""


@dataclass
class Rim:
    """The world as the conduct of jobs sees it.

    The ledger is written by one thread, so that the loop never waits for a disk.
    """

    settings: Settings
    ledger: Ledger
    store: Store
    cluster: Cluster
    clock: Callable[[], float]
    thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="ledger")
    )

    trouble: dict[str, str] = field(default_factory=dict)
    """What tasks of a job wait for, by its id."""

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the ledger."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.thread, lambda: function(*args, **kwargs))

    def policy(self, *, skip: bool) -> Policy:
        """Return how patient to be."""
        return Policy(self.settings.retries, self.settings.backoff_seconds, skip)

    async def judged(self, outcome: Outcome, recipe: Recipe | None) -> Outcome:
        """Return what a worker brought back; that its code differs is its own fault if the job's is this service's.

        Parameters
        ----------
        recipe : Recipe or None
            What it was asked to compute.
        """
        if not isinstance(outcome, Failure) or outcome.code != "code-differs" or recipe is None:
            return outcome
        if not await asyncio.to_thread(_is_ours, recipe):
            return outcome
        return replace(outcome, kind=Kind.STALE, message=f"{outcome.message} {STALE}")

    async def task(self, task: Task | Callable[[int], Task], *key: str, seconds: float) -> Outcome:
        """Do a task that others wait for; try again while the failure may pass; return the last failure.

        Parameters
        ----------
        task : Task or callable
            What to do; or a function that gives it for the number of tries before.
        key : str
            Kind of task, the job, then names.
        seconds : float
            Time limit.
        """
        failures = kills = bystander = 0
        while True:
            what = task(failures) if callable(task) else task
            try:
                outcome, _ = await self.cluster.run(what, (*key, token()), seconds=seconds, priority=URGENT)
            except LostError as lost:
                bystander += lost.with_worker
                if bystander >= BYSTANDER_LIMIT:
                    return UNLUCKY
                await asyncio.sleep(TICK_SECONDS)
                continue
            outcome = await self.judged(outcome, getattr(what, "recipe", None))
            if not isinstance(outcome, Failure) or outcome.code == "damaged":
                self.trouble.pop(key[1], None)
                return outcome
            decision = decide(outcome.kind, failures, kills, self.policy(skip=False), self.clock())
            if not isinstance(decision, Again):
                return outcome
            log.warning("%s failed, again later: %s", key[0], outcome.message, extra={"code": outcome.code})
            if outcome.kind in WAITED_FOR:
                self.trouble[key[1]] = outcome.message
            failures, kills = failures + 1, kills + (outcome.kind == Kind.KILLED)
            await asyncio.sleep(max(0.0, decision.at - self.clock()))


def _is_ours(recipe: Recipe) -> bool:
    """Return whether a job's code is the one of this process."""
    from binworks.processors import registry  # numba and coffea: for this question only

    try:
        return registry.code_digest(recipe.processor) == recipe.code
    except BinworksError:
        return False


async def within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, not longer than this; return whether it came."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):  # Python 3.11's wait_for may swallow a cancellation
            await event.wait()
    return event.is_set()


def leaf(error: BaseException) -> BaseException:
    """Return what went wrong first, out of the groups that task groups wrap it into."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def succeeded(outcome: Outcome, kind: type[T]) -> T:
    """Return an outcome that is not a failure.

    Raises
    ------
    JobFailedError
        If it is one.
    """
    if isinstance(outcome, Failure):
        raise JobFailedError(outcome)
    if not isinstance(outcome, kind):
        raise TypeError(f"expected a {kind.__name__}, a worker gave {outcome!r}")
    return outcome


def token() -> str:
    """Return a name that is never used again."""
    return secrets.token_hex(8)
