"""Tiles, panels and heaps put together give the best of whole rows of scores."""

import naive
import numpy as np
import pytest
from numba import config
from scipy.sparse import csr_array, random_array

from fastml.functional._sparse import canonical_csr
from fastml.kernels import topk
from fastml.runtime import ranking

# queries, items, features, k; the items are about a panel, less, or some panels and a rest
SHAPES = [(1, 1, 1, 1), (3, 7, 2, 3), (70, 511, 5, 10), (600, 1037, 3, 4), (65, 2000, 33, 100), (5, 700, 3, 700)]
if config.DISABLE_JIT:
    SHAPES = [(1, 1, 1, 1), (3, 7, 2, 3), (5, 90, 4, 9), (2, 530, 3, 40)]
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def integers(shape, dtype, size=3):
    """Vectors whose products are exact, with many ties."""
    n, n_items, d, _ = shape
    rng = np.random.default_rng(0)
    return [rng.integers(-size, size + 1, (rows, d)).astype(dtype) for rows in (n, n_items)]


def run(queries, items, k, exclude=None, n_threads=2):
    ids, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), queries.dtype)
    exclude = None if exclude is None else canonical_csr(exclude)
    ranking.top_k(queries, items, exclude, n_threads, ids, scores)
    return ids, scores


def assert_is_its_definition(queries, items, k, exclude=None):
    ids, scores = run(queries, items, k, exclude)
    expected_ids, expected_scores = naive.top_k(queries, items, k, exclude)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(scores, expected_scores)


@both_dtypes
@pytest.mark.parametrize("density", [None, 0.0, 0.1, 0.95, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_its_definition(shape, density, dtype):
    queries, items = integers(shape, dtype)
    exclude = None
    if density is not None:
        exclude = random_array((shape[0], shape[1]), density=density, format="csr", rng=np.random.default_rng(1))
    assert_is_its_definition(queries, items, shape[3], exclude)


@both_dtypes
@pytest.mark.parametrize("beyond", [0, 1, 600])
def test_k_from_all_items_on(beyond, dtype):
    shape = (2, 7 if config.DISABLE_JIT else 530, 3, 0)
    assert_is_its_definition(*integers(shape, dtype), shape[1] + beyond)


@both_dtypes
@pytest.mark.parametrize("order", ["rising", "falling", "equal", "rising by panels", "negative"])
def test_orders_of_scores(order, dtype):
    n_items = 530 if config.DISABLE_JIT else 2500
    at = np.arange(n_items)
    value = {
        "rising": at,
        "falling": -at,
        "equal": 0 * at,
        "rising by panels": 600 * (at // 512) - at % 512,
        "negative": at - 10_000,
    }[order]
    items = value[:, None].astype(dtype)
    for k in 1, 10, 70:
        assert_is_its_definition(np.array([[1], [2], [0]], dtype), items, k)


@both_dtypes
def test_random_scores(dtype):
    """Rounded in another order than the definition: the scores are near, and are those of the ids."""
    n, n_items, d, k = (3, 90, 5, 9) if config.DISABLE_JIT else (300, 3000, 64, 50)
    rng = np.random.default_rng(0)
    queries, items = rng.standard_normal((n, d)).astype(dtype), rng.standard_normal((n_items, d)).astype(dtype)
    ids, scores = run(queries, items, k)
    tolerance = 40 * np.finfo(dtype).eps * np.sqrt(d)
    products = queries.astype(float) @ items.astype(float).T
    np.testing.assert_allclose(scores, naive.top_k(queries, items, k)[1], atol=tolerance)
    np.testing.assert_allclose(scores, np.take_along_axis(products, ids, axis=1), atol=tolerance)
    assert (np.diff(scores) <= 0).all()
    assert all(len(set(row)) == k for row in ids.tolist())


def test_the_same_bits_on_any_number_of_threads():
    rng = np.random.default_rng(0)
    n, n_items = (140, 20) if config.DISABLE_JIT else (1000, 1300)
    queries, items = (rng.standard_normal((rows, 16), dtype=np.float32) for rows in (n, n_items))
    exclude = random_array((n, n_items), density=0.05, format="csr", rng=rng)
    one = run(queries, items, 12, exclude, 1)
    for n_threads in 2, 16:
        for got, expected in zip(run(queries, items, 12, exclude, n_threads), one, strict=True):
            np.testing.assert_array_equal(got, expected)


def test_other_rows_stay_as_they_are():
    queries, items = integers((6, 20, 3, 0), np.float32)
    ids, scores = np.full((6, 4), 77), np.full((6, 4), 77, np.float32)
    nothing = csr_array((6, 20))
    tail = np.zeros((32, 3), np.float32)
    tail[:20] = items
    exclude = topk.Exclude(nothing.indptr.astype(np.int64), nothing.indices.astype(np.int64))
    topk.top_k(2, 5, queries, items, tail, exclude, topk.scratch_for(3, 32, 4, np.float32), ids, scores)
    expected = naive.top_k(queries, items, 4)
    for got, right in zip((ids, scores), expected, strict=True):
        np.testing.assert_array_equal(got[2:5], right[2:5])
        assert (got[[0, 1, 5]] == 77).all()


@pytest.mark.parametrize("n_items", [1, 16, 17, 511, 512, 513, 1024, 12_000, 100_000])
def test_panels_are_even(n_items):
    """No panel is wider than what the tile was made for, and few of its places are empty."""
    width = ranking._panel_width(n_items)
    n_panels = -(-n_items // width)
    assert width % 16 == 0
    assert width <= ranking._PANEL
    assert n_panels * width - n_items < 16 * n_panels


@pytest.mark.parametrize("n_queries", [1, 63, 64, 65, 600, 10**6])
@pytest.mark.parametrize("itemsize", [4, 8])
def test_tiles_stay_in_second_level_cache(n_queries, itemsize):
    rows = ranking._tile_rows(n_queries, 10, itemsize)
    assert 1 <= rows <= n_queries
    assert rows * ranking._PANEL * itemsize <= ranking._TILE_BYTES
