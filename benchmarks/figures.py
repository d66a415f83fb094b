"""Numbers with their goals: a table for people, a file for programs, and an exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """A number and its goal: at least so much, or at most."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether the goal was reached."""
        return self.goal is None or (self.value <= self.goal if self.at_most else self.value >= self.goal)

    def row(self) -> str:
        """Return a line of the table."""
        goal = "" if self.goal is None else f"{'<=' if self.at_most else '>='} {self.goal:g}"
        return f"{self.name:<58} {self.value:>10.4g} {self.unit:<11} {goal:<8} {'' if self.met else 'MISSED'}"


def write(path: Path, figures: Sequence[Figure], load: float) -> None:
    """Write figures as JSON, with the load that the machine had before."""
    rows = [{**vars(figure), "name": figure.name.strip(), "met": figure.met} for figure in figures]
    document = {"load_before": load, "cores": os.cpu_count(), "figures": rows}
    path.write_text(json.dumps(document, indent=1) + "\n")


def judge(figures: Sequence[Figure]) -> int:
    """Say what was missed; return the exit code."""
    missed = [figure.name.strip() for figure in figures if not figure.met]
    if missed:
        print(f"missed: {'; '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0
