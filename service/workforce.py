"""Keeps as many workers as there should be, and says how that goes: a thread of `binworks up`.

Two small files in the home connect it with `binworks workers`: what an admin asks for while it runs, and how it is.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path

from binworks.deploy import direct
from binworks.deploy.base import Backend, ClusterStatus
from binworks.deploy.files import write
from binworks.deploy.scheduler import DASHBOARD_PREFIX
from binworks.service import scaling
from binworks.service.database import Database
from binworks.service.scaling import Scaler
from binworks.service.settings import Settings

TICK_SECONDS = 1.0
LOOK_SECONDS = 2.0
LOOK_SHARE = 20.0
"""If a look at a long backlog takes long, the next one comes later by so much."""
ASKED_FILE = "workers-asked.json"
STATUS_FILE = "workers.json"
COUNTS = f"{DASHBOARD_PREFIX}/json/counts.json"
STALE_SECONDS = 30.0
"""Who looks after the workers says once a second that he does."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bounds:
    """How many workers there may be; a fixed number if both are the same."""

    minimum: int
    maximum: int


@dataclass(frozen=True)
class Status:
    """How the workers are, for `binworks workers`.

    Parameters
    ----------
    bounds : Bounds
    backlog : int or None
        Workers that the backlog asked for; None: nobody asked it.
    cluster : ClusterStatus
        What the back end says.
    connected : int or None
        Threads of workers that the scheduler knows; None: it does not answer.
    """

    bounds: Bounds
    backlog: int | None
    cluster: ClusterStatus
    connected: int | None


def ask(home: Path, bounds: Bounds) -> None:
    """Ask the service of a home for so many workers, from now until it ends."""
    write(home / ASKED_FILE, json.dumps(asdict(bounds)))


def read(home: Path) -> Status | None:
    """Return how the workers of a home are; None if nobody has said so lately."""
    try:
        path = home / STATUS_FILE
        if time.time() - path.stat().st_mtime > STALE_SECONDS:
            return None
        found = json.loads(path.read_bytes())
        bounds, cluster = Bounds(**found["bounds"]), ClusterStatus(**found["cluster"])
        return Status(bounds, found["backlog"], cluster, found["connected"])
    except (OSError, ValueError, KeyError, TypeError):  # not there, or of another version
        return None


class Workforce(threading.Thread):
    """Scales a back end until it is stopped.

    Parameters
    ----------
    settings : Settings
        The backlog of its job database is asked where the bounds leave a choice.
    backend : Backend
        Started.
    bounds : Bounds
        Until an admin asks for others.
    idle : float
        Seconds for which workers that are not wanted any more are kept.
    """

    def __init__(self, settings: Settings, backend: Backend, bounds: Bounds, idle: float) -> None:
        super().__init__(name="workforce", daemon=True)
        self._home = settings.home
        self._dashboard = settings.dashboard
        self._backend = backend
        self._database = Database(settings.database_url)
        self._idle = idle
        self._stopping = threading.Event()
        self._scaler = Scaler(bounds.minimum, bounds.maximum, idle)
        self._backlog: int | None = None
        self._look_at = 0.0
        self._told: Status | None = None

    def start(self) -> None:
        """Scale for the first time, then go on by itself."""
        (self._home / ASKED_FILE).unlink(missing_ok=True)  # it was asked of an earlier service
        self.step(time.monotonic())
        super().start()

    @property
    def bounds(self) -> Bounds:
        """How many workers there may be now."""
        return Bounds(self._scaler.minimum, self._scaler.maximum)

    def ask(self, bounds: Bounds) -> None:
        """Have so many workers from now on."""
        self._scaler = Scaler(bounds.minimum, bounds.maximum, self._idle)

    def run(self) -> None:
        """Look, scale and tell, again and again."""
        while not self._stopping.is_set():
            try:
                self.step(time.monotonic())
            except Exception:  # whatever a back end meets, the others who need it must not end with it
                log.exception("the workers are not looked after this time")
            self._stopping.wait(TICK_SECONDS)

    def stop(self) -> None:
        """End the thread; the workers stay."""
        self._stopping.set()
        if self.is_alive():
            self.join()
        self._database.close()
        (self._home / STATUS_FILE).unlink(missing_ok=True)

    def step(self, now: float) -> None:
        """Look, scale and tell once."""
        self._take_what_is_asked()
        bounds = self.bounds
        if bounds.minimum == bounds.maximum:
            self._backlog = None
        elif now >= self._look_at:
            with self._database.read() as connection:
                self._backlog = scaling.wanted(scaling.backlog(connection))
            self._look_at = now + max(LOOK_SECONDS, LOOK_SHARE * (time.monotonic() - now))
        self._backend.scale(self._scaler.decide(self._backlog or 0, now))
        status = Status(bounds, self._backlog, self._backend.status(), connected(self._dashboard))
        path, clock = self._home / STATUS_FILE, time.time()
        if status != self._told:
            write(path, json.dumps(asdict(status)))
            self._told = status
        else:
            os.utime(path, (clock, clock))  # by our clock, not a file server's

    def _take_what_is_asked(self) -> None:
        path = self._home / ASKED_FILE
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return
        path.unlink()
        asked = Bounds(**json.loads(content))
        log.info("asked for %d to %d workers", asked.minimum, asked.maximum)
        self.ask(asked)


def connected(dashboard: str | None) -> int | None:
    """Return how many threads of workers a scheduler knows; None if its dashboard does not say."""
    try:
        with direct.ask(f"{dashboard}{COUNTS}") as answer:
            return int(json.load(answer)["cores"])
    except (OSError, HTTPException, ValueError, KeyError):
        return None
