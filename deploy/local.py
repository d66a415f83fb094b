"""The local back end: a scheduler and workers of one thread each, as processes of this machine."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

from binworks.deploy.base import ClusterStatus
from binworks.deploy.keeper import Keeper, stop_all
from binworks.deploy.scheduler import CONFIGURATION, LOOPBACK, address, scheduler
from binworks.deploy.tls import ENVIRONMENT as ENCRYPTED
from binworks.deploy.tls import Certificates
from binworks.deploy.worker import passes

KEPT = ("PYTHONPATH",)
"""Beside the usual: here users' own processors may lie anywhere."""
GRACE_SECONDS = 600.0


class LocalBackend:
    """Scheduler and workers on this machine; see `binworks.deploy.base.Backend`.

    Parameters
    ----------
    folder : Path
        Logs go to ``<folder>/logs``, scratch files of workers to ``<folder>/scratch``.
    port, dashboard_port : int
        Of the scheduler. They stay the same when it is started again.
    host : str
        Address to listen on.
    memory : str
        Limit of a worker, as Dask writes it; ``auto``: its part of the machine.
    preload : str or None
        Module that each worker imports before it takes work.
    environment : mapping
        Added to that of the processes.
    keep : sequence of str
        Variables of this process's environment that workers see beside the usual ones; ``*`` stands for any
        characters.
    tls : Path or None
        Folder of certificates; all connections are TLS then.
    lifetime, stagger : float or None, float
        A worker is replaced after so many seconds, give or take.
    grace : float
        Seconds that a worker may take to finish what it is at.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int,
        dashboard_port: int,
        host: str = LOOPBACK,
        memory: str = "auto",
        preload: str | None = None,
        environment: Mapping[str, str] | None = None,
        keep: Sequence[str] = (),
        tls: Path | None = None,
        lifetime: float | None = None,
        stagger: float = 0.0,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self.folder = folder
        self.host = host
        self.port = port
        self.dashboard_port = dashboard_port
        self.memory = memory
        self.preload = preload
        self.certificates = None if tls is None else Certificates(tls)
        self.environment = {**CONFIGURATION, **(ENCRYPTED if tls else {}), **(environment or {})}
        self.keep = (*KEPT, *keep, *(name for name in self.environment if not passes(name)))
        self.lifetime = lifetime
        self.stagger = stagger
        self.grace = grace
        self.scheduler: Keeper | None = None
        self.workers: list[Keeper] = []
        self.leaving: list[Keeper] = []

    def start(self) -> None:
        """Start the scheduler."""
        self.scheduler = scheduler(
            self.folder,
            host=self.host,
            port=self.port,
            dashboard_port=self.dashboard_port,
            flags=self.certificates.flags("scheduler") if self.certificates else (),
            environment=self.environment,
        )

    def scale(self, workers: int) -> None:
        """Start workers, or let the last ones finish and go."""
        self.leaving = [keeper for keeper in self.leaving if keeper.is_alive()]
        while len(self.workers) < workers:
            self.workers.append(self._worker())
        for keeper in self.workers[workers:]:
            keeper.begin_stop()
            self.leaving.append(keeper)
        del self.workers[workers:]

    def address(self) -> str:
        """Return the address of the scheduler."""
        return address(self.host, self.port, tls=self.certificates is not None)

    def status(self) -> ClusterStatus:
        """Return which processes live."""
        keepers = [*self.workers, *([self.scheduler] if self.scheduler else [])]
        dead = [keeper for keeper in keepers if not keeper.alive and keeper.exit_code is not None]
        reason = "; ".join(
            f"{keeper.process_name} ended with {keeper.exit_code}: see {keeper.output}" for keeper in dead
        )
        return ClusterStatus(
            scheduler=self.scheduler is not None and self.scheduler.alive,
            wanted=len(self.workers),
            alive=sum(worker.alive for worker in self.workers),
            restarts=sum(keeper.restarts for keeper in keepers),
            reason=reason or None,
        )

    def close(self) -> None:
        """End the workers without waiting for what they are at, then the scheduler."""
        stop_all([*self.workers, *self.leaving], signal.SIGINT)
        self.workers, self.leaving = [], []
        if self.scheduler is not None:
            self.scheduler.stop()
            self.scheduler = None

    def _worker(self) -> Keeper:
        # who leaves has his name until he is gone
        taken = {keeper.process_name for keeper in (*self.workers, *self.leaving)}
        name = next(name for name in map("worker-{}".format, count()) if name not in taken)
        command = [sys.executable, "-m", "binworks.deploy.worker", self.address(), *self._options(name)]
        keeper = Keeper(name, command, self.folder / "logs", self.environment)
        keeper.start()
        return keeper

    def _options(self, name: str) -> Iterator[str]:
        options = {
            "--name": name,
            "--memory-limit": self.memory,
            "--host": self.host,
            "--local-directory": str(self.folder / "scratch"),
            "--grace": f"{self.grace:g}",
            "--stagger": f"{self.stagger:g}",
        }
        if self.preload:
            options["--preload"] = self.preload
        if self.lifetime is not None:
            options["--lifetime"] = f"{self.lifetime:g}"
        for option, value in options.items():
            yield from (option, value)
        for variable in self.keep:
            yield from ("--keep", variable)
        if self.certificates:
            yield from self.certificates.flags("worker")
