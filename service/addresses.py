"""Which addresses only this machine reaches, and how our own are asked."""

from __future__ import annotations

import urllib.request
from http.client import HTTPResponse
from ipaddress import ip_address

ANSWER_SECONDS = 5.0
_direct = urllib.request.build_opener(
    urllib.request.ProxyHandler({})
)  # a site's proxy does not know our loopback


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


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a service at this address."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
