"""A service on several hosts: scheduler and API on one, the driver there or on its own, workers on two more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backend_contract import reach
from parted_service import Apart, apart

from hosts.network import Host, network

PORT, DASHBOARD_PORT, API_PORT = 8786, 8787, 8080
READY = (
    "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=10).status)"
)


@dataclass
class Spread:
    """The service, and its hosts."""

    apart: Apart
    head: Host
    driver: Host
    workers: list[Host]

    def removed(self) -> int:
        """Return how often the scheduler has given up a worker."""
        return self.apart.parts.log("scheduler").count("Remove worker")

    def registered(self) -> int:
        """Return how often a worker has come."""
        return self.apart.parts.log("scheduler").count("Register worker")

    def lost(self) -> int:
        """Return how often the driver has lost the scheduler."""
        log = (self.apart.running.settings.logs / "driver.log").read_text()
        return log.count(f"the connection to {self.apart.parts.address} is gone")

    def ready(self) -> bool:
        """Return whether the API finds all that it needs."""
        return self.head.space.python(READY) == "200\n"

    def at_work(self, pause: float, tag: str) -> str:
        """Return a job to which all workers have contributed."""
        job = self.apart.submit(pause, tag)
        running = self.apart.running
        running.until(job, lambda _: all(self.apart.done_at(job, host.address) for host in self.workers), 120)
        return job


@contextmanager
def spread_out(folder: Path, *, driver_alone: bool) -> Iterator[Spread]:
    """Start a service on hosts."""
    ports = {"port": PORT, "dashboard_port": DASHBOARD_PORT, "api_port": API_PORT}
    with network(3 + driver_alone) as hosts, apart(folder, host=hosts[0].address, **ports) as made:
        head, *workers = hosts
        driver = workers.pop() if driver_alone else head
        made.parts.scheduler(head.enter)
        made.parts.serve("api", "binworks.api", head.enter)
        made.parts.serve("driver", "binworks.service.driver", driver.enter)
        for number, host in enumerate(workers):
            made.parts.worker(f"worker-{number}", host=host.address, enter=host.enter)
        yield Spread(made, head, driver, workers)


def seconds(reached: Callable[[], object], longest: float) -> float:
    """Return how long it takes until something is so."""
    begin = time.monotonic()
    reach(reached, longest)
    return time.monotonic() - begin
