"""What a store asks of the place where its bytes lie: `binworks.service.folders` or `binworks.service.buckets`.

An object is some bytes under a key. A group is the objects below its key, and it exists if, and only if, its root
document does; the root comes last when a group is written and goes first when it is removed.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from binworks.tensors.errors import RequestError

ROOT = "zarr.json"
TMP = "tmp"
STALE_SECONDS = 86_400.0
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


def parts(key: str) -> list[str]:
    """Return the names that make up a key.

    Raises
    ------
    RequestError
        Code ``bad-key`` if the key is empty, absolute, or has empty, ``.``, ``..`` or hidden parts.
    """
    names = key.split("/")
    if not all(map(is_name, names)):
        raise RequestError("This is not the key of anything stored.", code="bad-key", where=key)
    return names


def is_name(name: str) -> bool:
    """Whether this may be a part of a key."""
    return _PART.fullmatch(name) is not None


def absent(key: str) -> RequestError:
    """Return the error for a key under which there is nothing."""
    return RequestError("Nothing is stored under this key.", code="no-such-key", where=key)


@dataclass(frozen=True)
class Found:
    """An object that is there.

    Parameters
    ----------
    size : int
        Bytes.
    modified : float
        When it was written, in seconds since 1970.
    """

    size: int
    modified: float


class Opened(Protocol):
    """An object to be read piece by piece.

    Parameters
    ----------
    size : int
        Bytes.
    block : int
        Bytes that are well read at a time.
    """

    size: int
    block: int

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes ``start`` to ``stop``."""


class Draft(Protocol):
    """A group while it is written; its objects may be put from several threads."""

    @property
    def adopted(self) -> bool:
        """Whether some objects were there already: another attempt's, which may or may not be the same."""

    def put(self, name: str, data: bytes) -> int:
        """Put an object of the group; return the bytes that lie there now."""

    def put_all(self, objects: Mapping[str, bytes]) -> int:
        """Put small objects by name; return the bytes of all."""

    def get(self, name: str, start: int | None, stop: int | None) -> bytes | None:
        """Return what was put, or part of it as `Objects.read` does; None if nothing was."""

    def commit(self, document: bytes) -> None:
        """Make the group appear, with this root document, unless its key is taken."""

    def clear(self) -> None:
        """Remove what was put, if the group does not exist."""


class Objects(ABC):
    """Bytes by key; what is written is durable when a method returns, and seen whole or not at all.

    Each method raises `RequestError` with the code ``bad-key`` for what cannot be a key, and `TransientError` with the
    code ``store-read-failed`` or ``store-write-failed`` if the place does not answer.
    """

    @abstractmethod
    def read(self, key: str, start: int | None = None, stop: int | None = None) -> bytes:
        """Return an object, or part of it; a negative start without a stop counts from the end.

        Raises
        ------
        RequestError
            Code ``no-such-key``.
        """

    @abstractmethod
    def found(self, key: str) -> Found | None:
        """Return size and time of an object; None if it is not there."""

    @abstractmethod
    def opened(self, key: str, within: str) -> AbstractContextManager[Opened]:
        """Open an object for reading in pieces; it must lie below the key ``within``, links followed.

        Raises
        ------
        RequestError
            Code ``no-such-key``.
        """

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Put an object unless the key is taken; return whether it was free: one of several writers hears True."""

    @abstractmethod
    def replace(self, key: str, data: bytes) -> None:
        """Put an object in the place of another; after a power cut it may be lost."""

    @abstractmethod
    def scratch(self, name: str) -> Path:
        """Return a path, under which there need not be anything, for a large file that is to be put here."""

    @abstractmethod
    def put_file(self, key: str, path: Path) -> None:
        """Put a file, which may be moved, under a key that nobody else writes; it is not held in memory."""

    @abstractmethod
    def names(self, prefix: str) -> list[str]:
        """Return the names directly below a key, in any order."""

    @abstractmethod
    def walk(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Give key and size of all objects below a key."""

    @abstractmethod
    def draft(self, prefix: str) -> AbstractContextManager[Draft]:
        """Begin a group; what is not committed at the end is not seen."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """Remove an object, or all below a key: the roots of groups first."""

    @abstractmethod
    def put_aside(self, prefix: str) -> None:
        """Move a group to where nobody reads it, for a day."""

    @abstractmethod
    def tidy(self) -> None:
        """Remove what writers that died left behind, and what was put aside, a day ago."""

    @abstractmethod
    def probe(self) -> None:
        """Write something and remove it.

        Raises
        ------
        BinworksError
            If that does not work.
        """
