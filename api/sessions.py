"""Signing in to the web page with a token, and out: a session is a cookie for twelve hours."""

from __future__ import annotations

import math
import time
from http import HTTPStatus
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse

from binworks.api import page_templates
from binworks.api.auth import COOKIE, presented, refuse_cross_site
from binworks.api.context import Ctx
from binworks.api.limits import address
from binworks.api.problems import ForbiddenError, UnauthorizedError
from binworks.service import tokens
from binworks.service.model import Scope
from binworks.service.tokens import PREFIXES, Bearer

SESSION_SECONDS = 12 * 3600
LONGEST_FORM = 16_384
MOST_FIELDS = 10
LONGEST_PATH = 2000
HOME = "/"
NOT_STORED = {"Cache-Control": "no-store"}
router = APIRouter(include_in_schema=False)


@router.get("/login")
async def form(to: Annotated[str, Query(alias="next")] = HOME) -> HTMLResponse:
    """Show the form."""
    return _form(None, to)


@router.post("/login")
async def login(request: Request, context: Ctx) -> Response:
    """Open a session for the owner of a token, and go on to the page that was asked for."""
    refuse_cross_site(request.scope, page_only=False)
    where = address(request.scope)
    wait = context.bearers.wrong_logins.wait(where)
    if wait:
        again = math.ceil(wait)
        message = f"Too many wrong tokens came from here. Try again in {again} s."
        return _form(message, HOME, HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": str(again)})
    given = await fields(request)
    to = inside(given.get("next", HOME))
    bearer = await _bearer(context, given.get("token", "").strip())
    if bearer is None:
        context.bearers.wrong_logins.take(where)
        return _form("This token is not known here, or has expired.", to, HTTPStatus.UNAUTHORIZED)
    now = time.time()
    scopes: list[Scope] = sorted(bearer.scopes)  # type: ignore[arg-type]
    lifetime = min(SESSION_SECONDS, bearer.expires - now)
    secret = await run_in_threadpool(
        tokens.create,
        context.database,
        bearer.owner,
        scopes,
        now=now,
        lifetime=lifetime,
        kind="session",
        parent=bearer,
    )
    answer = RedirectResponse(to, HTTPStatus.SEE_OTHER, NOT_STORED)
    _set_cookie(request, answer, secret, math.floor(lifetime))
    return answer


@router.post("/logout")
async def logout(request: Request, context: Ctx) -> Response:
    """End the session, here and in the browser."""
    refuse_cross_site(request.scope, page_only=False)
    shown = presented(request.scope)
    if shown is not None and shown.by_cookie and shown.token.startswith(PREFIXES["session"]):
        await context.bearers.end(shown.token)
    answer = RedirectResponse("/login", HTTPStatus.SEE_OTHER, NOT_STORED)
    _set_cookie(request, answer, "", 0)
    return answer


def inside(path: str) -> str:
    """Return a path of this site to go on to; that of the home for an address that leads elsewhere."""
    # browsers take a backslash for a slash, and drop tabs and ends of lines
    elsewhere = not path.startswith("/") or path.startswith(("//", "/\\"))
    return HOME if elsewhere or len(path) > LONGEST_PATH or not path.isprintable() else path


async def fields(request: Request) -> dict[str, str]:
    """Return the fields of a form that was sent; the first of each name.

    Raises
    ------
    ForbiddenError
        Code ``bad-form``.
    """
    body = await request.body()
    if len(body) > LONGEST_FORM:
        raise ForbiddenError("The form is too large.", code="bad-form")
    try:
        found = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise ForbiddenError(f"The form has more than {MOST_FIELDS} fields.", code="bad-form") from None
    return {name: values[0] for name, values in found.items()}


async def _bearer(context: Ctx, token: str) -> Bearer | None:
    if not token or token.startswith(PREFIXES["session"]) or not token.isascii():
        return None
    try:
        return await context.bearers.find(token)
    except UnauthorizedError:
        return None


def _form(
    error: str | None, to: str, status: int = 200, headers: dict[str, str] | None = None
) -> HTMLResponse:
    return page_templates.page(
        "login.html", status, {**NOT_STORED, **(headers or {})}, error=error, next=inside(to)
    )


def _set_cookie(request: Request, answer: Response, secret: str, seconds: int) -> None:
    answer.set_cookie(
        COOKIE,
        secret,
        max_age=seconds,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
