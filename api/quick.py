"""A short way for what is asked most: plain questions need no resolving of dependencies, half the time of a request.

A route of this class may have a shortcut, a function of the request, the context and the user. It returns the answer,
or None where the question is not plain; then the route's own function answers, with all its checks. Who asks is found
out, and every error answered, the same way on both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.routing import APIRoute

from binworks.api.auth import User, admit
from binworks.api.context import Context

Shortcut = Callable[[Request, Context, User], Awaitable[Response]]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def shortcut(plain: Callable[[Request], bool], answer: Shortcut) -> Callable[[Endpoint], Endpoint]:
    """Mark the function of a route that only reads.

    Parameters
    ----------
    plain : callable
        Whether the shortcut can answer a request; it has checked the parameters then.
    answer : callable
        The shortcut.
    """

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.shortcut = plain, answer  # type: ignore[attr-defined]
        return endpoint

    return mark


class QuickRoute(APIRoute):
    """A route that takes the shortcut of its function, if that has one."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        usual = super().get_route_handler()
        found: tuple[Callable[[Request], bool], Shortcut] | None = getattr(self.endpoint, "shortcut", None)
        if found is None:
            return usual
        plain, answer = found

        async def answered(request: Request) -> Response:
            if not plain(request):
                return await usual(request)
            context: Context = request.app.state.context
            return await answer(request, context, await admit(request.scope, context))

        return answered
