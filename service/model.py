"""The nouns of a job as they stand in requests, answers and events; JSON in and out, unknown keys refused."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from binworks.processors.dataset import Dataset
from binworks.tensors.errors import BinworksError


class JobState(StrEnum):
    """Where a job is in its life; from the last three only a retry leads back."""

    QUEUED = "queued"
    RUNNING = "running"
    FINALIZING = "finalizing"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """Whether nothing will change any more by itself."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class UnitState(StrEnum):
    """Where a unit of work is; ``done``, ``skipped`` and ``failed`` are settled."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"


class Strict(BaseModel):
    """A request body: what is not known is refused, so that a typo is never silently ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Skip(Strict):
    """Leave bad input out, and say so, as long as it is a small part."""

    skip: float = Field(gt=0, le=1, description="Largest fraction of the events that may be left out.")


class JobRequest(Strict):
    """What is asked of the service: which processor, on which data sets, with which systematics."""

    processor: str = Field(min_length=1, max_length=100, description="Name in the processor registry.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the processor; its schema lists them."
    )
    datasets: list[str | Dataset] = Field(
        min_length=1,
        max_length=10_000,
        description="Names of the catalogue, or data sets spelt out with their files.",
    )
    corrections: str | None = Field(
        default=None, description="Name of a correction set; none: the events as they are."
    )
    systematics: list[str] | None = Field(
        default=None, description="Variation groups to fill; none given: all the processor has."
    )
    luminosity: float | None = Field(
        default=None, gt=0, description="Integrated luminosity in 1/pb; default: the catalogue's."
    )
    priority: int = Field(
        default=0,
        ge=-10,
        le=10,
        description="Each step doubles the job's share among its owner's jobs.",
    )
    on_error: Literal["fail"] | Skip = Field(default="fail", description="What a bad file does to the job.")
    odd_limit: float = Field(
        default=1e-6,
        ge=0,
        le=1,
        description="Largest fraction of events left out because a weight or momentum is not finite.",
    )
    label: str | None = Field(default=None, max_length=200, description="Free text for people.")

    @model_validator(mode="after")
    def _names_are_unique(self) -> JobRequest:
        names = [entry if isinstance(entry, str) else entry.name for entry in self.datasets]
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise ValueError(f"data sets given twice: {', '.join(twice)}")
        return self


class ResolvedJob(BaseModel):
    """A request with all names looked up; a job depends on this and the files alone."""

    model_config = ConfigDict(frozen=True)

    request: JobRequest
    datasets: tuple[Dataset, ...] = Field(description="In the order asked for; files are absolute.")
    options: dict[str, Any] = Field(description="All options of the processor, defaults filled in.")
    systematics: tuple[str, ...] = Field(description="Variation groups, spelt out.")
    corrections: str | None = Field(description="Folder of the correction set.")
    corrections_digest: str | None
    luminosity: float | None = Field(description="1/pb")
    code: str = Field(description="Digest of the processor's code.")
    unit_events: int


class Problem(BaseModel):
    """What went wrong, as data: the same fields as `binworks.tensors.errors.BinworksError`."""

    model_config = ConfigDict(frozen=True)

    code: str = Field(description="Stable; programs match on it.")
    message: str
    where: str | None = Field(default=None, description="The file, field, job or unit concerned.")
    hint: str | None = Field(default=None, description="What to do about it.")

    @classmethod
    def of(cls, error: BinworksError) -> Problem:
        """Return the error as data."""
        return cls(code=error.code, message=error.message, where=error.where, hint=error.hint)


class UnitCounts(BaseModel):
    """Units of work by state, counted over the ledger."""

    total: int = 0
    done: int = 0
    failed: int = Field(default=0, description="Failed or left out.")
    running: int = 0


class EventCounts(BaseModel):
    """Events of the input, counted over the ledger."""

    total: int = 0
    done: int = 0


class Counts(BaseModel):
    """How far a job is."""

    units: UnitCounts = UnitCounts()
    events: EventCounts = EventCounts()

    @property
    def fraction(self) -> float:
        """Part of the events that is done; 0 before the plan is made."""
        return self.events.done / self.events.total if self.events.total else 0.0


class DatasetProgress(BaseModel):
    """One data set of a job: what it is, and the sums over the units that are done."""

    name: str
    kind: Literal["data", "mc"]
    group: str = Field(description="Process in the fit.")
    cross_section: float | None = Field(description="pb")
    files: int
    units: UnitCounts
    events: EventCounts
    entries: int = Field(default=0, description="Events read.")
    sum_sign: int = Field(
        default=0, description="Sum of the signs of the generator weights over all events read."
    )


class MissingFile(BaseModel):
    """A file, or a range of it, that is not in the result."""

    path: str
    dataset: str
    start: int | None = Field(default=None, description="First entry; none: the whole file.")
    stop: int | None = None
    unit: int | None = Field(
        default=None, description="The unit of work; none: it could not even be indexed."
    )
    error: Problem


class Missing(BaseModel):
    """What a result lacks. Empty for a complete one."""

    events: int = Field(
        default=0,
        description="Events of units left out; files that could not be opened are not counted here.",
    )
    files: list[MissingFile] = Field(default_factory=list, description="The first hundred.")
    n_files: int = Field(default=0, description="How many there are in all.")


class JobView(BaseModel):
    """A job as everybody sees it."""

    id: str
    owner: str
    state: JobState
    note: str | None = Field(
        default=None, description="Why it does not get on, if it does not: no workers, no driver."
    )
    request: JobRequest
    created: datetime
    started: datetime | None = None
    finished: datetime | None = None
    counts: Counts = Counts()
    rate: float | None = Field(default=None, description="Events per second over the last half minute.")
    eta_s: float | None = Field(default=None, description="Seconds to go at this rate.")
    generation: int | None = Field(default=None, description="Latest snapshot that can be read.")
    complete: bool = Field(
        default=False,
        description="Whether every event of the input is in the latest snapshot, and it is final.",
    )
    missing: Missing = Missing()
    luminosity: float | None = Field(default=None, description="1/pb")
    error: Problem | None = None
    traceback: str | None = Field(
        default=None, description="Where in the code; for errors that are the code's."
    )
    datasets: list[DatasetProgress] = Field(default_factory=list)


class UnitView(BaseModel):
    """One unit of work: a few entry ranges of one data set."""

    unit: int
    dataset: str
    state: UnitState
    events: int
    attempts: int
    splits: int = Field(
        default=0,
        description="It is filled in 2**splits steps, for want of memory or time; the bits are the same.",
    )
    files: list[str] = Field(description="Each as path[start:stop].")
    seconds: float | None = None
    reused: bool = Field(default=False, description="Whether an earlier job had filled the same already.")
    worker: str | None = None
    error: Problem | None = None
    traceback: str | None = Field(
        default=None, description="Where in the code; for errors that are the code's."
    )


class GenerationView(BaseModel):
    """One snapshot: an immutable set of histograms that covers a known set of units."""

    n: int
    created: datetime
    final: bool
    complete: bool = Field(description="Final, and no event of the input is missing.")
    fraction: float = Field(description="Part of the events that is in it.")
    events: int
    units: int


EventKind = Literal["state", "progress", "snapshot", "unit-failed", "note"]


class JobEvent(BaseModel):
    """A line of a job's diary; ids grow, so that a reader resumes after the last one it saw.

    ``data`` by kind: ``state`` {state, error}; ``progress`` {counts, rate, eta_s}; ``snapshot``: the fields
    of `GenerationView`; ``unit-failed`` {unit, dataset, state, attempts, error}; ``note`` {note}.
    """

    id: int
    job: str
    kind: EventKind
    time: datetime
    data: dict[str, Any]


class JobPage(BaseModel):
    """Some jobs, newest first, and where the next ones start."""

    jobs: list[JobView]
    next: str | None = Field(default=None, description="Cursor of the next page; none: this is the last.")


class Quota(BaseModel):
    """How much of something an owner uses, and may use."""

    used: float
    limit: float | None = Field(description="None: as much as he likes.")


class Usage(BaseModel):
    """What an owner uses of the service."""

    owner: str
    active_jobs: Quota = Field(description="Jobs that are not finished.")
    queued_units: Quota = Field(description="Units of work of these jobs that are not settled.")
    stored_bytes: Quota = Field(
        description="Of snapshots, of files for fits, and of the partials that his jobs filled."
    )
    cpu_hours: Quota = Field(description="What workers spent on his units in the last 30 days.")


Scope = Literal["read", "submit", "admin"]
