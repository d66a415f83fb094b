"""The HTCondor back end keeps the contract on a real pool; ``make condor-proof`` runs this inside one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from backend_contract import BackendContract, names, reach
from distributed import Client, Security

from binworks.deploy.htcondor import HTCondorBackend
from binworks.deploy.reconcile import Entry, JobState
from binworks.deploy.site import Site
from binworks.deploy.tls import Certificates
from binworks.service.environment import WORKER
from binworks.service.up import choose_port

MEASURED = "BINWORKS_CONDOR_MEASURED"

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(MEASURED not in os.environ, reason="not in an HTCondor pool: make condor-proof"),
]


def condor(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def note(what: str, seconds: float) -> None:
    """Keep a measured time."""
    path = Path(os.environ[MEASURED])
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, what: round(seconds, 1)}, indent=1) + "\n")


def timed(what: str, reached: Callable[[], Any], seconds: float = 90.0) -> None:
    begin = time.monotonic()
    reach(reached, seconds)
    note(what, time.monotonic() - begin)


def site(**workers: Any) -> Site:
    sizes = {"processes": 1, "memory": "1GB", "walltime": 3600, "grace": 30, **workers}
    return Site.model_validate(
        {"scheduler": {"host": "127.0.0.1"}, "workers": sizes, "htcondor": {"poll_seconds": 1}}
    )


def backend(folder: Path, where: Site) -> HTCondorBackend:
    certificates = Certificates.ensure(folder / "tls").folder
    ports = {"port": choose_port("127.0.0.1", 0), "dashboard_port": choose_port("127.0.0.1", 0)}
    environment = {**WORKER, "BINWORKS_MOOD": 'it\'s "fine" $(HOME) $HOME'}
    return HTCondorBackend(folder, where, **ports, preload=None, environment=environment, tls=certificates)


def security(back: HTCondorBackend) -> Security:
    own = back.certificates
    return Security(
        tls_ca_file=str(own.ca("client")),
        tls_client_cert=str(own.cert("client")),
        tls_client_key=str(own.key("client")),
        require_encryption=True,
    )


def mine(back: HTCondorBackend) -> dict[str, Entry]:
    assert back.queue is not None
    return dict(back.queue.jobs())


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert condor("condor_q", "-allusers", "-af:j", "JobStatus").strip() == ""


class TestHTCondorBackend(BackendContract):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> HTCondorBackend:
        return backend(tmp_path, site())

    def kill_a_worker(self, backend: HTCondorBackend) -> None:  # type: ignore[override]
        condor("condor_rm", next(iter(mine(backend))))

    def security(self, backend: HTCondorBackend) -> Security:  # type: ignore[override]
        return security(backend)
