"""The life of a job, as a table: which state may follow which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from binworks.service.model import JobState

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLING}),
    JobState.RUNNING: frozenset({JobState.FINALIZING, JobState.FAILED, JobState.CANCELLING}),
    JobState.FINALIZING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLING}),
    JobState.CANCELLING: frozenset({JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset({JobState.QUEUED}),  # if its result lacks events, on request
    JobState.FAILED: frozenset({JobState.QUEUED}),  # on request
    JobState.CANCELLED: frozenset(),
}
FINISHED = tuple(state for state in JobState if state.finished)
ACTIVE = tuple(state for state in JobState if not state.finished)

Story = Sequence[Sequence[Any]]
"""What happened so far: (state, seconds since 1970, why)."""


class InvalidTransitionError(RuntimeError):
    """A step that the table does not have; a mistake of ours, so it tells the whole story."""

    def __init__(self, what: str, story: Story, state: str, why: str) -> None:
        told = "".join(f"\n  {time:.3f} {name}: {reason}" for name, time, reason in story)
        super().__init__(f"{what} cannot become {state} ({why}). What happened:{told}")


def step(job: str, story: Story, state: JobState, now: float, why: str) -> list[list[Any]]:
    """Return the story with one more state.

    Parameters
    ----------
    job : str
        For the message.
    story : sequence of (state, time, why)
        The last entry is the present state.
    state : JobState
        The next one.
    now : float
        Seconds since 1970.
    why : str
        In a few words.

    Raises
    ------
    InvalidTransitionError
        If the table has no such step.
    """
    if state not in TRANSITIONS[JobState(story[-1][0])]:
        raise InvalidTransitionError(f"Job {job}", story, state, why)
    return [*(list(entry) for entry in story), [str(state), now, why]]
