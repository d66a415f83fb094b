"""HEAD on every GET: the same answer without its body."""

from __future__ import annotations

import asyncio

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ASKED = "binworks.head"
_FOUND = ("route", "endpoint", "path_params")
"""What routing writes down, for those who count requests."""


def is_head(request: HTTPConnection) -> bool:
    """Whether only the head of the answer is sent, so that there is no need to read what would follow."""
    return _ASKED in request.scope


class Heads:
    """Middleware that answers HEAD as the routes answer GET, and leaves it there: a stream would never end."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        sent = asyncio.Event()

        async def head_only(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                sent.set()

        asked = {**scope, "method": "GET", _ASKED: True}
        work = asyncio.ensure_future(self.app(asked, receive, head_only))
        answered = asyncio.ensure_future(sent.wait())
        try:
            await asyncio.wait([work, answered], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work  # what went wrong, if anything
        finally:
            answered.cancel()
            work.cancel()
            await asyncio.wait([work])
            scope.update({name: asked[name] for name in _FOUND if name in asked})
