"""The other side of the API's benchmark: many clients in a process of their own, on plain sockets.

    python benchmarks/api_load.py '{"what": "status", "port": 8080, "token": "...", "path": "/v1/jobs/x", ...}'

It prints a JSON document when it has measured. What it does is little, so that it is not itself what is measured.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

HOST = "127.0.0.1"
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_TOLD = re.compile(rb'"at":([0-9.]+)')
BUFFER = 1 << 20


@dataclass(frozen=True)
class Asked:
    """What is asked of whom.

    Parameters
    ----------
    what : str
        ``status``, ``streams`` or ``bytes``.
    port, token, path : int, str, str
        Of the service.
    clients : int
        Connections at once.
    seconds : float
        How long.
    ranges : list of str
        For ``bytes``: one range after the other; none is the whole.
    """

    what: str
    port: int
    token: str
    path: str
    clients: int
    seconds: float
    ranges: tuple[str, ...] = ()

    def request(self, *headers: str) -> bytes:
        """Return a request."""
        lines = [
            f"GET {self.path} HTTP/1.1",
            f"Host: {HOST}:{self.port}",
            f"Authorization: Bearer {self.token}",
            *headers,
        ]
        return "\r\n".join([*lines, "", ""]).encode()


class Asking(asyncio.Protocol):
    """A client that asks again as soon as it has its answer."""

    def __init__(self, asked: Asked) -> None:
        self.request = asked.request()
        self.until = time.perf_counter() + asked.seconds
        self.took: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.answer, self.began = b"", time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.answer += data
        head, found, body = self.answer.partition(b"\r\n\r\n")
        if not found:
            return
        length = _LENGTH.search(head)
        if not head.startswith(b"HTTP/1.1 200") or length is None:
            self.done.set_exception(RuntimeError(head.decode()))
            return
        if len(body) < int(length[1]):
            return
        now = time.perf_counter()
        self.took.append(now - self.began)
        if now < self.until:
            self.ask()
        else:
            self.transport.close()
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or RuntimeError("the service closed the line"))


class Following(asyncio.Protocol):
    """A client of the event stream: notes how late each event came whose data tell when it was written."""

    def __init__(self, asked: Asked) -> None:
        self.request = asked.request()
        self.connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.late: list[float] = []
        self.rest = b""

    def connection_made(self, transport: Any) -> None:
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if not self.connected.done() and b"event: state" in data:
            self.connected.set_result(None)
        *lines, self.rest = (self.rest + data).split(b"\n")
        now = time.monotonic()
        self.late += [now - float(at[1]) for at in map(_TOLD.search, lines) if at]


async def status(asked: Asked) -> dict[str, Any]:
    """Ask for one path as often as possible."""
    loop = asyncio.get_running_loop()
    clients = [Asking(asked) for _ in range(asked.clients)]
    began = time.perf_counter()
    for client in clients:
        await loop.create_connection(lambda client=client: client, HOST, asked.port)
    await asyncio.gather(*(client.done for client in clients))
    seconds = time.perf_counter() - began
    took = sorted(second for client in clients for second in client.took)
    cuts = statistics.quantiles(took, n=100)
    return {
        "answers": len(took),
        "per_second": len(took) / seconds,
        "p50_ms": 1e3 * cuts[49],
        "p99_ms": 1e3 * cuts[98],
    }


async def streams(asked: Asked) -> dict[str, Any]:
    """Follow a job by many streams; those who tell events wait for the line "connected"."""
    loop = asyncio.get_running_loop()
    clients = [Following(asked) for _ in range(asked.clients)]
    began = time.perf_counter()
    for client in clients:
        await loop.create_connection(lambda client=client: client, HOST, asked.port)
    await asyncio.gather(*(client.connected for client in clients))
    print(json.dumps({"connected": len(clients), "seconds": time.perf_counter() - began}), flush=True)
    await asyncio.sleep(asked.seconds)
    heard = [len(client.late) for client in clients]
    late = [max(each) for each in zip(*(client.late for client in clients), strict=False)]
    return {
        "clients": len(clients),
        "events_heard_by_all": min(heard),
        "events_heard_by_any": max(heard),
        "all_told_ms": [1e3 * seconds for seconds in late],
    }


def fetch(asked: Asked) -> dict[str, Any]:
    """Fetch bytes over one connection for some seconds; they are thrown away as they come."""
    buffer = bytearray(BUFFER)
    wanted = [asked.request(f"Range: bytes={each}") for each in asked.ranges] or [asked.request()]
    fetched, answers = 0, 0
    with _connected(asked.port) as line:
        began = time.perf_counter()
        while time.perf_counter() - began < asked.seconds:
            fetched += _fetch(line, wanted[answers % len(wanted)], buffer)
            answers += 1
        seconds = time.perf_counter() - began
    return {"gb_per_second": fetched / seconds / 1e9, "answers": answers, "bytes": fetched}


@contextmanager
def _connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection((HOST, port)) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        yield line


def _fetch(line: socket.socket, request: bytes, buffer: bytearray) -> int:
    line.sendall(request)
    head = b""
    while b"\r\n\r\n" not in head:
        head += line.recv(65536)
    first, _, body = head.partition(b"\r\n\r\n")
    length = _LENGTH.search(first)
    if not first.startswith(b"HTTP/1.1 20") or length is None:
        raise RuntimeError(first.decode())
    left = int(length[1]) - len(body)
    while left:
        left -= line.recv_into(buffer, min(BUFFER, left))
    return int(length[1])


def main() -> None:
    """Measure what the argument asks for."""
    asked = Asked(**json.loads(sys.argv[1]))
    if asked.what == "bytes":
        found = fetch(asked)
    else:
        found = asyncio.run(status(asked) if asked.what == "status" else streams(asked))
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
