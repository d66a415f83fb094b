"""Requests that are tried again where that is safe, and problem documents that become errors again."""

from __future__ import annotations

import base64
import hashlib
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

import binworks
from binworks.client.address import Address
from binworks.tensors.errors import (
    BinworksError,
    ConflictError,
    InputError,
    PayloadError,
    PhysicsError,
    RequestError,
    TransientError,
)

TRIES_AT_FIRST, TRIES = 4, 9
"""A service that has answered before is given ten seconds to come back; one that never did, half a second."""
FIRST_PAUSE = 0.1
CANNOT_CONNECT = "cannot-connect"
_KINDS: dict[str, type[BinworksError]] = {
    cls.__name__: cls
    for cls in (ConflictError, InputError, PayloadError, PhysicsError, RequestError, TransientError)
}
_PASSING = (502, 503, 504)
_TOO_MANY = 429
LONGEST_WISH = 30.0
"""Seconds: a service that wants a longer pause is not waited for."""
DIGEST = "sha-256=:"


class Transport:
    """A connection to one service.

    Parameters
    ----------
    address : Address
        The service and the token.
    timeout : float
        Seconds to wait for an answer; a long poll adds its own.
    """

    def __init__(self, address: Address, timeout: float = 30.0) -> None:
        self.address = address
        self.timeout = timeout
        headers = {"User-Agent": f"binworks/{binworks.__version__}"}
        if address.token:
            headers["Authorization"] = f"Bearer {address.token}"
        self._reached = False
        self._capabilities: frozenset[str] | None = None
        self._http = httpx.Client(base_url=address.url, headers=headers, timeout=timeout)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        patience: float = 0.0,
    ) -> httpx.Response:
        """Return the answer to a request that may be sent twice: reading, or with an idempotency key.

        Parameters
        ----------
        patience : float
            Seconds that the service may take on top of the usual.

        Raises
        ------
        BinworksError
            Of the class, code, message and hint that the service gave; TransientError, code ``cannot-connect``, if it
            does not answer.
        """
        present = {key: value for key, value in (params or {}).items() if value is not None}
        for attempt in range(TRIES):
            last = attempt + 1 == (TRIES if self._reached else TRIES_AT_FIRST)
            try:
                answer = self._http.request(
                    method, path, params=present, headers=headers, json=json, timeout=self.timeout + patience
                )
            except (httpx.TransportError, httpx.InvalidURL) as error:
                if last or isinstance(error, (httpx.UnsupportedProtocol, httpx.InvalidURL)):
                    raise self.unreachable(error) from error
            else:
                self._reached = True
                if last or not _passes(answer):
                    return _checked(answer)
                time.sleep(_wish(answer) or 0.0)
            pause(attempt)
        raise AssertionError("the last attempt returns or raises")

    def can(self, capability: str) -> bool:
        """Whether the service says that it can do this; asked once."""
        if self._capabilities is None:
            said = self.request("GET", "/v1/").json()
            self._capabilities = frozenset(said.get("capabilities", ()))
        return capability in self._capabilities

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str], silence: float) -> Iterator[httpx.Response]:
        """Give an answer as it comes, once; ``silence`` is the longest time without a byte.

        Raises
        ------
        BinworksError
            As `request`, but httpx.TransportError is the caller's.
        """
        timeout = httpx.Timeout(self.timeout, read=silence)
        with self._http.stream("GET", path, headers=headers, timeout=timeout) as answer:
            if not answer.is_success:
                answer.read()
                raise error_of(answer)
            yield answer

    def unreachable(self, error: Exception) -> TransientError:
        """Return the error for a service that does not answer."""
        reason = str(error) or type(error).__name__
        hint = "Is it running? `binworks up` starts one."
        return TransientError(
            f"The service does not answer ({reason}).", code=CANNOT_CONNECT, where=self.address.url, hint=hint
        )

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()


def _passes(answer: httpx.Response) -> bool:
    """Whether the same request may soon be answered; a limit that does not say when is no such thing."""
    wish = _wish(answer)
    if answer.status_code == _TOO_MANY:
        return wish is not None and wish <= LONGEST_WISH
    return answer.status_code in _PASSING and (wish or 0.0) <= LONGEST_WISH


def _wish(answer: httpx.Response) -> float | None:
    """Return how many seconds the service wants to be left alone."""
    said = answer.headers.get("Retry-After", "")
    return float(said) if said.isdecimal() else None


def pause(attempt: int) -> None:
    """Wait longer each time, and not in step with others."""
    time.sleep(FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.0))  # noqa: S311  no secret


def error_of(answer: httpx.Response) -> BinworksError:
    """Return the error that a problem document describes."""
    try:
        document = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, dict) or "code" not in document:
        plain = RequestError if answer.status_code < 500 else TransientError
        return plain(
            f"The service answered {answer.status_code} {answer.reason_phrase}.", where=str(answer.url)
        )
    kind = _KINDS.get(document.get("kind", ""), BinworksError)
    detail = document.get("detail") or document.get("title") or "no reason given"
    return kind(detail, code=document["code"], where=document.get("where"), hint=document.get("hint"))


def _checked(answer: httpx.Response) -> httpx.Response:
    if not answer.is_success:
        raise error_of(answer)
    given = answer.headers.get("Repr-Digest", "")
    if given.startswith(DIGEST) and answer.request.method != "HEAD":
        expected = base64.b64decode(given.removeprefix(DIGEST).rstrip(":"))
        found = hashlib.sha256(answer.content).digest()
        if found != expected:
            raise TransientError(
                f"What arrived has sha256 {found.hex()}, the service sent {expected.hex()}.",
                code="damaged-download",
                where=str(answer.url),
            )
    return answer
