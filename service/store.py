"""Where partials, snapshots and manifests are kept; the one file that reads and writes zarr.

Keys are slash-separated names below the store's root. What is stored is never changed: a group is written
aside, synced and renamed; a document is created exclusively. So a reader sees all of it or nothing, and a
crash leaves rubbish in ``tmp/`` only.

The sums of a histogram lie in one file an array (a shard), cut into inner chunks of a few columns, all cells
each: what one nuisance needs is read without the rest.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from binworks.tensors.accumulator import Accumulator
from binworks.tensors.errors import RequestError, TransientError
from binworks.tensors.histogram import Histogram

INNER_BYTES = 600_000
SHARD_BYTES = 64_000_000
STALE_SECONDS = 86_400.0
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


class Store:
    """A store in a local folder.

    The keys of a job (`binworks.service.layout` builds them)::

        jobs/<id>/job.json  jobs/<id>/plan.json  jobs/<id>/expansions/<group>/
        jobs/<id>/g/<n>/<dataset>/<histogram>/{values,variances}    jobs/<id>/m/<n>.json
        partials/<sha256>/<histogram>/{values,variances}

    Parameters
    ----------
    root : Path
        An existing folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def open(cls, url: str) -> Store:
        """Return the store at a ``file://`` address (or a plain path); the folder is made.

        Raises
        ------
        RequestError
            If the address has another scheme, or the folder cannot be made.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("", "file"):
            raise RequestError(
                f"There is no store for {parts.scheme}:// addresses.", code="unknown-store", where=url
            )
        root = Path(unquote(parts.path) if parts.scheme else url)
        try:
            (root / "tmp").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(
                f"The store's folder cannot be made: {error.strerror}.", code="bad-store", where=str(root)
            ) from None
        return cls(root)

    # documents and bytes

    def key_path(self, key: str) -> Path:
        """Return the file of a key, whether or not it is there, for serving it.

        Raises
        ------
        RequestError
            Code ``bad-key`` if the key is empty, absolute, or has empty, ``.``, ``..`` or hidden parts.
        """
        parts = key.split("/")
        if not all(_PART.fullmatch(part) for part in parts):
            raise RequestError("This is not the key of anything stored.", code="bad-key", where=key)
        return self.root.joinpath(*parts)

    def exists(self, key: str) -> bool:
        """Whether the document or group is there."""
        return self.key_path(key).exists()

    def read_json(self, key: str) -> Any:
        """Return a stored document.

        Raises
        ------
        RequestError
            Code ``no-such-key``.
        """
        try:
            return json.loads(self.key_path(key).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise RequestError("Nothing is stored under this key.", code="no-such-key", where=key) from None

    def create_json(self, key: str, document: Any) -> bool:
        """Store a document unless the key is taken; return whether it was free.

        Raises
        ------
        TransientError
            If the disk does not take it.
        """
        target = self.key_path(key)
        text = json.dumps(document, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"
        with self._aside(key) as draft:
            draft.write_bytes(text)
            _sync(draft)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(draft, target)  # unlike a rename, a link never replaces
            except FileExistsError:
                return False
            _sync_folders(target.parent, self.root)
        return True

    def read_bytes(self, key: str, start: int | None = None, stop: int | None = None) -> bytes:
        """Return the bytes of a stored file, or those from ``start`` to before ``stop``; fewer at its end.

        Raises
        ------
        RequestError
            Code ``no-such-key``.
        """
        with self._opened(key) as file:
            begin = start or 0
            end = os.fstat(file.fileno()).st_size if stop is None else stop
            return os.pread(file.fileno(), max(end - begin, 0), begin)

    def size(self, key: str) -> int:
        """Return the number of bytes of a stored file.

        Raises
        ------
        RequestError
            Code ``no-such-key``.
        """
        with self._opened(key) as file:
            return os.fstat(file.fileno()).st_size

    def children(self, prefix: str) -> list[str]:
        """Return the names directly below a key, sorted; none if nothing is there."""
        try:
            names = [path.name for path in self.key_path(prefix).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if _PART.fullmatch(name))

    def nbytes(self, prefix: str) -> int:
        """Return the bytes of all that is stored below a key, itself included; 0 if nothing is there."""
        path, total = self.key_path(prefix), 0
        with suppress(FileNotFoundError):
            if path.is_file():
                return path.stat().st_size
        for folder, _, names in os.walk(path):
            for name in names:
                with suppress(FileNotFoundError):  # removed meanwhile
                    total += Path(folder, name).stat().st_size
        return total

    def modified(self, prefix: str) -> float | None:
        """Return when a group or document was written, in seconds since 1970; None if it is not there."""
        path = self.key_path(prefix)
        for document in (path / "zarr.json", path):
            with suppress(FileNotFoundError, NotADirectoryError):
                found = document.stat()
                return found.st_mtime if stat.S_ISREG(found.st_mode) else None
        return None

    def remove(self, key: str) -> None:
        """Remove a group or document, if it is there; readers see it whole until they see it no more."""
        target = self.root / "tmp" / f"removed-{uuid.uuid4().hex}"
        with suppress(FileNotFoundError, NotADirectoryError):
            self.key_path(key).rename(target)
            _discard(target)

    def put_aside(self, key: str) -> None:
        """Move a damaged group out of the way; someone may want to look at it, for a day."""
        target = self.root / "tmp" / f"damaged-{uuid.uuid4().hex}"
        with suppress(FileNotFoundError):  # a twin was faster
            self.key_path(key).rename(target)
            os.utime(target)  # the day begins now

    def remove_stale_drafts(self) -> None:
        """Remove what crashed writers left behind long ago."""
        for draft in (self.root / "tmp").iterdir():
            with suppress(FileNotFoundError, IsADirectoryError):  # its writer lives after all
                if time.time() - draft.stat().st_mtime > STALE_SECONDS:
                    _discard(draft)

    # accumulators

    def write_accumulator(
        self, prefix: str, accumulator: Accumulator, attributes: Mapping[str, Any] | None = None
    ) -> str:
        """Store the sums as a group and return the digest of their bytes; an existing group is left as it is.

        Parameters
        ----------
        prefix : str
            Key of the group.
        accumulator : Accumulator
            Each histogram becomes a group with the arrays ``values`` and, where kept, ``variances``.
        attributes : mapping, optional
            JSON-able facts; ``counts``, ``examples`` and ``digest`` are added.

        Raises
        ------
        TransientError
            If the disk does not take it; nothing is left behind.
        """
        digests = _digests(accumulator)
        digest = _digest_of_all(digests, accumulator.counts)
        counts = dict(sorted(accumulator.counts.items()))
        facts = {**(attributes or {}), "counts": counts, "examples": accumulator.examples, "digest": digest}
        with self._new_group(prefix, facts) as group:
            for name, histogram in accumulator.histograms.items():
                described = {"uhi": histogram.uhi(), "digest": digests[name]}
                inner = group.create_group(name, attributes=described)
                _write_array(inner, "values", histogram.values)
                if histogram.variances is not None:
                    _write_array(inner, "variances", histogram.variances)
        return digest

    def read_accumulator(self, prefix: str, digest: str | None = None) -> Accumulator:
        """Return the sums of a group, checked against the digest stored with them (and the one given).

        Raises
        ------
        RequestError
            Code ``no-such-key``.
        TransientError
            Code ``damaged`` if the bytes are not those that were written.
        """
        group = self.group(prefix)
        with _damage(prefix):
            accumulator, written = _read_accumulator(group)
        _refuse_damaged(digest_of(accumulator), written if digest is None else digest, prefix)
        return accumulator

    def attributes(self, prefix: str) -> dict[str, Any]:
        """Return the facts stored with a group."""
        return dict(self.group(prefix).attrs)

    def histogram_names(self, prefix: str) -> list[str]:
        """Return the names of the histograms of an accumulator."""
        return sorted(name for name, _ in self.group(prefix).groups())

    def read_histogram(self, prefix: str, name: str) -> Histogram:
        """Return one histogram of an accumulator, checked against the digest stored with it.

        Raises
        ------
        RequestError
            Code ``no-such-key``.
        TransientError
            Code ``damaged`` if the bytes are not those that were written: a lost chunk may read as zeros.
        """
        key = f"{prefix}/{name}"
        group = self.group(key)
        with _damage(key):
            histogram = _read_histogram(group)
        _refuse_damaged(_digest_of_histogram(histogram), str(group.attrs["digest"]), key)
        return histogram

    def group(self, prefix: str) -> zarr.Group:
        """Open a stored group for reading; its arrays are read piece by piece, as they are sliced.

        Raises
        ------
        RequestError
            Code ``no-such-key``.
        """
        path = self.key_path(prefix)
        if not (path / "zarr.json").is_file():
            raise RequestError("Nothing is stored under this key.", code="no-such-key", where=prefix)
        return zarr.open_group(path, mode="r")

    # plain arrays

    def write_arrays(
        self, prefix: str, arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]
    ) -> None:
        """Store named arrays as a group; an existing group is left as it is."""
        with self._new_group(prefix, {**attributes, "digest": _digest_of_arrays(arrays)}) as group:
            for name, array in arrays.items():
                _write_array(group, name, array)

    def read_arrays(self, prefix: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the facts and the named arrays of a group, checked as those of `read_histogram`."""
        group = self.group(prefix)
        with _damage(prefix):
            arrays = {name: np.asarray(array[...]) for name, array in group.arrays()}
        facts: dict[str, Any] = dict(group.attrs)
        _refuse_damaged(_digest_of_arrays(arrays), facts.pop("digest"), prefix)
        return facts, arrays

    # publishing

    def seal(self, prefix: str, attributes: Mapping[str, Any]) -> None:
        """Make the groups below a key one group, with consolidated metadata for readers that cannot list."""
        root = self.key_path(prefix)
        document = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
        below = {
            path.parent.relative_to(root).as_posix(): json.loads(path.read_bytes())
            for path in sorted(root.rglob("zarr.json"))
            if path.parent != root
        }
        document["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": below}
        with self._aside(prefix) as draft:
            draft.write_text(json.dumps(document, allow_nan=False))
            _sync(draft)
            draft.replace(root / "zarr.json")
        _sync_folders(root, self.root)

    @contextmanager
    def _opened(self, key: str) -> Iterator[BinaryIO]:
        try:
            file = self.key_path(key).open("rb", buffering=0)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise RequestError("Nothing is stored under this key.", code="no-such-key", where=key) from None
        with file:
            yield file

    @contextmanager
    def _new_group(self, prefix: str, attributes: Mapping[str, Any]) -> Iterator[zarr.Group]:
        """Give a group to fill; at the end it appears under its key, synced, unless the key is taken."""
        target = self.key_path(prefix)
        with self._aside(prefix) as draft:
            yield zarr.create_group(draft, attributes=dict(attributes))
            _sync_tree(draft)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                draft.rename(target)
            except OSError:
                if not (target / "zarr.json").is_file():
                    raise
            _sync_folders(target.parent, self.root)

    @contextmanager
    def _aside(self, key: str) -> Iterator[Path]:
        """Give a path in ``tmp/`` that is gone at the end, whatever happens."""
        draft = self.root / "tmp" / uuid.uuid4().hex
        try:
            yield draft
        except OSError as error:
            raise TransientError(
                f"The store does not take it: {error.strerror or error}.",
                code="store-write-failed",
                where=key,
            ) from error
        finally:
            _discard(draft)


def digest_of(accumulator: Accumulator) -> str:
    """Return the sha256 over names, axes, bytes of the sums, and counts."""
    return _digest_of_all(_digests(accumulator), accumulator.counts)


def _digests(accumulator: Accumulator) -> dict[str, str]:
    return {name: _digest_of_histogram(histogram) for name, histogram in accumulator.histograms.items()}


def _digest_of_all(digests: Mapping[str, str], counts: Mapping[str, int]) -> str:
    return hashlib.sha256(json.dumps([digests, counts], sort_keys=True).encode()).hexdigest()


def _digest_of_histogram(histogram: Histogram) -> str:
    arrays = {"values": histogram.values}
    if histogram.variances is not None:
        arrays["variances"] = histogram.variances
    axes = json.dumps(histogram.uhi(), sort_keys=True)
    return hashlib.sha256(f"{axes} {_digest_of_arrays(arrays)}".encode()).hexdigest()


def _digest_of_arrays(arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{name} {little.dtype.str} {little.shape}".encode())
        digest.update(little.data)
    return digest.hexdigest()


@contextmanager
def _damage(where: str) -> Iterator[None]:
    """Call whatever damaged bytes make zarr raise by its name."""
    try:
        yield
    except Exception as error:
        raise TransientError(
            f"What is stored cannot be read: {error!r}.", code="damaged", where=where
        ) from error


def _refuse_damaged(found: str, expected: str, where: str) -> None:
    if found != expected:
        message = f"What is stored has the digest {found}, expected {expected}."
        raise TransientError(message, code="damaged", where=where)


def _write_array(group: zarr.Group, name: str, array: NDArray[Any]) -> None:
    inner, shard = _tiles(array)
    created = group.create_array(
        name,
        shape=array.shape,
        dtype=array.dtype,
        chunks=inner,
        shards=shard,
        compressors=BloscCodec(cname="lz4", clevel=1, shuffle="shuffle"),
        chunk_key_encoding={"name": "default", "separator": "."},  # one folder an array: each must be synced
        config={
            "write_empty_chunks": True
        },  # an absent chunk reads as zeros; so none is ever absent on purpose
    )
    if array.size:
        created[...] = array


def _tiles(array: NDArray[Any]) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Return the shapes of the inner chunks and of the shards; only the last axis is cut."""
    shape = tuple(max(1, n) for n in array.shape)
    column = max(1, math.prod(shape[:-1]) * array.dtype.itemsize) if shape else 1
    if not shape or array.nbytes <= 2 * INNER_BYTES:
        return shape, None
    width = min(shape[-1], max(1, INNER_BYTES // column))
    many = min(math.ceil(shape[-1] / width), max(1, SHARD_BYTES // (width * column)))
    return (*shape[:-1], width), (*shape[:-1], width * many)


def _read_accumulator(group: zarr.Group) -> tuple[Accumulator, str]:
    """Return the sums of a group and the digest that they had."""
    facts: dict[str, Any] = dict(group.attrs)
    histograms = {name: _read_histogram(inner) for name, inner in sorted(group.groups())}
    counts = {name: int(count) for name, count in facts["counts"].items()}
    examples = {kind: list(events) for kind, events in facts["examples"].items()}
    return Accumulator(histograms, counts, examples), facts["digest"]


def _read_histogram(group: Any) -> Histogram:
    described = group.attrs["uhi"]
    variances = np.asarray(group["variances"][...]) if "variances" in described["storage"] else None
    return Histogram.from_uhi(described, np.asarray(group["values"][...]), variances)


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
