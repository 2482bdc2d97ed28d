"""What must hold of the losses of single outputs, whoever calls them."""

import platform
import re

import naive
import numpy as np
import pytest
from numba import config, njit

from fastml.kernels import pointwise as kernels
from fastml.kernels._jit import _OPTIONS

DTYPES = [np.float32, np.float64]
SIZES = [1, 7, 1024, 1025, 255 * 507] if not config.DISABLE_JIT else [1, 7, 1025]
LOSSES = {"binary_cross_entropy": (), "squared_error": (), "absolute_error": (), "huber": (0.75,)}
ON_X86 = platform.machine().lower() in ("x86_64", "amd64")

both_dtypes = pytest.mark.parametrize("dtype", DTYPES)
every_loss = pytest.mark.parametrize("name", LOSSES)


def make(name, size, dtype, scale=1.0):
    """Predictions, targets, and the settings of the loss."""
    rng = np.random.default_rng(0)
    z = (scale * rng.standard_normal(size)).astype(dtype)
    t = rng.random(size) if name == "binary_cross_entropy" else scale * rng.standard_normal(size)
    if name == "binary_cross_entropy":
        t[::3] = rng.integers(0, 2, len(t[::3]))
    return z, t.astype(dtype), tuple(dtype(s * scale) for s in LOSSES[name])


def run(name, z, t, settings, weight=None, part=None):
    """Loss by either kernel (the same bits), gradient, and whether anything was found."""
    start, stop = part or (0, len(z))
    weight = np.ones(1, z.dtype) if weight is None else weight
    loss, both, grad = (np.full(len(z), np.nan, z.dtype) for _ in range(3))
    found, found_too = np.zeros(1, np.int8), np.zeros(1, np.int8)
    getattr(kernels, name)(start, stop, z, t, settings, weight, loss, found)
    getattr(kernels, name + "_grad")(start, stop, z, t, settings, weight, both, grad, found_too)
    np.testing.assert_array_equal(loss, both)
    assert found[0] == found_too[0]
    return loss, grad, bool(found[0])


def truth(name, z, t, settings, weight=None):
    options = {"delta": float(settings[0])} if settings else {}
    shape = (-1,) if weight is None else (len(weight), -1)
    arguments = z.reshape(shape), t.reshape(shape), weight
    results = getattr(naive, name)(*arguments, **options), getattr(naive, name + "_grad")(*arguments, **options)
    return [result.reshape(-1) for result in results]


def close(got, expected, dtype):
    assert got.dtype == dtype
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(got, expected, rtol=8 * eps, atol=2 * eps)


@both_dtypes
@every_loss
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("size", SIZES)
def test_equals_its_definition(name, size, scale, dtype):
    z, t, settings = make(name, size, dtype, scale)
    loss, grad, found = run(name, z, t, settings)
    expected_loss, expected_grad = truth(name, z, t, settings)
    close(loss, expected_loss, dtype)
    close(grad, expected_grad, dtype)
    assert not found


@both_dtypes
@every_loss
@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (450, 5), (2, 1700), (3, 1024)])
def test_weights_are_those_of_rows(name, shape, dtype):
    z, t, settings = make(name, shape[0] * shape[1], dtype)
    weight = np.random.default_rng(1).random(shape[0]).astype(dtype)
    weight[0] = 1
    loss, grad, _ = run(name, z, t, settings, weight)
    expected_loss, expected_grad = truth(name, z, t, settings, weight)
    close(loss, expected_loss, dtype)
    close(grad, expected_grad, dtype)
    for part in (0, 1), (len(z) // 3, len(z) // 2), (len(z) - 1, len(z)):
        some, some_grad, _ = run(name, z, t, settings, weight, part)
        inside = slice(*part)
        np.testing.assert_allclose(some[inside], loss[inside], rtol=4 * np.finfo(dtype).eps)
        np.testing.assert_allclose(some_grad[inside], grad[inside], rtol=4 * np.finfo(dtype).eps)
        assert np.isnan(np.delete(some, np.arange(*part))).all()
        assert np.isnan(np.delete(some_grad, np.arange(*part))).all()


@every_loss
def test_gradient_is_the_gradient_of_the_loss(name):
    z, t, settings = make(name, 60, np.float64)
    weight = np.random.default_rng(1).random(20)
    expected = naive.finite_differences(lambda z: run(name, z, t, settings, weight)[0].sum(), z)
    np.testing.assert_allclose(run(name, z, t, settings, weight)[1], expected, atol=1e-8)


@both_dtypes
@every_loss
def test_gradient_may_overwrite_the_prediction(name, dtype):
    z, t, settings = make(name, 2100, dtype)
    _, expected, _ = run(name, z, t, settings)
    getattr(kernels, name + "_grad")(
        0, len(z), z, t, settings, np.ones(1, dtype), np.empty_like(z), z, np.zeros(1, np.int8)
    )
    np.testing.assert_allclose(z, expected, rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps / 4)


@both_dtypes
@every_loss
@pytest.mark.parametrize("which", ["prediction", "target"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("weight", [0, 1])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_not_finite_is_found(name, which, bad, weight, dtype):
    for at in 0, 1023, 1030, 1500:
        for other in 0, 1:
            z, t, settings = make(name, 1501, dtype)
            z[at], t[at] = other, other
            (z if which == "prediction" else t)[at] = bad
            assert run(name, z, t, settings, np.array([weight], dtype))[2]


@both_dtypes
@pytest.mark.parametrize("bad", [-1e-30, -1.0, 2.0, "next"])
def test_targets_that_are_no_shares_are_found(bad, dtype):
    z, t, _ = make("binary_cross_entropy", 1501, dtype)
    assert not run("binary_cross_entropy", z, t, ())[2]
    for at in 0, 1023, 1500:
        worse = t.copy()
        worse[at] = np.nextafter(dtype(1), dtype(2)) if bad == "next" else bad
        assert run("binary_cross_entropy", z, worse, ())[2]


@both_dtypes
def test_tails_of_binary_cross_entropy(dtype):
    """A logit that is large and right has a loss and a gradient of exp(-|z|), not of nothing."""
    z = np.array([50, -50, 50, -50, 0], dtype)
    t = np.array([1, 0, 0, 1, 0.5], dtype)
    loss, grad, _ = run("binary_cross_entropy", z, t, ())
    tail = np.exp(-50.0)
    np.testing.assert_allclose(loss, [tail, tail, 50, 50, np.log(2)], rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(grad, [-tail, tail, 1, -1, 0], rtol=4 * np.finfo(dtype).eps)


@both_dtypes
def test_huber_at_its_joint_and_far_away(dtype):
    z = np.array([0.75, -0.75, 0, 1e18, -1e18], dtype)
    loss, grad, found = run("huber", z, np.zeros(5, dtype), (dtype(0.75),))
    np.testing.assert_allclose(loss, [0.28125, 0.28125, 0, 0.75e18, 0.75e18], rtol=1e-6)
    np.testing.assert_array_equal(grad, np.array([0.75, -0.75, 0, 0.75, -0.75], dtype))
    assert not found


def plain(name, z, t, settings):
    """Loss and gradient as one writes them in NumPy, in the dtype of ``z``."""
    one = z.dtype.type(1)
    if name == "binary_cross_entropy":
        return np.maximum(z, 0) - z * t + np.log1p(np.exp(-np.abs(z))), one / (one + np.exp(-z)) - t
    r = z - t
    if name == "squared_error":
        return z.dtype.type(0.5) * r * r, r
    if name == "absolute_error":
        return np.abs(r), np.sign(r)
    (delta,) = settings
    loss = np.where(np.abs(r) <= delta, r * r / 2, delta * (np.abs(r) - delta / 2))
    return loss, np.clip(r, -delta, delta)


@every_loss
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
def test_error_budget(name, size, scale):
    """Float32 is no further from the truth than plain NumPy in float32, give or take a rounding."""
    z, t, settings = make(name, size, np.float32, scale)
    *got, _ = run(name, z, t, settings)
    for ours, theirs, expected in zip(got, plain(name, z, t, settings), truth(name, z, t, settings), strict=True):
        assert theirs.dtype == np.float32
        rounding = 2**-23 * max(1.0, np.abs(expected).max())
        assert np.abs(ours - expected).max() <= np.abs(theirs - expected).max() + rounding


@pytest.mark.skipif(bool(config.DISABLE_JIT or config.BOUNDSCHECK) or not ON_X86, reason="needs vector code for x86")
@every_loss
@pytest.mark.parametrize("kind", ["", "_grad"])
def test_loop_is_vectorised_in_its_own_precision(name, kind):
    compiled = njit(**_OPTIONS)(getattr(kernels, name + kind).py_func)  # anew: from the cache it cannot be looked at
    z, t, settings = make(name, 3, np.float32)
    outputs = [np.empty_like(z) for _ in range(2 if kind else 1)]
    compiled(0, 3, z, t, settings, np.ones(1, np.float32), *outputs, np.zeros(1, np.int8))
    (text,) = compiled.inspect_asm().values()
    assert re.search(r"\tv?subps\t", text)
    assert re.search(r"\tv?(?:fmadd\d+|add)ps\t", text)
    assert not re.search(r"cvtps2pd|cvtss2sd", text)
    if name == "binary_cross_entropy":
        packed, single = (len(re.findall(rf"\tv?div{suffix}\t", text)) for suffix in ("ps", "ss"))
        assert packed >= 1
        assert single <= 4 * packed  # the rest of a row, and rows that lie in the same memory
        assert not re.search(r"\b(?:expf?|log1pf?|logf?)\b", text)
