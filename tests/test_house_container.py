"""The container file: pinned base, the wheel and nothing else, no root."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

Instruction = tuple[str, str]


@pytest.fixture(scope="module")
def instructions(root: Path) -> list[Instruction]:
    text = (root / "deploy/Containerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        (word, rest.strip())
        for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)
    ]


def values(instructions: list[Instruction], word: str) -> list[str]:
    return [rest for name, rest in instructions if name == word]


def test_only_known_instructions_are_used(instructions: list[Instruction]) -> None:
    assert {word for word, _ in instructions} <= {"ARG", "FROM", "COPY", "RUN", "ENV", "USER", "WORKDIR"}


def test_the_base_is_pinned_by_a_digest_that_one_must_name(instructions: list[Instruction]) -> None:
    assert values(instructions, "FROM") == ["${PYTHON_IMAGE}@${PYTHON_DIGEST}"]
    assert "PYTHON_DIGEST" in values(instructions, "ARG")


def test_only_the_wheel_is_copied(instructions: list[Instruction]) -> None:
    assert values(instructions, "COPY") == ["dist/binworks-*-py3-none-any.whl /tmp/"]


def test_the_image_ends_as_a_numeric_user_that_is_not_root(instructions: list[Instruction]) -> None:
    words = [word for word, _ in instructions]
    (user,) = values(instructions, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert words.index("USER") > max(index for index, word in enumerate(words) if word == "RUN")


def test_the_extras_of_the_image_exist(root: Path, instructions: list[Instruction]) -> None:
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (wanted,) = re.findall(r"\$1\[([\w,]+)\]", values(instructions, "RUN")[0])
    assert set(wanted.split(",")) <= set(extras) - {"dev"}
