"""LogisticClassifier: the optima of binary, one-vs-rest and multilabel fits, and what it takes and gives."""

import copy
import pickle
import re
import sys
import warnings
from pathlib import Path

import naive
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.sparse import csc_matrix, csr_array, lil_array
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastml import LogisticClassifier
from fastml.estimators._targets import split_rows
from fastml.optim import SGD, Adam
from fastml.training.lbfgs import minimize_lbfgs
from fastml.training.problem import Problem

UNFINISHED = "ignore::sklearn.exceptions.ConvergenceWarning"
KINDS = ["binary", "one-vs-rest", "multilabel"]
SOLVERS = ["lbfgs", "minibatch"]


def small(kind, n=80, d=5, seed=0):
    """Rows, overlapping targets, and the outputs that are trained on."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    if kind == "multilabel":
        y = (X @ rng.standard_normal((d, 4)) + rng.standard_normal((n, 4)) > 0.5).astype(np.int64)
        return X, y, y.astype(float)
    y = rng.permutation(np.arange(n) % (2 if kind == "binary" else 3))
    X[:, 0] += y
    return X, y, outputs(y)


def outputs(y):
    """What each output should be, (n, K)."""
    classes = np.unique(y)
    return (y[:, None] == (classes if len(classes) > 2 else classes[1:])).astype(float)


def objective(coef, intercept, X, target, alpha, sample_weight=None, l1_ratio=0.0):
    """As it is documented, and its gradient by coefficients and intercepts (without L1)."""
    w = np.ones(len(X)) if sample_weight is None else sample_weight
    coef = np.asarray(coef, np.float64)
    logits, share = X @ coef.T + intercept, w / w.sum()
    loss = naive.binary_cross_entropy(logits, target, sample_weight=share)
    grad = naive.binary_cross_entropy_grad(logits, target, sample_weight=share)
    penalty = alpha * ((1 - l1_ratio) / 2 * (coef**2).sum() + l1_ratio * np.abs(coef).sum())
    return loss.sum() + penalty, grad.T @ X + alpha * coef, grad.sum(axis=0)


def objective_of(model, X, target, alpha, sample_weight=None, **options):
    return objective(model.coef_, model.intercept_, X, target, alpha, sample_weight, **options)[0]


def check_optimum(model, X, target, alpha, sample_weight=None, atol=1e-7):
    _, coef_grad, intercept_grad = objective(model.coef_, model.intercept_, X, target, alpha, sample_weight)
    np.testing.assert_allclose(coef_grad, 0, atol=atol)
    if model.fit_intercept:
        np.testing.assert_allclose(intercept_grad, 0, atol=atol)
    else:
        assert not model.intercept_.any()


def one_vs_rest(X, y, alpha, weight=None, **settings):
    """scikit-learn's coefficients and intercepts of each output."""
    total = len(X) if weight is None else weight.sum()
    settings = {"C": 1 / (alpha * total), "solver": "newton-cholesky", "tol": 1e-12, "max_iter": 1000, **settings}
    if y.ndim == 1 and len(np.unique(y)) == 2:
        models = [LogisticRegression(**settings).fit(X, y, weight)]
    else:
        targets = outputs(y) if y.ndim == 1 else y
        models = [LogisticRegression(**settings).fit(X, target, weight) for target in targets.T]
    return np.vstack([m.coef_ for m in models]), np.ravel([m.intercept_ for m in models])


def digits(n=400):
    X, y = load_digits(return_X_y=True)
    return StandardScaler().fit_transform(X[:n]), y[:n]


DATA = {
    "breast cancer": lambda: (StandardScaler().fit_transform(load_breast_cancer().data), load_breast_cancer().target),
    "iris": lambda: load_iris(return_X_y=True),
    "digits": digits,
    "multilabel": lambda: small("multilabel", n=200)[:2],
}


# ------------------------------------------------------------------------------------------------- optima


@pytest.mark.parametrize("kind", [np.asarray, csr_array])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("name", DATA)
def test_lbfgs_reaches_the_optimum_of_one_vs_rest(name, fit_intercept, weighted, kind):
    X, y = DATA[name]()
    alpha, weight = 3e-3, np.random.default_rng(0).random(len(y)) * 3 if weighted else None
    target = y if y.ndim == 2 else outputs(y)
    coef, intercept = one_vs_rest(X, y, alpha, weight, fit_intercept=fit_intercept)
    model = LogisticClassifier(solver="lbfgs", alpha=alpha, tol=1e-8, max_iter=2000, fit_intercept=fit_intercept)
    model.fit(kind(X), y, weight)
    assert model.coef_.shape == coef.shape
    best = objective(coef, intercept, X, target, alpha, weight)[0]
    assert objective_of(model, X, target, alpha, weight) <= best * (1 + 1e-9)
    np.testing.assert_allclose(model.coef_, coef, atol=1e-4)
    np.testing.assert_allclose(model.intercept_, intercept, atol=1e-4 if name != "iris" else 1e-3)
    np.testing.assert_allclose(model.loss_curve_[-1], objective_of(model, X, target, alpha, weight), rtol=1e-9)


def test_predictions_are_those_of_one_vs_rest():
    X, y = load_iris(return_X_y=True)
    truth = OneVsRestClassifier(LogisticRegression(C=1 / (0.01 * len(y)), tol=1e-10, max_iter=5000)).fit(X, y)
    model = LogisticClassifier(solver="lbfgs", alpha=0.01, tol=1e-8, max_iter=2000).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), truth.predict_proba(X), atol=1e-5)
    np.testing.assert_array_equal(model.predict(X), truth.predict(X))
    X, y, _ = small("multilabel")
    truth = OneVsRestClassifier(LogisticRegression(C=1 / (0.01 * len(y)), tol=1e-10, max_iter=5000)).fit(X, y)
    model = LogisticClassifier(solver="lbfgs", alpha=0.01, tol=1e-8, max_iter=2000).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), truth.predict_proba(X), atol=1e-5)
    np.testing.assert_array_equal(model.predict(X), truth.predict(X))
    assert model.score(X, y) == truth.score(X, y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_default_tolerance_is_near_the_optimum(kind, dtype):
    X, y, target = small(kind, n=400)
    best = objective(*one_vs_rest(X, y, 1e-3), X, target, 1e-3)[0]
    model = LogisticClassifier(solver="lbfgs", alpha=1e-3).fit(X.astype(dtype), y)
    assert best * (1 - 1e-12) <= objective_of(model, X, target, 1e-3) <= best * (1 + 1e-5)
    assert model.coef_.dtype == model.intercept_.dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
def test_objective_is_not_above_that_of_scipy(kind):
    X, y, target = small(kind, n=200)
    n_outputs, d = target.shape[1], X.shape[1]

    def function(x):
        coef, intercept = x[: n_outputs * d].reshape(n_outputs, d), x[n_outputs * d :]
        value, *grads = objective(coef, intercept, X, target, 1e-2)
        return value, np.concatenate([g.ravel() for g in grads])

    theirs = minimize(function, np.zeros(n_outputs * (d + 1)), jac=True, method="L-BFGS-B", options={"gtol": 1e-6})
    model = LogisticClassifier(solver="lbfgs", alpha=1e-2, tol=1e-6, max_iter=1000).fit(X, y)
    assert objective_of(model, X, target, 1e-2) <= theirs.fun * (1 + 1e-6)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("kind", ["column", "matrix"])
def test_soft_targets(kind, sparse):
    """The gradient of the naive objective, itself checked by finite differences, vanishes where lbfgs stops."""
    X, _, _ = small("multilabel")
    rng = np.random.default_rng(2)
    target, weight = rng.random((len(X), 2 if kind == "column" else 4)), rng.random(len(X))
    if kind == "column":
        target[:, 1] = 1 - target[:, 0]
    model = LogisticClassifier(solver="lbfgs", alpha=0.01, tol=1e-9, max_iter=1000)
    model.fit(csr_array(X) if sparse else X, target, weight)
    check_optimum(model, X, target, 0.01, weight)
    grad = naive.finite_differences(
        lambda coef: objective(coef, model.intercept_, X, target, 0.01, weight)[0], model.coef_.copy()
    )
    np.testing.assert_allclose(grad, 0, atol=1e-7)
    if kind == "column":  # an output and its opposite
        np.testing.assert_allclose(model.coef_[0], -model.coef_[1], atol=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("form", [csr_array, csc_matrix, lil_array, np.asfortranarray, lambda y: y.astype(bool)])
@pytest.mark.filterwarnings(UNFINISHED)
def test_forms_of_multilabel_targets(form, solver):
    X, y, _ = small("multilabel")
    settings = {"solver": solver, "random_state": 0, "max_iter": 20}
    expected, got = (LogisticClassifier(**settings).fit(X, target) for target in (y, form(y)))
    np.testing.assert_array_equal(got.coef_, expected.coef_)
    assert got.multilabel_
    np.testing.assert_array_equal(got.classes_, np.arange(4))
    np.testing.assert_array_equal(got.predict(X), expected.predict(X))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outputs_are_independent(dtype, sparse):
    """Together they reach what each of them reaches alone, through either minimiser."""
    X, y, _ = small("multilabel", n=120)
    rows = (csr_array if sparse else np.asarray)(X.astype(dtype))
    settings = {"solver": "lbfgs", "alpha": 1e-3, "tol": 1e-8 if dtype == np.float64 else 1e-5, "max_iter": 1000}
    whole = LogisticClassifier(**settings).fit(rows, y)
    atol = 1e-6 if dtype == np.float64 else 2e-3
    for k in range(y.shape[1]):
        alone = LogisticClassifier(**settings).fit(rows, y[:, k])
        np.testing.assert_allclose(whole.coef_[k], alone.coef_[0], atol=atol)
        np.testing.assert_allclose(whole.intercept_[k], alone.intercept_[0], atol=atol)
    twice = LogisticClassifier(**settings).fit(rows, np.hstack([y, y]))
    np.testing.assert_allclose(twice.coef_[:4], twice.coef_[4:], atol=atol)

    class Together(LogisticClassifier):
        def _minimizer(self, problem):
            return minimize_lbfgs

    np.testing.assert_allclose(Together(**settings).fit(rows, y).coef_, whole.coef_, atol=atol)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("alpha", [0.0, 1e-3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings(UNFINISHED)
def test_a_label_that_is_never_or_always_true(dtype, alpha, solver):
    X, y, _ = small("multilabel", n=300)
    y[:, 1], y[:, 3] = 0, 1
    settings = {"solver": solver, "alpha": alpha, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("error" if solver == "lbfgs" else "ignore")
        model = LogisticClassifier(**settings).fit(X.astype(dtype), y)
    assert np.isfinite(model.coef_).all()
    np.testing.assert_array_equal(model.predict(X)[:, [1, 3]], y[:, [1, 3]])
    assert (model.predict_proba(X)[:, 1] < 0.01).all()
    assert (model.predict_proba(X)[:, 3] > 0.99).all()
    if solver == "lbfgs":
        alone = LogisticClassifier(**settings).fit(X.astype(dtype), y[:, [0, 2]])
        np.testing.assert_allclose(model.coef_[[0, 2]], alone.coef_, atol=1e-4)


def test_tags_of_bibtex(bibtex):
    """As good as one-vs-rest on the tags that it is trained on here; the benchmark does all 159."""
    X, Y, X_test, Y_test = bibtex
    Y, Y_test = Y[:, :15], Y_test[:, :15]
    theirs = OneVsRestClassifier(LogisticRegression(max_iter=1000)).fit(X, Y)
    ours = LogisticClassifier(solver="lbfgs", alpha=1 / X.shape[0]).fit(X, Y)
    scores = [f1_score(Y_test, model.predict(X_test), average="micro") for model in (ours, theirs)]
    assert scores[0] >= scores[1] > 0.3
    coef = np.vstack([e.coef_ for e in theirs.estimators_])
    intercept = np.ravel([e.intercept_ for e in theirs.estimators_])
    rows, target, alpha = X.toarray().astype(float), Y.astype(float), 1 / X.shape[0]
    best = objective(coef, intercept, rows, target, alpha)[0]
    assert objective_of(ours, rows, target, alpha) <= best * (1 + 1e-6)


@pytest.fixture(scope="module")
def bibtex():
    sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
    try:
        from _data import bibtex
    finally:
        sys.path.pop()
    return bibtex()


# ------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_weight_zero_is_leaving_the_row_out(kind, sparse):
    X, y, _ = small(kind)
    weight = np.random.default_rng(1).integers(0, 3, len(y)).astype(float)
    form = csr_array if sparse else np.asarray
    model = LogisticClassifier(solver="lbfgs", alpha=0.01, tol=1e-9, max_iter=1000)
    with_zeros = model.fit(form(X), y, weight).coef_
    without = model.fit(form(X[weight > 0]), y[weight > 0], weight[weight > 0]).coef_
    np.testing.assert_allclose(with_zeros, without, atol=1e-7)
    repeated = np.repeat(np.arange(len(y)), weight.astype(int))
    np.testing.assert_allclose(with_zeros, model.fit(form(X[repeated]), y[repeated]).coef_, atol=1e-7)


@pytest.mark.parametrize("max_iter", [1, 3])
@pytest.mark.filterwarnings(UNFINISHED)
def test_rows_of_weight_zero_do_not_change_the_start(max_iter):
    """Not even where a label has no true row, whose first intercept has to be made up."""
    X, y, _ = small("multilabel")
    y[:, 0] = 0
    weight = np.arange(len(y)) % 2 + 0.0
    model = LogisticClassifier(solver="lbfgs", max_iter=max_iter)
    with_zeros = copy.copy(model.fit(X, y, weight))
    model.fit(X[1::2], y[1::2])
    np.testing.assert_allclose(with_zeros.intercept_, model.intercept_, rtol=1e-9)
    np.testing.assert_allclose(with_zeros.coef_, model.coef_, atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["binary", "one-vs-rest"])
@pytest.mark.filterwarnings(UNFINISHED)
def test_class_weight_is_a_sample_weight(kind, solver):
    X, y, _ = small(kind)
    per_class = np.array([1, 2, 0.5])
    settings = {"solver": solver, "max_iter": 30, "random_state": 0}
    given = LogisticClassifier(class_weight=dict(enumerate(per_class[: y.max() + 1])), **settings).fit(X, y)
    expected = LogisticClassifier(**settings).fit(X, y, per_class[y])
    np.testing.assert_allclose(given.coef_, expected.coef_, rtol=1e-9, atol=1e-9)
    y = np.where(np.arange(len(y)) < 40, 0, y)
    balanced = LogisticClassifier(class_weight="balanced", **settings).fit(X, y)
    expected = LogisticClassifier(**settings).fit(X, y, 1 / np.bincount(y)[y])
    np.testing.assert_allclose(balanced.coef_, expected.coef_, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.filterwarnings(UNFINISHED)
def test_only_ratios_of_weights_matter(solver):
    X, y, _ = small("multilabel")
    weight = np.random.default_rng(1).random(len(y))
    models = [
        LogisticClassifier(solver=solver, max_iter=20, random_state=0).fit(X, y, weight * factor).coef_
        for factor in (1.0, 2.0**40, 2.0**1023)
    ]
    np.testing.assert_allclose(models[1:], [models[0]] * 2, rtol=1e-12)


# ------------------------------------------------------------------------------------------------- the path


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings(UNFINISHED)
def test_threads_do_not_change_a_bit(kind, sparse, solver, monkeypatch):
    X, y, _ = small(kind, n=1500, d=30)
    X = csr_array(X) if sparse else X
    for small_step in (0,) if solver == "minibatch" else (0, 10**9):
        monkeypatch.setattr(Problem, "kernel_limit", small_step)
        settings = {"solver": solver, "max_iter": 6, "random_state": 3, "batch_size": 300}
        first, *others = (LogisticClassifier(n_jobs=n, **settings).fit(X, y) for n in (1, 2, 16))
        for other in others:
            np.testing.assert_array_equal(other.coef_, first.coef_)
            np.testing.assert_array_equal(other.intercept_, first.intercept_)
            assert other.loss_curve_ == first.loss_curve_


def test_where_arrays_lie_in_memory_does_not_change_a_bit():
    X, y, _ = small("multilabel")
    rng, kept, bits = np.random.default_rng(0), [], set()
    for _ in range(400):
        kept.append(np.empty(rng.integers(1, 300), np.uint8))
        bits.add(LogisticClassifier(solver="lbfgs", n_jobs=1).fit(X, y).coef_.tobytes())
    assert len(bits) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_loss_of_lbfgs_never_rises(dtype, kind):
    for scale in 1e-3, 1.0, 1e3:
        X, y, target = small(kind, n=300)
        X = (scale * X).astype(dtype)
        model = LogisticClassifier(solver="lbfgs", alpha=0.0, max_iter=1000).fit(X, y)
        assert (np.diff(model.loss_curve_) <= 0).all()
        assert model.loss_curve_[-1] < target.shape[1] * np.log(2)
        final = objective_of(model, X.astype(float), target, 0.0)
        np.testing.assert_allclose(model.loss_curve_[-1], final, rtol=1e-5 if dtype == np.float32 else 1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", [{"max_iter": 2, "tol": 0}, {"solver": "lbfgs", "max_iter": 2}])
def test_convergence_warning_points_to_the_caller(settings, kind):
    X, y, _ = small(kind)
    with pytest.warns(ConvergenceWarning, match=r"LogisticClassifier .*(max_iter)") as caught:
        model = LogisticClassifier(**settings).fit(X, y)
    assert [Path(w.filename) for w in caught] == [Path(__file__)]
    assert model.n_iter_ == len(model.loss_curve_) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_no_warning_where_it_converged(kind):
    X, y, _ = small(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for dtype in np.float32, np.float64:
            LogisticClassifier(solver="lbfgs").fit(X.astype(dtype), y)
            LogisticClassifier(random_state=0, max_iter=1000).fit(X.astype(dtype), y)
            LogisticClassifier(solver="lbfgs", warm_start=True).fit(X.astype(dtype), y).fit(X.astype(dtype), y)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_minibatches_come_near_the_optimum(optimizer, kind, sparse):
    X, y, target = small(kind, n=400)
    best = objective(*one_vs_rest(X, y, 1e-2), X, target, 1e-2)[0]
    model = LogisticClassifier(optimizer=optimizer, alpha=1e-2, batch_size=64, max_iter=1000, tol=1e-6, random_state=0)
    model.fit(csr_array(X) if sparse else X, y)
    assert best <= objective_of(model, X, target, 1e-2) < best * 1.005


@pytest.mark.parametrize("in_threads", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings(UNFINISHED)
def test_steps_are_those_of_the_definition(kind, in_threads, monkeypatch):
    """Plain gradient descent of the naive objective."""
    monkeypatch.setattr(Problem, "kernel_limit", 0 if in_threads else 10**9)
    X, y, target = small(kind)
    weight = np.random.default_rng(1).random(len(y))
    model = LogisticClassifier(
        optimizer=SGD(0.3), batch_size=None, alpha=0.01, max_iter=5, tol=0, n_iter_no_change=10
    ).fit(X, y, weight)  # fmt: skip
    share = weight / weight.sum() @ target
    coef = np.zeros((target.shape[1], X.shape[1]))
    intercept = np.log(share / (1 - share))
    for _ in range(5):
        _, coef_grad, intercept_grad = objective(coef, intercept, X, target, 0.01, weight)
        coef, intercept = coef - 0.3 * coef_grad, intercept - 0.3 * intercept_grad
    np.testing.assert_allclose(model.coef_, coef, rtol=1e-10)
    np.testing.assert_allclose(model.intercept_, intercept, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_elastic_net_has_real_zeros_at_its_optimum(kind):
    X, y, target = small(kind, n=200, d=12)
    alpha, l1_ratio = 0.05, 0.8
    model = LogisticClassifier(
        optimizer=SGD(0.5), batch_size=None, alpha=alpha, l1_ratio=l1_ratio, max_iter=5000, tol=1e-12
    ).fit(X, y)
    _, grad, intercept_grad = objective(model.coef_, model.intercept_, X, target, alpha * (1 - l1_ratio))
    zero = model.coef_ == 0
    assert 0.2 < zero.mean() < 0.95
    assert np.abs(grad[zero]).max() <= alpha * l1_ratio * (1 + 1e-6)  # the subgradient holds 0
    np.testing.assert_allclose(grad[~zero], -alpha * l1_ratio * np.sign(model.coef_[~zero]), atol=1e-5)
    np.testing.assert_allclose(intercept_grad, 0, atol=1e-5)
    expected = objective_of(model, X, target, alpha, l1_ratio=l1_ratio)
    np.testing.assert_allclose(model.loss_curve_[-1], expected, rtol=1e-6)
    scores = model.decision_function(X)
    np.testing.assert_allclose(model.sparsify().decision_function(X), scores, rtol=1e-12, atol=1e-14)
    assert model.coef_.nnz == (~zero).sum()
    assert isinstance(model.densify().coef_, np.ndarray)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", KINDS)
def test_early_stopping_keeps_the_best_on_held_out_rows(kind, solver):
    X, y, target = small(kind, n=200, d=60)
    weight = np.random.default_rng(1).random(200)
    model = LogisticClassifier(
        solver=solver, optimizer=Adam(0.05), alpha=0, tol=0, batch_size=16, random_state=5,
        early_stopping=True, validation_fraction=0.25, n_iter_no_change=3,
    ).fit(X, y, weight)  # fmt: skip
    _, held_out = split_rows(200, None if y.ndim == 2 else y, 0.25, np.random.RandomState(5))
    curve = model.validation_loss_curve_
    assert len(curve) == len(model.loss_curve_) == model.n_iter_ < 200
    assert np.argmin(curve) == len(curve) - 4
    loss = objective_of(model, X[held_out], target[held_out], 0.0, weight[held_out])
    np.testing.assert_allclose(loss, min(curve), rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", [np.asarray, csr_array])
@pytest.mark.filterwarnings("ignore::RuntimeWarning", UNFINISHED)
def test_features_of_any_scale_fit_or_say_so(form, dtype, kind):
    X, y = load_iris(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    y = y == 0 if kind == "binary" else y if kind == "one-vs-rest" else outputs(y)
    message = "diverged.*Lower the learning rate or scale the features|X has values too large for solver='lbfgs'"
    for scale in (1e-10, 1e10, 1e30, 1e37) if dtype == np.float32 else (1e-100, 1e10, 1e100, 1e200, 1e300):
        rows = form((scale * X).astype(dtype))
        model = LogisticClassifier(solver="lbfgs", alpha=0.0)
        try:
            score = model.fit(rows, y).score(rows, y)
        except ValueError as error:
            score, caught = None, str(error)
        if score is None:
            assert scale > 1e29
            assert re.search(message, caught)
            assert not hasattr(model, "coef_")
        else:
            assert scale < 1e110
            assert score > 0.7
        with pytest.raises(ValueError, match=message) if scale > 1 else warnings.catch_warnings():
            LogisticClassifier(optimizer=SGD(0.1), alpha=0.0, max_iter=5).fit(rows, y)


@pytest.mark.filterwarnings("ignore::RuntimeWarning", UNFINISHED)
@pytest.mark.parametrize("kind", KINDS)
def test_divergence_leaves_the_estimator_as_it_was(kind):
    X, y, _ = small(kind)
    model = LogisticClassifier(max_iter=3).fit(X, y).set_params(optimizer=SGD(1e300))
    before = dict(vars(model))
    for method in model.fit, model.partial_fit:
        with pytest.raises(ValueError, match=r"LogisticClassifier diverged.*Lower the learning rate"):
            method(X, y)
        assert vars(model) == before


@pytest.mark.filterwarnings(UNFINISHED)
def test_verbose(capsys):
    X, y, _ = small("multilabel")
    for settings in {}, {"solver": "lbfgs"}:
        model = LogisticClassifier(verbose=1, **settings).fit(X, y)
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == model.n_iter_
        assert lines[0] == f"LogisticClassifier: iteration 1, loss {model.loss_curve_[0]:.6f}"


# ------------------------------------------------------------------------------------------------- going on


@pytest.mark.parametrize("kind", KINDS)
def test_warm_start(kind):
    X, y, _ = small(kind)
    model = LogisticClassifier(solver="lbfgs", warm_start=True, tol=1e-7).fit(X, y)
    first, coef = model.n_iter_, model.coef_
    assert model.fit(X, y).n_iter_ <= 2 < first
    np.testing.assert_allclose(model.coef_, coef, atol=1e-5)
    model.fit(csr_array(X), y)
    np.testing.assert_allclose(model.coef_, coef, atol=1e-5)
    settings = {"optimizer": SGD(0.1), "shuffle": False, "tol": 0, "batch_size": 16}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        whole = LogisticClassifier(max_iter=6, **settings).fit(X, y)
        parts = LogisticClassifier(max_iter=3, warm_start=True, **settings).fit(X, y).fit(X, y)
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-12)


@pytest.mark.filterwarnings(UNFINISHED)
def test_warm_start_refuses_other_targets():
    X, y, target = small("one-vs-rest")
    model = LogisticClassifier(warm_start=True).fit(X, y)
    before = dict(vars(model))
    with pytest.raises(ValueError, match="warm_start needs the same classes"):
        model.fit(X, y + 1)
    with pytest.raises(ValueError, match="warm_start needs the same kind of y"):
        model.fit(X, target)
    with pytest.raises(ValueError, match="warm_start needs the same features: X has 4, the last fit 5"):
        model.fit(X[:, :4], y)
    assert vars(model) == before


@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.9), Adam(0.05)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.filterwarnings(UNFINISHED)
def test_partial_fits_are_the_epochs_of_fit(sparse, kind, optimizer):
    X, y, _ = small(kind)
    X = csr_array(X) if sparse else X
    weight = np.random.default_rng(1).random(len(y))
    settings = {"optimizer": optimizer, "batch_size": 16, "shuffle": False, "alpha": 0.01, "l1_ratio": 0.5}
    whole = LogisticClassifier(max_iter=5, tol=0, n_iter_no_change=10, **settings).fit(X, y, weight)
    parts = LogisticClassifier(**settings)
    for call in range(5):
        classes = np.unique(y) if call == 0 and kind != "multilabel" else None
        assert parts.partial_fit(X, y, classes=classes, sample_weight=weight) is parts
        assert parts.n_iter_ == call + 1
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(parts.loss_curve_, whole.loss_curve_, rtol=1e-10)


def test_the_kind_of_targets_may_not_change():
    X, y, target = small("one-vs-rest")
    labels = LogisticClassifier().partial_fit(X, y, classes=[0, 1, 2])
    matrix = LogisticClassifier().partial_fit(X, target)
    assert not labels.multilabel_
    assert matrix.multilabel_
    for model, other, was in (labels, target, r"labels \(n_samples,\)"), (matrix, y, "a matrix of labels"):
        before = dict(vars(model))
        with pytest.raises(ValueError, match=f"y has shape .* earlier calls had {was}"):
            model.partial_fit(X, other)
        assert vars(model) == before
    with pytest.raises(ValueError, match="y has 2 labels in its columns, but there are 3 classes"):
        matrix.partial_fit(X, target[:, :2])
    np.testing.assert_array_equal(matrix.partial_fit(X, csr_array(target)).coef_.shape, (3, 5))
    assert matrix.fit(X, y).multilabel_ is False  # fit begins anew
    assert labels.partial_fit(X[:2], [1, 1]).score(X, y) > 0


def test_a_stream_of_batches_that_miss_classes():
    X, y, _ = small("one-vs-rest", n=300)
    names = np.array(["ant", "bee", "cat"])[y]
    model = LogisticClassifier(random_state=0, optimizer=Adam(0.05))
    for first in range(0, 300, 10):
        rows = slice(first, first + 10)
        model.partial_fit(X[rows], names[rows], classes=["cat", "bee", "ant"] if first == 0 else None)
    assert model.classes_.tolist() == ["ant", "bee", "cat"]
    assert model.score(X, names) > 0.5


# ------------------------------------------------------------------------------------------------- predictions


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_predictions(kind, dtype, sparse):
    X, y, _ = small(kind)
    X = X.astype(dtype)
    rows = csr_array(X) if sparse else X
    model = LogisticClassifier(solver="lbfgs").fit(rows, y)
    scores, proba, log_proba = model.decision_function(rows), model.predict_proba(rows), model.predict_log_proba(rows)
    rtol = 1e-5 if dtype == np.float32 else 1e-12
    for array in model.coef_, model.intercept_, scores, proba, log_proba:
        assert array.dtype == dtype
    logits = X @ model.coef_.T + model.intercept_
    np.testing.assert_allclose(scores, logits.ravel() if kind == "binary" else logits, rtol=rtol, atol=rtol)
    sigmoids = naive.sigmoid(logits.astype(float))
    if kind == "binary":
        sigmoids = np.hstack([1 - sigmoids, sigmoids])
    elif kind == "one-vs-rest":
        sigmoids = sigmoids / sigmoids.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(proba, sigmoids, rtol=10 * rtol)
    np.testing.assert_allclose(log_proba, np.log(sigmoids), rtol=10 * rtol, atol=rtol)
    if kind == "multilabel":
        np.testing.assert_array_equal(model.predict(rows), proba > 0.5)
        assert model.predict(rows).dtype == np.int64
    else:
        np.testing.assert_array_equal(model.predict(rows), model.classes_[proba.argmax(axis=1)])
        np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=rtol)
    other = np.float64 if dtype == np.float32 else np.float32
    assert model.predict_proba(X.astype(other)).dtype == np.float64


@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_of_extreme_logits(kind):
    X, y, _ = small(kind)
    model = LogisticClassifier(solver="lbfgs").fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log_proba, proba = model.predict_log_proba(1e5 * X), model.predict_proba(1e5 * X)
    assert np.isfinite(log_proba).all()
    assert log_proba.min() < -1e4
    assert ((proba >= 0) & (proba <= 1)).all()
    if kind != "multilabel":  # even where every sigmoid is 0
        np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("names", [np.array(["no", "yes"]), np.array(["c", "a", "b"]), np.array([7, -3, 0])])
def test_labels_of_any_type(names, solver):
    X, y, _ = small("binary" if len(names) == 2 else "one-vs-rest")
    model = LogisticClassifier(solver=solver, random_state=0).fit(X, names[y])
    np.testing.assert_array_equal(model.classes_, np.sort(names))
    assert model.predict(X).dtype == names.dtype
    assert model.score(X, names[y]) > 0.5
    plain = LogisticClassifier(solver=solver, random_state=0).fit(X, np.argsort(np.argsort(names))[y])
    np.testing.assert_array_equal(model.coef_, plain.coef_)


@pytest.mark.parametrize("kind", KINDS)
def test_pandas(kind):
    pd = pytest.importorskip("pandas")
    X, y, _ = small(kind)
    frame = pd.DataFrame(X, columns=list("abcde"))
    target = pd.Series(y) if y.ndim == 1 else pd.DataFrame(y, columns=list("wxyz"))
    model = LogisticClassifier(solver="lbfgs").fit(frame, target)
    assert model.feature_names_in_.tolist() == list("abcde")
    np.testing.assert_array_equal(model.coef_, LogisticClassifier(solver="lbfgs").fit(X, y).coef_)
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[list("edcba")])
    partial = LogisticClassifier().partial_fit(frame, target, classes=None if y.ndim == 2 else np.unique(y))
    assert partial.coef_.shape == model.coef_.shape


# ------------------------------------------------------------------------------------------------- company


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings(UNFINISHED)
def test_copies(kind, solver):
    X, y, _ = small(kind)
    model = LogisticClassifier(solver=solver, max_iter=10, random_state=0).fit(X, y)
    for twin in copy.deepcopy(model), pickle.loads(pickle.dumps(model)), clone(model).fit(X, y):
        np.testing.assert_array_equal(twin.coef_, model.coef_)
        np.testing.assert_array_equal(twin.predict(X), model.predict(X))
    assert not hasattr(clone(model), "coef_")


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.filterwarnings(UNFINISHED)
def test_thresholds_are_tuned_by_scikit_learn(solver):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((600, 4))
    y = (X[:, 0] + 1.5 * rng.standard_normal(600) > 2.2).astype(int)  # a rare class
    model = LogisticClassifier(solver=solver, random_state=0)
    tuned = TunedThresholdClassifierCV(model, scoring="f1", cv=3).fit(X, y)
    assert 0 < tuned.best_threshold_ < 0.5
    assert f1_score(y, tuned.predict(X)) > f1_score(y, model.fit(X, y).predict(X))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings(UNFINISHED)
def test_searches_and_pipelines(kind):
    X, y, _ = small(kind, n=150)
    model = make_pipeline(StandardScaler(), LogisticClassifier(optimizer=Adam(), max_iter=30, random_state=0))
    grid = {"logisticclassifier__optimizer__learning_rate": [1e-6, 0.1]}
    search = GridSearchCV(model, grid, cv=3, scoring="f1_micro").fit(X, y)
    assert search.best_params_["logisticclassifier__optimizer__learning_rate"] == 0.1
    search = GridSearchCV(LogisticClassifier(solver="lbfgs"), {"alpha": [1e-4, 100.0]}, cv=3).fit(X, y)
    assert search.best_score_ > 0.2
