"""What the conduct of jobs goes through to reach the world: the ledger, the store, the cluster, the clock."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ParamSpec, TypeVar

from binworks.service import replicas
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

WORKERS_FAULT = (
    "The service does not share this: it is a fault of the worker at {}, and others are waited for."
)

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

    async def judged(self, outcome: Outcome, recipe: Recipe | None, worker: str | None) -> Outcome:
        """Return what a worker brought back; if it failed, what kind of failure it is here.

        Where this process would not fail, the worker is unfit: it is started anew, which may help; else the job waits
        for others, and says so.
        """
        if not isinstance(outcome, Failure):
            return outcome
        if outcome.kind == Kind.INPUT and replicas.several(outcome.where, self.settings.replicas):
            return replace(outcome, kind=Kind.SITE)
        if outcome.code not in UNFIT:
            return outcome
        if not await asyncio.to_thread(UNFIT[outcome.code], outcome, recipe):
            return outcome
        if worker is not None:
            log.warning("an unfit worker is started anew: %s", outcome.message, extra={"worker": worker})
            await self.cluster.restart([worker])
        return replace(outcome, kind=Kind.UNFIT, message=f"{outcome.message} {WORKERS_FAULT.format(worker)}")

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
                outcome, worker = await self.cluster.run(
                    what, (*key, token()), seconds=seconds, priority=URGENT
                )
            except LostError as lost:
                bystander += lost.with_worker
                if bystander >= BYSTANDER_LIMIT:
                    return UNLUCKY
                await asyncio.sleep(TICK_SECONDS)
                continue
            outcome = await self.judged(outcome, getattr(what, "recipe", None), worker)
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


def _has_our_code(_failure: Failure, recipe: Recipe | None) -> bool:
    """Return whether a job's code is the one of this process."""
    from binworks.processors import registry  # numba and coffea: for this question only

    try:
        return recipe is not None and registry.code_digest(recipe.processor) == recipe.code
    except BinworksError:
        return False


def _is_here(failure: Failure, _recipe: Recipe | None) -> bool:
    """Return whether this machine sees the file that a worker misses."""
    return failure.where is not None and "://" not in failure.where and Path(failure.where).exists()


UNFIT: Mapping[str, Callable[[Failure, Recipe | None], bool]] = {
    "code-differs": _has_our_code,
    "missing-file": _is_here,
    "store-not-seen": lambda _failure, _recipe: True,
}
"""Failures that may be the worker's, and how that is found out."""


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
