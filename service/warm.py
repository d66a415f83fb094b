"""Warm start: a worker loads the compiled kernels that its machine keeps before it takes its first unit.

They are those that jobs on this machine have asked for, with this version of the code: a kernel is compiled for the
types of what a job's corrections hold, so nothing else is known to be of use. A machine whose cache is empty compiles
when the first unit needs it: half a minute of one core, once, instead of that for what nobody may ask for.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any

from numba.core.dispatcher import Dispatcher
from numba.core.registry import cpu_target

HOUSE = "binworks."

log = logging.getLogger(__name__)


def load_kernels() -> int:
    """Load all that the cache has for the kernels of the modules that are imported; return how many.

    A file that cannot be read is left to the first unit, which then compiles.
    """
    cpu_target.target_context.refresh()  # the extensions of numba that libraries bring: half the time of a first call
    cpu_target.typing_context.refresh()
    loaded = 0
    for kernel in kernels():
        try:
            loaded += _load(kernel)
        except Exception:  # of numba's cache we know the inside only, and that may change
            log.warning("a cached kernel cannot be loaded", exc_info=True)
    return loaded


def kernels() -> Iterator[Any]:
    """Give each kernel of the house once."""
    seen: set[int] = set()
    for name, module in list(sys.modules.items()):
        if name.startswith(HOUSE):
            for found in list(vars(module).values()):
                if isinstance(found, Dispatcher) and id(found) not in seen:
                    seen.add(id(found))
                    yield found


def _load(kernel: Any) -> int:
    cache, codegen = kernel._cache, kernel.targetctx.codegen()
    known = [key for key in cache._cache_file._load_index() if key == cache._index_key(key[0], codegen)]
    for signature, *_ in known:
        kernel.compile(signature)
    return len(known)
