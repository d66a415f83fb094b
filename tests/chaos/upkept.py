"""A ``binworks up`` of its own, started again when it ends, with its processes by their roles."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psutil

from binworks.service.database import Database
from binworks.service.jobs import Jobs
from binworks.service.ledger import Ledger
from binworks.service.settings import Settings
from binworks.service.up import choose_port

ROLES = {
    "driver": "binworks.service.driver",
    "api": "binworks.api",
    "scheduler": "binworks.deploy.dask scheduler",
    "nanny": "binworks.deploy.dask worker",
}
PATIENCE = 120.0
"""Seconds: a machine may be busy with other things."""
DASK = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "8s"}
"""A worker that is silent for so long is given up; Dask waits five minutes."""


def reach(reached: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Return the first true answer."""
    end = time.monotonic() + seconds
    while not (answer := reached()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return answer


class Upkept:
    """A service in a home, kept up as systemd would.

    Parameters
    ----------
    home : Path
        Its folder.
    workers : int
        How many.
    options : sequence
        More of ``binworks up``.
    prefix : sequence of str
        Goes before the command: another program that starts it.
    settings
        Of the service; those that have no option are written into the home.
    """

    def __init__(
        self,
        home: Path,
        workers: int,
        options: Sequence[object] = (),
        prefix: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        self.home = home
        self.workers = workers
        home.mkdir(parents=True, exist_ok=True)
        Settings(home=home, **settings).save()
        self.port = choose_port("127.0.0.1", 0)
        command = [sys.executable, "-c", "from binworks.client.cli import main; main()", "up", "--home", home]
        command += ["--workers", workers, "--port", self.port, "--json", *options]
        self.command = [*prefix, *map(str, command)]
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The number of ``binworks up``."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; returns when it says where it is."""
        end = time.monotonic() + PATIENCE
        while True:  # what its killed predecessor leaves behind may hold the port for a moment
            self.starts += 1
            with (self.home / "up.out").open("ab") as output:
                self._process = subprocess.Popen(
                    self.command, stdout=subprocess.PIPE, stderr=output, env={**os.environ, **DASK}
                )
            assert self._process.stdout is not None
            line = self._process.stdout.readline()
            self._process.stdout.close()
            if line:
                assert json.loads(line)["url"] == self.url
                return
            assert self._process.wait() != 0
            assert time.monotonic() < end, (self.home / "up.out").read_text()
            time.sleep(0.2)

    def ensure(self) -> None:
        """Start it again if it ended."""
        if self._process is None or self._process.poll() is not None:
            self.start()

    def stop(self) -> None:
        """End it as a user does."""
        if self._process is not None and self._process.poll() is None:
            first = psutil.Process(self.pid)  # or its child: what traces a program goes before it
            next(p for p in (first, *first.children()) if "up" in p.cmdline()[:5]).send_signal(signal.SIGINT)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill_all()
                raise

    def kill_all(self) -> None:
        """Kill ``binworks up`` and wait until all that it started has ended."""
        family = [process for processes in self.family().values() for process in processes]
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        _, alive = psutil.wait_procs(family, timeout=60)
        assert alive == [], alive

    # processes

    def family(self) -> dict[str, list[psutil.Process]]:
        """Return the processes that live now, by role; a worker is the child of a nanny."""
        found: dict[str, list[psutil.Process]] = {role: [] for role in (*ROLES, "worker")}
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.pid).children(recursive=True):
                role = _role(process)
                if role is not None:
                    found[role].append(process)
        return found

    @property
    def whole(self) -> bool:
        """Whether every process is there."""
        family = self.family()
        single = all(len(family[role]) == 1 for role in ("driver", "api", "scheduler"))
        return single and len(family["nanny"]) == len(family["worker"]) == self.workers

    # what it says

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def answers(self) -> bool:
        """Whether the API answers now."""
        try:
            return httpx.get(f"{self.url}/healthz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    @property
    def headers(self) -> dict[str, str]:
        """What lets one in."""
        return {"Authorization": f"Bearer {(self.home / 'token').read_text().strip()}"}

    def ask(self, method: str, path: str, **request: Any) -> Any:
        """Return what the API answers, asked again as long as it is away."""

        def answer() -> httpx.Response | None:
            try:
                found = httpx.request(
                    method,
                    f"{self.url}{path}",
                    timeout=30,
                    headers={**self.headers, **request.get("headers", {})},
                    json=request.get("json"),
                )
            except httpx.TransportError:
                return None
            return None if found.status_code in (502, 503, 504) else found

        found = reach(answer, f"{method} {path}")
        assert found.status_code < 400, found.text
        return found.json()

    def submit(
        self,
        files: Mapping[str, Sequence[str]],
        key: str,
        /,
        *,
        facts: Mapping[str, Mapping[str, Any]] | None = None,
        **request: Any,
    ) -> str:
        """Submit a job over REST and return its id; asking twice with one key makes one job."""
        known = facts or {}
        datasets = [{"name": n, "files": list(paths), **known.get(n, {})} for n, paths in files.items()]
        body = {"processor": "toy", "datasets": datasets, **request}
        job: str = self.ask("POST", "/v1/jobs", json=body, headers={"Idempotency-Key": key})["id"]
        return job

    # what is written down

    @cached_property
    def settings(self) -> Settings:
        """Where things are."""
        return Settings.load(self.home)

    @cached_property
    def database(self) -> Database:
        """The job database."""
        return Database(self.settings.database_url)

    @cached_property
    def jobs(self) -> Jobs:
        """The jobs, read past the API."""
        return Jobs(self.database)

    @cached_property
    def ledger(self) -> Ledger:
        """What the driver writes, for reading."""
        return Ledger(self.database)


def _role(process: psutil.Process) -> str | None:
    try:
        line = " ".join(process.cmdline())
        if "spawn_main" in line:
            return "worker"
        return next((role for role, module in ROLES.items() if f"-m {module}" in line), None)
    except psutil.Error:
        return None


@contextmanager
def upkept(home: Path, workers: int = 2, **given: Any) -> Iterator[Upkept]:
    """Give a service that is up; nothing of it is left afterwards."""
    service = Upkept(home, workers, **given)
    service.start()
    try:
        yield service
    finally:
        try:
            service.stop()
        finally:
            if "database" in vars(service):
                service.database.close()
