"""What may not stand in any file, and how long a function may be."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

BINARY = {".png", ".root", ".gz", ".ico", ".npz"}
VENDORED = "api/static/vendor/"
MACHINE_PATH = re.compile(
    r"(?<![\w.~}*:-])/(?:root|work|opt(?!/binworks\b)|mnt|home/(?!binworks\b)\w+|Users/\w+)/\w"
)
REGISTRY = re.compile(
    r"(?:pypi|pythonhosted|npmjs|goproxy|anaconda|docker|quay|ghcr)\.(?:org|com|io)\b|--(?:extra-)?index-url|--find-links"
)
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")


@pytest.fixture(scope="module")
def texts(root: Path) -> dict[str, str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [root / name for name in listed.stdout.splitlines()]
    readable = (path for path in paths if path.is_file() and path.suffix not in BINARY)
    return {str(path.relative_to(root)): path.read_text() for path in readable}


@pytest.mark.parametrize(
    "pattern", [MACHINE_PATH, REGISTRY, UNFINISHED], ids=["machine", "registry", "unfinished"]
)
def test_no_file_names(pattern: re.Pattern[str], texts: dict[str, str]) -> None:
    here = f"tests/{Path(__file__).name}"
    found = [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in texts.items()
        if name != here and not name.startswith(VENDORED)
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (MACHINE_PATH, "cache = '/root/cache'"),
        (MACHINE_PATH, "open(/home/jane/x)"),
        (REGISTRY, "pip install --index-url x"),
        (REGISTRY, "https://pypi.org/simple"),
    ],
)
def test_the_patterns_find_what_they_forbid(pattern: re.Pattern[str], line: str) -> None:
    assert pattern.search(line)


def test_functions_are_short(root: Path, rooms: tuple[str, ...]) -> None:
    lengths = {}
    for room in rooms:
        for path in (root / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    name = f"{path.relative_to(root)}:{node.lineno} {node.name}"
                    lengths[name] = (node.end_lineno or node.lineno) - node.lineno + 1
    assert {name: length for name, length in lengths.items() if length >= 70} == {}
    assert sorted(lengths.values())[int(0.95 * len(lengths))] <= 50
