"""A server between a store and its bucket that loses replies, refuses, or forgets conditions, as it is told."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

Answer = tuple[int, bytes]
LOST = "lost"
"""The request is done, and the connection is closed without an answer."""
UNCONDITIONAL = "unconditional"
"""The request is done without its condition."""
Mischief = Callable[[str, str], Answer | str | None]


@dataclass
class LyingBucket:
    """``with LyingBucket(server.url) as lying: ...``; ask for mischief by setting ``lying.mischief``.

    Parameters
    ----------
    upstream : str
        Address of the true server.
    mischief : callable
        Given method and path; returns a status and a body to answer without asking the bucket, one of the constants
        above, or None to be honest.
    """

    upstream: str
    mischief: Mischief = lambda _method, _path: None
    seen: list[tuple[str, str]] = field(default_factory=list)

    def __enter__(self) -> Self:
        lying, address = self, urlsplit(self.upstream).netloc

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                lying.seen.append((self.command, self.path))
                wish = lying.mischief(self.command, self.path)
                if isinstance(wish, tuple):
                    return self.answer(wish[0], [], wish[1])
                headers = dict(self.headers.items())
                if wish == UNCONDITIONAL:
                    headers = {
                        name: value for name, value in headers.items() if name.lower() != "if-none-match"
                    }
                upstream = http.client.HTTPConnection(address)
                upstream.request(self.command, self.path, body, headers)
                answer = upstream.getresponse()
                content = answer.read()
                upstream.close()
                if wish == LOST:
                    self.close_connection = True
                    return self.connection.close()
                return self.answer(answer.status, answer.getheaders(), content)

            def answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
                self.send_response_only(status)
                lengths = [value for name, value in headers if name.lower() == "content-length"]
                for name, value in headers:
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header(
                    "Content-Length", lengths[0] if self.command == "HEAD" and lengths else str(len(content))
                )
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = pass_on  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
