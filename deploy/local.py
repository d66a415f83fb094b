"""The local back end: a scheduler and workers of one thread each, as processes of this machine."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from binworks.deploy.base import ClusterStatus
from binworks.deploy.keeper import Keeper, stop_all

CONFIGURATION = {
    # The driver counts whom a unit kills; Dask would blame all units that a dead worker held.
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "30s",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
}

LOOPBACK = "127.0.0.1"
"""The dashboard lets everybody in: others reach it through the API only."""
DASHBOARD_PREFIX = "/dask"


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
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int,
        dashboard_port: int,
        host: str = "127.0.0.1",
        memory: str = "auto",
        preload: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.host = host
        self.port = port
        self.dashboard_port = dashboard_port
        self.memory = memory
        self.preload = preload
        self.environment = {**CONFIGURATION, **(environment or {})}
        self.scheduler: Keeper | None = None
        self.workers: list[Keeper] = []

    def start(self) -> None:
        """Start the scheduler."""
        place = ["--host", self.host, "--port", str(self.port)]
        dashboard = ["--dashboard-address", f"{LOOPBACK}:{self.dashboard_port}"]
        dashboard += ["--dashboard-prefix", DASHBOARD_PREFIX]
        self.scheduler = self._keeper("scheduler", "distributed.cli.dask_scheduler", *place, *dashboard)

    def scale(self, workers: int) -> None:
        """Start workers, or end the last ones."""
        while len(self.workers) < workers:
            self.workers.append(self._worker(len(self.workers)))
        stop_all(self.workers[workers:])
        del self.workers[workers:]

    def address(self) -> str:
        """Return the address of the scheduler."""
        return f"tcp://{self.host}:{self.port}"

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
        """End the workers, then the scheduler."""
        self.scale(0)
        if self.scheduler is not None:
            self.scheduler.stop()
            self.scheduler = None

    def _worker(self, number: int) -> Keeper:
        scratch = self.folder / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        options = ["--nthreads", "1", "--nworkers", "1", "--memory-limit", self.memory, "--host", self.host]
        options += [
            "--local-directory",
            str(scratch),
            "--name",
            f"worker-{number}",
            "--nanny",
            "--no-dashboard",
        ]
        options += ["--preload", self.preload] if self.preload else []
        return self._keeper(f"worker-{number}", "distributed.cli.dask_worker", self.address(), *options)

    def _keeper(self, name: str, module: str, *arguments: str) -> Keeper:
        command = [sys.executable, "-m", module, *arguments]
        keeper = Keeper(name, command, self.folder / "logs", self.environment)
        keeper.start()
        return keeper
