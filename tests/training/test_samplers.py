"""Negatives are drawn with the frequencies that their log expected counts say."""

import doctest
import pickle

import naive
import numpy as np
import pytest
from sklearn.base import clone

from fastml.training import samplers
from fastml.training.samplers import InBatchSampler, LogUniformSampler, PopularitySampler, UniformSampler

RANDOM = [UniformSampler, PopularitySampler, LogUniformSampler]
ALL = [*RANDOM, InBatchSampler]
random_samplers = pytest.mark.parametrize("kind", RANDOM)
all_samplers = pytest.mark.parametrize("kind", ALL)
both_ways = pytest.mark.parametrize("replacement", [True, False])


def counts_of(n_classes, zeros=0):
    """Zipf's law in a random order; some classes never occur."""
    rng = np.random.default_rng(0)
    counts = rng.permutation(1000 / (np.arange(n_classes) + 1.0))
    counts[rng.permutation(n_classes)[:zeros]] = 0
    return counts


def zipf(n):
    q = 1 / (np.arange(n) + 1.0)
    return q / q.sum()


def mean_counts(draws, n_classes):
    """Mean count of each class over draws (of several lengths), and its standard error."""
    counts = np.array([np.bincount(ids, minlength=n_classes) for ids in draws])
    return counts.mean(axis=0), counts.std(axis=0, ddof=1) / np.sqrt(len(counts))


def assert_calibrated(draws, log_q):
    """Within 4 standard errors; that of a class which is always, or never, drawn is at least one draw's."""
    mean, error = mean_counts(draws, len(log_q))
    assert (np.abs(mean - np.exp(log_q)) <= 4 * error + 1 / len(draws)).all()


def test_examples():
    assert doctest.testmod(samplers).failed == 0


@all_samplers
def test_parameters(kind):
    sampler = clone(kind().set_params(replacement=False))
    assert sampler.get_params()["replacement"] is False
    assert repr(sampler) == f"{kind.__name__}(replacement=False)"
    assert repr(PopularitySampler(power=0.5)) == "PopularitySampler(power=0.5)"


def test_probabilities():
    counts = np.array([5.0, 0.0, 20.0, 1.0])
    np.testing.assert_allclose(UniformSampler().bind(4, counts).probability, 0.25)
    powers = np.array([5**0.75, 0, 20**0.75, 1])
    np.testing.assert_allclose(PopularitySampler().bind(4, counts).probability, powers / powers.sum())
    np.testing.assert_allclose(PopularitySampler(0).bind(4, counts).probability, [1 / 3, 0, 1 / 3, 1 / 3])
    by_rank = np.log((np.arange(4) + 2) / (np.arange(4) + 1)) / np.log(5)
    np.testing.assert_allclose(LogUniformSampler().bind(4).probability, by_rank)
    np.testing.assert_allclose(LogUniformSampler().bind(4, counts).probability, by_rank[[1, 3, 0, 2]])
    np.testing.assert_allclose(InBatchSampler().bind(4, counts).probability, counts / 26)
    huge = PopularitySampler(2).bind(2, [1e308, 1e308])
    np.testing.assert_array_equal(huge.probability, [0.5, 0.5])


@both_ways
@random_samplers
def test_expected_counts_are_calibrated(kind, replacement):
    n_classes, m = 200, 40
    bound = kind(replacement=replacement).bind(n_classes, counts_of(n_classes, zeros=20))
    draws = [bound.draw(m, seed=0, step=step).ids for step in range(2000)]
    assert_calibrated(draws, bound.log_expected_count(m))
    np.testing.assert_allclose(np.exp(bound.log_expected_count(m)).sum(), m)


@both_ways
def test_in_batch_counts_are_calibrated(replacement):
    rng, n_classes, m = np.random.default_rng(0), 100, 30
    bound = InBatchSampler(replacement=replacement).bind(n_classes, counts_of(n_classes, zeros=10))
    batches = rng.choice(n_classes, (2000, m), p=bound.probability)
    draws = [bound.draw_from(batch) for batch in batches]
    assert_calibrated([draw.ids for draw in draws], draws[0].log_q)
    expected = batches[0] if replacement else np.unique(batches[0])
    np.testing.assert_array_equal(draws[0].ids, expected)


@pytest.mark.parametrize("m", [1, 3, 5])
def test_both_ways_to_distinct_classes_have_the_exact_frequencies(m):
    q = zipf(6)
    bound, exact = PopularitySampler(1, replacement=False).bind(6, q), naive.inclusion_probability(q, m)
    for name, arguments in {"_until_distinct": (m, 4), "_first_to_arrive": (m,)}.items():
        draws = [getattr(bound, name)(*arguments, 0, step) for step in range(5000)]
        assert_calibrated(draws, np.log(exact))
        firsts = [ids[:1] for ids in draws]  # in the order of drawing
        assert_calibrated(firsts, np.log(q))


def test_how_near_the_approximation_is():
    """Some percent for a handful of negatives, 1 % from 30 on."""
    q = zipf(8)
    bound = PopularitySampler(1, replacement=False).bind(8, q)
    for m in range(1, 9):
        exact = naive.inclusion_probability(q, m)
        tolerance = 1e-12 if m in (1, 8) else 0.05
        np.testing.assert_allclose(np.exp(bound.log_expected_count(m)), exact, rtol=tolerance)
    bound = PopularitySampler(1, replacement=False).bind(300, zipf(300))
    mean, error = mean_counts([bound.draw(30, seed=0, step=step).ids for step in range(10_000)], 300)
    expected = np.exp(bound.log_expected_count(30))
    assert (np.abs(mean - expected) <= 0.01 * expected + 4 * error).all()


def test_uniform_inclusion_is_exact():
    bound = UniformSampler(replacement=False).bind(1000)
    for m in 1, 10, 999, 1000:
        np.testing.assert_allclose(np.exp(bound.log_expected_count(m)), m / 1000, rtol=1e-12)


@pytest.mark.parametrize("m", [1, 50, 500, 979, 980])
@random_samplers
def test_without_replacement_nothing_is_repeated(kind, m):
    counts = counts_of(1000, zeros=20)
    bound = kind(replacement=False).bind(1000, counts)
    for step in range(3):
        ids, log_q = bound.draw(m, seed=1, step=step)
        assert len(np.unique(ids)) == len(ids) == m
        assert np.isfinite(log_q[ids]).all()
        if kind is PopularitySampler:
            assert (counts[ids] > 0).all()


def test_improbable_classes_are_drawn_in_time():
    """Trying until they come up would take for ever."""
    bound = PopularitySampler(1, replacement=False).bind(5, [1.0, 1e-300, 0.0, 1e-20, 1e-300])
    draws = [bound.draw(3, seed=0, step=step) for step in range(400)]
    assert all(set(ids[:2]) == {0, 3} and ids[2] in (1, 4) for ids, _ in draws)
    np.testing.assert_allclose(np.exp(draws[0].log_q), [1, 0.5, 0, 1, 0.5])
    assert_calibrated([draw.ids for draw in draws], draws[0].log_q)
    assert set(bound.draw(4, seed=0).ids) == {0, 1, 3, 4}


@both_ways
def test_classes_that_never_occur(replacement):
    counts = counts_of(50, zeros=30)
    bound = PopularitySampler(replacement=replacement).bind(50, counts)
    ids = np.concatenate([bound.draw(20, seed=2, step=step).ids for step in range(200)])
    assert not np.isin(ids, np.flatnonzero(counts == 0)).any()
    np.testing.assert_array_equal(np.isneginf(bound.log_expected_count(20)), counts == 0)


@both_ways
@random_samplers
def test_same_bits_for_any_number_of_threads(monkeypatch, kind, replacement):
    counts = counts_of(150_000)
    for m in 70_000, 140_000:  # of the latter, those without replacement race
        bound, results = kind(replacement=replacement).bind(len(counts), counts), []
        for n_threads in 1, 2, 5:
            monkeypatch.setattr(samplers, "thread_count", lambda n=n_threads: n)
            results.append(bound.draw(m, seed=3, step=4).ids)
        np.testing.assert_array_equal(results[0], results[1])
        np.testing.assert_array_equal(results[0], results[2])


@both_ways
@random_samplers
def test_a_draw_depends_on_seed_and_step_alone(kind, replacement):
    sampler, counts = kind(replacement=replacement), counts_of(5000)
    bound = sampler.bind(5000, counts)
    ids, log_q = bound.draw(100, seed=0, step=9)
    bound.draw(70, seed=5)
    again = pickle.loads(pickle.dumps(bound)).draw(100, np.int64(0), np.int64(9))
    np.testing.assert_array_equal(again.ids, ids)
    np.testing.assert_array_equal(again.log_q, log_q)
    assert ids.dtype == np.int64
    for other in ({"seed": 1, "step": 9}, {"seed": 0, "step": 8}, {"seed": 9, "step": 0}):
        assert (bound.draw(100, **other).ids != ids).any()


def test_one_array_serves_all_steps():
    bound = LogUniformSampler(replacement=False).bind(100)
    log_q = bound.draw(10, seed=0, step=0).log_q
    assert bound.draw(10, seed=0, step=1).log_q is log_q
    with pytest.raises(ValueError, match="read-only"):
        log_q[0] = 0


@pytest.mark.parametrize(
    ("counts", "error", "message"),
    [
        (None, ValueError, "counts: .* needs how often each class occurs, got None"),
        ([1, 2], ValueError, r"counts: expected shape \(3,\), one count per class, got \(2,\)"),
        ([[1, 2, 3]], ValueError, r"counts: expected shape \(3,\), one count per class, got \(1, 3\)"),
        ([1, -2, 3], ValueError, "counts: expected numbers >= 0, got -2.0 for class 1"),
        ([1, np.nan, 3], ValueError, r"counts: expected finite numbers, got nan at \(1,\)"),
        ([1, 2, np.inf], ValueError, r"counts: expected finite numbers, got inf at \(2,\)"),
        ([0, 0, 0], ValueError, "counts: expected at least one above 0, got 3 zeros"),
        (["a", "b", "c"], TypeError, "counts: expected real numbers"),
    ],
)
@pytest.mark.parametrize("kind", [PopularitySampler, InBatchSampler])
def test_bad_counts(kind, counts, error, message):
    with pytest.raises(error, match=message):
        kind().bind(3, counts)


@pytest.mark.parametrize(
    ("power", "error"),
    [(np.nan, ValueError), (np.inf, ValueError), (-1, ValueError), ("1", TypeError), (None, TypeError)],
)
def test_bad_power(power, error):
    with pytest.raises(error, match="power of PopularitySampler"):
        PopularitySampler(power).bind(2, [1, 2])


def test_bad_number_of_classes_and_replacement():
    for n_classes, error in (0, ValueError), (2**31, ValueError), (2.0, TypeError), (True, TypeError):
        with pytest.raises(error, match="n_classes: expected an integer"):
            UniformSampler().bind(n_classes)
    with pytest.raises(TypeError, match="replacement of UniformSampler.* must be True or False, got 'no'"):
        UniformSampler(replacement="no").bind(3)


@pytest.mark.parametrize("name", ["n_negatives", "seed", "step"])
@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), (2**63, ValueError), (1.0, TypeError), (None, TypeError)]
)
def test_bad_draws(name, value, error):
    arguments = {"n_negatives": 5, "seed": 0, "step": 0, name: value}
    with pytest.raises(error, match=f"{name}: expected an integer"):
        UniformSampler().bind(10).draw(**arguments)


def test_more_negatives_than_classes():
    with pytest.raises(ValueError, match="n_negatives: expected an integer in 1"):
        UniformSampler().bind(10).draw(0, seed=0)
    with pytest.raises(ValueError, match="n_negatives: expected at most 10 without replacement.* got 11"):
        UniformSampler(replacement=False).bind(10).draw(11, seed=0)
    with pytest.raises(ValueError, match="n_negatives: expected at most 2 without replacement.* got 3"):
        PopularitySampler(replacement=False).bind(4, [1, 0, 0, 2]).log_expected_count(3)
    assert len(UniformSampler().bind(10).draw(11, seed=0).ids) == 11


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ([0, 3], ValueError, "batch: expected labels in 0..2, got 3 at row 1"),
        ([0, -1], ValueError, "batch: expected labels in 0..2, got -1 at row 1"),
        ([0.0, 1.0], TypeError, "batch: expected integer class labels"),
        ([], ValueError, r"batch: expected shape \(n_rows,\), one class per row, got \(0,\)"),
        ([[0, 1]], ValueError, r"batch: expected shape \(n_rows,\), one class per row, got \(1, 2\)"),
    ],
)
def test_bad_batches(batch, error, message):
    with pytest.raises(error, match=message):
        InBatchSampler().bind(3, [1, 2, 3]).draw_from(batch)
