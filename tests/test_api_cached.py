"""What is kept between requests is never older than a request, made once, and bounded."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import postgres_server
import pytest
from pydantic import BaseModel
from sqlalchemy import insert, update

from binworks.api.cached import UNSEEN_SECONDS, VIEW_BYTES, Changes, Shelf, View, Views
from binworks.service.database import Database, tokens

ROW = {"hash": "h", "owner": "0", "scopes": [], "created": 0.0, "expires": 0.0}


class Number(BaseModel):
    """What is kept here."""

    value: int


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'jobs.sqlite'}"
        return
    reason = postgres_server.why_not()
    if reason:
        pytest.skip(reason)
    with postgres_server.serving() as running:
        yield running.new_database()


@pytest.fixture
def databases(address: str) -> Iterator[tuple[Database, Database]]:
    """Return a database as this process has it, and as another has it."""
    ours, others = Database(address), Database(address)
    ours.create_tables()
    with ours.write() as connection:
        connection.execute(insert(tokens).values(**ROW))
    yield ours, others
    ours.close()
    others.close()


def put(database: Database, value: int) -> None:
    with database.write() as connection:
        connection.execute(update(tokens).values(owner=str(value)))


def number(database: Database) -> Number:
    with database.read() as connection:
        return Number(value=int(connection.execute(tokens.select()).one().owner))


def test_a_change_is_seen_at_once_or_after_a_quarter_of_a_second_if_another_made_it(
    databases: tuple[Database, Database],
) -> None:
    ours, others = databases
    made = 0

    async def run() -> None:
        changes = Changes(ours)
        views = Views(changes)

        def make() -> Number:
            nonlocal made
            made += 1
            return number(ours)

        async def seen() -> int:
            return (await views.view("number", make)).model.value

        for value in range(1, 6):
            await asyncio.to_thread(put, ours, value)
            assert await seen() == value
        if ours.engine.dialect.name != "sqlite":
            await asyncio.sleep(UNSEEN_SECONDS)
        for value in range(6, 10):
            await asyncio.to_thread(put, others, value)
            if ours.engine.dialect.name != "sqlite":
                await asyncio.sleep(1.1 * UNSEEN_SECONDS)
            assert await seen() == value
        changes.close()

    asyncio.run(run())
    assert made <= 15


def test_what_has_not_changed_is_not_made_again_within_a_second(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    database.create_tables()

    async def run() -> int:
        changes = Changes(database)
        views, made = Views(changes), []
        begin = time.monotonic()
        while time.monotonic() - begin < 1.5:
            await views.view("number", lambda: made.append(1) or Number(value=1))  # type: ignore[func-returns-value]
            await asyncio.sleep(0.001)
        changes.close()
        return len(made)

    assert asyncio.run(run()) in (2, 3)
    database.close()


def test_many_who_ask_at_once_have_it_made_once_and_none_gets_what_is_older_than_his_question(
    tmp_path: Path,
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    database.create_tables()
    with database.write() as connection:
        connection.execute(insert(tokens).values(**ROW))
    begun: list[float] = []
    gate = threading.Event()

    def slow() -> Number:
        begun.append(time.monotonic())
        gate.wait(5)
        return Number(value=len(begun))

    async def run() -> None:
        changes = Changes(database)
        views = Views(changes)
        first = asyncio.create_task(views.view("slow", slow))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(put, database, 1)
        late = [asyncio.create_task(views.view("slow", slow)) for _ in range(20)]
        await asyncio.sleep(0.05)
        assert len(begun) == 1
        gate.set()
        assert (await first).model.value == 1
        assert {view.model.value for view in await asyncio.gather(*late)} == {2}
        changes.close()

    asyncio.run(run())
    assert len(begun) == 2
    database.close()


def test_an_error_is_told_to_all_who_asked_and_is_not_kept(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    database.create_tables()
    works = False

    def make() -> Number:
        if not works:
            raise ValueError("not yet")
        return Number(value=1)

    async def run() -> None:
        nonlocal works
        changes = Changes(database)
        views = Views(changes)
        answers = await asyncio.gather(*(views.view("n", make) for _ in range(5)), return_exceptions=True)
        assert all(isinstance(answer, ValueError) for answer in answers)
        works = True
        assert (await views.view("n", make)).model.value == 1
        changes.close()

    asyncio.run(run())
    database.close()


@pytest.mark.parametrize("outcome", ["too large", "error"])
def test_many_who_ask_meanwhile_share_one_more_even_if_it_cannot_be_kept(
    tmp_path: Path, outcome: str
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    database.create_tables()
    made: list[int] = []

    def make() -> int:
        made.append(1)
        time.sleep(0.2)
        if outcome == "error":
            raise ValueError("not now")
        return len(made)

    async def run() -> None:
        changes = Changes(database)
        views = Views(changes)

        async def ask() -> object:
            return await views.get("large", make, lambda _: VIEW_BYTES)

        first = asyncio.create_task(ask())
        await asyncio.sleep(0.05)
        late = await asyncio.gather(*(ask() for _ in range(20)), return_exceptions=True)
        if outcome == "error":
            assert all(isinstance(answer, ValueError) for answer in late)
            with pytest.raises(ValueError, match="not now"):
                await first
        else:
            assert (await first, set(late)) == (1, {2})
        changes.close()

    asyncio.run(run())
    assert len(made) == 2
    database.close()


def test_one_who_goes_away_takes_the_answer_from_nobody(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    database.create_tables()

    async def run() -> None:
        changes = Changes(database)
        views = Views(changes)
        make = lambda: time.sleep(0.2) or Number(value=1)  # type: ignore[func-returns-value]  # noqa: E731
        impatient = asyncio.create_task(views.view("n", make))
        await asyncio.sleep(0.05)
        patient = asyncio.create_task(views.view("n", make))
        impatient.cancel()
        assert (await patient).model.value == 1
        changes.close()

    asyncio.run(run())
    database.close()


def test_the_shelf_lets_go_of_what_is_used_least_and_takes_nothing_too_large() -> None:
    shelf = Shelf(limit=100)
    for name in "abcde":
        shelf.put(name, name.upper(), 20)
    assert shelf.get("a") == "A"
    shelf.put("f", "F", 25)
    assert [shelf.get(name) for name in "abcdef"] == ["A", None, None, "D", "E", "F"]
    assert shelf.nbytes == 85
    shelf.put("f", "F2", 10)
    assert (shelf.get("f"), shelf.nbytes) == ("F2", 70)
    shelf.put("huge", "H", 26)
    assert shelf.get("huge") is None


def test_the_tag_of_a_view_is_that_of_its_bytes() -> None:
    one, same, other = (View.of(Number(value=value)) for value in (1, 1, 2))
    assert one == same
    assert one.body == b'{"value":1}'
    assert one.etag != other.etag
