"""Who holds a token, remembered for a second: most requests need no query and no thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from fastapi.concurrency import run_in_threadpool

from binworks.api.problems import UnauthorizedError
from binworks.api.rates import Buckets
from binworks.service import tokens
from binworks.service.database import Database
from binworks.service.oidc import Oidc
from binworks.service.tokens import PREFIXES, Bearer
from binworks.tensors.errors import RequestError

FRESH_SECONDS = 1.0
"""So long a token goes on after it was revoked."""
LARGEST = 10_000
"""Answers that are remembered."""
WRONG_LOGINS = (0.2, 10)
"""Wrong tokens that may be typed in at one address: each second, and at once."""


class Bearers:
    """The tokens that were asked for lately.

    Parameters
    ----------
    database : Database
        Where our own are kept.
    issuer : Oidc, optional
        Of those that are not ours.
    clock : callable
        Seconds since 1970.
    """

    def __init__(
        self, database: Database, issuer: Oidc | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._issuer = issuer
        self._clock = clock
        self.wrong_logins = Buckets(*WRONG_LOGINS)
        self._known: dict[str, tuple[float, Bearer]] = {}
        self._asked: dict[str, asyncio.Task[Bearer | None]] = {}

    def fresh(self, token: str) -> Bearer | None:
        """Return who holds a token, if that was looked up within the last second."""
        known = self._known.get(token)
        return known[1] if known is not None and time.monotonic() < known[0] else None

    def lately(self, token: str) -> Bearer | None:
        """Return who held a token when it was last looked up: to count by, not to let in."""
        known = self._known.get(token)
        return None if known is None else known[1]

    async def find(self, token: str) -> Bearer | None:
        """Return who holds a token, or None if it is unknown or has ended; many who ask at once ask once.

        Raises
        ------
        UnauthorizedError
            If somebody else has issued it, and it is not good.
        TransientError
            If that cannot be known at the moment.
        """
        fresh = self.fresh(token)
        if fresh is not None:
            return fresh
        task = self._asked.get(token)
        if task is None:
            task = self._asked[token] = asyncio.ensure_future(self._look_up(token))
            task.add_done_callback(lambda done: self._answered(token, done))
        return await asyncio.shield(task)

    async def revoke(self, token_id: str, owner: str | None) -> None:
        """End a token by its id; here, it opens nothing from now on.

        Raises
        ------
        RequestError
            Code ``unknown-token``, also if it is another owner's (``owner=None`` ends everybody's).
        """
        await run_in_threadpool(tokens.revoke, self._database, token_id, owner=owner)
        self._known.clear()

    def _answered(self, token: str, done: asyncio.Task[Bearer | None]) -> None:
        del self._asked[token]
        if not done.cancelled():
            done.exception()  # all who asked may have gone

    async def end(self, token: str) -> None:
        """End a token by its secret."""
        await run_in_threadpool(tokens.revoke_secret, self._database, token)
        self._known.clear()

    async def _look_up(self, token: str) -> Bearer | None:
        begin = time.monotonic()
        bearer = await run_in_threadpool(self._check, token)
        if bearer is None:
            self._known.pop(token, None)
            return None
        if len(self._known) >= LARGEST:
            self._known.clear()
        left = bearer.expires - self._clock()
        self._known[token] = (begin + min(FRESH_SECONDS, left), bearer)
        return bearer

    def _check(self, token: str) -> Bearer | None:
        if self._issuer is not None and not token.startswith(tuple(PREFIXES.values())):
            try:
                return self._issuer.check(token)
            except RequestError as error:
                raise UnauthorizedError(error.message, code=error.code, hint=error.hint) from None
        return tokens.check(self._database, token, now=self._clock())
