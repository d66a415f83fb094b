"""With whose login files on servers are read: each owner's credential, in a folder that workers see.

A task names the owner, nothing more. The worker finds his file in the folder that its environment names (`FOLDER`),
looks whether it may be used, and gives its place to the XRootD library, which alone reads the secret and sends it.
Neither secret nor place is in a task, an error or a log.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from binworks.processors.sources import PROTOCOLS, Login
from binworks.service.settings import Settings
from binworks.tensors.errors import RequestError, TransientError

FOLDER = "BINWORKS_CREDENTIALS"
"""Name in the environment of workers."""
TOKENS = ("BEARER_TOKEN", "BEARER_TOKEN_FILE")
"""Where the library looks for a token in the environment, before it takes the owner's file."""
CHOICE = "XrdSecPROTOCOL"
"""What overrides in the environment which kinds of login are offered."""
_FORBIDDEN_BITS = {".proxy": 0o037, ".token": 0o077}
"""Who else may not have a file; the library itself refuses a token that a group may read."""
_SEPARATORS = frozenset("&?# ")
_LARGEST = 1 << 20


class _Seen(NamedTuple):
    """A file that was looked into; another one after a renewal."""

    path: Path
    inode: int
    modified: int


def environment(settings: Settings) -> dict[str, str]:
    """Return what workers need in their environment to read from servers as this process would, and as the owners."""
    asked = ("XRD_", "X509_CERT_DIR")  # the patience that the admin has set wins over ours
    own = {name: value for name, value in os.environ.items() if name.startswith(asked)}
    return own if settings.credentials is None else {**own, FOLDER: str(settings.credentials.absolute())}


def file_name(owner: str) -> str:
    """Return what an owner's files are called, without the ending; ``oidc:jane`` is ``oidc%3Ajane``."""
    return quote(owner, safe="")


def login(owner: str | None, path: str) -> Login | None:
    """Return as whom a worker reads a file.

    Parameters
    ----------
    owner : str or None
        Of the job; None if the service has no credentials of owners.
    path : str
        A local file, or an address.

    Returns
    -------
    Login or None
        None for files that need no login: all local ones, and those of other protocols.

    Raises
    ------
    RequestError
        ``credential-missing``, ``credential-unusable``, ``credential-expired`` or ``credential-shadowed``: each says
        what to do, none where the file is.
    TransientError
        ``credential-missing``, if the whole folder is not there: another worker may see it.
    """
    if owner is None or not path.startswith(PROTOCOLS):
        return None
    folder = os.environ.get(FOLDER)
    if not folder or not folder.startswith("/") or _SEPARATORS & set(folder):
        raise RequestError(
            f"This worker does not know the folder of credentials: {FOLDER} must name it, absolute, without "
            "spaces, &, ? and #.",
            code="credential-missing",
            where=owner,
            hint="Whoever runs the service must give it to the workers.",
        )
    if not Path(folder).is_dir():
        raise TransientError(
            "This worker does not see the folder of credentials.",
            code="credential-missing",
            where=owner,
            hint=f"It must be there on all machines where workers run, under the path that {FOLDER} names.",
        )
    endings = tuple(_FORBIDDEN_BITS)
    proxy, token = (_usable(Path(folder, file_name(owner) + ending), owner) for ending in endings)
    if proxy is None and token is None:
        raise RequestError(
            f"The service has no credential of {owner!r}, and files on servers are read with the owner's.",
            code="credential-missing",
            where=owner,
            hint=f"Put an X.509 proxy there as {file_name(owner)}.proxy, or a bearer token as "
            f"{file_name(owner)}.token; then retry the job.",
        )
    _refuse_others(owner, token=token is not None)
    # of the files, too: a server goes on with the credential that a connection began with, even if it has expired
    name = "b" + hashlib.sha256(repr((owner, proxy, token)).encode()).hexdigest()[:24]
    return Login(name, *(None if seen is None else str(seen.path) for seen in (proxy, token)))


def _usable(path: Path, owner: str) -> _Seen | None:
    """Return a file that may be used; None if there is none."""
    try:
        facts = path.stat()
        seen = _Seen(path, facts.st_ino, facts.st_mtime_ns)
        if facts.st_mode & _FORBIDDEN_BITS[path.suffix]:
            raise _unusable(
                path, owner, f"has the mode {facts.st_mode & 0o777:o}, so that others may have it"
            )
        end = _ends(seen)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, owner, f"cannot be read by the worker ({error.strerror})") from None
    except ValueError:
        raise _unusable(path, owner, f"is not a {path.suffix[1:]}") from None
    if end is not None and end <= time.time():
        at = datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%d %H:%M UTC")
        raise RequestError(
            f"The {path.suffix[1:]} of {owner!r} has expired at {at}.",
            code="credential-expired",
            where=owner,
            hint="Renew it, and retry the job: what is done is kept.",
        )
    return seen


def _unusable(path: Path, owner: str, why: str) -> RequestError:
    return RequestError(
        f"The {path.suffix[1:]} of {owner!r} {why}.",
        code="credential-unusable",
        where=owner,
        hint="It must be whole and belong to the workers' account, with the mode 0600; then retry the job.",
    )


def _refuse_others(owner: str, *, token: bool) -> None:
    """Refuse to go on where the library would take something else than the owner's file."""
    there = [CHOICE] if CHOICE in os.environ else []
    if token:
        there += [name for name in TOKENS if name in os.environ]
        folders = (os.environ.get("XDG_RUNTIME_DIR"), "/tmp")  # noqa: S108  it is the library that looks there
        usual = [Path(folder, f"bt_u{os.geteuid()}") for folder in folders if folder]
        there += [str(path) for path in usual if path.exists()]
    if there:
        raise RequestError(
            f"The workers' account has a login of its own, which would be used instead of that of {owner!r}: "
            f"{', '.join(there)}.",
            code="credential-shadowed",
            where=owner,
            hint="Whoever runs the service must remove it from the workers.",
        )


@lru_cache(maxsize=256)
def _ends(seen: _Seen) -> float | None:
    """Return when a credential ends, in seconds since 1970; None if it does not say.

    Raises
    ------
    ValueError
        If it is none.
    """
    with seen.path.open("rb") as file:
        data = file.read(_LARGEST)
    end: Callable[[bytes], float | None] = _proxy_ends if seen.path.suffix == ".proxy" else _token_ends
    return end(data)


def _proxy_ends(data: bytes) -> float | None:
    """Return when the first of the certificates of a proxy ends."""
    from cryptography import x509  # only where owners have credentials

    chain = x509.load_pem_x509_certificates(data)
    return min(certificate.not_valid_after_utc.timestamp() for certificate in chain)


def _token_ends(data: bytes) -> float | None:
    """Return what a JSON web token says; others say nothing."""
    if not data.strip():
        raise ValueError("it is empty")
    parts = data.strip().split(b".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + b"=" * (-len(parts[1]) % 4)))
    except (IndexError, ValueError):  # binascii's error is one
        return None
    end = claims.get("exp") if isinstance(claims, Mapping) else None
    return float(end) if isinstance(end, int | float) else None
