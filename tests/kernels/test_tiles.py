"""Compiled tiles do what the NumPy function of the same name does, and nothing beside it.

The numbers are small integers: every sum is exact, in whatever order.
"""

import numpy as np
import pytest

from fastml.kernels import _tiles
from fastml.kernels._jit import uncounted_kernel
from fastml.kernels._tiles import EIGHT, LANES, STRIP

N_ROWS = [0, 1, 2, 7, 64, 65]
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
widths = pytest.mark.parametrize("width", [16, 32, 48, 64, 80, 144])


@uncounted_kernel
def put_outer(n, a, row, c):
    _tiles.put_outer(n, a, row, c)


@uncounted_kernel
def add_outer(n, a, row, c):
    _tiles.add_outer(n, a, row, c)


@uncounted_kernel
def subtract_outer(n, a, row, c):
    _tiles.subtract_outer(n, a, row, c)


@uncounted_kernel
def solve_strip(factor, c):
    _tiles.solve_strip(factor, c)


@uncounted_kernel
def dot_strip(rows, vector, out):
    _tiles.dot_strip(rows, vector, out)


@uncounted_kernel
def add_strip(rows, factors, vector):
    _tiles.add_strip(rows, factors, vector)


@uncounted_kernel
def put_scaled(row, factor, out):
    _tiles.put_scaled(row, factor, out)


@uncounted_kernel
def dot_eight(start, indices, matrix, vector, out):
    _tiles.dot_eight(start, indices, matrix, vector, out)


@uncounted_kernel
def add_residuals(start, entries, kept, matrix, vector, out):
    _tiles.add_residuals(start, entries, kept, matrix, vector, out)


class Framed:
    """Small integers inside a wider array: ``view`` begins at an odd column, and ``whole`` shows what is around it."""

    def __init__(self, rng, *shape, dtype):
        around = [*(n + 2 for n in shape[:-1]), shape[-1] + 2 * LANES + 3]
        self.whole = rng.integers(-3, 4, around).astype(dtype)

    @property
    def view(self):
        rows = (slice(1, -1),) * (self.whole.ndim - 1)
        return self.whole[(*rows, slice(LANES + 1, -LANES - 2))]

    def copy(self):
        other = object.__new__(Framed)
        other.whole = self.whole.copy()
        return other


def assert_same(got, expected):
    np.testing.assert_array_equal(got.whole, expected.whole)


@both_dtypes
@widths
@pytest.mark.parametrize("function", [put_outer, add_outer, subtract_outer])
def test_outer(function, width, dtype):
    rng = np.random.default_rng(0)
    a = Framed(rng, max(N_ROWS), width, dtype=dtype).view
    for n in N_ROWS:
        for row in range(0, width, STRIP):
            got = Framed(rng, width, width, dtype=dtype)
            expected = got.copy()
            function(n, a, row, got.view)
            getattr(_tiles, function.__name__)(n, a, row, expected.view)
            earlier = slice(row, row + STRIP), slice(row // LANES * LANES, row)  # of no use to anyone
            expected.view[earlier] = got.view[earlier]
            assert_same(got, expected)


@both_dtypes
@widths
def test_outer_of_the_rows_above(width, dtype):
    """As Cholesky's method has it: one array is both."""
    for row in range(0, width, STRIP):
        got = Framed(np.random.default_rng(row), width, width, dtype=dtype)
        expected = got.copy()
        subtract_outer(row, got.view, row, got.view)
        _tiles.subtract_outer(row, expected.view, row, expected.view)
        np.testing.assert_array_equal(np.triu(got.view), np.triu(expected.view))


@both_dtypes
@widths
def test_solve_strip(width, dtype):
    rng = np.random.default_rng(0)
    factor, got = Framed(rng, STRIP, STRIP, dtype=dtype).view, Framed(rng, STRIP, width, dtype=dtype)
    factor[np.tril_indices(STRIP, -1)] = np.nan  # nobody looks there
    np.fill_diagonal(factor, [1, 0.5, -2, 0.25])
    expected = got.copy()
    solve_strip(factor, got.view)
    _tiles.solve_strip(factor, expected.view)
    assert_same(got, expected)
    triangle = np.triu(np.nan_to_num(factor), 1) + np.diag(1 / np.diag(factor))
    again = got.copy()
    again.view[:] = triangle.T @ got.view
    _tiles.solve_strip(factor, again.view)
    assert_same(again, got)


@both_dtypes
@widths
def test_dot_strip_and_add_strip(width, dtype):
    rng = np.random.default_rng(0)
    rows = Framed(rng, STRIP, width, dtype=dtype).view
    vector, few = Framed(rng, width, dtype=dtype), Framed(rng, STRIP, dtype=dtype)
    expected = vector.copy(), few.copy()
    dot_strip(rows, vector.view, few.view)
    _tiles.dot_strip(rows, expected[0].view, expected[1].view)
    assert_same(few, expected[1])
    add_strip(rows, few.view, vector.view)
    _tiles.add_strip(rows, expected[1].view, expected[0].view)
    assert_same(vector, expected[0])
    assert_same(few, expected[1])


@both_dtypes
@widths
def test_put_scaled(width, dtype):
    rng = np.random.default_rng(0)
    row, got = Framed(rng, width, dtype=dtype).view, Framed(rng, width, dtype=dtype)
    expected = got.copy()
    for factor in dtype(3), -0.5:
        put_scaled(row, factor, got.view)
        _tiles.put_scaled(row, factor, expected.view)
        assert_same(got, expected)


@both_dtypes
@widths
@pytest.mark.parametrize("start", [0, 1, 5])
def test_eight_gathered_rows(start, width, dtype):
    rng = np.random.default_rng(0)
    matrix, indices = Framed(rng, 11, width, dtype=dtype).view, rng.integers(0, 11, 20)
    weight, target = (Framed(rng, 20, dtype=dtype).view for _ in range(2))
    vector, got, dots = (Framed(rng, n, dtype=dtype) for n in (width, width, EIGHT))
    expected, expected_dots = got.copy(), dots.copy()
    dot_eight(start, indices, matrix, vector.view, dots.view)
    _tiles.dot_eight(start, indices, matrix, vector.view, expected_dots.view)
    assert_same(dots, expected_dots)
    for kept in dtype(0), dtype(1):
        add_residuals(start, (indices, weight, target), kept, matrix, vector.view, got.view)
        _tiles.add_residuals(start, (indices, weight, target), kept, matrix, vector.view, expected.view)
        assert_same(got, expected)
