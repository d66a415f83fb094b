"""One pinned snapshot of a job: what it covers, its histograms, and their named variations."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Path, Query

from binworks.api.auth import User
from binworks.api.context import Context
from binworks.api.parts import Sums
from binworks.api.problems import NotFoundError
from binworks.service import layout
from binworks.service.model import GenerationView
from binworks.tensors.errors import RequestError, TransientError, unknown_name
from binworks.tensors.expansion import Expansion
from binworks.tensors.histogram import Histogram
from binworks.tensors.select import Select, crop

T = TypeVar("T")

NOMINAL = "nominal"
Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}$")]
Generation = Annotated[int | None, Query(ge=1, lt=2**31, description="Which snapshot; default: the latest.")]


@dataclass(frozen=True)
class Snapshot:
    """A published generation of a job.

    Parameters
    ----------
    context : Context
        Where it is read from.
    job : str
        Id of the job.
    view : GenerationView
        What it covers.
    """

    context: Context
    job: str
    view: GenerationView

    @property
    def n(self) -> int:
        """Number of the generation."""
        return self.view.n

    def facts(self) -> Mapping[str, Any]:
        """Return what the snapshot says of itself: what it covers, lacks, and how it is normalised."""
        facts: Mapping[str, Any] = self._document()["attributes"]
        return facts

    def dataset(self, name: str) -> Mapping[str, Any]:
        """Return what a data set of the snapshot says of itself: kind, cross section, counts.

        Raises
        ------
        NotFoundError
            If there is none of this name.
        """
        self._prefix(name)
        facts: Mapping[str, Any] = self._below()[name]["attributes"]
        return facts

    def histogram_names(self, dataset: str) -> list[str]:
        """Return the names of the histograms of a data set.

        Raises
        ------
        NotFoundError
            If there is no such data set.
        """
        self._prefix(dataset)
        below = [path.split("/") for path in self._below()]
        return sorted(path[1] for path in below if len(path) == 2 and path[0] == dataset)

    def groups(self) -> list[str]:
        """Return the variation groups of the job."""
        store = self.context.store

        def there() -> list[str]:
            names = self.facts()["systematics"]
            return [name for name in names if store.exists(layout.expansion(self.job, name))]

        found: list[str] = self._kept(("groups", self.job, self.n), there, lambda names: 100 * len(names))
        return list(found)

    def histogram(
        self, dataset: str, name: str, variation: str | None = None, select: Select | None = None
    ) -> Histogram:
        """Return stored sums or a selected part of them, or the template of a named variation of them.

        Raises
        ------
        NotFoundError
            If there is no such data set, histogram or variation.
        RequestError
            If an axis or a bin that is selected does not exist.
        """
        known = self.histogram_names(dataset)
        if name not in known:
            raise _absent("histogram", name, known)
        if variation is not None:
            found = self._template(dataset, name, variation, known)
            return crop(found, select) if select else found
        if name == NOMINAL:
            stored = self.nominal(dataset)
            return crop(stored, select) if select else stored
        return self.sums(dataset, name).part(select) if select else self._whole(dataset, name)

    def nominal(self, dataset: str) -> Histogram:
        """Return the nominal sums; their arrays are kept for all who ask, and cannot be written."""
        kept: Histogram = self._kept(
            ("nominal", self.job, self.n, dataset),
            lambda: _frozen(self._whole(dataset, NOMINAL)),
            lambda found: 2 * found.values.nbytes,
        )
        return Histogram(kept.axes, kept.values, kept.variances, dict(kept.metadata))

    def sums(self, dataset: str, name: str) -> Sums:
        """Return stored sums that are read as they are needed."""
        described = self._below()[f"{dataset}/{name}"]["attributes"]["uhi"]
        key = f"{self._prefix(dataset)}/{name}"
        return Sums(self.context.store, self.context.shelf, key, described)

    def expansion(self, group: str) -> Expansion:
        """Return how the compact blocks of a variation group expand into named variations.

        Raises
        ------
        NotFoundError
            If there is no such group.
        """
        known = self.groups()
        if group not in known:
            raise _absent("systematic", group, known)

        def read() -> Expansion:
            return Expansion.from_arrays(*self.context.store.read_arrays(layout.expansion(self.job, group)))

        found: Expansion = self._kept(("expansion", self.job, group), read, _size)
        return found

    def _template(self, dataset: str, name: str, variation: str, known: Sequence[str]) -> Histogram:
        groups = self._groups_of() if name == NOMINAL else {}
        group = groups.get(variation)
        expansion = None if group is None else self.expansion(group)
        if expansion is None or expansion.block not in known:
            blocks = {group: self.expansion(group).block for group in set(groups.values())}
            raise _absent(
                "variation", variation, [v for v, group in groups.items() if blocks[group] in known]
            )
        nominal = self.nominal(dataset)
        values = expansion.expand_one(nominal, variation, self.sums(dataset, expansion.block).column)
        return Histogram(nominal.axes, values, None, {**nominal.metadata, "variation": variation})

    def _groups_of(self) -> dict[str, str]:
        """Return the group of each variation."""

        def look() -> dict[str, str]:
            return {v: group for group in self.groups() for v in self.expansion(group).variations}

        found: dict[str, str] = self._kept(
            ("variations", self.job, self.n), look, lambda found: 200 * len(found)
        )
        return found

    def _whole(self, dataset: str, name: str) -> Histogram:
        return self.context.store.read_histogram(self._prefix(dataset), name)

    def _prefix(self, dataset: str) -> str:
        known = self.facts()["datasets"]
        if dataset not in known:
            raise _absent("data set", dataset, known)
        return layout.dataset(self.job, self.n, dataset)

    def _below(self) -> Mapping[str, Any]:
        """Return the documents of all groups and arrays of the snapshot by path."""
        below: Mapping[str, Any] = self._document()["consolidated_metadata"]["metadata"]
        return below

    def _document(self) -> Mapping[str, Any]:
        key = f"{layout.generation(self.job, self.n)}/zarr.json"

        def read() -> tuple[Any, int]:
            text = self.context.store.read_bytes(key)
            try:
                return json.loads(text), len(text)
            except ValueError:
                raise TransientError("A snapshot's document is no JSON.", code="damaged", where=key) from None

        found: tuple[Any, int] = self._kept(("snapshot", self.job, self.n), read, lambda pair: 10 * pair[1])
        document: Mapping[str, Any] = found[0]
        return document

    def _kept(self, key: tuple[Any, ...], make: Callable[[], T], nbytes: Callable[[T], int]) -> T:
        """Return what is on the shelf, or put it there: nothing of a snapshot changes."""
        held: T | None = self.context.shelf.get(key)
        if held is None:
            held = make()
            self.context.shelf.put(key, held, nbytes(held))
        return held


async def pinned(context: Context, user: User, job: str, n: int | None) -> Snapshot:
    """Return a snapshot like `pin`, in most cases without a thread."""

    def look() -> GenerationView:
        return pin(context, user, job, n).view

    return Snapshot(context, job, await context.views.get(("pin", job, n, user.sees), look))


def pin(context: Context, user: User, job: str, n: int | None) -> Snapshot:
    """Return a snapshot, the latest by default; it stays for an hour.

    Raises
    ------
    NotFoundError
        If there is no such job (for this user) or no such generation (any more).
    ConflictError
        If the job has no snapshot yet.
    """
    try:
        return Snapshot(context, job, context.pins.pin(job, n, user.sees))
    except RequestError as error:
        raise NotFoundError(error.message, code=error.code, where=error.where, hint=error.hint) from None


def _frozen(found: Histogram) -> Histogram:
    for array in (found.values, found.variances):
        if array is not None:
            array.flags.writeable = False
    return found


def _size(expansion: Expansion) -> int:
    arrays = expansion.to_arrays()[1].values()
    return sum(array.nbytes for array in arrays) + 500 * len(expansion.variations)


def _absent(kind: str, name: str, known: Sequence[str]) -> NotFoundError:
    error = unknown_name(kind, name, list(known))
    return NotFoundError(error.message, code=error.code, where=name, hint=error.hint)
