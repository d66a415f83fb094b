from __future__ import annotations

from pathlib import Path

import pytest

ROOMS = ("tensors", "corrections", "processors", "service", "api", "client", "deploy", "samples")


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the folder of the repository."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def rooms() -> tuple[str, ...]:
    """Return the names of the rooms, lowest first."""
    return ROOMS
