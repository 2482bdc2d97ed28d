"""How half-steps of WALS are cut into tasks, and the Gramian."""

import numpy as np
import pytest

from fastml.runtime.wals import gramian, padded, sort_rows

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def sorted_rows(lengths):
    indptr = np.append(0, np.cumsum(lengths, dtype=np.int64))
    return sort_rows(indptr, np.zeros(indptr[-1], np.int64), np.ones(indptr[-1]), np.ones(indptr[-1]))


@pytest.mark.parametrize(
    "lengths",
    [[0], [5], [0, 0, 0], [3, 3, 3], [0, 100_000, 1, 0, 2], np.random.default_rng(0).zipf(1.5, 5000).clip(max=10_000)],
)
def test_every_row_is_in_one_task_longest_first(lengths):
    (order, *_), bounds = sorted_rows(lengths)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert (np.diff(np.take(lengths, order)) <= 0).all()
    assert (bounds[0], bounds[-1]) == (0, len(lengths))
    assert (np.diff(bounds) > 0).all()


def test_rows_of_one_length_keep_their_order():
    """Neighbours often share what they read."""
    assert sorted_rows([2, 7, 2, 0, 7, 2]).rows.order.tolist() == [1, 4, 0, 2, 5, 3]


@pytest.mark.parametrize("n_rows", [2000, 50_000])
def test_tasks_are_of_about_equal_work(n_rows):
    """A few rows are a thousand times longer than the rest."""
    lengths = np.full(n_rows, 10)
    lengths[::1000] = 10_000
    rows, bounds = sorted_rows(lengths)
    work = np.add.reduceat(lengths[rows.order], bounds[:-1])
    assert work.max() <= lengths.max() + lengths.sum() / 64


@both_dtypes
@pytest.mark.parametrize("n_rows", [0, 1, 100, 1025, 20_000])
def test_gramian(n_rows, dtype):
    factors = np.random.default_rng(0).standard_normal((n_rows, 19)).astype(dtype)
    got, expected = gramian(factors, 2), factors.T.astype(float) @ factors.astype(float)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected, rtol=0, atol=20 * np.finfo(dtype).eps * max(n_rows, 1))
    for n_threads in 1, 16:
        assert gramian(factors, n_threads).tobytes() == got.tobytes()


@both_dtypes
@pytest.mark.parametrize("shape", [(1, 1), (3, 16), (7, 17), (5, 100)])
def test_padded(shape, dtype):
    matrix = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    got = padded(matrix)
    assert got.dtype == dtype
    assert got.ctypes.data % 64 == 0
    assert got.shape[1] % 16 == 0
    assert got.shape[1] < shape[1] + 16
    np.testing.assert_array_equal(got[:, : shape[1]], matrix)
    assert not got[:, shape[1] :].any()
