"""How long the certificates of a service still hold."""

from __future__ import annotations

from binworks.deploy.tls import Certificates
from binworks.service.settings import Settings
from binworks.tensors.errors import BinworksError


def remaining(settings: Settings, now: float) -> dict[str, float]:
    """Return for how many seconds each certificate holds: ``ca`` and the roles; negative ones have expired.

    Empty if there are none, or none that this process may read.

    Parameters
    ----------
    now : float
        Seconds since 1970.
    """
    if settings.tls is None:
        return {}
    try:
        return {name: end.timestamp() - now for name, end in Certificates(settings.tls).expires().items()}
    except (BinworksError, OSError):
        return {}
