"""The same random_state gives the same bits on 1, 2 and 16 threads, whichever way the work is split."""

import warnings

import numba
import numpy as np
import pytest
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from fastml import SoftmaxClassifier, functional
from fastml.runtime import linear_loss
from fastml.training.problem import Problem

pytestmark = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="would take hours")

N_JOBS = 1, 2, 16
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
dense_and_sparse = pytest.mark.parametrize("kind", ["dense", "sparse"])

# rows, features, classes: one for each way of running
SHAPES = {
    "small": (500, 8, 3),
    "many rows": (6000, 40, 30),
    "many classes": (300, 24, 4200),
    "wide": (400, 3000, 40),
}


def problem(shape, kind, dtype):
    n, d, n_classes = SHAPES[shape]
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d)).astype(dtype)
    y = np.concatenate([np.arange(min(n, n_classes)), rng.integers(0, n_classes, max(n - n_classes, 0))])
    return X if kind == "dense" else sparse.csr_array(X * (abs(X) > 1)), y, n_classes


def assert_same_bits(results):
    first, *others = results
    for result in others:
        for a, b in zip(first, result, strict=True):
            assert a.tobytes() == b.tobytes()


@both_dtypes
@dense_and_sparse
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("solver", ["minibatch", "lbfgs", "threads"])
def test_fit(monkeypatch, solver, shape, kind, dtype):
    X, y, n_classes = problem(shape, kind, dtype)
    options = {"max_iter": 2, "random_state": 0, "early_stopping": shape == "many rows"}
    if solver == "threads":
        monkeypatch.setattr(Problem, "kernel_limit", 0)
    if solver == "lbfgs":
        options["solver"] = "lbfgs"
    target = y if shape != "many classes" else np.eye(n_classes, dtype=dtype)[y]
    results = []
    for n_jobs in N_JOBS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = SoftmaxClassifier(n_jobs=n_jobs, **options).fit(X, target)
        results.append([model.coef_, model.intercept_, np.array(model.loss_curve_)])
    assert model.coef_.dtype == dtype
    assert_same_bits(results)


@both_dtypes
@dense_and_sparse
@pytest.mark.parametrize("shape", SHAPES)
def test_linear_softmax_cross_entropy(monkeypatch, shape, kind, dtype):
    X, y, n_classes = problem(shape, kind, dtype)
    W = np.random.default_rng(1).normal(size=(n_classes, X.shape[1])).astype(dtype)
    b = np.linspace(-1, 1, n_classes, dtype=dtype)
    results = []
    for n_threads in N_JOBS:
        for module in functional._linear_softmax, functional._softmax:
            monkeypatch.setattr(module, "thread_count", lambda n=n_threads: n)
        grad = functional.linear_softmax_cross_entropy_grad(X, W, b, y)
        grad = [g.data if sparse.issparse(g) else np.ascontiguousarray(g) for g in grad]
        results.append([*grad, functional.linear_softmax_cross_entropy(X, W, b, y)])
    assert_same_bits(results)


@both_dtypes
@pytest.mark.parametrize("shape", [(100_000, 10), (3000, 500)])
def test_softmax_cross_entropy(monkeypatch, shape, dtype):
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=shape).astype(dtype), rng.integers(0, shape[1], shape[0])
    results = []
    for n_threads in N_JOBS:
        monkeypatch.setattr(functional._softmax, "thread_count", lambda n=n_threads: n)
        results.append([*functional.softmax_cross_entropy_grad(logits, y), functional.softmax(logits)])
    assert_same_bits(results)


def test_the_shapes_meet_every_way_of_running(monkeypatch):
    """Or the tests above would prove less than they say."""
    seen = set()
    for name in "_rows_loss_grad", "_csr_loss_grad", "_Panels":
        original = getattr(linear_loss, name)
        monkeypatch.setattr(linear_loss, name, lambda *a, o=original, n=name: seen.add(n) or o(*a))
    for kind in "dense", "sparse":
        for shape in SHAPES:
            X, y, n_classes = problem(shape, kind, np.float32)
            W = np.zeros((n_classes, X.shape[1]), np.float32)
            functional.linear_softmax_cross_entropy_grad(X, W, None, y)
    assert seen == {"_rows_loss_grad", "_csr_loss_grad", "_Panels"}
