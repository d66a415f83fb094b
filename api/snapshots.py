"""One pinned snapshot of a job: what it covers, its histograms, and their named variations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Path, Query

from binworks.api.auth import User
from binworks.api.context import Context
from binworks.api.problems import NotFoundError
from binworks.service import layout
from binworks.service.model import GenerationView
from binworks.tensors.errors import RequestError, unknown_name
from binworks.tensors.expansion import Expansion
from binworks.tensors.histogram import Histogram

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

    def facts(self) -> dict[str, Any]:
        """Return what the snapshot says of itself: what it covers, lacks, and how it is normalised."""
        return self.context.store.attributes(layout.generation(self.job, self.n))

    def dataset(self, name: str) -> dict[str, Any]:
        """Return what a data set of the snapshot says of itself: kind, cross section, counts.

        Raises
        ------
        NotFoundError
            If there is none of this name.
        """
        return self.context.store.attributes(self._prefix(name))

    def histogram_names(self, dataset: str) -> list[str]:
        """Return the names of the histograms of a data set.

        Raises
        ------
        NotFoundError
            If there is no such data set.
        """
        return self.context.store.histogram_names(self._prefix(dataset))

    def groups(self) -> list[str]:
        """Return the variation groups of the job."""
        store = self.context.store
        return [
            name for name in self.facts()["systematics"] if store.exists(layout.expansion(self.job, name))
        ]

    def histogram(self, dataset: str, name: str, variation: str | None = None) -> Histogram:
        """Return stored sums, or the template of a named variation of them.

        Raises
        ------
        NotFoundError
            If there is no such data set, histogram or variation.
        """
        known = self.histogram_names(dataset)
        if name not in known:
            raise _absent("histogram", name, known)
        stored = self._sums(dataset, name)
        if variation is None:
            return stored
        expansions = [self.expansion(group) for group in self.groups()] if name == NOMINAL else []
        expansions = [expansion for expansion in expansions if expansion.block in known]
        for expansion in expansions:
            if variation in expansion.variations:
                values = expansion.expand(stored, self._sums(dataset, expansion.block), [variation])[0]
                return Histogram(stored.axes, values, None, {**stored.metadata, "variation": variation})
        raise _absent("variation", variation, [v for expansion in expansions for v in expansion.variations])

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
        return Expansion.from_arrays(*self.context.store.read_arrays(layout.expansion(self.job, group)))

    def _sums(self, dataset: str, name: str) -> Histogram:
        return self.context.store.read_histogram(self._prefix(dataset), name)

    def _prefix(self, dataset: str) -> str:
        known = self.facts()["datasets"]
        if dataset not in known:
            raise _absent("data set", dataset, known)
        return layout.dataset(self.job, self.n, dataset)


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


def _absent(kind: str, name: str, known: list[str]) -> NotFoundError:
    error = unknown_name(kind, name, known)
    return NotFoundError(error.message, code=error.code, where=name, hint=error.hint)
