"""What every cluster back end must do; whoever adds one inherits these tests and gives the fixture ``backend``."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, Security

from binworks.deploy.base import Backend, ClusterStatus


def reach(reached: Callable[[], Any], seconds: float = 40.0) -> Any:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not (found := reached()):
        assert time.monotonic() < end, f"not reached within {seconds} s"
        time.sleep(0.1)
    return found


def names(client: Client) -> set[str]:
    """Return the workers that the scheduler knows."""
    return set(client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.workers)))


@pytest.mark.faults
class BackendContract:
    """Start, scale, address, status, close."""

    @pytest.fixture
    def backend(self) -> Backend:
        raise NotImplementedError

    def kill_a_worker(self, backend: Backend) -> None:
        """End one worker's process from outside."""
        raise NotImplementedError

    def security(self, backend: Backend) -> Security | None:
        """Return with what one connects to its scheduler."""
        return None

    def connect(self, backend: Backend) -> Client:
        return Client(backend.address(), security=self.security(backend), timeout=30, set_as_default=False)

    def test_workers_come_go_and_are_replaced(self, backend: Backend) -> None:
        backend.start()
        address = backend.address()
        backend.scale(2)
        try:
            with self.connect(backend) as client:
                reach(lambda: len(names(client)) == 2)
                reach(lambda: backend.status() == ClusterStatus(scheduler=True, wanted=2, alive=2), 10)
                before = names(client)
                self.kill_a_worker(backend)
                reach(lambda: len(names(client)) == 2 and names(client) != before)
                backend.scale(1)
                reach(lambda: len(names(client)) == 1)
                assert backend.status().wanted == 1
            assert backend.address() == address
        finally:
            backend.close()
        assert not backend.status().scheduler
        assert backend.status().alive == 0
        backend.close()

    def test_a_worker_that_is_not_wanted_any_more_finishes_what_it_is_at(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        journal = tmp_path / "begun"

        def unit(number: int) -> int:
            with journal.open("a") as file:
                file.write(f"{number}\n")
            time.sleep(1.0)
            return number

        backend.start()
        backend.scale(2)
        try:
            with self.connect(backend) as client:
                reach(lambda: len(names(client)) == 2)
                futures = client.map(unit, range(20), retries=0, pure=False)
                reach(lambda: journal.exists() and len(journal.read_text().split()) >= 4)
                backend.scale(1)
                fetched = []
                for future in futures:  # as the driver does
                    fetched.append(future.result())
                    future.release()
                assert sorted(fetched) == list(range(20))
                reach(lambda: len(names(client)) == 1, 20)
            assert sorted(map(int, journal.read_text().split())) == list(range(20))
        finally:
            backend.close()
