"""SoftmaxClassifier's fit: the optimum it finds, the path it takes there, and what it says on the way."""

import warnings
from pathlib import Path

import naive
import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fastml import SoftmaxClassifier
from fastml.estimators._targets import split_rows
from fastml.optim import SGD, Adam
from fastml.training.problem import Problem

UNFINISHED = "ignore::sklearn.exceptions.ConvergenceWarning"


def digits(n=300, classes=(0, 1, 2, 3), dtype=np.float64):
    X, y = load_digits(return_X_y=True)
    kept = np.isin(y, classes)
    return StandardScaler().fit_transform(X[kept][:n]).astype(dtype), y[kept][:n]


def small(n=60, d=5, n_classes=3, seed=0, dtype=np.float64):
    """Overlapping classes."""
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)).astype(dtype), rng.permutation(np.arange(n) % n_classes)
    X[:, 0] += y
    return X, y


def full(model):
    """Coefficients and intercepts of all classes; two classes have theirs in one row."""
    if len(model.classes_) > 2:
        return model.coef_, model.intercept_
    return np.vstack([-model.coef_, model.coef_]) / 2, np.concatenate([-model.intercept_, model.intercept_]) / 2


def objective(model, X, target, alpha, sample_weight=None, label_smoothing=0.0, l1_ratio=0.0):
    """Mean loss plus penalties of ``coef_`` as it is documented."""
    w = np.ones(X.shape[0]) if sample_weight is None else sample_weight
    loss = naive.linear_softmax_cross_entropy(X, *full(model), target, sample_weight=w, label_smoothing=label_smoothing)
    coef = np.asarray(model.coef_, np.float64)
    penalty = (1 - l1_ratio) / 2 * (coef**2).sum() + l1_ratio * np.abs(coef).sum()
    return loss.sum() / w.sum() + alpha * penalty


DATA = {
    "iris": lambda: load_iris(return_X_y=True),
    "breast cancer": lambda: (StandardScaler().fit_transform(load_breast_cancer().data), load_breast_cancer().target),
    "digits": digits,
}


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("weights", ["none", "sample_weight", "balanced", "dict and sample_weight"])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("name", DATA)
def test_lbfgs_reaches_the_optimum_of_logistic_regression(name, fit_intercept, weights, sparse):
    X, y = DATA[name]()
    alpha, weight, class_weight = 3e-3, None, None
    if "sample_weight" in weights:
        weight = np.random.default_rng(0).random(len(y)) * 3
    if weights == "balanced":
        class_weight, X, y = "balanced", X[20:], y[20:]
    elif "dict" in weights:
        class_weight = {0: 2.5, 1: 0.5}
    total = np.ones(len(y)) if weight is None else weight
    if class_weight == "balanced":
        total = total * (len(y) / len(np.unique(y)) / np.bincount(y))[y]
    elif class_weight:
        total = total * np.array([class_weight.get(label, 1) for label in y])
    truth = LogisticRegression(
        C=1 / (alpha * total.sum()), solver="newton-cholesky", tol=1e-12, max_iter=1000,
        fit_intercept=fit_intercept, class_weight=class_weight,
    ).fit(X, y, weight)  # fmt: skip
    model = SoftmaxClassifier(
        solver="lbfgs", alpha=alpha, tol=1e-7, max_iter=5000, fit_intercept=fit_intercept, class_weight=class_weight
    ).fit(csr_array(X) if sparse else X, y, weight)
    assert model.coef_.shape == truth.coef_.shape
    np.testing.assert_allclose(objective(model, X, y, alpha, total), objective(truth, X, y, alpha, total), rtol=1e-6)
    np.testing.assert_allclose(model.coef_, truth.coef_, atol=1e-3)
    np.testing.assert_allclose(model.intercept_, truth.intercept_, atol=1e-3 if name != "iris" else 5e-3)
    np.testing.assert_allclose(model.loss_curve_[-1], objective(model, X, y, alpha, total), rtol=1e-9)
    np.testing.assert_allclose(model.predict_proba(X), truth.predict_proba(X), atol=1e-4)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_weight_zero_is_leaving_the_row_out(n_classes, sparse):
    X, y = small(n_classes=n_classes)
    weight = np.random.default_rng(1).integers(0, 3, len(y)).astype(float)
    kind = csr_array if sparse else np.asarray
    model = SoftmaxClassifier(solver="lbfgs", alpha=0.01, tol=1e-9)
    with_zeros = model.fit(kind(X), y, weight).coef_
    without = model.fit(kind(X[weight > 0]), y[weight > 0], weight[weight > 0]).coef_
    np.testing.assert_allclose(with_zeros, without, atol=1e-7)
    repeated = np.repeat(np.arange(len(y)), weight.astype(int))
    np.testing.assert_allclose(with_zeros, model.fit(kind(X[repeated]), y[repeated]).coef_, atol=1e-7)


@pytest.mark.filterwarnings(UNFINISHED)
def test_only_ratios_of_weights_matter():
    X, y = small()
    weight = np.random.default_rng(1).random(len(y))
    for solver in "lbfgs", "minibatch":
        models = [
            SoftmaxClassifier(solver=solver, max_iter=20, random_state=0).fit(X, y, weight * factor).coef_
            for factor in (1.0, 2.0**40, 2.0**1023)
        ]
        np.testing.assert_allclose(models[1:], [models[0]] * 2, rtol=1e-12)
    np.testing.assert_array_equal(
        SoftmaxClassifier(random_state=0).fit(X, y, 2.0).coef_, SoftmaxClassifier(random_state=0).fit(X, y).coef_
    )


@pytest.mark.filterwarnings(UNFINISHED)
@pytest.mark.parametrize("solver", ["lbfgs", "minibatch"])
def test_class_weight_is_a_sample_weight(solver):
    X, y = small()
    settings = {"solver": solver, "max_iter": 30, "random_state": 0}
    given = SoftmaxClassifier(class_weight={0: 1, 1: 2, 2: 0.5}, **settings).fit(X, y).coef_
    expected = SoftmaxClassifier(**settings).fit(X, y, np.array([1, 2, 0.5])[y]).coef_
    np.testing.assert_allclose(given, expected, rtol=1e-9)
    soft = np.eye(3)[y]
    np.testing.assert_allclose(
        SoftmaxClassifier(class_weight={0: 1, 1: 2, 2: 0.5}, **settings).fit(X, soft).coef_, expected, rtol=1e-9
    )
    y = np.where(np.arange(len(y)) < 40, 0, y)
    balanced = SoftmaxClassifier(class_weight="balanced", **settings).fit(X, y).coef_
    expected = SoftmaxClassifier(**settings).fit(X, y, 1 / np.bincount(y)[y]).coef_
    np.testing.assert_allclose(balanced, expected, rtol=1e-9)


# ------------------------------------------------------------------------------------- the path of mini-batches

OPTIMIZERS = {
    "sgd": (SGD(0.1), naive.sgd, {}),
    "momentum": (SGD(0.1, momentum=0.9), naive.sgd, {"momentum": 0.9}),
    "nesterov": (SGD(0.1, momentum=0.9, nesterov=True), naive.sgd, {"momentum": 0.9, "nesterov": True}),
    "adam": (Adam(0.05, beta_1=0.8), naive.adam, {"beta_1": 0.8}),
    "all": (
        SGD(lambda step: 0.2 / (1 + step), momentum=0.5, weight_decay=0.01, max_grad_norm=0.3),
        naive.sgd,
        {"momentum": 0.5, "weight_decay": 0.01, "max_grad_norm": 0.3},
    ),
}


def trajectory(name, X, target, n_classes, n_epochs, batch_size, alpha=0.01, l1_ratio=0.0, **options):
    """The same training in plain NumPy: the trainer and the losses of its epochs."""
    optimizer, rule, settings = OPTIMIZERS[name]
    size = len(X) if batch_size is None else batch_size
    l2 = alpha * (1 - l1_ratio) * (2 if n_classes == 2 else 1)
    truth = naive.SoftmaxTraining(
        X, target, n_classes, rule, optimizer.learning_rate,
        batch_size=size, l2=l2, l1=alpha * l1_ratio, **settings, **options,
    )  # fmt: skip
    return truth, [truth.epoch(np.arange(len(X))) for _ in range(n_epochs)]


def compare(model, truth, losses, rtol=1e-10):
    coef, intercept = truth.W, truth.b
    if len(model.classes_) == 2:
        coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
    np.testing.assert_allclose(model.coef_, coef, rtol=rtol, atol=1e-10)
    np.testing.assert_allclose(model.intercept_, intercept, rtol=rtol, atol=1e-10)
    np.testing.assert_allclose(model.loss_curve_, losses, rtol=rtol)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    ("batch_size", "in_threads"), [(1, False), *((size, t) for size in (7, 59, 10**9, None) for t in (False, True))]
)
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.filterwarnings(UNFINISHED)
def test_steps_are_those_of_the_definition(name, batch_size, sparse, in_threads, monkeypatch):
    monkeypatch.setattr(Problem, "kernel_limit", 0 if in_threads else 10**9)
    for n_classes in 2, 3:
        X, y = small(n_classes=n_classes)
        weight = np.random.default_rng(1).random(len(y))
        truth, losses = trajectory(name, X, y, n_classes, 4, batch_size, sample_weight=weight, label_smoothing=0.1)
        model = SoftmaxClassifier(
            optimizer=OPTIMIZERS[name][0], batch_size=batch_size, shuffle=False, alpha=0.01, max_iter=4, tol=0,
            label_smoothing=0.1, n_iter_no_change=10,
        ).fit(csr_array(X) if sparse else X, y, weight)  # fmt: skip
        compare(model, truth, losses)
        assert model.n_iter_ == len(model.loss_curve_) == 4


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adam"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.filterwarnings(UNFINISHED)
def test_same_as_pytorch(name, soft):
    torch = pytest.importorskip("torch")
    X, y = small()
    target = np.random.default_rng(2).dirichlet(np.ones(3), len(y)) if soft else y
    model = SoftmaxClassifier(
        optimizer=OPTIMIZERS[name][0], batch_size=16, shuffle=False, alpha=0.01, max_iter=5, tol=0, n_iter_no_change=10
    ).fit(X, target)
    W, b = torch.zeros(3, 5, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    parameters = [W.requires_grad_(), b.requires_grad_()]
    if name == "adam":
        theirs = torch.optim.Adam(parameters, lr=0.05, betas=(0.8, 0.999))
    else:
        nesterov = name == "nesterov"
        theirs = torch.optim.SGD(parameters, lr=0.1, momentum=0.9 * nesterov, nesterov=nesterov)
    for _ in range(5):
        for first in range(0, len(y), 16):
            theirs.zero_grad()
            rows = slice(first, first + 16)
            logits = torch.from_numpy(X[rows]) @ W.T + b
            loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(target[rows])) + 0.005 * (W**2).sum()
            loss.backward()
            theirs.step()
    np.testing.assert_allclose(model.coef_, W.detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(model.intercept_, b.detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sparse", [False, True])
def test_threads_and_seeds(sparse, monkeypatch):
    X, y = digits()
    X = csr_array(X) if sparse else X
    for solver, small_step in ("minibatch", 0), ("minibatch", 10**9), ("lbfgs", 0):
        monkeypatch.setattr(Problem, "kernel_limit", small_step)
        settings = {"solver": solver, "max_iter": 6, "random_state": 3, "batch_size": 100}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            first, *others = (SoftmaxClassifier(n_jobs=n, **settings).fit(X, y) for n in (1, 2, 16, -1, None, -(10**9)))
            for other in others:
                np.testing.assert_array_equal(other.coef_, first.coef_)
                assert other.loss_curve_ == first.loss_curve_
            changed = SoftmaxClassifier(**{**settings, "random_state": 4}).fit(X, y)
            assert np.array_equal(changed.coef_, first.coef_) == (solver == "lbfgs")
            state = SoftmaxClassifier(**{**settings, "random_state": np.random.RandomState(3)}).fit(X, y)
            np.testing.assert_array_equal(state.coef_, first.coef_)


# ------------------------------------------------------------------------------------------------- penalties


def elastic_net_optimum(X, y, alpha, l1_ratio, n_steps=20_000):
    """Accelerated proximal gradient (FISTA) on the documented objective: W (C, d) and b."""
    n, d, n_classes = *X.shape, y.max() + 1
    rate = 1 / (np.linalg.eigvalsh(np.c_[X, np.ones(n)].T @ np.c_[X, np.ones(n)] / n)[-1] / 2 + alpha)
    W, b, t = np.zeros((n_classes, d)), np.zeros(n_classes), 1.0
    V, c = W, b
    for _ in range(n_steps):
        _, W_grad, b_grad = naive.linear_softmax_cross_entropy_grad(X, V, c, y)
        W_grad = W_grad / n + alpha * (1 - l1_ratio) * V
        new_W, new_b = naive.shrink(V - rate * W_grad, rate * alpha * l1_ratio), c - rate * b_grad / n
        new_t = (1 + np.sqrt(1 + 4 * t * t)) / 2
        V, c = new_W + (t - 1) / new_t * (new_W - W), new_b + (t - 1) / new_t * (new_b - b)
        if max(np.abs(new_W - W).max(), np.abs(new_b - b).max()) < 1e-13:
            break
        W, b, t = new_W, new_b, new_t
    return W, b


@pytest.fixture(scope="module")
def lasso():
    """Data, settings and optimum."""
    X, y = digits(n=200)
    alpha, l1_ratio = 0.02, 0.7
    W, b = elastic_net_optimum(X, y, alpha, l1_ratio)
    truth = SoftmaxClassifier().fit(X, y)
    truth.coef_, truth.intercept_ = W, b
    return X, y, {"alpha": alpha, "l1_ratio": l1_ratio}, truth


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    "optimizer", [SGD(0.5), SGD(0.05, momentum=0.9), SGD(0.05, momentum=0.9, nesterov=True), Adam(0.03)]
)
def test_elastic_net_at_its_optimum(optimizer, sparse, lasso):
    """All rows a step, so that steps end at the optimum itself."""
    X, y, penalty, truth = lasso
    model = SoftmaxClassifier(
        optimizer=optimizer, batch_size=None, max_iter=4000, tol=1e-9, n_iter_no_change=50, **penalty
    ).fit(csr_array(X) if sparse else X, y)
    best = objective(truth, X, y, penalty["alpha"], l1_ratio=penalty["l1_ratio"])
    np.testing.assert_allclose(objective(model, X, y, **penalty), best, rtol=1e-5)
    assert 0.3 < (truth.coef_ == 0).mean() < 0.9
    assert ((model.coef_ == 0) == (truth.coef_ == 0)).mean() > 0.97
    np.testing.assert_allclose(model.coef_, truth.coef_, atol=0.01)


@pytest.mark.filterwarnings(UNFINISHED)
@pytest.mark.parametrize("optimizer", ["adam", "sgd", Adam(lambda step: 0.01 / (1 + 0.01 * step))])
def test_elastic_net_with_small_batches(optimizer, lasso):
    X, y, penalty, truth = lasso
    model = SoftmaxClassifier(optimizer=optimizer, batch_size=32, max_iter=400, tol=1e-6, random_state=0, **penalty)
    model.fit(X, y)
    best = objective(truth, X, y, **penalty)
    assert best <= objective(model, X, y, **penalty) < 1.02 * best
    assert abs((model.coef_ == 0).mean() - (truth.coef_ == 0).mean()) < 0.1


@pytest.mark.filterwarnings(UNFINISHED)
@pytest.mark.parametrize("name", ["momentum", "adam"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_elastic_net_steps(n_classes, name):
    X, y = small(n_classes=n_classes)
    penalty = {"alpha": 0.1, "l1_ratio": 0.6}
    truth, losses = trajectory(name, X, y, n_classes, 6, 16, **penalty)
    model = SoftmaxClassifier(
        optimizer=OPTIMIZERS[name][0], batch_size=16, shuffle=False, max_iter=6, tol=0, n_iter_no_change=10, **penalty
    ).fit(X, y)
    compare(model, truth, losses, rtol=1e-9)
    assert (model.coef_ == 0).any()
    assert model.intercept_.all()


@pytest.mark.filterwarnings(UNFINISHED)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_strong_l1_leaves_nothing_and_sparsify_keeps_predictions(n_classes):
    X, y = small(n_classes=n_classes)
    nothing = SoftmaxClassifier(alpha=100.0, l1_ratio=1.0, optimizer=SGD(0.001), random_state=0).fit(X, y)
    assert not nothing.coef_.any()
    model = SoftmaxClassifier(alpha=0.05, l1_ratio=1.0, random_state=0).fit(X, y)
    expected = [model.decision_function(X), model.predict_proba(X), model.predict(X), model.coef_]
    assert model.sparsify() is model
    assert model.coef_.format == "csr"
    assert model.coef_.nnz == np.count_nonzero(expected[3])
    for rows in X, csr_array(X):
        np.testing.assert_allclose(model.decision_function(rows), expected[0], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(model.predict_proba(rows), expected[1], rtol=1e-12)
        np.testing.assert_array_equal(model.predict(rows), expected[2])
    assert model.sparsify().coef_.format == "csr"
    twin = SoftmaxClassifier(alpha=0.05, l1_ratio=1.0, random_state=0).fit(X, y)
    np.testing.assert_array_equal(twin.partial_fit(X, y).coef_, model.partial_fit(X, y).coef_)
    model.set_params(warm_start=True).sparsify().fit(X, y)
    assert isinstance(model.densify().coef_, np.ndarray)


# ------------------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("soft", [False, True])
def test_optimum_with_smoothing_and_soft_targets(soft, n_classes, sparse):
    """The gradient of the naive objective vanishes where lbfgs stops."""
    X, y = small(n_classes=n_classes)
    target = np.random.default_rng(2).dirichlet(np.ones(n_classes), len(y)) if soft else y
    weight = np.random.default_rng(3).random(len(y))
    model = SoftmaxClassifier(solver="lbfgs", alpha=0.01, label_smoothing=0.2, tol=1e-9, max_iter=1000)
    model.fit(csr_array(X) if sparse else X, target, weight)
    W, b = full(model)
    _, W_grad, b_grad = naive.linear_softmax_cross_entropy_grad(
        X, W, b, target, sample_weight=weight / weight.sum(), label_smoothing=0.2
    )
    pair = 2 if n_classes == 2 else 1
    np.testing.assert_allclose(W_grad + pair * 0.01 * W, 0, atol=1e-7)
    np.testing.assert_allclose(b_grad, 0, atol=1e-7)
    np.testing.assert_allclose(
        model.loss_curve_[-1], objective(model, X, target, 0.01, weight, label_smoothing=0.2), rtol=1e-9
    )
    np.testing.assert_array_equal(model.classes_, np.arange(n_classes))


@pytest.mark.filterwarnings(UNFINISHED)
@pytest.mark.parametrize("solver", ["lbfgs", "minibatch"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_one_hot_targets_are_labels(n_classes, solver):
    X, y = small(n_classes=n_classes)
    settings = {"solver": solver, "max_iter": 15, "random_state": 0, "label_smoothing": 0.1}
    hard, soft = (SoftmaxClassifier(**settings).fit(X, target) for target in (y, np.eye(n_classes)[y]))
    np.testing.assert_allclose(soft.coef_, hard.coef_, rtol=1e-9)
    np.testing.assert_allclose(soft.loss_curve_, hard.loss_curve_, rtol=1e-12)
    assert soft.score(X, y) == hard.score(X, y)


def test_targets_that_miss_the_sum_of_one_within_tolerance():
    X, y = small(dtype=np.float32)
    target = np.full((60, 3), 0.333, np.float32)
    target[np.arange(60), y] += 0.0005
    model = SoftmaxClassifier(solver="lbfgs").fit(X, target)
    assert model.coef_.dtype == np.float32


# ------------------------------------------------------------------------------------------- stopping and telling


@pytest.mark.parametrize("solver", ["lbfgs", "minibatch"])
@pytest.mark.parametrize("soft", [False, True])
def test_early_stopping_keeps_the_best_on_held_out_rows(soft, solver):
    X, y = small(n=200, d=40, n_classes=4)
    target = np.random.default_rng(0).dirichlet(0.1 * np.ones(4), 200) if soft else y
    weight = np.random.default_rng(1).random(200)
    model = SoftmaxClassifier(
        solver=solver, optimizer=Adam(0.05), alpha=0, tol=0, batch_size=16, random_state=5,
        early_stopping=True, validation_fraction=0.25, n_iter_no_change=3,
    ).fit(X, target, weight)  # fmt: skip
    encoded = target if soft else np.unique(y, return_inverse=True)[1]
    strata = target.argmax(axis=1) if soft else encoded
    train, held_out = split_rows(200, strata, 0.25, np.random.RandomState(5))
    curve = model.validation_loss_curve_
    assert len(curve) == len(model.loss_curve_) == model.n_iter_ < 200
    assert np.argmin(curve) == len(curve) - 4
    w = weight[held_out]
    losses = naive.linear_softmax_cross_entropy(X[held_out], model.coef_, model.intercept_, target[held_out])
    np.testing.assert_allclose(w @ losses / w.sum(), min(curve), rtol=1e-9)
    np.testing.assert_array_equal(np.sort(np.r_[train, held_out]), np.arange(200))
    if not soft:
        np.testing.assert_allclose(np.bincount(y[held_out]), 50 / 4, atol=1)


def test_split_is_stratified_and_spares_single_rows():
    labels = np.array([0] * 80 + [1] * 16 + [2] * 4 + [3])
    train, held_out = split_rows(len(labels), labels, 0.25, np.random.RandomState(0))
    assert np.bincount(labels[held_out], minlength=4).tolist() == [21, 4, 1, 0]
    assert len(np.intersect1d(train, held_out)) == 0
    assert len(train) + len(held_out) == 101
    tiny = np.arange(6) % 3  # too few rows to hold out one of each class
    assert len(split_rows(len(tiny), tiny, 0.1, np.random.RandomState(0))[1]) == 1


def test_early_stopping_needs_weight_on_both_sides():
    X, y = small()
    weight = np.zeros(60)
    weight[0] = 1
    with pytest.raises(ValueError, match=r"sample_weight is 0 for all .* rows"):
        SoftmaxClassifier(early_stopping=True, random_state=0).fit(X, y, weight)


def test_patience_and_tolerance():
    X, y = small()
    model = SoftmaxClassifier(tol=1e9, n_iter_no_change=4).fit(X, y)
    assert model.n_iter_ == 5  # the first epoch always improves on infinity
    assert model.validation_loss_curve_ is None
    curve = SoftmaxClassifier(tol=1e-3, n_iter_no_change=2, random_state=0).fit(X, y).loss_curve_
    best = np.minimum.accumulate(np.r_[np.inf, curve[:-1]])
    stale = np.array(curve) >= best - 1e-3
    assert stale[-2:].all()
    assert not (stale[1:-1] & stale[:-2]).any()


@pytest.mark.parametrize("settings", [{"max_iter": 2, "tol": 0}, {"solver": "lbfgs", "max_iter": 2}])
def test_convergence_warning_points_to_the_caller(settings):
    X, y = small()
    with pytest.warns(ConvergenceWarning, match="SoftmaxClassifier .*max_iter") as caught:
        model = SoftmaxClassifier(**settings).fit(X, y)
    assert [Path(w.filename) for w in caught] == [Path(__file__)]
    assert model.n_iter_ == 2


def test_no_warning_where_it_converged():
    X, y = small()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for dtype in np.float32, np.float64:
            SoftmaxClassifier(solver="lbfgs").fit(X.astype(dtype), y)
            SoftmaxClassifier(random_state=0, max_iter=1000).fit(X.astype(dtype), y)
            SoftmaxClassifier(solver="lbfgs", warm_start=True).fit(X.astype(dtype), y).fit(X.astype(dtype), y)


DIVERGED = r"SoftmaxClassifier diverged.*Lower the learning rate or scale the features"


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("in_threads", [False, True])
@pytest.mark.parametrize("rate", [1e5, 1e300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("ignore::RuntimeWarning", UNFINISHED)
def test_divergence(dtype, rate, in_threads, sparse, monkeypatch):
    monkeypatch.setattr(Problem, "kernel_limit", 0 if in_threads else 10**9)
    X, y = small(dtype=dtype)
    X = csr_array(X) if sparse else X
    new, fitted = SoftmaxClassifier(optimizer=SGD(rate)), SoftmaxClassifier().fit(X, y)
    fitted.set_params(optimizer=SGD(rate))
    for model in new, fitted:
        before = dict(vars(model))
        with pytest.raises(ValueError, match=DIVERGED):
            model.fit(X, y)
        if rate > 1e200:  # otherwise the next call sees the loss that this one made
            with pytest.raises(ValueError, match=DIVERGED):
                model.partial_fit(X, y, classes=[0, 1, 2])
        assert vars(model) == before
    assert not hasattr(new, "coef_")


@pytest.mark.filterwarnings(UNFINISHED)
def test_verbose(capsys):
    X, y = small()
    SoftmaxClassifier().fit(X, y)
    assert capsys.readouterr().out == ""
    model = SoftmaxClassifier(verbose=1).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == model.n_iter_
    assert lines[0] == f"SoftmaxClassifier: iteration 1, loss {model.loss_curve_[0]:.6f}"
    model = SoftmaxClassifier(verbose=1, solver="lbfgs", early_stopping=True, random_state=0).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == model.n_iter_
    assert lines[-1].endswith(f", validation loss {model.validation_loss_curve_[-1]:.6f}")
    SoftmaxClassifier(verbose=1).partial_fit(X, y, classes=[0, 1, 2])
    assert len(capsys.readouterr().out.splitlines()) == 1


# ------------------------------------------------------------------------------------------------- warm starts


def test_warm_start_goes_on():
    X, y = small()
    settings = {"optimizer": SGD(0.1), "shuffle": False, "tol": 0, "batch_size": 16}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        whole = SoftmaxClassifier(max_iter=6, **settings).fit(X, y)
        parts = SoftmaxClassifier(max_iter=3, warm_start=True, **settings).fit(X, y).fit(X, y)
        cold = SoftmaxClassifier(max_iter=3, **settings).fit(X, y).fit(X, y)
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-12)
    np.testing.assert_allclose(parts.loss_curve_, whole.loss_curve_[3:], rtol=1e-12)
    np.testing.assert_allclose(cold.loss_curve_, whole.loss_curve_[:3], rtol=1e-12)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_warm_start_of_lbfgs(n_classes):
    X, y = small(n_classes=n_classes)
    model = SoftmaxClassifier(solver="lbfgs", warm_start=True, tol=1e-7).fit(X, y)
    first, coef = model.n_iter_, model.coef_
    assert model.fit(X, y).n_iter_ <= 2 < first
    np.testing.assert_allclose(model.coef_, coef, atol=1e-5)
    model.fit(csr_array(X), y)
    np.testing.assert_allclose(model.coef_, coef, atol=1e-5)


@pytest.mark.filterwarnings(UNFINISHED)
def test_warm_start_refuses_other_classes_and_features():
    X, y = small()
    model = SoftmaxClassifier(warm_start=True).fit(X, y)
    before = dict(vars(model))
    with pytest.raises(ValueError, match="warm_start needs the same classes"):
        model.fit(X, y + 1)
    with pytest.raises(ValueError, match="warm_start needs the same features: X has 4, the last fit 5"):
        model.fit(X[:, :4], y)
    assert vars(model) == before
