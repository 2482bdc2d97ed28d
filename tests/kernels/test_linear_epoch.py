"""Whole epochs inside a kernel against the same steps in plain NumPy."""

import math
from functools import partial
from itertools import pairwise

import naive
import numpy as np
import pytest
from numba import config
from scipy.sparse import csr_array, random_array

from fastml.kernels import _rules as rules
from fastml.kernels import linear_epoch as kernels
from fastml.kernels._epoch import Rule, clipping
from fastml.kernels._loss_tile import ABSOLUTE, BINARY_CROSS_ENTROPY, HUBER, SOFTMAX, SQUARED, settings
from fastml.runtime import run_team
from fastml.runtime.linear_loss import CSR

DTYPES = [np.float32, np.float64]
TOLERANCE = {np.float32: 3e-5, np.float64: 1e-12}
SHAPES = [(1, 1, 2), (5, 3, 2), (40, 6, 3), (17, 1, 10), (9, 2, 18)]  # rows, features, classes
if not config.DISABLE_JIT:
    SHAPES += [(700, 20, 10), (301, 33, 70)]
RULES = {
    "sgd": (rules.SGD, {}),
    "nesterov": (rules.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": (rules.ADAM, {"beta_1": 0.9, "beta_2": 0.99}),
}


def make(shape, dtype, soft=False, sparse=False, seed=0):
    """Rows, targets and weights."""
    rng = np.random.default_rng(seed)
    n, d, n_classes = shape
    X = rng.standard_normal((n, d)).astype(dtype)
    if sparse:
        X = csr_array(random_array((n, d), density=0.4, rng=rng, dtype=dtype))
    target = rng.integers(0, n_classes, n)
    if soft:
        target = rng.random((n, n_classes))
        target = (target / target.sum(axis=1, keepdims=True)).astype(dtype)
    return X, target, rng.random(n) + 0.1


class Run:
    """Arrays and scalars of a kernel, from the arguments of ``naive.SoftmaxTraining``."""

    def __init__(self, X, target, n_classes, rule, rate, *, batch_size, tile, l2=0.0, l1=0.0, sample_weight,
                 label_smoothing=0.0, fit_intercept=True, max_grad_norm=None, loss=None, n_threads=1):  # fmt: skip
        self.n_threads = n_threads
        self.sparse, dtype, real = isinstance(X, csr_array), X.dtype, X.dtype.type
        n, d = X.shape
        kind, hyper = RULES[rule]
        self.n_classes, self.n_coef = n_classes, d * n_classes
        values, grad = np.zeros(self.n_coef + n_classes, dtype), np.full(self.n_coef + n_classes, np.nan, dtype)
        shape = (d, n_classes) if self.sparse else (n_classes, d)
        W, W_grad = (a[: self.n_coef].reshape(shape) for a in (values, grad))
        uses = kind == rules.ADAM or "momentum" in hyper, kind == rules.ADAM
        moments = [np.zeros(len(values) if used else 0, dtype) for used in uses]
        self.parameters = kernels.Parameters(values, grad, *moments, W, W_grad)
        defaults = {"beta_1": hyper.get("momentum", 0), "beta_2": 0, **hyper}
        hyper = [defaults["beta_1"], defaults["beta_2"], 1e-8, hyper.get("nesterov", False), 0]
        self.rule = Rule(kind, np.array(hyper, dtype), float(max_grad_norm or 0), real(l2), real(l1))
        softmax = settings(dtype, SOFTMAX, keep=1 - label_smoothing, spread=label_smoothing / n_classes)
        self.settings = loss or softmax
        mass = 0 if loss else target.sum(axis=1) if target.ndim == 2 else 1
        weight = sample_weight / sample_weight.mean()
        weights = np.ascontiguousarray([weight, weight * mass], dtype)
        rows = CSR(X.indptr.astype(np.int64), X.indices.astype(np.int64), X.data) if self.sparse else X
        self.data = kernels.Data(rows, target, weights)
        size = self.size = min(batch_size, n)
        self.batch = kernels.Scratch(
            np.full((2, 0 if self.sparse else size, d), np.nan, dtype),
            np.zeros((2, size, *target.shape[1:]), target.dtype),
            *(np.full(s, np.nan, dtype) for s in ((2, 2, size), size, (tile, n_classes), (4, tile))),
        )
        self.fit_intercept, self.rate, self.steps = fit_intercept, rate, 0

    def epoch(self, order, calls=1):
        """Losses of the steps of an epoch, done in some calls."""
        n_steps = -(-len(order) // self.size)
        losses = np.full(n_steps, np.nan)
        rates = np.column_stack([np.full(n_steps, self.rate), self.steps + np.arange(1, n_steps + 1)]).astype(float)
        arguments = order, self.size, self.data, self.parameters, self.fit_intercept, self.rule, self.settings
        bounds = np.linspace(0, n_steps, calls + 1).astype(int).tolist()
        for begin, end in pairwise(bounds):
            if self.sparse:
                kernels.csr_steps(begin, end, *arguments, rates, self.batch, losses)
            else:
                run_team(partial(self._dense_steps, begin, end, *arguments, rates, losses), self.n_threads)
        self.steps += n_steps
        return losses

    def _dense_steps(self, begin, end, *arguments):
        *arguments, losses, board, _ = arguments
        kernels.dense_steps(begin, end, board, *arguments, self.batch, losses)

    @property
    def W(self):
        return self.parameters.W.T if self.sparse else self.parameters.W

    @property
    def b(self):
        return self.parameters.values[self.n_coef :]


def check(run, truth, orders, dtype, calls=1):
    n = len(truth.X)
    for order in orders:
        losses = run.epoch(order, calls)
        assert np.isfinite(losses).all()
        sizes = np.diff(np.r_[0 : n : run.size, n])
        loss = losses @ sizes / n + truth_penalty(truth, run)
        np.testing.assert_allclose(loss, truth.epoch(order), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    for got, expected in (run.W, truth.W), (run.b, truth.b):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, expected, rtol=100 * TOLERANCE[dtype], atol=10 * TOLERANCE[dtype])


def truth_penalty(truth, run):
    """Of the kernel's own parameters: it leaves penalties out of its losses."""
    W = run.W.astype(np.float64)
    return truth.l2 / 2 * (W**2).sum() + truth.l1 * np.abs(W).sum()


def pair(X, target, n_classes, rule, rate, batch_size, weight, tile=3, **options):
    """The kernel's run and the naive one."""
    kind, settings = RULES[rule]
    run = Run(X, target, n_classes, rule, rate, batch_size=batch_size, tile=tile, sample_weight=weight, **options)
    update = naive.sgd if kind == rules.SGD else naive.adam
    truth = naive.SoftmaxTraining(
        X, target, n_classes, update, rate, batch_size=batch_size, sample_weight=weight, **settings, **options
    )
    return run, truth


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", SHAPES)
def test_epochs(shape, rule, sparse, dtype):
    rng, n = np.random.default_rng(3), shape[0]
    for soft in False, True:
        X, target, weight = make(shape, dtype, soft, sparse)
        for batch_size in 1, 7, n:
            if batch_size == 1 and n > 100:
                continue
            options = {"l2": 0.01, "label_smoothing": 0.1 * soft, "tile": 3 if n < 100 else 32}
            run, truth = pair(X, target, shape[2], rule, 0.05, batch_size, weight, **options)
            check(run, truth, [rng.permutation(n) for _ in range(2)], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    "options",
    [{"fit_intercept": False}, {"max_grad_norm": 0.05}, {"l1": 0.02}, {"l1": 0.01, "l2": 0.1, "max_grad_norm": 0.2}],
)
def test_options(options, sparse, dtype):
    X, target, weight = make((40, 6, 3), dtype, sparse=sparse)
    for rule in RULES:
        run, truth = pair(X, target, 3, rule, 0.05, 8, weight, **options)
        check(run, truth, [np.arange(40)] * 3, dtype)
        if "l1" in options and dtype == np.float64:
            np.testing.assert_array_equal(run.W == 0, truth.W == 0)
            assert run.b.all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", ["binary_cross_entropy", "squared_error", "absolute_error", "huber"])
@pytest.mark.parametrize("n_outputs", [3, 18])
def test_steps_with_independent_outputs(n_outputs, name, sparse, dtype):
    X, target, weight = make((17, 5, n_outputs), dtype, soft=True, sparse=sparse)
    kind = {"binary_cross_entropy": BINARY_CROSS_ENTROPY, "squared_error": SQUARED, "absolute_error": ABSOLUTE}
    numbers = {"delta": 0.5} if name == "huber" else {}
    loss = settings(X.dtype, kind.get(name, HUBER), **numbers)
    options = {"batch_size": 7, "tile": 3, "sample_weight": weight, "loss": loss}
    run = Run(X, target, n_outputs, "sgd", 0.3, **options)
    dense = X.toarray() if sparse else X
    W, b, w, losses = np.zeros((n_outputs, 5)), np.zeros(n_outputs), weight / weight.mean(), []
    for _ in range(2):
        for first in range(0, 17, 7):
            rows = slice(first, first + 7)
            arguments = dense[rows] @ W.T + b, target[rows], w[rows]
            losses.append(getattr(naive, name)(*arguments, **numbers).sum() / len(arguments[1]))
            g = getattr(naive, f"{name}_grad")(*arguments, **numbers) / len(arguments[1])
            W, b = W - 0.3 * g.T @ dense[rows], b - 0.3 * g.sum(axis=0)
    got = np.concatenate([run.epoch(np.arange(17)) for _ in range(2)])
    np.testing.assert_allclose(got, losses, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    np.testing.assert_allclose(run.W, W, rtol=100 * TOLERANCE[dtype], atol=10 * TOLERANCE[dtype])
    np.testing.assert_allclose(run.b, b, rtol=100 * TOLERANCE[dtype], atol=10 * TOLERANCE[dtype])


@pytest.mark.parametrize("sparse", [False, True])
def test_calls_and_tiles_change_no_step(sparse):
    X, target, weight = make((40, 6, 3), np.float64, sparse=sparse)
    order = np.random.default_rng(4).permutation(40)
    results = []
    for calls, tile in (1, 8), (3, 8), (5, 1):
        run, _ = pair(X, target, 3, "adam", 0.05, 8, weight, tile=tile)
        losses = run.epoch(order, calls)
        results.append(np.concatenate([losses, run.parameters.values]))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_allclose(results[0], results[2], rtol=1e-12)


def test_the_same_bits_on_any_number_of_threads():
    X, target, weight = make(SHAPES[-1], np.float32)
    order, results = np.random.default_rng(4).permutation(len(X)), []
    for n_threads in 1, 2, 16:
        options = {"batch_size": 8, "tile": 4, "sample_weight": weight, "n_threads": n_threads}
        run = Run(X, target, SHAPES[-1][2], "adam", 0.05, **options)
        losses = [run.epoch(order, calls) for calls in (1, 3)]
        results.append(np.concatenate([*losses, run.parameters.values]))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize("sparse", [False, True])
def test_a_row_of_weight_zero_has_no_gradient(sparse):
    X, target, weight = make((10, 4, 3), np.float64, sparse=sparse)
    weight[4] = 0
    run, _ = pair(X, target, 3, "sgd", 0.05, 1, weight)
    run.epoch(np.array([4]))
    assert not run.parameters.values.any()


def test_csr_with_unsorted_and_repeated_indices():
    indptr, indices, data = np.array([0, 3, 3, 5]), np.array([2, 0, 2, 1, 1]), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    dense = np.array([[2.0, 0, 4], [0, 0, 0], [0, 9, 0]])
    target, weight = np.array([0, 1, 1]), np.ones(3)
    X = csr_array((data, indices, indptr), shape=(3, 3))
    run, truth = pair(X, target, 2, "adam", 0.05, 2, weight)
    truth.X = dense
    check(run, truth, [np.arange(3)] * 2, np.float64)


def test_clipping_of_nothing_and_of_a_zero_gradient():
    grad = np.array([3.0, 4.0])
    assert clipping(grad, 0.0) == 1
    assert math.isclose(clipping(grad, 2.5), 0.5)
    assert clipping(grad, 10.0) == 1
    assert clipping(0 * grad, 1.0) == 1
