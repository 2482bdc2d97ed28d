"""The validated faces of the output functions."""

import naive
import numpy as np
import pytest
import scipy.sparse

from fastml import functional
from fastml.functional import _activations

DTYPES = [np.float32, np.float64]
SHAPES = [(1,), (1, 1), (255, 507), (3, 4, 5), (2, 1, 3, 2)]

both_dtypes = pytest.mark.parametrize("dtype", DTYPES)
every_function = pytest.mark.parametrize("name", ["sigmoid", "tanh"])


def make(shape, dtype=np.float64):
    rng = np.random.default_rng(0)
    return (3 * rng.standard_normal(shape)).astype(dtype), rng.standard_normal(shape).astype(dtype)


@both_dtypes
@every_function
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_its_definition(name, shape, dtype):
    z, upstream = make(shape, dtype)
    for kind, arguments in ("", (z,)), ("_grad", (z, upstream)):
        got = getattr(functional, name + kind)(*arguments)
        assert got.dtype == dtype
        assert got.shape == shape
        np.testing.assert_allclose(got, getattr(naive, name + kind)(*arguments), rtol=8 * np.finfo(dtype).eps)


@every_function
def test_derivative_is_the_derivative(name):
    z, upstream = make((4, 5))
    expected = naive.finite_differences(lambda z: (getattr(functional, name)(z) * upstream).sum(), z)
    np.testing.assert_allclose(getattr(functional, name + "_grad")(z, upstream), expected, atol=1e-9)


@every_function
def test_memory_layout_does_not_matter(name):
    z, upstream = make((40, 6), np.float32)
    expected = getattr(functional, name)(z), getattr(functional, name + "_grad")(z, upstream)
    read_only = z.copy()
    read_only.setflags(write=False)
    for other in read_only, np.asfortranarray(z), z[::-1].copy()[::-1], z.astype(">f4"):
        np.testing.assert_array_equal(getattr(functional, name)(other), expected[0])
        product = getattr(functional, name + "_grad")(other, np.asfortranarray(upstream, np.float64))
        np.testing.assert_array_equal(product, expected[1])
        np.testing.assert_array_equal(other, z)


@every_function
def test_other_numbers_become_float64(name):
    for given in [[0, 1], [-1, 2]], np.array([True, False]), np.array([1, 2], np.float16):
        assert getattr(functional, name)(given).dtype == np.float64


@both_dtypes
@every_function
def test_one_thread_equals_many_bit_for_bit(name, dtype, monkeypatch):
    monkeypatch.setattr(_activations, "_BLOCK", 700)
    z, upstream = make((1000, 7), dtype)
    results = []
    for n_threads in 1, 2, 16:
        monkeypatch.setattr(_activations, "thread_count", lambda n=n_threads: n)
        product = getattr(functional, name + "_grad")(z, upstream)
        results.append((getattr(functional, name)(z).tobytes(), product.tobytes()))
    assert results[0] == results[1] == results[2]


@every_function
def test_infinity_saturates(name):
    z = [-np.inf, np.inf]
    np.testing.assert_array_equal(getattr(functional, name)(z), [0 if name == "sigmoid" else -1, 1])
    np.testing.assert_array_equal(getattr(functional, name + "_grad")(z, [5.0, 5.0]), [0, 0])


@every_function
def test_bad_input(name):
    Z = np.zeros((3, 2))
    nan = Z.copy()
    nan[1, 1] = np.nan
    bad = [
        (nan, ValueError, r"z: expected numbers, got nan at \(1, 1\); a model that gives such"),
        (1.0, ValueError, r"z: expected at least one dimension, got shape \(\); pass a single number as \[z\]"),
        (np.zeros((3, 2, 0)), ValueError, r"z is empty \(shape \(3, 2, 0\)\)"),
        ("a", TypeError, r"z: expected real numbers, got dtype <U1"),
        (Z + 1j, TypeError, r"z: expected real numbers, got dtype complex128"),
        ([[1.0], [1.0, 2.0]], ValueError, r"z: expected an array, got list"),
        (scipy.sparse.csr_array(Z), TypeError, r"z: expected a dense array"),
    ]
    for z, error, message in bad:
        with pytest.raises(error, match=message):
            getattr(functional, name)(z)
        with pytest.raises(error, match=message):
            getattr(functional, name + "_grad")(z, Z)
    bad_upstream = [
        (nan, ValueError, r"upstream: expected finite numbers, got nan at \(1, 1\)"),
        (np.where(np.isnan(nan), np.inf, nan), ValueError, r"upstream: expected finite numbers, got inf at \(1, 1\)"),
        (
            Z.ravel(),
            ValueError,
            r"upstream: expected shape \(3, 2\) as z has, got \(6,\); reshape it with upstream\.resh",
        ),
        (Z[:2], ValueError, r"upstream: expected shape \(3, 2\) as z has, got \(2, 2\); drop or repeat"),
        (Z.astype(str), TypeError, r"upstream: expected real numbers"),
    ]
    for upstream, error, message in bad_upstream:
        with pytest.raises(error, match=message):
            getattr(functional, name + "_grad")(Z, upstream)
