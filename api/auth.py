"""Who is asking: bearer tokens with an owner, scopes and an end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from binworks.api.context import Ctx
from binworks.api.problems import ForbiddenError, UnauthorizedError
from binworks.service import tokens
from binworks.service.model import Scope

_bearer = HTTPBearer(auto_error=False, description="`binworks up` left one in the file `token` of its home.")


@dataclass(frozen=True)
class User:
    """The owner of a valid token.

    Parameters
    ----------
    name : str
        Owner of the jobs that are submitted with it.
    sees : str or None
        Whose jobs are there for this user; None for everybody's.
    """

    name: str
    sees: str | None


def _requires(scope: Scope) -> Callable[..., User]:
    def user(
        context: Ctx, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> User:
        if credentials is None:
            raise UnauthorizedError(
                "The request has no token.",
                code="no-token",
                hint="Send `Authorization: Bearer TOKEN`; `binworks up` left one in its home's file `token`.",
            )
        bearer = tokens.check(context.database, credentials.credentials, now=time.time())
        if bearer is None:
            raise UnauthorizedError("The token is not known here, or has expired.", code="bad-token")
        if not bearer.scopes & {scope, "admin"}:
            has = ", ".join(sorted(bearer.scopes)) or "none"
            raise ForbiddenError(
                f"This needs a token with the scope {scope!r}; this one has {has}.", code="missing-scope"
            )
        return User(bearer.owner, None if "admin" in bearer.scopes else bearer.owner)

    return user


Reader = Annotated[User, Depends(_requires("read"))]
Submitter = Annotated[User, Depends(_requires("submit"))]
