"""Access tokens of an OpenID Connect issuer: whose they are and what they allow, by the issuer's published keys.

Nothing in a token is believed before its signature is checked with a key that the issuer published, and an algorithm
of the list below; the token does not choose more than which of them. Its owner here is called ``oidc:`` and what the
issuer calls him, so nobody takes another's name by having it elsewhere.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
from joserfc import jws, jwt
from joserfc.errors import ClaimError, ExpiredTokenError, JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from binworks.service.addresses import is_loopback
from binworks.service.settings import Settings
from binworks.service.tokens import OWNER, SCOPES, Bearer, Role
from binworks.tensors.errors import RequestError, TransientError

ALGORITHMS = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA", "Ed25519"),
}
"""By kind of key. No `none`, and none with a shared secret: a public key is no secret."""
PREFIX = "oidc:"
DISCOVERY = "/.well-known/openid-configuration"
LEEWAY_SECONDS = 30
REFRESH_SECONDS = 600.0
FLOOR_SECONDS = 60.0
"""Unknown keys do not make us ask the issuer more often."""
FIRST_FLOOR_SECONDS = 5.0
"""Likewise, as long as we have none of his keys."""
STALE_SECONDS = 86_400.0
"""Keys are used so long while the issuer does not answer."""
FETCH_SECONDS = 5.0
WAIT_SECONDS = 1.0
"""Others wait for the issuer together with the one who asks him, as long as no key of his is known: each that waits
holds one of the API's threads."""
LARGEST_DOCUMENT = 1 << 20

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedKey:
    """A public key of the issuer."""

    id: str | None
    key: RSAKey | ECKey | OKPKey
    algorithms: tuple[str, ...]


class Keys:
    """The keys that an issuer publishes, asked for when one is needed that is not known.

    Parameters
    ----------
    issuer : str
        His address.
    clock : callable
        Seconds, steadily growing.
    """

    def __init__(self, issuer: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer = issuer
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: tuple[PublishedKey, ...] = ()
        self._fetched = self._tried = float("-inf")
        self._asking_since: float | None = None

    def find(self, key_id: str | None, algorithm: str) -> PublishedKey | None:
        """Return the key of this id, or the only one that fits if the token names none.

        Raises
        ------
        TransientError
            Code ``no-issuer`` if none of his keys are known, or perhaps not all, and he does not answer at once.
        """
        found = self._known(key_id, algorithm)
        if found is None or self._clock() > self._fetched + REFRESH_SECONDS:
            asked = self._refresh()
            found = self._known(key_id, algorithm)
            if not self._keys or (found is None and not asked):
                raise _no_issuer(self._issuer)
        return found

    def _known(self, key_id: str | None, algorithm: str) -> PublishedKey | None:
        fitting = [
            key for key in self._keys if algorithm in key.algorithms and (key_id is None or key.id == key_id)
        ]
        return fitting[0] if len(fitting) == 1 else None

    def _refresh(self) -> bool:
        """Ask the issuer unless that was done lately; return False if another does so at the moment."""
        if not self._lock.acquire(timeout=self._patience()):
            return False
        try:
            floor = FLOOR_SECONDS if self._keys else FIRST_FLOOR_SECONDS
            if self._clock() >= self._tried + floor:
                self._asking_since = self._clock()
                self._fetch()
        finally:
            if self._asking_since is not None:
                self._asking_since, self._tried = None, self._clock()
            self._lock.release()
        return True

    def _patience(self) -> float:
        if self._keys:
            return 0.0
        since = self._asking_since
        return WAIT_SECONDS if since is None else max(0.0, since + WAIT_SECONDS - self._clock())

    def _fetch(self) -> None:
        try:
            listed = _key_set(self._issuer)
            self._keys = tuple(key for key in map(_published, listed) if key is not None)
            self._fetched = self._clock()
        except (httpx.HTTPError, RequestError, ValueError, KeyError, TypeError) as error:
            log.warning("the keys of %s cannot be fetched: %s", self._issuer, error)
            if self._clock() > self._fetched + STALE_SECONDS:
                self._keys = ()


class Oidc:
    """An issuer's tokens as bearers of this service.

    Parameters
    ----------
    settings : Settings
        Those whose names begin with ``oidc``.
    clock, steady : callable
        Seconds since 1970; seconds that only grow.

    Raises
    ------
    RequestError
        Code ``bad-settings`` if there is no audience, or the issuer's address is not safe.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (settings.oidc_issuer and settings.oidc_audience):
            raise RequestError(
                "An issuer needs an audience, and an audience an issuer.",
                code="bad-settings",
                where="oidc_audience",
                hint="Without one, tokens that the issuer made for other services would open this one.",
            )
        self._settings = settings
        self._keys = Keys(_checked(settings.oidc_issuer), steady)
        self._claims = jwt.JWTClaimsRegistry(
            now=lambda: int(clock()),
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": settings.oidc_issuer},
            aud={"essential": True, "value": settings.oidc_audience},
            exp={"essential": True},
        )

    @classmethod
    def of(cls, settings: Settings) -> Oidc | None:
        """Return the issuer that the settings name, if they name one."""
        return cls(settings) if settings.oidc_issuer or settings.oidc_audience else None

    def check(self, token: str) -> Bearer | None:
        """Return who holds a token; None if it is not a signed one at all.

        Raises
        ------
        RequestError
            Code ``bad-token``, with the reason, if it is not good.
        TransientError
            Code ``no-issuer`` if that cannot be known at the moment.
        """
        if token.count(".") != 2:
            return None
        try:
            claims = self._verified(token)
            self._claims.validate(claims)
        except ExpiredTokenError:
            raise _bad("The token has expired.") from None
        except ClaimError as error:
            raise _bad(
                f"The token's claim {error.claim!r} is missing, or not one for this service."
            ) from None
        except (JoseError, ValueError, TypeError, KeyError):
            raise _bad("The token's signature is not one that is accepted here.") from None
        return Bearer(self._owner(claims), frozenset(self._scopes(claims)), float(claims["exp"]))

    def _verified(self, token: str) -> dict[str, Any]:
        header = jws.extract_compact(token.encode("ascii")).headers()
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not any(algorithm in known for known in ALGORITHMS.values()):
            raise ValueError("algorithm")
        key = self._keys.find(key_id if isinstance(key_id, str) else None, str(algorithm))
        if key is None:
            raise _bad("The token is not signed with a key that its issuer publishes.")
        return jwt.decode(token, key.key, algorithms=[str(algorithm)]).claims

    def _owner(self, claims: Mapping[str, Any]) -> str:
        value = _claim(claims, self._settings.oidc_owner_claim)
        if isinstance(value, str) and value in self._settings.oidc_owners:
            return self._settings.oidc_owners[value]
        if not isinstance(value, str) or not value or not re.fullmatch(OWNER, f"{PREFIX}{value}"):
            raise _bad(
                f"The token's claim {self._settings.oidc_owner_claim!r} is not the name of an owner: "
                "text without spaces and slashes."
            )
        return f"{PREFIX}{value}"

    def _scopes(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        found = _claim(claims, self._settings.oidc_roles_claim)
        values = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
        known = self._settings.oidc_roles
        roles: set[Role] = {known[value] for value in values if isinstance(value, str) and value in known}
        if self._settings.oidc_role:
            roles.add(self._settings.oidc_role)
        return max((SCOPES[role] for role in roles), key=len, default=())


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """Return a claim by its name, or by a way through objects: ``realm_access.roles``."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _published(document: Any) -> PublishedKey | None:
    """Return a key as it was published; None for one that is not for signatures, or that we do not understand."""
    kinds: dict[Any, Any] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    kind = str(document.get("kty")) if isinstance(document, dict) else ""
    if kind not in kinds or document.get("use", "sig") != "sig":
        return None
    only = document.get("alg")
    algorithms = tuple(name for name in ALGORITHMS[kind] if only in (None, name))
    try:
        return PublishedKey(document.get("kid"), kinds[kind].import_key(document), algorithms)
    except (JoseError, ValueError, TypeError) as error:
        log.warning("a published key is not understood: %s", error)
        return None


def _checked(url: str) -> str:
    """Refuse an address where somebody on the way could put in keys of his own."""
    address = urlsplit(url)
    if address.scheme == "https" or (address.scheme == "http" and is_loopback(address.hostname or "")):
        return url
    raise RequestError(
        "An issuer is reached by https.",
        code="bad-settings",
        where=url,
        hint="http is for one on this machine.",
    )


def _key_set(issuer: str) -> list[Any]:
    """Return the keys that an issuer's own document points to."""
    document = _fetched(issuer.rstrip("/") + DISCOVERY)
    if document.get("issuer") != issuer:
        raise ValueError(f"the document found there is of {document.get('issuer')!r}")
    listed = _fetched(_checked(str(document["jwks_uri"])))["keys"]
    return listed if isinstance(listed, list) else []


def _fetched(url: str) -> dict[str, Any]:
    """Return a JSON document, neither large nor slow."""
    end = time.monotonic() + FETCH_SECONDS
    body = b""
    with httpx.stream("GET", url, timeout=FETCH_SECONDS, headers={"Accept": "application/json"}) as answer:
        answer.raise_for_status()
        for block in answer.iter_bytes():
            body += block
            if len(body) > LARGEST_DOCUMENT or time.monotonic() > end:
                raise ValueError(f"{url} is too large or too slow")
    document = json.loads(body)
    if not isinstance(document, dict):
        raise TypeError(f"{url} is no JSON object")
    return document


def _no_issuer(issuer: str) -> TransientError:
    return TransientError(
        "The issuer's keys are not known.",
        code="no-issuer",
        where=issuer,
        hint="Try again in a moment; the service's log says why.",
    )


def _bad(message: str) -> RequestError:
    return RequestError(message, code="bad-token")
