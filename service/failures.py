"""From exceptions to records: sorted by what can be done about them."""

from __future__ import annotations

import traceback

from binworks.service.retry import Kind
from binworks.service.tasks import Failure
from binworks.tensors.errors import BinworksError, InputError, PhysicsError, TransientError

TRACEBACK_LENGTH = 8000


def of(error: BaseException) -> Failure:
    """Return an error as data."""
    told = "".join(traceback.format_exception(error))[-TRACEBACK_LENGTH:]
    if isinstance(error, BinworksError):
        return Failure(_kind(error), error.code, error.message, error.where, error.hint, told)
    message = f"{type(error).__name__}: {error}"[:1000]
    if isinstance(error, MemoryError):
        return Failure(Kind.TRANSIENT, "out-of-memory", message, traceback=told)
    if isinstance(error, OSError):
        return Failure(Kind.TRANSIENT, "io-error", message, error.filename, traceback=told)
    hint = "This is a fault of the code; the traceback kept with it says where."
    return Failure(Kind.CODE, "code-failed", message, hint=hint, traceback=told)


def _kind(error: BinworksError) -> Kind:
    if isinstance(error, TransientError):
        return Kind.TRANSIENT
    return Kind.INPUT if isinstance(error, InputError | PhysicsError) else Kind.CODE
