"""Tiles, runs of classes and combined repeats put together give what a softmax over all candidates would."""

import tracemalloc

import naive
import numpy as np
import pytest
from numba import config

from fastml.runtime import sampled

# rows, features, classes, negatives
SHAPES = [(1, 1, 1, 1), (3, 2, 5, 1), (5, 3, 4, 40), (37, 17, 300, 23), (300, 5, 90, 61), (70, 33, 5000, 1500)]
if config.DISABLE_JIT:
    SHAPES = [(1, 1, 1, 1), (3, 2, 5, 1), (5, 3, 4, 20), (37, 5, 30, 23)]
PAIRS = [(1, 1, 1), (3, 2, 5), (5, 7, 4), (40, 3, 6)] + [(1000, 5, 33)] * (not config.DISABLE_JIT)  # n, m, d
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-11}
both_dtypes = pytest.mark.parametrize("dtype", TOLERANCE)


@pytest.fixture(params=["roomy", "tight"])
def memory(request, monkeypatch):
    """As it is, and with so little memory that small shapes take every path that huge ones do."""
    if request.param == "tight":
        for name, value in {
            "_STORED_BYTES": 1 << 12,
            "_TILE_BYTES": 1 << 10,
            "_TILE_ROWS": 8,
            "_LEAST_ROWS": 3,
            "_LEAST_CLASSES": 3,
            "_BLOCK": 50,
        }.items():
            monkeypatch.setattr(sampled, name, value)
    return request.param


def make(shape, dtype, scale=1.0):
    """Arguments of a loss, some weights zero, and the options of the definition."""
    n, d, n_classes, m = shape
    rng = np.random.default_rng(0)
    X, W = (scale * rng.standard_normal((n, d))).astype(dtype), rng.standard_normal((n_classes, d)).astype(dtype)
    target, negatives = rng.integers(0, n_classes, n), rng.integers(0, n_classes, m)
    weight = (rng.random(n) * (rng.random(n) < 0.8)).astype(dtype)
    tables = {name: rng.standard_normal(n_classes).astype(dtype) for name in ("b", "log_q")}
    return (X, W, tables["b"], target, negatives), {"sample_weight": weight, "log_q": tables["log_q"]}


def run(arguments, options, masks_hits=True, n_threads=2):
    """The losses with and without gradients, and the gradients, of W and b in the place of all classes."""
    X, W, b, target, negatives = arguments
    occurring = sampled.drawn(target, negatives)
    candidates = sampled.gather(occurring, W, b, options["log_q"], masks_hits, X.dtype)
    problem = X, candidates, options["sample_weight"], n_threads
    grads = [np.empty_like(array) for array in (X, candidates.W, candidates.shift)]
    loss = sampled.softmax_loss_grad(*problem, *grads)
    tables = [np.zeros_like(W), np.zeros_like(b)]
    for table, grad in zip(tables, grads[1:], strict=True):
        table[occurring.classes] = grad
    return loss, sampled.softmax_loss(*problem), grads[0], *tables


def assert_close(got, expected, dtype):
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE[dtype] * max(np.abs(theirs).max(), 0.1))


@both_dtypes
@pytest.mark.parametrize("masks_hits", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_softmax_equals_its_definition(shape, masks_hits, dtype, memory):
    arguments, options = make(shape, dtype)
    settings = {**options, "remove_accidental_hits": masks_hits}
    loss = naive.sampled_softmax_cross_entropy(*arguments, **settings)
    grads = naive.sampled_softmax_cross_entropy_grad(*arguments, **settings)
    assert_close(run(arguments, options, masks_hits), (loss, loss, *grads), dtype)


@both_dtypes
def test_softmax_of_large_logits(dtype, memory):
    arguments, options = make(SHAPES[3], dtype, scale=1e4)
    loss = naive.sampled_softmax_cross_entropy(*arguments, **options)
    got = run(arguments, options)
    np.testing.assert_allclose(got[0], loss, rtol=1e-5, atol=1e-6 * loss.max())
    if dtype == np.float64:  # in single precision the rounding of logits decides between close ones
        assert_close(got, (loss, loss, *naive.sampled_softmax_cross_entropy_grad(*arguments, **options)), dtype)


@both_dtypes
def test_only_the_target_itself_was_drawn(dtype):
    (X, W, b, target, _), options = make((4, 3, 5, 1), dtype)
    arguments = X, W, b, np.full_like(target, 2), np.array([2, 2, 2])
    for field in run(arguments, options):
        np.testing.assert_array_equal(field, 0)


def test_nearly_certain_losses_keep_their_digits():
    """1 + e^-20 is 1 in single precision, but the loss is not 0."""
    arguments = np.eye(1, dtype="f"), np.array([[20], [0]], "f"), np.zeros(2, "f"), np.zeros(1, int), np.array([1])
    loss, _, X_grad, *_ = run(arguments, {"log_q": None, "sample_weight": np.ones(1, "f")})
    np.testing.assert_allclose(loss, np.exp(-20.0), rtol=1e-5)
    np.testing.assert_allclose(X_grad, -20 * np.exp(-20.0), rtol=1e-5, atol=0)


def test_without_the_gradient_of_the_rows():
    (X, W, b, target, negatives), options = make((40, 4, 30, 20), np.float64)
    candidates = sampled.gather(sampled.drawn(target, negatives), W, b, None, True, X.dtype)
    problem, both = (X, candidates, options["sample_weight"], 1), []
    for n_rows in 0, 40:
        both.append([np.empty((n_rows, 4)), np.empty_like(candidates.W), np.empty_like(candidates.shift)])
        sampled.softmax_loss_grad(*problem, *both[-1])
    for without, wanted in zip(both[0][1:], both[1][1:], strict=True):
        np.testing.assert_array_equal(without, wanted)


@pytest.mark.skipif(config.DISABLE_JIT, reason="a large shape")
def test_logits_are_never_whole_in_memory():
    """The peak of what NumPy allocates; all logits would take 312 MiB."""
    (X, W, b, target, _), options = make((20_000, 4, 5000, 1), np.float32)
    candidates = sampled.gather(sampled.drawn(target, np.arange(4096)), W, b, None, True, X.dtype)
    problem, grads = (X, candidates, options["sample_weight"], 2), [np.empty_like(a) for a in (X, W, b)]
    run(*make(SHAPES[0], np.float32))  # what compiling takes
    tracemalloc.start()
    try:
        sampled.softmax_loss(*problem)
        alone = tracemalloc.get_traced_memory()[1]
        sampled.softmax_loss_grad(*problem, *grads)
        assert alone < 3 << 20
        assert tracemalloc.get_traced_memory()[1] < 34 << 20
    finally:
        tracemalloc.stop()


def test_the_same_bits_on_any_number_of_threads(memory):
    small, tight = config.DISABLE_JIT, memory == "tight"
    arguments, options = make((40, 4, 30, 20) if small or tight else (900, 20, 3000, 700), np.float32)
    queries, keys, negatives, weight = pairs((40, 3, 6) if small or tight else (3000, 7, 20), np.float32)
    grads = [tuple(np.empty_like(array) for array in (queries, keys, negatives)) for _ in range(3)]
    results = []
    for grad, n_threads in zip(grads, (1, 2, 16), strict=True):
        loss = sampled.negative_sampling(queries, keys, negatives, weight, n_threads, grad)
        results.append([*run(arguments, options, n_threads=n_threads), loss, *grad])
    for other in results[1:]:
        for got, wanted in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(got, wanted)


def pairs(shape, dtype, scale=1.0):
    """Queries, keys, negatives, and weights, some of them zero."""
    n, m, d = shape
    rng = np.random.default_rng(0)
    queries, keys, negatives = (rng.standard_normal(s).astype(dtype) for s in ((n, d), (n, d), (n, m, d)))
    return dtype(scale) * queries, keys, negatives, (rng.random(n) * (rng.random(n) < 0.8)).astype(dtype)


@both_dtypes
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("shape", PAIRS)
def test_negative_sampling_equals_its_definition(shape, scale, dtype, memory):
    arguments = pairs(shape, dtype, scale)
    grads = tuple(np.empty_like(array) for array in arguments[:3])
    loss = sampled.negative_sampling(*arguments, 2, grads)
    alone = sampled.negative_sampling(*arguments, 2)
    expected = naive.negative_sampling_loss(*arguments)
    if scale == 1.0 or dtype == np.float64:
        expected_grads = naive.negative_sampling_loss_grad(*arguments)
        assert_close((loss, alone, *grads), (expected, expected, *expected_grads), dtype)
    else:
        np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6 * expected.max())
        assert all(np.isfinite(grad).all() for grad in grads)
