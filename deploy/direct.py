"""How our own processes are asked over HTTP."""

from __future__ import annotations

import urllib.request
from http.client import HTTPResponse

ANSWER_SECONDS = 5.0

# a site's proxy does not know our loopback
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(url: str, seconds: float = ANSWER_SECONDS) -> HTTPResponse:
    """Ask one of our own processes over HTTP, whatever proxy the environment names.

    Parameters
    ----------
    url : str
    seconds : float
        How long to wait for it.

    Raises
    ------
    OSError
        If it does not answer, or with an error.
    """
    answer: HTTPResponse = _direct.open(url, timeout=seconds)
    return answer
