"""The documentation runs as it stands: its Python, its commands, its links."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_nano
import typer

from binworks.client import cli

FENCE = re.compile(r"(?P<before>[^\n]*)\n*^```python\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
NOT_RUN = re.compile(r"<!-- not run: \w.* -->")
RUN_HERE = ("docs/howto/processor.md", "docs/howto/correction.md", "docs/howto/formats.md")
TUTORIAL = "docs/tutorial.md"
BINWORKS = (sys.executable, "-c", "from binworks.client.cli import main; main()")
EVENTS = "8000"
START_SECONDS = 120


def pages(root: Path) -> list[Path]:
    return [root / "README.md", root / "CHANGELOG.md", *sorted((root / "docs").rglob("*.md"))]


def blocks(page: Path, *, run: bool) -> list[tuple[int, str]]:
    """Return line and code of the blocks that are (not) to be run."""
    text = page.read_text()
    found = FENCE.finditer(text)
    return [
        (text.count("\n", 0, match.start("code")), match["code"])
        for match in found
        if bool(NOT_RUN.fullmatch(match["before"])) != run
    ]


def run_page(page: Path) -> dict[str, object]:
    """Run a page from top to bottom in one namespace."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for line, code in blocks(page, run=True):
        exec(compile("\n" * line + code, str(page), "exec"), namespace)
    return namespace


@pytest.mark.parametrize("page", RUN_HERE)
def test_a_how_to_runs(root: Path, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_nano.write(tmp_path / "events.root", small_nano.events(2000, 1))
    assert run_page(root / page)


def commands(page: Path) -> list[list[str]]:
    """Return what follows a prompt in the page's console blocks."""
    lines = (line for block in CONSOLE.findall(page.read_text()) for line in block.splitlines())
    return [shlex.split(line[2:], comments=True) for line in lines if line.startswith("$ ")]


@pytest.fixture
def service(root: Path, tmp_path: Path) -> Iterator[Path]:
    """Do what the tutorial's console says, with fewer events; return the folder in which the service runs."""
    typed = [words[1:] for words in commands(root / TUTORIAL) if words[0] == "binworks"]
    sample = next(words for words in typed if words[0] == "sample")
    sample[sample.index("--events") + 1] = EVENTS
    subprocess.run([*BINWORKS, *sample, "--json"], cwd=tmp_path, check=True, capture_output=True)
    up = next(words for words in typed if words[0] == "up")
    process = subprocess.Popen([*BINWORKS, *up, "--port", "0"], cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not (tmp_path / "binworks-home/service.json").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield tmp_path
    finally:
        process.terminate()
        process.wait(60)


def test_the_tutorial_runs_to_a_fitted_mass(
    root: Path, service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(service)
    monkeypatch.setenv("BINWORKS_HOME", str(service / "binworks-home"))
    done = run_page(root / TUTORIAL)
    done["client"].close()  # type: ignore[attr-defined]
    assert done["result"].uncertainty > 0  # type: ignore[attr-defined]
    assert (service / "w_mass.png").stat().st_size > 10_000


def test_commands_of_the_documentation_exist(root: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.MULTILINE))
    for page in pages(root):
        for words in commands(page):
            if words[0] == "make":
                assert words[1] in targets, f"{page}: {words}"
            elif words[0] == "binworks":
                command, rest = typer.main.get_command(cli.build(words[1:3])), words[1:]
                while rest and hasattr(command, "commands"):
                    assert rest[0] in command.commands, f"{page}: {words}"
                    command, rest = command.commands[rest[0]], rest[1:]
                known = {option for parameter in command.params for option in parameter.opts}
                assert {word for word in rest if word.startswith("-")} <= known, f"{page}: {words}"


def test_pages_with_code_are_run_or_say_why_not(root: Path) -> None:
    with_code = {str(page.relative_to(root)) for page in pages(root) if blocks(page, run=True)}
    assert with_code == {*RUN_HERE, TUTORIAL}


def test_code_that_is_not_run_is_python_at_least(root: Path) -> None:
    for page in pages(root):
        for _, code in blocks(page, run=False):
            ast.parse(code)


def test_links_lead_somewhere(root: Path) -> None:
    broken = [
        f"{page.relative_to(root)}: {target}"
        for page in pages(root)
        for target in LINK.findall(page.read_text())
        if not target.startswith("http") and not (page.parent / target).exists()
    ]
    assert broken == []
