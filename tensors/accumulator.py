"""What a unit of work fills, a partial stores and a merge adds: named histograms and named counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from binworks.tensors.errors import PhysicsError
from binworks.tensors.histogram import Histogram

KEPT_EXAMPLES = 10


@dataclass
class Accumulator:
    """Named histograms and counts that add up; one that a part lacks is zero there.

    Parameters
    ----------
    histograms : dict
        Nominal and the compact blocks of the variation groups.
    counts : dict
        Exact integers: ``entries`` (events read), ``selected``, ``sum_sign`` (sum of sign(genWeight) over all
        events read), the cut flow ``cut/<name>`` and the oddities ``odd/<name>``.
    examples : dict
        The first few events (run:lumi:event) behind the oddities.
    """

    histograms: dict[str, Histogram] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def __iadd__(self, other: Accumulator) -> Accumulator:
        for name, theirs in other.histograms.items():
            mine = self.histograms.get(name)
            self.histograms[name] = theirs.copy() if mine is None else mine.add(theirs, name)
        for name, count in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        for kind, events in other.examples.items():
            for event in events:
                self.note(kind, event)
        return self

    def __add__(self, other: Accumulator) -> Accumulator:
        return self.copy().__iadd__(other)

    def copy(self) -> Accumulator:
        """Return a deep copy of the arrays."""
        histograms = {name: histogram.copy() for name, histogram in self.histograms.items()}
        return Accumulator(
            histograms, dict(self.counts), {kind: list(events) for kind, events in self.examples.items()}
        )

    def note(self, kind: str, event: str) -> None:
        """Keep the event as an example, if there are few yet."""
        events = self.examples.setdefault(kind, [])
        if len(events) < KEPT_EXAMPLES:
            events.append(event)

    @property
    def nbytes(self) -> int:
        """Bytes held by the arrays."""
        return sum(
            h.values.nbytes + (h.variances.nbytes if h.variances is not None else 0)
            for h in self.histograms.values()
        )


def ordered_sum(parts: Iterable[Accumulator]) -> Accumulator:
    """Add the parts from left to right; the order fixes the last bit of every sum.

    Raises
    ------
    ValueError
        If there is no part.
    """
    iterator = iter(parts)
    try:
        total = next(iterator).copy()
    except StopIteration:
        raise ValueError("nothing to sum") from None
    for part in iterator:
        total += part
    return total


def check_oddities(
    counts: Mapping[str, int], examples: Mapping[str, Sequence[str]], limit: float = 1e-6
) -> None:
    """Refuse sums from which too many events were left out because a number was not finite.

    Raises
    ------
    PhysicsError
        ``not-finite``, with the counts and the first events.
    """
    odd = {
        name.removeprefix("odd/"): count
        for name, count in counts.items()
        if name.startswith("odd/") and count
    }
    entries = counts.get("entries", 0)
    if sum(odd.values()) > limit * entries:
        listed = ", ".join(f"{count} with {name}" for name, count in odd.items())
        first = ", ".join(event for events in examples.values() for event in events)
        raise PhysicsError(
            f"Of {entries} events {listed}: more than the fraction {limit:g} that is allowed. "
            f"The first are {first} (run:lumi:event).",
            code="not-finite",
        )
