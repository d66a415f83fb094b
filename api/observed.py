"""Each request counted, timed and written down: by route and never by path, without tokens and query strings."""

from __future__ import annotations

import json
import re
import secrets
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from binworks.api import auth
from binworks.api.bearers import Bearers
from binworks.service import logs
from binworks.service.logs import Lines

REQUEST_ID = b"x-request-id"
NOWHERE = "unmatched"
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
GONE = 499
"""Status of what was asked by somebody who did not wait for the answer."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_GIVEN = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{7,63}")
_JOB = re.compile(r"[A-Za-z0-9_-]{1,40}")
_STREAM = b"text/event-stream"


class Requests:
    """Counts of requests by method, route and status; how long they took by method and route; open event streams.

    Parameters
    ----------
    registry : CollectorRegistry
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._total = Counter(
            "binworks_requests",
            "Requests that were answered.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "binworks_request_seconds",
            "Time until the whole answer was sent; event streams are left out.",
            ["method", "route"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.streams = Gauge("binworks_sse_clients", "Readers of event streams.", registry=registry)
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._timers: dict[tuple[str, str], Histogram] = {}

    def count(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """Count a request; ``seconds=None`` for a stream."""
        method = method if method in METHODS else "other"
        counter = self._counters.get((method, route, status))
        if counter is None:
            counter = self._counters[method, route, status] = self._total.labels(method, route, str(status))
        counter.inc()
        if seconds is not None:
            timer = self._timers.get((method, route))
            if timer is None:
                timer = self._timers[method, route] = self._seconds.labels(method, route)
            timer.observe(seconds)


class Observed:
    """An application whose requests are counted and written down.

    Parameters
    ----------
    app : callable
        The application.
    requests : Requests
    lines : Lines
        The access log.
    """

    def __init__(self, app: ASGIApp, requests: Requests, lines: Lines) -> None:
        self._app = app
        self._requests = requests
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, and look at its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()
        request = _request_id(scope)
        logs.tell(lambda: {"request": request, "job": _job(scope)})
        status, streaming = GONE, False

        async def watched(message: Message) -> None:
            nonlocal status, streaming
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (REQUEST_ID, request.encode())]
                message["headers"] = headers
                if _is_stream(headers):
                    streaming = True
                    self._requests.streams.inc()
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            status = 500 if status == GONE else status
            raise
        finally:
            seconds = time.perf_counter() - begin
            if streaming:
                self._requests.streams.dec()
            self._requests.count(scope["method"], _route(scope), status, None if streaming else seconds)
            self._lines.add(_line(scope, status, seconds, request))


def _line(scope: Scope, status: int, seconds: float, request: str) -> str:
    """Return a line as `binworks.service.logs.JsonLines` writes it, in a tenth of the time."""
    method, route = scope["method"], _route(scope)
    owner, job = _owner(scope), _job(scope)
    about = f', "owner": {_json(owner)}' if owner is not None else ""
    about += f', "job": "{job}"' if job is not None else ""
    return (
        f'{{"time": "{_moment(time.time())}", "level": "info", "logger": "binworks.access", '
        f'"message": {_json(f"{method} {route} {status}")}, "method": {_json(method)}, "route": {_json(route)}, '
        f'"status": {status}, "ms": {1000 * seconds:.2f}, "request": "{request}"{about}}}'
    )


def _moment(now: float) -> str:
    return f"{_second(int(now))}.{int(1000 * (now % 1)):03d}+00:00"


@lru_cache(maxsize=2)
def _second(now: int) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=2000)
def _json(text: str) -> str:
    return json.dumps(text)


def _request_id(scope: Scope) -> str:
    """Return the id that was given, if it looks like one, or a new one."""
    for name, value in scope["headers"]:
        if name == REQUEST_ID and _GIVEN.fullmatch(value):
            return cast("bytes", value).decode()
    return secrets.token_hex(8)


def _route(scope: Scope) -> str:
    """Return the template of the route: there are few of them, whatever people ask for."""
    return getattr(scope.get("route"), "path", None) or NOWHERE


def _job(scope: Scope) -> str | None:
    job = scope.get("path_params", {}).get("job")
    return job if isinstance(job, str) and _JOB.fullmatch(job) else None


def _owner(scope: Scope) -> str | None:
    shown = auth.presented(scope)
    context = getattr(scope["app"].state, "context", None) if "app" in scope else None
    if shown is None or context is None:
        return None
    bearer = cast("Bearers", context.bearers).lately(shown.token)
    return None if bearer is None else bearer.owner


def _is_stream(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name.lower() == b"content-type" and value.startswith(_STREAM) for name, value in headers)
