"""Imports go one way, the client stays light, and what is imported is declared."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ENGINES = (
    "coffea",
    "correctionlib",
    "dask",
    "distributed",
    "fastapi",
    "numba",
    "pythia8mc",
    "sqlalchemy",
    "uproot",
    "uvicorn",
)


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    environment = {"PYTHONPATH": str(folder / "src"), "PATH": "", "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def modules_loaded_by(statement: str) -> set[str]:
    command = [sys.executable, "-c", f"{statement}\nimport sys\nprint(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_the_import_contracts_hold(root: Path) -> None:
    done = lint_imports(root)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "statement", "broken"),
    [
        ("tensors/offender.py", "import binworks.service", "The rooms point one way"),
        ("client/offender.py", "from binworks import processors", "The client is light"),
        ("processors/offender.py", "import zarr", "One file reads and writes zarr"),
        ("api/offender.py", "from dask.distributed import Client", "One file talks to Dask"),
        ("service/offender.py", "def read():\n    import uproot", "One file opens ROOT files"),
    ],
)
def test_a_wrong_import_breaks_a_contract(
    root: Path, rooms: tuple[str, ...], tmp_path: Path, module: str, statement: str, broken: str
) -> None:
    shutil.copytree(root / "src", tmp_path / "src", symlinks=True)
    shutil.copy(root / "pyproject.toml", tmp_path)
    for room in rooms:
        shutil.copytree(root / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / module).write_text(statement + "\n")
    done = lint_imports(tmp_path)
    assert done.returncode != 0
    assert re.search(rf"{broken}.* BROKEN", done.stdout), done.stdout


def test_importing_the_client_loads_no_engine() -> None:
    loaded = modules_loaded_by("import binworks.client, binworks.client.cli")
    assert loaded.isdisjoint(ENGINES), sorted(loaded.intersection(ENGINES))


def test_importing_the_api_does_not_load_dask() -> None:
    loaded = modules_loaded_by("import binworks.api.app")
    assert loaded.isdisjoint({"dask", "distributed"})


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_every_imported_package_is_declared(root: Path, rooms: tuple[str, ...]) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    runtime = {key: value for key, value in project["optional-dependencies"].items() if key != "dev"}
    lines = [*project["dependencies"], *(line for extra in runtime.values() for line in extra)]
    declared = {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in lines}
    owners = {
        **importlib.metadata.packages_distributions(),
        "starlette": ["fastapi"],
    }  # its own base, pinned by it
    undeclared = {}
    for room in rooms:
        for path in sorted((root / room).rglob("*.py")):
            for name in set(imports_of(path)) - set(sys.stdlib_module_names) - {"binworks"}:
                owner = {dist.lower().replace("_", "-") for dist in owners.get(name, [name])}
                if owner.isdisjoint(declared):
                    undeclared[str(path.relative_to(root))] = name
    assert undeclared == {}
