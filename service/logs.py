"""Log files for machines: one JSON object a line, with the job and the unit where there is one.

What a record is about stands in it (``extra={"job": ...}``), or was told by `tell` to all that is logged from then on
in the same asyncio task, and in the threads that it calls.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO, cast

from binworks.service.settings import Settings

MAX_BYTES = 20_000_000
KEPT_FILES = 3
MOST_LINES = 1000
FIELDS = ("job", "unit", "worker", "code", "request")

_About = Callable[[], Mapping[str, object]]
_about: ContextVar[_About] = ContextVar("about", default=dict)


def tell(about: _About) -> None:
    """Say what all records of this asyncio task are about, from now on; asked when one is written."""
    _about.set(about)


@contextmanager
def about(**facts: object) -> Iterator[None]:
    """Say what the records of a block are about."""
    token = _about.set(lambda: facts)
    try:
        yield
    finally:
        _about.reset(token)


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        known = dict(_about.get()())
        known |= {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
        line |= {name: known[name] for name in FIELDS if known.get(name) is not None}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def begin(settings: Settings, name: str) -> None:
    """Send all of this process's log records to where the settings say: a file of the home, or standard error.

    Parameters
    ----------
    settings : Settings
    name : str
        Of the file.
    """
    if settings.log_to == "stderr":
        to_stderr()
    else:
        to_file(settings.logs / name)


def to_file(path: Path) -> None:
    """Send all of this process's log records to a file that is renamed when it grows large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _to(RotatingFileHandler(path, maxBytes=MAX_BYTES, backupCount=KEPT_FILES))


def to_stderr() -> None:
    """Send our log records to the standard error, which somebody else keeps."""
    _to(logging.StreamHandler(sys.stderr))


def _to(handler: logging.Handler) -> None:
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)


class Lines:
    """A file of many short lines, written some at a time: a line must not cost a request its time.

    What was added in the last second is lost if the process is killed; and what a full disk does not take.

    Parameters
    ----------
    path : Path or None
        Renamed when it grows large; None: standard error.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lines: list[str] = []
        self._file: RotatingFileHandler | None = None

    def add(self, line: str) -> None:
        """Add a line."""
        self._lines.append(line)
        if len(self._lines) >= MOST_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what was added."""
        if not self._lines:
            return
        text, self._lines = "\n".join(self._lines) + "\n", []
        try:
            if self._path is None:
                sys.stderr.write(text)
                sys.stderr.flush()
                return
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = RotatingFileHandler(self._path, backupCount=KEPT_FILES, encoding="utf-8")
            stream = cast("TextIO", self._file.stream)
            stream.write(text)
            stream.flush()
            if stream.tell() > MAX_BYTES:
                self._file.doRollover()
        except OSError:
            return

    def close(self) -> None:
        """Write the rest."""
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None
