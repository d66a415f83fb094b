"""Where the service is and which token opens it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from binworks.tensors.errors import RequestError

RUN_FILE = "service.json"
TOKEN_FILE = "token"  # noqa: S105  a file's name


@dataclass(frozen=True)
class Address:
    """A service and the token for it.

    Parameters
    ----------
    url : str
        Without a slash at the end.
    token : str or None
        Never shown.
    """

    url: str
    token: str | None = field(repr=False)


def find(
    url: str | None = None, token: str | None = None, home: str | os.PathLike[str] | None = None
) -> Address:
    """Return the address and the token, each from the first place that has it.

    The places are: the arguments; the files ``service.json`` and ``token`` of ``home``; the environment variables
    ``BINWORKS_URL``, ``BINWORKS_TOKEN`` and ``BINWORKS_HOME``; the same two files in ``~/.config/binworks/``. A token
    found in files goes to the address found beside it only.

    Raises
    ------
    RequestError
        Code ``no-service`` if no place has an address.
    """
    environment = os.environ
    folder = _folder(home)
    given = url or (None if home is not None else environment.get("BINWORKS_URL"))
    secret = token or (None if home is not None else environment.get("BINWORKS_TOKEN"))
    listed = _run_file(folder) if folder is not None else {}
    found = given or listed.get("url")
    if found is None:
        raise RequestError(
            "Nobody said where the service is.",
            code="no-service",
            where=None if folder is None else str(folder),
            hint="Start one with `binworks up`, or give --url or --home, or set BINWORKS_URL or BINWORKS_HOME.",
        )
    found = found.rstrip("/")
    if secret is None and folder is not None and found == str(listed.get("url", "")).rstrip("/"):
        secret = _token(folder)
    return Address(found, secret)


def _folder(home: str | os.PathLike[str] | None) -> Path | None:
    named = home or os.environ.get("BINWORKS_HOME")
    if named:
        return Path(named).expanduser()
    usual = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "binworks"
    return usual if usual.is_dir() else None


def _run_file(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / RUN_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _token(folder: Path) -> str | None:
    try:
        return (folder / TOKEN_FILE).read_text().strip() or None
    except OSError:
        return None
