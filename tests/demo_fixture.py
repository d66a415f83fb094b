"""Small samples and a service over them, for the tests of the demo and of the notebooks.

A test module gets the fixtures by ``pytest_plugins = ["demo_fixture"]``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from binworks.client.children import RunningService, running_service, sample


@pytest.fixture(scope="session")
def small_samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of the demo's samples, made quickly."""
    folder = tmp_path_factory.mktemp("samples")
    assert sample(folder, events=4000, seed=3, jobs=2, quiet=True)
    return folder


@pytest.fixture(scope="session")
def small_service(small_samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Run a service over them."""
    home = tmp_path_factory.mktemp("small") / "home"
    options = ("--catalogue", small_samples / "catalogue.json", "--workers", 2, "--unit-events", 1500)
    with running_service(home, *options) as service:
        yield service
