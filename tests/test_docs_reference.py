"""The reference is complete and agrees with the code."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

CODE = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


@pytest.fixture(scope="module")
def generate(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", root / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["settings.md", "site.md", "cli.md", "rest.md"])
def test_the_generated_pages_agree_with_the_code(root: Path, generate: ModuleType, page: str) -> None:
    stored = (root / "docs/reference" / page).read_text()
    assert stored == generate.PAGES[page]().rstrip() + "\n", "run: python docs/generate.py"


def text_of(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def codes_of(tree: ast.AST) -> Iterator[str | None]:
    """Give every error code that stands in the source."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            yield from (text_of(keyword.value) for keyword in node.keywords if keyword.arg == "code")
            if name == "Failure" and len(node.args) > 1:
                yield text_of(node.args[1])
            elif name == "unknown_name" and (kind := text_of(node.args[0])):
                yield f"unknown-{kind.replace(' ', '-')}"
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {getattr(target, "id", "") for target in targets}
            if "default_code" in names:
                yield text_of(node.value)
            elif "_CODE_OF_STATUS" in names and isinstance(node.value, ast.Dict):
                yield from map(text_of, node.value.values)


def test_every_error_code_is_documented_and_no_other(root: Path, rooms: tuple[str, ...]) -> None:
    sources = [path for room in rooms for path in (root / room).rglob("*.py")]
    used = {code for path in sources for code in codes_of(ast.parse(path.read_text())) if code}
    page = (root / "docs/reference/errors.md").read_text()
    first_cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    documented = {code for cell in first_cells for code in re.findall(r"`([^`]+)`", cell)}
    assert used - documented == set(), "not in docs/reference/errors.md"
    assert documented - used == set(), "no longer in the code"


def test_codes_are_lower_case_with_dashes(root: Path, rooms: tuple[str, ...]) -> None:
    sources = [path for room in rooms for path in (root / room).rglob("*.py")]
    used = {code for path in sources for code in codes_of(ast.parse(path.read_text())) if code}
    assert [code for code in used if not CODE.fullmatch(code)] == []
