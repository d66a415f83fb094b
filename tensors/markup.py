"""Tables for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def table(captions: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose first row is its head; empty captions are left out."""
    title = "<br>".join(escape(caption) for caption in captions if caption)
    head, *body = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    lines = "".join(f"<tr>{row}</tr>" for row in body)
    return f"<table><caption>{title}</caption><tr>{head.replace('td>', 'th>')}</tr>{lines}</table>"
