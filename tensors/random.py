"""Random numbers that are a function of the event: the same on every machine and in every order.

Philox4x32-10 turns a counter of 128 bits and a key of 64 bits into 128 random bits (J. K. Salmon et al., "Parallel
random numbers: as easy as 1, 2, 3", SC11, doi 10.1145/2063384.2063405). Here the counter is (event, luminosity block,
index) and the key is (run, stream). For one key Philox is a bijection, so two counters never give the same bits; each
use has a stream of its own, so that smearing and bootstrap share no numbers. All arithmetic is that of integers and of
IEEE additions, multiplications, divisions and square roots: no mathematical library has a say in the last bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from binworks.tensors.jit import kernel

SMEARING, BOOTSTRAP = 1, 2
"""The streams."""

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)  # multipliers of the two halves
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)  # the key's steps: golden ratio, sqrt(3) - 1
_LOW, _WORD = np.uint64(0xFFFFFFFF), np.uint64(32)
_SIX = np.uint64(6)

# Numerator and denominator of Wichura's rational functions, highest power first.
_CENTRE = np.array([
    [2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
     1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0],
    [5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
     5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0],
])  # fmt: skip
_FLANK = np.array([
    [7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0,
     3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0],
    [1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
     6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0],
])  # fmt: skip
_TAIL = np.array([
    [2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
     2.96560571828504891230e-1, 1.78482653991729133580e0, 5.46378491116411436990e0, 6.65790464350110377720e0],
    [2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
     1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0],
])  # fmt: skip

_LN2, _SQRT_HALF = 0.6931471805599453, 0.7071067811865476
_ARTANH_TERMS = 11  # of s^2j / (2j + 1) with s^2 < 0.0295: the next one is below 1e-17


def _poisson_limits() -> Any:
    """Return ``2^32 P(count <= k)`` for k = 0, 1, ... and a Poisson distribution of mean 1, up to 2^32 itself."""
    terms = [math.exp(-1.0) / math.factorial(k) for k in range(20)]
    limits = [round(2**32 * math.fsum(terms[: k + 1])) for k in range(20)]
    return np.array([limit for limit in limits if limit < 2**32] + [2**32], np.uint64)


_LIMITS = _poisson_limits()
_FIRST = np.searchsorted(_LIMITS, np.arange(256, dtype=np.uint64) << np.uint64(24), side="right").astype(
    np.uint8
)
"""The smallest count of a word that begins with this byte; from there it is rarely more than one step."""
_BYTE = np.uint64(24)


@kernel
def philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Return four random words of 32 bits (as uint64) for a counter of four words and a key of two."""
    c0, c1, c2, c3 = np.uint64(c0) & _LOW, np.uint64(c1) & _LOW, np.uint64(c2) & _LOW, np.uint64(c3) & _LOW
    k0, k1 = np.uint64(k0) & _LOW, np.uint64(k1) & _LOW
    for _ in range(10):
        first, second = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (second >> _WORD) ^ c1 ^ k0, second & _LOW, (first >> _WORD) ^ c3 ^ k1, first & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3


@kernel
def normal(run: int, lumi: int, event: int, index: int) -> float:
    """Return a standard normal number of the stream `SMEARING`, from 52 random bits (so it lies within +-8.2).

    ``index`` tells the numbers of an event apart: below 2^32.
    """
    key = np.uint64(event)
    words = philox(key, key >> _WORD, lumi, index, run, SMEARING)
    bits = np.float64(((words[0] >> _SIX) << np.uint64(26)) | (words[1] >> _SIX))
    return normal_quantile((bits + 0.5) * 2.0**-52)  # the half is exact, and keeps it off 0 and 1


@kernel
def poisson(run: int, lumi: int, event: int, replica: int) -> int:
    """Return a Poisson number of mean 1 of the stream `BOOTSTRAP`, by inversion of 32 random bits.

    Counts above 12 do not occur: their probability is below 2^-32. The mean is 1 to 1e-9.
    """
    key = np.uint64(event)
    words = philox(key, key >> _WORD, lumi, replica // 4, run, BOOTSTRAP)
    place = replica % 4
    if place == 0:
        return _count(words[0])
    if place == 1:
        return _count(words[1])
    return _count(words[2]) if place == 2 else _count(words[3])


@kernel
def fill_poisson(run: int, lumi: int, event: int, out: Any) -> None:
    """Set ``out[j]`` to ``poisson(run, lumi, event, j)``, four at a time."""
    key = np.uint64(event)
    size = len(out)
    for block in range(size // 4):
        words = philox(key, key >> _WORD, lumi, block, run, BOOTSTRAP)
        j = 4 * block
        out[j], out[j + 1] = _count(words[0]), _count(words[1])
        out[j + 2], out[j + 3] = _count(words[2]), _count(words[3])
    for j in range(size - size % 4, size):
        out[j] = poisson(run, lumi, event, j)


@kernel
def normal_quantile(p: float) -> float:
    """Return the standard normal quantile of a probability in (0, 1), else not-a-number; to 1e-15 of its size.

    Algorithm AS 241, PPND16, of M. J. Wichura, Applied Statistics 37 (1988) 477, doi 10.2307/2347330.
    """
    if not (p > 0.0 and p < 1.0):
        return np.nan
    distance = p - 0.5
    if abs(distance) <= 0.425:
        return distance * _ratio(0.180625 - distance * distance, _CENTRE)
    root = math.sqrt(-_log(p if distance < 0.0 else 1.0 - p))
    size = _ratio(root - 1.6, _FLANK) if root <= 5.0 else _ratio(root - 5.0, _TAIL)
    return -size if distance < 0.0 else size


@kernel
def _ratio(x: float, table: Any) -> float:
    """Return the quotient of the two polynomials in x."""
    top = 0.0
    bottom = 0.0
    for j in range(8):
        top = top * x + table[0, j]
        bottom = bottom * x + table[1, j]
    return float(top / bottom)


@kernel
def _log(x: float) -> float:
    """Return ln x for x > 0: ``e ln 2 + 2 artanh((m - 1) / (m + 1))`` with ``x = m 2^e``."""
    mantissa, exponent = math.frexp(x)
    if mantissa < _SQRT_HALF:
        mantissa *= 2.0
        exponent -= 1
    s = (mantissa - 1.0) / (mantissa + 1.0)
    total = 0.0
    for j in range(_ARTANH_TERMS - 1, -1, -1):
        total = total * (s * s) + 1.0 / (2 * j + 1)
    return exponent * _LN2 + 2.0 * s * total


@kernel
def _count(word: Any) -> int:
    """Return how many limits are not above the word."""
    count = np.int64(_FIRST[word >> _BYTE])
    while word >= _LIMITS[count]:
        count += 1
    return int(count)
