"""Kernels that turn stored bytes into numbers: the offsets of a basket, the planes of bytes of a page."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from binworks.tensors.jit import kernel

Bytes = NDArray[np.uint8]

_FOUR = 4


@kernel
def entry_offsets(
    stored: Bytes, first: int, last: int, key_length: int, shift: int, base: int, out: NDArray[np.int64]
) -> int:
    """Decode the offsets of entries of a jagged branch's basket.

    Parameters
    ----------
    stored : array, shape (at least 4 n,)
        Where each entry begins: four bytes, big-endian, counted from the start of the key.
    first, last : int
        Where the first entry begins, and where the last one ends, in bytes from the end of the key.
    key_length : int
        Bytes of the key.
    shift : int
        A number has 2^shift bytes.
    base : int
        Value of the first offset.
    out : array, shape (n + 1,)
        Filled with offsets in numbers.

    Returns
    -------
    int
        How many offsets are impossible: they fall, or cut a number in two.
    """
    bad = 0
    part = (1 << shift) - 1
    before = first
    for i in range(out.size - 1):
        value = (
            (np.uint32(stored[4 * i]) << np.uint32(24))
            | (np.uint32(stored[4 * i + 1]) << np.uint32(16))
            | (np.uint32(stored[4 * i + 2]) << np.uint32(8))
            | np.uint32(stored[4 * i + 3])
        )
        offset = np.int64(value) - key_length
        bad += (offset < before) | ((offset & part) != 0)
        before = int(offset)
        out[i] = ((offset - first) >> shift) + base
    out[out.size - 1] = ((last - first) >> shift) + base
    bad += (last < before) | ((last & part) != 0)
    return bad


@kernel
def join_planes_4(planes: NDArray[np.uint8], first: int, out: NDArray[np.uint32]) -> None:
    """Put numbers of four bytes together, whose lowest bytes are stored first, then all second ones, ...

    Parameters
    ----------
    planes : array, shape (4, n)
        The bytes.
    first : int
        The first number wanted.
    out : array, shape (m,)
        Filled with the numbers from there.
    """
    a, b, c, d = planes[0, first:], planes[1, first:], planes[2, first:], planes[3, first:]
    for i in range(out.size):
        out[i] = (
            np.uint32(a[i])
            | (np.uint32(b[i]) << np.uint32(8))
            | (np.uint32(c[i]) << np.uint32(16))
            | (np.uint32(d[i]) << np.uint32(24))
        )


def join_planes(data: Bytes, first: int, out: NDArray[Any]) -> None:
    """Put numbers of any size together from a page that is stored in planes of bytes.

    Parameters
    ----------
    data : array, shape (n times the size of a number,)
        The page.
    first : int
        The first number wanted.
    out : array, shape (m,)
        Filled with the numbers from there.
    """
    planes = data.reshape(out.itemsize, -1)
    if out.itemsize == _FOUR:
        join_planes_4(planes, first, out.view(np.uint32))
        return
    places = out.view(np.uint8).reshape(-1, out.itemsize)
    for i, plane in enumerate(planes):
        places[:, i] = plane[first : first + len(out)]
