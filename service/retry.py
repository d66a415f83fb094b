"""What a failure means: try again later, leave the unit out, or end the job."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

POISON_KILLS = 3
MOST_SPLITS = 5
MAX_BACKOFF_SECONDS = 300.0
WAITING_SECONDS = 30.0
"""Between two looks whether a full store has space again, or there are fit workers."""


class Kind(StrEnum):
    """What sort of failure."""

    TRANSIENT = "transient"
    """It may work next time: a server, a disk."""
    RESOURCE = "resource"
    """It needs more memory or time than a worker gives: it may work in smaller steps."""
    FULL = "full"
    """The store has no space: nothing can be done but wait for it."""
    UNFIT = "unfit"
    """The worker is at fault, not the job: it has other code than the service, or does not see a disk."""
    INPUT = "input"
    """The input is at fault, and will be next time."""
    SITE = "site"
    """The input is at fault where it was looked for; another site should have the same file."""
    CODE = "code"
    """The code or what was asked is at fault; every unit would fail alike."""
    KILLED = "killed"
    """The worker died while it ran this unit."""


WAITED_FOR = (Kind.FULL, Kind.UNFIT)
"""It is not the job's fault, and it passes when somebody does something: the job says so and waits."""

BAD_FILE = (Kind.INPUT, Kind.SITE)
"""A file is at fault, and may be left out if the job allows it."""


@dataclass(frozen=True)
class Policy:
    """How patient to be.

    Parameters
    ----------
    retries : int
        New tries after passing failures.
    backoff : float
        Seconds before the first; doubles each time.
    skip : bool
        Whether bad input may be left out.
    """

    retries: int
    backoff: float
    skip: bool


@dataclass(frozen=True)
class Again:
    """Try again at a time, in seconds since 1970; in smaller steps, if so decided."""

    at: float
    smaller: bool = False


@dataclass(frozen=True)
class Leave:
    """Leave the unit out and say so."""


@dataclass(frozen=True)
class Fail:
    """End the job."""


Decision = Again | Leave | Fail


def decide(
    kind: Kind, failures: int, kills: int, policy: Policy, now: float, splits: int = MOST_SPLITS
) -> Decision:
    """Return what to do after a failure.

    Parameters
    ----------
    kind : Kind
        Of this failure.
    failures, kills : int
        Earlier failures of this unit, and how many of them killed their worker.
    policy : Policy
        The job's.
    now : float
        Seconds since 1970.
    splits : int
        How often the unit's steps were halved; default: what cannot be done in smaller steps.
    """
    give_up = Leave() if policy.skip else Fail()
    later = now + min(policy.backoff * 2.0 ** min(failures, 32), MAX_BACKOFF_SECONDS)
    splittable = splits < MOST_SPLITS
    if kind == Kind.CODE:
        return Fail()
    if kind in WAITED_FOR:
        return Again(min(later, now + WAITING_SECONDS))
    if kind == Kind.KILLED and kills + 1 < POISON_KILLS:
        return Again(
            later, smaller=splittable
        )  # the kernel kills who takes too much memory, and says nothing
    if kind == Kind.RESOURCE and splittable:
        return Again(later, smaller=True)
    if kind in (Kind.TRANSIENT, Kind.SITE) and failures - kills < policy.retries:
        return Again(later)
    return give_up


def lost_fraction(lost_events: int, events: int, unreadable: int, readable: int) -> float:
    """Return which part of the input is left out.

    Parameters
    ----------
    lost_events, events : int
        Events of units left out, and of all units.
    unreadable, readable : int
        Files whose number of events is not known, each taken for an average one, and the others.
    """
    if not readable:
        return 1.0 if unreadable else 0.0
    unknown = unreadable * max(events / readable, 1.0)
    return (lost_events + unknown) / max(events + unknown, 1.0)
