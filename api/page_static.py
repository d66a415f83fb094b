"""Style, script and icon of the web page: at addresses that name their content, so that they are kept for ever."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response

from binworks.api.problems import NotFoundError

FOLDER = Path(__file__).parent / "static"
KEPT = "public, max-age=31536000, immutable"
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Asset:
    """A file that a page needs, as it is sent.

    Parameters
    ----------
    body, packed : bytes
        As it is, and with gzip.
    digest : str
        Of the body; part of its address.
    media_type : str
    """

    body: bytes
    packed: bytes
    digest: str
    media_type: str


@cache
def names() -> frozenset[str]:
    """Return the files that pages may name, by their path below ``static``."""
    return frozenset(
        path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.suffix in TYPES
    )


@cache
def asset(name: str) -> Asset:
    """Return one of `names`; it is read once."""
    body = (FOLDER / name).read_bytes()
    digest = hashlib.sha256(body).hexdigest()[:16]
    return Asset(body, gzip.compress(body, mtime=0), digest, TYPES[Path(name).suffix])


def address(name: str) -> str:
    """Return where a file is served; another content has another address."""
    return f"/static/{asset(name).digest}/{name}"


@router.get("/static/{digest}/{name:path}")
@router.head("/static/{digest}/{name:path}")
def served(digest: str, name: str, request: Request) -> Response:
    """Return a file of the page; anybody may have it."""
    if name not in names() or asset(name).digest != digest:
        raise NotFoundError("There is no such file.", where=name, hint="Reload the page that named it.")
    found = asset(name)
    headers = {"Cache-Control": KEPT, "ETag": f'"{digest}"', "Vary": "Accept-Encoding"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(
            found.packed, media_type=found.media_type, headers={**headers, "Content-Encoding": "gzip"}
        )
    return Response(found.body, media_type=found.media_type, headers=headers)
