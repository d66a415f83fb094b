"""What API and driver need where somebody else starts them: an address by the environment, a token, logs on stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from binworks.service import logs, tokens
from binworks.service.database import Database
from binworks.service.driver import ALIVE
from binworks.service.first_token import admit
from binworks.service.settings import DATABASE_VARIABLE, Settings
from binworks.service.up import configure
from binworks.tensors.errors import RequestError

GIVEN = "bw_" + "0123456789abcdef" * 2


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(home=tmp_path, log_to="stderr")
    made.save()
    return made


def role(settings: Settings, token: str) -> str | None:
    database = Database(settings.database_url)
    try:
        found = tokens.check(database, token, now=time.time())
    finally:
        database.close()
    return found.role if found else None


def first_token(home: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "binworks.service.first_token", "--home", str(home), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_environment_names_another_job_database(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "postgresql://binworks:correct-horse@db.example.org/binworks"
    monkeypatch.setenv(DATABASE_VARIABLE, address)
    assert Settings.load(settings.home).database_url == address
    assert configure(settings.home, {}, 0).database_url == address
    (settings.home / "new").mkdir()
    configure(settings.home / "new", {}, 0).save()
    for home in (settings.home, settings.home / "new"):
        assert "correct-horse" not in (home / "settings.json").read_text()
    monkeypatch.setenv(DATABASE_VARIABLE, "")
    assert Settings.load(settings.home) == settings
    with pytest.raises(RequestError, match="BINWORKS_DATABASE, which is not set here"):
        _ = Settings.load(settings.home / "new").database_url


def test_a_token_is_made_in_the_home_once(settings: Settings) -> None:
    for _ in range(2):
        assert first_token(settings.home).returncode == 0
    file = settings.home / "token"
    assert file.stat().st_mode & 0o777 == 0o600
    assert role(settings, file.read_text().strip()) == "admin"


def test_a_token_that_is_given_lets_the_admin_in_until_another_is_given(
    settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "given"
    file.write_text(GIVEN + "\n")
    done = first_token(settings.home, "--token-file", file)
    assert done.returncode == 0, done.stderr
    admit(settings, file)
    assert role(settings, GIVEN) == "admin"
    file.write_text(GIVEN[::-1])
    admit(settings, file)
    assert role(settings, GIVEN) is None
    assert role(settings, GIVEN[::-1]) == "admin"
    assert not (settings.home / "token").exists()


@pytest.mark.parametrize("text", ["", "short", f"{GIVEN} {GIVEN}", "é" * 40])
def test_a_file_without_a_token_is_refused_and_not_shown(
    settings: Settings, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "given"
    file.write_text(text)
    with pytest.raises(RequestError, match="must hold a token alone") as caught:
        admit(settings, file)
    assert caught.value.code == "bad-token-file"
    assert not text or text not in str(caught.value)


def test_lines_go_to_standard_error_when_asked(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = logs.Lines(None)
    lines.add('{"a": 1}')
    assert capsys.readouterr().err == ""
    lines.close()
    assert capsys.readouterr().err == '{"a": 1}\n'


def test_a_driver_shows_that_it_lives_and_writes_no_file_of_logs(settings: Settings) -> None:
    command = [sys.executable, "-m", "binworks.service.driver", "--home", str(settings.home)]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    alive = settings.home / ALIVE
    try:
        end = time.monotonic() + 90
        while not alive.exists():
            assert driver.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        os.utime(alive, (0, 0))
        while alive.stat().st_mtime == 0:
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        driver.terminate()
        _, said = driver.communicate(timeout=60)
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert any(line["message"].endswith("is the driver") for line in lines)
    assert not settings.logs.exists()
