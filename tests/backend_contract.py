"""What every cluster back end must do; whoever adds one inherits these tests and gives the fixture ``backend``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from distributed import Client

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

    def test_workers_come_go_and_are_replaced(self, backend: Backend) -> None:
        backend.start()
        address = backend.address()
        backend.scale(2)
        try:
            with Client(address, timeout=30, set_as_default=False) as client:
                reach(lambda: len(names(client)) == 2)
                assert backend.status() == ClusterStatus(scheduler=True, wanted=2, alive=2)
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
