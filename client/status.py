"""How a job is, as the service says; what a newer service adds is kept and ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from binworks.client import notebook
from binworks.tensors.errors import BinworksError, ConflictError
from binworks.tensors.incomplete import percent

FINISHED = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True)
class Status:
    """A job at one moment.

    Parameters
    ----------
    id, state, label : str
        State is queued, running, finalizing, cancelling, succeeded, failed or cancelled.
    events_done, events_total, units_done, units_total, units_failed : int
        Counted over the units of work; totals are 0 until the plan is made.
    rate : float or None
        Events per second.
    eta : float or None
        Seconds to go.
    generation : int or None
        Latest snapshot.
    complete : bool
        Whether the latest snapshot has every event.
    missing_events, missing_files : int
        What was left out.
    note : str or None
        Why it does not get on, if it does not.
    error : BinworksError or None
        Why it failed.
    raw : mapping
        All that the service said.
    """

    id: str
    state: str
    label: str | None
    events_done: int
    events_total: int
    units_done: int
    units_total: int
    units_failed: int
    rate: float | None
    eta: float | None
    generation: int | None
    complete: bool
    missing_events: int
    missing_files: int
    note: str | None
    error: BinworksError | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, view: Mapping[str, Any]) -> Status:
        """Return the status in a service's answer."""
        counts = view.get("counts") or {}
        units, events = counts.get("units") or {}, counts.get("events") or {}
        missing = view.get("missing") or {}
        return cls(
            id=view["id"],
            state=view["state"],
            label=(view.get("request") or {}).get("label"),
            events_done=events.get("done", 0),
            events_total=events.get("total", 0),
            units_done=units.get("done", 0),
            units_total=units.get("total", 0),
            units_failed=units.get("failed", 0),
            rate=view.get("rate"),
            eta=view.get("eta_s"),
            generation=view.get("generation"),
            complete=bool(view.get("complete")),
            missing_events=missing.get("events", 0),
            missing_files=missing.get("n_files", 0),
            note=view.get("note"),
            error=error_in(view.get("error")),
            raw=view,
        )

    def _repr_html_(self) -> str:
        rows = {
            "state": self.state,
            "label": self.label or "",
            "events": f"{self.events_done:,} of {self.events_total:,} ({self.fraction:.0%})",
            "snapshot": "none" if self.generation is None else f"{self.generation}",
            "complete": "yes" if self.complete else "no",
            "left out": self.left_out,
            "note": self.note or "",
            "error": str(self.error or ""),
        }
        return notebook.facts(f"Job {self.id}", rows)

    @property
    def finished(self) -> bool:
        """Whether nothing will change any more, unless it is retried."""
        return self.state in FINISHED

    @property
    def fraction(self) -> float:
        """Part of the events that is done."""
        return self.events_done / self.events_total if self.events_total else 0.0

    @property
    def left_out(self) -> str:
        """What is missing, in words; empty if nothing is."""
        if not (self.missing_files or self.missing_events):
            return ""
        part = self.missing_events / self.events_total if self.events_total else 0.0
        files = f"{self.missing_files} file{'s' * (self.missing_files != 1)} or parts of files"
        return f"{self.missing_events:,} events ({percent(part)}), {files}"

    @property
    def failures(self) -> list[Mapping[str, Any]]:
        """What is missing and why: the first files, or ranges of files, with ``path``, ``dataset`` and ``error``."""
        return list((self.raw.get("missing") or {}).get("files") or ())

    @property
    def retriable(self) -> bool:
        """Whether a retry may help."""
        return self.state == "failed" or (self.state == "succeeded" and not self.complete)

    def check(self) -> Status:
        """Return itself if the job succeeded or may still do so.

        Raises
        ------
        BinworksError
            Why it failed; ConflictError, code ``cancelled``, if it was cancelled.
        """
        if self.state == "cancelled":
            raise ConflictError("The job was cancelled.", code="cancelled", where=self.id)
        if self.state == "failed":
            raise self.error or ConflictError("The job failed.", code="failed", where=self.id)
        return self


def error_in(problem: Mapping[str, Any] | None) -> BinworksError | None:
    """Return the error that a document describes, if it does."""
    if not problem:
        return None
    return BinworksError(
        problem.get("message", "no reason given"),
        code=problem.get("code"),
        where=problem.get("where"),
        hint=problem.get("hint"),
    )
