"""One pinned snapshot of a job: everything that is pulled from it belongs together."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import hist
import numpy as np
import uhi.io.zip

from binworks.client import notebook
from binworks.client.source import Progress, RemoteSource
from binworks.client.transport import Transport
from binworks.tensors import incomplete
from binworks.tensors.accumulator import Accumulator
from binworks.tensors.card import Card, Channel
from binworks.tensors.errors import ConflictError, RequestError, unknown_name
from binworks.tensors.expansion import Expansion
from binworks.tensors.fitbuild import fit_input
from binworks.tensors.fitinput import FitInput
from binworks.tensors.histogram import Histogram, axes_of
from binworks.tensors.select import Select, crop
from binworks.tensors.source import Source, read_tensor
from binworks.tensors.tensor import Tensor

NOMINAL = "nominal"
PULL_SECONDS = 120.0


@dataclass(frozen=True)
class Snapshot:
    """A published generation of a job.

    Parameters
    ----------
    job : str
        Id of the job.
    contents : mapping
        What it holds, as the service says.
    transport : Transport
        The connection to the service.
    """

    job: str
    contents: Mapping[str, Any]
    transport: Transport

    @classmethod
    def latest(cls, transport: Transport, job: str, *, allow_partial: bool) -> Snapshot:
        """Return the latest snapshot of a job.

        Raises
        ------
        ConflictError
            Code ``no-snapshot``; or ``incomplete`` if events are missing and ``allow_partial`` is False.
        """
        contents = transport.request("GET", f"/v1/jobs/{job}/histograms").json()
        found = cls(job, contents, transport)
        if not (allow_partial or found.complete):
            lacking = contents["missing"]
            units, files = len(lacking["units"]), len(lacking["files"])
            left_out = f", {units} units ({lacking['events']:,} events) and {files} files were left out"
            raise ConflictError(
                f"The latest snapshot has {found.fraction:.1%} of the events{left_out if units or files else ''}.",
                code="incomplete",
                where=f"job {job}",
                hint=f"{found._remedy()}, or say allow_partial=True (--allow-partial).",
            )
        return found

    @property
    def generation(self) -> int:
        """Number of the generation."""
        return int(self.contents["generation"])

    @property
    def complete(self) -> bool:
        """Whether every event of the input is in it."""
        return bool(self.contents["complete"])

    @property
    def fraction(self) -> float:
        """Part of the events that is in it."""
        return float(self.contents["fraction"])

    @property
    def mark(self) -> str:
        """What must stand on all that is made of it; empty if it is complete."""
        return incomplete.mark(self.contents)

    def _remedy(self) -> str:
        return "Wait for the end of the job" if not self.contents.get("final") else "Retry the job"

    @property
    def datasets(self) -> dict[str, Mapping[str, Any]]:
        """Data sets by name: kind, group, cross section, counts, names of the histograms."""
        return {entry["name"]: entry for entry in self.contents["datasets"]}

    def histogram(self, dataset: str, name: str = NOMINAL, *, variation: str | None = None) -> hist.Hist:
        """Return a histogram, or a named variation of it; its ``metadata`` says where it is from and how complete.

        Raises
        ------
        RequestError
            If there is no such data set, histogram or variation.
        """
        sums = self.sums(dataset, name, variation=variation)
        found = sums.to_hist()
        found.metadata = sums.metadata
        return found

    def sums(
        self, dataset: str, name: str = NOMINAL, *, variation: str | None = None, select: Select | None = None
    ) -> Histogram:
        """Return the same as `histogram` with its metadata, or a part of it.

        Parameters
        ----------
        select : mapping, optional
            By axis name: a bin, and the axis disappears; or the first bin and the one behind the last. An older
            service sends all, and it is cut here.
        """
        wanted = dict(select or {}) if self.transport.can("select") else {}
        answer = self.transport.request(
            "GET",
            f"/v1/jobs/{self.job}/histograms/{dataset}/{name}",
            params={
                "generation": self.generation,
                "variation": variation,
                "select": [_said(axis, bins) for axis, bins in wanted.items()] or None,
            },
            headers={"Accept": "application/zip"},
            patience=PULL_SECONDS,
        )
        found = _decoded(answer.content)
        return crop(found, select) if select and not wanted else found

    def axes(self, dataset: str, name: str = NOMINAL) -> tuple[Any, ...]:
        """Return the axes of a histogram.

        Raises
        ------
        RequestError
            If there is no such data set or histogram.
        """
        if name not in self._entry(dataset)["histograms"]:
            raise unknown_name("histogram", name, list(self._entry(dataset)["histograms"]))
        return axes_of(self._descriptions[f"{dataset}/{name}"]["attributes"]["uhi"])

    @cached_property
    def _descriptions(self) -> Mapping[str, Any]:
        """What the store says of all that is in the snapshot."""
        answer = self.transport.request("GET", f"/v1/jobs/{self.job}/zarr/{self.generation}/zarr.json")
        found: Mapping[str, Any] = answer.json()["consolidated_metadata"]["metadata"]
        return found

    def variations_of(
        self, dataset: str, variations: Sequence[str] | None = None, group: str | None = None
    ) -> Histogram:
        """Return nominal and named templates of a data set, along a first axis ``variation``; expanded here.

        Parameters
        ----------
        dataset : str
        variations : sequence of str, optional
            Their names; or all of
        group : str, optional
            a variation group.

        Raises
        ------
        RequestError
            If there is no such data set, variation or group; ``invalid-request`` if both or neither are given.
        """
        known = self.variations(dataset)
        groups = _by_group(known, variations, group)
        nominal = self.sums(dataset)
        wanted = [e for e in self.expansions() if groups.get(e.group)]
        expanded = (e.expand(nominal, self.sums(dataset, e.block), groups[e.group]) for e in wanted)
        found = ["nominal", *(name for names in groups.values() for name in names)]
        order = ["nominal", *(variations if variations is not None else found[1:])]
        values = np.concatenate([nominal.values[np.newaxis], *expanded])[
            [found.index(name) for name in order]
        ]
        axis = hist.axis.StrCategory(order, name="variation", label="variation", flow=False)
        return Histogram((axis, *nominal.axes), values, None, dict(nominal.metadata))

    def expansions(self) -> list[Expansion]:
        """Return how the compact blocks expand into named variations."""
        return list(self._expansions)

    @cached_property
    def _expansions(self) -> tuple[Expansion, ...]:
        return tuple(self._expansion(group) for group in self.contents["groups"])

    def variations(self, dataset: str) -> dict[str, tuple[str, ...]]:
        """Return the names of the variations of a data set, by group.

        Raises
        ------
        RequestError
            If there is no such data set.
        """
        held = self._entry(dataset)["histograms"]
        return {e.group: e.variations for e in self.expansions() if e.block in held}

    def accumulator(self, dataset: str, progress: Progress | None = None) -> Accumulator:
        """Return all sums and counts of a data set; ``progress`` gets the name of each histogram that is here.

        Raises
        ------
        RequestError
            If there is no such data set.
        """
        entry = self._entry(dataset)
        histograms = {}
        for name in entry["histograms"]:
            histograms[name] = self.sums(dataset, name)
            if progress is not None:
                progress(f"{dataset}/{name}")
        return Accumulator(histograms, dict(entry["counts"]))

    def tensor(
        self,
        region: Select | None = None,
        *,
        datasets: Sequence[str] | None = None,
        luminosity: float | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Return what a fit needs: processes at the luminosity, data, nuisances.

        Parameters
        ----------
        region : mapping, optional
            By axis name: a bin, and the axis disappears; or the first bin and the one behind the last. Default: the
            signal region, for the axes that are there.
        datasets : sequence of str, optional
            Default: all of the job.
        luminosity : float, optional
            1/pb; default: that of the job.

        Raises
        ------
        RequestError
            If a simulated data set has no cross section or no events, or no luminosity is known.
        """
        channel = Channel(
            select=None if region is None else dict(region),
            datasets=None if datasets is None else tuple(datasets),
        )
        return read_tensor(Card(luminosity=luminosity), channel, self._source(progress))

    def fit_input(
        self,
        card: Card | None = None,
        *,
        progress: Progress | None = None,
        others: Mapping[str, Snapshot] | None = None,
    ) -> FitInput:
        """Return what the export formats write: channels, parameters and their effects.

        Parameters
        ----------
        card : Card, optional
            Default: an empty one.
        progress : callable, optional
            Gets the name of each histogram that is here.
        others : mapping, optional
            Snapshots of other jobs that the card names; default: their latest.

        Raises
        ------
        RequestError
            For a name that does not exist.
        ConflictError
            Code ``incomplete`` for a snapshot that lacks events, unless the card allows it.
        """
        asked = card or Card()
        sources: dict[str | None, Source] = {None: self._source(progress)}
        sources[self.job] = sources[None]
        for job in {channel.job for channel in asked.channels} - set(sources):
            found = (others or {}).get(str(job)) or Snapshot.latest(
                self.transport, str(job), allow_partial=asked.allow_partial
            )
            sources[job] = found._source(progress)
        return fit_input(asked, sources)

    def _source(self, progress: Progress | None) -> Source:
        return RemoteSource(self, progress)

    def _entry(self, dataset: str) -> Mapping[str, Any]:
        if dataset not in self.datasets:
            raise unknown_name("data set", dataset, list(self.datasets))
        return self.datasets[dataset]

    def _repr_html_(self) -> str:
        head = ("data set", "kind", "process", "cross section [pb]", "events read", "histograms")
        rows = [
            (
                name,
                entry["kind"],
                entry["group"],
                "" if entry["cross_section"] is None else f"{entry['cross_section']:,.6g}",
                f"{entry['counts'].get('entries', 0):,}",
                ", ".join(entry["histograms"]),
            )
            for name, entry in self.datasets.items()
        ]
        state = self.mark or "complete"
        return notebook.table(f"Snapshot {self.generation} of job {self.job}: {state}", head, rows)

    def _expansion(self, group: str) -> Expansion:
        answer = self.transport.request(
            "GET", f"/v1/jobs/{self.job}/expansions/{group}", params={"generation": self.generation}
        )
        with np.load(io.BytesIO(answer.content), allow_pickle=False) as arrays:
            described = json.loads(str(arrays["description"]))
            return Expansion.from_arrays(described, arrays)


def _said(axis: str, bins: int | tuple[int, int]) -> str:
    """Return a selection as the service reads it."""
    return f"{axis}:{bins}" if isinstance(bins, int) else f"{axis}:{bins[0]}:{bins[1]}"


def _decoded(content: bytes) -> Histogram:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        described = uhi.io.zip.read(archive, "histogram")
    storage = described["storage"]
    return Histogram.from_uhi(described, storage["values"], storage.get("variances"))


def _by_group(
    known: Mapping[str, Sequence[str]], variations: Sequence[str] | None, group: str | None
) -> dict[str, list[str]]:
    """Return the names that are wanted by group, in the order of the groups."""
    if (variations is None) == (group is None):
        raise RequestError("Name either variations or a group.", code="invalid-request", where="variations")
    if group is not None and group not in known:
        raise unknown_name("systematic", group, list(known))
    if group is not None:
        return {group: list(known[group])}
    homes = {name: home for home, names in known.items() for name in names}
    for name in variations or ():
        if name not in homes:
            raise unknown_name("variation", name, list(homes))
    wanted = set(variations or ())
    return {home: [name for name in names if name in wanted] for home, names in known.items()}
