"""Errors as pages, for browsers: the same code and hint as in the problem document, which they are made from."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from starlette.responses import RedirectResponse

from binworks.api import page_templates, problems

Handler = Callable[[Request, Any], Response | Awaitable[Response]]
LOGIN = "/login"


def install(app: FastAPI) -> None:
    """Let every error that has a problem document be answered by a page where the asker wants HTML."""
    for kind, handler in list(app.exception_handlers.items()):
        app.exception_handlers[kind] = _readable(handler)


def wants_page(request: Request) -> bool:
    """Whether the asker is a browser that shows what it gets: programs do not ask for HTML."""
    return "text/html" in request.headers.get("accept", "")


def _readable(handler: Handler) -> Handler:
    async def answer(request: Request, error: Any) -> Response:
        answered = handler(request, error)
        if inspect.isawaitable(answered):
            answered = await answered
        if answered.media_type != problems.MEDIA_TYPE or not wants_page(request):
            return answered
        return _page(request, answered)

    return answer


def _page(request: Request, answered: Response) -> Response:
    if answered.status_code == HTTPStatus.UNAUTHORIZED and request.method in ("GET", "HEAD"):
        return RedirectResponse(f"{LOGIN}?next={quote(_here(request), safe='')}", HTTPStatus.SEE_OTHER)
    kept = ("www-authenticate", "retry-after", "allow")
    headers = {name: value for name, value in answered.headers.items() if name in kept}
    problem = json.loads(bytes(answered.body))
    return page_templates.page("problem.html", answered.status_code, headers, problem=problem)


def _here(request: Request) -> str:
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")
