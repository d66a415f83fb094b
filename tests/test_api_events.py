"""A job's diary over REST: in order, once, resumed where it was left, ended with the job."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hand_made_service import HandMade, Served
from sqlalchemy import event
from test_api_jobs import problem

from binworks.api import events, feed
from binworks.api.app import create_app
from binworks.api.auth import admit
from binworks.api.cached import Changes
from binworks.api.feed import Feed
from binworks.api.watch import may_still
from binworks.client.events import Event, parse
from binworks.service import tokens
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


@pytest.mark.parametrize("page", ["/v1/jobs/{}/events", "/jobs/{}/live"])
def test_the_stream_of_a_busy_job_ends_when_it_is_not_shared_any_more(
    served: Served, job: str, page: str
) -> None:
    place, over = f"/v1/jobs/{job}/shares/bob", threading.Event()

    def chatter() -> None:
        for number in range(150):
            served.made.tell(job, "note", {"note": f"number {number}"})
            if over.wait(0.1):
                return

    with served.http() as alice, served.http("bob") as bob:
        assert alice.put(place).status_code == 200
        with bob.stream("GET", page.format(job)) as answer:
            lines = answer.iter_lines()
            next(lines)
            thread = threading.Thread(target=chatter)
            thread.start()
            time.sleep(0.5)
            assert alice.delete(place).status_code == 204
            begin = time.monotonic()
            for _ in lines:
                pass
            ended = time.monotonic() - begin
            over.set()
            thread.join()
    assert ended < 4


def test_a_stream_goes_on_when_the_database_is_away_for_a_moment(tmp_path: Path) -> None:
    made = HandMade.make(tmp_path / "home")
    job = made.submit()
    made.move(job, JobState.RUNNING)
    token = made.tokens["alice"].encode()

    def away(*_: object) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    async def follow() -> None:
        app = create_app(made.settings)
        asked = {"type": "http", "method": "GET", "headers": [(b"authorization", b"Bearer " + token)]}
        async with app.router.lifespan_context(app):
            context = app.state.context
            engine = context.database.engine
            user = await admit(asked, context)
            stream = events._stream(context, user, job, 0, finished=False)
            said = [await anext(stream) for _ in range(4)]  # the last says that there is no driver
            assert b"running" in said[1]
            event.listen(engine, "do_connect", away)
            engine.dispose()
            context.bearers._known.clear()
            for kind in ("still here", "still here"):
                assert kind.encode() in await anext(stream)
                assert await may_still(asked, context)
            event.remove(engine, "do_connect", away)
            made.tell(job, "note", {"note": "here again"})
            while b"here again" not in await anext(stream):
                pass
            tokens.revoke_secret(made.database, token.decode())
            context.bearers._known.clear()
            assert not await may_still(asked, context)
            await stream.aclose()

    asyncio.run(asyncio.wait_for(follow(), 40))
    made.database.close()


@asynccontextmanager
async def listening(served: Served) -> AsyncIterator[Feed]:
    changes = Changes(served.made.database)
    found = Feed(served.made.jobs, changes)
    yield found
    await found.close()
    changes.close()


def test_many_listeners_hear_the_same_from_one_reader_wherever_they_begin(served: Served, job: str) -> None:
    made = served.made
    other = made.submit()
    before = [event.id for event in made.jobs.events(job)]

    async def listen(found: Feed, after: int, last: int) -> list[int]:
        heard: list[int] = []
        async with aclosing(found.subscribe(job, after)) as told:
            async for news in told:
                heard += [event.id for event in news.events]
                if heard and heard[-1] == last:
                    return heard
        raise AssertionError

    async def all_at_once() -> list[list[int]]:
        async with listening(served) as found:
            first = [asyncio.create_task(listen(found, after, before[-1] + 40)) for after in (0, *before)]
            for number in range(20):
                await asyncio.to_thread(made.tell, job, "note", {"note": str(number)})
                await asyncio.to_thread(made.tell, other, "note", {"note": "not mine"})
                first.append(asyncio.create_task(listen(found, before[0], before[-1] + 40)))
            await asyncio.to_thread(made.tell, job, "note", {"note": "last"})
            last = made.jobs.events(job)[-1].id
            for task in first:
                task.cancel()
            again = [asyncio.create_task(listen(found, after, last)) for after in (0, *before)]
            return await asyncio.gather(*again)

    heard = asyncio.run(all_at_once())
    known = [event.id for event in made.jobs.events(job)]
    for after, ids in zip((0, *before), heard, strict=True):
        assert ids == [number for number in known if number > after]


def test_a_slow_listener_misses_nothing_and_nothing_is_kept_for_him(
    served: Served, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "KEPT_EVENTS", 5)
    monkeypatch.setattr(feed, "PAGE", 7)
    made = served.made

    async def listen() -> list[int]:
        heard: list[int] = []
        async with listening(served) as found, aclosing(found.subscribe(job)) as told:
            async for news in told:
                heard += [event.id for event in news.events]
                if len(heard) >= 85:
                    return heard
                if not news.more:  # much happens while he sleeps
                    for _ in range(20):
                        await asyncio.to_thread(made.tell, job, "progress", PROGRESS)
                    await asyncio.sleep(0.2)
                    kept = found._logs[job]
                    assert len(kept.told) <= 5
        return heard

    heard = asyncio.run(listen())
    assert heard == [event.id for event in made.jobs.events(job)][: len(heard)]


def test_a_reader_that_cannot_read_for_a_while_goes_on_where_it_was(
    served: Served, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = served.made

    async def listen() -> list[str]:
        heard: list[str] = []
        async with listening(served) as found, aclosing(found.subscribe(job)) as told:
            read, failed = found._after, []

            def fails_once(place: int) -> Any:
                if not failed:
                    failed.append(place)
                    raise ValueError("a row that cannot be read")
                return read(place)

            async for news in told:
                heard += [event.data["note"] for event in news.events if event.kind == "note"]
                if heard == ["first", "second"]:
                    break
                if not heard and not news.more and not failed:
                    monkeypatch.setattr(found, "_after", fails_once)
                    await asyncio.to_thread(made.tell, job, "note", {"note": "first"})
                    await asyncio.to_thread(made.tell, job, "note", {"note": "second"})
        return heard

    assert asyncio.run(asyncio.wait_for(listen(), 20)) == ["first", "second"]


def test_a_hundred_streams_of_one_process_hear_of_an_event_together(served: Served, job: str) -> None:
    async def run() -> list[float]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(
            base_url=served.url, headers=served.headers(), limits=limits, timeout=60
        ) as http:
            ready = asyncio.Semaphore(0)

            async def follow() -> float:
                async with http.stream("GET", f"/v1/jobs/{job}/events") as answer:
                    seen = 0
                    async for line in answer.aiter_lines():
                        seen += line.startswith("data:")
                        if line.startswith("data:") and seen == 5:
                            ready.release()
                        if "together" in line:
                            return time.monotonic()
                raise AssertionError

            tasks = [asyncio.create_task(follow()) for _ in range(100)]
            for _ in tasks:
                await ready.acquire()
            begin = time.monotonic()
            await asyncio.to_thread(served.made.tell, job, "note", {"note": "together"})
            return [end - begin for end in await asyncio.gather(*tasks)]

    late = asyncio.run(run())
    assert max(late) < 5


def test_asking_for_the_head_of_a_stream_does_not_follow_it(served: Served, job: str) -> None:
    with served.http() as http:
        begin = time.monotonic()
        answer = http.head(f"/v1/jobs/{job}/events")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert time.monotonic() - begin < 2
        assert http.get("/healthz").status_code == 200, "the connection goes on"
