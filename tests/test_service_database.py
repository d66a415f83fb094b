"""The job database on SQLite and on PostgreSQL: the same promises, with real servers that are really killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import postgres_server
import pytest
import service_toys
from driver_bench import Bench, HereCluster
from postgres_server import PASSWORD, Server
from service_toys import Running, registered, serial, write_all
from sqlalchemy import MetaData, insert, inspect, select
from sqlalchemy.exc import IntegrityError, OperationalError

from binworks.processors.dataset import Dataset
from binworks.service import access, tokens
from binworks.service import database as tables
from binworks.service.database import CONNECTIONS, Database, metadata
from binworks.service.exports import STALE_SECONDS, Ask, ClaimLostError, Exports
from binworks.service.jobs import Jobs, add_event
from binworks.service.lease import LeaseLostError
from binworks.service.ledger import Ledger, Settled
from binworks.service.model import JobRequest, JobState, JobView, ResolvedJob, UnitState
from binworks.service.plan import Piece, Unit
from binworks.service.quotas import Limits
from binworks.service.retry import Again, Kind
from binworks.service.tasks import Failure, Receipt
from binworks.service.units import Status
from binworks.tensors.card import Card
from binworks.tensors.errors import ConflictError, RequestError

FILES, EVENTS = 5, 4000
OLD_SCHEMA = Path(__file__).parent / "old_schema.sql"
RECEIPT = Receipt("d", {"entries": 10, "sum_sign": 8}, 100, 1.0, reused=False)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    reason = postgres_server.why_not()
    if reason:
        pytest.skip(reason)
    with postgres_server.serving() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of a new database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'other.sqlite'}"
    running: Server = request.getfixturevalue("server")
    return running.new_database()


@pytest.fixture
def database(address: str) -> Iterator[Database]:
    opened = Database(address)
    opened.create_tables()
    yield opened
    opened.close()


@pytest.fixture
def opened() -> Iterator[Callable[[str], Database]]:
    made: list[Database] = []

    def one(address: str) -> Database:
        made.append(Database(address))
        return made[-1]

    yield one
    for database in made:
        database.close()


def resolved() -> ResolvedJob:
    dataset = Dataset(name="W", files=("/d/f.root",), cross_section=2.0)
    return ResolvedJob(
        request=JobRequest(processor="w_mass", datasets=[dataset]),
        datasets=(dataset,),
        options={},
        systematics=(),
        corrections=None,
        corrections_digest=None,
        luminosity=10.0,
        code="c",
        unit_events=10,
    )


def leader(database: Database, name: str = "elsewhere:1", seconds: float = 1000.0) -> Ledger:
    ledger = Ledger(database)
    assert ledger.take_over(name, seconds)
    return ledger


def planned(database: Database, ledger: Ledger, count: int = 3) -> str:
    job = Jobs(database).create(resolved(), "me")[0].id
    ledger.move(job, JobState.RUNNING, "test")
    units = [
        Unit(i, "W", (Piece("/d/f.root", "u", 1, 10 * i, 10 * i + 10),), i / count) for i in range(count)
    ]
    names = [f"p{i}" for i in range(count)]
    ledger.write_plan(job, units, names, names, [], Limits())
    return job


def done(job: str, status: Status) -> Settled:
    finished = status.finished(str(status.token))
    assert finished is not None
    return Settled(job, str(status.token), finished, "W", RECEIPT, "tcp://w")


def together(*acts: Callable[[], object]) -> list[object]:
    """Do all at the same time; return what they return or raise."""
    results: list[object] = [None] * len(acts)
    gate = threading.Barrier(len(acts))

    def act(i: int) -> None:
        gate.wait()
        try:
            results[i] = acts[i]()
        except Exception as error:  # noqa: BLE001 -- the test looks at it
            results[i] = error

    threads = [threading.Thread(target=act, args=(i,)) for i in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# what is promised of both


def test_exports_are_the_same_on_both(database: Database) -> None:
    now = [1000.0]
    kept = Exports(database, limit=2, clock=lambda: now[0])
    mine = Jobs(database).create(resolved(), "me")[0].id
    asks = [
        Ask(mine, 1, "uhi-zip", Card(inflation=inflation), {"other": 4}, "code") for inflation in (1, 2, 3)
    ]
    first, new = kept.ask(asks[0], "me")
    assert (kept.ask(asks[0], "me"), new) == ((first, False), True)
    now[0] += 1
    kept.ask(asks[1], "me")
    with pytest.raises(ConflictError, match="the limit is 2"):
        kept.ask(asks[2], "me")
    claim = kept.claim("elsewhere:1")
    assert claim is not None
    assert set(kept.unfinished()) == {(mine, 1), ("other", 4)}
    kept.beat(claim, 0.25)
    now[0] += 2 * STALE_SECONDS
    taken = [kept.claim(f"elsewhere:{number}") for number in (2, 3, 4)]
    begun = [10**9 + 2, 10**9 + 10**6 + 1]  # each counts from when it was asked for first
    numbers = [(first.id, begun[0]), (asks[1].id, begun[1]), None]
    assert [one and (one.id, one.fence) for one in taken] == numbers
    assert taken[0] is not None
    with pytest.raises(ClaimLostError):
        kept.finish(claim, 1, "0" * 64)
    kept.finish(taken[0], 5_000_000_000, "0" * 64)
    assert (kept.get(mine, first.id).bytes, kept.file(mine, first.id)[1]) == (5_000_000_000, begun[0])
    page = kept.list(mine, limit=1)
    rest = kept.list(mine, limit=1, cursor=page.next)
    assert {one.id for one in (*page.exports, *rest.exports)} == {asks[0].id, asks[1].id}
    Jobs(database).cancel(mine)
    leader(database).move(mine, JobState.CANCELLED, "test")
    Jobs(database).delete(mine)
    with pytest.raises(RequestError, match="no such job"):
        kept.get(mine, first.id)
    assert not kept.waiting()


def test_tokens_and_shares_are_the_same_on_both(database: Database) -> None:
    jobs = Jobs(database)
    mine = jobs.create(resolved(), "me")[0].id
    secret = tokens.create(database, "me", ["read"], now=0.0, lifetime=10.0, label="l")
    held = tokens.check(database, secret, now=1.0)
    made = tokens.create(database, "me", ["read"], now=1.0, kind="session", parent=held)
    assert [token.kind for token in tokens.listed(database, now=1.0, owner="me")] == ["session", "token"]
    tokens.revoke(database, tokens.token_id(secret), owner="me")
    assert tokens.check(database, made, now=1.0) is None
    for reader in ("you", "*"):
        assert jobs.list(viewer="you").jobs == []
        access.share(database, mine, reader, "me")
        assert [job.id for job in jobs.list(viewer="you").jobs] == [mine]
        assert access.readers(database, mine, None) == [reader]
        with pytest.raises(RequestError, match="only its owner"):
            jobs.cancel(mine, "you")
        access.unshare(database, mine, reader, "me")
    access.share(database, mine, "you", "me")
    jobs.cancel(mine)
    leader(database).move(mine, JobState.CANCELLED, "test")
    jobs.delete(mine, "me")
    with pytest.raises(RequestError, match="no such job"):
        jobs.get(mine)


def test_a_unit_has_one_row_and_only_its_present_attempt_is_taken(database: Database) -> None:
    ledger = leader(database)
    job = planned(database, ledger)
    with database.read() as connection:
        row = connection.execute(select(tables.units).where(tables.units.c.unit == 0)).one()
    twin = {name: value for name, value in row._mapping.items() if name != "id"}
    with pytest.raises(IntegrityError), database.write() as connection:
        connection.execute(insert(tables.units).values(**twin))
    first = Status(0).started("a")
    assert ledger.start(job, [first])
    after = first.failed("a", Kind.TRANSIENT, Again(0.0))
    assert after is not None
    failure = Failure(Kind.TRANSIENT, "server-timeout", "No answer.")
    assert ledger.settle([Settled(job, "a", after, "W", failure, "tcp://w")]) == [True]
    second = after.started("b")
    assert ledger.start(job, [second])
    assert ledger.settle([done(job, first), done(job, second), done(job, second)]) == [False, True, False]
    view = Jobs(database).get(job)
    assert (view.counts.units.done, view.counts.events.done) == (1, 10)
    assert view.counts.fraction == pytest.approx(1 / 3)


def test_numbers_that_users_see_are_whole_numbers(database: Database) -> None:
    ledger = leader(database)
    job = planned(database, ledger)
    status = Status(0).started("a")
    ledger.start(job, [status])
    ledger.settle([done(job, status)])
    ledger.progress(job)
    document = json.loads(Jobs(database).get(job).model_dump_json())
    assert document["counts"]["events"] == {"total": 30, "done": 10}
    assert (document["datasets"][0]["entries"], document["datasets"][0]["sum_sign"]) == (10, 8)
    assert document["rate"] > 0
    told = Jobs(database).events(job)[-1].data
    assert told["counts"]["events"] == {"total": 30, "done": 10}


def test_a_limit_holds_for_many_who_submit_at_once(address: str, opened: Callable[[str], Database]) -> None:
    opened(address).create_tables()
    made = [Jobs(opened(address), limits=Limits(active_jobs=3)) for _ in range(8)]
    results = together(*[lambda jobs=jobs: jobs.create(resolved(), "me") for jobs in made])  # type: ignore[misc]
    refused = [result for result in results if isinstance(result, ConflictError)]
    assert [error.code for error in refused] == ["too-many-jobs"] * 5, results
    same = together(*[lambda jobs=jobs: jobs.create(resolved(), "you", "key") for jobs in made])  # type: ignore[misc]
    assert len({view.id for view, _ in same}) == 1  # type: ignore[misc]


def test_of_drivers_that_ask_at_once_one_gets_the_lease(
    address: str, opened: Callable[[str], Database]
) -> None:
    opened(address).create_tables()
    ledgers = [Ledger(opened(address)) for _ in range(4)]
    for fence in range(1, 4):
        taken = together(
            *[lambda i=i: ledgers[i].take_over(f"elsewhere:{i}", 1000.0) for i in range(4)]  # type: ignore[misc]
        )
        assert sorted(taken, key=str) == [False, False, False, True], taken
        winner = ledgers[taken.index(True)]
        assert winner.fence == fence
        winner.renew(0.0)


START = """
import sys
from binworks.service import lease, quotas
from binworks.service.database import Database
database = Database(sys.argv[1])
sys.stdin.readline()
database.create_tables()
with database.write() as connection:
    fence = lease.acquire(connection, sys.argv[2], 0.0, 1000.0)
print(fence)
"""


@pytest.mark.parametrize("old", [False, True], ids=["empty", "old"])
def test_processes_that_start_together_make_the_tables_once(
    address: str, opened: Callable[[str], Database], old: bool
) -> None:
    if old:
        make_old(opened(address))
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", START, address, f"elsewhere:{i}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(3)
    ]
    for process in starts:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    told = [process.communicate()[0] for process in starts]
    assert [process.returncode for process in starts] == [0, 0, 0]
    assert sorted(told) == ["1\n", "None\n", "None\n"]
    check_tables(opened(address))


def test_a_driver_that_was_replaced_cannot_write(database: Database) -> None:
    old = leader(database, seconds=0.1)
    job = planned(database, old)
    status = Status(0).started("a")
    assert old.start(job, [status])
    time.sleep(0.2)
    new = leader(database, "elsewhere:2")
    for write in (
        lambda: old.settle([done(job, status)]),
        lambda: old.move(job, JobState.FAILED, "stale"),
        lambda: old.new_generation(job),
        lambda: old.renew(1000.0),
    ):
        with pytest.raises(LeaseLostError, match="number 2 by now, this driver has 1"):
            write()
    assert new.settle([done(job, status)]) == [True]
    assert Jobs(database).get(job).state == JobState.RUNNING


FROZEN = """
import sys
from binworks.service.database import Database
from binworks.service.lease import LeaseLostError
from binworks.service.ledger import Ledger
ledger = Ledger(Database(sys.argv[1]))
assert ledger.take_over("elsewhere:1", 0.5)
print("driver", flush=True)
sys.stdin.readline()
try:
    ledger.note(sys.argv[2], "written by a driver that was frozen")
except LeaseLostError:
    print("lost")
"""


def test_a_driver_that_was_frozen_for_longer_than_its_lease_cannot_write(
    address: str, database: Database
) -> None:
    job = Jobs(database).create(resolved(), "me")[0].id
    frozen = subprocess.Popen(
        [sys.executable, "-c", FROZEN, address, job],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert frozen.stdout is not None
    assert frozen.stdout.readline() == "driver\n"
    frozen.send_signal(signal.SIGSTOP)
    time.sleep(0.6)
    leader(database, "elsewhere:2")
    frozen.send_signal(signal.SIGCONT)
    assert frozen.communicate("\n")[0] == "lost\n"
    with database.read() as connection:
        assert connection.execute(select(tables.jobs.c.note)).scalar_one() is None


def test_a_reader_sees_one_moment_and_followers_miss_nothing(database: Database) -> None:
    jobs = Jobs(database)
    job = jobs.create(resolved(), "me")[0].id
    with database.read() as connection:
        before = connection.execute(select(tables.job_events.c.id)).all()
        with database.write() as other:
            add_event(other, job, "note", 0.0, {})
        assert connection.execute(select(tables.job_events.c.id)).all() == before

    def tell() -> None:
        for _ in range(20):
            with database.write() as connection:
                add_event(connection, job, "note", 0.0, {})

    def follow() -> list[int]:
        seen = [0]
        end = time.monotonic() + 60
        while len(seen) < 63 and time.monotonic() < end:
            seen += [event.id for event in jobs.events(job, after=seen[-1])]
        return seen

    seen = together(tell, tell, tell, follow)[-1]
    assert isinstance(seen, list)
    assert len(seen) == 63, "events came into being behind the reader's back"


def test_each_of_the_api_s_threads_has_a_connection_and_one_too_many_passes_as_a_failure(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database.engine.pool, "_timeout", 0.1)
    with ExitStack() as reading:
        for _ in range(CONNECTIONS):
            reading.enter_context(database.read())
        with pytest.raises(OperationalError), database.read():
            pass
        with pytest.raises(OperationalError), database.write():
            pass
    with database.write() as connection:
        assert connection.execute(select(1)).scalar() == 1


def test_messages_of_broken_files_can_be_stored(database: Database) -> None:
    ledger = leader(database)
    job = planned(database, ledger)
    status = Status(0).started("a")
    ledger.start(job, [status])
    after = status.failed("a", Kind.TRANSIENT, Again(0.0))
    assert after is not None
    told = "key \0 of file \udcff"
    assert ledger.settle([Settled(job, "a", after, "W", Failure(Kind.TRANSIENT, "x", told, traceback=told))])
    unit = Jobs(database).units(job)[0]
    assert unit.traceback == "key \N{REPLACEMENT CHARACTER} of file ?"


# older databases


def make_old(database: Database) -> None:
    """Make the tables of the first version."""
    numbers = {"sqlite": "INTEGER NOT NULL PRIMARY KEY", "postgresql": "BIGSERIAL NOT NULL PRIMARY KEY"}
    script = OLD_SCHEMA.read_text().replace("{number}", numbers[database.engine.dialect.name])
    text = "\n".join(line for line in script.splitlines() if not line.startswith("--"))
    with database.write() as connection:
        for statement in filter(str.strip, text.split(";")):
            connection.exec_driver_sql(statement)


def copy_back(new: Database, old: Database) -> None:
    """Copy what the first version knows into a database of it."""
    known = MetaData()
    known.reflect(old.engine)
    with new.read() as source, old.write() as target:
        for table in known.sorted_tables:
            names = [column.name for column in table.columns if column.name != "id" or table.name == "jobs"]
            query = select(*[metadata.tables[table.name].c[name] for name in names])
            rows = [dict(row._mapping) for row in source.execute(query)]
            if rows:
                target.execute(insert(table), rows)


def on(bench: Bench, address: str) -> Bench:
    """Return a bench that keeps its jobs at this address."""
    bench.database.close()
    bench.database = Database(address)
    bench.database.create_tables()
    bench.ledger = Ledger(bench.database)
    bench.rim = replace(bench.rim, ledger=bench.ledger)
    bench.running = Running(None, bench.settings, Jobs(bench.database))  # type: ignore[arg-type]
    return bench


class EnoughError(Exception):
    """Ends a driver."""


def test_a_job_that_an_older_version_left_running_is_finished(
    address: str, opened: Callable[[str], Database], tmp_path: Path
) -> None:
    files = write_all(tmp_path / "data", 3, EVENTS)
    old = opened(address)
    make_old(old)

    def stop() -> None:
        states = Counter(unit.state for unit in first.running.units(job))
        if states[UnitState.DONE] >= 4 and states[UnitState.RUNNING] and states[UnitState.PENDING]:
            raise EnoughError

    with registered(tmp_path / "toys"):
        first = Bench(tmp_path, HereCluster(lambda _: time.sleep(0.02)))
        job = first.running.submit({"D": files}).id
        with pytest.raises(EnoughError):
            first.drive(job, meanwhile=stop)
        first.ledger.renew(0.0)
        copy_back(first.database, old)
        second = on(Bench(tmp_path, HereCluster()), address)
        check_tables(second.database)
        before = second.running.jobs.get(job)
        assert before.state == JobState.RUNNING
        assert 4 <= before.counts.units.done < before.counts.units.total
        (view,) = second.drive(job)
        assert view.complete
        _, description = second.ledger.load(job)
        expected = serial(tmp_path / "serial", Dataset(name="D", files=files), description)
        assert second.running.digests(job) == {"D": expected}
        for bench in (first, second):
            bench.rim.thread.shutdown()
            bench.database.close()


def check_tables(database: Database) -> None:
    """Expect all tables, columns and indexes, each once."""
    with database.read() as connection:
        found = inspect(connection)
        for table in metadata.sorted_tables:
            columns = [column["name"] for column in found.get_columns(table.name)]
            assert sorted(columns) == sorted(column.name for column in table.columns)
            indexes = {index["name"] for index in found.get_indexes(table.name)}
            assert indexes >= {index.name for index in table.indexes}


# PostgreSQL alone


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let waiting for a lock end soon."""
    settings = {"lock_timeout": "300ms", "idle_in_transaction_session_timeout": "1000ms"}
    monkeypatch.setattr(tables, "_SERVER_SETTINGS", settings)


def test_writers_wait_for_each_other_and_not_for_ever(
    server: Server, opened: Callable[[str], Database], quick: None
) -> None:
    url = server.new_database()
    one, other = opened(url), opened(url)
    one.create_tables()
    with one.write():
        with pytest.raises(OperationalError, match="lock timeout"), other.write():
            pass
        with other.read() as connection:
            assert connection.execute(select(tables.jobs)).all() == []


def test_a_process_that_freezes_in_a_transaction_does_not_keep_the_others_out(
    server: Server, opened: Callable[[str], Database], quick: None
) -> None:
    url = server.new_database()
    one, other = opened(url), opened(url)
    one.create_tables()
    with pytest.raises(OperationalError), one.write() as frozen:  # noqa: PT012
        time.sleep(1.2)
        leader(other)
        frozen.execute(select(tables.jobs))
    with one.write() as again:
        again.execute(select(tables.jobs))


def test_what_was_committed_is_there_after_the_server_was_killed(
    server: Server, opened: Callable[[str], Database]
) -> None:
    database = opened(server.new_database())
    database.create_tables()
    ledger = leader(database)
    job = planned(database, ledger)
    status = Status(0).started("a")
    ledger.start(job, [status])
    with pytest.raises(OperationalError), database.write() as connection:  # noqa: PT012
        add_event(connection, job, "note", 0.0, {"note": "never committed"})
        server.restart()
        add_event(connection, job, "note", 0.0, {})
    assert all(event.kind != "note" for event in Jobs(database).events(job))
    assert ledger.settle([done(job, status)]) == [True]
    server.kill()
    try:
        with pytest.raises(OperationalError):
            ledger.note(job, "nobody hears")
    finally:
        server.start()
    assert Jobs(database).get(job).counts.units.done == 1
    assert Jobs(database).units(job)[0].state == UnitState.DONE


def test_no_error_shows_the_password(
    server: Server, opened: Callable[[str], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = opened(server.url().replace(PASSWORD, "not-this-one"))
    with pytest.raises(OperationalError) as refused:
        wrong.create_tables()
    assert "not-this-one" not in f"{refused.value!s}{refused.value!r}{wrong.engine!r}"
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(RequestError, match=r"pip install 'binworks\[postgres\]'") as missing:
        Database(server.url())
    assert missing.value.code == "missing-extra"
    assert PASSWORD not in str(missing.value)


@pytest.mark.parametrize(
    "address", ["postgresql://me:hush/7@host:port/name", "hush", "mysql://me:hush@host/name"]
)
def test_an_address_that_cannot_be_used_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(RequestError) as caught:
        Database(address)
    assert caught.value.code == "bad-database"
    assert "hush" not in str(caught.value)


# a whole service


@pytest.fixture(scope="module")
def running(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("service")
    changes = {"data_roots": (str(home),), "snapshot_seconds": 1.0, "database": server.new_database()}
    with (
        registered(home / "toys"),
        service_toys.service(home / "home", workers=2, **changes) as service,
    ):
        yield service


def answer(running: Running, path: str) -> int:
    try:
        with urllib.request.urlopen(f"{running.settings.url}{path}", timeout=30) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def check(running: Running, view: JobView, files: tuple[str, ...], folder: Path) -> None:
    _, description = running.service_ledger().load(view.id)
    assert running.digests(view.id) == {"D": serial(folder, Dataset(name="D", files=files), description)}
    assert view.complete
    assert view.counts.events.done == view.datasets[0].entries == FILES * EVENTS
    assert view.counts.units.done == view.counts.units.total == len(running.units(view.id))


@pytest.mark.faults
def test_a_driver_that_is_killed_changes_no_bit_on_postgresql(running: Running, tmp_path: Path) -> None:
    files = write_all(running.settings.home.parent / "driver", FILES, EVENTS)
    job = running.submit({"D": files}, options={"pause": 0.3, "tag": "driver"}).id
    running.until(job, lambda view: view.counts.units.done >= 3)
    assert running.service.driver.pid is not None
    os.kill(running.service.driver.pid, signal.SIGKILL)
    check(running, running.wait(job), files, tmp_path)


@pytest.mark.faults
def test_a_database_that_is_killed_in_mid_job_changes_no_bit(
    server: Server, running: Running, tmp_path: Path
) -> None:
    files = write_all(running.settings.home.parent / "server", FILES, EVENTS)
    job = running.submit({"D": files}, options={"pause": 0.3, "tag": "server"}).id
    running.until(job, lambda view: view.counts.units.done >= 3)
    server.kill()
    assert answer(running, "/readyz") == 503
    time.sleep(1.0)
    server.start()
    check(running, running.wait(job), files, tmp_path)
    assert answer(running, "/readyz") == 200
    for log in running.settings.logs.rglob("*"):
        assert log.is_dir() or PASSWORD.encode() not in log.read_bytes(), log
    assert (running.settings.home / "settings.json").stat().st_mode & 0o077 == 0
