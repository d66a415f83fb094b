"""The service, from the analyst's side: submit a job, find jobs, see what can be asked for."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import hist

from binworks.client import address, notebook
from binworks.client.job import Job
from binworks.client.snapshot import NOMINAL
from binworks.client.status import Status
from binworks.client.transport import Transport
from binworks.tensors.card import Card
from binworks.tensors.errors import RequestError
from binworks.tensors.fitinput import FitInput
from binworks.tensors.select import Select
from binworks.tensors.tensor import Tensor

if TYPE_CHECKING:
    import zarr

PAGE = 200


class Client:
    """A connection to a binworks service.

    Parameters
    ----------
    url, token : str, optional
        Default: ``BINWORKS_URL`` and ``BINWORKS_TOKEN``, or what `binworks up` left in the home.
    home : path, optional
        Home of a service on this machine; default: ``BINWORKS_HOME``, ``~/.config/binworks``.
    timeout : float
        Seconds to wait for an answer.

    Raises
    ------
    RequestError
        Code ``no-service`` if no address is known.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        home: str | os.PathLike[str] | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._transport = Transport(address.find(url, token, home), timeout)

    @property
    def url(self) -> str:
        """Address of the service."""
        return self._transport.address.url

    def version(self) -> Mapping[str, Any]:
        """Return the service's version and capabilities."""
        found: Mapping[str, Any] = self._get("/v1/")
        return found

    def submit(
        self,
        processor: str,
        datasets: Sequence[str | Mapping[str, Any]],
        *,
        options: Mapping[str, Any] | None = None,
        corrections: str | None = None,
        systematics: Sequence[str] | None = None,
        luminosity: float | None = None,
        priority: int = 0,
        on_error: Literal["fail"] | Mapping[str, float] = "fail",
        label: str | None = None,
        idempotency_key: str | None = None,
        reuse: bool = False,
    ) -> Job:
        """Submit a job; it is durably stored when this returns.

        Parameters
        ----------
        processor : str
            One of `processors`.
        datasets : sequence
            Names of the catalogue, or data sets spelt out with their files.
        options : mapping, optional
            Of the processor.
        corrections : str, optional
            Name of a correction set.
        systematics : sequence of str, optional
            Variation groups; default: all of the processor.
        luminosity : float, optional
            1/pb; default: the catalogue's.
        priority : int
            -10 to 10; each step doubles the job's share among its owner's jobs.
        on_error : "fail" or {"skip": fraction}
            What bad input does to the job.
        label : str, optional
            Free text.
        idempotency_key : str, optional
            A second submission with the same key gives the same job; default: a new one.
        reuse : bool
            Take your newest job that has the complete result of this request already, if there is one.

        Raises
        ------
        RequestError
            Naming the processor, option, data set, correction set or systematic that cannot be.
        """
        request = {
            "processor": processor,
            "datasets": list(datasets),
            "options": dict(options or {}),
            "corrections": corrections,
            "systematics": None if systematics is None else list(systematics),
            "luminosity": luminosity,
            "priority": priority,
            "on_error": on_error,
            "label": label,
        }
        return self.submit_request(request, idempotency_key=idempotency_key, reuse=reuse)

    def submit_request(
        self, request: Mapping[str, Any], *, idempotency_key: str | None = None, reuse: bool = False
    ) -> Job:
        """Submit a job given as the JSON document of the REST interface."""
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        params = {"reuse": "completed" if reuse else None}
        answer = self._transport.request(
            "POST", "/v1/jobs", params=params, json=dict(request), headers=headers
        )
        return self.job(answer.json()["id"])

    def job(self, id: str) -> Job:  # noqa: A002  what everybody calls it
        """Return a job by its id."""
        return Job(id, self._transport)

    def jobs(self, *, state: str | None = None, limit: int = 50) -> list[Status]:
        """Return jobs, newest first."""
        found: list[Status] = []
        cursor: str | None = None
        while len(found) < limit:
            wish = {"state": state, "cursor": cursor, "limit": min(PAGE, limit - len(found))}
            page = self._get("/v1/jobs", wish)
            found += [Status.from_json(view) for view in page["jobs"]]
            cursor = page["next"]
            if cursor is None:
                break
        return found

    def usage(self, owner: str | None = None) -> Mapping[str, Any]:
        """Return what you use and may use: each of jobs, units, bytes, hours with ``used`` and ``limit``.

        Parameters
        ----------
        owner : str, optional
            Somebody else, for admins.
        """
        found: Mapping[str, Any] = self._get("/v1/usage", {"owner": owner})
        return found

    def processors(self) -> list[Mapping[str, Any]]:
        """Return the processors with the schemas of their options, their systematics and the payloads they read."""
        found: list[Mapping[str, Any]] = self._get("/v1/processors")
        return found

    def datasets(self) -> list[Mapping[str, Any]]:
        """Return the data sets that can be asked for by name."""
        found: list[Mapping[str, Any]] = self._get("/v1/datasets")["datasets"]
        return found

    def corrections(self) -> list[Mapping[str, Any]]:
        """Return the correction sets that can be asked for by name."""
        found: list[Mapping[str, Any]] = self._get("/v1/corrections")
        return found

    # what comes of a job

    def tensor(self, job: str | Job, region: Select | None = None, **options: Any) -> Tensor:
        """Return what a fit needs, as `Job.tensor`."""
        return self._job(job).tensor(region, **options)

    def fit_input(self, job: str | Job, card: Card | None = None) -> FitInput:
        """Return what the export formats write, as `Job.fit_input`."""
        return self._job(job).fit_input(card)

    def histogram(
        self,
        job: str | Job,
        dataset: str,
        name: str = NOMINAL,
        *,
        variations: Sequence[str] | None = None,
        group: str | None = None,
        allow_partial: bool = False,
    ) -> hist.Hist:
        """Return a histogram of the latest snapshot, with its variations along an axis if they are asked for.

        Parameters
        ----------
        job : str or Job
        dataset : str
        name : str
            Variations are those of ``nominal``.
        variations : sequence of str, optional
            Templates along a first axis ``variation``, after ``nominal``; no variances are known then.
        group : str, optional
            Instead, all of a variation group.
        allow_partial : bool
            Take a snapshot that lacks events, too.

        Raises
        ------
        RequestError
            If there is no such data set, histogram, variation or group.
        ConflictError
            Code ``no-snapshot``; or ``incomplete`` if events are missing and ``allow_partial`` is False.
        """
        snapshot = self._job(job).snapshot(allow_partial=allow_partial)
        if variations is None and group is None:
            return snapshot.histogram(dataset, name)
        if name != NOMINAL:
            raise RequestError(
                f"Only {NOMINAL!r} has variations.", code="unknown-variation", where=f"{dataset}/{name}"
            )
        sums = snapshot.variations_of(dataset, variations, group)
        found = sums.to_hist()
        found.metadata = sums.metadata
        return found

    def open_zarr(self, job: str | Job, generation: int | None = None) -> zarr.Group:
        """Return a snapshot as a zarr group that is read over HTTP, chunk by chunk, as it is sliced.

        Parameters
        ----------
        job : str or Job
        generation : int, optional
            Default: the latest snapshot.

        Raises
        ------
        ConflictError
            Code ``no-snapshot``.
        """
        import zarr

        found = self._job(job)
        n = generation or found.snapshot(allow_partial=True).generation
        token = self._transport.address.token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return zarr.open_group(
            f"{self.url}/v1/jobs/{found.id}/zarr/{n}",
            mode="r",
            zarr_format=3,
            use_consolidated=True,
            storage_options={"headers": headers},
        )

    def _job(self, job: str | Job) -> Job:
        return job if isinstance(job, Job) else self.job(job)

    def close(self) -> None:
        """Give the connections back."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def _repr_html_(self) -> str:
        rows = [
            (job.id, job.state, f"{job.fraction:.0%}", job.label or "", job.note or "")
            for job in self.jobs(limit=10)
        ]
        return notebook.table(self.url, ("job", "state", "events", "label", "note"), rows)

    def _get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        return self._transport.request("GET", path, params=params).json()
