"""A cluster that does nothing but take its time: workers that come, die and lag, and a scheduler that restarts.

It has the interface of `binworks.service.cluster.Cluster`, and places tasks as Dask places them: units wait at the
scheduler until a worker holds fewer than its share; all else goes at once to the worker that holds least, and is
the next to run there; a worker without work takes what waits at another one.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from simulate_work import Model, Traffic, outcome
from virtual import VirtualLoop

from binworks.service.cluster import LostError
from binworks.service.fairshare import window
from binworks.service.plan import FileFacts
from binworks.service.retry import Kind
from binworks.service.tasks import Failure, FillUnit, Outcome, Task

Key = tuple[str, ...]


@dataclass(eq=False)
class Asked:
    """A task under way."""

    task: Task
    key: Key
    rank: tuple[float, int]
    limit: float
    answer: asyncio.Future[tuple[Outcome, str | None]]
    worker: Worker | None = None
    wanted: bool = True

    def __lt__(self, other: Asked) -> bool:
        return self.rank < other.rank

    @property
    def is_unit(self) -> bool:
        """Whether it waits at the scheduler."""
        return isinstance(self.task, FillUnit)

    @property
    def name(self) -> str:
        """What it is, without the token."""
        return "/".join((self.key[0], *self.key[2:-1]))


@dataclass(eq=False)
class Worker:
    """One worker with one thread."""

    number: int
    life: int = 0
    up: bool = False
    running: Asked | None = None
    since: float = 0.0
    waiting: list[Asked] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None
    death: asyncio.TimerHandle | None = None

    @property
    def load(self) -> int:
        """Tasks it holds."""
        return len(self.waiting) + (self.running is not None)

    @property
    def address(self) -> str:
        """Its name, another one in each life."""
        return f"tcp://10.0.{self.number // 256}.{self.number % 256}:{40000 + self.life}"


class SimulatedCluster:
    """Stands for `binworks.service.cluster.Cluster`.

    Parameters
    ----------
    loop : VirtualLoop
        Its clock.
    model : Model
        What is assumed.
    files : mapping
        What opening a file says, by path.
    """

    def __init__(self, loop: VirtualLoop, model: Model, files: Mapping[str, FileFacts]) -> None:
        self.loop = loop
        self.model = model
        self.files = files
        self.threads = 0
        self.traffic = Traffic()
        self.messages = 0
        self.story: list[tuple[float, str, str]] = []
        """What ended, in order: when, what, how."""
        self.began: dict[str, float] = {}
        """When the first unit of a job began to run."""
        self.filled: dict[str, float] = {}
        """When the last one was done."""
        self.attempts: Counter[tuple[str, str]] = Counter()
        """How often a unit was begun on a worker, by job and number."""
        self.done: set[tuple[str, str]] = set()
        """Units of which at least a step was done."""
        self.busy: Counter[str] = Counter()
        """Seconds of workers by kind of task, and those that were ``lost``."""
        self.most_over_window = -math.inf
        """By how many units the driver was ever above its window."""
        self._workers = [Worker(number) for number in range(model.workers)]
        self._by_load: list[dict[int, Worker]] = [{} for _ in range(model.held + 1)]
        self._crowded: dict[int, Worker] = {}
        self._queue: list[Asked] = []
        self._asked: dict[Key, Asked] = {}
        self._units = 0
        self._seen = [0, 0]
        self._up = False
        self._count = 0

    # what the driver sees

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[SimulatedCluster]:
        """Let the workers come up."""
        self._up = True
        for worker in self._workers:
            share = worker.number / len(self._workers)
            self._later(self.model.ramp_seconds * share, self._join, worker)
        for moment in self.model.restarts:
            self._later(moment, self._restart)
        heartbeat = asyncio.create_task(self._heartbeat())
        try:
            yield self
        finally:
            heartbeat.cancel()

    async def run(
        self, task: Task, key: Key, *, seconds: float, priority: float = 0.0
    ) -> tuple[Outcome, str | None]:
        """Do a task on some worker."""
        with self.loop.not_counted():
            asked = self._asked.get(key) or self._ask(task, key, seconds, priority)
        try:
            return await asyncio.shield(asked.answer)
        except asyncio.CancelledError:
            asked.wanted = asked.is_unit
            raise

    async def call_off(self, keys: Sequence[Key]) -> None:
        """Stop tasks that nobody wants any more."""
        with self.loop.not_counted():
            for asked in [self._asked[key] for key in keys if key in self._asked]:
                asked.wanted = False
                if asked.worker is not None and asked.worker.running is asked:
                    self._end(asked.worker, None)

    async def _heartbeat(self) -> None:
        while True:
            with self.loop.not_counted():
                self.threads = sum(worker.up for worker in self._workers) if self._up else 0
                self._seen = [self._seen[1], self.threads]
            await asyncio.sleep(1.0)

    def _later(self, seconds: float, function: Callable[..., None], *args: Any) -> asyncio.TimerHandle:
        def call() -> None:
            with self.loop.not_counted():
                function(*args)

        return self.loop.call_later(seconds, call)

    # the scheduler

    def _ask(self, task: Task, key: Key, seconds: float, priority: float) -> Asked:
        if not self._up:
            raise LostError(with_worker=False)
        self._count += 1
        asked = Asked(task, key, (-priority, self._count), seconds, self.loop.create_future())
        self._asked[key] = asked
        self.messages += 2
        if asked.is_unit:
            self._units += 1
            self.most_over_window = max(self.most_over_window, self._units - max(map(window, self._seen)))
        self._later(self.model.hop_seconds, self._place, asked)
        return asked

    def _place(self, asked: Asked) -> None:
        worker = None if asked.is_unit else self._least(len(self._by_load))
        if worker is None:
            heapq.heappush(self._queue, asked)
            self._place_waiting()
        else:
            self._give(worker, asked)

    def _place_waiting(self) -> None:
        """Give units to workers that hold fewer than their share."""
        while self._queue and (worker := self._least(self.model.held)) is not None:
            self._give(worker, heapq.heappop(self._queue))

    def _least(self, below: int) -> Worker | None:
        """Return the worker that holds least, of those the one that got nothing for the longest time."""
        return next((next(iter(workers.values())) for workers in self._by_load[:below] if workers), None)

    def _give(self, worker: Worker, asked: Asked) -> None:
        if not asked.wanted or asked.key not in self._asked:
            self._forget(asked)
            return
        asked.worker, before = worker, worker.load
        heapq.heappush(worker.waiting, asked)
        self._go_on(worker)
        self._moved(worker, before)

    def _moved(self, worker: Worker, before: int) -> None:
        """Keep the lists of workers by load; the last one is of all that hold their share or more."""
        top = self.model.held
        self._by_load[min(before, top)].pop(worker.number, None)
        self._crowded.pop(worker.number, None)
        if worker.up:
            self._by_load[min(worker.load, top)][worker.number] = worker
            if worker.waiting:
                self._crowded[worker.number] = worker

    def _forget(self, asked: Asked) -> None:
        if self._asked.pop(asked.key, None) is not None:
            self._units -= asked.is_unit

    def _answer(self, asked: Asked, ended: Outcome | LostError, worker: str | None) -> None:
        self._forget(asked)
        self.messages += 2
        how = ended.code if isinstance(ended, Failure) else type(ended).__name__
        self.story.append((self.loop.now, asked.name, how))
        if asked.answer.done():
            return
        if isinstance(ended, LostError):
            asked.answer.set_exception(ended)
            asked.answer.exception()  # nobody may wait for it any more
        else:
            self.loop.call_later(self.model.hop_seconds, _deliver, asked.answer, (ended, worker))

    def _restart(self) -> None:
        """Lose everything that is under way, and all workers for a while."""
        self._up, self.threads, self._queue = False, 0, []
        for worker in self._workers:
            self._leave(worker)
        for asked in list(self._asked.values()):
            self._answer(asked, LostError(with_worker=False), None)
        self._later(self.model.outage, self._return)

    def _return(self) -> None:
        self._up = True
        for worker in self._workers:
            dice = self.model.dice("return", worker.number, worker.life)
            self._later(self.model.outage * dice.random(), self._join, worker)

    # workers

    def _join(self, worker: Worker) -> None:
        if worker.up or not self._up:
            return
        worker.up, worker.life = True, worker.life + 1
        self._moved(worker, 0)
        if math.isfinite(self.model.lifetime):
            life = self.model.dice("life", worker.number, worker.life).expovariate(1 / self.model.lifetime)
            worker.death = self._later(life, self._die, worker)
        self._look_for_work(worker)

    def _leave(self, worker: Worker) -> list[Asked]:
        """Take a worker away and return what it held; what it ran comes first."""
        held, before = worker.waiting, worker.load
        for timer in (worker.timer, worker.death):
            if timer is not None:
                timer.cancel()
        if worker.running is not None:
            self.busy["lost"] += self.loop.now - worker.since
            held = [worker.running, *held]
        worker.up, worker.running, worker.waiting, worker.timer, worker.death = False, None, [], None, None
        self._moved(worker, before)
        return held

    def _die(self, worker: Worker) -> None:
        ran, address = worker.running, worker.address
        for asked in self._leave(worker):
            if asked is ran:
                self._answer(asked, Failure(Kind.KILLED, "worker-died", f"{address} died."), address)
            else:
                self._answer(asked, LostError(with_worker=True), None)
        self._later(self.model.absence, self._join, worker)

    def _go_on(self, worker: Worker) -> None:
        """Begin the next task, if the worker has none."""
        while worker.running is None and worker.waiting:
            asked = heapq.heappop(worker.waiting)
            if asked.wanted and asked.key in self._asked:
                self._begin(worker, asked)
            else:
                self._forget(asked)

    def _begin(self, worker: Worker, asked: Asked) -> None:
        worker.running, worker.since = asked, self.loop.now
        attempt = 0
        if asked.is_unit:
            self.began.setdefault(asked.key[1], self.loop.now)
            attempt = self.attempts[asked.key[1], asked.key[2]]
            self.attempts[asked.key[1], asked.key[2]] += 1
        self.messages += 2
        ended, seconds = outcome(self.model, self.files, asked.task, attempt)
        if seconds > asked.limit:
            late = f"It ran for more than {asked.limit:.0f} s."
            ended, seconds = Failure(Kind.RESOURCE, "timed-out", late), asked.limit
        worker.timer = self._later(seconds, self._end, worker, ended)

    def _end(self, worker: Worker, ended: Outcome) -> None:
        """Let a worker's task end, with its outcome if it is still wanted, and begin the next."""
        asked, before = worker.running, worker.load
        if asked is None or worker.timer is None:
            return
        worker.timer.cancel()
        useful = asked.wanted and not isinstance(ended, Failure)
        self.busy[asked.key[0] if useful else "lost"] += self.loop.now - worker.since
        if useful:
            self.traffic.count(asked.task, self.model)
        if useful and asked.is_unit:
            self.filled[asked.key[1]] = self.loop.now
            self.done.add((asked.key[1], asked.key[2]))
        worker.running = None
        self._go_on(worker)
        self._moved(worker, before)
        if asked.wanted:
            self._answer(asked, ended, worker.address)
        else:
            self._forget(asked)
        self._later(self.model.hop_seconds, self._look_for_work, worker)

    def _look_for_work(self, worker: Worker) -> None:
        """Take units from the scheduler, or if there are none what waits at another worker."""
        self._place_waiting()
        if worker.up and not worker.load and self._crowded:
            victim = next(iter(self._crowded.values()))
            before = victim.load
            asked = heapq.heappop(victim.waiting)
            self._moved(victim, before)
            self._give(worker, asked)


def _deliver(answer: asyncio.Future[Any], value: tuple[Outcome, str | None]) -> None:
    if not answer.done():
        answer.set_result(value)
