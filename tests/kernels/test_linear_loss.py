"""The tiles, panels and runs of linear softmax cross-entropy put together give what the whole would."""

import naive
import numpy as np
import pytest
from numba import config
from scipy.sparse import csr_array

from fastml.kernels._loss_tile import ABSOLUTE, BINARY_CROSS_ENTROPY, HUBER, SOFTMAX, SQUARED, settings
from fastml.runtime import linear_loss
from fastml.runtime.linear_loss import CSR

SHAPES = [(1, 1, 1), (3, 2, 1), (5, 3, 2), (255, 17, 507), (700, 5, 3), (300, 7, 4500), (1000, 33, 129)]
if config.DISABLE_JIT:
    SHAPES = [(1, 1, 1), (5, 3, 2), (40, 4, 7)]
# As many parts of the smaller memory.
TIGHT = {(255, 17, 507): (85, 17, 207), (300, 7, 4500): (60, 7, 450), (1000, 33, 129): (150, 33, 129)}
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-11}


@pytest.fixture(params=["roomy", "tight"])
def memory(request, monkeypatch):
    """As it is, and with so little memory that small shapes take every path that huge ones do."""
    if request.param == "tight":
        for name, value in {
            "_STORED_BYTES": 1 << 15,
            "_TILE_BYTES": 1 << 13,
            "_LANES_BYTES": 1 << 9,
            "_SPAN_ENTRIES": 100,
            "_COPIED_BYTES": 1 << 8,
            "_LEAST_WORK": 500,
            "_PANEL_ROWS": 33,
            "_LEAST_PANEL": 10,
        }.items():
            monkeypatch.setattr(linear_loss, name, value)
    return request.param


def make(shape, dtype, is_soft, is_sparse):
    rng = np.random.default_rng(0)
    n, d, n_classes = shape
    X = rng.standard_normal((n, d)).astype(dtype)
    X[rng.random(X.shape) < (0.6 if is_sparse else 0)] = 0
    W, b = rng.standard_normal((n_classes, d)).astype(dtype), rng.standard_normal(n_classes).astype(dtype)
    target = rng.dirichlet(np.ones(n_classes), n).astype(dtype) if is_soft else rng.integers(0, n_classes, n)
    return X, W, b, target, rng.random(n).astype(dtype)


def run(X, W, b, target, weight, smoothing, temperature, n_threads, is_sparse):
    """Of softmax: losses, the losses without gradients, and the gradients."""
    weights = np.stack([weight, weight * target.sum(axis=1) if target.ndim == 2 else weight])
    numbers = {"beta": 1 / temperature, "keep": 1 - smoothing, "spread": smoothing / len(W)}
    return run_loss(X, W, b, target, weights, settings(W.dtype, SOFTMAX, **numbers), n_threads, is_sparse)


def run_loss(X, W, b, target, weights, loss_settings, n_threads, is_sparse):
    """The same of any loss; the arguments as the runtime takes them."""
    real = W.dtype.type
    matrix = csr_array(X)
    rows = CSR(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data) if is_sparse else X
    coefficients = W.T if is_sparse else W
    problem = rows, coefficients, b, target, weights, loss_settings, n_threads
    grads = np.empty(matrix.nnz if is_sparse else X.shape, real), np.empty(coefficients.shape, real), np.empty_like(b)
    loss = linear_loss.loss_grad(*problem, *grads)
    X_grad, W_grad, b_grad = grads
    if is_sparse:
        X_grad = csr_array((X_grad, matrix.indices, matrix.indptr), shape=X.shape).toarray()
        W_grad = W_grad.T
    return loss, linear_loss.loss(*problem), X_grad, W_grad, b_grad


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("is_soft", [False, True])
@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize(("smoothing", "temperature"), [(0.0, 1.0), (0.1, 2.5)])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_its_definition(shape, smoothing, temperature, is_sparse, is_soft, dtype, memory):
    shape = TIGHT.get(shape, shape) if memory == "tight" else shape
    X, W, b, target, weight = make(shape, dtype, is_soft, is_sparse)
    loss, alone, *grads = run(X, W, b, target, weight, smoothing, temperature, 2, is_sparse)
    options = {"sample_weight": weight, "label_smoothing": smoothing, "temperature": temperature}
    expected = naive.linear_softmax_cross_entropy(X, W, b, target, **options)
    X_grad, *other_grads = naive.linear_softmax_cross_entropy_grad(X, W, b, target, **options)
    if is_sparse:
        X_grad = np.where(X != 0, X_grad, 0)  # of the stored entries
    for got, wanted in zip([loss, alone, *grads], [expected, expected, X_grad, *other_grads], strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, wanted, rtol=0, atol=TOLERANCE[dtype] * max(np.abs(wanted).max(), 0.1))


OUTPUT_LOSSES = {
    "binary_cross_entropy": (BINARY_CROSS_ENTROPY, {}),
    "squared_error": (SQUARED, {}),
    "absolute_error": (ABSOLUTE, {}),
    "huber": (HUBER, {"delta": 0.7}),
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("name", OUTPUT_LOSSES)
@pytest.mark.parametrize("shape", SHAPES)
def test_independent_outputs(shape, name, is_sparse, dtype, memory):
    shape = TIGHT.get(shape, shape) if memory == "tight" else shape
    X, W, b, target, weight = make(shape, dtype, True, is_sparse)
    kind, numbers = OUTPUT_LOSSES[name]
    weights = np.stack([weight, 0 * weight])
    loss, alone, *grads = run_loss(X, W, b, target, weights, settings(W.dtype, kind, **numbers), 2, is_sparse)
    prediction = X.astype(np.float64) @ W.T.astype(np.float64) + b
    arguments = prediction, target, weight
    expected = getattr(naive, name)(*arguments, **numbers).sum(axis=1)
    g = getattr(naive, f"{name}_grad")(*arguments, **numbers)
    X_grad = np.where((X != 0) | (not is_sparse), g @ W, 0)  # of CSR rows that of the stored entries
    for got, wanted in zip([loss, alone, *grads], [expected, expected, X_grad, g.T @ X, g.sum(axis=0)], strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, wanted, rtol=0, atol=TOLERANCE[dtype] * max(np.abs(wanted).max(), 0.1))


@pytest.mark.parametrize("is_sparse", [False, True])
def test_the_same_bits_on_any_number_of_threads(is_sparse, memory):
    shape = (40, 4, 7) if config.DISABLE_JIT else (200, 20, 300) if memory == "tight" else (600, 20, 700)
    arguments = *make(shape, np.float32, False, is_sparse), 0.1, 1.0
    one = run(*arguments, 1, is_sparse)
    for n_threads in (2, 16):
        for got, wanted in zip(run(*arguments, n_threads, is_sparse), one, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_without_the_gradient_of_the_rows():
    X, W, b, target, weight = make((40, 4, 7), np.float64, False, False)
    weights = np.stack([weight, weight])
    both = np.empty_like(W), np.empty_like(b)
    linear_loss.loss_grad(X, W, b, target, weights, settings(W.dtype, SOFTMAX), 1, np.empty((0, 4)), *both)
    _, W_grad, b_grad = naive.linear_softmax_cross_entropy_grad(X, W, b, target, sample_weight=weight)
    np.testing.assert_allclose(both[0], W_grad, atol=1e-12)
    np.testing.assert_allclose(both[1], b_grad, atol=1e-12)
