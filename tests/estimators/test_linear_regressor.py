"""LinearRegressor: the optima of its losses, in any unit of the target, and what it takes and gives."""

import copy
import pickle
import re
import warnings
from pathlib import Path

import naive
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.sparse import csc_array, csr_array
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, QuantileRegressor, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from fastml import LinearRegressor
from fastml.estimators._targets import split_rows
from fastml.optim import SGD, Adam
from fastml.training.problem import Problem

UNFINISHED = "ignore::sklearn.exceptions.ConvergenceWarning"
LOSSES = ["squared", "absolute", "huber"]
SOLVERS = ["lbfgs", "minibatch"]


def small(n=120, d=5, n_targets=None, seed=0, outliers=False):
    """Rows and targets: noise, a constant, and outliers where asked for."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    shape = (n,) if n_targets is None else (n, n_targets)
    y = X @ rng.standard_normal((d, *shape[1:])) + 0.5 * rng.standard_normal(shape) + 3
    if outliers:
        y[: n // 10] += 100
    return X, y


def objective(model, X, y, sample_weight=None):
    """As it is documented."""
    w = np.ones(len(X)) if sample_weight is None else sample_weight
    coef = np.atleast_2d(np.asarray(model.coef_, np.float64))
    losses = {"squared": naive.squared_error, "absolute": naive.absolute_error}
    function = losses.get(model.loss, lambda p, t, sample_weight: naive.huber(p, t, sample_weight, delta=model.delta))
    residuals = [
        function(X @ row + b, t, sample_weight=w / w.sum()).sum()
        for row, b, t in zip(coef, np.atleast_1d(model.intercept_), y.reshape(len(y), -1).T, strict=True)
    ]
    penalty = (1 - model.l1_ratio) / 2 * (coef**2).sum() + model.l1_ratio * np.abs(coef).sum()
    return sum(residuals) + model.alpha * penalty


def with_coef(model, coef, intercept):
    """A copy that has these parameters."""
    twin = copy.copy(model)
    twin.coef_, twin.intercept_ = coef, intercept
    return twin


# ------------------------------------------------------------------------------------------------- squared


def rows(name):
    """Rows and targets that are hard in one way or another."""
    rng = np.random.default_rng(0)
    X, y = load_diabetes(return_X_y=True)
    if name == "raw diabetes":
        X = load_diabetes(scaled=False).data
    elif name == "collinear":
        X = np.hstack([X, X[:, :3], X @ rng.standard_normal((10, 2))])
    elif name == "nearly collinear":
        X = np.hstack([X, X[:, :3] + 1e-5 * rng.standard_normal((len(X), 3))])
    elif name == "scales":
        X = X * 10.0 ** np.arange(-4, 6)
    elif name == "far from zero":
        X = X + 1e3
    elif name == "fewer rows than features":
        X, y = rng.standard_normal((20, 50)), rng.standard_normal(20)
    elif name == "constant features":
        X = np.hstack([X, np.ones((len(X), 1)), np.zeros((len(X), 1))])
    elif name == "one feature":
        X = X[:, :1]
    elif name == "sparse":
        X = X * (rng.random(X.shape) < 0.2)
    return X, y


NAMES = [
    "diabetes", "raw diabetes", "collinear", "nearly collinear", "scales", "far from zero", "fewer rows than features",
    "constant features", "one feature", "sparse",
]  # fmt: skip


@pytest.mark.parametrize("form", [np.asarray, csr_array])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_squared_is_ridge(name, fit_intercept, weighted, form):
    X, y = rows(name)
    alpha, weight = 1e-3, np.random.default_rng(1).random(len(y)) if weighted else None
    total = weight.sum() if weighted else len(y)
    truth = Ridge(alpha=alpha * total, fit_intercept=fit_intercept).fit(X, y, weight)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = LinearRegressor(solver="lbfgs", alpha=alpha, fit_intercept=fit_intercept).fit(form(X), y, weight)
    size = np.abs(truth.coef_).max()
    np.testing.assert_allclose(model.coef_, truth.coef_, rtol=1e-6, atol=1e-6 * size)
    np.testing.assert_allclose(model.predict(X), truth.predict(X), atol=1e-6 * y.std())
    expected = objective(with_coef(model, truth.coef_, truth.intercept_), X, y, weight)
    assert objective(model, X, y, weight) <= expected * (1 + 1e-10)
    np.testing.assert_allclose(model.loss_curve_[-1], objective(model, X, y, weight), rtol=1e-9)
    if not fit_intercept:
        assert model.intercept_ == 0


@pytest.mark.parametrize("alpha", [0.0, 1e-6, 1e-3, 1.0, 100.0])
@pytest.mark.parametrize("form", [np.asarray, csr_array])
def test_squared_is_ridge_for_any_alpha_and_many_targets(form, alpha):
    X, y = rows("diabetes")
    rng = np.random.default_rng(0)
    Y = np.column_stack([y, 3 - 2 * y + rng.standard_normal(len(y)), 30 * rng.standard_normal(len(y))])
    truth = Ridge(alpha=alpha * len(y)).fit(X, Y)
    model = LinearRegressor(solver="lbfgs", alpha=alpha).fit(form(X), Y)
    np.testing.assert_allclose(model.coef_, truth.coef_, rtol=1e-6, atol=1e-6 * np.abs(truth.coef_).max())
    np.testing.assert_allclose(model.predict(X), truth.predict(X), rtol=1e-6, atol=1e-6)
    assert model.coef_.shape == (3, 10)
    assert model.intercept_.shape == (3,)


@pytest.mark.parametrize("form", [np.asarray, csr_array])
def test_squared_with_many_features(form):
    """Beyond the number of features whose covariance is used."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((200, 1100)), rng.standard_normal(200)
    truth = Ridge(alpha=0.1 * 200).fit(X, y)
    model = LinearRegressor(solver="lbfgs", alpha=0.1).fit(form(X), y)
    np.testing.assert_allclose(model.predict(X), truth.predict(X), atol=1e-6)
    np.testing.assert_allclose(model.coef_, truth.coef_, atol=1e-6)


def test_single_precision():
    X, y = rows("diabetes")
    truth = Ridge(alpha=1e-3 * len(y)).fit(X, y)
    for form in np.asarray, csr_array:
        model = LinearRegressor(solver="lbfgs", alpha=1e-3).fit(form(X.astype(np.float32)), y)
        assert model.coef_.dtype == model.intercept_.dtype == model.predict(X.astype(np.float32)).dtype == np.float32
        np.testing.assert_allclose(model.coef_, truth.coef_, rtol=1e-3, atol=1e-3)
        assert model.predict(X).dtype == np.float64


# ------------------------------------------------------------------------------------------------- absolute, Huber


@pytest.mark.parametrize("form", [np.asarray, csr_array])
@pytest.mark.parametrize("outliers", [False, True])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_absolute_is_the_median_regression(fit_intercept, outliers, form):
    X, y = small(outliers=outliers)
    truth = QuantileRegressor(quantile=0.5, alpha=0, solver="highs", fit_intercept=fit_intercept).fit(X, y)
    model = LinearRegressor(solver="lbfgs", loss="absolute", alpha=0.0, fit_intercept=fit_intercept, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(form(X), y)
    best = objective(with_coef(model, truth.coef_, truth.intercept_), X, y)
    assert best * (1 - 1e-9) <= objective(model, X, y) <= best * (1 + 1e-4)
    np.testing.assert_allclose(model.loss_curve_[-1], objective(model, X, y), rtol=1e-9)


@pytest.mark.parametrize("alpha", [1e-3, 0.1, 1.0])
def test_absolute_with_a_penalty_is_a_support_vector_regression(alpha):
    X, y = small(outliers=True)
    truth = SVR(kernel="linear", epsilon=0, C=1 / (alpha * len(y)), tol=1e-8).fit(X, y)
    model = LinearRegressor(solver="lbfgs", loss="absolute", alpha=alpha, max_iter=1000).fit(X, y)
    best = objective(with_coef(model, truth.coef_[0], truth.intercept_[0]), X, y)
    np.testing.assert_allclose(objective(model, X, y), best, rtol=1e-4)


def test_absolute_without_features_that_matter_is_a_median():
    y = np.random.default_rng(0).exponential(size=201)
    model = LinearRegressor(solver="lbfgs", loss="absolute").fit(np.zeros((201, 2)), y)
    np.testing.assert_allclose(model.intercept_, np.median(y), atol=0.02)
    assert not model.coef_.any()


def scipy_huber(model, X, y, weight):
    """The optimum of the documented objective, for one target."""
    w = np.ones(len(y)) if weight is None else weight
    w = w / w.sum()

    def function(x):
        intercept = x[-1] * model.fit_intercept
        p = X @ x[:-1] + intercept
        grad = naive.huber_grad(p, y, sample_weight=w, delta=model.delta)
        value = objective(with_coef(model, x[:-1], intercept), X, y, weight)
        return value, np.r_[X.T @ grad + model.alpha * x[:-1], grad.sum() * model.fit_intercept]

    options = {"maxiter": 20_000, "maxfun": 10**6, "ftol": 1e-15, "gtol": 1e-10}
    return minimize(function, np.zeros(X.shape[1] + 1), jac=True, method="L-BFGS-B", options=options)


@pytest.mark.parametrize("form", [np.asarray, csr_array])
@pytest.mark.parametrize("delta", [1e-2, 1.0, 1e3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_huber_reaches_the_optimum_of_scipy(fit_intercept, weighted, delta, form):
    X, y = small(outliers=True)
    weight = np.random.default_rng(1).random(len(y)) if weighted else None
    model = LinearRegressor(
        solver="lbfgs", loss="huber", delta=delta, alpha=1e-3, tol=1e-6, fit_intercept=fit_intercept, max_iter=1000
    ).fit(form(X), y, weight)
    best = scipy_huber(model, X, y, weight)
    assert objective(model, X, y, weight) <= best.fun * (1 + 1e-7)
    np.testing.assert_allclose(model.coef_, best.x[:-1], atol=1e-3)
    np.testing.assert_allclose(model.loss_curve_[-1], objective(model, X, y, weight), rtol=1e-9)


def test_huber_and_absolute_do_not_follow_outliers():
    X, clean = small()
    y = small(outliers=True)[1]
    truth = LinearRegression().fit(X, clean).intercept_
    models = {loss: LinearRegressor(solver="lbfgs", loss=loss, max_iter=1000).fit(X, y) for loss in LOSSES}
    assert abs(models["huber"].intercept_ - truth) < 0.3
    assert abs(models["absolute"].intercept_ - truth) < 0.3
    assert abs(models["squared"].intercept_ - truth) > 5


def test_huber_is_between_squared_and_absolute():
    X, y = small()
    settings = {"solver": "lbfgs", "tol": 1e-7, "max_iter": 1000}
    squared = LinearRegressor(**settings).fit(X, y)
    wide = LinearRegressor(loss="huber", delta=1e6, **settings).fit(X, y)
    np.testing.assert_allclose(wide.coef_, squared.coef_, rtol=1e-6)
    absolute = LinearRegressor(loss="absolute", alpha=1e-4, **settings).fit(X, y)
    narrow = LinearRegressor(loss="huber", delta=1e-4, alpha=1e-8, **settings).fit(X, y)
    np.testing.assert_allclose(narrow.loss_curve_[-1] / 1e-4, absolute.loss_curve_[-1], rtol=1e-3)


# ------------------------------------------------------------------------------------------------- units


@pytest.mark.parametrize("unit", [2.0**-400, 1e-8, 1e8, 2.0**400])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.filterwarnings(UNFINISHED)
def test_the_unit_of_the_target_does_not_matter(loss, solver, unit):
    """A target in another unit, with ``delta`` and ``alpha`` in theirs, has the same fit in that unit."""
    X, y = small(outliers=True)
    settings = {"loss": loss, "solver": solver, "random_state": 0, "max_iter": 300}
    expected = LinearRegressor(delta=2.0, alpha=1e-3, **settings).fit(X, y)
    alpha = 1e-3 / unit if loss == "absolute" else 1e-3
    model = LinearRegressor(delta=2.0 * unit, alpha=alpha, **settings).fit(X, y * unit)
    if loss == "absolute" and solver == "lbfgs":  # whose optimum may be an edge: rounding decides the way along it
        np.testing.assert_allclose(model.loss_curve_[-1] / unit, expected.loss_curve_[-1], rtol=1e-5)
        return
    np.testing.assert_allclose(model.coef_ / unit, expected.coef_, rtol=1e-6)
    np.testing.assert_allclose(model.intercept_ / unit, expected.intercept_, rtol=1e-6)
    in_unit = unit if loss == "absolute" else unit**2
    np.testing.assert_allclose(np.array(model.loss_curve_) / in_unit, expected.loss_curve_, rtol=1e-6)
    assert model.n_iter_ == expected.n_iter_


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_targets(dtype, loss, solver):
    X, _ = small()
    for value in 0.0, 5.0, -1e30:
        for shape in (120,), (120, 2):
            model = LinearRegressor(loss=loss, solver=solver, random_state=0)
            model.fit(X.astype(dtype), np.full(shape, value))
            np.testing.assert_allclose(model.predict(X), np.full(shape, value), rtol=1e-6)
            np.testing.assert_allclose(model.coef_, 0, atol=1e-6 * abs(value))


@pytest.mark.parametrize("kind", [np.int64, np.int8, bool, np.float16, np.float32, ">f8"])
def test_targets_of_any_number(kind):
    X, y = small()
    y = (np.abs(y) > 2).astype(kind)
    model, expected = (LinearRegressor(solver="lbfgs").fit(X, t) for t in (y, y.astype(float)))
    np.testing.assert_array_equal(model.coef_, expected.coef_)
    assert model.predict(X).dtype == np.float64


def test_targets_may_be_lists_and_frames():
    pd = pytest.importorskip("pandas")
    X, Y = small(n_targets=2)
    frame = pd.DataFrame(X, columns=list("abcde"))
    expected = LinearRegressor(solver="lbfgs").fit(X, Y)
    for target in Y.tolist(), pd.DataFrame(Y, columns=["u", "v"]), np.asfortranarray(Y):
        model = LinearRegressor(solver="lbfgs").fit(frame, target)
        np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-12)
    assert model.feature_names_in_.tolist() == list("abcde")
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[list("edcba")])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.filterwarnings(UNFINISHED)
def test_shapes(solver):
    """Those of scikit-learn's LinearRegression."""
    for n_targets in None, 1, 3:
        X, y = small(n_targets=n_targets)
        truth = LinearRegression().fit(X, y)
        for X_form in X, csr_array(X):
            model = LinearRegressor(solver=solver, max_iter=5).fit(X_form, y)
            assert model.coef_.shape == truth.coef_.shape
            assert np.shape(model.intercept_) == np.shape(truth.intercept_)
            assert model.predict(X_form).shape == truth.predict(X).shape == y.shape
            np.testing.assert_allclose(model.predict(X), X @ model.coef_.T + model.intercept_, rtol=1e-12)


# ------------------------------------------------------------------------------------------------- weights, penalties


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("loss", ["squared", "huber"])
def test_weight_zero_is_leaving_the_row_out(loss, sparse):
    X, y = small(outliers=True)
    weight = np.random.default_rng(1).integers(0, 3, len(y)).astype(float)
    y[weight == 0] = 1e6  # their unit must not count either
    form = csr_array if sparse else np.asarray
    model = LinearRegressor(solver="lbfgs", loss=loss, tol=1e-9, max_iter=1000)
    with_zeros = model.fit(form(X), y, weight).coef_
    without = model.fit(form(X[weight > 0]), y[weight > 0], weight[weight > 0]).coef_
    np.testing.assert_allclose(with_zeros, without, atol=1e-7)
    repeated = np.repeat(np.arange(len(y)), weight.astype(int))
    np.testing.assert_allclose(with_zeros, model.fit(form(X[repeated]), y[repeated]).coef_, atol=1e-7)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.filterwarnings(UNFINISHED)
def test_only_ratios_of_weights_matter(solver, loss):
    X, y = small()
    weight = np.random.default_rng(1).random(len(y))
    models = [
        LinearRegressor(solver=solver, loss=loss, max_iter=20, random_state=0).fit(X, y, weight * factor).coef_
        for factor in (1.0, 2.0**40, 2.0**1023)
    ]
    np.testing.assert_allclose(models[1:], [models[0]] * 2, rtol=1e-9)


@pytest.mark.parametrize("unit", [1.0, 1e3])
@pytest.mark.parametrize("n_targets", [None, 3])
def test_elastic_net_has_real_zeros_at_its_optimum(n_targets, unit):
    X, y = small(d=12, n_targets=n_targets)
    y = y * unit
    l2, l1 = 0.1, 0.9 * unit
    alpha, l1_ratio = l1 + l2, l1 / (l1 + l2)
    model = LinearRegressor(
        optimizer=SGD(0.3), batch_size=None, alpha=alpha, l1_ratio=l1_ratio, max_iter=5000, tol=1e-13
    ).fit(X, y)
    zero = model.coef_ == 0
    residual = model.predict(X) - y
    grad = residual.T @ X / len(y) + l2 * model.coef_
    assert 0.1 < zero.mean() < 0.95
    assert np.abs(grad[zero]).max() <= l1 * (1 + 1e-5)  # the subgradient holds 0
    np.testing.assert_allclose(grad[~zero], -l1 * np.sign(model.coef_[~zero]), rtol=1e-4)
    np.testing.assert_allclose(residual.mean(axis=0), 0, atol=1e-4 * unit)
    np.testing.assert_allclose(model.loss_curve_[-1], objective(model, X, y), rtol=1e-6)


# ------------------------------------------------------------------------------------------------- the path


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.filterwarnings(UNFINISHED)
def test_threads_do_not_change_a_bit(loss, sparse, solver, monkeypatch):
    X, y = small(n=1500, d=30, n_targets=2)
    X = csr_array(X) if sparse else X
    for small_step in (0, 10**9) if solver == "minibatch" else (0,):
        monkeypatch.setattr(Problem, "kernel_limit", small_step)
        settings = {"solver": solver, "loss": loss, "max_iter": 6, "random_state": 3, "batch_size": 300}
        first, *others = (LinearRegressor(n_jobs=n, **settings).fit(X, y) for n in (1, 2, 16))
        for other in others:
            np.testing.assert_array_equal(other.coef_, first.coef_)
            np.testing.assert_array_equal(other.intercept_, first.intercept_)
            assert other.loss_curve_ == first.loss_curve_


@pytest.mark.parametrize("optimizer", ["adam", "sgd", Adam(0.03), SGD(lambda step: 0.2 / (1 + 0.01 * step))])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("form", [np.asarray, csr_array])
@pytest.mark.filterwarnings(UNFINISHED)
def test_minibatches_come_near_the_optimum(form, loss, optimizer):
    X, y = small(n=400)
    best = objective(LinearRegressor(solver="lbfgs", loss=loss, alpha=1e-3, max_iter=1000).fit(X, y), X, y)
    model = LinearRegressor(
        loss=loss, optimizer=optimizer, alpha=1e-3, batch_size=64, max_iter=500, tol=1e-7, random_state=0
    ).fit(form(X), y)
    bound = 1.1 if loss == "absolute" else 1.02  # steps along a sign do not become shorter near the optimum
    assert best * (1 - 1e-4) <= objective(model, X, y) < best * bound


@pytest.mark.parametrize("in_threads", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.filterwarnings(UNFINISHED)
def test_steps_are_those_of_the_definition(loss, in_threads, monkeypatch):
    """Plain gradient descent of the naive objective for targets of mean 0 and variance 1."""
    monkeypatch.setattr(Problem, "kernel_limit", 0 if in_threads else 10**9)
    X, y = small()
    y = (y - y.mean()) / y.std()
    model = LinearRegressor(
        loss=loss, delta=0.5, optimizer=SGD(0.3), batch_size=None, alpha=0.01, max_iter=5, tol=0, n_iter_no_change=9
    ).fit(X, y)
    grads = {"squared": naive.squared_error_grad, "absolute": naive.absolute_error_grad}
    grad = grads.get(loss, lambda p, t: naive.huber_grad(p, t, delta=0.5))
    coef, intercept = np.zeros(5), 0.0
    for _ in range(5):
        g = grad(X @ coef + intercept, y) / len(y)
        coef, intercept = coef - 0.3 * (X.T @ g + 0.01 * coef), intercept - 0.3 * g.sum()
    np.testing.assert_allclose(model.coef_, coef, rtol=1e-9)
    np.testing.assert_allclose(model.intercept_, intercept, atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.filterwarnings(UNFINISHED)
def test_early_stopping_keeps_the_best_on_held_out_rows(loss, solver):
    X, y = small(n=200, d=120)
    weight = np.random.default_rng(1).random(200)
    model = LinearRegressor(
        solver=solver, loss=loss, optimizer=Adam(0.05), alpha=0, tol=0, batch_size=16, random_state=5,
        early_stopping=True, validation_fraction=0.25, n_iter_no_change=3,
    ).fit(X, 10 * y, weight)  # fmt: skip
    _, held_out = split_rows(200, None, 0.25, np.random.RandomState(5))
    curve = model.validation_loss_curve_
    assert len(curve) == len(model.loss_curve_) == model.n_iter_
    if loss != "squared" or solver == "minibatch":  # L-BFGS has the squared optimum in a few iterations
        assert np.argmin(curve) == len(curve) - 4
    loss_there = objective(model, X[held_out], 10 * y[held_out], weight[held_out])
    np.testing.assert_allclose(loss_there, min(curve), rtol=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("settings", [{"max_iter": 1, "tol": 0}, {"solver": "lbfgs", "max_iter": 1, "tol": 1e-9}])
def test_convergence_warning_points_to_the_caller(settings, loss):
    X, y = small(d=5 if loss != "squared" else 1500, outliers=True)  # fewer features take one iteration
    with pytest.warns(ConvergenceWarning, match=r"LinearRegressor .*(max_iter)") as caught:
        model = LinearRegressor(loss=loss, **settings).fit(X, y)
    assert [Path(w.filename) for w in caught] == [Path(__file__)]
    assert model.n_iter_ == len(model.loss_curve_) == 1


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("outliers", [False, True])
def test_no_warning_where_it_converged(outliers, loss):
    X, y = small(outliers=outliers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for dtype in np.float32, np.float64:
            for form in np.asarray, csr_array:
                rows = form(X.astype(dtype))
                model = LinearRegressor(solver="lbfgs", loss=loss, warm_start=True, max_iter=1000)
                assert (np.diff(model.fit(rows, y).loss_curve_) <= 0).all() or loss == "absolute"
                model.fit(rows, y)
                LinearRegressor(loss=loss, random_state=0, max_iter=1000).fit(rows, y)


@pytest.mark.parametrize("form", [np.asarray, csr_array])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("ignore::RuntimeWarning", UNFINISHED)
def test_features_of_any_scale_fit_or_say_so(dtype, loss, form):
    X, y = small()
    message = "diverged.*Lower the learning rate or scale the features|X has values too large for solver='lbfgs'"
    for scale in (1e-10, 1e10, 1e30, 2e37) if dtype == np.float32 else (1e-100, 1e10, 1e100, 1e200, 1e300):
        rows = form((scale * X).astype(dtype))
        model = LinearRegressor(solver="lbfgs", loss=loss, alpha=0.0, max_iter=1000)
        try:
            score, caught = model.fit(rows, y).score(rows, y), None
        except ValueError as error:
            score, caught = None, str(error)
        if score is None:
            assert scale > 1e35
            assert re.search(message, caught)
            assert not hasattr(model, "coef_")
        else:
            assert scale < 1e110
            assert score > 0.9
        if scale > 1:
            with pytest.raises(ValueError, match=message):
                LinearRegressor(loss=loss, optimizer=SGD(0.1), alpha=0.0, max_iter=5).fit(rows, y)


@pytest.mark.filterwarnings("ignore::RuntimeWarning", UNFINISHED)
@pytest.mark.parametrize("loss", LOSSES)
def test_divergence_leaves_the_estimator_as_it_was(loss):
    X, y = small()
    model = LinearRegressor(loss=loss, max_iter=3).fit(X, y).set_params(optimizer=SGD(1e300))
    before = dict(vars(model))
    for method in model.fit, model.partial_fit:
        with pytest.raises(ValueError, match=r"LinearRegressor diverged.*Lower the learning rate"):
            method(X, y)
        assert vars(model) == before


@pytest.mark.filterwarnings(UNFINISHED)
def test_verbose(capsys):
    X, y = small()
    for settings in {}, {"solver": "lbfgs"}, {"solver": "lbfgs", "loss": "absolute"}:
        model = LinearRegressor(verbose=1, **settings).fit(X, 1000 * y)
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == model.n_iter_
        assert lines[0] == f"LinearRegressor: iteration 1, loss {model.loss_curve_[0]:.6f}"


# ------------------------------------------------------------------------------------------------- going on


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("n_targets", [None, 1, 3])
def test_warm_start(n_targets, loss):
    X, y = small(n_targets=n_targets)
    model = LinearRegressor(solver="lbfgs", loss=loss, warm_start=True, max_iter=1000).fit(X, y)
    first, coef = model.n_iter_, model.coef_
    if loss != "absolute":  # which begins with a wide Huber loss again
        assert model.fit(X, y).n_iter_ <= min(first, 2)
    model.fit(csr_array(X), y)
    np.testing.assert_allclose(model.coef_, coef, atol=5e-3 if loss == "absolute" else 1e-3)
    settings = {"optimizer": SGD(0.1), "shuffle": False, "tol": 0, "batch_size": 16, "loss": loss}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        whole = LinearRegressor(max_iter=6, **settings).fit(X, y)
        parts = LinearRegressor(max_iter=3, warm_start=True, **settings).fit(X, y).fit(X, y)
        moved = LinearRegressor(max_iter=3, warm_start=True, **settings).fit(X, y).fit(X, 2 * y + 5)
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-9)
    np.testing.assert_allclose(parts.intercept_, whole.intercept_, rtol=1e-9)
    assert np.isfinite(moved.coef_).all()


@pytest.mark.filterwarnings(UNFINISHED)
def test_warm_start_refuses_other_targets_and_features():
    X, y = small(n_targets=2)
    model = LinearRegressor(warm_start=True).fit(X, y)
    before = dict(vars(model))
    for target in y[:, 0], y[:, :1], np.hstack([y, y]):
        with pytest.raises(ValueError, match="warm_start needs the same targets"):
            model.fit(X, target)
    with pytest.raises(ValueError, match="warm_start needs the same features: X has 4, the last fit 5"):
        model.fit(X[:, :4], y)
    assert vars(model) == before


@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.9), Adam(0.05)])
@pytest.mark.parametrize("n_targets", [None, 2])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.filterwarnings(UNFINISHED)
def test_partial_fits_are_the_epochs_of_fit(sparse, loss, n_targets, optimizer):
    X, y = small(n_targets=n_targets)
    X = csr_array(X) if sparse else X
    weight = np.random.default_rng(1).random(len(y))
    settings = {
        "optimizer": optimizer,
        "batch_size": 16,
        "shuffle": False,
        "alpha": 0.01,
        "l1_ratio": 0.5,
        "loss": loss,
    }
    whole = LinearRegressor(max_iter=5, tol=0, n_iter_no_change=10, **settings).fit(X, y, weight)
    parts = LinearRegressor(**settings)
    for call in range(5):
        assert parts.partial_fit(X, y, sample_weight=weight) is parts
        assert parts.n_iter_ == call + 1
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(parts.intercept_, whole.intercept_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(parts.loss_curve_, whole.loss_curve_, rtol=1e-9)


def test_a_stream_of_batches():
    X, y = small(n=600)
    model = LinearRegressor(random_state=0, optimizer=Adam(0.05))
    forms = [np.asarray, csr_array, csc_array]
    for epoch in range(5):
        for first in range(0, 600, 20):
            part = slice(first, first + 20)
            model.partial_fit(forms[epoch % 3](X[part]), y[part])
    assert model.score(X, y) > 0.85
    one = LinearRegressor().partial_fit(X[:1], y[:1])
    assert np.isfinite(one.partial_fit(X, y).coef_).all()


def test_later_targets_have_the_shape_of_the_first():
    X, y = small(n_targets=2)
    model = LinearRegressor().partial_fit(X, y)
    before = dict(vars(model))
    for target in y[:, 0], y[:, :1], np.hstack([y, y]):
        with pytest.raises(ValueError, match=r"y has shape .*, but earlier calls had 2 target\(s\)"):
            model.partial_fit(X, target)
        assert vars(model) == before


@pytest.mark.filterwarnings(UNFINISHED)
def test_going_on_after_fit_begins_with_fresh_moments():
    X, y = small()
    settings = {"shuffle": False, "optimizer": Adam(0.05), "max_iter": 5}
    model = LinearRegressor(**settings).partial_fit(X[:, :2], y).fit(X, y).partial_fit(X, y)
    np.testing.assert_array_equal(model.coef_, LinearRegressor(**settings).fit(X, y).partial_fit(X, y).coef_)
    model.set_params(solver="lbfgs")
    assert not hasattr(model, "partial_fit")


# ------------------------------------------------------------------------------------------------- company


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.filterwarnings(UNFINISHED)
def test_copies(loss, solver):
    X, y = small()
    model = LinearRegressor(solver=solver, loss=loss, max_iter=10, random_state=0).fit(X, y)
    for twin in copy.deepcopy(model), pickle.loads(pickle.dumps(model)), clone(model).fit(X, y):
        np.testing.assert_array_equal(twin.coef_, model.coef_)
        np.testing.assert_array_equal(twin.predict(X), model.predict(X))
    assert not hasattr(clone(model), "coef_")


@pytest.mark.filterwarnings(UNFINISHED)
def test_searches_and_pipelines():
    X, y = small(outliers=True)
    model = make_pipeline(StandardScaler(), LinearRegressor(optimizer=Adam(), max_iter=30, random_state=0))
    grid = {"linearregressor__optimizer__learning_rate": [1e-6, 0.1], "linearregressor__loss": ["squared", "huber"]}
    search = GridSearchCV(model, grid, cv=3, scoring="neg_median_absolute_error").fit(X, y)
    assert search.best_params_["linearregressor__optimizer__learning_rate"] == 0.1
    X, y = small(n_targets=2)
    assert cross_val_score(LinearRegressor(solver="lbfgs"), X, y).mean() > 0.8
    model.fit(X, y, linearregressor__sample_weight=np.ones(len(y)))
    np.testing.assert_array_equal(model.predict(X), model.fit(X, y).predict(X))
