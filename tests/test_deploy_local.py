"""The local back end keeps the contract, and its processes are kept alive and die with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from backend_contract import BackendContract, names, reach
from distributed import Client, Security

from binworks.deploy.keeper import Keeper, stop_all
from binworks.deploy.local import LocalBackend
from binworks.deploy.tls import Certificates
from binworks.service.up import choose_port


class TestLocalBackend(BackendContract):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> LocalBackend:
        ports = {"port": choose_port("127.0.0.1", 0), "dashboard_port": 0}
        return LocalBackend(tmp_path, **ports)

    def kill_a_worker(self, backend: LocalBackend) -> None:  # type: ignore[override]
        pid = backend.workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)


def test_a_cluster_of_this_machine_may_speak_tls_alone(tmp_path: Path) -> None:
    certificates = Certificates.make(tmp_path / "tls")
    port = choose_port("127.0.0.1", 0)
    backend = LocalBackend(tmp_path, port=port, dashboard_port=0, tls=certificates.folder)
    role = "client"
    security = Security(
        tls_ca_file=str(certificates.ca(role)),
        tls_client_cert=str(certificates.cert(role)),
        tls_client_key=str(certificates.key(role)),
        require_encryption=True,
    )
    backend.start()
    backend.scale(1)
    try:
        assert backend.address() == f"tls://127.0.0.1:{port}"
        with Client(backend.address(), security=security, timeout=30, set_as_default=False) as client:
            reach(lambda: names(client))
            assert all(name.startswith("tls://") for name in names(client))
    finally:
        backend.close()


def test_closing_does_not_wait_for_what_runs(tmp_path: Path) -> None:
    port = choose_port("127.0.0.1", 0)
    backend = LocalBackend(tmp_path, port=port, dashboard_port=0)
    backend.start()
    backend.scale(1)
    try:
        with Client(backend.address(), timeout=30, set_as_default=False) as client:
            task = client.submit(time.sleep, 600)  # kept: Dask forgets what nobody holds
            reach(lambda: any(task.key in keys for keys in client.processing().values()))
            begin = time.monotonic()
            backend.close()
            assert time.monotonic() - begin < 60  # a machine may be busy; the unit takes ten minutes
    finally:
        backend.close()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_process_that_ends_is_started_again_and_its_output_is_kept(tmp_path: Path) -> None:
    keeper = Keeper("short", python("print('here', flush=True); raise SystemExit(3)"), tmp_path)
    keeper.start()
    reach(lambda: keeper.restarts >= 2)
    keeper.stop()
    assert keeper.exit_code == 3
    assert (tmp_path / "short.out").read_text().count("here") >= 2
    assert not keeper.alive


def test_a_process_that_ends_at_once_is_started_later_and_later(tmp_path: Path) -> None:
    keeper = Keeper("short", python("import time; print(time.time(), flush=True)"), tmp_path)
    keeper.start()
    reach(lambda: keeper.restarts >= 3)
    keeper.stop()
    times = [float(line) for line in (tmp_path / "short.out").read_text().split()]
    assert times[2] - times[1] > times[1] - times[0] + 0.2


def test_what_does_not_end_when_asked_is_ended_by_force(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    keeper = Keeper("deaf", python(deaf), tmp_path)
    keeper.start()
    reach(lambda: keeper.output.exists() and "up" in keeper.output.read_text())
    begin = time.monotonic()
    keeper.stop(grace=0.5)
    assert not keeper.alive
    assert time.monotonic() - begin < 5
    stop_all([keeper])


def test_a_process_dies_with_its_parent_however_that_ends(tmp_path: Path) -> None:
    parent = (
        "import sys, time; from pathlib import Path; from binworks.deploy.keeper import Keeper\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "keeper = Keeper('child', sleep, Path(sys.argv[1])); keeper.start()\n"
        "while keeper.pid is None: time.sleep(0.01)\n"
        "print(keeper.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([*python(parent), str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        reach(lambda: "sleep" in " ".join(child.cmdline()) and "binworks" not in " ".join(child.cmdline()))
        process.kill()
    reach(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 5)
