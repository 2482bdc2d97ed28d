"""Draws are a function of seed, step and position; an alias table has the probabilities it was made from."""

import naive
import numpy as np
import pytest
from numba import config
from scipy.stats import chi2, kstest

from fastml.kernels import sampling
from fastml.kernels._random import random_bits, scaled

# Uncompiled, integers of 64 bits that wrap around are told.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")

N_DRAWS = 2000 if config.DISABLE_JIT else 200_000
SEED, STEP = 12345, 7


def zipf(n, power=1.0):
    q = (np.arange(n) + 1.0) ** -power
    return q / q.sum()


def some_zeros(n, seed=0):
    rng = np.random.default_rng(seed)
    q = rng.exponential(size=n) ** 3 * (rng.random(n) < 0.5)
    q[n // 2] = 1.0
    return q / q.sum()


DISTRIBUTIONS = {
    "one class": np.ones(1),
    "two classes": np.array([0.25, 0.75]),
    "uniform": np.full(7, 1 / 7),
    "zipf": zipf(100),
    "rising": zipf(33)[::-1].copy(),
    "some zeros": some_zeros(300),
    "one of many": np.eye(50)[20],
    "far apart": np.array([1e-300, 1e-12, 1.0, 1e-6, 0.0]) / (1.0 + 1e-6 + 1e-12),
}
all_distributions = pytest.mark.parametrize("q", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)


def alias_table(q):
    table = np.empty((len(q), 2), np.uint64)
    sampling.fill_alias_table(q, int(q.argmax()), table)
    return table


def draw(kernel, n, source, first=0):
    ids = np.empty(n, np.int64)
    kernel(0, n, SEED, STEP, first, source, ids)
    return ids


def assert_has_frequencies(ids, q):
    """Chi-square of the counts at a level of 1e-4, classes with few expected draws together."""
    counts, expected = np.bincount(ids, minlength=len(q)), len(ids) * q
    assert not counts[q == 0].any()
    rare = expected < 5
    counts, expected = (np.append(a[~rare], a[rare].sum()) for a in (counts, expected))
    counts, expected = counts[expected > 0], expected[expected > 0]
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert statistic <= chi2.ppf(1 - 1e-4, max(len(counts) - 1, 1))


def test_published_numbers():
    """The generator started at 1234567 begins with these."""
    numbers = [int(random_bits(np.uint64(1234567), position)) for position in range(1, 4)]
    assert numbers == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_scaled_is_exact():
    for n in 1, 7, 100_000, 2**31, 2**32 - 1:
        for bits in 0, 1, 2**32 - 1, 2**63 + 12345, 2**64 - 1:
            whole, fraction = scaled(np.uint64(bits), n)
            assert (int(whole), int(fraction)) == divmod(bits * n, 2**64)


@all_distributions
def test_table_has_the_probabilities(q):
    np.testing.assert_allclose(naive.alias_probability(alias_table(q)), q, rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize("n", [1000] if config.DISABLE_JIT else [1000, 100_000])
@pytest.mark.parametrize("power", [0.1, 1.0, 3.0])
def test_large_table_has_the_probabilities(n, power):
    q = np.random.default_rng(0).permutation(zipf(n, power))
    np.testing.assert_allclose(naive.alias_probability(alias_table(q)), q, rtol=1e-9, atol=1e-16)


@all_distributions
def test_table_has_no_way_to_a_class_of_probability_zero(q):
    table = alias_table(q)
    own, alias = table[:, 0], table[:, 1].astype(int)
    assert not own[q == 0].any()
    assert (q[alias] > 0).all()


@pytest.mark.parametrize("excess", [-1e-9, 1e-9])
def test_table_of_a_sum_that_misses_one(excess):
    """Cells that are left without a partner do not lead to a class of probability zero."""
    q = np.append(zipf(20), 0.0) * (1 + excess)
    table = alias_table(q)
    assert table[-1, 0] == 0
    assert (q[table[:, 1].astype(int)] > 0).all()
    np.testing.assert_allclose(naive.alias_probability(table), q, atol=1e-8)


def test_equal_their_definitions():
    q = zipf(11)
    table = alias_table(q)
    bits = [naive.splitmix64(SEED, STEP, 5 + j) for j in range(200)]
    cells = [divmod(b * len(q), 2**64) for b in bits]
    np.testing.assert_array_equal(draw(sampling.draw_uniform, 200, len(q), first=5), [cell for cell, _ in cells])
    expected = [cell if rest < table[cell, 0] else table[cell, 1] for cell, rest in cells]
    np.testing.assert_array_equal(draw(sampling.draw_alias, 200, table, first=5), expected)


@all_distributions
def test_frequencies(q):
    assert_has_frequencies(draw(sampling.draw_alias, N_DRAWS, alias_table(q)), q)
    assert_has_frequencies(draw(sampling.draw_uniform, N_DRAWS, len(q)), np.full(len(q), 1 / len(q)))


def test_neighbouring_draws_are_independent():
    """Pairs of draws, within a step and between steps, have the frequencies of pairs."""
    q = zipf(8)
    ids = draw(sampling.draw_alias, N_DRAWS, alias_table(q))
    following = np.empty_like(ids)
    sampling.draw_alias(0, N_DRAWS, SEED, STEP + 1, 0, alias_table(q), following)
    assert_has_frequencies(8 * ids[:-1:2] + ids[1::2], np.outer(q, q).ravel())
    assert_has_frequencies(8 * ids + following, np.outer(q, q).ravel())


@pytest.mark.parametrize("kernel", [sampling.draw_uniform, sampling.draw_alias])
def test_any_split_gives_the_same_bits(kernel):
    source = 1000 if kernel is sampling.draw_uniform else alias_table(zipf(1000))
    whole = draw(kernel, 1000, source)
    parts = np.empty_like(whole)
    for start, stop in (700, 1000), (0, 1), (1, 257), (257, 700):
        kernel(start, stop, SEED, STEP, 0, source, parts)
    np.testing.assert_array_equal(parts, whole)
    np.testing.assert_array_equal(draw(kernel, 400, source, first=600), whole[600:])


@pytest.mark.parametrize("pieces", [1, 3])
def test_keep_new_keeps_first_appearances(pieces):
    draws = draw(sampling.draw_alias, 300, alias_table(zipf(40)))
    expected = list(dict.fromkeys(draws.tolist()))
    for m in 1, 5, len(expected), len(expected) + 1:
        ids, seen, n_kept = np.full(m, -1), np.zeros(40, bool), 0
        for part in np.array_split(draws, pieces):
            n_kept = sampling.keep_new(n_kept, part, seen, ids)
        assert n_kept == min(m, len(expected))
        assert ids[:n_kept].tolist() == expected[:m]


def test_race():
    """Arrivals are exponential with their rates, and never at rate zero."""
    n = 1000 if config.DISABLE_JIT else 20_000
    rate, whole, parts = 3.0, np.empty(n + 1), np.empty(n + 1)
    log_probability = np.append(np.full(n, np.log(rate)), -np.inf)
    sampling.race(0, n + 1, SEED, STEP, log_probability, whole)
    assert whole[-1] == np.inf
    assert kstest(np.exp(whole[:-1]), "expon", args=(0, 1 / rate)).pvalue > 1e-3
    for start, stop in (n // 3, n + 1), (0, n // 3):
        sampling.race(start, stop, SEED, STEP, log_probability, parts)
    np.testing.assert_array_equal(parts, whole)
