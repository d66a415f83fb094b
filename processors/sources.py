"""Where the bytes of a file come from: the local disk, or a server by XRootD.

A source is told beforehand which spans it will be asked for (`Source.prepare`), so that a server is asked once a
chunk; what it hands out (`Source.read`) is valid until the next call. The XRootD library is loaded when it is needed,
with time limits that hold: by default a server that hangs is waited for up to half an hour.

A server may be asked as somebody (`Login`). The library keeps connections to servers and shares them; a name of the
login's own before the host keeps those of different logins apart.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

from binworks.tensors.errors import RequestError

XROOTD_ENVIRONMENT: Mapping[str, str] = {
    "XRD_CONNECTIONWINDOW": "10",
    "XRD_CONNECTIONRETRY": "3",
    "XRD_REQUESTTIMEOUT": "60",
    "XRD_STREAMTIMEOUT": "30",
    "XRD_TIMEOUTRESOLUTION": "1",
    "XRD_STREAMERRORWINDOW": "0",  # a server that did not answer is asked again at once, not after half an hour
}
"""Patience in seconds, and tries; read by the library when it is loaded, and only if the user has not set them."""

PROTOCOLS = ("root://", "roots://", "xroot://")
"""What addresses of XRootD servers begin with."""
_RESERVED = ("xrd.", "xrdcl.", "authz")
"""Parameters of an address that choose a credential, or are one."""
_NO_FILE = "/dev/null"

_ANSWERED = 400
_AUTHENTICATION = 204
_MISSING = 3011
_FORBIDDEN = (3010, 3016, 3030)  # not authorised; a folder; not authenticated
_PASSING = (3004, 3008, 3012, 3014, 3024)  # handle lost, no memory, server error, no server, overloaded

PIECE_BYTES = 2_097_136
PIECES_AT_ONCE = 1024
"""What servers accept in a vector read unless they are set up otherwise."""
REQUEST_BYTES = 32_000_000
GAP_BYTES = 16_384
"""Spans nearer to each other than this are asked for as one."""

Span = tuple[int, int]
"""Position and size in bytes."""


class LoginRefusedError(Exception):
    """A server knows nobody of this credential, or of none."""


@dataclass(frozen=True)
class Login:
    """As whom servers are asked. What the files hold is read by the XRootD library alone, at each new connection.

    Parameters
    ----------
    name : str
        Letters and digits; open files and connections are shared within a name only.
    proxy, token : str, optional
        Files with an X.509 proxy and with a bearer token; other credentials of this process are not offered.
    """

    name: str
    proxy: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    def address(self, url: str) -> str:
        """Return the address of a file as this login's."""
        scheme, _, rest = url.partition("://")
        host, slash, path = rest.partition("/")
        protocols, files = [], []
        if self.token is not None:
            protocols.append("ztn")
            files.append(f"xrd.ztn={self.token}")
        if self.proxy is not None:
            protocols.append("gsi")
            # a certificate in the home of the worker's account must not take the place of a proxy that is no good
            files.append(f"xrd.gsiusrpxy={self.proxy}&xrd.gsiusrcrt={_NO_FILE}&xrd.gsiusrkey={_NO_FILE}")
        asked = "&".join([f"xrd.wantprot={','.join(protocols)}", *files])
        mark = "&" if "?" in path else "?"
        return f"{scheme}://{self.name}@{host.rpartition('@')[2]}{slash}{path}{mark}{asked}"

    def without_places(self, text: str) -> str:
        """Return a text in which the files are not named."""
        for place in (self.proxy, self.token):
            text = text if place is None else text.replace(place, "...")
        return text


class Source(Protocol):
    """The bytes of an open file.

    Attributes
    ----------
    size : int
        Bytes.
    remote : bool
        Whether each request costs a round trip, so that `prepare` pays.
    """

    size: int
    remote: bool

    def prepare(self, spans: Iterable[Span]) -> None:
        """Be told what `read` will be asked for; an earlier preparation is forgotten."""
        ...

    def read(self, position: int, size: int) -> memoryview:
        """Return bytes, valid until the next call.

        Raises
        ------
        EOFError
            If the file ends before.
        OSError
            If they cannot be read.
        """
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def open_source(path: str, login: Login | None = None) -> Source | None:
    """Open a file; None for an address that only uproot understands.

    Parameters
    ----------
    path : str
        A local file, or an address.
    login : Login, optional
        As whom XRootD servers are asked; default: with whatever credential this process has.

    Raises
    ------
    OSError
        If it cannot be opened; for a server, the text is the server's.
    LoginRefusedError
        If a server lets nobody of this credential in.
    RequestError
        ``missing-extra``, if the XRootD library is not installed; ``bad-address``, if an address names a credential.
    """
    if "://" not in path:
        return LocalFile(path)
    if path.startswith(PROTOCOLS):
        return RemoteFile(path, login)
    return None


class LocalFile:
    """Plain reads of a local file: a file that is cut short raises, where a memory map would kill the process."""

    remote = False

    def __init__(self, path: str) -> None:
        self._path = path
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._buffer = bytearray()
        self.size = os.fstat(self._handle).st_size

    def prepare(self, spans: Iterable[Span]) -> None:
        """Do nothing: the disk is fast, and the kernel reads ahead."""

    def read(self, position: int, size: int) -> memoryview:
        """Return bytes, valid until the next call."""
        if len(self._buffer) < size:
            self._buffer = bytearray(size)
        view = memoryview(self._buffer)[:size]
        done = 0
        while done < size and (got := os.preadv(self._handle, [view[done:]], position + done)):
            done += got
        if done < size:
            raise EOFError(f"{self._path} ends at byte {position + done}, expected {position + size}")
        return view

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)


class RemoteFile:
    """A file of an XRootD server; what is prepared is fetched in few vector reads, and kept until the next time."""

    remote = True

    def __init__(self, url: str, login: Login | None = None) -> None:
        _refuse_credentials(url)
        self._url, self._login = url, login
        client, flags = _client()
        self._file = client.File()
        address = url if login is None else login.address(url)
        self._check(self._file.open(address, flags.OpenFlags.READ)[0])
        status, info = self._file.stat()
        self._check(status)
        self.size = int(info.size)
        self._starts: list[int] = []
        self._runs: list[bytes] = []

    def prepare(self, spans: Iterable[Span]) -> None:
        """Fetch the spans."""
        wanted = _joined(spans)
        self._starts, self._runs = [], []
        for run in wanted:
            self._check_end(*run)
        fetched: dict[int, bytes] = {}
        for pieces in _requests(piece for run in wanted for piece in _pieces(*run)):
            self._fetch(pieces, fetched)
        for position, size in wanted:
            parts = [fetched.pop(begin) for begin, _ in _pieces(position, size)]
            self._starts.append(position)
            self._runs.append(parts[0] if len(parts) == 1 else b"".join(parts))

    def read(self, position: int, size: int) -> memoryview:
        """Return bytes; those that were not prepared are fetched one by one."""
        place = bisect_right(self._starts, position) - 1
        if place >= 0:
            begin = position - self._starts[place]
            if begin + size <= len(self._runs[place]):
                return memoryview(self._runs[place])[begin : begin + size]
        self._check_end(position, size)
        parts = []
        for begin, length in _pieces(position, size):
            status, data = self._file.read(begin, length)
            self._check(status)
            if len(data) < length:
                raise EOFError(f"{self._url} gave {len(data)} bytes at byte {begin}, expected {length}")
            parts.append(data)
        return memoryview(b"".join(parts))

    def close(self) -> None:
        """Close the file; a server that is gone need not know."""
        self._file.close(timeout=1)

    def _fetch(self, pieces: list[Span], fetched: dict[int, bytes]) -> None:
        status, answer = self._file.vector_read(pieces)
        self._check(status)
        for chunk in answer.chunks:
            fetched[chunk.offset] = bytes(chunk.buffer)
        for position, size in pieces:
            if len(fetched.get(position, b"")) != size:
                raise EOFError(f"{self._url} did not give the {size} bytes at byte {position}")

    def _check(self, status: Any) -> None:
        """Raise what a failure is: the server's answer about this file, or no answer."""
        if status.ok:
            return
        told = str(status.message).strip()
        told = told if self._login is None else self._login.without_places(told)
        answered = status.code == _ANSWERED
        if answered and status.errno == _MISSING:
            raise FileNotFoundError(told)
        if status.code == _AUTHENTICATION:
            raise LoginRefusedError(told)
        if answered and status.errno in _FORBIDDEN:
            raise PermissionError(told)
        if not answered or status.errno in _PASSING:
            raise ConnectionError(told)
        raise OSError(told)

    def _check_end(self, position: int, size: int) -> None:
        if position < 0 or position + size > self.size:
            raise EOFError(f"{self._url} ends at byte {self.size}, expected {position + size}")


class SeekableFile:
    """A source as a file object, for uproot."""

    def __init__(self, source: Source, name: str) -> None:
        self._source, self._name, self._position = source, name, 0
        self.closed = False

    def __repr__(self) -> str:
        return self._name

    def seek(self, position: int) -> int:
        """Go to a byte counted from the start."""
        self._position = position
        return position

    def read(self, size: int) -> bytes:
        """Return the next bytes; fewer at the end of the file."""
        size = max(0, min(size, self._source.size - self._position))
        data = bytes(self._source.read(self._position, size)) if size else b""
        self._position += size
        return data


def _joined(spans: Iterable[Span]) -> list[Span]:
    """Return the spans in order, near ones as one."""
    joined: list[Span] = []
    for position, size in sorted(spans):
        if joined and position <= sum(joined[-1]) + GAP_BYTES:
            begin, length = joined[-1]
            joined[-1] = (begin, max(length, position + size - begin))
        else:
            joined.append((position, size))
    return joined


def _pieces(position: int, size: int) -> Iterable[Span]:
    bounds = [*range(position, position + size, PIECE_BYTES), position + size]
    return ((begin, end - begin) for begin, end in pairwise(bounds))


def _requests(pieces: Iterable[Span]) -> Iterator[list[Span]]:
    """Give the pieces in requests that are not too large."""
    request: list[Span] = []
    nbytes = 0
    for piece in pieces:
        if request and (len(request) == PIECES_AT_ONCE or nbytes + piece[1] > REQUEST_BYTES):
            yield request
            request, nbytes = [], 0
        request.append(piece)
        nbytes += piece[1]
    if request:
        yield request


def _client() -> tuple[Any, Any]:
    """Return the XRootD library, loaded with our patience."""
    for name, value in XROOTD_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        from XRootD import client
        from XRootD.client import flags
    except ImportError:
        raise RequestError(
            "Files at root:// addresses need the package xrootd.",
            code="missing-extra",
            hint="Install binworks[xrootd] on the workers.",
        ) from None
    return client, flags


def _refuse_credentials(url: str) -> None:
    """Refuse an address whose parameters would make the library read a credential of somebody else's choice."""
    names = [part.partition("=")[0].strip() for part in url.partition("?")[2].split("&")]
    if any(name.lower().startswith(_RESERVED) for name in names):
        raise RequestError(
            "An address may not say with which credential it is read.",
            code="bad-address",
            where=url.partition("?")[0],
            hint="Leave the parameters after the question mark out.",
        )
