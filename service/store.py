"""Where partials, snapshots and manifests are kept; the one file that reads and writes zarr.

Keys are slash-separated names below the store's root. What is stored is never changed: a group is written aside, synced
and renamed; a manifest is created exclusively.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zarr

from binworks.tensors.accumulator import Accumulator
from binworks.tensors.histogram import Histogram


class Store:
    """A store in a local folder.

    The keys of a job (`binworks.service.layout` builds them)::

        jobs/<id>/job.json  jobs/<id>/plan.json  jobs/<id>/expansions/<group>/
        jobs/<id>/g/<n>/<dataset>/<histogram>/{values,variances}    jobs/<id>/m/<n>.json
        partials/<sha256>/<histogram>/{values,variances}
    """

    @classmethod
    def open(cls, url: str) -> Store:
        """Return the store at a ``file://`` address (or a plain path); the folder is made.

        Raises
        ------
        RequestError
            If the address has another scheme, or the folder cannot be written.
        """

    def key_path(self, key: str) -> Path:
        """Return the file of a key, whether or not it is there, for serving it.

        Raises
        ------
        RequestError
            Code ``bad-key`` if the key is empty, absolute, or has empty, ``.``, ``..`` or hidden parts.
        """

    def exists(self, key: str) -> bool:
        """Whether the key or group is there."""

    def read_json(self, key: str) -> Any:
        """Return a stored document.

        Raises
        ------
        RequestError
            Code ``no-such-key``.
        """

    def create_json(self, key: str, document: Any) -> bool:
        """Store a document unless the key is taken; return whether it was free."""

    def group(self, prefix: str) -> zarr.Group:
        """Open a stored group for reading, with its consolidated metadata."""

    def histogram_names(self, prefix: str) -> list[str]:
        """Return the names of the histograms of an accumulator, for example of ``jobs/<id>/g/<n>/<dataset>``."""

    def read_histogram(self, prefix: str, name: str, selection: tuple[Any, ...] | None = None) -> Histogram:
        """Return one histogram; with a numpy-like ``selection`` (on arrays with flow) only the chunks it needs are read."""

    def write_accumulator(self, prefix: str, accumulator: Accumulator, attributes: dict[str, Any] | None = None) -> str:
        """Store the sums as a group and return the digest of their bytes; an existing group is left as it is."""

    def read_accumulator(self, prefix: str, digest: str | None = None) -> Accumulator:
        """Return the sums of a group, checked against their digest."""
