"""Bearer tokens: shown once, kept as hashes, with scopes and an end."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import insert, select

from binworks.service.database import Database, tokens
from binworks.service.model import Scope

PREFIX = "bw_"
YEAR_SECONDS = 365 * 86_400.0


@dataclass(frozen=True)
class Bearer:
    """Who holds a token, and what he may do."""

    owner: str
    scopes: frozenset[str]


def create(
    database: Database, owner: str, scopes: Sequence[Scope], *, now: float, lifetime: float = YEAR_SECONDS
) -> str:
    """Make a token and return it; only its hash is kept.

    Parameters
    ----------
    now, lifetime : float
        Seconds.
    """
    token = PREFIX + secrets.token_urlsafe(32)
    with database.write() as connection:
        connection.execute(
            insert(tokens).values(
                hash=_hash(token),
                owner=owner,
                scopes=sorted(set(scopes)),
                created=now,
                expires=now + lifetime,
            )
        )
    return token


def check(database: Database, token: str, *, now: float) -> Bearer | None:
    """Return who holds a token, or None if it is unknown or has expired."""
    with database.read() as connection:
        row = connection.execute(select(tokens).where(tokens.c.hash == _hash(token))).one_or_none()
    if row is None or row.expires <= now:
        return None
    return Bearer(row.owner, frozenset(row.scopes))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
