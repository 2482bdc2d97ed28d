"""What must hold of the kernels, whoever calls them."""

import naive
import numpy as np
import pytest
from numba import config

from fastml.kernels import softmax as kernels

DTYPES = [np.float32, np.float64]
SHAPES = [(1, 1), (3, 1), (5, 2), (64, 10), (150, 10), (70, 32), (255, 507), (2, 100_000)]
if config.DISABLE_JIT:
    SHAPES = [(1, 1), (3, 1), (5, 2), (70, 3), (7, 37), (1, 1100)]
TOLERANCE = {np.float32: 2e-6, np.float64: 5e-15}
NARROW = 32


def make(shape, dtype, scale=1.0, seed=0):
    """Logits, labels, probability targets and weights."""
    rng = np.random.default_rng(seed)
    n, n_classes = shape
    t = rng.random(shape)
    return (
        (scale * rng.standard_normal(shape)).astype(dtype),
        rng.integers(0, n_classes, n),
        (t / t.sum(axis=1, keepdims=True)).astype(dtype),
        rng.random(n).astype(dtype),
    )


def outputs(z):
    """Arrays filled with rubbish, like those that an allocation gives."""
    return np.full(len(z), np.nan, z.dtype), np.full_like(z, np.nan)


def close(got, expected, dtype, scale=1.0):
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=20 * TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale)


def twins(name, shape):
    """The kernel, and its narrow twin where the classes are few."""
    return [getattr(kernels, prefix + name) for prefix in ("", "narrow_") if not prefix or shape[1] <= NARROW]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("shape", SHAPES)
def test_softmax_and_logarithms(shape, temperature, scale, dtype):
    z, *_ = make(shape, dtype, scale)
    beta = dtype(1 / temperature)
    for kernel in twins("softmax", shape):
        lse, p = outputs(z)
        kernel(0, len(z), z, beta, p, lse)
        close(p, naive.softmax(z, temperature), dtype, scale)
        close(lse, naive.log_sum_exp(z / temperature), dtype, scale)
    for kernel in twins("log_softmax", shape):
        lse, p = outputs(z)
        kernel(0, len(z), z, beta, p, lse)
        close(p, naive.log_softmax(z, temperature), dtype, scale)
        close(lse, naive.log_sum_exp(z / temperature), dtype, scale)
    for kernel in twins("log_sum_exp", shape):
        lse, _ = outputs(z)
        kernel(0, len(z), z, beta, lse)
        close(lse, naive.log_sum_exp(z / temperature), dtype, scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy(shape, smoothing, scale, dtype):
    z, y, t, w = make(shape, dtype, scale)
    beta, s = dtype(1 / 1.5), dtype(smoothing)
    for target, name in (y, "cross_entropy"), (t, "soft_cross_entropy"):
        options = {"sample_weight": w, "label_smoothing": float(s), "temperature": 1 / float(beta)}
        expected = naive.softmax_cross_entropy(z, target, **options)
        gradient = naive.softmax_cross_entropy_grad(z, target, **options)
        loss, _ = outputs(z)
        getattr(kernels, name)(0, len(z), z, target, w, s, beta, loss)
        close(loss, expected, dtype, scale)
        loss, grad = outputs(z)
        getattr(kernels, name + "_grad")(0, len(z), z, target, w, s, beta, loss, grad)
        close(loss, expected, dtype, scale)
        close(grad, gradient, dtype, scale)
        if name == "cross_entropy" and not smoothing and shape[1] <= NARROW:
            loss, _ = outputs(z)
            kernels.narrow_cross_entropy(0, len(z), z, y, w, beta, loss)
            close(loss, expected, dtype, scale)
            loss, grad = outputs(z)
            kernels.narrow_cross_entropy_grad(0, len(z), z, y, w, beta, loss, grad)
            close(loss, expected, dtype, scale)
            close(grad, gradient, dtype, scale)


def gradients(y, t, w, smoothing=0.0):
    """(name, call) of every kernel with a gradient; the call takes logits, losses and gradient."""
    one, s = w.dtype.type(1), w.dtype.type(smoothing)
    calls = {
        "labels": lambda z, loss, g: kernels.cross_entropy_grad(0, len(z), z, y, w, one * 0, one, loss, g),
        "smoothed": lambda z, loss, g: kernels.cross_entropy_grad(0, len(z), z, y, w, s, one, loss, g),
        "soft": lambda z, loss, g: kernels.soft_cross_entropy_grad(0, len(z), z, t, w, s, one, loss, g),
        "narrow": lambda z, loss, g: kernels.narrow_cross_entropy_grad(0, len(z), z, y, w, one, loss, g),
    }
    return calls.items()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 2), (70, 10), (9, 47)])
def test_gradient_may_overwrite_the_logits(shape, dtype):
    z, y, t, w = make(shape, dtype)
    for name, call in gradients(y, t, w, 0.1):
        loss, grad = outputs(z)
        call(z, loss, grad)
        loss_2, own = outputs(z)[0], z.copy()
        call(own, loss_2, own)
        np.testing.assert_array_equal(own, grad, err_msg=name)
        np.testing.assert_array_equal(loss_2, loss, err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["softmax", "narrow_softmax", "log_softmax", "narrow_log_softmax"])
def test_probabilities_may_overwrite_the_logits(name, dtype):
    z, *_ = make((70, 10), dtype)
    lse, p = outputs(z)
    getattr(kernels, name)(0, len(z), z, dtype(1), p, lse)
    getattr(kernels, name)(0, len(z), z, dtype(1), z, lse)
    np.testing.assert_array_equal(z, p)


@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_class_gets_nothing(dtype):
    z, y, t, w = make((70, 10), dtype, scale=100.0)
    masked = np.random.default_rng(1).random(z.shape) < 0.4
    masked[np.arange(len(z)), y] = False
    z[masked] = -np.inf
    t = np.where(masked, 0, t)
    t /= t.sum(axis=1, keepdims=True)
    for name, call in gradients(y, t, w, 0.1):
        target, smoothing = (t if name == "soft" else y), (0.1 if name in ("smoothed", "soft") else 0.0)
        loss, grad = outputs(z)
        call(z, loss, grad)
        assert np.isfinite(loss).all(), name
        assert (grad[masked] == 0).all(), name
        expected = naive.softmax_cross_entropy_grad(z, target, w, smoothing)
        close(grad, expected, dtype, 100.0)
        close(loss, naive.softmax_cross_entropy(z, target, w, smoothing), dtype, 100.0)
    for kernel in kernels.softmax, kernels.narrow_softmax:
        lse, p = outputs(z)
        kernel(0, len(z), z, dtype(1), p, lse)
        assert (p[masked] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("masked", [slice(0, 1500), slice(500, 2500)])
def test_masks_over_whole_chunks(masked, dtype):
    """A wide row is worked on in chunks: some without an open class, others with ever larger logits."""
    z = np.linspace(-1e4, 1e4, 2500).astype(dtype)[None]
    label = np.array([2499 if masked.start == 0 else 0])
    z[0, masked] = -np.inf
    one, w = dtype(1), np.ones(1, dtype)
    loss, grad = outputs(z)
    kernels.cross_entropy_grad(0, 1, z, label, w, one * 0, one, loss, grad)
    close(grad, naive.softmax_cross_entropy_grad(z, label), dtype, 1e4)
    close(loss, naive.softmax_cross_entropy(z, label), dtype, 1e4)
    assert (grad[0, masked] == 0).all()
    lse, _ = outputs(z)
    kernels.log_sum_exp(0, 1, z, one, lse)
    close(lse, naive.log_sum_exp(z), dtype, 1e4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, "empty", "target"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_bad_row_shows_in_its_loss_and_only_there(bad, dtype):
    z, y, t, w = make((70, 10), dtype)
    w[3] = 0
    clean = z.copy()
    if bad == "empty":
        z[3] = -np.inf
    elif bad == "target":
        z[3, y[3]] = -np.inf
    else:
        z[3, 4] = bad
    for name, call in gradients(y, t, w, 0.1):
        loss, grad = outputs(z)
        call(z, loss, grad)
        loss_2, grad_2 = outputs(z)
        call(clean, loss_2, grad_2)
        assert not np.isfinite(loss[3]), name
        others = np.arange(len(z)) != 3
        np.testing.assert_array_equal(loss[others], loss_2[others])
        np.testing.assert_array_equal(grad[others], grad_2[others])
    if bad != "target":
        for kernel in kernels.log_sum_exp, kernels.narrow_log_sum_exp:
            lse, _ = outputs(z)
            kernel(0, len(z), z, dtype(1), lse)
            np.testing.assert_array_equal(np.isfinite(lse), np.arange(len(z)) != 3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_logits_share_evenly(dtype):
    for value in -1e4, 0, 1e4:
        z = np.full((3, 8), value, dtype)
        for kernel in kernels.softmax, kernels.narrow_softmax:
            lse, p = outputs(z)
            kernel(0, 3, z, dtype(1), p, lse)
            np.testing.assert_array_equal(p, np.full_like(z, 0.125))


@pytest.mark.parametrize("dtype", DTYPES)
def test_only_its_rows_are_written(dtype):
    z, y, _, w = make((200, 5), dtype)
    for start, stop in (0, 64), (1, 130), (199, 200):
        loss, grad = outputs(z)
        kernels.narrow_cross_entropy_grad(start, stop, z, y, w, dtype(1), loss, grad)
        inside = (np.arange(200) >= start) & (np.arange(200) < stop)
        np.testing.assert_array_equal(np.isfinite(loss), inside)
        np.testing.assert_array_equal(np.isfinite(grad).all(axis=1), inside)
        np.testing.assert_array_equal(np.isfinite(grad).any(axis=1), inside)


def plain(z, y):
    """Losses and gradient as one writes them in NumPy, in the dtype of ``z``."""
    shifted = z - z.max(axis=1, keepdims=True)
    e = np.exp(shifted)
    total = e.sum(axis=1, keepdims=True)
    loss = np.log(total)[:, 0] - shifted[np.arange(len(z)), y]
    grad = e / total
    grad[np.arange(len(z)), y] -= 1
    return loss, grad


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_error_budget(shape, scale):
    """Float32 is no further from the truth than plain NumPy in float32, give or take a rounding."""
    z, y, *_ = make(shape, np.float32, scale)
    one, w = np.float32(1), np.ones(len(z), np.float32)
    truth = naive.softmax_cross_entropy(z, y), naive.softmax_cross_entropy_grad(z, y)
    plain_errors = [np.abs(a - b).max() for a, b in zip(plain(z, y), truth, strict=True)]
    for kernel in twins("cross_entropy_grad", shape):
        loss, grad = outputs(z)
        scalars = (one,) if "narrow" in kernel.__name__ else (one * 0, one)
        kernel(0, len(z), z, y, w, *scalars, loss, grad)
        for got, expected, budget in zip((loss, grad), truth, plain_errors, strict=True):
            assert np.abs(got - expected).max() <= budget + 2**-23 * max(1.0, np.abs(expected).max())
