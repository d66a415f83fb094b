"""One job, from the analyst's side: look, wait, watch, cancel, retry, pull, delete."""

from __future__ import annotations

import html
import time
from collections.abc import Iterator, Mapping
from typing import Any

import hist

from binworks.client import events
from binworks.client.events import Event
from binworks.client.snapshot import NOMINAL, Snapshot
from binworks.client.status import Status
from binworks.client.transport import Transport
from binworks.tensors.errors import TransientError
from binworks.tensors.tensor import SIGNAL_REGION, Tensor

LONG_POLL = 20


class Job:
    """A job of the service; `Client.submit` and `Client.job` make it.

    Parameters
    ----------
    id : str
        As the service knows it.
    transport : Transport
        The connection to the service.
    """

    def __init__(self, id: str, transport: Transport) -> None:  # noqa: A002  what everybody calls it
        self.id = id
        self._transport = transport
        self._path = f"/v1/jobs/{id}"

    def status(self) -> Status:
        """Return how it is now.

        Raises
        ------
        RequestError
            Code ``unknown-job``.
        """
        return Status.from_json(self._transport.request("GET", self._path).json())

    def wait(self, timeout: float | None = None) -> Status:
        """Return once the job has succeeded.

        Raises
        ------
        BinworksError
            Why it failed; TransientError, code ``still-running``, after ``timeout`` seconds.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = LONG_POLL if until is None else min(LONG_POLL, max(0, round(until - time.monotonic())))
            answer = self._transport.request(
                "GET", self._path, headers={"Prefer": f"wait={left}"}, patience=LONG_POLL
            )
            status = Status.from_json(answer.json())
            if status.finished:
                return status.check()
            if until is not None and time.monotonic() >= until:
                message = f"The job is still {status.state} after {timeout:g} s."
                raise TransientError(message, code="still-running", where=f"job {self.id}")

    def watch(self, after: int = 0) -> Iterator[Event]:
        """Give what happens to the job, as it happens, until it is finished; lost connections are resumed.

        Parameters
        ----------
        after : int
            Id of an event: only later ones are given.
        """
        return events.follow(self._transport, f"{self._path}/events", after=after)

    def cancel(self) -> Status:
        """Ask for its end; a finished job stays as it is."""
        return Status.from_json(self._transport.request("POST", f"{self._path}/cancel").json())

    def retry(self) -> Status:
        """Take it up again if it failed, or if its result lacks events; what it has done is kept.

        Raises
        ------
        ConflictError
            Code ``nothing-to-retry`` if its result is complete; ``cancelled``; ``code-differs`` if the code has changed
            since: submit it again then.
        """
        return Status.from_json(self._transport.request("POST", f"{self._path}/retry").json())

    def delete(self) -> None:
        """Delete it with all its snapshots.

        Raises
        ------
        ConflictError
            Code ``job-not-finished``: cancel it first.
        """
        self._transport.request("DELETE", self._path)

    def units(self, state: str | None = None, limit: int = 100) -> list[Mapping[str, Any]]:
        """Return units of work, for example the failed ones with the reasons."""
        found: list[Mapping[str, Any]] = []
        after: int | None = None
        while len(found) < limit:
            wish = {"state": state, "after": after, "limit": min(limit - len(found), 1000)}
            page = self._transport.request("GET", f"{self._path}/units", params=wish).json()
            found += page["units"]
            after = page["next"]
            if after is None:
                break
        return found

    def snapshot(self, *, allow_partial: bool = False) -> Snapshot:
        """Return the latest snapshot, pinned: all that is pulled from it belongs together.

        Raises
        ------
        ConflictError
            Code ``no-snapshot``; or ``incomplete`` if events are missing and ``allow_partial`` is False.
        """
        return Snapshot.latest(self._transport, self.id, allow_partial=allow_partial)

    def histogram(
        self,
        dataset: str,
        name: str = NOMINAL,
        variation: str | None = None,
        *,
        allow_partial: bool = False,
    ) -> hist.Hist:
        """Return a histogram of the latest snapshot, or a named variation of it.

        Raises
        ------
        RequestError
            If there is no such data set, histogram or variation.
        ConflictError
            Code ``no-snapshot``; or ``incomplete`` if events are missing and ``allow_partial`` is False.
        """
        return self.snapshot(allow_partial=allow_partial).histogram(dataset, name, variation=variation)

    def variations(self, dataset: str) -> dict[str, tuple[str, ...]]:
        """Return the names of the variations of a data set, by group."""
        return self.snapshot(allow_partial=True).variations(dataset)

    def tensor(
        self,
        region: Mapping[str, int] = SIGNAL_REGION,
        *,
        luminosity: float | None = None,
        allow_partial: bool = False,
    ) -> Tensor:
        """Return what a fit needs, as `Snapshot.tensor` of the latest snapshot."""
        return self.snapshot(allow_partial=allow_partial).tensor(region, luminosity=luminosity)

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    def _repr_html_(self) -> str:
        status = self.status()
        rows = {
            "state": status.state,
            "events": f"{status.events_done:,} of {status.events_total:,} ({status.fraction:.0%})",
            "snapshot": "none" if status.generation is None else f"{status.generation}",
            "complete": "yes" if status.complete else "no",
            "left out": status.left_out,
            "note": status.note or "",
            "error": str(status.error or ""),
        }
        cells = "".join(
            f"<tr><th>{key}</th><td>{html.escape(value)}</td></tr>" for key, value in rows.items() if value
        )
        return f"<table><caption>Job <code>{html.escape(self.id)}</code></caption>{cells}</table>"
