"""SoftmaxClassifier with n_negatives: the steps are those of sampled softmax, the goal is that of the full one."""

import naive
import numpy as np
import pytest
from scipy.sparse import csr_array

from fastml import SoftmaxClassifier
from fastml.kernels._loss_tile import SOFTMAX, settings
from fastml.optim import SGD, Adam, CosineDecay
from fastml.training import sampled_problem
from fastml.training.sampled_problem import SampledProblem

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
both = pytest.mark.parametrize("sparse", [False, True])


def many_classes(n=2000, n_classes=60, d=8, seed=0, dtype=np.float64, sparse=False):
    """Classes as frequent as words are; a row is its class's centroid and noise, many entries are zero."""
    rng = np.random.default_rng(seed)
    p = 1 / np.arange(3.0, n_classes + 3)
    y = np.append(np.arange(n_classes), rng.choice(n_classes, n - n_classes, p=p / p.sum()))
    X = (np.random.default_rng(1).standard_normal((n_classes, d))[y] + 1.5 * rng.standard_normal((n, d))).astype(dtype)
    X[rng.random(X.shape) < 0.4] = 0
    return csr_array(X) if sparse else X, y


def full_loss(model, X, y, sample_weight=None):
    return naive.linear_softmax_cross_entropy(X, model.coef_, model.intercept_, y, sample_weight=sample_weight).mean()


@both
def test_reaches_the_loss_of_the_full_softmax(sparse):
    X, y = many_classes(sparse=sparse)
    X_test, y_test = many_classes(seed=5, sparse=sparse)
    weight = np.random.default_rng(2).integers(0, 3, len(y)).astype(float)
    weight[:60] = 1
    optimum = SoftmaxClassifier(solver="lbfgs", alpha=1e-3, tol=1e-6, max_iter=1000).fit(X, y, weight)
    settings = {"batch_size": 128, "max_iter": 30, "alpha": 1e-3, "n_negatives": 20, "random_state": 0}
    model = SoftmaxClassifier(optimizer=Adam(CosineDecay(0.05, 30 * 16)), **settings).fit(X, y, weight)
    for at, w in (((X, y), weight), ((X_test, y_test), None)):
        best = full_loss(optimum, *at, w)
        assert best < 0.85 * np.log(60)
        assert full_loss(model, *at, w) < 1.02 * best


@both
@pytest.mark.parametrize("has_intercept", [True, False])
@pytest.mark.parametrize("block_bytes", [32 << 20, 1, 2000])
def test_gradient_of_a_batch(block_bytes, has_intercept, sparse, monkeypatch):
    """Also of CSR rows that are made dense in several parts, and of rows without any entry."""
    monkeypatch.setattr(sampled_problem, "_BLOCK_BYTES", block_bytes)
    X, y = many_classes(100, n_classes=30)
    X[[7, 8]] = 0
    rng = np.random.default_rng(3)
    weight, rows = rng.random(100), rng.permutation(100)[:40]
    rows[:2] = 7, 8
    problem = SampledProblem(
        csr_array(X) if sparse else X, y, weight, 30, settings(X.dtype, SOFTMAX),
        fit_intercept=has_intercept, n_threads=2, n_negatives=9, seed=4,
    )  # fmt: skip
    values, grad = rng.standard_normal(problem.n_trained), np.full(problem.n_trained, np.nan)
    problem.step = 17
    loss = problem.batch_loss_grad(rows, values, grad)
    ids, log_q = problem.negatives(rows)
    np.testing.assert_array_equal(ids, np.unique([*problem.sampler.draw(9, 4, 17).ids, *y[rows]]))
    W, b = problem.split(values)
    assert W.shape == (30, 8)
    weight = (weight / weight.mean())[rows]
    options = {"sample_weight": weight, "log_q": log_q, "remove_accidental_hits": True}
    losses = naive.sampled_softmax_cross_entropy(X[rows], W, b, y[rows], ids, **options)
    _, W_grad, b_grad = naive.sampled_softmax_cross_entropy_grad(X[rows], W, b, y[rows], ids, **options)
    np.testing.assert_allclose(loss, losses.mean(), rtol=1e-12)
    np.testing.assert_allclose(problem.split(grad)[0], W_grad / 40, atol=1e-14)
    np.testing.assert_allclose(problem.split(grad)[1], b_grad / 40 * has_intercept, atol=1e-14)
    full = naive.linear_softmax_cross_entropy(X, W, b, y, sample_weight=problem.weights[0])
    np.testing.assert_allclose(problem.loss(values), full.mean(), rtol=1e-12)


def test_log_q_is_the_log_of_the_share_of_steps():
    """Of random batches and draws, in which a class is a negative; the approximations are within a percent or two."""
    X, y = many_classes(600, n_classes=50)
    options = {"fit_intercept": True, "n_threads": 1, "n_negatives": 10, "seed": 0}
    problem, hits = SampledProblem(X, y, np.ones(600), 50, settings(X.dtype, SOFTMAX), **options), np.zeros(50)
    rng = np.random.default_rng(0)
    for step in range(4000):
        problem.step = step
        others = rng.permutation(600)[:39]  # a row and these are a batch
        np.add.at(hits, np.union1d(problem.sampler.draw(10, 0, step).ids, y[others]), 1)
    _, log_q = problem.negatives(np.arange(40))
    np.testing.assert_allclose(hits / 4000, np.exp(log_q), atol=0.03)
    assert np.exp(log_q).min() < 0.3


@both
def test_same_bits_for_any_number_of_threads(sparse):
    X, y = many_classes(3000, n_classes=400, d=20, dtype=np.float32, sparse=sparse)
    options = {"n_negatives": 300, "batch_size": 1500, "max_iter": 3}
    first, *others = (SoftmaxClassifier(n_jobs=n, random_state=0, **options).fit(X, y) for n in (1, 2, 16))
    assert first.coef_.dtype == np.float32
    for other in others:
        np.testing.assert_array_equal(other.coef_, first.coef_)
        np.testing.assert_array_equal(other.intercept_, first.intercept_)
        assert other.loss_curve_ == first.loss_curve_
    state = SoftmaxClassifier(random_state=1, shuffle=False, **options).fit(X, y)
    again = SoftmaxClassifier(random_state=2, shuffle=False, **options).fit(X, y)
    assert not np.array_equal(state.coef_, again.coef_)


def test_sparse_rows_are_dense_rows():
    X, y = many_classes()
    options = {
        "n_negatives": 20,
        "max_iter": 3,
        "random_state": 0,
        "optimizer": SGD(0.1),
        "l1_ratio": 0.3,
        "alpha": 0.02,
    }
    dense, sparse = (SoftmaxClassifier(**options).fit(rows, y) for rows in (X, csr_array(X)))
    assert sparse.coef_.flags.c_contiguous
    np.testing.assert_allclose(sparse.coef_, dense.coef_, atol=1e-12)
    np.testing.assert_allclose(sparse.loss_curve_, dense.loss_curve_, rtol=1e-12)
    np.testing.assert_array_equal(sparse.coef_ == 0, dense.coef_ == 0)
    assert (dense.coef_ == 0).any()


@both
def test_early_stopping_watches_the_full_loss(sparse):
    X, y = many_classes(sparse=sparse)
    models = []
    for m in None, 20:
        model = SoftmaxClassifier(n_negatives=m, early_stopping=True, max_iter=15, random_state=0).fit(X, y)
        models.append(model)
    full, sampled = (np.array(model.validation_loss_curve_) for model in models)
    assert full.min() < 0.9 * np.log(60)
    assert abs(sampled.min() / full.min() - 1) < 0.02


@both
def test_partial_fit_goes_on_drawing(sparse):
    X, y = many_classes(sparse=sparse)
    options = {"n_negatives": 20, "random_state": 0, "shuffle": False, "batch_size": 500}
    whole = SoftmaxClassifier(max_iter=3, **options).fit(X, y)
    parts = SoftmaxClassifier(**options)
    for _ in range(3):
        parts.partial_fit(X, y, classes=range(60))
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-10)
    assert parts.loss_curve_ == whole.loss_curve_


def test_partial_fit_knows_classes_that_have_not_come():
    X, y = many_classes()
    model = SoftmaxClassifier(n_negatives=20, batch_size=100, random_state=0)
    for _ in range(3):
        model.partial_fit(X[y < 30], y[y < 30], classes=range(60))
    assert model.coef_.shape == (60, 8)
    assert (model.intercept_[30:] < 0).all()


def test_warm_start():
    X, y = many_classes()
    model = SoftmaxClassifier(n_negatives=20, max_iter=10, warm_start=True, random_state=0).fit(X, y)
    before = model.loss_curve_
    assert model.fit(X, y).loss_curve_[0] < before[0] - 0.2


def test_weights_are_repeated_rows():
    X, y = many_classes(300, n_classes=20)
    weight = np.random.default_rng(0).integers(0, 3, len(y)).astype(float)
    repeated = np.repeat(np.arange(len(y)), weight.astype(int))
    options = {"n_negatives": 7, "batch_size": None, "max_iter": 20, "shuffle": False, "random_state": 0}
    given = SoftmaxClassifier(**options).fit(X, y, weight)
    classes = np.arange(20)
    np.testing.assert_array_equal(np.unique(y[repeated]), classes)
    np.testing.assert_allclose(given.coef_, SoftmaxClassifier(**options).fit(X[repeated], y[repeated]).coef_, atol=1e-9)
    double = SoftmaxClassifier(class_weight={3: 2.0}, **options).fit(X, y)
    expected = SoftmaxClassifier(**options).fit(X, y, np.where(y == 3, 2.0, 1.0))
    np.testing.assert_allclose(double.coef_, expected.coef_, atol=1e-12)


def test_tiny_and_zero_weights_of_a_class():
    X, y = many_classes()
    for tiny in 0.0, 1e-300:
        model = SoftmaxClassifier(n_negatives=20, max_iter=5, random_state=0).fit(X, y, np.where(y == 7, tiny, 1.0))
        assert np.isfinite(model.coef_).all()
        assert model.intercept_[7] < 0


def test_two_classes():
    """Both are in nearly every batch, so there is little left to chance."""
    X, y = many_classes()
    full, sampled = (SoftmaxClassifier(n_negatives=m, max_iter=10, random_state=0).fit(X, y > 4) for m in (None, 1))
    assert sampled.coef_.shape == (1, 8)
    np.testing.assert_allclose(sampled.coef_, full.coef_, atol=1e-3)


X, Y = many_classes(200, n_classes=10)
ERRORS = [
    ({"n_negatives": 10}, Y, r"^n_negatives=10 must be below the number of classes, 10"),
    ({"n_negatives": 2}, Y > 3, r"^n_negatives=2 must be below the number of classes, 2"),
    ({"label_smoothing": 0.1}, Y, "^n_negatives needs label_smoothing=0, got 0.1"),
    ({"solver": "lbfgs"}, Y, "^n_negatives needs solver='minibatch', got 'lbfgs'"),
    ({}, np.eye(10)[Y], "^n_negatives needs labels, got y with probabilities"),
    ({"n_negatives": 0}, Y, "'n_negatives' parameter"),
    ({"n_negatives": 2.0}, Y, "'n_negatives' parameter"),
]


@pytest.mark.parametrize(("changed", "y", "message"), ERRORS)
def test_errors(changed, y, message):
    model = SoftmaxClassifier(n_negatives=5).fit(X, Y)
    before = dict(vars(model.set_params(**changed)))
    with pytest.raises(ValueError, match=message):
        model.fit(X, y)
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is value for name, value in before.items())
