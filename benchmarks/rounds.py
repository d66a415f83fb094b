"""Interleaved rounds: every task once a round, so that a busy machine slows all alike."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from child import Child


class Run(NamedTuple):
    """One run of a task: thousands of events a second of a core, seconds of the clock to one of a core, result."""

    rate: float
    stretch: float
    result: Any


@dataclass(frozen=True)
class Task:
    """One contender at work.

    Parameters
    ----------
    name : str
        In the report.
    child : Child
        Who does it.
    events : int
        How many.
    question : dict
        What it is asked, beside the number of events.
    once : bool
        In the first round only, as it takes long.
    """

    name: str
    child: Child
    events: int
    question: dict[str, Any]
    once: bool = False

    def prepare(self) -> None:
        """Let the child compile, and open what it opens once."""
        if not self.once:
            self.child.ask(events=10, **self.question)

    def run(self) -> Run:
        """Run once."""
        answer = self.child.ask(events=self.events, **self.question)
        seconds = float(answer["seconds"])
        return Run(self.events / 1e3 / seconds, float(answer["elapsed"]) / seconds, answer["result"])


class Rates:
    """The rates (kHz) of each task, round by round."""

    def __init__(self, tasks: Sequence[Task], rounds: int) -> None:
        for task in tasks:
            task.prepare()
        self._runs: dict[str, list[Run]] = {task.name: [] for task in tasks}
        for number in range(rounds):
            for task in tasks:
                if number == 0 or not task.once:
                    self._runs[task.name].append(task.run())

    def __contains__(self, name: object) -> bool:
        return name in self._runs

    def result(self, name: str) -> Any:
        """Return what a task's last run returned."""
        return self._runs[name][-1].result

    def medians(self) -> dict[str, float]:
        """Return the median rate of each task."""
        return {
            name: round(statistics.median(run.rate for run in runs), 2) for name, runs in self._runs.items()
        }

    def ratio(self, one: str, other: str) -> float | None:
        """Return the median over the rounds of a ratio of rates; None if a task is not there."""
        pairs = zip(self._runs.get(one, []), self._runs.get(other, []), strict=False)
        ratios = [ours.rate / theirs.rate for ours, theirs in pairs]
        return round(statistics.median(ratios), 3) if ratios else None

    def stretch(self) -> float:
        """Return the median seconds of the clock for one of a core: 1 on a quiet machine."""
        return round(statistics.median(run.stretch for runs in self._runs.values() for run in runs), 3)
