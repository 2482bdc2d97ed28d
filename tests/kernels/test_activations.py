"""What must hold of the output functions and of the products of their derivatives."""

import platform
import re

import naive
import numpy as np
import pytest
from numba import config, njit

from fastml.kernels import activations as kernels
from fastml.kernels._jit import _OPTIONS

DTYPES = [np.float32, np.float64]
SIZES = [1, 7, 1024, 1025, 255 * 507] if not config.DISABLE_JIT else [1, 7, 1025]
ON_X86 = platform.machine().lower() in ("x86_64", "amd64")

both_dtypes = pytest.mark.parametrize("dtype", DTYPES)
NAMES = ["relu", "elu", "gelu", "gelu_tanh", "sigmoid", "tanh"]
every_function = pytest.mark.parametrize("name", NAMES)
saturating = pytest.mark.parametrize("name", ["sigmoid", "tanh"])


def run(name, z, upstream=None, out=None):
    """Result and whether anything was found."""
    out, found = np.full_like(z, np.nan) if out is None else out, np.zeros(1, np.int8)
    if upstream is None:
        getattr(kernels, name)(0, len(z), z, out, found)
    else:
        getattr(kernels, name + "_grad")(0, len(z), z, upstream, out, found)
    return out, bool(found[0])


def make(size, dtype, scale=1.0):
    rng = np.random.default_rng(0)
    return (scale * rng.standard_normal(size)).astype(dtype), rng.standard_normal(size).astype(dtype)


@both_dtypes
@every_function
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("size", SIZES)
def test_equals_its_definition(name, size, scale, dtype):
    z, upstream = make(size, dtype, scale)
    for arguments, twin in ((z,), ""), ((z, upstream), "_grad"):
        got, found = run(name, *arguments)
        assert got.dtype == dtype
        assert not found
        np.testing.assert_allclose(got, getattr(naive, name + twin)(*arguments), **tolerance(name, dtype))


def tolerance(name, dtype):
    """A GELU's tail is off by what its exponent is rounded to; that is far below one."""
    info = np.finfo(dtype)
    return {"rtol": 8 * info.eps, "atol": 4 * info.eps if "gelu" in name else info.tiny}


@both_dtypes
@pytest.mark.parametrize("slope", [0.01, None])
def test_leaky_relu(slope, dtype):
    z, upstream = make(700, dtype)
    slopes = np.array([slope], dtype) if slope else np.random.default_rng(1).standard_normal(700).astype(dtype)
    out, found = np.full_like(z, np.nan), np.zeros(1, np.int8)
    kernels.leaky_relu(0, 700, z, slopes, out, found)
    np.testing.assert_allclose(out, naive.leaky_relu(z, slopes), rtol=4 * np.finfo(dtype).eps)
    kernels.leaky_relu_grad(0, 700, z, slopes, upstream, out, found)
    np.testing.assert_allclose(out, naive.leaky_relu_grad(z, upstream, slopes), rtol=4 * np.finfo(dtype).eps)
    assert not found
    z[5] = np.nan
    for kernel, others in (kernels.leaky_relu, ()), (kernels.leaky_relu_grad, (upstream,)):
        found[0] = 0
        kernel(0, 700, z, slopes, *others, out, found)
        assert found


@both_dtypes
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_far_from_zero(dtype):
    z, ones = np.array([np.inf, -np.inf, 1e30, -1e30], dtype), np.ones(4, dtype)
    for name in "relu", "elu", "gelu", "gelu_tanh":
        below = -1 if name == "elu" else 0
        np.testing.assert_array_equal(run(name, z)[0], [np.inf, below, dtype(1e30), below])
        product, found = run(name, z, ones)
        np.testing.assert_array_equal(product, [1, 0, 1, 0])
        assert not found


@every_function
def test_derivative_is_the_derivative(name):
    z, upstream = make(50, np.float64, 2)
    expected = naive.finite_differences(lambda z: (run(name, z)[0] * upstream).sum(), z)
    np.testing.assert_allclose(run(name, z, upstream)[0], expected, atol=1e-9)


@both_dtypes
def test_tails(dtype):
    """Relative accuracy down to the smallest numbers, where one minus the function would be rounded to nothing."""
    z = np.array([30, -30, 60, -80], dtype)
    u = np.exp(-np.abs(z.astype(float)))
    np.testing.assert_allclose(run("sigmoid", z, np.ones(4, dtype))[0], u / (1 + u) ** 2, rtol=4 * np.finfo(dtype).eps)
    got = run("tanh", z / 2, np.ones(4, dtype))[0]
    np.testing.assert_allclose(got, 4 * u / (1 + u) ** 2, rtol=4 * np.finfo(dtype).eps)


@both_dtypes
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_infinity_saturates(dtype):
    z, ones = np.array([np.inf, -np.inf, np.finfo(dtype).max, np.finfo(dtype).min], dtype), np.ones(4, dtype)
    np.testing.assert_array_equal(run("sigmoid", z)[0], [1, 0, 1, 0])
    np.testing.assert_array_equal(run("tanh", z)[0], [1, -1, 1, -1])
    for name in "sigmoid", "tanh":
        product, found = run(name, z, ones)
        np.testing.assert_array_equal(product, np.zeros(4))
        assert not found
        assert not run(name, z)[1]


@both_dtypes
@every_function
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_bad_is_found(name, dtype):
    for at in 0, 100, 2000:
        z, upstream = make(2001, dtype)
        for bad in np.nan, np.inf, -np.inf:
            changed = upstream.copy()
            changed[at] = bad
            assert run(name, z, changed)[1]
        z[at] = np.nan
        assert run(name, z)[1]
        assert run(name, z, upstream)[1]


@both_dtypes
@every_function
def test_only_its_block_is_written_and_input_may_be_output(name, dtype):
    z, upstream = make(300, dtype)
    out = np.full_like(z, np.nan)
    getattr(kernels, name + "_grad")(10, 200, z, upstream, out, np.zeros(1, np.int8))
    np.testing.assert_array_equal(np.isfinite(out), (np.arange(300) >= 10) & (np.arange(300) < 200))
    expected = run(name, z, upstream)[0]
    np.testing.assert_allclose(run(name, z, upstream, z.copy())[0], expected, rtol=4 * np.finfo(dtype).eps)
    own = upstream.copy()
    np.testing.assert_allclose(run(name, z, own, own)[0], expected, rtol=4 * np.finfo(dtype).eps)
    expected = run(name, z)[0]
    np.testing.assert_allclose(run(name, z, None, z)[0], expected, rtol=4 * np.finfo(dtype).eps)


@saturating
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
def test_error_budget(name, scale):
    """Float32 is no further from the truth than plain NumPy in float32, give or take a rounding."""
    z, upstream = make(SIZES[-1], np.float32, scale)
    one = np.float32(1)
    plain = one / (one + np.exp(-z)) if name == "sigmoid" else np.tanh(z)
    product = (plain * (one - plain) if name == "sigmoid" else one - plain * plain) * upstream
    for ours, theirs, expected in [
        (run(name, z)[0], plain, getattr(naive, name)(z)),
        (run(name, z, upstream)[0], product, getattr(naive, name + "_grad")(z, upstream)),
    ]:
        assert theirs.dtype == np.float32
        rounding = 2**-23 * max(1.0, np.abs(expected).max())
        assert np.abs(ours - expected).max() <= np.abs(theirs - expected).max() + rounding


@pytest.mark.skipif(bool(config.DISABLE_JIT or config.BOUNDSCHECK) or not ON_X86, reason="needs vector code for x86")
@pytest.mark.parametrize(
    "name", ["elu", "elu_grad", "gelu", "gelu_grad", "sigmoid", "sigmoid_grad", "tanh", "tanh_grad"]
)
def test_loop_is_vectorised_in_its_own_precision(name):
    compiled = njit(**_OPTIONS)(getattr(kernels, name).py_func)  # anew: what came from the cache cannot be looked at
    arrays = [np.ones(3, np.float32) for _ in range(3 if name.endswith("grad") else 2)]
    compiled(0, 3, *arrays, np.zeros(1, np.int8))
    (text,) = compiled.inspect_asm().values()
    for operation in ("max", "mul") if name == "elu_grad" else ("div", "max", "mul"):
        assert re.search(rf"\tv?{operation}ps\t", text)
    assert not re.search(r"cvtps2pd|cvtss2sd", text)
    assert not re.search(r"\b(?:expf?|tanhf?)\b", text)
