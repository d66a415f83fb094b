"""What workers run: one function a task. Knows the store and the processors, nothing of Dask or the database.

Errors leave here as `Failure` records.
"""

from __future__ import annotations

import gc
import json
import logging
import time
from collections.abc import Callable
from functools import cache, lru_cache, singledispatch

from binworks.corrections import sets
from binworks.processors import reading, registry
from binworks.processors.compiled import CompiledProcessor
from binworks.processors.dataset import Dataset
from binworks.processors.fileindex import Shelf
from binworks.processors.foreign import ForeignProcessor
from binworks.service import credentials, failures, layout, partials
from binworks.service.filling import Filling
from binworks.service.plan import FileFacts
from binworks.service.store import Store
from binworks.service.tasks import (
    FillUnit,
    IndexFile,
    Merge,
    Outcome,
    Prepare,
    Receipt,
    Recipe,
    Task,
    WriteDataset,
)
from binworks.service.tree import Sum
from binworks.tensors.errors import ConflictError

INDEXES = "indexes"
"""Key of the folder of file indexes in the store."""

Progress = Callable[[int], None]
log = logging.getLogger(__name__)


def run(task: Task, progress: Progress | None = None) -> Outcome:
    """Do a task; whatever goes wrong comes back as a `Failure`.

    Parameters
    ----------
    task : Task
        What to do.
    progress : callable, optional
        Called with the number of events done, now and then; may raise
        `binworks.service.tasks.AbandonedError`.
    """
    begin, name = time.monotonic(), type(task).__name__
    try:
        outcome = _do(task, progress)
    except Exception as error:  # noqa: BLE001 -- the frontier: whatever it is, it travels as data
        failure = failures.of(error)
        log.warning("%s failed: %s", name, failure.message, extra={"code": failure.code})
        return failure
    log.info("%s took %.1f s", name, time.monotonic() - begin)
    return outcome


@singledispatch
def _do(task: Task, _progress: Progress | None) -> Outcome:
    raise TypeError(f"not a task: {type(task).__name__}")


@_do.register
def prepare(task: Prepare, _progress: Progress | None) -> None:
    """Make the processor and store the expansions of its variation groups."""
    store = _store(task.store)
    for expansion in _processor(task.recipe).expansions():
        facts, arrays = expansion.to_arrays()
        store.write_arrays(layout.expansion(task.job, expansion.group), arrays, facts)


@_do.register
def index_file(task: IndexFile, _progress: Progress | None) -> FileFacts:
    """Return the facts of a file, and keep its index for those who will read it."""
    shelf = None if task.store is None else _shelf(task.store)
    found = reading.inspect(task.path, shelf, credentials.login(task.owner, task.path))
    return FileFacts(found.path, found.uuid, found.size, found.entries, found.clusters)


@_do.register
def fill_unit(task: FillUnit, progress: Progress | None) -> Receipt:
    """Fill a unit and store its partial, unless it is there already; or do one step of it."""
    begin = time.monotonic()
    store = _store(task.store)
    there = partials.found(store, task.partial)
    if there is not None:
        return there
    filling = Filling(task, store, _shelf(task.store), _processor, progress)
    receipt = partials.found(store, filling.name)
    if receipt is None:
        facts = {"recipe": task.recipe.facts()}
        receipt = partials.commit(store, filling.name, filling.sums(), facts, begin)
        gc.collect()  # file readers hold their arrays in cycles
    if filling.name == task.partial:
        filling.remove_checkpoints()
    return receipt


@_do.register
def merge(task: Merge, _progress: Progress | None) -> Receipt:
    """Add stored sums from left to right and store the sum, unless it is there already."""
    begin = time.monotonic()
    store = _store(task.store)
    there = partials.found(store, task.name)
    if there is not None:
        return there
    sums = partials.value(store, Sum(task.children))
    return partials.commit(store, task.name, sums, {"children": list(task.children)}, begin)


@_do.register
def write_dataset(task: WriteDataset, _progress: Progress | None) -> Receipt:
    """Write a data set of a snapshot."""
    begin = time.monotonic()
    store = _store(task.store)
    if task.value is None:
        accumulator = _processor(task.recipe).accumulator(Dataset.model_validate_json(task.dataset))
    else:
        accumulator = partials.value(store, task.value)
    read = time.monotonic()
    digest = store.write_accumulator(task.key, accumulator, task.attributes)
    end = time.monotonic()
    return Receipt(digest, accumulator.counts, accumulator.nbytes, end - begin, False, end - read)


@lru_cache(maxsize=16)
def _processor(recipe: Recipe) -> CompiledProcessor | ForeignProcessor:
    found = loaded_code(recipe.processor)
    if found != recipe.code:
        raise ConflictError(
            f"This worker's code of {recipe.processor!r} is {found[:12]}, the job's is {recipe.code[:12]}.",
            code="code-differs",
            hint="The code was changed while the service ran: restart it, and submit the job again.",
        )
    corrections = None
    if recipe.corrections is not None:
        corrections = sets.load(recipe.corrections, recipe.corrections_digest)
    return registry.create(recipe.processor, json.loads(recipe.options), corrections, recipe.systematics)


@cache
def loaded_code(processor: str) -> str:
    """Return the digest of the code as it was when this process first asked; later edits are not loaded either."""
    return registry.code_digest(processor)


def _shelf(store: str) -> Shelf:
    """Return where the indexes of files are kept: in the store, so that all workers find them."""
    return Shelf(_store(store).cache(INDEXES))


@lru_cache(maxsize=8)
def _store(url: str) -> Store:
    return Store.open(url, make=False)
