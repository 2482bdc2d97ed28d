"""A corrupted row has some features of other rows, and which is a function of seed, step, row and feature."""

import naive
import numpy as np
import pytest
from numba import config

from fastml.kernels.corruption import corrupt

# Uncompiled, integers of 64 bits that wrap around are told.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")

SEED, STEP = 12345, 7


def corrupted(X, rows, rate, step=STEP, bounds=None):
    out = np.full((len(rows), X.shape[1]), np.nan, X.dtype)
    threshold = np.uint64(min(int(rate * 2.0**64), 2**64 - 1))
    for start, stop in bounds or [(0, len(rows))]:
        corrupt(start, stop, X, rows, SEED, step, threshold, out)
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_equals_its_definition(rate, dtype):
    X = np.arange(35, dtype=dtype).reshape(7, 5)
    rows = np.array([3, 0, 3, 6])
    expected = naive.corrupted(X, rows, SEED, STEP, rate)
    np.testing.assert_array_equal(corrupted(X, rows, rate), expected)
    np.testing.assert_array_equal(corrupted(X, rows, rate, bounds=[(2, 4), (0, 1), (1, 2)]), expected)
    if rate == 0:
        np.testing.assert_array_equal(expected, X[rows])


def test_frequencies():
    n, d = (200, 5) if config.DISABLE_JIT else (4000, 25)
    X = np.arange(n * d, dtype=float).reshape(n, d)
    out = corrupted(X, np.arange(n), 0.3)
    assert (out % d == np.arange(d)).all()  # a value stays in its column
    changed = (out != X).mean()
    assert abs(changed - 0.3 * (1 - 1 / n)) < 5 * np.sqrt(0.21 / X.size)
    sources = (out[out != X] // d) / n
    assert abs(sources.mean() - 0.5) < 5 * np.sqrt(1 / 12 / len(sources))
    assert (corrupted(X, np.arange(n), 0.3, step=STEP + 1) != out).any()
    both = ((out != X) & (corrupted(X, np.arange(n), 0.3, step=STEP + 1) != X)).mean()
    assert abs(both - 0.09) < 5 * np.sqrt(0.09 / X.size)  # steps are independent
