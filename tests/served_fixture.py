"""The fixture ``served``: a test module gets it by ``pytest_plugins = ["served_fixture"]``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hand_made_service import ApiProcess, HandMade, Served, filled


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = HandMade.make(tmp_path_factory.mktemp("service") / "home")
    sums = {"Wplusmunu": filled(1), "Wminusmunu": filled(2), "SingleMuon": filled(3, groups=())}
    job = made.finished(sums)
    with ApiProcess(made.settings.home, made.settings.port) as api:
        yield Served(made, api, job, sums)
        api.stop()
    made.database.close()
