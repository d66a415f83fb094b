"""The templates of the web page: everything shown is escaped, and a name that is not given is an error."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from binworks.api import page_static
from binworks.tensors import incomplete

PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
PRIVATE = {"Cache-Control": "private, no-cache", "Vary": "Cookie, Authorization"}


def render(template: str, /, **values: Any) -> str:
    """Return a page, or a part of one, as HTML."""
    return _environment.get_template(template).render(values)


def page(
    template: str, /, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
) -> HTMLResponse:
    """Return the answer that carries a page; it is for the one who asked, and nobody keeps it."""
    return HTMLResponse(render(template, **values), status, {**PRIVATE, **(headers or {})})


def short(number: float | None) -> str:
    """Return a number in three digits and a prefix: ``12.3 M``; a dash for none."""
    if number is None:
        return "–"
    for size, prefix in PREFIXES:
        if abs(number) >= 0.9995 * size:
            return f"{_three(number / size)} {prefix}"
    return f"{number:d}" if isinstance(number, int) else _three(number)


def plain(number: float) -> str:
    """Return a number with six digits at most, and thin spaces between its thousands."""
    return f"{number:,.6g}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def exact(number: int) -> str:
    """Return a whole number with thin spaces between its thousands."""
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def duration(seconds: float | None) -> str:
    """Return a time in its two largest units: ``2 h 5 min``; a dash for none."""
    if seconds is None:
        return "–"
    left = round(seconds)
    if left < 60:
        return f"{left} s"
    units = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    first = next(place for place, (size, _) in enumerate(units) if left >= size)
    parts = []
    for size, name in units[first : first + 2]:
        if left >= size:
            parts.append(f"{left // size} {name}")
        left %= size
    return " ".join(parts)


def moment(time: datetime) -> str:
    """Return a date and time in UTC, to the second."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def of(part: int, total: int) -> str:
    """Return a part in percent, never rounded up to the whole."""
    return incomplete.percent(part / total) if total else "–"


def _three(number: float) -> str:
    if number == 0:
        return "0"
    digits = 0 if abs(number) >= 99.95 else 1 if abs(number) >= 9.995 else 2
    return f"{number:.{digits}f}"


def _make() -> Environment:
    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "short": short,
        "exact": exact,
        "plain": plain,
        "duration": duration,
        "moment": moment,
    }
    environment.globals |= {"of": of, "static": page_static.address}
    return environment


_environment = _make()
