"""A contender in a process of its own: it answers each line of JSON with a line of JSON.

So no contender lives in another's memory allocator, each one's memory can be told apart, and one may run under another
Python. What compiles, compiles at a first question that is not timed.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).resolve().parent


class Child:
    """The parent's end.

    Parameters
    ----------
    script : str
        Beside this file.
    *words : str
        Its arguments.
    python : str
        Which interpreter.
    environment : mapping, optional
        Added to this process's.
    """

    def __init__(
        self,
        script: str,
        *words: str,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            [python, str(HERE / script), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self._name = script

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate()

    def ask(self, **question: Any) -> dict[str, Any]:
        """Return the child's answer.

        Raises
        ------
        RuntimeError
            If it ended instead; its own message is on stderr.
        """
        sink, source = self._process.stdin, self._process.stdout
        if sink is None or source is None:
            raise RuntimeError(f"{self._name} has no pipes")
        try:
            sink.write(json.dumps(question) + "\n")
            sink.flush()
            line = source.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"{self._name} ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def serve(answer: Callable[..., dict[str, Any]]) -> None:
    """Answer questions until stdin ends; whatever else is printed goes to stderr."""
    with os.fdopen(os.dup(1), "w") as channel:
        os.dup2(2, 1)
        for line in sys.stdin:
            channel.write(json.dumps(answer(**json.loads(line))) + "\n")
            channel.flush()


def timed(work: Callable[[], Any]) -> dict[str, Any]:
    """Return the ``seconds`` of a core that a call takes, all threads together, and its ``result``.

    Nobody waits here for a disk, and all threads share one core: on a quiet machine these are the seconds of the clock,
    ``elapsed``, and on a busy one they are still what the work takes.
    """
    gc.collect()
    begin, begin_clock = time.process_time(), time.perf_counter()
    result = work()
    seconds, elapsed = time.process_time() - begin, time.perf_counter() - begin_clock
    return {"seconds": seconds, "elapsed": elapsed, "result": result}


def can_import(python: str, module: str) -> bool:
    """Whether another interpreter has a module."""
    command: Sequence[str] = [python, "-c", f"import importlib.util as u; u.find_spec({module!r}).name"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
