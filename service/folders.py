"""Objects as files in a local folder.

A group is written aside, synced and renamed; a document is written aside, synced and linked. So a reader sees all of it
or nothing, and a crash leaves rubbish in ``tmp/`` only.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from binworks.service.objects import ROOT, STALE_SECONDS, TMP, Draft, Found, Objects, Opened, absent, parts
from binworks.tensors.errors import RequestError, TransientError

BLOCK = 1 << 20
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class Folder(Objects):
    """Objects in a folder, which is made if it is not there.

    Parameters
    ----------
    root : Path
        The folder.
    make : bool
        Whether to make it if it is not there. Workers do not: where a disk is not mounted, they would fill another one.

    Raises
    ------
    RequestError
        Code ``bad-store`` if the folder cannot be made.
    TransientError
        Code ``store-not-seen``.
    """

    def __init__(self, root: Path, *, make: bool = True) -> None:
        self.root = root
        if not make and not (root / TMP).is_dir():
            raise TransientError(
                f"The store is not seen on {socket.gethostname()}.",
                code="store-not-seen",
                where=str(root),
                hint="Is its file system mounted there, under the same path?",
            )
        try:
            (root / TMP).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(
                f"The store's folder cannot be made: {error.strerror}.", code="bad-store", where=str(root)
            ) from None

    def path(self, key: str) -> Path:
        """Return the file of a key, whether or not it is there."""
        return self.root.joinpath(*parts(key))

    def read(self, key: str, start: int | None = None, stop: int | None = None) -> bytes:
        """Return a file's bytes, or part of them."""
        with _reading(key):
            return _read(self.path(key), start, stop)

    def found(self, key: str) -> Found | None:
        """Return size and time of a file; None for a folder too."""
        with _reading(key), suppress(*_ABSENT):
            facts = self.path(key).stat()
            return Found(facts.st_size, facts.st_mtime) if stat.S_ISREG(facts.st_mode) else None
        return None

    @contextmanager
    def opened(self, key: str, within: str) -> Iterator[Opened]:
        """Open a file that is neither a link, nor behind one that leads away, nor anything that could block."""
        with _reading(key):
            try:
                path, home = self.path(key), self.path(within).resolve(strict=True)
                if not path.resolve(strict=True).is_relative_to(home):
                    raise absent(key)
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except (OSError, ValueError):  # nothing there, a name too long
                raise absent(key) from None
            with os.fdopen(descriptor, "rb", buffering=0) as file:
                facts = os.fstat(file.fileno())
                if not stat.S_ISREG(facts.st_mode):
                    raise absent(key)
                yield _OpenFile(file.fileno(), facts.st_size)

    def create(self, key: str, data: bytes) -> bool:
        """Write, sync and link a file."""
        target = self.path(key)
        with self._aside(key) as draft:
            draft.write_bytes(data)
            _sync(draft)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(draft, target)  # unlike a rename, a link never replaces
            except FileExistsError:
                return False
            _sync_folders(target.parent, self.root)
        return True

    def replace(self, key: str, data: bytes) -> None:
        """Write a file and rename it; nothing is synced."""
        target = self.path(key)
        with self._aside(key) as draft:
            draft.write_bytes(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            draft.replace(target)

    def scratch(self, name: str) -> Path:
        """Return a path in ``tmp/``."""
        return self.path(f"{TMP}/{name}")

    def put_file(self, key: str, path: Path) -> None:
        """Sync a file and rename it; one of another file system is copied first."""
        target = self.path(key)
        with self._aside(key) as draft:
            try:
                path.rename(draft)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                shutil.copyfile(path, draft)
            _sync(draft)
            target.parent.mkdir(parents=True, exist_ok=True)
            draft.rename(target)
            _sync_folders(target.parent, self.root)

    def names(self, prefix: str) -> list[str]:
        """List a folder."""
        with _reading(prefix), suppress(*_ABSENT):
            return [path.name for path in self.path(prefix).iterdir()]
        return []

    def walk(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Give the files below a folder."""
        for folder, _, names in os.walk(self.path(prefix)):
            for name in names:
                path = Path(folder, name)
                with suppress(FileNotFoundError):  # removed meanwhile
                    yield path.relative_to(self.root).as_posix(), path.stat().st_size

    @contextmanager
    def draft(self, prefix: str) -> Iterator[Draft]:
        """Begin a folder in ``tmp/``."""
        target = self.path(prefix)
        with self._aside(prefix) as folder:
            yield _FolderDraft(folder, target, self.root)

    def remove(self, key: str) -> None:
        """Rename a file or a folder into ``tmp/``, then delete it."""
        target = self.root / TMP / f"removed-{uuid.uuid4().hex}"
        with _writing(key), suppress(*_ABSENT):
            self.path(key).rename(target)
            _discard(target)

    def put_aside(self, prefix: str) -> None:
        """Rename a folder into ``tmp/``."""
        target = self.root / TMP / f"damaged-{uuid.uuid4().hex}"
        with _writing(prefix), suppress(*_ABSENT):  # a twin was faster
            self.path(prefix).rename(target)
            os.utime(target)  # the day begins now

    def tidy(self) -> None:
        """Remove what has been in ``tmp/`` for a day."""
        for draft in (self.root / TMP).iterdir():
            with suppress(FileNotFoundError):  # its writer lives after all
                if time.time() - draft.stat().st_mtime > STALE_SECONDS:
                    _discard(draft)

    def probe(self) -> None:
        """Write a block into ``tmp/``."""
        with self._aside(TMP) as draft:
            draft.write_bytes(b"\0" * 4096)

    @contextmanager
    def _aside(self, key: str) -> Iterator[Path]:
        """Give a path in ``tmp/`` that is gone at the end, whatever happens."""
        draft = self.root / TMP / uuid.uuid4().hex
        try:
            with _writing(key):
                yield draft
        finally:
            _discard(draft)


class _FolderDraft:
    """A group in ``tmp/``."""

    adopted = False

    def __init__(self, folder: Path, target: Path, root: Path) -> None:
        self._folder, self._target, self._root = folder, target, root

    def put(self, name: str, data: bytes) -> int:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.write_bytes(data)

    def put_all(self, objects: Mapping[str, bytes]) -> int:
        return sum(self.put(name, data) for name, data in objects.items())

    def get(self, name: str, start: int | None, stop: int | None) -> bytes | None:
        with suppress(*_ABSENT):
            return _read(self._folder / name, start, stop)
        return None

    def commit(self, document: bytes) -> None:
        self.put(ROOT, document)
        _sync_tree(self._folder)
        self._target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._folder.rename(self._target)
        except OSError:
            if not (self._target / ROOT).is_file():
                self._replace_remnant()
        _sync_folders(self._target.parent, self._root)

    def _replace_remnant(self) -> None:
        """Take the place of a folder that has lost its root document: nobody can read it."""
        with suppress(*_ABSENT):
            self._target.rename(self._root / TMP / f"damaged-{uuid.uuid4().hex}")
        self._folder.rename(self._target)

    def clear(self) -> None:
        _discard(self._folder)


class _OpenFile:
    """A file that is open."""

    block = BLOCK

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self.size = size

    def read(self, start: int, stop: int) -> bytes:
        return os.pread(self._descriptor, stop - start, start)


@contextmanager
def _reading(key: str) -> Iterator[None]:
    try:
        yield
    except _ABSENT:
        raise absent(key) from None
    except OSError as error:
        message = f"The store cannot be read: {error.strerror or error}."
        raise TransientError(message, code="store-read-failed", where=key) from error


@contextmanager
def _writing(key: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"The store does not take it: {error.strerror or error}."
        raise TransientError(message, code="store-write-failed", where=key) from error


def _read(path: Path, start: int | None, stop: int | None) -> bytes:
    if start is None and stop is None:
        return path.read_bytes()
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        first, last, _ = slice(start, stop).indices(size)
        return os.pread(file.fileno(), max(last - first, 0), first)


def _discard(path: Path) -> None:
    """Remove a file or a folder, whatever happens to it meanwhile."""
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_tree(root: Path) -> None:
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            _sync(Path(folder, name))
        _sync(Path(folder))


def _sync_folders(folder: Path, root: Path) -> None:
    """Sync a folder and those above it, up to the store's root: their new names must survive a power cut."""
    for path in (folder, *folder.parents):
        _sync(path)
        if path == root:
            return
