"""A group as zarr sees it: zarr's store interface over our objects.

So folders and buckets are read and written by the same code, and a chunk that is lost is an error: zarr alone would
take it for zeros.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import zarr.abc.store
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from binworks.service.objects import ROOT, Draft, Objects
from binworks.tensors.errors import RequestError, TransientError


class GroupReader(zarr.abc.store.Store):
    """A stored group as zarr asks for it; the work is done in threads.

    Parameters
    ----------
    objects : Objects
        Where it lies.
    prefix : str
        Its key.
    """

    supports_writes = False
    supports_partial_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, objects: Objects, prefix: str) -> None:
        super().__init__(read_only=True)
        self._objects, self._prefix = objects, prefix

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def _read(self, key: str, start: int | None, stop: int | None) -> bytes | None:
        """Return stored bytes; all chunks were written, so one that is not there is no zeros."""
        try:
            return self._objects.read(f"{self._prefix}/{key}", start, stop)
        except RequestError as error:
            if error.code == "no-such-key" and key.rpartition("/")[2] != ROOT:
                raise TransientError(
                    "A part of what was stored is missing.", code="damaged", where=self._prefix
                ) from None
            return None

    def _names(self, prefix: str) -> list[str]:
        return self._objects.names(f"{self._prefix}/{prefix}".rstrip("/"))

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return an object or a range of it; None for a document that is not there."""
        data = await asyncio.to_thread(self._read, key, *_span(byte_range))
        return None if data is None else prototype.buffer.from_bytes(data)

    async def get_partial_values(self, prototype: BufferPrototype, key_ranges: Any) -> list[Buffer | None]:
        """Return several ranges."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        """Whether the object is there."""
        return await asyncio.to_thread(self._read, key, None, None) is not None

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse: what is stored does not change."""
        raise NotImplementedError

    async def set_partial_values(self, key_start_values: Any) -> None:
        """Refuse: what is stored does not change."""
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        """Refuse: what is stored does not change."""
        raise NotImplementedError

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Give the names directly below a path."""
        for name in await asyncio.to_thread(self._names, prefix):
            yield name

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Refuse: nobody asks."""
        raise NotImplementedError

    def list(self) -> AsyncIterator[str]:
        """Refuse: nobody asks."""
        raise NotImplementedError


class GroupWriter(GroupReader):
    """A group that is being written: chunks go to the draft at once, documents at the end and the root last.

    Parameters
    ----------
    draft : Draft
        Where it is written.
    """

    supports_writes = True

    def __init__(self, draft: Draft) -> None:
        zarr.abc.store.Store.__init__(self, read_only=False)
        self._draft = draft
        self._documents: dict[str, bytes] = {}
        self._sizes: dict[str, int] = {}

    @property
    def below(self) -> dict[str, Any]:
        """The documents below the root, by the path of what they describe."""
        return {
            key.removesuffix(f"/{ROOT}"): json.loads(text)
            for key, text in sorted(self._documents.items())
            if key != ROOT
        }

    def finish(self) -> tuple[dict[str, Any], int]:
        """Put the documents; return the root, which is not put, and the bytes of all that was."""
        below = {key: text for key, text in self._documents.items() if key != ROOT}
        stored = sum(self._sizes.values()) + self._draft.put_all(below)
        root: dict[str, Any] = json.loads(self._documents[ROOT])
        return root, stored

    def _read(self, key: str, start: int | None, stop: int | None) -> bytes | None:
        if key in self._documents:
            return self._documents[key][start:stop]
        return self._draft.get(key, start, stop) if key in self._sizes else None

    def _names(self, prefix: str) -> list[str]:
        below = f"{prefix.rstrip('/')}/".lstrip("/")
        return sorted(
            {key.removeprefix(below).split("/")[0] for key in self._documents if key.startswith(below)}
        )

    async def set(self, key: str, value: Buffer) -> None:
        """Put a chunk into the draft; keep a document for later."""
        data = value.to_bytes()
        if key.rpartition("/")[2] == ROOT:
            self._documents[key] = data
        else:
            self._sizes[key] = await asyncio.to_thread(self._draft.put, key, data)


def _span(asked: ByteRequest | None) -> tuple[int | None, int | None]:
    """Return a byte range as a slice has it."""
    match asked:
        case RangeByteRequest(start, end):
            return start, end
        case OffsetByteRequest(offset):
            return offset, None
        case SuffixByteRequest(suffix):
            return -suffix, None
        case _:
            return None, None


def consolidated(document: dict[str, Any], below: Mapping[str, Any]) -> bytes:
    """Return a group's root document with those of all below it."""
    inline = {"kind": "inline", "must_understand": False, "metadata": dict(below)}
    return json.dumps({**document, "consolidated_metadata": inline}, allow_nan=False).encode()
