"""Who is asking: a bearer token, or the cookie of a session of the web page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.types import Scope as Asked

from binworks.api.context import Context, Ctx
from binworks.api.problems import ForbiddenError, UnauthorizedError
from binworks.service.model import Scope
from binworks.service.tokens import PREFIXES, Bearer, Role

COOKIE = "binworks_session"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
LONGEST_TOKEN = 8192

_bearer = HTTPBearer(auto_error=False, description="`binworks up` left one in the file `token` of its home.")


@dataclass(frozen=True)
class User:
    """The owner of a valid token.

    Parameters
    ----------
    name : str
        Owner of the jobs that are submitted with it.
    sees : str or None
        As whom he reads: his own jobs, and those shared with him; None for everybody's.
    role : str
        ``admin``; ``user`` may submit, ``fit`` only read.
    scopes : frozenset of str
        Of the token.
    bearer : Bearer
        The token, without its secret.
    """

    name: str
    sees: str | None
    role: Role
    scopes: frozenset[str]
    bearer: Bearer


class Presented(NamedTuple):
    """What a request shows to be let in; by cookie, it came without anybody's doing."""

    token: str
    by_cookie: bool


def presented(asked: Asked) -> Presented | None:
    """Return the token of a request; a header counts before a cookie.

    Parameters
    ----------
    asked : dict
        The scope of an ASGI connection.
    """
    cookies = None
    for name, value in asked["headers"]:
        if name == b"authorization":
            kind, _, token = value.decode("latin-1").partition(" ")
            if kind.lower() == "bearer" and token.strip():
                return Presented(token.strip(), by_cookie=False)
        elif name == b"cookie" and COOKIE.encode() in value:
            cookies = value.decode("latin-1")
    for cookie in (cookies or "").split(";"):
        name, _, value = cookie.strip().partition("=")
        if name == COOKIE and value:
            return Presented(value.strip('"'), by_cookie=True)
    return None


async def admit(asked: Asked, context: Context, scope: Scope = "read") -> User:
    """Return who sent a request, if he may do what the scope names.

    Raises
    ------
    UnauthorizedError
        Code ``no-token`` or ``bad-token``.
    ForbiddenError
        Code ``missing-scope``; ``cross-site`` if another site's page sent a session's cookie along.
    """
    shown = presented(asked)
    if shown is None:
        raise UnauthorizedError(
            "The request has no token.",
            code="no-token",
            hint="Send `Authorization: Bearer TOKEN`; `binworks up` left one in its home's file `token`.",
        )
    if shown.by_cookie:
        refuse_cross_site(asked)
    bearer = await _bearer_of(shown, context)
    if not bearer.may(scope):
        has = ", ".join(sorted(bearer.scopes)) or "none"
        raise ForbiddenError(
            f"This needs a token with the scope {scope!r}; this one has {has}.", code="missing-scope"
        )
    sees = None if bearer.role == "admin" else bearer.owner
    return User(bearer.owner, sees, bearer.role, bearer.scopes, bearer)


async def _bearer_of(shown: Presented, context: Context) -> Bearer:
    bearer = None
    # a session's secret opens nothing as a header, nor a token as a cookie
    if len(shown.token) <= LONGEST_TOKEN and shown.token.startswith(PREFIXES["session"]) == shown.by_cookie:
        bearer = context.bearers.fresh(shown.token) or await context.bearers.find(shown.token)
    if bearer is None:
        raise UnauthorizedError("The token is not known here, or has expired.", code="bad-token")
    return bearer


def refuse_cross_site(asked: Asked, *, page_only: bool = True) -> None:
    """Refuse a request that changes something and that another site's page has sent.

    Parameters
    ----------
    asked : dict
        The scope of an ASGI connection.
    page_only : bool
        Whether to refuse what does not say which page sent it, too.

    Raises
    ------
    ForbiddenError
        Code ``cross-site``.
    """
    if asked["type"] == "http" and asked["method"] in SAFE:
        return
    headers = {name: value.decode("latin-1").strip() for name, value in asked["headers"]}
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    silent = page_only and site is None and origin is None
    foreign = origin is not None and urlsplit(origin).netloc.lower() != headers.get(b"host", "").lower()
    if silent or foreign or site not in (None, "same-origin"):
        raise ForbiddenError(
            "A session may change things from its own page only.",
            code="cross-site",
            hint="Programs send `Authorization: Bearer TOKEN` and no cookie.",
        )


def _requires(scope: Scope) -> Callable[..., Awaitable[User]]:
    async def user(
        request: Request,
        context: Ctx,
        _documented: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> User:
        return await admit(request.scope, context, scope)

    return user


Reader = Annotated[User, Depends(_requires("read"))]
Submitter = Annotated[User, Depends(_requires("submit"))]
Admin = Annotated[User, Depends(_requires("admin"))]
