"""Large files: gone on with where they were cut short, checked, and there whole or not at all."""

from __future__ import annotations

import base64
import fcntl
import glob
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path

import httpx

from binworks.client.transport import DIGEST, Transport, pause
from binworks.tensors.errors import ConflictError, TransientError

SILENCE = 60.0
"""Seconds without a byte after which a connection counts as lost."""
PATIENCE = 300.0
"""Seconds without a byte after which it is given up; what has come is kept."""
LONGEST_PAUSE = 6

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Head:
    """What the service says of a file."""

    size: int
    tag: str
    sha256: str


def fetch(transport: Transport, path: str, target: Path, progress: Progress | None = None) -> str:
    """Download a file and return its sha256; what an earlier call has left half done is not fetched again.

    Parameters
    ----------
    transport : Transport
        The connection to the service.
    path : str
        Of the file there.
    target : Path
        Gets the file; one that exists is replaced. Until it is whole there is a hidden file beside it.
    progress : callable, optional
        Called with the bytes that are here and those of the whole file.

    Raises
    ------
    TransientError
        ``damaged-download`` if the bytes are not those that the service has; ``cannot-connect``.
    ConflictError
        ``download-running`` if another process downloads the same file to the same place.
    """
    head = _head(transport, path)
    part = target.with_name(f".{target.name}.{head.sha256[:16]}.part")
    with _held(part) as file:
        _fill(transport, path, head, file, progress or (lambda _done, _all: None))
        file.seek(0)
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != head.sha256:
            part.unlink()
            raise TransientError(
                f"What arrived has sha256 {found}, the service has {head.sha256}.",
                code="damaged-download",
                where=str(target),
            )
        os.fsync(file.fileno())
        part.replace(target)
    for left in target.parent.glob(f".{glob.escape(target.name)}.*.part"):  # of an earlier version
        left.unlink(missing_ok=True)
    return found


def _head(transport: Transport, path: str) -> _Head:
    headers = transport.request("HEAD", path).headers
    digest = base64.b64decode(headers["Repr-Digest"].removeprefix(DIGEST).rstrip(":")).hex()
    return _Head(int(headers["Content-Length"]), headers["ETag"], digest)


@contextmanager
def _held(part: Path) -> Iterator[BufferedRandom]:
    """Give the half file, held by this process alone."""
    with part.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = "Another process downloads this file."
            raise ConflictError(message, code="download-running", where=str(part)) from None
        yield file


def _fill(transport: Transport, path: str, head: _Head, file: BufferedRandom, progress: Progress) -> None:
    """Append what is missing, over any number of lost connections."""
    failures, heard = 0, time.monotonic()
    while True:
        here = file.seek(0, os.SEEK_END)
        progress(here, head.size)
        if here >= head.size:
            return
        try:
            headers = {"Range": f"bytes={here}-", "If-Range": head.tag, "Accept-Encoding": "identity"}
            with transport.stream(path, headers, SILENCE) as answer:
                if answer.status_code != httpx.codes.PARTIAL_CONTENT:
                    file.truncate(0)  # it is another file by now, or comes as a whole
                for block in answer.iter_raw():  # as it comes: what has come is not lost with the line
                    file.write(block)
                    failures, heard = 0, time.monotonic()
                    progress(file.tell(), head.size)
            file.flush()
        except (httpx.TransportError, TransientError) as error:
            file.flush()
            if time.monotonic() - heard > PATIENCE:
                raise error if isinstance(error, TransientError) else transport.unreachable(error) from error
        else:
            if file.tell() != head.size:
                raise TransientError(
                    f"The service sent {file.tell():,} bytes of {head.size:,}.",
                    code="damaged-download",
                    where=path,
                )
        pause(min(failures, LONGEST_PAUSE))
        failures += 1
