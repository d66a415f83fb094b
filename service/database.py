"""The tables of the job database, and how it is opened.

SQLite by default, PostgreSQL by its address. On both, write transactions are one at a time, a reader sees one
consistent state, each commit is on the disk before it returns, and a database that does not answer gives
`sqlalchemy.exc.OperationalError`: it may work next time.
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
    TypeDecorator,
    UniqueConstraint,
    create_engine,
    event,
    inspect,
    literal,
    make_url,
)
from sqlalchemy.engine import URL, Connection, Dialect, ExceptionContext
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionError
from sqlalchemy.schema import CreateColumn

from binworks.tensors.errors import RequestError


class Prose(TypeDecorator[str]):
    """Text for people; what no database takes, as a broken file may bring it into a message, is replaced."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Return what is stored."""
        return (
            None
            if value is None
            else value.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
        )


metadata = MetaData()
_Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up in INTEGER columns only

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("owner", String(200), nullable=False),
    Column("state", String(20), nullable=False, index=True),
    Column("note", Prose),
    Column("request", JSON, nullable=False),
    Column("resolved", JSON, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("idempotency_key", String(200)),
    Column("request_digest", String(64), nullable=False),
    Column("planned", Boolean, nullable=False, default=False),
    Column("unreadable", JSON, nullable=False, default=list),
    Column("error", JSON),
    Column("traceback", Prose),
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
    Column("partial", String(64), nullable=False, index=True),
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
    Column("traceback", Prose),
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
    Column("partial", String(64), nullable=False, index=True),
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

exports = Table(
    "exports",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("job", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("n", Integer, nullable=False),
    Column("owner", String(200), nullable=False),
    Column("format", String(40), nullable=False),
    Column("card", JSON, nullable=False),
    Column("sources", JSON, nullable=False),
    Column("code", String(64)),
    Column("state", String(20), nullable=False, index=True),
    Column("created", Float, nullable=False),
    Column("asked", Float, nullable=False),
    Column("started", Float),
    Column("finished", Float),
    Column("not_before", Float, nullable=False, default=0.0),
    Column("fence", BigInteger, nullable=False, default=0),
    Column("crashes", Integer, nullable=False, default=0),
    Column("failures", Integer, nullable=False, default=0),
    Column("holder", String(200)),
    Column("beat", Float),
    Column("progress", Float, nullable=False, default=0.0),
    Column("bytes", BigInteger),
    Column("sha256", String(64)),
    Column("error", JSON),
)

spent = Table(
    "spent",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("owner", String(200), nullable=False),
    Column("time", Float, nullable=False),
    Column("seconds", Float, nullable=False),
    Index("spent_by_owner", "owner", "time"),
)
"""Processor seconds of units whose rows are gone: deleting a job does not give them back."""

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
    Column("label", Prose),
    Column("kind", String(10), nullable=False, default="token"),
    Column("parent", String(64), index=True),
)

shares = Table(
    "shares",
    metadata,
    Column("job", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("reader", String(200), primary_key=True),
)
"""Who may read another owner's job; ``*`` is everybody."""

lease = Table(
    "lease",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("holder", String(200), nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("expires", Float, nullable=False),
)

BUSY_SECONDS = 20
"""How long to wait for the write lock, or for a server's answer."""
CONNECTIONS = 40
"""As many as the API has threads."""
_POOL: dict[str, Any] = {"pool_size": 5, "max_overflow": CONNECTIONS - 5}
_WRITE_LOCK = int.from_bytes(b"binworks", "big")
_SERVER_SETTINGS = {
    "lock_timeout": f"{BUSY_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{BUSY_SECONDS}s",  # a frozen process must not keep the lock
    "synchronous_commit": "on",
}
_CONNECT = {  # a server that has vanished is noticed in the time of a lease or two
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 1000 * BUSY_SECONDS,
}
_PASSING = ("25006", "25P03")  # the server became a standby; it ended a transaction that was idle for long


class Database:
    """The job database: `read` and `write` give a connection within one transaction.

    Parameters
    ----------
    url : str
        SQLAlchemy address, for example ``sqlite:////var/lib/binworks/jobs.sqlite`` or
        ``postgresql://binworks@db.example.org/binworks``.

    Raises
    ------
    RequestError
        Code ``bad-database`` if the address cannot be used, ``missing-extra`` if PostgreSQL's driver is not installed.
    """

    def __init__(self, url: str) -> None:
        address = _address(url)
        self.engine = _sqlite(address) if address.get_backend_name() == "sqlite" else _postgres(address)

    def create_tables(self) -> None:
        """Make what is not there yet: tables, and the columns and indexes that an older version did not have."""
        with self.write() as connection:
            metadata.create_all(connection)
            for table in metadata.sorted_tables:
                known = {column["name"] for column in inspect(connection).get_columns(table.name)}
                for column in table.columns:
                    if column.name not in known:
                        connection.exec_driver_sql(_addition(column, connection.dialect))
                for index in table.indexes:
                    index.create(connection, checkfirst=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection that sees one consistent state."""
        with self._connected() as connection:
            if connection.dialect.name == "postgresql":
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            else:
                connection.execution_options(binworks_begin="DEFERRED")
            with connection.begin():
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a connection that holds the write lock; commits at the end, rolls back on an error."""
        with self._connected() as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                # each later statement sees all that was committed before the lock was given: READ COMMITTED
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})")
            yield connection

    def _connected(self) -> Connection:
        try:
            return self.engine.connect()
        except NoConnectionError as error:  # all are in use, and none was given back in time
            raise OperationalError(None, None, error, hide_parameters=True) from None

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()


def _address(url: str) -> URL:
    """Return the address with the driver that we use; an error never shows it, as it may hold a password."""
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):
        raise RequestError(
            "The address of the job database cannot be read.",
            code="bad-database",
            where="database",
            hint="Like postgresql://user@host:5432/name; other characters of a password as %XX.",
        ) from None
    name = address.get_backend_name()
    if name in ("postgresql", "postgres"):
        return address.set(drivername="postgresql+psycopg")
    if name != "sqlite":
        raise RequestError(
            f"The job database cannot be kept in {name}.",
            code="bad-database",
            where="database",
            hint="Use sqlite:// or postgresql://.",
        )
    return address


def _sqlite(address: URL) -> Engine:
    pool = _POOL if address.database else {}  # one in memory has a connection a thread
    engine = create_engine(address, connect_args={"timeout": BUSY_SECONDS}, hide_parameters=True, **pool)

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


def _postgres(address: URL) -> Engine:
    given = address.query.get("options", "")
    options = " ".join(
        [*(f"-c {name}={value}" for name, value in _SERVER_SETTINGS.items()), *([given] if given else [])]  # type: ignore[list-item]
    )
    try:
        engine = create_engine(
            address,
            connect_args={**_CONNECT, "options": options},
            isolation_level="READ COMMITTED",
            pool_pre_ping=True,
            **_POOL,
            hide_parameters=True,
        )
    except ModuleNotFoundError:
        raise RequestError(
            "A job database in PostgreSQL needs the package psycopg.",
            code="missing-extra",
            where="database",
            hint="pip install 'binworks[postgres]'",
        ) from None
    event.listen(engine, "handle_error", _as_passing, retval=True)
    return engine


def _as_passing(context: ExceptionContext) -> BaseException | None:
    """Return what callers take for a failure that passes, where a lost connection has another class."""
    error, original = context.sqlalchemy_exception, context.original_exception
    lost = context.is_disconnect or getattr(original, "sqlstate", None) in _PASSING
    if not lost or isinstance(error, OperationalError):
        return None
    return OperationalError(context.statement, None, original, hide_parameters=True)


def _addition(column: Column[Any], dialect: Dialect) -> str:
    """Return the statement that adds a column to a table of an older version."""
    default = ""
    if column.default is not None:
        value = [] if column.default.is_callable else column.default.arg  # type: ignore[attr-defined]
        bound = literal(value, column.type).compile(dialect=dialect, compile_kwargs={"literal_binds": True})
        default = f" DEFAULT {bound}"
    described = CreateColumn(column).compile(dialect=dialect)
    return f"ALTER TABLE {column.table.name} ADD COLUMN {described}{default}"
