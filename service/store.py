"""Where partials, snapshots and manifests are kept: documents, and sums as zarr groups.

Keys are slash-separated names below the store's root. What is stored is never changed: a group appears whole under its
key, a document is created exclusively. So a reader sees all of it or nothing. How a folder and a bucket do that
is told in `binworks.service.folders` and `binworks.service.buckets`; here it makes no difference.

The sums of a histogram lie in one object an array (a shard), cut into inner chunks of a few columns, all cells
each: what one nuisance needs is read without the rest. The root document of a group describes all arrays below it, so
that it is read without listing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from binworks.service.folders import Folder
from binworks.service.groups import GroupReader, GroupWriter, consolidated
from binworks.service.objects import ROOT, Objects, Opened, absent, is_name
from binworks.tensors.accumulator import Accumulator
from binworks.tensors.errors import BinworksError, RequestError, TransientError
from binworks.tensors.histogram import Histogram, axes_of
from binworks.tensors.select import Select, crop, cut_axes, slices

AT_ONCE = 4
"""Arrays that are read or written at the same time: a bucket takes its time to answer."""
INNER_BYTES = 600_000
SHARD_BYTES = 64_000_000
WHOLE_BYTES = 256_000_000
"""Larger sums, of which a part is wanted, are not read whole; their digest is then not looked at."""

_Pair = tuple[Any, NDArray[Any]]


class Store:
    """Documents and groups of arrays, in a local folder or in a bucket; see `Store.open`.

    The keys of a job (`binworks.service.layout` builds them)::

        jobs/<id>/job.json  jobs/<id>/plan.json  jobs/<id>/expansions/<group>/
        jobs/<id>/g/<n>/<dataset>/<histogram>/{values,variances}    jobs/<id>/m/<n>.json
        partials/<sha256>/<histogram>/{values,variances}

    All methods raise `TransientError` with the code ``store-read-failed`` or ``store-write-failed`` if the disk or the
    bucket fails, and `RequestError` with the code ``bad-key`` for what cannot be a key.

    Parameters
    ----------
    objects : Objects
        Where the bytes lie.
    """

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    @classmethod
    def open(cls, url: str, *, make: bool = True) -> Store:
        """Return the store at an ``s3://`` or ``file://`` address, or a plain path.

        Parameters
        ----------
        url : str
        make : bool
            Make a folder if it is not there.

        Raises
        ------
        RequestError
            If the address has another scheme or cannot be used, or the folder cannot be made; ``missing-extra`` if
            the library for buckets is not installed.
        TransientError
            Code ``store-not-seen`` if a folder is not there and shall not be made.
        """
        parts = urlsplit(url)
        if parts.scheme == "s3":
            return cls(_bucket(url))
        if parts.scheme not in ("", "file"):
            raise RequestError(
                f"There is no store for {parts.scheme}:// addresses.",
                code="unknown-store",
                where=f"{parts.scheme}://",
                hint="Known are folders, file:// and s3://.",
            )
        return cls(Folder(Path(unquote(parts.path) if parts.scheme else url), make=make))

    # documents and bytes

    @property
    def root(self) -> Path:
        """The folder of a store that is one.

        Raises
        ------
        RequestError
            Code ``no-folder``.
        """
        return self._folder().root

    def key_path(self, key: str) -> Path:
        """Return the file of a key, whether or not it is there, in a store that is a folder.

        Raises
        ------
        RequestError
            Code ``no-folder``, or ``bad-key`` if the key is empty, absolute, or has empty, ``.``, ``..`` or hidden
            parts.
        """
        return self._folder().path(key)

    def _folder(self) -> Folder:
        if isinstance(self.objects, Folder):
            return self.objects
        raise RequestError("This store is no folder: nothing in it has a path.", code="no-folder")

    def exists(self, key: str) -> bool:
        """Whether the document or group is there."""
        candidates = (key, f"{key}/{ROOT}") if key.endswith(".json") else (f"{key}/{ROOT}", key)
        return any(self.objects.found(candidate) for candidate in candidates)

    def read_bytes(self, key: str, start: int | None = None, stop: int | None = None) -> bytes:
        """Return the bytes of a stored object, or those from ``start`` to before ``stop``; fewer at its end.

        Raises
        ------
        RequestError
            Code ``no-such-key``.
        """
        return self.objects.read(key, start, stop)

    def opened(self, key: str, within: str) -> AbstractContextManager[Opened]:
        """Open a stored object to read it in pieces; it must lie below the key ``within``.

        Raises
        ------
        RequestError
            Code ``no-such-key``.
        """
        return self.objects.opened(key, within)

    def size(self, key: str) -> int:
        """Return the number of bytes of a stored object.

        Raises
        ------
        RequestError
            Code ``no-such-key``.
        """
        found = self.objects.found(key)
        if found is None:
            raise absent(key)
        return found.size

    def read_json(self, key: str) -> Any:
        """Return a stored document.

        Raises
        ------
        RequestError
            Code ``no-such-key``.
        TransientError
            Code ``damaged`` if it is no JSON.
        """
        text = self.objects.read(key)
        with named_damage(key):
            return json.loads(text)

    def create_json(self, key: str, document: Any) -> bool:
        """Store a document unless the key is taken; return whether it was free.

        Of several writers one hears True, though a reply gets lost. After an error the document may be there.
        """
        text = json.dumps(document, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"
        return self.objects.create(key, text)

    def scratch(self, name: str) -> Path:
        """Return a path for a large file that is to be put here, on the same file system if that can be."""
        return self.objects.scratch(name)

    def put_file(self, key: str, path: Path) -> None:
        """Put a file, which may be moved, under a key that nobody else writes; it is never held in memory.

        Readers see it whole or not at all.
        """
        self.objects.put_file(key, path)

    def cache(self, prefix: str) -> Cache:
        """Return a place below a key for bytes that can be made again."""
        return Cache(self.objects, prefix)

    # housekeeping

    def children(self, prefix: str) -> list[str]:
        """Return the names directly below a key, sorted; none if nothing is there.

        In a bucket there may be names of groups that are being written or removed, and do not exist.
        """
        return sorted(filter(is_name, self.objects.names(prefix)))

    def nbytes(self, prefix: str) -> int:
        """Return the bytes of all that is stored below a key, itself included; 0 if nothing is there."""
        total = sum(size for _, size in self.objects.walk(prefix))
        if total:
            return total
        found = self.objects.found(prefix)
        return found.size if found else 0

    def modified(self, prefix: str) -> float | None:
        """Return when a group or document was written, in seconds since 1970; None if it is not there."""
        found = self.objects.found(f"{prefix}/{ROOT}") or self.objects.found(prefix)
        return found.modified if found else None

    def remove(self, key: str) -> None:
        """Remove a group or document, or all below a key, if it is there; readers see no part of a group."""
        self.objects.remove(key)

    def put_aside(self, key: str) -> None:
        """Move a damaged group out of the way; someone may want to look at it, for a day."""
        self.objects.put_aside(key)

    def remove_stale_drafts(self) -> None:
        """Remove what crashed writers left behind long ago."""
        self.objects.tidy()

    def probe(self) -> None:
        """See whether the store can be written.

        Raises
        ------
        BinworksError
            If not; code ``bad-store`` if it is a bucket that does not do what it must.
        """
        self.objects.probe()

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
            JSON-able facts; ``counts``, ``examples``, ``digest`` and ``stored`` (the bytes of all objects but the
            root) are added.
        """
        digests = _digests(accumulator)
        digest = _digest_of_all(digests, accumulator.counts)
        counts = dict(sorted(accumulator.counts.items()))
        facts = {**(attributes or {}), "counts": counts, "examples": accumulator.examples, "digest": digest}

        def describe(group: zarr.Group) -> Iterator[_Pair]:
            for name, histogram in accumulator.histograms.items():
                described = {"uhi": histogram.uhi(), "digest": digests[name]}
                inner = group.create_group(name, attributes=described)
                yield _new_array(inner, "values", histogram.values)
                if histogram.variances is not None:
                    yield _new_array(inner, "variances", histogram.variances)

        self._write_group(prefix, facts, describe, lambda group: digest_of(_read_accumulator(group)[0]))
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
        with named_damage(prefix):
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
            Code ``damaged`` if the bytes are not those that were written.
        """
        key = f"{prefix}/{name}"
        group = self.group(key)
        with named_damage(key):
            histogram = _read_histogram(group)
        _refuse_damaged(_digest_of_histogram(histogram), str(group.attrs["digest"]), key)
        return histogram

    def axes(self, prefix: str, name: str) -> tuple[Any, ...]:
        """Return the axes of one histogram of an accumulator.

        Raises
        ------
        RequestError
            Code ``no-such-key``.
        TransientError
            Code ``damaged``.
        """
        key = f"{prefix}/{name}"
        group = self.group(key)
        with named_damage(key):
            return axes_of(_described(group))

    def read_part(self, prefix: str, name: str, select: Select) -> Histogram:
        """Return a part of one histogram of an accumulator.

        It is checked against the stored digest like `read_histogram`, unless it is so large that only the part is kept
        in memory.

        Raises
        ------
        RequestError
            Code ``no-such-key``, ``unknown-axis`` or ``unknown-bin``.
        TransientError
            Code ``damaged``.
        """
        key = f"{prefix}/{name}"
        group = self.group(key)
        with named_damage(key):
            described = _described(group)
            arrays: dict[str, Any] = {
                kind: group[kind] for kind in ("values", "variances") if kind in described["storage"]
            }
            if sum(array.nbytes for array in arrays.values()) <= WHOLE_BYTES:
                return crop(self.read_histogram(prefix, name), select)
            axes = axes_of(described)
            place = slices(axes, select)
            sums = {kind: np.asarray(array[place]) for kind, array in arrays.items()}
            metadata = dict(described.get("metadata") or {})
            return Histogram(cut_axes(axes, select), sums["values"], sums.get("variances"), metadata)

    def group(self, prefix: str) -> zarr.Group:
        """Open a stored group for reading; its arrays are read piece by piece, as they are sliced.

        Raises
        ------
        RequestError
            Code ``no-such-key``.
        TransientError
            Code ``damaged``; also when it is sliced, if a chunk is missing.
        """
        with named_damage(prefix):
            try:
                return zarr.open_group(GroupReader(self.objects, prefix), mode="r", zarr_format=3)
            except FileNotFoundError:
                raise absent(prefix) from None

    # plain arrays

    def write_arrays(
        self, prefix: str, arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]
    ) -> None:
        """Store named arrays as a group; an existing group is left as it is."""

        def describe(group: zarr.Group) -> Iterator[_Pair]:
            return (_new_array(group, name, array) for name, array in arrays.items())

        facts = {**attributes, "digest": _digest_of_arrays(arrays)}
        self._write_group(prefix, facts, describe, lambda group: _digest_of_arrays(_read_arrays(group)))

    def read_arrays(self, prefix: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the facts and the named arrays of a group, checked as those of `read_histogram`."""
        group = self.group(prefix)
        with named_damage(prefix):
            arrays = _read_arrays(group)
        facts: dict[str, Any] = dict(group.attrs)
        facts.pop("stored", None)
        _refuse_damaged(_digest_of_arrays(arrays), facts.pop("digest"), prefix)
        return facts, arrays

    # publishing

    def seal(self, prefix: str, attributes: Mapping[str, Any]) -> None:
        """Make the groups below a key one group, with consolidated metadata for readers that cannot list.

        Raises
        ------
        RequestError
            Code ``no-such-key`` if there are no groups: they were removed meanwhile.
        """
        below: dict[str, Any] = {}
        for name in self.children(prefix):
            document = self.read_json(f"{prefix}/{name}/{ROOT}")
            inner = document.pop("consolidated_metadata")["metadata"]
            below |= {name: document, **{f"{name}/{path}": found for path, found in inner.items()}}
        if not below:
            raise absent(prefix)
        document = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
        self.objects.create(f"{prefix}/{ROOT}", consolidated(document, below))

    def _write_group(
        self,
        prefix: str,
        attributes: dict[str, Any],
        describe: Callable[[zarr.Group], Iterator[_Pair]],
        digest: Callable[[zarr.Group], str],
    ) -> None:
        """Let a group appear whose arrays a function describes, unless the key is taken.

        Objects of another attempt at it are taken for ours only if all is read again and has our digest.
        """
        if self.objects.found(f"{prefix}/{ROOT}"):
            return
        with self.objects.draft(prefix) as draft:
            writer = GroupWriter(draft)
            group = zarr.create_group(writer, attributes=attributes)
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(_write, list(describe(group))))
            root, stored = writer.finish()
            if draft.adopted and not _has(attributes["digest"], group, digest):
                draft.clear()
                raise TransientError(
                    "Another attempt left other bytes here; they were removed.",
                    code="store-write-failed",
                    where=prefix,
                )
            root["attributes"]["stored"] = stored
            draft.commit(consolidated(root, writer.below))


class Cache:
    """Bytes by name that can be made again: what cannot be read is absent, and what cannot be written is lost.

    Parameters
    ----------
    objects : Objects
        Where they lie.
    prefix : str
        Key above all of them.
    """

    def __init__(self, objects: Objects, prefix: str) -> None:
        self._objects, self._prefix = objects, prefix

    def get(self, name: str) -> bytes | None:
        """Return what was put under a name; None if there is nothing."""
        with suppress(BinworksError):
            return self._objects.read(f"{self._prefix}/{name}")
        return None

    def put(self, name: str, data: bytes) -> None:
        """Put bytes under a name, in the place of others."""
        with suppress(BinworksError):
            self._objects.replace(f"{self._prefix}/{name}", data)


def _has(expected: str, group: zarr.Group, digest: Callable[[zarr.Group], str]) -> bool:
    """Whether what was written can be read, and has the digest that it should have."""
    try:
        with named_damage(""):
            return digest(group) == expected
    except TransientError as error:
        if error.code == "damaged":
            return False
        raise


def _bucket(url: str) -> Objects:
    try:
        from binworks.service.buckets import Bucket
    except ModuleNotFoundError as error:
        if error.name != "obstore":
            raise
        raise RequestError(
            "A store in a bucket needs the package obstore.",
            code="missing-extra",
            hint="pip install 'binworks[s3]', for the service and for all workers.",
        ) from None
    return Bucket(url)


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
def named_damage(where: str) -> Iterator[None]:
    """Call whatever damaged bytes make zarr raise by its name.

    Parameters
    ----------
    where : str
        Key of what is read.

    Raises
    ------
    TransientError
        Code ``damaged``.
    """
    try:
        yield
    except (BinworksError, MemoryError):
        raise
    except Exception as error:
        raise TransientError(
            f"What is stored cannot be read: {error!r}.", code="damaged", where=where
        ) from error


def _refuse_damaged(found: str, expected: str, where: str) -> None:
    if found != expected:
        message = f"What is stored has the digest {found}, expected {expected}."
        raise TransientError(message, code="damaged", where=where)


def _new_array(group: zarr.Group, name: str, array: NDArray[Any]) -> _Pair:
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
    return created, array


def _write(pair: _Pair) -> None:
    created, array = pair
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
    inner = dict(sorted(group.groups()))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        histograms = dict(zip(inner, pool.map(_read_histogram, inner.values()), strict=True))
    counts = {name: int(count) for name, count in facts["counts"].items()}
    examples = {kind: list(events) for kind, events in facts["examples"].items()}
    return Accumulator(histograms, counts, examples), facts["digest"]


def _read_arrays(group: zarr.Group) -> dict[str, NDArray[Any]]:
    return {name: np.asarray(array[...]) for name, array in group.arrays()}


def _described(group: zarr.Group) -> Mapping[str, Any]:
    found: Any = group.attrs["uhi"]
    return dict(found)


def _read_histogram(group: Any) -> Histogram:
    described = group.attrs["uhi"]
    variances = np.asarray(group["variances"][...]) if "variances" in described["storage"] else None
    return Histogram.from_uhi(described, np.asarray(group["values"][...]), variances)
