"""The Dask dashboard below ``/dask/``: its pages, for those who may submit, over the service's own address.

Of a request only its path goes on to the dashboard, and what a browser says of its cache: no cookie, no token. The
scheduler has to be started with ``--dashboard-prefix /dask``, so that its pages point back here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from urllib.parse import unquote

from fastapi import APIRouter, Request, Response, WebSocket
from fastapi.responses import RedirectResponse
from starlette.websockets import WebSocketDisconnect
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from binworks.api.auth import Submitter, admit
from binworks.api.context import Context, Ctx
from binworks.api.problems import NotFoundError
from binworks.api.watch import may_still
from binworks.tensors.errors import BinworksError

PREFIX = "/dask"
FIRST = f"{PREFIX}/status"
FOLDERS = ("info", "json", "static", "statics")
ASKED = ("accept", "accept-language", "if-modified-since", "if-none-match")
ANSWERED = ("content-type", "etag", "last-modified", "cache-control")
CHECK_SECONDS = 5.0
"""Between two looks whether somebody who watches may still do so."""
_PAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.json|\.js|\.html)?")
_ODD = re.compile(r"[\x00-\x1f\x7f\\]|^\.{1,2}$|(^|/)\.{1,2}(/|$)")

log = logging.getLogger(__name__)
router = APIRouter(include_in_schema=False)


@router.get(PREFIX)
@router.get(f"{PREFIX}/")
async def first(_user: Submitter) -> Response:
    """Lead to the first page."""
    return RedirectResponse(FIRST)


@router.get(f"{PREFIX}/{{path:path}}")
async def page(request: Request, context: Ctx, _user: Submitter) -> Response:
    """Return a page of the dashboard, or what belongs to one."""
    path = checked(request.scope["raw_path"].decode("ascii", "replace"))
    query = request.scope["query_string"].decode("ascii", "replace")
    asked = {name: request.headers[name] for name in ASKED if name in request.headers}
    found = await context.dashboard.get(f"{path}?{query}" if query else path, asked)
    if found.is_redirect or found.status_code >= 500:
        raise NotFoundError("The dashboard has no such page.", where=path)
    answered = {name: found.headers[name] for name in ANSWERED if name in found.headers}
    return Response(found.content, found.status_code, answered)


@router.websocket(f"{PREFIX}/{{name}}/ws")
async def stream(socket: WebSocket, name: str) -> None:
    """Carry the messages of a page that is open, for as long as its user may see it."""
    context: Context = socket.app.state.context
    try:
        await admit(socket.scope, context, "submit")
        path = checked(f"{PREFIX}/{name}/ws", streams=True)
        protocols = list(socket.scope["subprotocols"])
        query = socket.scope["query_string"].decode("ascii", "replace")
        upstream = await context.dashboard.connect(f"{path}?{query}" if query else path, protocols)
    except BinworksError as error:
        await socket.close(1008, error.code)
        return
    async with upstream:
        await socket.accept(upstream.subprotocol)
        await _carry(socket, upstream, context)


def checked(path: str, *, streams: bool = False) -> str:
    """Return a path, still encoded, if it is one of the dashboard's own.

    The scheduler's HTTP server does more than show: it hands requests on to other hosts below ``proxy``, and is told
    to end workers below ``api``.

    Raises
    ------
    NotFoundError
        If it is not.
    """
    head, *rest = path.split("/")[2:] or [""]
    if streams:
        known = _PAGE.fullmatch(head) is not None and rest == ["ws"]
    elif rest:
        known = head in FOLDERS or (_PAGE.fullmatch(head) is not None and rest == ["autoload.js"])
    else:
        known = _PAGE.fullmatch(head) is not None
    if not known or not all(part and not _ODD.search(unquote(part)) for part in rest):
        raise NotFoundError("The dashboard has no such page.", where=PREFIX)
    return "/".join([PREFIX, head, *rest])


async def _carry(socket: WebSocket, upstream: ClientConnection, context: Context) -> None:
    """Carry messages both ways until one side ends, or the user may not see it any more."""
    tasks = [
        asyncio.ensure_future(work)
        for work in (_up(socket, upstream), _down(socket, upstream), _watch(socket, context))
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            log.error("a dashboard's stream broke", exc_info=error)
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # its browser may have gone
        await socket.close(1001)


async def _up(socket: WebSocket, upstream: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        while (message := await socket.receive())["type"] == "websocket.receive":
            text = message.get("text")
            await upstream.send(message["bytes"] if text is None else text)


async def _down(socket: WebSocket, upstream: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed, WebSocketDisconnect, RuntimeError):
        async for message in upstream:
            await (socket.send_text(message) if isinstance(message, str) else socket.send_bytes(message))


async def _watch(socket: WebSocket, context: Context) -> None:
    may = True
    while may:
        await asyncio.sleep(CHECK_SECONDS)
        may = await may_still(socket.scope, context, "submit")
