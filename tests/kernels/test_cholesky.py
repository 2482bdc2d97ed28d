"""Cholesky's method on small systems: as good as its theory, and honest about systems that it cannot solve."""

import functools

import numpy as np
import pytest

from fastml.kernels import _cholesky
from fastml.kernels._jit import uncounted_kernel
from fastml.kernels._tiles import LANES, STRIP

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
sizes = pytest.mark.parametrize("n", [16, 32, 48, 64, 80, 144])


@uncounted_kernel
def factor(a, floors, corner):
    return _cholesky.factor(a, floors, corner)


@uncounted_kernel
def solve(u, b, x, part):
    _cholesky.solve(u, b, x, part)


def framed(a):
    """A copy inside a wider array, at an odd column."""
    wide = np.zeros((len(a) + 1, len(a) + LANES), a.dtype)
    wide[1:, 3 : 3 + len(a)] = a
    return wide[1:, 3 : 3 + len(a)]


def factored(a, floors=None):
    """The factor, or None."""
    u, corner = framed(a), np.zeros((STRIP, STRIP), a.dtype)
    return u if factor(u, np.zeros(len(a), a.dtype) if floors is None else floors, corner) else None


def solution(a, b):
    x, spoilt = np.full_like(b, np.nan), b.copy()
    solve(factored(a), spoilt, x, np.empty(STRIP, a.dtype))
    return x


@functools.cache
def orthogonal(n):
    return np.linalg.qr(np.random.default_rng(n).standard_normal((n, n)))[0]


def positive_definite(n, dtype, condition=10.0):
    """A matrix with eigenvalues from 1 to 1 / condition, and a right side."""
    a = (orthogonal(n) * np.geomspace(1, 1 / condition, n)) @ orthogonal(n).T
    return ((a + a.T) / 2).astype(dtype), np.random.default_rng(0).standard_normal(n).astype(dtype)


def backward_error(a, x, b):
    """|A x - b| / (n eps |A| |x|), where |A| is 1; a stable method stays below 1."""
    residual = (a.astype(np.longdouble) @ x - b).astype(float)
    return np.linalg.norm(residual) / (len(x) * np.finfo(x.dtype).eps * np.linalg.norm(x.astype(float)))


@both_dtypes
@sizes
def test_factor(n, dtype):
    a, _ = positive_definite(n, dtype)
    u, expected = factored(a), np.linalg.cholesky(a.astype(float)).T
    tolerance = 10 * n * np.finfo(dtype).eps
    np.testing.assert_allclose(1 / np.diag(u), np.diag(expected), rtol=tolerance)
    np.testing.assert_allclose(np.triu(u, 1), np.triu(expected, 1), atol=tolerance)


@both_dtypes
@sizes
def test_solution(n, dtype):
    a, b = positive_definite(n, dtype)
    expected = np.linalg.solve(a.astype(float), b.astype(float))
    tolerance = 10 * n * np.finfo(dtype).eps * np.linalg.norm(expected)  # condition times backward error
    np.testing.assert_allclose(solution(a, b), expected, atol=tolerance, rtol=0)


@both_dtypes
@sizes
@pytest.mark.parametrize("share", [1e-3, 0.03, 0.3])
def test_ill_conditioned_systems(share, n, dtype):
    """The solution is that of a system nearby, however far from the solution of this one."""
    a, b = positive_definite(n, dtype, share / np.finfo(dtype).eps)
    x = solution(a, b)
    assert backward_error(a, x, b) < 0.1
    assert np.linalg.norm(x) > 1e2


@both_dtypes
def test_units_of_the_unknowns_have_no_say(dtype):
    """Powers of two, so that nothing is rounded."""
    a, b = positive_definite(48, dtype)
    scale = np.ldexp(1.0, np.random.default_rng(0).integers(-20, 21, 48)).astype(dtype)
    np.testing.assert_array_equal(scale * solution(a * scale * scale[:, None], b * scale), solution(a, b))


@both_dtypes
def test_only_the_upper_triangle_is_read(dtype):
    a, b = positive_definite(48, dtype)
    np.testing.assert_array_equal(solution(np.triu(a) + np.tril(np.full_like(a, 1e3), -1), b), solution(a, b))


@both_dtypes
def test_identity(dtype):
    b = np.arange(32, dtype=dtype)
    np.testing.assert_array_equal(solution(np.eye(32, dtype=dtype), b), b)


@both_dtypes
@pytest.mark.parametrize("place", [0, 1, 3, 4, 18, 31])
@pytest.mark.parametrize("pivot", [0.0, -1.0, -np.inf, np.nan])
def test_not_positive_definite(pivot, place, dtype):
    a, _ = positive_definite(32, dtype)
    u = np.linalg.cholesky(a.astype(float)).T
    a[place, place] += dtype(pivot - u[place, place] ** 2)  # what is left of it when its turn comes is about the pivot
    floors = np.full(32, 32 * np.finfo(dtype).eps, dtype)
    assert factored(a, floors) is None


@both_dtypes
def test_floors(dtype):
    """Each pivot has to exceed its own."""
    a, floors = np.eye(32, dtype=dtype), np.full(32, 1 - np.finfo(dtype).eps, dtype)
    assert factored(a, floors) is not None
    for place in range(32):
        raised = floors.copy()
        raised[place] = 1
        assert factored(a, raised) is None
