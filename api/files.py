"""Answers that carry stored or computed bytes: strong validators, ranges, digests."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from http import HTTPStatus

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException

from binworks.api.heads import is_head
from binworks.service.store import Store

IMMUTABLE = "private, max-age=31536000, immutable"
REVALIDATE = "private, no-cache"
VARY = "Cookie, Authorization"
"""Of what may be kept unasked: in one browser, what one user was shown is not for the next."""
AT_ONCE = 8 << 20
MEDIA_TYPE = "application/octet-stream"
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


def strong_etag(*parts: object) -> str:
    """Return an entity tag of all that determines the bytes of an answer."""
    text = "\0".join(map(str, parts))
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def is_current(request: Request, etag: str) -> bool:
    """Whether the asker has these bytes already."""
    known = request.headers.get("if-none-match")
    return known is not None and (known.strip() == "*" or etag in _tags(known))


def computed(body: bytes, media_type: str, headers: dict[str, str]) -> Response:
    """Return an answer with the digest of its bytes (RFC 9530), so that a download can be checked."""
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    return Response(body, media_type=media_type, headers={**headers, "Repr-Digest": f"sha-256=:{digest}:"})


def stored(request: Request, store: Store, key: str, within: str, etag: str) -> Response:
    """Return the bytes of an immutable object that lies below the key ``within``, or the one range asked for.

    Raises
    ------
    RequestError
        If there is no such object.
    HTTPException
        416, if the range begins behind the end.
    """
    with store.opened(key, within) as found:
        headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": IMMUTABLE, "Vary": VARY}
        if is_current(request, etag):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        only_head = is_head(request)
        span = None if only_head else _span(request, etag, found.size)
        start, stop = span or (0, found.size)
        status = HTTPStatus.PARTIAL_CONTENT if span else HTTPStatus.OK
        if span:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{found.size}"
        headers["Content-Length"] = str(stop - start)
        if only_head:
            return Response(None, status, headers, MEDIA_TYPE)
        if stop - start <= AT_ONCE:
            return Response(found.read(start, stop), status, headers, MEDIA_TYPE)
    return StreamingResponse(_blocks(store, key, within, start, stop), status, headers, MEDIA_TYPE)


def _span(request: Request, etag: str, size: int) -> tuple[int, int] | None:
    """Return the half-open range asked for; None, hence the whole file, for none, several or a malformed one."""
    asked = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    condition = request.headers.get("if-range")
    if asked is None or (condition is not None and condition.strip() != etag):
        return None
    first, last = asked.groups()
    if not (first or last) or (first and last and int(last) < int(first)):
        return None
    start = int(first) if first else max(size - int(last), 0)
    stop = min(int(last) + 1, size) if first and last else size
    if start >= size:
        headers = {"Content-Range": f"bytes */{size}"}
        raise HTTPException(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers=headers)
    return start, stop


def _blocks(store: Store, key: str, within: str, start: int, stop: int) -> Iterator[bytes]:
    with store.opened(key, within) as found:
        while start < stop:
            block = found.read(start, min(start + found.block, stop))
            if not block:
                raise OSError(f"{key} ended {stop - start} bytes early")
            start += len(block)
            yield block


def _tags(header: str) -> list[str]:
    return [tag.strip().removeprefix("W/") for tag in header.split(",")]
