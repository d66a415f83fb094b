"""The service, from the analyst's side: submit a job, find jobs, see what can be asked for."""

from __future__ import annotations

import html
import os
import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal

from binworks.client import address
from binworks.client.job import Job
from binworks.client.status import Status
from binworks.client.transport import Transport

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
        jobs = self.jobs(limit=10)
        rows = "".join(
            f"<tr><td><code>{html.escape(job.id)}</code></td><td>{job.state}</td><td>{job.fraction:.0%}</td>"
            f"<td>{html.escape(job.label or '')}</td><td>{html.escape(job.note or '')}</td></tr>"
            for job in jobs
        )
        head = "<tr><th>job</th><th>state</th><th>events</th><th>label</th><th>note</th></tr>"
        return f"<table><caption>{html.escape(self.url)}</caption>{head}{rows}</table>"

    def _get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        return self._transport.request("GET", path, params=params).json()
