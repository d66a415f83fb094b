"""The fixture ``served``: a test module gets it by ``pytest_plugins = ["served_fixture"]``.

Modules share it, and each leaves jobs behind. One that counts or lists jobs has a service of its own, by `serving`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hand_made_service import Served, serving


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("service") / "home") as shared:
        yield shared
