"""A service whose parts are started one by one, with TLS, on this machine or on several hosts."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from distributed import Client, Security
from service_toys import Running, registered, serial, write_all

from binworks.deploy.keeper import Keeper, stop_all
from binworks.deploy.tls import Certificates, Role
from binworks.processors.dataset import Dataset
from binworks.service.database import Database
from binworks.service.environment import WORKER
from binworks.service.jobs import Jobs
from binworks.service.model import UnitState
from binworks.service.settings import Settings

FILES, EVENTS, UNIT_EVENTS = 5, 4000, 1000
UNITS = FILES * EVENTS // UNIT_EVENTS
LOOPBACK = "127.0.0.1"

SCHEDULER = """
import sys
from pathlib import Path
from binworks.deploy.scheduler import scheduler
from binworks.deploy.tls import Certificates

folder, host, port, dashboard, tls = sys.argv[1:]
flags = Certificates(Path(tls)).flags("scheduler")
scheduler(Path(folder), host=host, port=int(port), dashboard_port=int(dashboard), flags=flags).join()
"""


def security(certificates: Certificates, role: Role = "client") -> Security:
    """Return what a Dask client needs to come in with the certificate of a role."""
    files = {
        f"tls_{role}_cert": str(certificates.cert(role)),
        f"tls_{role}_key": str(certificates.key(role)),
    }
    return Security(require_encryption=True, tls_ca_file=str(certificates.ca(role)), **files)


def rightful(address: str, certificates: Certificates) -> Client:
    """Return a client that is let in."""
    return Client(address, security=security(certificates), timeout=30, set_as_default=False)


class Parts:
    """The processes, which are kept alive.

    Parameters
    ----------
    home : Path
        Their output goes to its folder ``logs``.
    certificates : Certificates
    host : str
        Address of the scheduler.
    port, dashboard_port : int
        Of the scheduler; the dashboard is on the loopback.
    """

    def __init__(
        self, home: Path, certificates: Certificates, *, host: str, port: int, dashboard_port: int
    ) -> None:
        self.home = home
        self.certificates = certificates
        self.host, self.port, self.dashboard_port = host, port, dashboard_port
        self.keepers: list[Keeper] = []

    @property
    def address(self) -> str:
        """The scheduler's address."""
        return f"tls://{self.host}:{self.port}"

    def scheduler(self, enter: Sequence[str] = ()) -> Keeper:
        """Start the scheduler; ``enter`` leads to its host."""
        ports = (str(self.port), str(self.dashboard_port))
        script = (SCHEDULER, str(self.home), self.host, *ports, str(self.certificates.folder))
        return self.start("head", [*enter, sys.executable, "-c", *script])

    def worker(
        self,
        name: str,
        *options: str,
        host: str,
        enter: Sequence[str] = (),
        certificates: Certificates | None = None,
        address: str | None = None,
    ) -> Keeper:
        """Start a worker host."""
        scratch = self.home / f"scratch-{name}"
        flags = (certificates or self.certificates).flags("worker")
        given = ("--name", name, "--host", host, "--local-directory", str(scratch), *flags, *options)
        module = ("-m", "binworks.deploy.worker", address or self.address, "--keep", "PYTHONPATH")
        return self.start(name, [*enter, sys.executable, *module, *given], WORKER)

    def serve(self, name: str, module: str, enter: Sequence[str] = ()) -> Keeper:
        """Start the driver or the API."""
        return self.start(name, [*enter, sys.executable, "-m", module, "--home", str(self.home)])

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> Keeper:
        """Start something."""
        keeper = Keeper(name, command, self.home / "logs", environment)
        keeper.start()
        self.keepers.append(keeper)
        return keeper

    def log(self, name: str) -> str:
        """Return what a process has said."""
        path = self.home / "logs" / f"{name}.out"
        return path.read_text(errors="replace") if path.exists() else ""


@contextmanager
def parts(home: Path, certificates: Certificates, **where: Any) -> Iterator[Parts]:
    """Give a service without processes; those that are started end with the block."""
    made = Parts(home, certificates, **where)
    try:
        yield made
    finally:
        stop_all(made.keepers)


def restart(keeper: Keeper) -> None:
    """End a process with all that it has started; its keeper starts it again."""
    before, pid = keeper.restarts, keeper.pid
    assert pid is not None
    os.killpg(pid, 9)
    end = time.monotonic() + 20
    while keeper.restarts == before or keeper.pid is None:
        assert time.monotonic() < end, "it was not started again"
        time.sleep(0.05)


@dataclass
class Apart:
    """A service in parts, which runs jobs.

    Parameters
    ----------
    parts : Parts
    running : Running
    files : tuple of str
        What its jobs read.
    """

    parts: Parts
    running: Running
    files: tuple[str, ...]

    def submit(self, pause: float, tag: str) -> str:
        """Ask for a job of 20 units, each of which takes about ``pause`` seconds."""
        return self.running.submit({"D": self.files}, options={"pause": pause, "tag": tag}).id

    def done(self, job: str) -> int:
        """Return how many units are done."""
        return self.running.jobs.get(job).counts.units.done

    def done_at(self, job: str, host: str) -> int:
        """Return how many units are done that the workers of an address did."""
        units = [unit for unit in self.running.units(job) if unit.state == UnitState.DONE]
        return sum(f"//{host}:" in str(unit.worker) for unit in units)

    def tried(self, job: str) -> int:
        """Return how often units were tried."""
        return sum(unit.attempts for unit in self.running.units(job))

    def check(self, job: str, folder: Path) -> None:
        """Wait for a job's end: its bits are those of a serial run, and each event is counted once."""
        view = self.running.wait(job, 120)
        _, resolved = self.running.service_ledger().load(job)
        folder.mkdir()
        assert self.running.digests(job) == {
            "D": serial(folder, Dataset(name="D", files=self.files), resolved)
        }
        assert view.complete
        assert view.counts.events.done == view.datasets[0].entries == FILES * EVENTS
        assert view.counts.units.done == view.counts.units.total == UNITS

    def connections(self) -> int:
        """Return how often the driver has connected to a scheduler."""
        return (
            (self.running.settings.logs / "driver.log")
            .read_text()
            .count(f"connected to {self.parts.address}")
        )


@contextmanager
def apart(folder: Path, *, host: str, port: int, dashboard_port: int, api_port: int) -> Iterator[Apart]:
    """Give a service without processes, and files for its jobs; workers find the toys."""
    home = folder / "home"
    home.mkdir()
    certificates = Certificates.make(home / "tls")
    with (
        registered(folder / "toys"),
        parts(home, certificates, host=host, port=port, dashboard_port=dashboard_port) as made,
    ):
        settings = Settings(
            home=home,
            scheduler=made.address,
            tls=certificates.folder,
            dashboard=f"http://{LOOPBACK}:{dashboard_port}",
            port=api_port,
            unit_events=UNIT_EVENTS,
            backoff_seconds=0.2,
            data_roots=(str(folder / "data"),),
        )
        settings.save()
        files = write_all(folder / "data", FILES, EVENTS)
        database = Database(settings.database_url)
        database.create_tables()
        try:
            yield Apart(made, Running(cast("Any", made), settings, Jobs(database)), files)
        finally:
            database.close()
