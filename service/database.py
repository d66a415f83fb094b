"""The tables of the job database, and how it is opened.

SQLite by default: write-ahead log, every write transaction BEGIN IMMEDIATE, each commit on the disk before it
returns. Any other database by its SQLAlchemy address.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
)
from sqlalchemy.engine import Connection

metadata = MetaData()
_Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up in INTEGER columns only

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("owner", String(200), nullable=False),
    Column("state", String(20), nullable=False, index=True),
    Column("note", Text),
    Column("request", JSON, nullable=False),
    Column("resolved", JSON, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("idempotency_key", String(200)),
    Column("request_digest", String(64), nullable=False),
    Column("planned", Boolean, nullable=False, default=False),
    Column("unreadable", JSON, nullable=False, default=list),
    Column("error", JSON),
    Column("traceback", Text),
    Column("story", JSON, nullable=False, default=list),
    Column("retried_after", Integer, nullable=False, default=0),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("finished", Float),
    UniqueConstraint("owner", "idempotency_key", name="one_job_an_idempotency_key"),
    Index("jobs_by_age", "created", "id"),
)

units = Table(
    "units",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("job", ForeignKey("jobs.id"), nullable=False),
    Column("unit", Integer, nullable=False),
    Column("dataset", String(100), nullable=False),
    Column("ranges", JSON, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("turn", Float, nullable=False, default=0.0),
    Column("partial", String(64), nullable=False),
    Column("base", String(64), nullable=False, default="", index=True),
    Column("state", String(20), nullable=False),
    Column("splits", Integer, nullable=False, default=0),
    Column("attempts", Integer, nullable=False, default=0),
    Column("failures", Integer, nullable=False, default=0),
    Column("kills", Integer, nullable=False, default=0),
    Column("token", String(40)),
    Column("not_before", Float, nullable=False, default=0.0),
    Column("worker", String(200)),
    Column("started", Float),
    Column("finished", Float),
    Column("seconds", Float),
    Column("commit_seconds", Float),
    Column("reused", Boolean, nullable=False, default=False),
    Column("digest", String(64)),
    Column("entries", BigInteger),
    Column("bytes", BigInteger),
    Column("sum_sign", BigInteger),
    Column("counts", JSON),
    Column("error", JSON),
    Column("traceback", Text),
    UniqueConstraint("job", "unit", name="a_unit_counts_once"),
    Index("units_by_state", "job", "state"),
)

files = Table(
    "files",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("path", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("info", JSON, nullable=False),
    UniqueConstraint("path", "size", "mtime_ns", name="a_file_is_indexed_once"),
)

merges = Table(
    "merges",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("job", ForeignKey("jobs.id"), nullable=False),
    Column("dataset", String(100), nullable=False),
    Column("level", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    Column("partial", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("seconds", Float),
    UniqueConstraint("job", "dataset", "level", "position", name="a_node_is_merged_once"),
)

generations = Table(
    "generations",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("job", ForeignKey("jobs.id"), nullable=False),
    Column("n", Integer, nullable=False),
    Column("published", Boolean, nullable=False, default=False),
    Column("final", Boolean, nullable=False, default=False),
    Column("complete", Boolean, nullable=False, default=False),
    Column("created", Float, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("units", Integer, nullable=False),
    Column("fraction", Float, nullable=False),
    Column("bytes", BigInteger),
    Column("seconds", Float),
    UniqueConstraint("job", "n", name="a_generation_is_written_once"),
)

pins = Table(
    "pins",
    metadata,
    Column("job", ForeignKey("jobs.id"), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("until", Float, nullable=False),
)

job_events = Table(
    "job_events",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("job", ForeignKey("jobs.id"), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("time", Float, nullable=False),
    Column("data", JSON, nullable=False),
    Index("events_of_a_job", "job", "id"),
    sqlite_autoincrement=True,
)

tokens = Table(
    "tokens",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("owner", String(200), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=False),
)

lease = Table(
    "lease",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("holder", String(200), nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("expires", Float, nullable=False),
)

BUSY_SECONDS = 20.0


class Database:
    """The job database: `read` and `write` give a connection within one transaction.

    Parameters
    ----------
    url : str
        SQLAlchemy address, for example ``sqlite:////var/lib/binworks/jobs.sqlite``.
    """

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)

    def create_tables(self) -> None:
        """Make the tables that are not there yet."""
        with self.write() as connection:
            metadata.create_all(connection)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection that sees one consistent state."""
        with (
            self.engine.connect().execution_options(binworks_begin="DEFERRED") as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a connection that holds the write lock; commits at the end, rolls back on an error."""
        with (
            self.engine.connect().execution_options(binworks_begin="IMMEDIATE") as connection,
            connection.begin(),
        ):
            yield connection

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # begin is ours, below
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        mode = connection.get_execution_options().get("binworks_begin", "IMMEDIATE")
        connection.exec_driver_sql(f"BEGIN {mode}")

    return engine
