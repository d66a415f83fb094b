"""Watching a job: every event once, over restarts of the service."""

from __future__ import annotations

import threading
import time

import pytest
from hand_made_service import ApiProcess, Served, free_port

from binworks.client import Client, Event, events
from binworks.client.address import Address
from binworks.client.transport import Transport
from binworks.service.model import JobState
from binworks.tensors.errors import RequestError, TransientError

pytest_plugins = ["served_fixture"]


def test_watching_ends_with_the_job(served: Served) -> None:
    with served.client() as client:
        found = list(client.job(served.job).watch())
        assert list(client.job(served.job).watch(after=found[-2].id)) == found[-1:]
        assert list(client.job(served.job).watch(after=found[-1].id)) == []
    assert [event.kind for event in found] == ["state", "state", "snapshot", "state", "state"]
    assert found[-1].is_last


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_watcher_outlives_the_service_and_sees_every_event_once(served: Served, end: str) -> None:
    made = served.made
    home = made.settings.home
    job = made.submit()
    found: list[Event] = []
    with ApiProcess(home, free_port()) as api, Client(api.url, made.tokens["alice"]) as client:
        watcher = threading.Thread(target=lambda: found.extend(client.job(job).watch()))
        watcher.start()
        made.move(job, JobState.RUNNING)
        for number in range(4):
            made.tell(job, "note", {"note": f"before {number}"})
        time.sleep(0.7)
        getattr(api, end)()
        for number in range(4):
            made.tell(job, "note", {"note": f"while away {number}"})
        api.start()
        made.tell(job, "note", {"note": "after"})
        made.move(job, JobState.FINALIZING, JobState.SUCCEEDED)
        watcher.join(20)
        assert not watcher.is_alive()
    assert [event.id for event in found] == [event.id for event in made.jobs.events(job)]


def test_a_watcher_of_a_retried_job_sees_all_its_runs(served: Served) -> None:
    made = served.made
    job = made.submit()
    made.move(job, JobState.RUNNING, JobState.FAILED, error={"code": "io-error", "message": "No answer."})
    with served.client() as client:
        before = list(client.job(job).watch())
        assert before[-1].data["state"] == "failed"
        client.job(job).retry()
        made.move(job, JobState.RUNNING, JobState.FINALIZING, JobState.SUCCEEDED)
        whole = list(client.job(job).watch())
        rest = list(client.job(job).watch(after=before[-1].id))
    assert whole == before + rest
    assert [event.data["state"] for event in rest] == ["queued", "running", "finalizing", "succeeded"]


def test_a_watcher_gives_up_when_the_service_stays_away() -> None:
    transport = Transport(Address(f"http://127.0.0.1:{free_port()}", "x"))
    with pytest.raises(TransientError) as error:
        list(events.follow(transport, "/v1/jobs/x/events", patience=1.0))
    assert error.value.code == "cannot-connect"
    transport.close()


def test_watching_an_unknown_job_is_an_error_at_once(served: Served) -> None:
    with served.client() as client, pytest.raises(RequestError) as error:
        list(client.job("nosuchjob2").watch())
    assert error.value.code == "unknown-job"


def test_half_an_event_is_dropped_and_comments_are_skipped() -> None:
    whole = 'data: {"id": 3, "kind": "note", "time": "t", "data": {}}'
    lines = ["retry: 1000", "", ": still here", "", "id: 3", "event: note", whole, "", "id: 4", whole]
    assert [event.id for event in events.parse(lines)] == [3]
