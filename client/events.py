"""A job's diary as it is written: Server-Sent Events, resumed after the last one seen."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from binworks.client.status import FINISHED
from binworks.client.transport import Transport, pause
from binworks.tensors.errors import TransientError

SILENCE = 30.0
"""Seconds without even a heartbeat after which the line counts as lost."""
LONGEST_PAUSE = 5


@dataclass(frozen=True)
class Event:
    """One line of the diary.

    Parameters
    ----------
    id : int
        Grows.
    kind : str
        ``state``, ``progress``, ``snapshot``, ``unit-failed`` or ``note``.
    time : str
        ISO 8601.
    data : mapping
        By kind.
    """

    id: int
    kind: str
    time: str
    data: Mapping[str, Any]

    @property
    def is_last(self) -> bool:
        """Whether the job is finished with this, unless it is retried."""
        return self.kind == "state" and self.data.get("state") in FINISHED


def follow(transport: Transport, path: str, *, after: int = 0, patience: float = 300.0) -> Iterator[Event]:
    """Give the events of a job from the one after ``after`` until its last, over any number of lost connections.

    The stream of a job that was retried goes on after the end of its earlier run: the service closes it after the last.

    Parameters
    ----------
    patience : float
        Seconds without any connection after which it gives up.

    Raises
    ------
    TransientError
        Code ``cannot-connect``.
    BinworksError
        As the service says.
    """
    failures, heard, ended = 0, time.monotonic(), False
    while True:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        try:
            with transport.stream(path, headers, SILENCE) as answer:
                told = False
                for event in parse(answer.iter_lines()):
                    failures, heard, told = 0, time.monotonic(), True
                    after, ended = event.id, event.is_last
                    yield event
            if ended or (not told and _finished(transport, path)):
                return
        except (httpx.TransportError, TransientError) as error:
            if ended:
                return
            if time.monotonic() - heard > patience:
                raise error if isinstance(error, TransientError) else transport.unreachable(error) from error
        pause(min(failures, LONGEST_PAUSE))
        failures += 1


def _finished(transport: Transport, path: str) -> bool:
    """Whether nothing will ever come: the stream of a finished job, resumed after its last event, is empty."""
    view = transport.request("GET", path.removesuffix("/events")).json()
    return view["state"] in FINISHED


def parse(lines: Iterable[str]) -> Iterator[Event]:
    """Give the complete events of a stream of lines; a half one at the end is dropped."""
    data: list[str] = []
    for line in lines:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            document = json.loads("\n".join(data))
            yield Event(int(document["id"]), document["kind"], document["time"], document["data"])
            data = []
