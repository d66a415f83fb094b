"""The client is light: quick to start, and none of the engines comes with it."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

ENGINES = {
    "awkward",
    "coffea",
    "dask",
    "distributed",
    "fastapi",
    "matplotlib",
    "numba",
    "sqlalchemy",
    "uproot",
    "zarr",
}
HEAVIER_THAN_HELP = ENGINES | {"hist", "httpx", "numpy"}


def loaded_by(statement: str) -> set[str]:
    script = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


@pytest.mark.parametrize(
    "statement",
    [
        "from binworks.client import Client, Event, Export, Job, Snapshot, Status",
        "import binworks.client.commands, binworks.client.save",
        "import binworks.client.download, binworks.client.source, binworks.tensors.fitbuild",
        "from binworks.client import Client; Client('http://127.0.0.1:1', 'x').job('x')",
    ],
)
def test_the_client_loads_no_engine(statement: str) -> None:
    loaded = loaded_by(statement)
    assert "httpx" in loaded
    assert loaded.isdisjoint(ENGINES), sorted(loaded & ENGINES)


def test_help_loads_next_to_nothing() -> None:
    call = "from binworks.client.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    loaded = loaded_by(call)
    assert "typer" in loaded
    assert loaded.isdisjoint(HEAVIER_THAN_HELP), sorted(loaded & HEAVIER_THAN_HELP)


def test_the_help_of_a_command_loads_no_engine() -> None:
    call = (
        "from binworks.client.cli import main\n"
        "try:\n    main(['export', '--help'])\nexcept SystemExit:\n    pass"
    )
    assert loaded_by(call).isdisjoint(ENGINES)


def test_what_the_shell_proposes_is_found_without_numbers() -> None:
    loaded = loaded_by("import binworks.client.options, binworks.client.completion")
    assert loaded.isdisjoint(HEAVIER_THAN_HELP), sorted(loaded & HEAVIER_THAN_HELP)


def test_help_takes_less_than_half_a_second_of_work() -> None:
    assert min(_seconds_of_work("--help") for _ in range(3)) < 0.5


def _seconds_of_work(*arguments: str) -> float:
    """Return processor time, which other tests on the same machine do not change."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [str(Path(sys.executable).parent / "binworks"), *arguments], capture_output=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
