"""The Dask dashboard as this process reaches it."""

from __future__ import annotations

from typing import NoReturn
from urllib.parse import urlsplit

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from binworks.api.problems import NotFoundError
from binworks.service.settings import Settings
from binworks.tensors.errors import TransientError

SECONDS = 10.0
LARGEST_MESSAGE = 64 << 20


class Upstream:
    """The dashboard as this process reaches it.

    Parameters
    ----------
    settings : Settings
        Names ``dashboard``.
    """

    def __init__(self, settings: Settings) -> None:
        self.origin = None
        if settings.dashboard:
            address = urlsplit(settings.dashboard)
            self.origin = f"{address.scheme}://{address.netloc}"
        self._client: httpx.AsyncClient | None = None

    async def get(self, path: str, headers: dict[str, str]) -> httpx.Response:
        """Return what the dashboard answers; it is not followed to anywhere else.

        Raises
        ------
        NotFoundError
            If the settings name none.
        TransientError
            Code ``no-dashboard`` if it does not answer.
        """
        address = f"{self._origin()}{path}"
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=SECONDS, trust_env=False, follow_redirects=False)
        try:
            return await self._client.get(address, headers=headers)
        except httpx.HTTPError as error:
            _away(error)

    async def connect(self, path: str, protocols: list[str]) -> ClientConnection:
        """Return an open WebSocket of the dashboard.

        Raises
        ------
        NotFoundError
            If the settings name none.
        TransientError
            Code ``no-dashboard`` if it does not answer.
        """
        try:
            return await connect(
                f"{self._origin()}{path}".replace("http", "ws", 1),
                subprotocols=[Subprotocol(name) for name in protocols] or None,
                compression=None,
                proxy=None,
                open_timeout=SECONDS,
                max_size=LARGEST_MESSAGE,
            )
        except (OSError, WebSocketException) as error:
            _away(error)

    async def close(self) -> None:
        """Give the connections back."""
        if self._client is not None:
            await self._client.aclose()

    def _origin(self) -> str:
        if self.origin is None:
            raise NotFoundError("This service knows no Dask dashboard.", where="dashboard")
        return self.origin


def _away(error: Exception) -> NoReturn:
    raise TransientError(
        f"The Dask dashboard does not answer: {type(error).__name__}.",
        code="no-dashboard",
        hint="The scheduler may be starting; it needs `--dashboard-prefix /dask`.",
    ) from None
