"""What a batch queue is to be told so that it holds the jobs that are wanted: decided here, done in `batch`.

No clock but the one passed in, no queue: what the queue says comes in, orders go out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

FIRST_PAUSE = 5.0
LONGEST_PAUSE = 600.0
HEALTHY_SECONDS = 60.0
UNSEEN_SECONDS = 30.0
FORCE_SECONDS = 60.0
SETTLE_SECONDS = 10.0
"""A job that runs may not have come to our program yet, and would not hear that it shall drain."""
ABSENCES = 2


class JobState(StrEnum):
    """How a batch job is."""

    PENDING = "pending"
    RUNNING = "running"
    ENDING = "ending"
    """It is on its way out, whoever asked for that."""
    HELD = "held"
    """It will not start unless a person lets it go."""
    ENDED = "ended"
    """It is over, but the queue still remembers why."""


@dataclass(frozen=True)
class Entry:
    """What the queue says of a job.

    Parameters
    ----------
    state : JobState
        How it is.
    reason : str or None
        Why it waits, is held or ended, in the queue's words.
    current : bool
        Whether it runs what would be submitted now, and not what an earlier process of this service submitted.
    """

    state: JobState
    reason: str | None = None
    current: bool = True


@dataclass(frozen=True)
class Orders:
    """What to do now.

    Parameters
    ----------
    submit : int
        New jobs.
    remove, drain : tuple of str
        Jobs that shall go at once, and those that may finish what they are at.
    """

    submit: int = 0
    remove: tuple[str, ...] = ()
    drain: tuple[str, ...] = ()


@dataclass
class Backoff:
    """A pause that doubles with each failure; from the second on, fewer jobs are let through, too."""

    failures: int = 0
    since: float = float("-inf")
    until: float = float("-inf")
    reason: str | None = None

    def fail(self, now: float, reason: str) -> None:
        """Note a failure; more of them within one pause are the same one."""
        self.reason = reason
        if now >= self.until:
            self.since = now
            self.until = now + min(FIRST_PAUSE * 2**self.failures, LONGEST_PAUSE)
            self.failures += 1

    def recover(self) -> None:
        """Note a success: it halves what failures have built up."""
        self.failures //= 2
        if not self.failures:
            self.reason, self.until = None, float("-inf")

    def allowed(self, missing: int, now: float, unproven: int = 0) -> int:
        """Return how many of the missing jobs may be tried now, beside those of which it is not known how they do."""
        if now < self.until:
            return 0
        if not self.failures:
            return missing
        return min(missing, max(0, max(1, (missing + unproven) >> (self.failures - 1)) - unproven))

    def explain(self, now: float) -> str | None:
        """Return the failure and when it is tried again."""
        if self.reason is None:
            return None
        wait = self.until - now
        return f"{self.reason}; next try in {wait:.0f} s" if wait > 0 else self.reason


@dataclass
class _Job:
    submitted: float
    seen: bool = False
    running_since: float | None = None
    healthy: bool = False
    absences: int = 0
    leaves_by: float | None = None
    """It shall go; after this moment by force."""
    told: bool = False
    """It drains."""
    entry: Entry = field(default_factory=lambda: Entry(JobState.PENDING))


class Reconciler:
    """Decides what the queue is told.

    Parameters
    ----------
    grace : float
        Seconds that a drained job may take.
    patience : float
        Seconds after which a job ends by itself if it does not reach the scheduler.
    """

    def __init__(self, grace: float, patience: float) -> None:
        self.wanted = 0
        self.grace = grace
        self.patience = patience
        self.replaced = 0
        self.refusals = Backoff()
        self.deaths = Backoff()
        self._jobs: dict[str, _Job] = {}

    @property
    def running(self) -> int:
        """Jobs that run and shall stay."""
        return sum(job.entry.state == JobState.RUNNING for job in self._staying().values())

    @property
    def unproven(self) -> bool:
        """Whether it matters which jobs have joined the scheduler."""
        return any(job.entry.state == JobState.RUNNING and not job.healthy for job in self._jobs.values())

    def submitted(self, names: Iterable[str], now: float) -> None:
        """Note jobs that the queue took."""
        for name in names:
            self._jobs.setdefault(name, _Job(now))
        self.refusals.recover()

    def refused(self, reason: str, now: float) -> None:
        """Note that the queue took no job."""
        self.refusals.fail(now, reason)

    def not_drained(self, names: Iterable[str]) -> None:
        """Note that an order to drain did not reach the queue."""
        for name in names:
            self._jobs[name].told = False

    def not_removed(self, names: Iterable[str], now: float) -> None:
        """Note that an order to remove did not reach the queue."""
        for name in names:
            self._jobs[name].leaves_by = now

    def decide(
        self, entries: Mapping[str, Entry], now: float, joined: Collection[str] = frozenset()
    ) -> Orders:
        """Return what to do.

        Parameters
        ----------
        entries : mapping
            All jobs of this service that the queue knows. If it did not answer, do not call this.
        now : float
            Seconds on a clock that only goes forward.
        joined : collection of str
            Jobs that have reached the scheduler, as far as that is known.
        """
        for name in sorted(entries, key=_in_order):
            self._note(name, entries[name], now)
            self._prove(name, now, joined)
        for name in [name for name in self._jobs if name not in entries]:
            self._note_absence(name, now)
        forced = self._overdue(now)
        missing = self.wanted - len(self._staying())
        removed = self._dismiss(max(-missing, 0), now)
        submit = 0
        if missing > 0:
            tried = [job for job in self._staying().values() if job.submitted > self.deaths.since]
            unproven = sum(not job.healthy for job in tried)
            submit = min(self.refusals.allowed(missing, now), self.deaths.allowed(missing, now, unproven))
        return Orders(submit, (*forced, *removed), self._to_drain(now))

    def explain(self, now: float) -> str | None:
        """Return why fewer jobs run than are wanted, or None."""
        if self.running >= self.wanted:
            return None
        reasons = [self.refusals.explain(now), self.deaths.explain(now)]
        waiting = [job.entry for job in self._staying().values() if job.entry.state == JobState.PENDING]
        counts = Counter(entry.reason for entry in waiting)
        reasons += [
            f"{count} {'job waits' if count == 1 else 'jobs wait'} in the queue"
            + (f" ({why})" if why else "")
            for why, count in counts.most_common(3)
        ]
        return "; ".join(reason for reason in reasons if reason) or None

    def _staying(self) -> dict[str, _Job]:
        gone = (JobState.ENDING, JobState.HELD)
        return {
            name: job
            for name, job in self._jobs.items()
            if job.leaves_by is None and job.entry.state not in gone
        }

    def _note(self, name: str, entry: Entry, now: float) -> None:
        if entry.state == JobState.ENDED:
            return self._lose(name, entry.reason, now)
        if name not in self._jobs:  # of an earlier process, or of a submission whose answer was lost
            self._jobs[name] = _Job(now, healthy=entry.state == JobState.RUNNING)
        job = self._jobs[name]
        job.seen, job.absences, job.entry = True, 0, entry
        runs = entry.state == JobState.RUNNING
        if runs and not job.healthy and job.running_since is None:
            job.running_since = now
        if job.leaves_by is not None:
            return None
        if entry.state == JobState.HELD:
            job.leaves_by = now
            self.replaced += 1
            self.deaths.fail(now, f"a job was held ({entry.reason or 'the queue does not say why'})")
        elif not entry.current:
            job.leaves_by = now + (self.grace + FORCE_SECONDS if runs else 0.0)
        return None

    def _prove(self, name: str, now: float, joined: Collection[str]) -> None:
        """Note whether a job does what it is for; that it runs says little."""
        job = self._jobs.get(name)
        if job is None or job.healthy or job.running_since is None:
            return
        ran = now - job.running_since
        if ran >= (HEALTHY_SECONDS if name in joined else self.patience + HEALTHY_SECONDS):
            job.healthy = True
            self.deaths.recover()

    def _note_absence(self, name: str, now: float) -> None:
        job = self._jobs[name]
        job.absences += 1
        if not job.seen and now - job.submitted < UNSEEN_SECONDS:
            return
        if job.absences >= ABSENCES:  # one answer may be of a queue that has just been started again
            self._lose(name, None, now)

    def _lose(self, name: str, reason: str | None, now: float) -> None:
        job = self._jobs.pop(name, None)
        if job is None or job.leaves_by is not None:
            return
        self.replaced += 1
        if not job.healthy:
            self.deaths.fail(now, f"a job ended too soon ({reason or 'the queue does not say why'})")

    def _overdue(self, now: float) -> tuple[str, ...]:
        """Return jobs that shall go by force, and give them time to do so."""
        late = tuple(
            name
            for name, job in self._jobs.items()
            if job.leaves_by is not None and job.leaves_by <= now and job.entry.state != JobState.ENDING
        )
        for name in late:
            self._jobs[name].leaves_by = now + FORCE_SECONDS
        return late

    def _dismiss(self, count: int, now: float) -> tuple[str, ...]:
        """Choose jobs that are too many, those that do not run first, then the newest; return those to remove."""
        newest = list(reversed(self._staying().items()))
        chosen = sorted(newest, key=lambda item: item[1].entry.state == JobState.RUNNING)[:count]
        for _, job in chosen:
            runs = job.entry.state == JobState.RUNNING
            job.leaves_by = now + FORCE_SECONDS + (self.grace if runs else 0.0)
        return tuple(name for name, job in chosen if job.entry.state != JobState.RUNNING)

    def _to_drain(self, now: float) -> tuple[str, ...]:
        """Return jobs that shall go and can be told so now."""
        found = []
        for name, job in self._jobs.items():
            settled = job.running_since is None or now - job.running_since >= SETTLE_SECONDS
            if job.leaves_by is not None and job.entry.state == JobState.RUNNING and not job.told and settled:
                job.told = True
                found.append(name)
        return tuple(found)


def _in_order(name: str) -> tuple[tuple[int, str], ...]:
    """Return a key by which job 9 comes before job 10."""
    return tuple((int(digits or 0), text) for text, digits in re.findall(r"(\D*)(\d*)", name))
