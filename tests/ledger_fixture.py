"""The fixtures ``clock``, ``database``, ``jobs`` and ``ledger``: ``pytest_plugins = ["ledger_fixture"]``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_toys import Clock

from binworks.service.database import Database
from binworks.service.jobs import Jobs
from binworks.service.ledger import Ledger
from binworks.service.quotas import Limits


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    opened.create_tables()
    yield opened
    opened.close()


@pytest.fixture
def jobs(database: Database, clock: Clock) -> Jobs:
    return Jobs(database, limits=Limits(active_jobs=3), clock=clock)


@pytest.fixture
def ledger(database: Database, clock: Clock) -> Ledger:
    made = Ledger(database, clock)
    assert made.take_over("elsewhere:1", 1e6)
    return made
