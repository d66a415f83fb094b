"""Bearer tokens: shown once, kept as hashes, with an owner, scopes and an end.

A session of the web page is such a row, too: of the same owner and scopes as the token it was opened with. What was
made with a token ends with it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field
from sqlalchemy import delete, func, insert, select
from sqlalchemy.engine import Connection, Row

from binworks.service.database import Database, tokens
from binworks.service.model import Scope
from binworks.tensors.errors import ConflictError, RequestError

Kind = Literal["token", "session"]
Role = Literal["user", "fit", "admin"]

PREFIXES: dict[Kind, str] = {"token": "bw_", "session": "bws_"}
SCOPES: dict[Role, tuple[Scope, ...]] = {
    "user": ("read", "submit"),
    "fit": ("read",),
    "admin": ("read", "submit", "admin"),
}
OWNER = r"^[A-Za-z0-9_][!-.0-~]{0,199}$"
"""Names of owners: printable, no space, no slash."""
DAY_SECONDS = 86_400.0
YEAR_SECONDS = 365 * DAY_SECONDS
KEPT_SECONDS = 30 * DAY_SECONDS
"""What has ended is listed for so long."""
ID_LENGTH = 12
MOST = 1000
"""Tokens and sessions of one owner that were made with tokens."""
MOST_SESSIONS = 20
"""Of these, sessions that were opened with one token; who opens more ends the oldest."""


@dataclass(frozen=True)
class Bearer:
    """Who holds a token, and what he may do.

    Parameters
    ----------
    expires : float
        Seconds since 1970.
    hash : str
        By which the token is known; empty if somebody else issued it.
    """

    owner: str
    scopes: frozenset[str]
    expires: float
    hash: str = ""

    @property
    def role(self) -> Role:
        """The smallest role that may do as much."""
        return "admin" if "admin" in self.scopes else "user" if "submit" in self.scopes else "fit"

    def may(self, scope: str) -> bool:
        """Whether the scope is his; an admin may do all."""
        return scope in self.scopes or "admin" in self.scopes


class TokenView(BaseModel):
    """A token as it is listed: not the secret."""

    id: str
    owner: str
    label: str | None = Field(default=None, description="What it is for.")
    kind: Kind = Field(default="token", description="`session`: of the web page.")
    scopes: list[Scope]
    created: datetime
    expires: datetime
    expired: bool


def create(
    database: Database,
    owner: str,
    scopes: Iterable[Scope],
    *,
    now: float,
    lifetime: float = YEAR_SECONDS,
    label: str | None = None,
    kind: Kind = "token",
    parent: Bearer | None = None,
    token: str | None = None,
) -> str:
    """Make a token and return it; only its hash is kept.

    Parameters
    ----------
    now, lifetime : float
        Seconds.
    label : str, optional
        What it is for.
    parent : Bearer, optional
        Whose token it is made with; it ends with that one at the latest.
    token : str, optional
        That it shall be, if it was made elsewhere; default: a new one.

    Raises
    ------
    ConflictError
        Code ``too-many-tokens``, of those with a parent.
    """
    token = token or PREFIXES[kind] + secrets.token_urlsafe(32)
    with database.write() as connection:
        connection.execute(delete(tokens).where(tokens.c.expires < now - KEPT_SECONDS))
        if kind == "session":
            _make_room(connection, owner, parent)
        if parent is not None:
            _check_number(connection, owner, now)
        connection.execute(
            insert(tokens).values(
                hash=digest(token),
                owner=owner,
                scopes=sorted(set(scopes)),
                created=now,
                expires=now + lifetime if parent is None else min(now + lifetime, parent.expires),
                label=label,
                kind=kind,
                parent=(parent and parent.hash) or None,
            )
        )
    return token


def check(database: Database, token: str, *, now: float) -> Bearer | None:
    """Return who holds a token, or None if it is unknown or has expired."""
    with database.read() as connection:
        row = connection.execute(select(tokens).where(tokens.c.hash == digest(token))).one_or_none()
    if row is None or row.expires <= now:
        return None
    return Bearer(row.owner, frozenset(row.scopes), row.expires, row.hash)


def view(database: Database, token_id: str, *, now: float, owner: str | None = None) -> TokenView:
    """Return a token by its id.

    Raises
    ------
    RequestError
        Code ``unknown-token``, also if it is another owner's (``owner=None`` sees everybody's).
    """
    with database.read() as connection:
        return _view(_row(connection, token_id, owner), now)


def listed(database: Database, *, now: float, owner: str | None = None) -> list[TokenView]:
    """Return the tokens of an owner, or of everybody, newest first; those that ended lately, too."""
    query = select(tokens).order_by(tokens.c.created.desc(), tokens.c.hash)
    if owner is not None:
        query = query.where(tokens.c.owner == owner)
    with database.read() as connection:
        return [_view(row, now) for row in connection.execute(query)]


def revoke(database: Database, token_id: str, *, owner: str | None = None) -> None:
    """End a token, and all that was made with it.

    Raises
    ------
    RequestError
        Code ``unknown-token``, also if it is another owner's.
    """
    with database.write() as connection:
        _remove(connection, _row(connection, token_id, owner).hash)


def revoke_secret(database: Database, token: str) -> None:
    """End the token with this secret, if there is one, and all that was made with it."""
    with database.write() as connection:
        _remove(connection, digest(token))


def token_id(token: str) -> str:
    """Return the id of a token: it names it and does not open anything."""
    return digest(token)[:ID_LENGTH]


def digest(token: str) -> str:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _check_number(connection: Connection, owner: str, now: float) -> None:
    query = select(func.count()).select_from(tokens).where(tokens.c.owner == owner, tokens.c.expires > now)
    if connection.execute(query).scalar_one() >= MOST:
        raise ConflictError(
            f"{owner} has {MOST} tokens and sessions already.",
            code="too-many-tokens",
            where=owner,
            hint="Revoke those that nobody needs.",
        )


def _make_room(connection: Connection, owner: str, parent: Bearer | None) -> None:
    """End the oldest sessions that were opened with the same token, or with those of the same owner's issuer."""
    opened_with = tokens.c.parent == parent.hash if parent and parent.hash else tokens.c.parent.is_(None)
    query = select(tokens.c.hash).where(tokens.c.kind == "session", tokens.c.owner == owner, opened_with)
    newest_first = query.order_by(tokens.c.created.desc(), tokens.c.hash).offset(MOST_SESSIONS - 1)
    for oldest in connection.execute(newest_first).scalars().all():
        _remove(connection, oldest)


def _remove(connection: Connection, first: str) -> None:
    ending = [first]
    while ending:
        made = connection.execute(select(tokens.c.hash).where(tokens.c.parent.in_(ending))).scalars().all()
        connection.execute(delete(tokens).where(tokens.c.hash.in_(ending)))
        ending = list(made)


def _row(connection: Connection, token_id: str, owner: str | None) -> Row[Any]:
    query = select(tokens).where(tokens.c.hash.startswith(token_id, autoescape=True))
    found = connection.execute(query).all() if len(token_id) == ID_LENGTH else []
    mine = [row for row in found if owner in (None, row.owner)]
    if not mine:
        raise RequestError(
            "There is no such token.",
            code="unknown-token",
            where=token_id,
            hint="`binworks token list` shows the ids.",
        )
    return mine[0]


def _view(row: Row[Any], now: float) -> TokenView:
    return TokenView(
        id=row.hash[:ID_LENGTH],
        owner=row.owner,
        label=row.label,
        kind=row.kind,
        scopes=row.scopes,
        created=datetime.fromtimestamp(row.created, UTC),
        expires=datetime.fromtimestamp(row.expires, UTC),
        expired=row.expires <= now,
    )
