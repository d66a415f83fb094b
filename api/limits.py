"""How much anybody may ask for: the size of a body, requests a second, wrong tokens; and under which names.

All is counted in this process: several of them allow so much each.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import cast

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from binworks.api import auth, problems
from binworks.api.bearers import Bearers
from binworks.api.rates import Buckets
from binworks.service.addresses import is_loopback
from binworks.service.settings import Settings
from binworks.tensors.errors import BinworksError, ConflictError, RequestError

BURST_SECONDS = 10.0
"""A bucket that nobody took from holds the requests of so many seconds."""
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
PROBES = frozenset({"/healthz", "/readyz"})
"""Without limits: Kubernetes asks them, by the address of a pod, and they tell nothing."""
ANY_NAME = frozenset({"/metrics"})
"""Prometheus asks by such an address, too; the numbers name nobody and nothing."""


class Limits:
    """An application behind its limits.

    Parameters
    ----------
    app : callable
        The application behind them.
    settings : Settings
        Names ``max_body_bytes``, ``rate_per_second``, ``rate_per_second_unknown`` and ``hosts``.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._largest = settings.max_body_bytes
        self._hosts = hosts(settings)
        self._owners = _buckets(settings.rate_per_second)
        self._unknown = _buckets(settings.rate_per_second_unknown)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what is too much at once, and hand on the rest."""
        if scope["type"] == "lifespan" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        wait = 0.0
        refused = self._wrong_host(scope["path"], headers) or self._too_large(headers)
        if refused is None:
            wait = self._wait(scope)
            refused = _too_fast() if wait else None
        if refused is not None:
            await _refuse(refused, wait, scope, receive, send)
        elif b"transfer-encoding" in headers:
            await self._app(scope, self._counted(receive), send)
        else:
            await self._app(scope, receive, send)

    def _wrong_host(self, path: str, headers: dict[bytes, bytes]) -> BinworksError | None:
        if self._hosts is None or path in ANY_NAME:
            return None
        if _without_port(headers.get(b"host", b"").decode("latin-1").lower()) in self._hosts:
            return None
        return RequestError(
            "The service is not known under this name.",
            code="wrong-host",
            where="Host",
            hint="Use one of the names in its setting `hosts`; a page of another site may have sent you here.",
        )

    def _too_large(self, headers: dict[bytes, bytes]) -> BinworksError | None:
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) <= self._largest:
            return None
        return RequestError(self._largest_body(), code="too-large", where="Content-Length")

    def _counted(self, receive: Receive) -> Receive:
        """Count a body that does not say how long it is."""
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._largest:  # the one kind of error that FastAPI hands on while it reads
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._largest_body())
            return message

        return counted

    def _largest_body(self) -> str:
        return f"The body of a request may have {self._largest} bytes."

    def _wait(self, scope: Scope) -> float:
        shown = auth.presented(scope)
        bearers = cast("Bearers", scope["app"].state.context.bearers)
        bearer = None if shown is None else bearers.lately(shown.token)
        if bearer is not None:
            return self._owners.take(bearer.owner)
        return self._unknown.take(address(scope))


def hosts(settings: Settings) -> frozenset[str] | None:
    """Return the names under which the service may be asked; None: any.

    A page of another site can make its own name point to the loopback and so ask a service that only this machine
    reaches; its name gives it away.
    """
    if settings.hosts:
        return frozenset(name.lower() for name in settings.hosts)
    return frozenset({*LOOPBACK, settings.host.lower()}) if is_loopback(settings.host) else None


def address(scope: Scope) -> str:
    """Return where a request came from: an IPv6 network is one place, as each has 2 to the 64 addresses."""
    host = scope["client"][0] if scope.get("client") else ""
    return ":".join(host.split(":")[:4]) if host.count(":") > 1 else host


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() and (":" not in name or name.endswith("]")) else host


def _buckets(rate: float) -> Buckets:
    return Buckets(rate, max(BURST_SECONDS * rate, 1.0))


def _too_fast() -> ConflictError:
    return ConflictError(
        "Too many requests in a short time.",
        code="too-many-requests",
        hint="Wait as long as `Retry-After` says; `Prefer: wait=` and event streams need fewer requests.",
    )


async def _refuse(error: BinworksError, wait: float, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": error.code})
        return
    answer = problems.answer(error)
    if wait:
        answer.headers["Retry-After"] = str(math.ceil(wait))
    await answer(scope, receive, send)
