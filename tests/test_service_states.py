"""Units and jobs survive kills, twins and restarts: whatever happens, a unit counts once."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binworks.service import jobstate
from binworks.service.fairshare import UNITS_PER_THREAD, Share, choose
from binworks.service.jobstate import InvalidTransitionError
from binworks.service.lease import Lease, LeaseLostError
from binworks.service.model import JobState, UnitState
from binworks.service.retry import POISON_KILLS, Again, Fail, Kind, Leave, Policy, decide, lost_fraction
from binworks.service.units import Status

PATIENT = Policy(retries=4, backoff=1.0, skip=False)
LENIENT = Policy(retries=4, backoff=1.0, skip=True)

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["start", "finish", "fail", "recall"]), st.integers(0, 5), st.sampled_from(list(Kind))
    ),
    max_size=40,
)


@given(STEPS, st.sampled_from([PATIENT, LENIENT]))
def test_a_unit_is_done_at_most_once_whatever_happens_to_its_attempts(
    steps: list[tuple[str, int, Kind]], policy: Policy
) -> None:
    status, tokens, done, now = Status(0), [], 0, 0.0
    for step, which, kind in steps:
        now += 1000.0
        token = tokens[-1 - which] if which < len(tokens) else "foreign"
        if step == "start" and status.state == UnitState.PENDING:
            tokens.append(f"t{len(tokens)}")
            status = status.started(tokens[-1])
        elif step == "recall" and status.state == UnitState.RUNNING:
            status = status.recalled()
        elif step == "finish":
            present = status.current(token)
            after = status.finished(token)
            assert (after is not None) == present
            done += present
            status = after or status
        elif step == "fail":
            decision = decide(kind, status.failures, status.kills, policy, now)
            status = status.failed(token, kind, decision) or status
        assert done <= 1
        assert status.attempts == len(tokens)
        assert status.failures <= policy.retries + POISON_KILLS
    assert (status.state == UnitState.DONE) == (done == 1)


def test_a_late_twin_is_ignored() -> None:
    first = Status(7).started("a")
    second = first.recalled().started("b")
    assert second.finished("a") is None
    assert second.failed("a", Kind.CODE, Fail()) is None
    finished = second.finished("b")
    assert finished is not None
    assert finished.finished("b") is None


def test_an_impossible_step_tells_the_story() -> None:
    with pytest.raises(InvalidTransitionError, match=r"Unit 3 cannot become running \(started\)"):
        Status(3).started("a").started("b")
    story = [["queued", 1.0, "submitted"], ["cancelling", 2.0, "asked for"]]
    with pytest.raises(
        InvalidTransitionError,
        match=r"Job j cannot become running \(taken up\)(.|\n)*1.000 queued: submitted",
    ):
        jobstate.step("j", story, JobState.RUNNING, 3.0, "taken up")


@given(st.lists(st.sampled_from(list(JobState)), max_size=12))
def test_a_finished_job_stays_finished_unless_it_is_tried_again(states: list[JobState]) -> None:
    story = [[str(JobState.QUEUED), 0.0, "submitted"]]
    for state in states:
        before = JobState(story[-1][0])
        try:
            story = jobstate.step("j", story, state, 1.0, "test")
        except InvalidTransitionError:
            assert state not in jobstate.TRANSITIONS[before]
        else:
            assert not before.finished or state == JobState.QUEUED
            assert before != JobState.CANCELLED
    told = [JobState(entry[0]) for entry in story]
    assert sum(state.finished for state in told) <= told.count(JobState.QUEUED)


def test_code_errors_end_the_job_and_bad_input_follows_the_policy() -> None:
    assert decide(Kind.CODE, 0, 0, LENIENT, 0.0) == Fail()
    assert decide(Kind.INPUT, 0, 0, PATIENT, 0.0) == Fail()
    assert decide(Kind.INPUT, 0, 0, LENIENT, 0.0) == Leave()


def test_passing_failures_are_tried_again_later_and_later_but_not_for_ever() -> None:
    waits = [decide(Kind.TRANSIENT, n, 0, PATIENT, 100.0) for n in range(5)]
    assert waits == [Again(101.0), Again(102.0), Again(104.0), Again(108.0), Fail()]
    assert decide(Kind.TRANSIENT, 4, 0, LENIENT, 100.0) == Leave()


def test_a_unit_that_kills_three_workers_is_given_up() -> None:
    decisions = [decide(Kind.KILLED, n, n, LENIENT, 0.0) for n in range(3)]
    assert [type(decision) for decision in decisions] == [Again, Again, Leave]
    assert decide(Kind.KILLED, 2, 2, PATIENT, 0.0) == Fail()


def test_files_of_unknown_size_count_as_average_ones() -> None:
    assert lost_fraction(0, 900, 1, 9) == pytest.approx(0.1)
    assert lost_fraction(90, 900, 0, 9) == pytest.approx(0.1)
    assert lost_fraction(0, 0, 2, 0) == 1.0
    assert lost_fraction(0, 0, 0, 0) == 0.0


SHARES = st.lists(
    st.builds(
        Share,
        job=st.uuids().map(str),
        owner=st.sampled_from("abc"),
        priority=st.integers(-3, 3),
        created=st.floats(0, 1e9),
        in_flight=st.integers(0, 20),
        waiting=st.integers(0, 50),
    ),
    max_size=8,
    unique_by=lambda share: share.job,
)


@given(SHARES, st.integers(0, 16))
def test_the_window_is_filled_and_never_overfilled(shares: list[Share], threads: int) -> None:
    chosen = choose(shares, threads)
    free = max(0, UNITS_PER_THREAD * threads - sum(share.in_flight for share in shares))
    assert len(chosen) == min(free, sum(share.waiting for share in shares))
    assert all(chosen.count(share.job) <= share.waiting for share in shares)


@given(SHARES, st.integers(1, 16))
def test_no_job_gets_a_unit_that_another_has_more_right_to(shares: list[Share], threads: int) -> None:
    chosen = choose(shares, threads)
    held = {share.job: share.in_flight + chosen.count(share.job) for share in shares}
    for share, other in itertools.permutations(shares, 2):
        if share.owner == other.owner and chosen.count(share.job) and chosen.count(other.job) < other.waiting:
            assert held[share.job] / 2.0**share.priority <= (held[other.job] + 1) / 2.0**other.priority


@given(SHARES, st.integers(1, 16))
def test_no_owner_gets_a_unit_that_another_has_more_right_to(shares: list[Share], threads: int) -> None:
    chosen = choose(shares, threads)
    held, given, waiting = Counter[str](), Counter[str](), Counter[str]()
    for share in shares:
        held[share.owner] += share.in_flight + chosen.count(share.job)
        given[share.owner] += chosen.count(share.job)
        waiting[share.owner] += share.waiting - chosen.count(share.job)
    for one, other in itertools.permutations(held, 2):
        if given[one] and waiting[other]:
            assert held[one] <= held[other] + 1


def test_fifty_jobs_of_one_owner_get_no_more_than_one_of_another() -> None:
    many = [Share(f"j{i}", "many", 0, float(i), in_flight=0, waiting=10) for i in range(50)]
    one = Share("only", "one", 0, 99.0, in_flight=0, waiting=10)
    chosen = choose([*many, one], 5)
    assert (len(chosen), chosen.count("only")) == (10, 5)


def test_a_new_job_goes_first_behind_one_that_fills_the_window() -> None:
    long = Share("long", "o", 0, 0.0, in_flight=3, waiting=1000)
    short = Share("short", "o", 0, 1.0, in_flight=0, waiting=2)
    assert choose([long, short], 2) == ["short"]


SECONDS = 10.0
CLOCKS = st.lists(
    st.tuples(
        st.sampled_from(["asks", "renews", "releases", "dies"]),
        st.integers(0, 2),
        st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0, 5.0, 10.0]),
    ),
    max_size=40,
)


@given(CLOCKS)
def test_one_driver_may_write_whatever_the_clocks_show(steps: list[tuple[str, int, float]]) -> None:
    lease, fences, now = Lease("driver 0", 1, SECONDS), {0: 1}, 0.0
    for step, who, passed in steps:
        now += passed
        before = lease
        if step == "asks":
            lease = lease.asked(f"driver {who}", now, SECONDS)
            if lease.fence > before.fence:
                fences[who] = lease.fence
                assert lease.holder == f"driver {who}"
        elif step == "dies":
            fences.pop(who, None)
        elif fences.get(who) == lease.fence:
            lease = (
                lease.renewed(fences[who], now, SECONDS) if step == "renews" else lease.released(fences[who])
            )
        elif who in fences:
            with pytest.raises(LeaseLostError, match=f"number {lease.fence} by now"):
                lease.check(fences[who])
        assert lease.fence in (before.fence, before.fence + 1)
        assert sum(fence == lease.fence for fence in fences.values()) <= 1


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9))
def test_a_dead_drivers_lease_is_given_away_after_its_length_even_if_the_clock_was_set_back(
    expires: float, now: float
) -> None:
    lease = Lease("dead", 7, expires)
    for waited in (0.0, SECONDS / 2, SECONDS):
        lease = lease.asked("waiting", now + waited, SECONDS)
    assert lease.holder == "waiting"
    assert lease.fence > 7


@given(st.floats(0, 1e9), st.lists(st.floats(0.01, 2.5), min_size=1, max_size=20))
def test_a_living_driver_keeps_its_lease_while_others_ask(now: float, pauses: list[float]) -> None:
    lease = Lease("living", 7, now + 1e6)  # given before the clock was set back
    for pause in pauses:
        lease = lease.asked("waiting", now, SECONDS)
        now += pause
        lease = lease.renewed(7, now, SECONDS)
    assert lease == Lease("living", 7, now + SECONDS)


def test_a_lease_that_was_given_back_or_whose_holder_ended_is_free_at_once() -> None:
    lease = Lease("one", 7, 1000.0)
    assert lease.asked("two", 0.0, 1000.0).holder == "one"
    assert lease.asked("two", 0.0, 1000.0, gone=True) == Lease("two", 8, 1000.0)
    assert lease.released(7).asked("two", 0.0, 1000.0) == Lease("two", 8, 1000.0)
