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
every_function = pytest.mark.parametrize("name", ["relu", "leaky_relu", "prelu", "elu", "gelu", "sigmoid", "tanh"])


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
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(got, getattr(naive, name + kind)(*arguments), rtol=8 * eps, atol=4 * eps)


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


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
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


@both_dtypes
def test_slopes(dtype):
    z, upstream = make((5, 3), dtype)
    for slope in 0.3, [0.1, -0.2, 0.5], np.array([0.5]):
        eps = np.finfo(dtype).eps
        got = functional.prelu(z, slope)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, naive.prelu(z, np.array(slope)), rtol=4 * eps)
        got = functional.prelu_grad(z, upstream, slope)
        np.testing.assert_allclose(got, naive.prelu_grad(z, upstream, np.array(slope)), rtol=4 * eps)
    np.testing.assert_array_equal(functional.leaky_relu(z, slope=0.3), functional.prelu(z, 0.3))
    for slope, message in ([1.0, 2.0], "one for each column"), ("a", "slope: expected a number"), (np.nan, "finite"):
        with pytest.raises(ValueError, match=message):
            functional.prelu(z, slope)


def test_forms_of_the_gelu():
    z, upstream = make((5, 3))
    np.testing.assert_allclose(functional.gelu(z, approximate="tanh"), naive.gelu_tanh(z), rtol=1e-13)
    got = functional.gelu_grad(z, upstream, approximate="tanh")
    np.testing.assert_allclose(got, naive.gelu_tanh_grad(z, upstream), rtol=1e-12)
    with pytest.raises(ValueError, match="approximate: expected 'none' or 'tanh', got 'erf'"):
        functional.gelu(z, approximate="erf")
