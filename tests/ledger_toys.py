"""A clock that is set by hand, and jobs brought into any state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from binworks.processors import registry
from binworks.processors.dataset import Dataset
from binworks.service.jobs import Jobs
from binworks.service.ledger import Ledger, Settled
from binworks.service.model import JobRequest, JobState, ResolvedJob
from binworks.service.plan import Piece, Unit
from binworks.service.quotas import Limits
from binworks.service.retry import Fail, Kind, Leave
from binworks.service.tasks import Failure, Receipt
from binworks.service.units import Status

PATH = "/d/f.root"
RECEIPT = Receipt("d", {"entries": 10, "sum_sign": 8}, 100, 1.0, reused=False)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def resolved(label: str | None = None, *, path: str = PATH, **asked: Any) -> ResolvedJob:
    """Return a job of the code that runs."""
    dataset = Dataset(name="W", files=(path,), cross_section=2.0)
    return ResolvedJob(
        request=JobRequest(processor="w_mass", datasets=[dataset], label=label, **asked),
        datasets=(dataset,),
        options={},
        systematics=(),
        corrections=None,
        corrections_digest=None,
        luminosity=10.0,
        code=registry.code_digest("w_mass"),
        unit_events=10,
    )


def planned(
    jobs: Jobs,
    ledger: Ledger,
    count: int = 3,
    *,
    asked: ResolvedJob | None = None,
    piece: tuple[str, int] = ("u", 1),
    unreadable: Sequence[dict[str, Any]] = (),
) -> str:
    """Return a running job with units of ten events."""
    asked = asked or resolved()
    job = jobs.create(asked, "me")[0].id
    ledger.move(job, JobState.RUNNING, "test")
    path = asked.datasets[0].files[0]
    pieces = [Piece(path, *piece, 10 * i, 10 * i + 10) for i in range(count)]
    units = [Unit(i, "W", (piece,), i / count) for i, piece in enumerate(pieces)]
    names = [f"p{i}" for i in range(count)]
    ledger.write_plan(job, units, names, [f"b{i}" for i in range(count)], unreadable, Limits())
    return job


def done(job: str, status: Status, receipt: Receipt = RECEIPT) -> Settled:
    """Return a success."""
    finished = status.finished(str(status.token))
    assert finished is not None
    return Settled(job, str(status.token), finished, "W", receipt, "tcp://w")


def lost(job: str, status: Status, code: str, *, skip: bool = False) -> Settled:
    """Return a failure for good."""
    kind = Kind.CODE if code == "code-failed" else Kind.INPUT
    failure = Failure(kind, code, "It went wrong.", PATH, "Mend it.", "Traceback: line 1")
    after = status.failed(str(status.token), kind, Leave() if skip else Fail())
    assert after is not None
    return Settled(job, str(status.token), after, "W", failure, "tcp://w")


def fill(ledger: Ledger, job: str, units: Sequence[int], receipt: Receipt = RECEIPT) -> None:
    """Let units be done."""
    for unit in units:
        status = Status(unit).started(f"t{unit}")
        ledger.start(job, [status])
        assert ledger.settle([done(job, status, receipt)]) == [True]


def lose(ledger: Ledger, job: str, unit: int, code: str, *, skip: bool = False) -> None:
    """Let a unit fail, or be left out."""
    status = Status(unit).started(f"t{unit}")
    ledger.start(job, [status])
    assert ledger.settle([lost(job, status, code, skip=skip)]) == [True]


def publish(ledger: Ledger, job: str, *, complete: bool, final: bool = True) -> int:
    """Let a snapshot be there."""
    n = ledger.new_generation(job)
    covered = {"events": 30 if complete else 20, "units": 3 if complete else 2}
    facts = {"final": final, "complete": complete, "fraction": covered["events"] / 30, **covered}
    ledger.publish(job, n, facts)
    return n


def end(ledger: Ledger, job: str, *, complete: bool) -> None:
    """Let a job succeed."""
    ledger.move(job, JobState.FINALIZING, "test")
    publish(ledger, job, complete=complete)
    ledger.move(job, JobState.SUCCEEDED, "test")


def fail(ledger: Ledger, job: str, code: str = "missing-file") -> None:
    """Let a job fail."""
    failure = Failure(Kind.INPUT, code, "It went wrong.", PATH, None, "Traceback: line 1")
    ledger.move(job, JobState.FAILED, code, failure)
