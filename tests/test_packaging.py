"""What is installed is what is in the tree, under one import name."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

IMPORT_ALL = """
import importlib, pathlib, sys
import binworks
top = pathlib.Path(binworks.__file__).parent
assert top.is_relative_to(sys.argv[1]), f"imported from {top}"
for path in sorted(top.rglob("*.py")):
    parts = path.relative_to(top.parent).with_suffix("").parts
    if parts[-1] == "__main__":
        continue
    importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
"""


def build(source: Path, out: Path, *kinds: str) -> Path:
    """Build distributions of ``source`` with the installed back end, without a download."""
    command = [sys.executable, "-m", "build", "--no-isolation", *kinds, "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=out)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


def files_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def dist(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(root, tmp_path_factory.mktemp("dist"), "--wheel", "--sdist")


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return next(dist.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel beside, not over, the editable install."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(wheel)], check=True, capture_output=True)
    return target


def environment(installed: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}


def test_the_wheel_holds_exactly_the_files_of_the_rooms(
    root: Path, rooms: tuple[str, ...], wheel: Path
) -> None:
    tree = {"binworks/__init__.py", "binworks/py.typed"}
    for room in rooms:
        found = (path for path in (root / room).rglob("*") if path.is_file())
        tree |= {f"binworks/{p.relative_to(root).as_posix()}" for p in found if "__pycache__" not in p.parts}
    assert files_of(wheel) == tree


def test_the_sdist_builds_the_same_wheel(dist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    out = tmp_path / "out"
    out.mkdir()
    build(source, out, "--wheel")
    assert files_of(next(out.glob("*.whl"))) == files_of(wheel)


def test_nothing_but_binworks_is_importable_from_the_wheel(wheel: Path) -> None:
    assert {name.split("/")[0] for name in files_of(wheel)} == {"binworks"}


def test_every_link_of_the_import_name_leads_to_its_room(root: Path, rooms: tuple[str, ...]) -> None:
    links = [path for path in (root / "src/binworks").iterdir() if path.is_symlink()]
    assert {link.name: str(link.readlink()) for link in links} == {room: f"../../{room}" for room in rooms}


def test_every_module_of_the_installed_wheel_imports(installed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", IMPORT_ALL, str(installed)]
    done = subprocess.run(command, env=environment(installed), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_page_is_rendered_from_the_installed_wheel(installed: Path, tmp_path: Path) -> None:
    code = "from binworks.api.page_templates import render; print(render('login.html', error=None, next='/'))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(installed), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "/binworks.css" in done.stdout


def test_the_console_script_starts_from_any_folder(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "client.py").write_text("raise SystemExit('a stranger was imported')\n")
    script = installed / "bin/binworks"
    command = [sys.executable, str(script), "--help"]
    done = subprocess.run(command, env=environment(installed), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "submit" in done.stdout
