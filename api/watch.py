"""Long answers end with what let their readers in: a stream outlives neither a token nor a session."""

from __future__ import annotations

import logging
import time

from sqlalchemy.exc import OperationalError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from binworks.api.auth import admit, presented
from binworks.api.context import Context
from binworks.api.problems import ForbiddenError, UnauthorizedError
from binworks.service.model import Scope as Needed
from binworks.tensors.errors import TransientError

CHECK_SECONDS = 1.0
"""Between two looks while an answer is being sent."""

log = logging.getLogger(__name__)


class Watched:
    """An application whose streams are cut off when their readers may not read any more.

    An answer that says its length goes on to its end: it was allowed when it began.

    Parameters
    ----------
    app : callable
        The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on what is sent, as long as the reader may have it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        looked, over = time.monotonic(), False

        async def watched(message: Message) -> None:
            nonlocal looked, over
            if over:  # the application is told so by its server, and ends
                return
            if message["type"] == "http.response.start" and _has_length(message):
                looked = float("inf")
            elif message.get("more_body") and time.monotonic() > looked + CHECK_SECONDS:
                looked = time.monotonic()
                over = presented(scope) is not None and not await may_still(scope, scope["app"].state.context)
                if over:
                    message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        await self._app(scope, receive, watched)


def _has_length(start: Message) -> bool:
    return any(name.lower() == b"content-length" for name, _ in start.get("headers", ()))


async def may_still(asked: Scope, context: Context, scope: Needed = "read") -> bool:
    """Return whether a request would still be let in; if that cannot be known now, it goes on.

    Parameters
    ----------
    asked : dict
        The scope of an ASGI connection.
    scope : str
        What it needs.
    """
    try:
        await admit(asked, context, scope)
    except (UnauthorizedError, ForbiddenError):
        return False
    except (OperationalError, TransientError) as error:
        log.warning("whether somebody may still read is not known: %s", error)
    return True
