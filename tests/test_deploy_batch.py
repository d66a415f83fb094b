"""What is wanted of a batch queue, whatever the queue does."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from binworks.deploy.reconcile import Entry, JobState, Orders, Reconciler
from binworks.tensors.errors import TransientError

POLL = 5.0
GRACE = 100.0
RUNNING = Entry(JobState.RUNNING)


class Toy:
    """A queue in memory: jobs start when there is room, and end as a test says."""

    def __init__(self, slots: int = 1000) -> None:
        self.slots = slots
        self.entries: dict[str, Entry] = {}
        self.count = 0
        self.drained: list[str] = []
        self.removed: list[str] = []
        self.silent: str | None = None
        self.refusing: str | None = None

    def submit(self, count: int) -> list[str]:
        self._answer(self.refusing)
        names = [str(self.count + n) for n in range(count)]
        self.count += count
        self.entries.update((name, Entry(JobState.PENDING, "Priority")) for name in names)
        return names

    def jobs(self) -> Mapping[str, Entry]:
        self._answer(self.silent)
        return dict(self.entries)

    def drain(self, names: Sequence[str]) -> None:
        self._answer(self.silent)
        self.drained += names

    def remove(self, names: Sequence[str]) -> None:
        self._answer(self.silent)
        self.removed += names
        for name in names:
            self.entries.pop(name, None)

    def of(self, state: JobState) -> list[str]:
        return [name for name, entry in self.entries.items() if entry.state == state]

    def begin(self) -> None:
        """Start what there is room for."""
        room = self.slots - len(self.of(JobState.RUNNING))
        for name in self.of(JobState.PENDING)[: max(room, 0)]:
            self.entries[name] = RUNNING

    def _answer(self, trouble: str | None) -> None:
        if trouble is not None:
            raise TransientError(trouble)


class Story:
    """A reconciler and its queue, and a clock that both share."""

    def __init__(self, queue: Toy, wanted: int, earlier: Sequence[str] = ()) -> None:
        self.queue = queue
        self.reconciler = Reconciler(GRACE, earlier)
        self.reconciler.wanted = wanted
        self.now = 0.0
        self.poll = POLL
        self.orders = Orders()
        self.submissions = 0

    def look(self) -> None:
        """Do what the back end does at each look."""
        self.now += self.poll
        if self.queue.silent is not None:
            return
        orders = self.orders = self.reconciler.decide(self.queue.jobs(), self.now)
        self.queue.remove(orders.remove)
        self.queue.drain(orders.drain)
        if orders.submit:
            try:
                names = self.queue.submit(orders.submit)
            except TransientError as error:
                self.reconciler.refused(str(error), self.now)
            else:
                self.submissions += len(names)
                self.reconciler.submitted(names, self.now)

    def go(self, seconds: float, between: Callable[[], object] = lambda: None) -> None:
        end = self.now + seconds
        while self.now < end:
            self.look()
            between()
            self.queue.begin()

    def staying(self) -> int:
        """Count the jobs that work, or will, and were not told to go."""
        live = {*self.queue.of(JobState.PENDING), *self.queue.of(JobState.RUNNING)}
        return len(live - set(self.queue.drained))


def mischief(queue: Toy, what: str, which: random.Random) -> None:
    names = sorted(queue.entries)
    if what in ("silent", "speaks"):
        queue.silent = "no answer" if what == "silent" else None
    elif what in ("refuses", "takes"):
        queue.refusing = "quota" if what == "refuses" else None
    elif names:
        name = which.choice(names)
        ends = {"hold": JobState.HELD, "end": JobState.ENDED, "ending": JobState.ENDING}
        if what in ends:
            queue.entries[name] = Entry(ends[what], "bad luck")
        else:
            del queue.entries[name]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["silent", "speaks", "refuses", "takes", "hold", "end", "ending", "vanish", "vanish", "scale"]
            ),
            st.integers(0, 12),
            st.integers(1, 60),
        ),
        max_size=25,
    ),
    st.integers(0, 12),
    st.randoms(use_true_random=False),
)
def test_whatever_happens_the_queue_ends_up_with_what_is_wanted_and_never_holds_more(
    events: list[tuple[str, int, int]], wanted: int, which: random.Random
) -> None:
    story = Story(Toy(slots=10), wanted)
    for what, number, seconds in events:
        if what == "scale":
            story.reconciler.wanted = number
        else:
            mischief(story.queue, what, which)
        story.go(seconds)
        assert story.staying() <= 12
    story.queue.silent = story.queue.refusing = None
    for name in (*story.queue.of(JobState.ENDING), *story.queue.of(JobState.ENDED)):
        del story.queue.entries[name]
    story.poll = 30.0
    story.go(3600)
    assert story.staying() == story.reconciler.wanted
    assert story.reconciler.running == min(story.reconciler.wanted, 10)
    before = story.submissions, list(story.queue.drained), list(story.queue.removed)
    story.go(900)
    assert (story.submissions, story.queue.drained, story.queue.removed) == before
    assert len(set(story.queue.drained)) == len(story.queue.drained), "told twice"


def test_a_job_that_dies_is_replaced_at_the_next_look() -> None:
    story = Story(Toy(), 3)
    story.go(600)
    assert len(story.queue.of(JobState.RUNNING)) == 3
    story.queue.entries["1"] = Entry(JobState.ENDED, "NODE_FAIL")
    story.look()
    assert story.orders == Orders(submit=1)
    story.go(60)
    assert story.reconciler.running == 3
    assert story.reconciler.replaced == 1
    assert story.submissions == 4, "it ended once, however long the queue remembers it"


def test_a_job_that_is_missing_in_one_answer_alone_is_not_replaced() -> None:
    story = Story(Toy(), 3)
    story.go(600)
    jobs, story.queue.entries = story.queue.entries, {}
    story.look()
    assert story.orders == Orders()
    story.queue.entries = jobs
    story.go(60)
    assert story.submissions == 3


def test_a_queue_that_does_not_answer_changes_nothing() -> None:
    story = Story(Toy(), 3)
    story.go(600)
    story.queue.silent = "connect failure"
    story.reconciler.wanted = 1
    story.go(1000)
    assert (story.submissions, story.queue.removed, story.queue.drained) == (3, [], [])


def test_refused_jobs_are_tried_later_and_later_fewer_at_a_time_and_the_reason_is_shown() -> None:
    story = Story(Toy(), 200)
    story.queue.refusing = "QOSMaxSubmitJobPerUserLimit"
    tried: list[tuple[float, int]] = []
    story.go(3600, lambda: story.orders.submit and tried.append((story.now, story.orders.submit)))
    pauses = [later - sooner for (sooner, _), (later, _) in pairwise(tried)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 600
    assert [number for _, number in tried[:4]] == [200, 100, 50, 25]
    assert tried[-1][1] == 1
    reason = str(story.reconciler.explain(story.now))
    assert reason.startswith("QOSMaxSubmitJobPerUserLimit; next try in ")
    story.queue.refusing = None
    story.go(3600)
    assert story.reconciler.running == 200
    assert story.reconciler.explain(story.now) is None


@pytest.mark.parametrize("wanted", [1, 8, 200])
def test_a_place_where_every_job_dies_is_not_flooded(wanted: int) -> None:
    story = Story(Toy(), wanted)

    def die() -> None:
        for name in story.queue.of(JobState.RUNNING):
            story.queue.entries[name] = Entry(JobState.ENDED, "FAILED, NonZeroExitCode")

    story.go(3600, die)
    assert story.submissions <= 2 * wanted + 15
    assert "FAILED, NonZeroExitCode" in str(story.reconciler.explain(story.now))
    begin = story.now
    story.go(3600)
    assert story.reconciler.running == wanted
    assert story.reconciler.explain(story.now) is None
    assert story.now == begin + 3600


def test_one_bad_node_among_many_does_not_eat_the_queue() -> None:
    story = Story(Toy(slots=50), 50)
    story.go(600)
    story.queue.slots = 49

    def eat() -> None:  # the bad node takes what finds no other room
        for name in story.queue.of(JobState.PENDING)[:8]:
            if len(story.queue.of(JobState.RUNNING)) >= story.queue.slots:
                story.queue.entries[name] = Entry(JobState.ENDED, "FAILED, NonZeroExitCode")

    story.queue.entries["7"] = Entry(JobState.ENDED, "NODE_FAIL")
    story.go(3600, eat)
    assert story.submissions - 50 < 20
    assert len(story.queue.of(JobState.RUNNING)) == 49


def test_held_jobs_are_removed_and_replaced_with_a_pause() -> None:
    story = Story(Toy(), 2)
    story.go(20)
    story.queue.entries["0"] = Entry(JobState.HELD, "launch failed requeued held")
    story.look()
    assert story.orders == Orders(remove=("0",))
    assert "launch failed requeued held" in str(story.reconciler.explain(story.now))
    story.go(30)
    assert story.reconciler.running == 2


def test_what_waits_goes_first_then_the_newest_and_it_drains() -> None:
    story = Story(Toy(slots=4), 6)
    story.go(600)
    story.reconciler.wanted = 3
    story.look()
    assert set(story.orders.remove) == {"4", "5"}
    assert story.orders.drain == ("3",)


def test_a_job_that_has_just_begun_is_told_to_drain_a_little_later() -> None:
    story = Story(Toy(), 1)
    story.go(10)
    story.reconciler.wanted = 0
    story.look()
    assert story.orders == Orders()
    assert story.reconciler.running == 0
    story.go(15)
    assert story.queue.drained == ["0"]


def test_a_draining_job_does_not_count_and_is_left_alone_until_its_grace_is_over() -> None:
    story = Story(Toy(), 2)
    story.go(600)
    story.reconciler.wanted = 1
    story.look()
    story.reconciler.wanted = 2
    begin = story.now
    story.go(50)
    assert story.reconciler.running == 2
    assert len(story.queue.of(JobState.RUNNING)) == 3
    while not story.queue.removed:
        story.look()
    assert GRACE < story.now - begin < GRACE + 70
    assert story.queue.removed == story.queue.drained == ["1"]


def test_jobs_are_taken_over_by_the_next_service_and_none_is_told_to_drain_twice() -> None:
    story = Story(Toy(), 4)
    story.go(600)
    story.reconciler.wanted = 3
    story.look()
    again = Story(story.queue, 3, earlier=story.reconciler.draining)
    again.go(60)
    assert again.submissions == 0
    assert story.queue.drained == ["3"]
    assert again.reconciler.running == 3


def test_an_order_that_did_not_reach_the_queue_is_given_again() -> None:
    reconciler = Reconciler(GRACE)
    reconciler.submitted("ab", 0)
    reconciler.wanted = 1
    entries = {"a": RUNNING, "b": RUNNING}
    reconciler.decide(entries, 1)
    assert reconciler.decide(entries, 20) == Orders(drain=("b",))
    reconciler.not_drained(["b"])
    assert reconciler.decide(entries, 25) == Orders(drain=("b",))
    entries["a"] = Entry(JobState.HELD)
    assert reconciler.decide(entries, 30).remove == ("a",)
    reconciler.not_removed(["a"], 30)
    assert reconciler.decide(entries, 35).remove == ("a",)


def test_job_nine_is_older_than_job_ten() -> None:
    reconciler = Reconciler(GRACE)
    reconciler.wanted = 1
    entries = {"10": RUNNING, "9": RUNNING}
    assert reconciler.decide(entries, 1).drain == ("10",)
