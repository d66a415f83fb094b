"""One active driver: whoever holds the lease in the database, with a fencing number that grows at each change of hands.

Every transaction of a driver checks its number, so a driver that was thought dead cannot write any more.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection

from binworks.service.database import lease

NAME = "driver"


class LeaseLostError(RuntimeError):
    """Another driver has taken over."""


def identity() -> str:
    """Return who this process is."""
    return f"{socket.gethostname()}:{os.getpid()}"


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
    row = connection.execute(select(lease).where(lease.c.name == NAME)).one_or_none()
    if row is None:
        connection.execute(insert(lease).values(name=NAME, holder=holder, fence=1, expires=now + seconds))
        return 1
    if row.expires > now and not _gone(row.holder):
        return None
    fence: int = row.fence + 1
    renewed = {"holder": holder, "fence": fence, "expires": now + seconds}
    mine = (lease.c.name == NAME, lease.c.fence == row.fence)  # another may have been faster
    taken = connection.execute(update(lease).where(*mine).values(**renewed)).rowcount == 1
    return fence if taken else None


def renew(connection: Connection, fence: int, now: float, seconds: float) -> None:
    """Keep the lease; it is given back with zero seconds.

    Raises
    ------
    LeaseLostError
        If another driver has it.
    """
    check(connection, fence)
    connection.execute(update(lease).where(lease.c.name == NAME).values(expires=now + seconds))


def check(connection: Connection, fence: int) -> None:
    """Refuse to go on without the lease.

    Raises
    ------
    LeaseLostError
        If another driver has it.
    """
    held = connection.execute(
        select(lease.c.fence).where(lease.c.name == NAME).with_for_update(read=True)
    ).scalar_one()
    if held != fence:
        raise LeaseLostError(f"The lease has number {held} by now, this driver has {fence}.")


def _gone(holder: str) -> bool:
    """Whether the holder was a process of this host that has ended: nobody needs to wait for its time then."""
    host, _, pid = holder.rpartition(":")
    return host == socket.gethostname() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists()
