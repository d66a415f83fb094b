"""What must stand on everything that is made of a result which lacks events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def mark(facts: Mapping[str, Any]) -> str:
    """Return ``INCOMPLETE: 93.1 % of the events``; empty for a result that has every event, or that says nothing of it.

    Parameters
    ----------
    facts : mapping
        What a snapshot says of itself, or the metadata of a tensor: ``complete``, ``fraction``, and ``missing``
        with the ``files`` that could not be opened. These are not in the fraction: nobody knows how many
        events they have.
    """
    if facts.get("complete", True):
        return ""
    lost = len((facts.get("missing") or {}).get("files") or ())
    files = f", and {lost} file{'s' * (lost > 1)} could not be opened" if lost else ""
    return f"INCOMPLETE: {percent(facts['fraction'])} of the events{files}"


def percent(fraction: float) -> str:
    """Return a part in percent, with more digits where it would look like the whole."""
    for digits in range(1, 8):
        text = f"{100 * fraction:.{digits}f}"
        if fraction >= 1 or float(text) < 100:
            break
    return f"{text} %"
