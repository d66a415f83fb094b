"""One active driver: whoever holds the lease in the database, with a fencing number that grows at each change of hands.

`Lease` is the pure part: no I/O, and no clock but the one passed in. The functions below bring it to the database.

Every transaction of a driver checks its number, and write transactions are one at a time; so a driver that was
thought dead, was frozen, or has a wrong clock cannot write any more, whatever the clocks say. Clocks only decide
when another driver may take over:

- set forward, a lease that is held may look expired: the driver changes once more than it had to;
- set back, one that was left by a dead driver would look held for long. So whoever asks for it cuts it to its
  length, counted from now; a living driver renews it well before that, a dead one is replaced.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection

from binworks.service import database

NAME = "driver"


class LeaseLostError(RuntimeError):
    """Another driver has taken over."""


@dataclass(frozen=True)
class Lease:
    """Who may write.

    Parameters
    ----------
    holder : str
        From `identity`.
    fence : int
        Grows at each change of hands.
    expires : float
        When another may take it, seconds since 1970; 0 once it is given back.
    """

    holder: str
    fence: int
    expires: float

    def asked(self, holder: str, now: float, seconds: float, *, gone: bool = False) -> Lease:
        """Return it after another asked for it: with the next number it is his, with the same it is not.

        Parameters
        ----------
        holder : str
            Who asks.
        now, seconds : float
            Since 1970, and for how long.
        gone : bool
            Whether the present holder is known to have ended.
        """
        if gone or self.expires <= now:
            return Lease(holder, self.fence + 1, now + seconds)
        return replace(self, expires=min(self.expires, now + seconds))

    def renewed(self, fence: int, now: float, seconds: float) -> Lease:
        """Return it with its time begun anew; only for its holder."""
        self.check(fence)
        return replace(self, expires=now + seconds)

    def released(self, fence: int) -> Lease:
        """Return it free; only for its holder."""
        self.check(fence)
        return replace(self, expires=0.0)

    def check(self, fence: int) -> None:
        """Refuse whoever has another number.

        Raises
        ------
        LeaseLostError
            If that is so.
        """
        if fence != self.fence:
            raise LeaseLostError(f"The lease has number {self.fence} by now, this driver has {fence}.")


def identity(pid: int | None = None) -> str:
    """Return who a process of this host is, by default this one."""
    space = ""
    with suppress(OSError):
        space = str(
            Path("/proc/self/ns/pid").readlink()
        )  # containers may share a host's name, but not its numbers
    return f"{socket.gethostname()}/{space}:{pid or os.getpid()}"


def acquire(connection: Connection, holder: str, now: float, seconds: float) -> int | None:
    """Take the lease if it is free; return the fencing number, or None.

    Parameters
    ----------
    connection : Connection
        Within a write transaction.
    holder : str
        From `identity`.
    now, seconds : float
        Since 1970, and for how long.
    """
    held = _read(connection)
    if held is None:
        first = Lease(holder, 1, now + seconds)
        connection.execute(insert(database.lease).values(name=NAME, **asdict(first)))
        return first.fence
    after = held.asked(holder, now, seconds, gone=gone(held.holder))
    _write(connection, held, after)
    return after.fence if after.fence != held.fence else None


def renew(connection: Connection, fence: int, now: float, seconds: float) -> None:
    """Keep the lease; it is given back with zero seconds.

    Raises
    ------
    LeaseLostError
        If another driver has it.
    """
    held = _held(connection)
    _write(connection, held, held.renewed(fence, now, seconds) if seconds > 0 else held.released(fence))


def check(connection: Connection, fence: int) -> None:
    """Refuse to go on without the lease.

    Raises
    ------
    LeaseLostError
        If another driver has it.
    """
    _held(connection).check(fence)


def _read(connection: Connection) -> Lease | None:
    table = database.lease
    row = connection.execute(select(table).where(table.c.name == NAME)).one_or_none()
    return None if row is None else Lease(row.holder, row.fence, row.expires)


def _held(connection: Connection) -> Lease:
    held = _read(connection)
    if held is None:
        raise LeaseLostError("The job database knows of no lease.")
    return held


def _write(connection: Connection, before: Lease, after: Lease) -> None:
    if after != before:
        table = database.lease
        connection.execute(update(table).where(table.c.name == NAME).values(**asdict(after)))


def gone(holder: str) -> bool:
    """Whether the holder was a process of this host that has ended: nobody needs to wait for its time then."""
    pid = holder.rpartition(":")[2]
    return (
        pid.isdecimal()
        and holder == identity(int(pid))
        and not Path(f"/proc/{pid}").exists()
        and Path("/proc/self").exists()
    )
