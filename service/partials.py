"""Stored sums by name: looked for, read, added up and committed.

Every byte is checked where sums are added up or go on being filled. What only has to be there is looked at from
outside: if each of its objects has its bytes, it is taken for sound, and if it is not, whoever adds it up will say so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from binworks.service import failures, layout
from binworks.service.store import Store
from binworks.service.tasks import Receipt
from binworks.service.tree import Sum
from binworks.tensors.accumulator import Accumulator, ordered_sum
from binworks.tensors.errors import RequestError, TransientError


def found(store: Store, name: str) -> Receipt | None:
    """Return the receipt of sums that are stored already; None if they are not there, or damaged and put aside."""
    begin = time.monotonic()
    try:
        facts = store.attributes(layout.partial(name))
    except RequestError:
        return None
    except TransientError as error:
        _put_aside(store, name, error)
        return None
    nbytes = _whole(store, name, facts)
    if nbytes is None:
        return None
    counts = {kind: int(count) for kind, count in facts["counts"].items()}
    return Receipt(str(facts["digest"]), counts, nbytes, time.monotonic() - begin, reused=True)


def _whole(store: Store, name: str, facts: Mapping[str, Any]) -> int | None:
    """Return the size in memory of sums if all that was stored of them is there; else they are put aside."""
    key = layout.partial(name)
    if "stored" not in facts or "nbytes" not in facts:
        sums = sound(store, name)
        return None if sums is None else sums.nbytes
    with suppress(RequestError):  # put aside by another meanwhile
        if store.nbytes(key) - store.size(f"{key}/zarr.json") == facts["stored"]:
            return int(facts["nbytes"])
        store.put_aside(key)
    return None


def sound(store: Store, name: str) -> Accumulator | None:
    """Return stored sums, every byte checked; None if they are not there, or damaged: then they are put aside."""
    try:
        return store.read_accumulator(layout.partial(name))
    except RequestError:
        return None
    except TransientError as error:
        _put_aside(store, name, error)
        return None


def value(store: Store, of: str | Sum) -> Accumulator:
    """Return stored sums, or add them up from left to right; every byte is checked.

    Raises
    ------
    RequestError, TransientError
        ``no-such-key`` or ``damaged``, with the key: what lies there can be made again.
    """
    if isinstance(of, str):
        return store.read_accumulator(layout.partial(of))
    return ordered_sum(value(store, child) for child in of.children)


def commit(
    store: Store, name: str, sums: Accumulator, attributes: Mapping[str, Any], begin: float
) -> Receipt:
    """Store sums; a twin may have been faster, with the same bits.

    Parameters
    ----------
    begin : float
        When the task began, by the monotonic clock.
    """
    filled = time.monotonic()
    key = layout.partial(name)
    store.write_accumulator(key, sums, {**attributes, "nbytes": sums.nbytes})
    digest = str(store.attributes(key)["digest"])
    end = time.monotonic()
    return Receipt(digest, sums.counts, sums.nbytes, end - begin, False, end - filled)


def _put_aside(store: Store, name: str, error: TransientError) -> None:
    """Put damaged sums aside; too little memory to read them is no damage.

    Raises
    ------
    TransientError
        The error, if it says nothing about the sums.
    """
    if error.code != "damaged" or failures.lacks_memory(error):
        raise error
    store.put_aside(layout.partial(name))
