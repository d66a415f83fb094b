"""One pinned snapshot of a job: everything that is pulled from it belongs together."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hist
import numpy as np
import uhi.io.zip

from binworks.client.transport import Transport
from binworks.tensors import incomplete
from binworks.tensors.accumulator import Accumulator
from binworks.tensors.errors import ConflictError, RequestError, unknown_name
from binworks.tensors.expansion import Expansion
from binworks.tensors.histogram import Histogram
from binworks.tensors.tensor import SIGNAL_REGION, Contribution, Tensor, assemble

NOMINAL = "nominal"
PULL_SECONDS = 120.0
Progress = Callable[[str], None]


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

    def sums(self, dataset: str, name: str = NOMINAL, *, variation: str | None = None) -> Histogram:
        """Return the same as `histogram` with its metadata."""
        answer = self.transport.request(
            "GET",
            f"/v1/jobs/{self.job}/histograms/{dataset}/{name}",
            params={"generation": self.generation, "variation": variation},
            headers={"Accept": "application/zip"},
            patience=PULL_SECONDS,
        )
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            described = uhi.io.zip.read(archive, "histogram")
        storage = described["storage"]
        return Histogram.from_uhi(described, storage["values"], storage.get("variances"))

    def expansions(self) -> list[Expansion]:
        """Return how the compact blocks expand into named variations."""
        return [self._expansion(group) for group in self.contents["groups"]]

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
        region: Mapping[str, int] = SIGNAL_REGION,
        *,
        datasets: Sequence[str] | None = None,
        luminosity: float | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Return what a fit needs: processes at the luminosity, data, nuisances.

        Parameters
        ----------
        region : mapping
            Bin number by axis name; these axes disappear.
        datasets : sequence of str, optional
            Default: all of the job.
        luminosity : float, optional
            1/pb; default: that of the job.

        Raises
        ------
        RequestError
            If a simulated data set has no cross section or no events, or no luminosity is known.
        """
        names = list(self.datasets) if datasets is None else list(datasets)
        lumi = luminosity or self.contents["luminosity"]
        contributions = [
            Contribution(
                process=self._entry(name)["group"],
                scale=self._scale(name, lumi),
                accumulator=self.accumulator(name, progress),
                is_data=self._entry(name)["kind"] == "data",
            )
            for name in names
        ]
        facts = {
            "job": self.job,
            "generation": self.generation,
            "luminosity": lumi,
            "complete": self.complete,
            "fraction": self.fraction,
            "missing": self.contents.get("missing"),
        }
        return assemble(contributions, self.expansions(), region=region, metadata=facts)

    def _scale(self, dataset: str, luminosity: float | None) -> float:
        entry = self._entry(dataset)
        if entry["kind"] == "data":
            return 1.0
        generated = entry["counts"].get("sum_sign", 0)
        if luminosity is None:
            raise RequestError(
                "No luminosity is known.",
                code="no-luminosity",
                hint="Submit the job with one, or give one here.",
            )
        if entry["cross_section"] is None:
            raise RequestError(
                "The data set has no cross section, so it cannot be normalised.",
                code="no-cross-section",
                where=dataset,
            )
        if generated <= 0:
            raise RequestError(
                f"The sum of the signs of the generator weights is {generated}.",
                code="no-events",
                where=dataset,
            )
        return float(luminosity * entry["cross_section"] / generated)

    def _entry(self, dataset: str) -> Mapping[str, Any]:
        if dataset not in self.datasets:
            raise unknown_name("data set", dataset, list(self.datasets))
        return self.datasets[dataset]

    def _expansion(self, group: str) -> Expansion:
        answer = self.transport.request(
            "GET", f"/v1/jobs/{self.job}/expansions/{group}", params={"generation": self.generation}
        )
        with np.load(io.BytesIO(answer.content), allow_pickle=False) as arrays:
            described = json.loads(str(arrays["description"]))
            return Expansion.from_arrays(described, arrays)
