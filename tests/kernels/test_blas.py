"""Matrix products: every orientation, of sizes around those that are cut into tiles, on rows that lie apart."""

import itertools

import numpy as np
import pytest
from numba import config
from numba.core.errors import TypingError

from fastml.kernels._blas import _cut, matmul_nn, matmul_nt, matmul_tn
from fastml.kernels._jit import kernel
from fastml.runtime import blas_limited

SIZES = [(1, 1, 1), (33, 130, 5), (7, 1000, 200), (300, 17, 784), (100, 256, 193), (257, 129, 600), (32, 10, 4000)]


@kernel
def nn(a, b, beta, c):
    matmul_nn(0.5, a, b, beta, c)


@kernel
def tn(a, b, beta, c):
    matmul_tn(0.5, a, b, beta, c)


@kernel
def nt(a, b, beta, c):
    matmul_nt(0.5, a, b, beta, c)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 3e-6), (np.float64, 1e-14)])
@pytest.mark.parametrize(("product", "a_order", "b_order"), [(nn, 1, 1), (tn, -1, 1), (nt, 1, -1)])
def test_products(product, a_order, b_order, dtype, tolerance):
    rng = np.random.default_rng(0)
    for (m, n, k), beta in itertools.product(SIZES, (0.0, 1.0, -0.3)):
        a, b, c = (rng.standard_normal(shape) for shape in ((m, k), (k, n), (m, n)))
        scale = np.abs(a) @ np.abs(b) + np.abs(c)
        expected = 0.5 * a @ b + beta * c
        apart = []
        for rows in (a.T if a_order < 0 else a, b.T if b_order < 0 else b, c):
            padded = np.full((len(rows), rows.shape[1] + 3), np.nan, dtype)
            padded[:, :-3] = rows
            apart.append(padded[:, :-3])
        if beta == 0:
            apart[2][:] = np.nan
        with blas_limited():
            product(apart[0], apart[1], beta, apart[2])
        assert (np.abs(apart[2] - expected) <= tolerance * scale).all(), (m, n, k, beta)
        assert np.isnan(apart[2].base[:, -3:]).all()


@pytest.mark.skipif(config.DISABLE_JIT, reason="types are those of compiled code")
@pytest.mark.parametrize("dtypes", [("f8", "f4", "f4"), ("f4", "f8", "f4"), ("f4", "f4", "f8"), ("i4", "i4", "i4")])
def test_other_types_are_an_error(dtypes):
    a, b, c = (np.ones((2, 2), dtype) for dtype in dtypes)
    with pytest.raises(TypingError, match="three arrays of float32, or three of float64"):
        nn(a, b, 0.0, c)


@pytest.mark.parametrize(("size", "expected"), [(1, 16), (128, 128), (129, 80), (256, 128), (1000, 128), (0, 16)])
def test_parts_are_about_equal(size, expected):
    assert _cut(size, 128, 16) == expected
