"""Random numbers of events: published answers, plain references, and the distributions they promise."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.special import ndtri

from binworks.tensors import random

Words = NDArray[np.uint64]
WORDS = st.integers(0, 2**32 - 1)
EVENTS = st.integers(0, 2**64 - 1)
LOW, SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)
SIZE = 200_000


def philox_reference(counter: Any, key: Any) -> Words:
    """Return the four words, shape (4, ...), of counters (4, ...) and keys (2, ...): the paper's round, ten times."""
    c = [np.asarray(word, np.uint64) for word in counter]
    k = [np.asarray(word, np.uint64) for word in key]
    for _ in range(10):
        left, right = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(right >> SHIFT) ^ c[1] ^ k[0], right & LOW, (left >> SHIFT) ^ c[3] ^ k[1], left & LOW]
        k = [(k[0] + np.uint64(0x9E3779B9)) & LOW, (k[1] + np.uint64(0xBB67AE85)) & LOW]
    return np.stack(np.broadcast_arrays(*c))


def words_of_event(run: int, lumi: int, event: int, index: int, stream: int) -> list[int]:
    words = philox_reference((event & 0xFFFFFFFF, event >> 32, lumi, index), (run, stream))
    return [int(word) for word in words]


@numba.njit
def normals(run: int, lumi: int, first: int, count: int, index: int) -> Any:
    return np.array([random.normal(run, lumi, first + i, index) for i in range(count)])


@numba.njit
def poissons(run: int, lumi: int, first: int, count: int, replica: int) -> Any:
    return np.array([random.poisson(run, lumi, first + i, replica) for i in range(count)])


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((LOW,) * 4, (LOW,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter: Any, key: Any, answer: Any) -> None:
    assert tuple(random.philox(*counter, *key)) == answer
    assert tuple(philox_reference(counter, key)) == answer


@given(st.tuples(WORDS, WORDS, WORDS, WORDS), st.tuples(WORDS, WORDS))
def test_the_kernel_is_the_reference(counter: Any, key: Any) -> None:
    assert tuple(random.philox(*counter, *key)) == tuple(philox_reference(counter, key))


@given(st.floats(1e-300, 1, exclude_max=True))
def test_the_normal_quantile_is_scipys(p: float) -> None:
    assert random.normal_quantile(p) == pytest.approx(ndtri(p), rel=1e-14, abs=1e-300)


@given(st.integers(1, 2**52 - 1))
def test_the_normal_quantile_is_odd_to_the_last_bit(n: int) -> None:
    assert random.normal_quantile(n * 2.0**-52) == -random.normal_quantile((2**52 - n) * 2.0**-52)


@pytest.mark.parametrize("p", [0.0, 1.0, -0.1, 1.1, np.nan])
def test_what_is_no_probability_has_no_quantile(p: float) -> None:
    assert np.isnan(random.normal_quantile(p))


@given(WORDS, WORDS, EVENTS, WORDS)
def test_a_normal_number_is_the_quantile_of_52_bits(run: int, lumi: int, event: int, index: int) -> None:
    words = words_of_event(run, lumi, event, index, random.SMEARING)
    p = ((words[0] >> 6 << 26 | words[1] >> 6) + 0.5) / 2**52
    g = random.normal(run, lumi, np.uint64(event), index)
    assert g == pytest.approx(ndtri(p), rel=1e-12, abs=1e-15)
    assert abs(g) < 8.3


@given(WORDS, WORDS, EVENTS, st.integers(0, 10_000))
def test_a_poisson_number_is_the_quantile_of_32_bits(run: int, lumi: int, event: int, replica: int) -> None:
    word = words_of_event(run, lumi, event, replica // 4, random.BOOTSTRAP)[replica % 4]
    edge = stats.poisson(1).ppf((word + np.array([0.0, 0.5, 1.0])) / 2**32)  # a limit is rounded to a word
    assert random.poisson(run, lumi, np.uint64(event), replica) in edge


@given(WORDS, WORDS, EVENTS, st.integers(0, 23), st.sampled_from([np.float64, np.int64, np.uint8]))
def test_filled_replicas_are_those_asked_for_one_by_one(
    run: int, lumi: int, event: int, size: int, dtype: Any
) -> None:
    out = np.full(size, 99, dtype)
    random.fill_poisson(run, lumi, np.uint64(event), out)
    assert out.tolist() == [random.poisson(run, lumi, np.uint64(event), j) for j in range(size)]


def test_the_type_of_the_columns_does_not_matter() -> None:
    wide = random.normal(np.int64(362_439), np.int64(17), np.int64(2**40 + 3), np.int64(1))
    narrow = random.normal(np.uint32(362_439), np.uint32(17), np.uint64(2**40 + 3), np.int32(1))
    assert wide == narrow
    assert random.normal(1, 1, np.int64(-1), 0) == random.normal(1, 1, np.uint64(2**64 - 1), 0)


def test_the_poisson_limits_are_the_distribution_function_with_mean_one() -> None:
    limits = random._LIMITS.astype(float) / 2**32
    assert np.abs(limits - stats.poisson(1).cdf(np.arange(len(limits)))).max() < 2.0**-32
    assert np.sum(1 - limits) == pytest.approx(1, abs=1e-9)


def test_normal_numbers_are_normal() -> None:
    g = normals(362_439, 17, 1_000, SIZE, 0)
    assert stats.kstest(g, "norm").pvalue > 0.01
    assert abs(g.mean()) < 3 / SIZE**0.5
    assert abs(g.var() - 1) < 3 * (2 / SIZE) ** 0.5
    assert abs(stats.kurtosis(g)) < 3 * (24 / SIZE) ** 0.5


def test_poisson_numbers_are_poisson() -> None:
    n = poissons(362_439, 17, 1_000, SIZE, 3)
    assert abs(n.mean() - 1) < 3 / SIZE**0.5
    found = np.bincount(np.minimum(n, 6), minlength=7)
    expected = SIZE * np.append(stats.poisson(1).pmf(np.arange(6)), stats.poisson(1).sf(5))
    assert stats.chisquare(found, expected).pvalue > 0.01


@pytest.mark.parametrize(
    "neighbour", [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 2**32, 0)]
)
def test_neighbours_are_independent(neighbour: tuple[int, int, int, int]) -> None:
    run, lumi, event, index = neighbour
    g = normals(7, 5, 0, SIZE, 0)
    beside = normals(7 + run, 5 + lumi, event, SIZE, index)
    table = np.histogram2d(stats.norm.cdf(g), stats.norm.cdf(beside), bins=10, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(table.ravel()).pvalue > 0.01
    n, others = (poissons(7 + i * run, 5 + i * lumi, i * event, SIZE, i * index) for i in (0, 1))
    assert abs(np.corrcoef(n, others)[0, 1]) < 3 / SIZE**0.5


def test_replicas_of_an_event_are_independent() -> None:
    replicas = np.empty((20_000, 8))
    for event, row in enumerate(replicas):
        random.fill_poisson(1, 1, event, row)
    correlations = np.corrcoef(replicas, rowvar=False)[np.triu_indices(8, 1)]
    assert stats.kstest(correlations * 20_000**0.5, "norm").pvalue > 0.01


def test_smearing_and_bootstrap_share_no_numbers() -> None:
    smearing, bootstrap = (
        philox_reference((np.arange(1000), 0, 1, 0), (1, stream))
        for stream in (random.SMEARING, random.BOOTSTRAP)
    )
    assert not (smearing == bootstrap).any()
    g, n = normals(1, 1, 0, SIZE, 0), poissons(1, 1, 0, SIZE, 0)
    assert abs(np.corrcoef(g, n)[0, 1]) < 3 / SIZE**0.5
