"""The one tree of errors.

::

    BinworksError
    +-- RequestError      what was asked for cannot be: unknown name, bad option, wrong value
    +-- InputError        a file is missing, unreadable, or lacks what the job needs
    +-- PayloadError      a correction payload is wrong: schema, hash, axes, values
    +-- PhysicsError      the events themselves are wrong: too many non-finite weights
    +-- TransientError    it may work next time: a time-out, a lost connection
    +-- ConflictError     not in this state: pull before a snapshot, cancel of a finished job

A message says what was expected, what was found, where, and what to do. ``code`` is stable: programs match on it.
"""

from __future__ import annotations

from typing import Any


class BinworksError(Exception):
    """Base of all errors that binworks raises on purpose.

    Parameters
    ----------
    message : str
        One or two sentences for a person.
    code : str
        Stable, lower-case, with dashes; defaults to the class's own.
    where : str, optional
        The file, field, job or unit concerned.
    hint : str, optional
        What to do about it.
    """

    default_code = "internal"

    def __init__(
        self, message: str, *, code: str | None = None, where: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        parts = [
            self.message
            if self.where is None or self.where in self.message
            else f"{self.where}: {self.message}"
        ]
        if self.hint:
            parts.append(self.hint)
        return " ".join(parts)

    def __reduce__(self) -> tuple[Any, ...]:  # errors travel from workers to the driver
        return (_rebuild, (type(self), self.message, self.code, self.where, self.hint))


def _rebuild(
    cls: type[BinworksError], message: str, code: str, where: str | None, hint: str | None
) -> BinworksError:
    return cls(message, code=code, where=where, hint=hint)


class RequestError(BinworksError):
    """What was asked for cannot be: an unknown name, a bad option, a wrong value."""

    default_code = "bad-request"


class InputError(BinworksError):
    """An input file is missing, unreadable, or lacks what the job needs."""

    default_code = "bad-input"


class PayloadError(BinworksError):
    """A correction payload is wrong: its schema, its hash, its axes or its values."""

    default_code = "bad-payload"


class PhysicsError(BinworksError):
    """The events themselves are wrong, for example too many weights that are not finite."""

    default_code = "bad-events"


class TransientError(BinworksError):
    """It may work next time: a time-out, a lost connection, a full disk."""

    default_code = "transient"


class ConflictError(BinworksError):
    """Not possible in the present state."""

    default_code = "conflict"


def unknown_name(kind: str, name: str, known: list[str]) -> RequestError:
    """Return the error for a name that is not in a table, with the nearest known ones."""
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(sorted(known)) or 'none'}."
    return RequestError(
        f"There is no {kind} named {name!r}.", code=f"unknown-{kind.replace(' ', '-')}", hint=hint
    )
