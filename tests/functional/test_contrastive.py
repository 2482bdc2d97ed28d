"""InfoNCE: its definition, its gradients, its masks and corrections, and what it refuses."""

import tracemalloc

import joblib
import naive
import numpy as np
import pytest
from numba import config
from scipy.special import softmax

from fastml import functional
from fastml.functional import info_nce, info_nce_grad
from fastml.runtime import contrastive

SHAPES = [(1, 3, 2), (2, 0, 1), (7, 0, 3), (70, 5, 16), (255, 33, 20), (600, 300, 17)]

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
both_similarities = pytest.mark.parametrize("similarity", ["cosine", "dot"])
both_directions = pytest.mark.parametrize("symmetric", [False, True])


def make(shape, dtype=np.float64, seed=0):
    """Queries, keys, and all that can be passed beside them."""
    (n, m, d), rng = shape, np.random.default_rng(seed)
    queries, keys, negatives = (rng.normal(size=(rows, d)).astype(dtype) for rows in (n, n, m))
    return queries, keys, {
        "negatives": negatives if m else None,
        "ids": rng.integers(0, max(n // 3, 2), n),
        "log_q": rng.normal(size=n),
        "sample_weight": rng.random(n) + 0.1,
        "temperature": 0.5,
    }  # fmt: skip


@both_dtypes
@both_similarities
@both_directions
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_its_definition(shape, symmetric, similarity, dtype):
    queries, keys, options = make(shape, dtype)
    options = {**options, "similarity": similarity, "symmetric": symmetric}
    expected = naive.info_nce(queries, keys, **options)
    result = info_nce_grad(queries, keys, **options)
    tolerance = 1e-4 if dtype == np.float32 else 1e-11
    for loss in info_nce(queries, keys, **options), result.loss:
        assert loss.dtype == dtype
        np.testing.assert_allclose(loss, expected, rtol=tolerance, atol=tolerance)
    assert result._fields == ("loss", "queries", "keys", "negatives", "temperature")
    assert result.queries.dtype == result.keys.dtype == dtype
    assert (result.negatives is None) == (shape[1] == 0)


@both_similarities
@both_directions
@pytest.mark.parametrize("shape", [(1, 3, 2), (5, 0, 3), (9, 4, 2)])
def test_gradients_are_those_of_the_loss(shape, symmetric, similarity):
    queries, keys, options = make(shape)
    options = {**options, "similarity": similarity, "symmetric": symmetric}

    def total(**changed):
        arrays = {"queries": queries, "keys": keys, **options, **changed}
        return naive.info_nce(arrays.pop("queries"), arrays.pop("keys"), **arrays).sum()

    result = info_nce_grad(queries, keys, **options)
    for name, x in ("queries", queries), ("keys", keys), ("negatives", options["negatives"]):
        if x is not None:
            expected = naive.finite_differences(lambda x, name=name: total(**{name: x}), x)
            np.testing.assert_allclose(getattr(result, name), expected, atol=1e-7)
    expected = naive.finite_differences(lambda t: total(temperature=t[0]), np.array([0.5]))[0]
    assert result.temperature == pytest.approx(expected, rel=1e-6, abs=1e-8)


def check_both(queries, keys, options, tolerance):
    """Both directions are the mean of two calls; the tolerance is relative to the largest entry."""
    both = info_nce_grad(queries, keys, **options, symmetric=True)
    there, back = info_nce_grad(queries, keys, **options), info_nce_grad(keys, queries, **options)
    for got, one, other in (
        (both.loss, there.loss, back.loss),
        (both.queries, there.queries, back.keys),
        (both.keys, there.keys, back.queries),
        (both.temperature, there.temperature, back.temperature),
    ):
        expected = (one + other) / 2
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@both_similarities
def test_both_directions_are_two_calls(similarity):
    queries, keys, options = make((40, 0, 5))
    check_both(queries, keys, {**options, "similarity": similarity, "log_q": None}, 1e-11)


@both_directions
def test_log_q_of_the_negatives_too(symmetric):
    queries, keys, options = make((20, 6, 4))
    options = {**options, "log_q": np.random.default_rng(1).normal(size=26), "symmetric": symmetric}
    np.testing.assert_allclose(info_nce(queries, keys, **options), naive.info_nce(queries, keys, **options), rtol=1e-11)


def test_a_constant_log_q_changes_nothing():
    queries, keys, _ = make((20, 0, 4))
    np.testing.assert_allclose(info_nce(queries, keys, log_q=np.full(20, 3.0)), info_nce(queries, keys), rtol=1e-12)


def test_pairs_of_one_id_are_masked_whatever_ids_are():
    queries, keys, _ = make((12, 0, 4))
    numbers = np.arange(12) % 5
    expected = naive.info_nce(queries, keys, ids=numbers)
    for ids in numbers, numbers.astype(str), numbers * 0.5, list(numbers - 3):
        np.testing.assert_allclose(info_nce(queries, keys, ids=ids), expected, rtol=1e-12)
    np.testing.assert_allclose(info_nce(queries, keys, ids=np.arange(12)), info_nce(queries, keys), rtol=1e-12)


@both_directions
def test_one_id_leaves_nothing_to_tell_apart(symmetric):
    queries, keys, _ = make((400, 0, 4), np.float32)
    result = info_nce_grad(queries, keys, ids=np.zeros(400, int), symmetric=symmetric)
    np.testing.assert_allclose(result.loss, 0, atol=1e-5)
    np.testing.assert_allclose(result.queries, 0, atol=1e-4)


@both_directions
def test_a_row_of_zeros_is_similar_to_none(symmetric):
    queries, keys, _ = make((9, 0, 3))
    queries[2], keys[5] = 0, 0
    result = info_nce_grad(queries, keys, symmetric=symmetric)
    np.testing.assert_allclose(result.loss, naive.info_nce(queries, keys, symmetric=symmetric), rtol=1e-11)
    assert not result.queries[2].any()
    assert not result.keys[5].any()
    assert np.isfinite(result.queries).all()
    assert np.isfinite(result.keys).all()


@both_directions
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_cosine_at_any_length(scale, symmetric):
    queries, keys, _ = make((30, 0, 4), np.float32)
    got = info_nce(queries * np.float32(scale), keys, symmetric=symmetric)
    np.testing.assert_allclose(got, info_nce(queries, keys, symmetric=symmetric), rtol=1e-5, atol=1e-6)


@both_directions
@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_extreme_temperatures(temperature, symmetric):
    queries, keys, _ = make((300, 20, 8), np.float32)
    result = info_nce_grad(queries, keys, temperature=temperature, symmetric=symmetric)
    expected = naive.info_nce(queries, keys, temperature=temperature, symmetric=symmetric)
    np.testing.assert_allclose(result.loss, expected, rtol=1e-4, atol=2e-6 / temperature)
    assert all(np.isfinite(x).all() for x in result if x is not None)


@both_dtypes
@pytest.mark.parametrize("scale", [3.0, 100.0])
def test_logits_far_from_each_other(scale, dtype):
    """Up to 1e5, where rows and columns have no exponentials in common."""
    queries, keys, options = make((80, 7, 3), dtype)
    queries, keys, options["similarity"] = dtype(scale) * queries, dtype(scale) * keys, "dot"
    loss = info_nce(queries, keys, **options, symmetric=True)
    expected = naive.info_nce(queries, keys, **options, symmetric=True)
    tolerance = 1e-5 if dtype == np.float32 else 1e-11
    np.testing.assert_allclose(loss, expected, atol=tolerance * expected.max())
    check_both(queries, keys, {**options, "negatives": None, "log_q": None}, 10 * tolerance)


@both_dtypes
def test_own_logits_near_each_other_and_others_far_above(dtype):
    """They overflow where only the own logits were looked at, and are taken again."""
    queries, keys, _ = make((60, 0, 3), dtype)
    queries -= keys * ((queries * keys).sum(axis=1) / (keys * keys).sum(axis=1))[:, None]  # own logits are 0
    queries[7] *= 2000
    options = {"similarity": "dot", "temperature": 1.0}
    loss = info_nce(queries, keys, **options, symmetric=True)
    expected = naive.info_nce(queries, keys, **options, symmetric=True)
    tolerance = 1e-5 if dtype == np.float32 else 1e-11
    np.testing.assert_allclose(loss, expected, rtol=tolerance)
    check_both(queries, keys, options, 10 * tolerance)


@pytest.mark.skipif(bool(config.BOUNDSCHECK), reason="sums are made one by one where bounds are checked")
@both_directions
@pytest.mark.parametrize("temperature", [1.0, 0.07, 0.02])
@pytest.mark.parametrize("noise", [0.1, 10.0])
def test_error_is_that_of_plain_float32(noise, temperature, symmetric):
    queries, keys, _ = make((500, 0, 32), np.float32)
    keys = queries + np.float32(noise) * keys
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, keys)]
    result = info_nce_grad(*unit, temperature=temperature, similarity="dot", symmetric=symmetric)
    exact, plain = (plain_gradient(*unit, temperature, symmetric, dtype) for dtype in (np.float64, np.float32))
    error, theirs = (np.abs(x - exact).max() for x in (result.queries, plain))
    assert error <= 1.5 * theirs + 1e-6 / temperature * np.abs(exact).max()


def plain_gradient(queries, keys, temperature, symmetric, dtype):
    """Of the queries, with all logits in memory and everything in one dtype."""
    queries, keys = queries.astype(dtype), keys.astype(dtype)
    z = queries @ keys.T / dtype(temperature)
    grad = softmax(z, axis=1)
    if symmetric:
        grad = (grad + softmax(z, axis=0)) / 2
    grad[np.diag_indices(len(grad))] -= 1
    return grad @ keys / dtype(temperature)


def test_kept_exponentials_are_those_of_a_second_sweep(monkeypatch):
    queries, keys, options = make((700, 40, 5))
    kept = info_nce_grad(queries, keys, **options, symmetric=True)
    monkeypatch.setattr(contrastive, "_KEPT_BYTES", 1 << 20)
    for got, expected in zip(info_nce_grad(queries, keys, **options, symmetric=True), kept, strict=True):
        np.testing.assert_array_equal(got, expected)


@both_dtypes
@both_directions
def test_any_number_of_threads_gives_the_same_bits(symmetric, dtype):
    queries, keys, options = make((700, 100, 24), dtype)
    results = []
    for n_jobs in 1, 2, 16:
        with joblib.parallel_config("threading", n_jobs=n_jobs):
            results.append(info_nce_grad(queries, keys, **options, symmetric=symmetric))
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(got, expected)


@both_directions
def test_few_kept_rows_and_many_panels(symmetric, monkeypatch):
    for name, value in ("_BLOCK_BYTES", 0), ("_KEPT_BYTES", 1 << 17), ("_TILE_BYTES", 1 << 12), ("_LANE_KEYS", 32):
        monkeypatch.setattr(contrastive, name, value)
    queries, keys, options = make((300, 40, 5))
    result = info_nce_grad(queries, keys, **options, symmetric=symmetric)
    np.testing.assert_allclose(result.loss, naive.info_nce(queries, keys, **options, symmetric=symmetric), rtol=1e-11)


@both_directions
def test_input_may_be_read_only_and_in_any_order(symmetric):
    queries, keys, options = make((50, 9, 6))
    expected = info_nce_grad(queries, keys, **options, symmetric=symmetric)
    others = [np.asfortranarray(x) for x in (queries, keys)]
    for x in others:
        x.setflags(write=False)
    got = info_nce_grad(*others, **options, symmetric=symmetric)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@both_directions
def test_memory_does_not_grow_with_the_square(symmetric):
    queries, keys, _ = make((6000, 0, 8), np.float32)
    info_nce_grad(queries[:300], keys[:300], symmetric=symmetric)
    tracemalloc.start()
    info_nce_grad(queries, keys, symmetric=symmetric)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20  # all similarities would be 137 MiB


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"keys": np.ones((4, 2))}, ValueError, "keys: expected 5 rows"),
        ({"keys": np.ones((5, 3))}, ValueError, "keys: expected 2 columns"),
        ({"negatives": np.ones((5, 3))}, ValueError, "negatives: expected 2 columns"),
        ({"queries": np.full((5, 2), np.nan)}, ValueError, "queries: expected finite"),
        ({"keys": np.full((5, 2), np.inf)}, ValueError, "keys: expected finite"),
        ({"negatives": np.full((5, 2), np.nan)}, ValueError, "negatives: expected finite"),
        ({"negatives": np.empty((0, 2))}, ValueError, "negatives has 0 rows"),
        ({"temperature": 0}, ValueError, "temperature: expected a finite number above 0"),
        ({"temperature": -1.0}, ValueError, "temperature"),
        ({"temperature": "learn"}, TypeError, "temperature: expected a real number"),
        ({"similarity": "euclidean"}, ValueError, "similarity: expected 'cosine' or 'dot'"),
        ({"ids": np.arange(4)}, ValueError, r"ids: expected shape \(5,\)"),
        ({"ids": np.array([1, 2, 3, 4, np.nan])}, ValueError, "ids: expected finite"),
        ({"log_q": np.zeros(4)}, ValueError, "log_q: expected 5 numbers"),
        ({"log_q": np.array([0, 0, 0, 0, -np.inf])}, ValueError, "log_q: expected finite"),
        ({"log_q": np.array([0, 0, 0, 0, np.inf])}, ValueError, "log_q: expected finite"),
        ({"sample_weight": np.ones(4)}, ValueError, "sample_weight: expected shape"),
        ({"sample_weight": -np.ones(5)}, ValueError, "sample_weight"),
        ({"queries": np.ones((1, 2)), "keys": np.ones((1, 2))}, ValueError, "one row has no negatives"),
        ({"queries": np.full((5, 2), 1e200), "keys": np.full((5, 2), 1e200), "similarity": "dot"}, ValueError, "scale"),
        ({"log_q": np.array([1.7e308, -1.7e308, 0, 0, 0])}, ValueError, "log_q: the logits of row 0 overflow float64"),
        ({"queries": np.array([["a", "b"]] * 5)}, TypeError, "queries: expected real numbers"),
    ],
)
@pytest.mark.parametrize("name", ["info_nce", "info_nce_grad"])
def test_bad_input(name, changed, error, message):
    arrays = {"queries": np.ones((5, 2)), "keys": np.ones((5, 2)), **changed}
    with pytest.raises(error, match=message):
        getattr(functional, name)(arrays.pop("queries"), arrays.pop("keys"), **arrays)
