"""From exceptions to records: sorted by what can be done about them."""

from __future__ import annotations

import errno
import resource
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from binworks.service.retry import Kind
from binworks.service.tasks import Failure
from binworks.tensors.errors import BinworksError, InputError, PhysicsError, TransientError

TRACEBACK_LENGTH = 8000
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def of(error: BaseException) -> Failure:
    """Return an error as data."""
    told = "".join(traceback.format_exception(error))[-TRACEBACK_LENGTH:]
    if lacks_memory(error):
        return _out_of_memory(error, told)
    if isinstance(error, BinworksError):
        return Failure(_kind(error), error.code, error.message, error.where, error.hint, told)
    message = f"{type(error).__name__}: {error}"[:1000]
    if isinstance(error, OSError):
        kind = Kind.FULL if _lacks_space(error) else Kind.TRANSIENT
        return Failure(kind, "io-error", message, error.filename, traceback=told)
    hint = "This is a fault of the code; the traceback kept with it says where."
    return Failure(Kind.CODE, "code-failed", message, hint=hint, traceback=told)


def lacks_memory(error: BaseException) -> bool:
    """Whether memory ran out, whatever that was taken for on the way."""
    return _has_errno(error, errno.ENOMEM) or any(isinstance(cause, MemoryError) for cause in _causes(error))


def _lacks_space(error: BaseException) -> bool:
    return _has_errno(error, errno.ENOSPC, errno.EDQUOT)


def _has_errno(error: BaseException, *numbers: int) -> bool:
    return any(isinstance(cause, OSError) and cause.errno in numbers for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Give an error and those it was raised from."""
    present: BaseException | None = error
    seen: set[int] = set()
    while present is not None and id(present) not in seen:
        seen.add(id(present))
        yield present
        present = present.__cause__ or (None if present.__suppress_context__ else present.__context__)


def _out_of_memory(error: BaseException, told: str) -> Failure:
    limit = memory_limit()
    known = "" if limit is None else f" The worker may take {limit / 1e9:.2f} GB."
    where = error.where if isinstance(error, BinworksError) else None
    message = f"Memory ran out ({type(error).__name__}: {error})."[:900] + known
    return Failure(Kind.RESOURCE, "out-of-memory", message, where, traceback=told)


def memory_limit() -> int | None:
    """Return the bytes that this process may take by its own limit or its control group's; None if there is none."""
    found = [limit for limit in resource.getrlimit(resource.RLIMIT_AS) if limit != resource.RLIM_INFINITY]
    for name in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):
            found.append(int(Path(name).read_text()))
    return min((limit for limit in found if limit < 1 << 60), default=None)


def _kind(error: BinworksError) -> Kind:
    if isinstance(error, TransientError):
        return Kind.FULL if _lacks_space(error) else Kind.TRANSIENT
    return Kind.INPUT if isinstance(error, InputError | PhysicsError) else Kind.CODE
