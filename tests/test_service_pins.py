"""Who reads a snapshot pins it, for the price of one small query a read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hand_made_service import ApiProcess, HandMade
from sqlalchemy import delete, event, insert, select

from binworks.service import database as database_module
from binworks.service import gc, layout
from binworks.service.database import Database, generations, pins
from binworks.service.pins import Pins
from binworks.tensors.errors import ConflictError, RequestError


@pytest.fixture
def made(tmp_path: Path) -> Iterator[HandMade]:
    made = HandMade.make(tmp_path)
    yield made
    made.database.close()


def published(made: HandMade, *numbers: int, final: int | None = None) -> str:
    """Return a job with snapshots of which only the roots are stored."""
    job = made.submit()
    for n in numbers:
        made.store.write_arrays(layout.dataset(job, n, "Wplusmunu"), {}, {})
        made.store.seal(layout.generation(job, n), {"n": n})
        row = {"job": job, "n": n, "published": True, "final": n == final, "created": time.time() - 10_000}
        with made.database.write() as connection:
            connection.execute(insert(generations).values(**row, events=1, units=1, fraction=0.5))
    return job


def until(made: HandMade) -> dict[tuple[str, int], float]:
    with made.database.read() as connection:
        return {(row.job, row.n): row.until for row in connection.execute(select(pins))}


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(*arguments: Any) -> None:
        seen.append(arguments[2])

    event.listen(database.engine, "before_cursor_execute", note)
    yield seen
    event.remove(database.engine, "before_cursor_execute", note)


def test_a_pin_is_written_once_a_minute_and_lasts_an_hour(made: HandMade) -> None:
    job, now = published(made, 1, 2), 1000.0
    reader = Pins(made.database, lambda: now)
    assert reader.pin(job).n == 2
    assert until(made) == {(job, 2): 4600.0}
    now = 1059.0
    reader.pin(job)
    assert until(made) == {(job, 2): 4600.0}
    now = 1061.0
    reader.pin(job, 2)
    reader.pin(job, 1)
    assert until(made) == {(job, 1): 4661.0, (job, 2): 4661.0}
    now = 10.0  # the clock was set back
    reader.pin(job, 1)
    assert until(made)[job, 1] == 3610.0


def test_a_read_costs_one_small_query(made: HandMade) -> None:
    job = published(made, 1)
    reader = Pins(made.database)
    reader.pin(job, 1, "alice")
    with statements(made.database) as seen:
        reader.pin(job, 1, "alice")
    (query,) = [text for text in seen if not text.startswith("BEGIN")]
    assert query.startswith("SELECT generations.")
    assert "units" not in query.split("FROM")[1]


def test_many_threads_write_one_pin(made: HandMade) -> None:
    job = published(made, 1)
    reader = Pins(made.database)
    with statements(made.database) as seen, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: reader.pin(job, 1), range(40)))
    assert sum(text.startswith(("INSERT", "UPDATE")) for text in seen) <= 2


def test_what_is_not_there_is_told_apart(made: HandMade) -> None:
    job, empty = published(made, 2, 5), made.submit()
    reader = Pins(made.database)
    for asked, code in [
        (("nojob",), "unknown-job"),
        ((job, 5, "bob"), "unknown-job"),
        ((job, 9), "unknown-generation"),
    ]:
        with pytest.raises(RequestError) as caught:
            reader.pin(*asked)  # type: ignore[arg-type]
        assert caught.value.code == code
    with pytest.raises(ConflictError) as none_yet:
        reader.pin(empty)
    assert none_yet.value.code == "no-snapshot"
    with pytest.raises(RequestError, match="no snapshot 3 any more") as gone:
        reader.pin(job, 3)
    assert "newest is 5" in str(gone.value.hint)
    assert until(made) == {}


def test_a_snapshot_that_goes_between_look_and_pin_is_not_said_to_be_there(made: HandMade) -> None:
    job = published(made, 1, 2)

    class Late(Pins):
        def _write(self, job: str, n: int | None, owner: str | None) -> Any:
            with made.database.write() as connection:
                connection.execute(delete(generations).where(generations.c.n == 1))
            return super()._write(job, n, owner)

    with pytest.raises(RequestError, match="any more"):
        Late(made.database).pin(job, 1)
    assert Late(made.database).pin(job).n == 2


def test_a_database_that_cannot_be_written_does_not_stop_readers(
    made: HandMade, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = published(made, 1)
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.05)
    impatient = Database(made.settings.database_url)
    with made.database.write():
        assert Pins(impatient).pin(job).n == 1
    assert "without a pin" in caplog.text
    impatient.close()


def test_over_http_a_read_pins_and_what_was_removed_names_the_newest(made: HandMade) -> None:
    job = published(made, 1, 2, 3, final=3)
    headers = {"Authorization": f"Bearer {made.tokens['alice']}"}
    with (
        ApiProcess(made.settings.home, made.settings.port) as api,
        httpx.Client(base_url=f"{api.url}/v1/jobs/{job}/zarr/", headers=headers) as http,
    ):
        assert http.get("2/zarr.json").status_code == 200
        assert set(until(made)) == {(job, 2)}
        gc.collect(made.database, made.store, made.settings, time.time())
        assert http.get("2/zarr.json").status_code == 200
        answer = http.get("1/zarr.json")
    assert answer.status_code == 404
    assert answer.json()["code"] == "unknown-generation"
    assert "newest is 3" in answer.json()["hint"]
