"""SoftmaxClassifier.partial_fit: an epoch a call, and nothing forgotten between calls."""

import copy
import pickle

import numpy as np
import pytest
from scipy.sparse import coo_array, csc_array, csr_array
from sklearn.base import clone

from fastml import SoftmaxClassifier
from fastml.optim import SGD, Adam

OPTIMIZERS = {
    "sgd": SGD(lambda step: 0.3 / (1 + step)),
    "nesterov": SGD(0.1, momentum=0.9, nesterov=True),
    "adam": Adam(0.05),
}


def small(n_classes=3, n=60, d=5, seed=0):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)), rng.permutation(np.arange(n) % n_classes)
    X[:, 0] += y
    return X, y


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("l1_ratio", [0.0, 0.5])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_calls_are_the_epochs_of_fit(l1_ratio, name, n_classes, sparse):
    X, y = small(n_classes)
    weight = np.random.default_rng(1).random(len(y))
    settings = {"optimizer": OPTIMIZERS[name], "batch_size": 16, "shuffle": False, "alpha": 0.01, "l1_ratio": l1_ratio}
    rows = csr_array(X) if sparse else X
    whole = SoftmaxClassifier(max_iter=5, tol=0, n_iter_no_change=10, **settings).fit(rows, y, weight)
    parts = SoftmaxClassifier(**settings)
    for call in range(5):
        classes = range(n_classes) if call == 0 else None
        assert parts.partial_fit(rows, y, classes=classes, sample_weight=weight) is parts
        assert parts.n_iter_ == call + 1
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(parts.intercept_, whole.intercept_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(parts.loss_curve_, whole.loss_curve_, rtol=1e-10)
    np.testing.assert_array_equal(parts.coef_ == 0, whole.coef_ == 0)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_formats_and_dtypes_may_alternate(n_classes, name):
    X, y = small(n_classes)
    X = X.astype(np.float32).astype(np.float64)
    settings = {"optimizer": OPTIMIZERS[name], "batch_size": 16, "shuffle": False}
    steady, mixed = SoftmaxClassifier(**settings), SoftmaxClassifier(**settings)
    kinds = [np.asarray, csr_array, csc_array, coo_array, np.asfortranarray]
    for call in range(10):
        steady.partial_fit(X, y, classes=range(n_classes))
        mixed.partial_fit(kinds[call % 5](X), y, classes=range(n_classes))
    np.testing.assert_allclose(mixed.coef_, steady.coef_, rtol=1e-8)
    for call in range(4):
        dtype = [np.float32, np.float64][call % 2]
        mixed.partial_fit(kinds[call % 5](X.astype(dtype)), y)
        assert mixed.coef_.dtype == mixed.intercept_.dtype == dtype
        steady.partial_fit(X, y)
    np.testing.assert_allclose(mixed.coef_, steady.coef_, rtol=2e-3, atol=1e-4)


def test_a_stream_of_batches_that_miss_classes_learns_them_all():
    X, y = small(n=300)
    names = np.array(["ant", "bee", "cat"])[y]
    model = SoftmaxClassifier(random_state=0, optimizer=Adam(0.05))
    for first in range(0, 300, 10):
        rows = slice(first, first + 10)
        kept = names[rows] != "cat" if first == 0 else np.ones(10, bool)
        model.partial_fit(X[rows][kept], names[rows][kept], classes=["cat", "bee", "ant"] if first == 0 else None)
    assert model.classes_.tolist() == ["ant", "bee", "cat"]
    assert model.score(X, names) > 0.5
    model.partial_fit(X[:1], ["bee"], classes=["ant", "bee", "cat"])
    one = SoftmaxClassifier().partial_fit(X[:5], ["bee"] * 5, classes=["ant", "bee"])
    assert (one.predict_proba(X[:5])[:, 1] > 0.5).mean() > 0.5


def test_soft_targets():
    X, y = small()
    soft = np.eye(3)[y]
    settings = {"shuffle": False, "optimizer": Adam(0.05)}
    hard_model, soft_model = SoftmaxClassifier(**settings), SoftmaxClassifier(**settings)
    for _ in range(3):
        hard_model.partial_fit(X, y, classes=[0, 1, 2])
        soft_model.partial_fit(X, soft)
    np.testing.assert_allclose(soft_model.coef_, hard_model.coef_, rtol=1e-10)
    np.testing.assert_array_equal(soft_model.classes_, [0, 1, 2])
    named = (
        SoftmaxClassifier(**settings).partial_fit(X, soft, classes=["a", "b", "c"]).partial_fit(X, np.array(["b"] * 60))
    )
    assert named.classes_.tolist() == ["a", "b", "c"]


def test_going_on_after_fit_begins_with_fresh_moments():
    """Whatever the estimator learned before, and however many features it had then."""
    X, y = small()
    settings = {"shuffle": False, "optimizer": Adam(0.05)}
    model = SoftmaxClassifier(**settings).partial_fit(X[:, :2], y, classes=[0, 1, 2])
    model.fit(X, y)
    other = SoftmaxClassifier(**settings).fit(X, y)
    for _ in range(2):
        model.partial_fit(X, y)
        other.partial_fit(X, y)
    np.testing.assert_array_equal(model.coef_, other.coef_)
    assert model.n_iter_ == len(model.loss_curve_) == other.n_iter_
    lbfgs = SoftmaxClassifier(solver="lbfgs").fit(X, y)
    lbfgs.set_params(solver="minibatch").partial_fit(X, y)
    assert lbfgs.n_iter_ == len(lbfgs.loss_curve_)


def test_the_optimizer_may_be_changed_between_calls():
    X, y = small()
    model = SoftmaxClassifier(optimizer=Adam(0.05)).partial_fit(X, y, classes=[0, 1, 2])
    for optimizer in SGD(0.1), SGD(0.1, momentum=0.9), Adam(0.01), "sgd", "adam":
        model.set_params(optimizer=optimizer).partial_fit(X, y)
        assert np.isfinite(model.coef_).all()
    model.set_params(solver="lbfgs")
    assert not hasattr(model, "partial_fit")


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), copy.copy])
@pytest.mark.parametrize("sparse", [False, True])
def test_copies_go_on_alike(sparse, twin_of):
    X, y = small()
    X = csr_array(X) if sparse else X
    model = SoftmaxClassifier(shuffle=False).partial_fit(X, y, classes=[0, 1, 2]).partial_fit(X, y)
    twin = twin_of(model)
    coef = model.coef_.copy()
    twin.partial_fit(X, y)
    np.testing.assert_array_equal(model.coef_, coef)  # the original has not moved
    model.partial_fit(X, y)
    np.testing.assert_array_equal(twin.coef_, model.coef_)
    assert twin.loss_curve_ == model.loss_curve_
    assert not hasattr(clone(model), "coef_")


def test_shuffling_takes_its_seed():
    X, y = small()
    models = [
        SoftmaxClassifier(random_state=seed, batch_size=7).partial_fit(X, y, classes=[0, 1, 2]) for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(models[0].coef_, models[1].coef_)
    assert not np.array_equal(models[0].coef_, models[2].coef_)
