"""Tokens over REST: one's own, and everybody's for an admin."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import Field

from binworks.api.auth import Reader, Submitter, User
from binworks.api.context import Ctx
from binworks.api.problems import ForbiddenError, responses
from binworks.service import tokens
from binworks.service.model import Scope, Strict
from binworks.service.tokens import Role, TokenView
from binworks.tensors.errors import RequestError

TokenId = Annotated[str, Path(pattern=r"^[0-9a-f]{12}$", description="Id of the token, not its secret.")]
router = APIRouter(prefix="/v1/tokens", tags=["tokens"], responses=responses(401, 403, 422, 500, 503))


class TokenRequest(Strict):
    """What token is asked for."""

    owner: str | None = Field(
        default=None, pattern=tokens.OWNER, description="Default: you. Others are for admins."
    )
    role: Role | None = Field(
        default=None, description="`user` submits and reads, `fit` reads, `admin` does all; default: `fit`."
    )
    scopes: list[Scope] | None = Field(
        default=None, min_length=1, max_length=3, description="Instead of a role."
    )
    days: float = Field(
        default=30,
        gt=0,
        le=3650,
        description="Until it ends; one of your own, when yours does at the latest.",
    )
    label: str | None = Field(default=None, max_length=200, description="What it is for.")


class NewToken(TokenView):
    """A token that was just made."""

    token: str = Field(description="The secret: shown now and never again.")


@router.get("")
def listed(context: Ctx, user: Reader) -> list[TokenView]:
    """List your tokens and sessions, an admin everybody's; newest first, without their secrets."""
    return tokens.listed(context.database, now=time.time(), owner=user.sees)


@router.post("", status_code=201, responses=responses(429))
def create(body: TokenRequest, context: Ctx, user: Submitter, response: Response) -> NewToken:
    """Make a token; the answer has its secret, which is not kept.

    One for yourself may do no more and last no longer than the one that you send, and ends with it. Only an admin
    may make one for somebody else, or one that may do more.
    """
    if body.role is not None and body.scopes is not None:
        raise RequestError("Either a role or scopes.", code="invalid-request", where="body.scopes")
    scopes = body.scopes or list(tokens.SCOPES[body.role or "fit"])
    owner = body.owner or user.name
    _refuse(user, owner, scopes)
    now = time.time()
    secret = tokens.create(
        context.database,
        owner,
        scopes,
        now=now,
        lifetime=body.days * tokens.DAY_SECONDS,
        label=body.label,
        parent=None if user.role == "admin" and owner != user.name else user.bearer,
    )
    made = tokens.view(context.database, tokens.token_id(secret), now=now)
    response.headers["Cache-Control"] = "no-store"
    return NewToken(**made.model_dump(), token=secret)


@router.get("/{token}", responses=responses(404))
def one(token: TokenId, context: Ctx, user: Reader) -> TokenView:
    """Return a token of yours, without its secret."""
    return tokens.view(context.database, token, now=time.time(), owner=user.sees)


@router.delete(
    "/{token}",
    status_code=204,
    response_class=Response,
    responses={204: {"description": "A second later it opens nothing any more."}, **responses(404)},
)
async def revoke(token: TokenId, context: Ctx, user: Submitter) -> Response:
    """End a token of yours, with the sessions opened and the tokens made with it."""
    await context.bearers.revoke(token, user.sees)
    return Response(status_code=204)


def _refuse(user: User, owner: str, scopes: list[Scope]) -> None:
    """Refuse a token that may do more than the one that asks for it.

    Raises
    ------
    ForbiddenError
        Code ``missing-scope``.
    """
    if user.role == "admin":
        return
    more = sorted(set(scopes) - user.scopes)
    if owner != user.name or more:
        raise ForbiddenError(
            f"Only an admin may make a token for {owner!r} with {', '.join(scopes)}.",
            code="missing-scope",
            where=", ".join(more) or owner,
            hint="Ask for what your own token may do, or ask an admin.",
        )
