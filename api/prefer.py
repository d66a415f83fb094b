"""How long an asker is willing to wait for what he asks about (RFC 7240)."""

from __future__ import annotations

import re

LONGEST_WAIT = 60.0
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})", re.ASCII | re.IGNORECASE)


def wait_seconds(prefer: str | None) -> float | None:
    """Return the seconds of ``Prefer: wait=``, a minute at most; None if it does not say."""
    asked = _WAIT.search(prefer) if prefer else None
    return None if asked is None else min(float(asked.group(1)), LONGEST_WAIT)
