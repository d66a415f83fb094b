"""One job, from the analyst's side: look, wait, watch, cancel, retry, pull, delete."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import hist

from binworks.client import events, export, show
from binworks.client.events import Event
from binworks.client.export import Export, Progress
from binworks.client.snapshot import NOMINAL, Snapshot
from binworks.client.status import Status
from binworks.client.transport import Transport
from binworks.tensors.card import Card
from binworks.tensors.errors import TransientError
from binworks.tensors.fitinput import FitInput
from binworks.tensors.select import Select
from binworks.tensors.tensor import Tensor

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
        region: Select | None = None,
        *,
        luminosity: float | None = None,
        allow_partial: bool = False,
    ) -> Tensor:
        """Return what a fit needs, as `Snapshot.tensor` of the latest snapshot."""
        return self.snapshot(allow_partial=allow_partial).tensor(region, luminosity=luminosity)

    def fit_input(self, card: Card | None = None) -> FitInput:
        """Return what the export formats write, as `Snapshot.fit_input` of the latest snapshot."""
        partial = card is not None and card.allow_partial
        return self.snapshot(allow_partial=partial).fit_input(card)

    def export(
        self,
        format: str,  # noqa: A002  what everybody calls it
        target: str | os.PathLike[str] | None = None,
        *,
        card: Card | Mapping[str, Any] | None = None,
        generation: int | None = None,
        allow_partial: bool = False,
        progress: Progress | bool | None = None,
    ) -> Export:
        """Let the service make a file for a fit, and download it; once cut short, a download goes on where it was.

        Parameters
        ----------
        format : str
            ``rabbit``, ``rabbit-sparse``, ``pyhf``, ``uhi-hdf5``, ``uhi-zip`` or ``root``.
        target : path, optional
            Of the file, or a folder; default: here, under the name that the service proposes.
        card : Card or mapping, optional
            Channels, processes, data and systematics; default: that of the job's processor.
        generation : int, optional
            Default: the latest snapshot.
        allow_partial : bool
            Take a snapshot that lacks events, too; the card may say so itself.
        progress : callable or bool, optional
            Called with what is done now, how far, and of how much; True shows a bar.

        Raises
        ------
        RequestError
            For a name that does not exist; why the file could not be made.
        ConflictError
            Code ``no-snapshot``; or ``incomplete`` if events are missing and neither you nor the card allow it.
        """
        with show.bar(progress) as told:
            asked = export.ask(self._transport, self.id, format, card, generation, allow_partial)
            ready = export.wait(self._transport, asked, told)
            return export.download(self._transport, ready, Path(target or "."), told)

    def exports(self) -> list[Export]:
        """Return the exports of the job that the service has, newest first."""
        found: list[Export] = []
        cursor: str | None = None
        while True:
            page = self._transport.request("GET", f"{self._path}/exports", params={"cursor": cursor}).json()
            found += map(Export.from_json, page["exports"])
            cursor = page["next"]
            if cursor is None:
                return found

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    def _repr_html_(self) -> str:
        return self.status()._repr_html_()
