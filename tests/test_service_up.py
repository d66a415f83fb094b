"""``binworks up``: one command, and clear words where it cannot."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import psutil
import pytest

from binworks.deploy.site import Site
from binworks.service.database import Database
from binworks.service.running import Service, ensure_token
from binworks.service.settings import Settings
from binworks.service.tokens import check
from binworks.service.up import choose_port, configure, locked, tell, warn
from binworks.tensors.errors import RequestError, TransientError


def run_up(*options: object) -> list[str]:
    return [sys.executable, "-c", "from binworks.client.cli import main; main()", "up", *map(str, options)]


def get(url: str, token: str | None = None) -> Any:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        assert answer.status == 200
        return answer.read()


@pytest.mark.faults
def test_up_serves_until_a_signal_and_leaves_no_process(tmp_path: Path) -> None:
    home = tmp_path / "home"
    options = ("--home", home, "--workers", 1, "--port", 0, "--json")
    with subprocess.Popen(run_up(*options), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        try:
            assert json.loads((home / "service.json").read_text()) == told
            token = (home / "token").read_text().strip()
            assert json.loads(get(f"{told['url']}/v1/jobs", token))["jobs"] == []
            assert b"Dask" in get(told["dashboard"], token)
            second = subprocess.run(
                run_up("--home", home, "--port", 0), capture_output=True, text=True, check=False
            )
            assert second.returncode == 2
            assert "runs in this home already" in second.stderr
            family = psutil.Process(process.pid).children(recursive=True)
            assert token not in "".join(path.read_text() for path in (home / "logs").iterdir())
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
    assert not (home / "service.json").exists()


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RequestError, match=f"Port {port} of 127.0.0.1 cannot be used") as caught:
            configure(tmp_path, {}, port)
    assert caught.value.code == "port-in-use"
    assert choose_port("127.0.0.1", 0) > 0


@pytest.mark.faults
def test_a_process_that_cannot_start_is_named_and_all_are_ended(tmp_path: Path) -> None:
    settings, before = configure(tmp_path, {}, 0), set(psutil.Process().children())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", settings.port))
        taken.listen()
        with pytest.raises(TransientError, match=r"api did not start.*api\.out"):
            Service(settings, Site()).__enter__()
    assert set(psutil.Process().children()) <= before


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError) as caught, locked(tmp_path / "file" / "home"):
        pass
    assert caught.value.code == "home-not-writable"


def test_one_service_a_home(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RequestError) as caught, locked(tmp_path):
        pass
    assert caught.value.code == "already-running"
    with locked(tmp_path):
        pass


def test_files_that_are_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nowhere") as caught:
        configure(tmp_path, {"catalogues": (tmp_path / "nowhere.json",)}, 0)
    assert caught.value.code == "no-such-file"


def test_settings_of_a_home_are_kept_unless_given_anew(tmp_path: Path) -> None:
    Settings(home=tmp_path, unit_events=7, retries=9).save()
    settings = configure(tmp_path, {"unit_events": 8, "data_roots": ()}, 0)
    assert (settings.unit_events, settings.retries) == (8, 9)


def test_the_token_is_for_its_owner_only_and_is_kept_while_it_is_valid(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert ensure_token(settings)
    path = tmp_path / "token"
    token = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not ensure_token(settings)
    assert path.read_text() == token
    database = Database(settings.database_url)
    held = check(database, token.strip(), now=time.time())
    database.close()
    assert held is not None
    assert held.scopes == {"read", "submit", "admin"}
    path.write_text("bw_other\n")
    assert ensure_token(settings)
    assert path.read_text() not in (token, "bw_other\n")
    assert not (tmp_path / "token.new").exists()


def test_a_new_token_is_shown_once_and_to_a_terminal_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    ensure_token(settings)
    token = (tmp_path / "token").read_text().strip()
    addresses = {"url": settings.url, "dashboard": f"{settings.url}/dask/status"}
    with io.StringIO() as pipe, redirect_stdout(pipe):
        tell(settings, addresses, as_json=False, new=True)
        tell(settings, addresses, as_json=True, new=True)
        assert str(tmp_path / "token") in pipe.getvalue()
        assert token not in pipe.getvalue()
    for new in (True, False):
        reader, writer = os.openpty()
        with os.fdopen(writer, "w") as terminal, redirect_stdout(terminal):
            tell(settings, addresses, as_json=False, new=new)
            terminal.flush()
            shown = b""
            while b"Ctrl-C" not in shown:
                shown += os.read(reader, 10_000)
            assert (token in shown.decode()) == new
        os.close(reader)


def test_only_what_others_reach_needs_a_warning(tmp_path: Path) -> None:
    for host, warned in (("127.0.0.1", False), ("localhost", False), ("::1", False), ("0.0.0.0", True)):
        with io.StringIO() as pipe, redirect_stderr(pipe):
            warn(Settings(home=tmp_path, host=host))
            assert ("TLS" in pipe.getvalue()) == warned
    settings = configure(tmp_path, {"host": "0.0.0.0"}, 0)
    assert settings.host == "0.0.0.0"
    assert settings.scheduler.startswith("tcp://127.0.0.1:")
    assert str(settings.dashboard).startswith("http://127.0.0.1:")
