"""The container file: pinned base, the wheel and nothing else, no root; a health check that is right everywhere.

`make image-proof` builds and runs it; here it is read, because building takes an engine and minutes.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hand_made_service import free_port

from binworks.deploy import health
from binworks.service.environment import WORKER
from binworks.service.settings import Settings

Instruction = tuple[str, str]
SECRET = re.compile(r"token|password|secret|credential", re.IGNORECASE)


@pytest.fixture(scope="module")
def stages(root: Path) -> list[list[Instruction]]:
    """Return the instructions of each stage; the arguments before the first are a stage, too."""
    text = (root / "deploy/Containerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found: list[list[Instruction]] = [[]]
    for line in joined.splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        if word:
            found[-1].append((word, rest.strip()))
    return found


@pytest.fixture(scope="module")
def install(stages: list[list[Instruction]]) -> list[Instruction]:
    return stages[1]


@pytest.fixture(scope="module")
def image(stages: list[list[Instruction]]) -> list[Instruction]:
    return stages[2]


def values(instructions: list[Instruction], word: str) -> list[str]:
    return [rest for name, rest in instructions if name == word]


def pairs(instructions: list[Instruction], word: str) -> dict[str, str]:
    words = [word for rest in values(instructions, word) for word in shlex.split(rest)]
    return dict(word.split("=", 1) for word in words)


def test_only_known_instructions_are_used(stages: list[list[Instruction]]) -> None:
    known = {"ARG", "FROM", "LABEL", "COPY", "RUN", "ENV", "HEALTHCHECK", "USER", "WORKDIR", "EXPOSE", "CMD"}
    assert {word for stage in stages for word, _ in stage} <= known


def test_the_base_is_pinned_by_a_digest_that_one_must_name(stages: list[list[Instruction]]) -> None:
    before, *built = stages
    assert "PYTHON_DIGEST" in values(before, "ARG")
    bases = [values(stage, "FROM")[0] for stage in built]
    assert bases == ["${PYTHON_IMAGE}@${PYTHON_DIGEST} AS install", "${PYTHON_IMAGE}@${PYTHON_DIGEST}"]


def test_what_was_installed_is_all_that_comes_into_the_image(
    install: list[Instruction], image: list[Instruction]
) -> None:
    assert values(install, "COPY") == [". /dist/"]
    assert values(image, "COPY") == ["--from=install /usr/local/binworks /usr/local/binworks"]


def test_nothing_is_compiled_and_the_installer_does_not_stay(install: list[Instruction]) -> None:
    (run,) = values(install, "RUN")
    assert run.startswith("set -eu;")
    assert "--only-binary :all:" in run
    assert run.endswith("pip uninstall --yes --quiet setuptools pip")


def test_the_image_ends_as_a_numeric_user_that_is_not_root(image: list[Instruction]) -> None:
    words = [word for word, _ in image]
    (user,) = values(image, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    changes = [index for index, word in enumerate(words) if word in {"RUN", "COPY"}]
    assert words.index("USER") > max(changes)


def test_the_extras_of_the_image_exist(root: Path, install: list[Instruction]) -> None:
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (wanted,) = re.findall(r"\$1\[([\w,]+)\]", values(install, "RUN")[0])
    assert set(wanted.split(",")) <= set(extras) - {"dev"}


def test_no_secret_is_asked_for_or_set(stages: list[list[Instruction]]) -> None:
    assert [line for stage in stages for line in stage if SECRET.search(" ".join(line))] == []


def test_the_environment_of_the_image_is_that_of_our_processes(image: list[Instruction]) -> None:
    environment = pairs(image, "ENV")
    shared = environment.keys() & WORKER.keys()
    assert {"PYTHONSAFEPATH", "OMP_NUM_THREADS"} <= shared
    assert {name: environment[name] for name in shared} == {name: WORKER[name] for name in shared}


def test_with_a_read_only_root_all_that_is_written_goes_below_tmp(image: list[Instruction]) -> None:
    environment = pairs(image, "ENV")
    written = [environment[name] for name in ("HOME", "MPLCONFIGDIR", "BINWORKS_KERNEL_CACHE")]
    assert all(Path(folder).is_relative_to("/tmp") for folder in [*written, *values(image, "WORKDIR")])
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"


def test_the_image_says_what_it_was_made_of(image: list[Instruction]) -> None:
    labels = pairs(image, "LABEL")
    wanted = ("title", "licenses", "source", "version", "revision", "base.name", "base.digest")
    assert {f"org.opencontainers.image.{name}" for name in wanted} <= labels.keys()
    used = {name for text in labels.values() for name in re.findall(r"\$\{(\w+)\}", text)}
    assert used <= {arg.partition("=")[0] for arg in values(image, "ARG")}


def test_programs_of_the_image_are_ours_and_need_no_shell(image: list[Instruction]) -> None:
    assert json.loads(values(image, "CMD")[0]) == ["binworks", "--help"]
    check = values(image, "HEALTHCHECK")[0].partition("CMD ")[2]
    assert json.loads(check) == ["python", "-m", health.__name__]


@contextmanager
def running(*command: object) -> Iterator[int]:
    with subprocess.Popen([sys.executable, *map(str, command)], start_new_session=True) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def container(folder: Path, *pids: int) -> Path:
    """Return what a container with these processes sees below /proc."""
    folder.mkdir()
    for pid in pids:
        (folder / str(pid)).symlink_to(f"/proc/{pid}")
    (folder / "cpuinfo").symlink_to("/proc/cpuinfo")
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_container_without_an_api_is_well_as_long_as_it_runs(tmp_path: Path) -> None:
    with running("-m", "http.server", "--bind", "127.0.0.1", "0") as pid:
        assert list(health.served(container(tmp_path / "proc", pid, os.getpid()))) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_container_is_well_once_its_api_answers_and_ill_when_it_stops(tmp_path: Path) -> None:
    port = free_port()
    Settings(home=tmp_path, host="0.0.0.0", port=1).save()
    with running("-m", "binworks.api", "--home", tmp_path, "--host", "0.0.0.0", "--port", port) as pid:
        end = time.monotonic() + 60
        while not health.answers("127.0.0.1", port):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert list(health.served(container(tmp_path / "proc", pid))) == [("127.0.0.1", port)]
    assert not health.answers("127.0.0.1", port)


def test_the_address_of_an_api_is_that_of_its_settings(tmp_path: Path) -> None:
    Settings(home=tmp_path, host="::", port=8123).save()
    assert health.address(["--home", str(tmp_path)]) == ("::1", 8123)
    assert health.address([f"--home={tmp_path}", "--port=9"]) == ("::1", 9)
