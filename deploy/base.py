"""What a cluster back end is: five methods. It keeps the workers that were asked for alive, and says how that goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class ClusterStatus:
    """How a back end is.

    Parameters
    ----------
    scheduler : bool
        Whether the scheduler's process lives.
    wanted, alive : int
        Workers asked for, and those whose process lives.
    restarts : int
        How often a process ended by itself and was started again.
    reason : str or None
        Why there are fewer than wanted, as far as the back end knows.
    """

    scheduler: bool
    wanted: int
    alive: int
    restarts: int = 0
    reason: str | None = None


class Backend(Protocol):
    """A place where the scheduler and the workers run.

    What dies is started again by the back end, for as long as it is not closed.
    """

    def start(self) -> None:
        """Start the scheduler; does not wait for it.

        Raises
        ------
        TransientError
            If the place cannot be reached.
        """
        ...

    def scale(self, workers: int) -> None:
        """Ask for this many workers; does not wait for them."""
        ...

    def address(self) -> str:
        """Return the address of the scheduler; it stays the same when the scheduler is started again."""
        ...

    def status(self) -> ClusterStatus:
        """Return how things are."""
        ...

    def close(self) -> None:
        """End the workers, then the scheduler; returns when all have ended."""
        ...
