"""How things look in a notebook: small tables, with all text escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence


def facts(caption: str, rows: Mapping[str, str]) -> str:
    """Return a table with a line a fact; empty ones are left out."""
    cells = "".join(
        f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>"
        for key, value in rows.items()
        if value
    )
    return f"<table><caption>{html.escape(caption)}</caption>{cells}</table>"


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with a head."""
    lines = [_line("th", head), *(_line("td", row) for row in rows)]
    return f"<table><caption>{html.escape(caption)}</caption>{''.join(lines)}</table>"


def _line(cell: str, words: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{cell}>{html.escape(word)}</{cell}>" for word in words) + "</tr>"
