"""Random kills: who, when, and how long it takes until the service works again."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from sqlalchemy import func, select

from binworks.service.database import Database, lease, units
from chaos.upkept import Upkept, reach

WEIGHTS = {
    "worker": 28,
    "nanny": 12,
    "driver": 18,
    "scheduler": 12,
    "api": 10,
    "up": 6,
    "several": 10,
    "frozen worker": 2,
    "frozen driver": 2,
}
SINGLE = ("worker", "nanny", "driver", "scheduler", "api")
WORKER_SILENCE = 12.0
"""Seconds; longer than the scheduler waits."""
SHORT = 60.0


@dataclass
class Kill:
    """One kill; times are seconds since 1970.

    Parameters
    ----------
    what : str
        One of `WEIGHTS`.
    victims : list of str
        The roles of the processes that were killed or frozen.
    time, struck : float
        Just before; and when the last victim was dead, or what was frozen went on.
    back : float
        Seconds until every process was there again, and the API answered.
    recovery : float or None
        Seconds until a unit was committed that began after the kill, or the jobs had ended.
    """

    what: str
    victims: list[str]
    time: float
    struck: float = 0.0
    back: float = 0.0
    recovery: float | None = None
    notes: dict[str, object] = field(default_factory=dict)


class Killer:
    """Kills the processes of a service by a seed.

    Parameters
    ----------
    service : Upkept
        Whose.
    seed : int
        Of all choices.
    """

    def __init__(self, service: Upkept, seed: int) -> None:
        self.service = service
        self.rng = random.Random(seed)
        self.kills: list[Kill] = []

    def order(self, count: int, weights: dict[str, int] = WEIGHTS) -> list[str]:
        """Return what to kill: each kind once if there is room, the rest by weight."""
        kinds = list(weights)[:count]
        kinds += self.rng.choices(list(weights), list(weights.values()), k=count - len(kinds))
        self.rng.shuffle(kinds)
        return kinds

    def strike(self, what: str) -> Kill:
        """Kill, keep the service up, and wait until it works again."""
        roles = self.rng.sample(SINGLE, self.rng.choice((2, 3))) if what == "several" else [what]
        kill = Kill(what, list(roles), time.time())
        self.kills.append(kill)
        if what == "up":
            self._kill_up(kill)
        elif what == "frozen worker":
            freeze(self._one("worker"), lambda: time.sleep(WORKER_SILENCE))
        elif what == "frozen driver":
            self._freeze_driver(kill)
        else:
            for process in [self._one(role) for role in roles]:
                with suppress(psutil.NoSuchProcess):  # a worker whose nanny was killed first
                    process.kill()
        kill.struck = kill.struck or time.time()
        begun = time.monotonic()
        reach(lambda: self.service.whole and self.service.answers, f"all back after {what}")
        kill.back = time.monotonic() - begun
        return kill

    def _one(self, role: str) -> psutil.Process:
        found: list[psutil.Process] = reach(lambda: self.service.family()[role], f"a {role} to kill")
        return self.rng.choice(found)

    def _kill_up(self, kill: Kill) -> None:
        family = self.service.family()
        kill.victims = [role for role, processes in family.items() for _ in processes]
        self.service.kill_all()
        kill.struck = time.time()
        self.service.ensure()

    def _freeze_driver(self, kill: Kill) -> None:
        """Freeze the driver for longer than its lease; another one takes over; the frozen one must not go on.

        If it is frozen while it writes, SQLite lets nobody else write: then the other one gives up.
        """
        driver, fence = self._one("driver"), fence_of(self.service.database)
        with second_driver(self.service.home) as second:

            def meanwhile() -> None:
                reach(
                    lambda: fence_of(self.service.database) > fence or second.poll() is not None,
                    "another driver takes over",
                )
                taken = time.time()
                if second.poll() is not None:
                    kill.notes["held the lock"] = True
                    return
                reach(lambda: committed_since(self.service, taken) or not active(self.service), "it works")

            freeze(driver, meanwhile)
            kill.struck = time.time()
            if kill.notes:
                return
            reach(lambda: not driver.is_running(), "the driver that was frozen ends", SHORT)
            kill.notes["ended after"] = round(time.time() - kill.struck, 3)
            assert second.poll() is None, "the frozen driver threw out the other one"


class second_driver:  # noqa: N801  used like a function
    """A driver beside that of the service; killed at the end."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __enter__(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "binworks.service.driver", "--home", str(self.home)]
        with (self.home / "logs" / "second.out").open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def freeze(process: psutil.Process, meanwhile: Callable[[], None]) -> None:
    """Stop a process, and let it go on afterwards."""
    process.send_signal(signal.SIGSTOP)
    try:
        meanwhile()
    finally:
        with suppress(psutil.NoSuchProcess):  # its nanny may have given it up
            process.send_signal(signal.SIGCONT)


def freeze_between_writes(process: psutil.Process, database: Database) -> None:
    """Stop a process at a moment when it does not hold the database's lock."""
    while True:
        process.send_signal(signal.SIGSTOP)
        probe = sqlite3.connect(str(database.engine.url.database), timeout=0.2, isolation_level=None)
        try:
            probe.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            process.send_signal(signal.SIGCONT)
        else:
            return
        finally:
            probe.close()


def fence_of(database: Database) -> int:
    """Return how often the lease changed hands."""
    with database.read() as connection:
        return int(connection.execute(select(lease.c.fence)).scalar_one())


def committed_since(service: Upkept, begun: float) -> float | None:
    """Return when the first unit that began after this moment was committed."""
    query = select(func.min(units.c.finished)).where(
        units.c.started > begun, units.c.state == "done", units.c.reused.is_(False)
    )
    with service.database.read() as connection:
        found: float | None = connection.execute(query).scalar()
    return found


def active(service: Upkept) -> Sequence[str]:
    """Return the jobs that are not finished."""
    return [job for job, _ in service.ledger.active()]


def recover(service: Upkept, kill: Kill) -> None:
    """Wait until a unit is committed that began after the kill, or no job is left; note how long that took."""
    found = reach(
        lambda: committed_since(service, kill.time) or (not active(service) and time.time()),
        f"work goes on after {kill}",
    )
    kill.recovery = found - kill.time
