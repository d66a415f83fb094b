"""A job's diary over REST: in order, once, resumed where it was left, ended with the job."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hand_made_service import Served
from test_api_jobs import problem

from binworks.client.events import Event, parse
from binworks.service.model import JobState

pytest_plugins = ["served_fixture"]

PROGRESS = {"counts": {"units": {}, "events": {"done": 5, "total": 10}}, "rate": 5.0, "eta_s": 1.0}


def read(served: Served, job: str, after: int | None = None) -> Iterator[Event]:
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    with served.http() as http, http.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield from parse(answer.iter_lines())


@pytest.fixture
def job(served: Served) -> str:
    """Return a running job with some history."""
    job = served.made.submit()
    served.made.move(job, JobState.RUNNING)
    for _ in range(3):
        served.made.tell(job, "progress", PROGRESS)
    return job


def test_the_stream_has_all_that_happened_and_ends_with_the_job(served: Served, job: str) -> None:
    def finish() -> None:
        time.sleep(0.7)
        served.made.tell(job, "progress", PROGRESS)
        served.made.move(job, JobState.FINALIZING, JobState.SUCCEEDED)

    thread = threading.Thread(target=finish)
    thread.start()
    begin = time.monotonic()
    events = list(read(served, job))
    thread.join()
    assert time.monotonic() - begin < 5
    assert [event.id for event in events] == [event.id for event in served.made.jobs.events(job)]
    assert [event.data["state"] for event in events if event.kind == "state"] == [
        "queued",
        "running",
        "finalizing",
        "succeeded",
    ]
    assert events[-1].is_last
    assert sum(event.kind == "progress" for event in events) == 4


def test_an_event_is_sent_while_the_job_runs_not_at_its_end(served: Served, job: str) -> None:
    stream = read(served, job)
    for _ in range(5):
        next(stream)
    begin = time.monotonic()
    served.made.tell(job, "note", {"note": "no workers"})
    assert next(stream).data == {"note": "no workers"}
    assert time.monotonic() - begin < 2
    stream.close()  # type: ignore[attr-defined]


def test_a_stream_is_resumed_after_any_event_without_gap_or_repeat(served: Served, job: str) -> None:
    served.made.move(job, JobState.FINALIZING, JobState.SUCCEEDED)
    whole = list(read(served, job))
    for cut in range(len(whole)):
        assert list(read(served, job, whole[cut].id)) == whole[cut + 1 :]


def test_resumed_after_the_end_it_is_empty_and_closed(served: Served) -> None:
    assert list(read(served, served.job, 10**12)) == []


def test_events_of_other_jobs_are_not_in_it(served: Served, job: str) -> None:
    other = served.made.submit()
    served.made.move(job, JobState.FINALIZING, JobState.SUCCEEDED)
    mine = {event.id for event in read(served, job)}
    assert mine.isdisjoint(event.id for event in served.made.jobs.events(other))


def test_a_quiet_stream_has_a_heartbeat(served: Served, job: str) -> None:
    with served.http() as http, http.stream("GET", f"/v1/jobs/{job}/events", timeout=15) as answer:
        for line in answer.iter_lines():
            if line.startswith(":"):
                break
        else:
            pytest.fail("the stream ended")


def test_a_last_event_id_that_is_none_is_refused(served: Served, job: str) -> None:
    with served.http() as http:
        problem(http.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": "x"}), 422, "invalid-request")


def test_the_stream_of_a_retried_job_goes_on_after_its_first_end(served: Served, job: str) -> None:
    made = served.made
    made.move(job, JobState.FAILED, error={"code": "io-error", "message": "No answer."})
    made.jobs.retry(job)
    made.move(job, JobState.RUNNING)

    def finish() -> None:
        time.sleep(0.5)
        made.move(job, JobState.FINALIZING, JobState.SUCCEEDED)

    thread = threading.Thread(target=finish)
    thread.start()
    states = [event.data["state"] for event in read(served, job) if event.kind == "state"]
    thread.join()
    assert states == ["queued", "running", "failed", "queued", "running", "finalizing", "succeeded"]


def test_a_reader_hears_that_no_driver_is_at_work(served: Served, job: str) -> None:
    stream = read(served, job)
    seen = [next(stream) for _ in range(6)]
    stream.close()  # type: ignore[attr-defined]
    assert "No driver" in seen[-1].data["note"]
    assert seen[-1].id == seen[-2].id, "it is not in the diary: a reader resumes after the event before"


def test_the_stream_of_a_job_that_is_deleted_meanwhile_ends(served: Served, job: str) -> None:
    made = served.made
    made.move(job, JobState.FAILED, error={"code": "io-error", "message": "No answer."})
    for _ in range(500):
        made.tell(job, "note", {"note": "late"})
    made.jobs.retry(job)
    stream = read(served, job)
    next(stream)
    made.move(job, JobState.CANCELLING, JobState.CANCELLED)
    made.jobs.delete(job)
    for _ in stream:
        pass
