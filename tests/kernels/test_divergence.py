"""What must hold of the Kullback-Leibler divergence, whoever calls it."""

import platform
import re

import naive
import numpy as np
import pytest
from numba import config, njit

from fastml.kernels import divergence as kernels
from fastml.kernels._jit import _OPTIONS

DTYPES = [np.float32, np.float64]
SHAPES = [(1, 1), (3, 1), (5, 2), (150, 10), (70, 32), (255, 507), (2, 20_000)]
if config.DISABLE_JIT:
    SHAPES = [(1, 1), (3, 1), (5, 2), (70, 3), (7, 37), (1, 1100)]
NARROW = 32
ON_X86 = platform.machine().lower() in ("x86_64", "amd64")

both_dtypes = pytest.mark.parametrize("dtype", DTYPES)
every_shape = pytest.mark.parametrize("shape", SHAPES)
wide_and_narrow = pytest.mark.parametrize("prefix", ["", "narrow_"])


def make(shape, dtype, scale=1.0):
    """Logits, targets (a third of the entries 0, but for the first class) and weights."""
    rng = np.random.default_rng(0)
    t = rng.random(shape) ** 4
    t[:, 1:] *= rng.random(t[:, 1:].shape) > 1 / 3
    z = (scale * rng.standard_normal(shape)).astype(dtype)
    return z, (t / t.sum(axis=1, keepdims=True)).astype(dtype), rng.random(len(z)).astype(dtype)


def run(prefix, z, t, w=None, beta=1.0, part=None, grad=None):
    """Loss by either kernel, and gradient."""
    start, stop = part or (0, len(z))
    w = np.ones(len(z), z.dtype) if w is None else w
    loss, both, grad = (
        np.full_like(w, np.nan),
        np.full_like(w, np.nan),
        np.full_like(z, np.nan) if grad is None else grad,
    )
    beta = z.dtype.type(beta)
    getattr(kernels, prefix + "kl_divergence")(start, stop, z, t, w, beta, loss)
    getattr(kernels, prefix + "kl_divergence_grad")(start, stop, z, t, w, beta, both, grad)
    np.testing.assert_allclose(loss, both, rtol=1e-5, atol=4 * np.finfo(z.dtype).eps)
    return loss, grad


def twins(shape):
    return ["", "narrow_"] if shape[1] <= NARROW else [""]


@both_dtypes
@every_shape
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_equals_its_definition(shape, temperature, scale, dtype):
    z, t, w = make(shape, dtype, scale)
    beta = dtype(1 / temperature)
    options = {"sample_weight": w, "temperature": 1 / float(beta)}
    for prefix in twins(shape):
        loss, grad = run(prefix, z, t, w, beta)
        assert loss.dtype == grad.dtype == dtype
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(loss, naive.kl_divergence(z, t, **options), rtol=40 * eps, atol=20 * eps)
        np.testing.assert_allclose(
            grad, naive.kl_divergence_grad(z, t, **options), rtol=40 * eps, atol=20 * eps * scale
        )


@pytest.mark.parametrize("shape", [(4, 3), (3, 40)])
def test_gradient_is_the_gradient_of_the_loss(shape):
    z, t, w = make(shape, np.float64)
    for prefix in twins(shape):
        expected = naive.finite_differences(lambda z, p=prefix: run(p, z, t, w, 0.4)[0].sum(), z)
        np.testing.assert_allclose(run(prefix, z, t, w, 0.4)[1], expected, atol=1e-8)


def exact(z, t):
    """The definition where its own rounding does not matter."""
    z, t = z.astype(np.longdouble), t.astype(np.longdouble)
    log_p = z - z.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    return (t * (np.log(t) - log_p)).sum(axis=1)


@pytest.mark.skipif(np.finfo(np.longdouble).nmant <= 52, reason="longdouble is no wider than float64 here")
@both_dtypes
@pytest.mark.parametrize("shape", [(64, 8), (64, 500)] if not config.DISABLE_JIT else [(8, 8)])
@pytest.mark.parametrize("distance", [0.0, 1e-5, 1e-3])
def test_divergence_near_zero(distance, shape, dtype):
    """Never negative, and right where cross-entropy less entropy is nothing but rounding."""
    z, _, _ = make(shape, dtype, 3.0)
    t = naive.softmax(z).astype(dtype)
    moved = (z + distance * np.random.default_rng(1).standard_normal(shape)).astype(dtype)
    # Below zero where rounding left the target a sum below one; a divergence is not.
    expected = np.maximum(exact(moved, t), 0)
    eps = np.finfo(dtype).eps
    for prefix in twins(shape):
        loss, _ = run(prefix, moved, t)
        assert (loss >= 0).all()
        # An error of the probabilities counts by its product with their distance; the target is summed in float64.
        budget = 40 * eps * (distance + 40 * eps) + 20 * eps * expected + 4 * np.finfo(np.float64).eps
        np.testing.assert_array_less(np.abs(loss - expected), budget)
        if dtype == np.float32 and distance < 1e-4:
            assert np.abs(plain(moved, t)[0] - expected).max() > 10 * np.abs(loss - expected).max()


@both_dtypes
@wide_and_narrow
@pytest.mark.parametrize("shape", [(150, 10), (9, 47)])
def test_gradient_may_overwrite_the_logits(shape, prefix, dtype):
    z, t, w = make(shape, dtype)
    loss, grad = np.empty_like(w), z.copy()
    expected, expected_grad = run(prefix, z, t, w)
    getattr(kernels, prefix + "kl_divergence_grad")(0, len(z), grad, t, w, dtype(1), loss, grad)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(grad, expected_grad, rtol=10 * eps, atol=10 * eps)
    np.testing.assert_allclose(loss, expected, rtol=10 * eps, atol=10 * eps)


@both_dtypes
@wide_and_narrow
def test_masked_class_gets_nothing(prefix, dtype):
    z, t, w = make((150, 10), dtype, scale=100.0)
    masked = t == 0
    masked[::2] = False
    z[masked] = -np.inf
    loss, grad = run(prefix, z, t, w)
    eps = np.finfo(dtype).eps
    assert np.isfinite(loss).all()
    assert (grad[masked] == 0).all()
    np.testing.assert_allclose(loss, naive.kl_divergence(z, t, w), rtol=40 * eps)
    np.testing.assert_allclose(grad, naive.kl_divergence_grad(z, t, w), atol=2000 * eps)


@both_dtypes
@wide_and_narrow
@pytest.mark.parametrize("bad", [np.nan, np.inf, "empty", "target"])
@pytest.mark.parametrize("at", [0, 4, 9])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_bad_row_shows_in_its_loss_and_only_there(at, bad, prefix, dtype):
    z, t, w = make((150, 10), dtype)
    w[3] = 0
    t[3, at] = 0 if at else t[3, at]
    clean = z.copy()
    if bad == "empty":
        z[3] = -np.inf
    elif bad == "target":
        z[3, 0] = -np.inf
    else:
        z[3, at] = bad
    loss, grad = run(prefix, z, t, w)
    expected, expected_grad = run(prefix, clean, t, w)
    assert not np.isfinite(loss[3])
    others = np.arange(len(z)) != 3
    np.testing.assert_array_equal(loss[others], expected[others])
    np.testing.assert_array_equal(grad[others], expected_grad[others])


@both_dtypes
@wide_and_narrow
def test_only_its_rows_are_written(prefix, dtype):
    z, t, w = make((250, 10), dtype)
    for part in (0, 64), (1, 130), (249, 250):
        loss, grad = run(prefix, z, t, w, part=part)
        inside = (np.arange(250) >= part[0]) & (np.arange(250) < part[1])
        np.testing.assert_array_equal(np.isfinite(loss), inside)
        np.testing.assert_array_equal(np.isfinite(grad).all(axis=1), inside)
        np.testing.assert_array_equal(np.isfinite(grad).any(axis=1), inside)


def plain(z, t):
    """Loss and gradient as one writes them in NumPy, in the dtype of ``z``."""
    shifted = z - z.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return (t * (np.log(np.where(t > 0, t, 1)) - log_p)).sum(axis=1), np.exp(log_p) - t


@every_shape
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_error_budget(shape, scale):
    """Float32 is no further from the truth than plain NumPy in float32, give or take a rounding."""
    z, t, _ = make(shape, np.float32, scale)
    truth = naive.kl_divergence(z, t), naive.kl_divergence_grad(z, t)
    for prefix in twins(shape):
        for ours, theirs, expected in zip(run(prefix, z, t), plain(z, t), truth, strict=True):
            assert theirs.dtype == np.float32
            rounding = 2**-23 * max(1.0, np.abs(expected).max())
            assert np.abs(ours - expected).max() <= np.abs(theirs - expected).max() + rounding


@pytest.mark.skipif(bool(config.DISABLE_JIT or config.BOUNDSCHECK) or not ON_X86, reason="needs vector code for x86")
@wide_and_narrow
@pytest.mark.parametrize("kind", ["", "_grad"])
def test_loops_are_vectorised(kind, prefix):
    name = prefix + "kl_divergence" + kind
    compiled = njit(**_OPTIONS)(getattr(kernels, name).py_func)  # anew: from the cache it cannot be looked at
    z, t, w = make((3, 7), np.float32)
    outputs = (w.copy(), z.copy()) if kind else (w.copy(),)
    compiled(0, 3, z, t, w, np.float32(1), *outputs)
    (text,) = compiled.inspect_asm().values()
    for operation in "div", "mul":
        assert re.search(rf"\tv?{operation}ps\t", text)
    assert not re.search(r"\b(?:expf?|logf?)\b", text)
