"""HTTP as uvicorn and httptools speak it, but for two things: a request's head has a limit, and errors are problems."""

from __future__ import annotations

from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from binworks.api import problems
from binworks.tensors.errors import RequestError

LONGEST_TARGET = 8 << 10
LARGEST_HEAD = 64 << 10


class Protocol(HttpToolsProtocol):
    """A connection."""

    _refused: RequestError | None = None
    _in_head = False
    _received = 0

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_head, self._received = True, 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        super().on_url(url)
        if len(self.url) > LONGEST_TARGET:
            self._refuse(f"The target of a request may have {LONGEST_TARGET} bytes.", code="target-too-long")

    def on_headers_complete(self) -> None:
        """Hand the request on."""
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Take what has come; a head that does not end is not collected for ever."""
        super().data_received(data)
        self._received += len(data)
        if self._in_head and self._received > LARGEST_HEAD and not self.transport.is_closing():
            self._refused = _error(
                f"The head of a request may have {LARGEST_HEAD} bytes.", code="head-too-large"
            )
            self.send_400_response("")

    def _refuse(self, message: str, *, code: str) -> None:
        """End the parsing; `send_400_response` is called next."""
        self._refused = _error(message, code=code)
        raise self._refused

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request that can be handed on, and close the connection."""
        answer = problems.answer(self._refused or _error(msg, code="bad-request"))
        status = HTTPStatus(answer.status_code)
        lines = [b"HTTP/1.1 %d %s" % (status, status.phrase.encode())]
        lines += [b"%s: %s" % header for header in (*answer.raw_headers, (b"connection", b"close"))]
        self.transport.write(b"\r\n".join([*lines, b"", bytes(answer.body)]))
        self.transport.close()


def _error(message: str, *, code: str) -> RequestError:
    return RequestError(message, code=code)
