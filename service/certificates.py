"""How long the certificates of a service still hold."""

from __future__ import annotations

from pathlib import Path

from binworks.deploy.tls import Certificates
from binworks.tensors.errors import BinworksError


def remaining(folder: Path | None, now: float) -> dict[str, float]:
    """Return for how many seconds each certificate holds: ``ca`` and the roles; negative ones have expired.

    Empty if there are none, or none that this process may read.

    Parameters
    ----------
    folder : Path or None
        Of the certificates.
    now : float
        Seconds since 1970.
    """
    if folder is None:
        return {}
    try:
        return {name: end.timestamp() - now for name, end in Certificates(folder).expires().items()}
    except (BinworksError, OSError):
        return {}
