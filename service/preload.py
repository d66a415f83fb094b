"""What a worker imports before it takes work (``--preload binworks.service.preload``).

The processors are loaded here, and the digest of their code is taken at the same moment: a worker that outlives a
change of the files on disk then refuses jobs of the new code, instead of giving them old results. How it is drained
stands in `binworks.deploy.drain`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from typing import Any

from binworks.service import logs
from binworks.service.environment import KERNEL_CACHE, WORKER, kernel_cache

log = logging.getLogger("distributed.binworks")


async def dask_setup(_worker: Any) -> None:
    """Prepare this process; the worker joins its scheduler only then."""
    logs.to_stderr()
    for name, value in WORKER.items():
        os.environ.setdefault(name, value)
    os.environ[KERNEL_CACHE] = str(kernel_cache(os.environ.get(KERNEL_CACHE)))
    await asyncio.to_thread(prepare)
    gc.collect()
    gc.freeze()  # what is loaded stays: the collections after each unit need not look at it again


def prepare() -> None:
    """Load the processors and the kernels that this machine has compiled before."""
    begin = time.monotonic()
    from binworks.processors import registry
    from binworks.service.worker import loaded_code

    for name in registry.names():
        try:
            loaded_code(name)
        except Exception:  # whatever a foreign module raises at import must not stop the worker
            log.warning("the processor %s cannot be loaded", name, exc_info=True)
    from binworks.service.warm import load_kernels

    count = load_kernels()
    log.info("ready after %.1f s, with %d kernels from the cache", time.monotonic() - begin, count)
