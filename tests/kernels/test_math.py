"""The elementary functions: their error in ULP over the whole range, special values, and that LLVM vectorises them."""

import platform
import re

import numpy as np
import pytest
import scipy.special
from numba import config, from_dtype, njit

from fastml.kernels import _math
from fastml.kernels._jit import _OPTIONS

DTYPES = [np.float32, np.float64]
WIDE = {np.float32: np.float64, np.float64: np.longdouble}
ON_X86 = platform.machine().lower() in ("x86_64", "amd64")


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def sigmoid(x):
    u = np.exp(-np.abs(x))
    return np.where(x > 0, 1, u) / (1 + u)


def erf(x):
    """2 / sqrt(pi) e^(-x^2) sum_n 2^n x^(2n + 1) / (2n + 1)!!, whose terms have one sign; 1 where that is nearer."""
    a = np.minimum(np.abs(x), 8)
    near, square = a < 6, 2 * np.square(a)
    term = np.where(near, a, 0)[near]
    total = term.copy()
    for n in range(1, 160):
        term *= square[near] / (2 * n + 1)
        total += term
    result = np.where(np.isnan(x), x, np.ones_like(x))
    result[near] = total * np.exp(-square[near] / 2) * (2 / np.sqrt(4 * np.arctan(x.dtype.type(1))))
    return np.copysign(result, x)


REFERENCE = {"erf": erf, "exp": np.exp, "log": np.log, "log1p_exp": softplus, "sigmoid": sigmoid, "tanh": np.tanh}

both_dtypes = pytest.mark.parametrize("dtype", DTYPES)
every_function = pytest.mark.parametrize("name", REFERENCE)
compiled_only = pytest.mark.skipif(
    bool(config.DISABLE_JIT or config.BOUNDSCHECK) or not ON_X86, reason="needs vector code for x86"
)


def applied(name):
    """A loop over two arrays, as a kernel would have it."""
    function = getattr(_math, name)

    @njit(**_OPTIONS)
    def loop(x, out):
        for i in range(len(x)):
            out[i] = function(x[i])

    return loop


def is_fused(loop):
    """Whether the machine code multiplies and adds in one rounding."""
    return not config.DISABLE_JIT and (not ON_X86 or any("fmadd" in text for text in loop.inspect_asm().values()))


def inputs(dtype):
    """Bit patterns of every kind, the ranges where the functions vary, and the places where their formulas change."""
    n = 400 if config.DISABLE_JIT else 200_000
    rng = np.random.default_rng(0)
    info = np.finfo(dtype)
    bits = rng.integers(0, 2 ** (8 * info.dtype.itemsize), n, dtype=f"u{info.dtype.itemsize}")
    limit = -1.1 * float(np.log(WIDE[dtype](info.smallest_subnormal)))
    places = [0, 0.55, 1, 20, 0.5**0.5, 2**0.5, np.log(2) / 2, 1.5 * np.log(2), limit / 1.1, np.log(float(info.max))]
    places += [info.tiny, info.smallest_subnormal, info.max, np.inf, np.nan, 1e-30, 80]
    edges = np.array(places, dtype)
    with np.errstate(over="ignore"):
        edges = np.concatenate([edges, np.nextafter(edges, dtype(0)), np.nextafter(edges, dtype(np.inf))])
    parts = [
        bits.view(dtype),
        (bits >> info.nexp).view(dtype),  # subnormals
        np.linspace(-limit, limit, n, dtype=dtype),
        np.linspace(-2, 2, n, dtype=dtype),
        np.linspace(-limit, -0.75 * limit, n, dtype=dtype),  # where exp underflows
        rng.normal(size=n).astype(dtype) * 5,
        (1 + rng.normal(size=n) * 10.0 ** rng.integers(-8, 0, n)).astype(dtype),
        np.exp(rng.uniform(-80, 5, n)).astype(dtype),
        edges,
        -edges,
    ]
    return np.concatenate(parts)


def ulps(got, expected):
    """Error in units of the last place of the expected number; an overflow counts as the first power of two beyond."""
    info = np.finfo(got.dtype)
    top = np.ldexp(expected.dtype.type(1), info.maxexp)
    exponent = np.maximum(np.frexp(np.clip(expected, -top, top))[1] - 1, info.minexp)
    error = np.abs(np.clip(got.astype(expected.dtype), -top, top) - np.clip(expected, -top, top))
    return error / np.ldexp(expected.dtype.type(1), exponent - info.nmant)


@both_dtypes
@every_function
def test_error_is_at_most_2_ulp(name, dtype):
    wide = WIDE[dtype]
    if np.finfo(wide).nmant <= np.finfo(dtype).nmant:
        pytest.skip("longdouble is no wider than float64 here")
    x = inputs(dtype)
    got = np.empty_like(x)
    loop = applied(name)
    loop(x, got)
    with np.errstate(all="ignore"):
        expected = REFERENCE[name](x.astype(wide))
        error = ulps(got, expected)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    worst = np.nanargmax(error)
    limit = 2.0 if name != "sigmoid" or is_fused(loop) else 2.5
    assert error[worst] <= limit, f"{name}({x[worst]!r}) is {got[worst]!r}, {error[worst]:.2f} ULP off"


inf, nan = np.inf, np.nan


@both_dtypes
@pytest.mark.parametrize(
    ("name", "at", "expected"),
    [
        ("erf", [0.0, -0.0, inf, -inf, nan, 1e30, -1e30], [0, -0.0, 1, -1, nan, 1, -1]),
        ("normal_cdf", [0.0, inf, -inf, nan, 1e18, -1e18], [0.5, 1, 0, nan, 1, 0]),
        ("exp", [0.0, -0.0, inf, -inf, nan, 1e30, -1e30], [1, 1, inf, 0, nan, inf, 0]),
        ("log", [1.0, 0.0, -0.0, inf, -inf, nan, -1.0, -1e-40], [0, -inf, -inf, inf, nan, nan, nan, nan]),
        ("log1p_exp", [inf, -inf, nan, 1e30, -1e30, 800.0], [inf, 0, nan, 1e30, 0, 800]),
        ("sigmoid", [0.0, inf, -inf, nan, 1e30, -1e30], [0.5, 1, 0, nan, 1, 0]),
        ("tanh", [0.0, -0.0, inf, -inf, nan, 1e30, -1e30, 1e-30], [0, -0.0, 1, -1, nan, 1, -1, 1e-30]),
    ],
)
@pytest.mark.filterwarnings("error")
def test_special_values(name, at, expected, dtype):
    x, expected = np.array(at, dtype), np.array(expected, dtype)
    got = np.empty_like(x)
    applied(name)(x, got)
    np.testing.assert_array_equal(got, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(expected[numbers]))


@both_dtypes
def test_normal_cdf(dtype):
    z = np.linspace(-12, 12, 2001).astype(dtype)
    got = np.empty_like(z)
    applied("normal_cdf")(z, got)
    expected = scipy.special.ndtr(z.astype(np.float64))
    rounding = np.finfo(dtype).eps * (8 + np.square(z.astype(np.float64)))
    assert (np.abs(got - expected) <= rounding * expected + np.finfo(dtype).tiny).all()


@both_dtypes
def test_smallest_numbers(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([tiny, -tiny, 3 * tiny], dtype)
    got = np.empty_like(x)
    applied("tanh")(x, got)
    np.testing.assert_array_equal(got, x)
    applied("log")(x[:1], got[:1])
    np.testing.assert_allclose(got[0], np.log(WIDE[dtype](tiny)), rtol=1e-6)


def packed(operation, dtype):
    """Pattern of a packed x86 instruction."""
    return rf"\tv?{operation}p{'s' if dtype is np.float32 else 'd'}\t"


def assembly(loop, *arrays):
    loop(*arrays)
    (text,) = loop.inspect_asm().values()
    called = set(re.findall(r"(?:call\w*\s+|movabsq\s+\$)\"?(\w+)", text))
    libm = {f + suffix for f in ("exp", "exp2", "expm1", "log", "log1p", "tanh", "pow", "fma") for suffix in ("", "f")}
    assert not called & libm
    return text


@compiled_only
@both_dtypes
@every_function
def test_loop_is_vectorised_in_its_own_precision(name, dtype):
    x = np.ones(3, dtype)
    text = assembly(applied(name), x, x.copy())
    assert re.search(packed(r"(?:fn?m(?:add|sub)\d+|mul)", dtype), text)
    if dtype is np.float32:
        assert not re.search(r"cvtps2pd|cvtss2sd", text)
        assert not re.search(r"\tv?(?:fn?m(?:add|sub)\d+|add|sub|mul|div)[ps]d\t", text)
    function, scalar = getattr(_math, name), from_dtype(np.dtype(dtype))
    one = njit((scalar,), **_OPTIONS)(lambda x: function(x))
    assert one.nopython_signatures[0].return_type == scalar


def log_sum_exp():
    """A reduction of rows, as the softmax has it, not yet compiled."""

    @njit(**_OPTIONS)
    def loop(z, out):
        for i in range(len(z)):
            top = _math.row_max(z[i])
            total = z[i, 0] * 0
            for j in range(z.shape[1]):
                total += _math.exp(z[i, j] - top)
            out[i] = top + _math.log(total)

    return loop


@compiled_only
@both_dtypes
def test_row_reduction_is_vectorised(dtype):
    text = assembly(log_sum_exp(), np.ones((2, 3), dtype), np.ones(2, dtype))
    assert re.search(packed(r"(?:fn?m(?:add|sub)\d+|mul)", dtype), text)
    assert re.search(packed("max", dtype), text)


@both_dtypes
def test_row_reduction_equals_its_definition(dtype):
    z = np.random.default_rng(0).normal(size=(7, 53)).astype(dtype) * 30
    out = np.empty(len(z), dtype)
    log_sum_exp()(z, out)
    expected = np.log(np.exp(z.astype(np.longdouble)).sum(axis=1))
    np.testing.assert_allclose(out, expected, rtol=4 * np.finfo(dtype).eps)


@njit(**_OPTIONS)
def row_maxima(z, out):
    for i in range(len(z)):
        out[i] = _math.row_max(z[i])


@njit(**_OPTIONS)
def maximum_between(z, start, stop):
    return _math.row_max(z[start:stop])


@both_dtypes
@pytest.mark.parametrize("n", [*range(1, 20), 31, 32, 33, 63, 65, 127, 200, 1001])
def test_row_max(n, dtype):
    z = np.random.default_rng(n).normal(size=(5, n)).astype(dtype)
    z[1], z[2, ::2], z[3], z[4, -1] = -np.inf, -np.inf, -np.abs(z[3]), 9
    out = np.empty(len(z), dtype)
    row_maxima(z, out)
    np.testing.assert_array_equal(out, z.max(axis=1))


@both_dtypes
def test_row_max_of_slices(dtype):
    z = np.random.default_rng(0).permutation(70).astype(dtype)
    for start, stop in [(0, 70), (1, 70), (3, 4), (5, 38), (17, 66)]:
        assert maximum_between(z, start, stop) == z[start:stop].max()


@both_dtypes
@pytest.mark.parametrize("n", [1, 5, 64, 101])
def test_row_max_passes_nan_on(n, dtype):
    z = np.zeros((n, n), dtype)
    np.fill_diagonal(z, np.nan)
    out = np.empty(n, dtype)
    row_maxima(z, out)
    assert np.isnan(out).all()
