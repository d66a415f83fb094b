from __future__ import annotations

import gc
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# no deadline: the first call of a kernel compiles it; derandomised: the same examples on every machine
settings.register_profile(
    "house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("house")

if (
    signal.getsignal(signal.SIGINT) == signal.SIG_IGN
):  # a shell's background job: its children could not be interrupted
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOMS = ("tensors", "corrections", "processors", "service", "api", "client", "deploy", "samples")


@pytest.fixture(autouse=True, scope="module")
def _collections_are_short() -> None:
    """Leave out what is imported when garbage is collected, as workers do: they collect after each unit."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the folder of the repository."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def rooms() -> tuple[str, ...]:
    """Return the names of the rooms, lowest first."""
    return ROOMS
