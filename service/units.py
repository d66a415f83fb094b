"""The life of a unit of work, as a table of states and pure steps between them.

Every attempt has a token of its own. Only the present attempt's outcome counts; what an earlier one still
delivers (a late twin) is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from binworks.service.jobstate import InvalidTransitionError
from binworks.service.model import UnitState
from binworks.service.retry import Again, Decision, Kind, Leave

TRANSITIONS: dict[UnitState, frozenset[UnitState]] = {
    UnitState.PENDING: frozenset({UnitState.RUNNING}),
    UnitState.RUNNING: frozenset({UnitState.PENDING, UnitState.DONE, UnitState.SKIPPED, UnitState.FAILED}),
    UnitState.DONE: frozenset({UnitState.PENDING}),
    UnitState.SKIPPED: frozenset({UnitState.PENDING}),
    UnitState.FAILED: frozenset({UnitState.PENDING}),
}


@dataclass(frozen=True)
class Status:
    """Where a unit is.

    Parameters
    ----------
    unit : int
        Its number, for messages.
    state : UnitState
        Present state.
    token : str or None
        Of the present attempt; None between attempts.
    attempts, failures, kills : int
        How often it was started, how often it failed, and how many workers died of it.
    not_before : float
        When the next attempt may start, seconds since 1970.
    splits : int
        It is filled in ``2**splits`` steps.
    """

    unit: int
    state: UnitState = UnitState.PENDING
    token: str | None = None
    attempts: int = 0
    failures: int = 0
    kills: int = 0
    not_before: float = 0.0
    splits: int = 0

    def started(self, token: str) -> Status:
        """Return it with a new attempt under way."""
        return self._to(UnitState.RUNNING, "started", token=token, attempts=self.attempts + 1)

    def finished(self, token: str) -> Status | None:
        """Return it done; None if the token is not the present attempt's."""
        return self._to(UnitState.DONE, "finished") if self.current(token) else None

    def failed(self, token: str, kind: Kind, decision: Decision) -> Status | None:
        """Return it after a failure, as was decided; None if the token is not the present attempt's."""
        if not self.current(token):
            return None
        counted = replace(self, failures=self.failures + 1, kills=self.kills + (kind == Kind.KILLED))
        if isinstance(decision, Again):
            splits = self.splits + decision.smaller
            return counted._to(UnitState.PENDING, "failed", token=None, not_before=decision.at, splits=splits)
        state = UnitState.SKIPPED if isinstance(decision, Leave) else UnitState.FAILED
        return counted._to(state, "failed")

    def recalled(self) -> Status:
        """Return it waiting again: its attempt is lost through no fault of its own."""
        return self._to(UnitState.PENDING, "recalled", token=None)

    def reopened(self) -> Status:
        """Return it waiting again, though it was settled: what it stored is lost, or its user asks for another try."""
        if not self.settled:
            raise InvalidTransitionError(f"Unit {self.unit}", self._story(), UnitState.PENDING, "reopened")
        fresh = Status(self.unit, self.state, attempts=self.attempts, splits=self.splits)
        return fresh._to(UnitState.PENDING, "reopened")

    @property
    def settled(self) -> bool:
        """Whether nothing is to be done for it."""
        return self.state in (UnitState.DONE, UnitState.SKIPPED, UnitState.FAILED)

    def current(self, token: str) -> bool:
        """Whether the token is the present attempt's."""
        return self.state == UnitState.RUNNING and self.token == token

    def _to(self, state: UnitState, why: str, **changes: object) -> Status:
        if state not in TRANSITIONS[self.state]:
            raise InvalidTransitionError(f"Unit {self.unit}", self._story(), state, why)
        return replace(self, state=state, **changes)  # type: ignore[arg-type]

    def _story(self) -> list[tuple[str, float, str]]:
        return [(str(self.state), 0.0, f"attempt {self.attempts}, {self.failures} failures")]
