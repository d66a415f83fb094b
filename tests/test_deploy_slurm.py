"""The Slurm back end on a real Slurm of one node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import slurm_server
from backend_contract import BackendContract
from distributed import Security
from slurm_server import Slurm

from binworks.deploy.site import Site
from binworks.deploy.slurm import SlurmBackend
from binworks.deploy.tls import Certificates
from binworks.service.environment import WORKER

pytestmark = pytest.mark.skipif(slurm_server.why_not() is not None, reason=str(slurm_server.why_not()))


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with slurm_server.serving() as running:
        yield running


def site(folder: Path, **slurm: Any) -> Site:
    return Site.model_validate(
        {
            "backend": "slurm",
            "scheduler": {"host": "127.0.0.1"},
            "workers": {
                "memory": "1GB",
                "walltime": 1800,
                "grace": 60,
                "scratch": folder,
                "host": "127.0.0.1",
            },
            "slurm": {"poll_seconds": 0.5, **slurm},
        }
    )


def back_end(home: Path, **slurm: Any) -> SlurmBackend:
    Certificates.ensure(home / "tls")
    ports = {"port": slurm_server.free_port(), "dashboard_port": 0}
    return SlurmBackend(
        home, site(home, **slurm), **ports, preload=None, environment=WORKER, tls=home / "tls"
    )


class TestSlurmBackend(BackendContract):
    @pytest.fixture
    def backend(self, slurm: Slurm, tmp_path: Path) -> SlurmBackend:
        self.slurm = slurm
        return back_end(tmp_path)

    def security(self, backend: SlurmBackend) -> Security:  # type: ignore[override]
        files = backend.certificates
        return Security(
            tls_ca_file=str(files.ca("client")),
            tls_client_cert=str(files.cert("client")),
            tls_client_key=str(files.key("client")),
            require_encryption=True,
        )

    def kill_a_worker(self, backend: SlurmBackend) -> None:  # type: ignore[override]
        assert self.slurm.ask("scancel", self.slurm.jobs("RUNNING")[0]) is not None
