"""diagnose: each finding is produced by real training, and good fits give none."""

import dataclasses

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    make_classification,
    make_multilabel_classification,
    make_regression,
)
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastml
from fastml import LinearRegressor, LogisticClassifier, SoftmaxClassifier
from fastml.display import Finding, diagnose
from fastml.optim import SGD, Adam

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def scaled(load):
    X, y = load(return_X_y=True)
    return StandardScaler().fit_transform(X), y


X, y = scaled(load_digits)
seeds = pytest.mark.parametrize("seed", range(3))


class Recorded(BaseEstimator):
    """Has these curves."""

    def __init__(self, loss, validation=None):
        self.loss, self.validation = loss, validation
        self.loss_curve_, self.validation_loss_curve_ = loss, validation


def names(estimator):
    return [finding.name for finding in diagnose(estimator)]


def long_fit(n_epochs=40, **settings):
    """A classifier that goes on to the last epoch, whatever its loss does."""
    return SoftmaxClassifier(max_iter=n_epochs, n_iter_no_change=n_epochs, tol=0.0, **settings)


@seeds
@pytest.mark.parametrize("optimizer", [Adam(0.3), Adam(1.0), SGD(10.0)], ids=str)
def test_oscillating(optimizer, seed):
    model = long_fit(optimizer=optimizer, random_state=seed).fit(X, y)
    (finding,) = [found for found in diagnose(model) if found.name != "jump"]
    assert finding.name == "oscillating"
    assert "Lower the learning rate" in finding.advice
    loss = np.array(model.loss_curve_)
    assert all(loss[epoch - 1] > 1.1 * loss[epoch - 2] for epoch in finding.epochs)


def test_worse_than_before_training_is_oscillating():
    noise, labels = make_classification(2000, 20, n_informative=2, flip_y=0.9, random_state=0)
    for rate in (10.0, 100.0):
        assert names(long_fit(10, optimizer=SGD(rate), random_state=0).fit(noise, labels)) == ["oscillating"]


def stream(optimizer, seed, poisoned=None):
    """A classifier fed 100 rows a call; in call ``poisoned``, a tenth of the rows are outliers."""
    rng = np.random.default_rng(seed)
    model = SoftmaxClassifier(optimizer=optimizer, random_state=seed)
    for call, rows in enumerate(rng.permutation(len(X))[:1700].reshape(17, 100), start=1):
        batch = X[rows]
        if call == poisoned:
            batch[:10] = rng.normal(scale=100.0, size=(10, X.shape[1]))
        model.partial_fit(batch, y[rows], classes=np.arange(10))
    return model


@seeds
@pytest.mark.parametrize("optimizer", [Adam(0.01), "adam", "sgd"], ids=str)
def test_jump_at_a_burst_of_outliers(optimizer, seed):
    jump = diagnose(stream(optimizer, seed, poisoned=10))[0]
    assert (jump.name, jump.epochs[0]) == ("jump", 10)
    assert "outliers" in jump.advice
    assert not {"jump", "oscillating"} & set(names(stream(optimizer, seed)))


class OwnLoop(BaseEstimator):
    """Least squares by gradient descent as one writes it oneself, without a watch over the loss."""

    def __init__(self, learning_rate):
        self.learning_rate = learning_rate

    def fit(self, X, y):
        coef, self.loss_curve_ = np.zeros(X.shape[1]), []
        for _ in range(200):
            error = X @ coef - y
            self.loss_curve_.append(0.5 * np.mean(error**2))
            coef -= self.learning_rate * X.T @ error / len(y)
        return self


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_non_finite():
    data, target = make_regression(100, 5, random_state=0)
    model = OwnLoop(learning_rate=100.0).fit(data, target)
    (finding,) = diagnose(model)
    assert finding.name == "non-finite"
    assert "NaN" in finding.advice
    assert not np.isfinite([model.loss_curve_[epoch - 1] for epoch in finding.epochs]).any()
    assert np.isfinite(model.loss_curve_[: finding.epochs[0] - 1]).all()
    assert names(OwnLoop(learning_rate=0.5).fit(data, target)) == []
    data[3, 2] = np.nan
    assert names(OwnLoop(learning_rate=0.5).fit(data, target)) == ["non-finite"]


def test_a_fit_that_diverges_leaves_no_curve():
    model = SoftmaxClassifier(optimizer=SGD(1e6), random_state=0)
    with pytest.raises(ValueError, match="diverged"):
        model.fit(1e3 * X, y)
    with pytest.raises(NotFittedError):
        diagnose(model)


@seeds
def test_stuck_on_repetitive_data(seed):
    repeated, labels = np.ones((600, 5)), np.arange(600) % 3
    assert names(SoftmaxClassifier(random_state=seed).fit(repeated, labels)) == ["stuck"]
    assert names(long_fit(random_state=seed).fit(np.ones_like(X), y)) == ["stuck"]


@seeds
@pytest.mark.parametrize("rate", [1e-6, 1e-8])
def test_stuck_at_too_small_a_rate(rate, seed):
    (finding,) = diagnose(SoftmaxClassifier(optimizer=Adam(rate), max_iter=30, random_state=seed).fit(X, y))
    assert finding.name == "stuck"
    assert "learning rate" in finding.advice


@pytest.mark.parametrize("seed", [0, 3])
def test_stuck_with_dead_units(seed):
    """The first large steps on raw pixels put all units where they give 0 for every row."""
    raw = load_digits().data
    model = MLPClassifier((20,), solver="sgd", learning_rate_init=0.1, max_iter=40, random_state=seed).fit(raw, y)
    hidden = raw @ model.coefs_[0] + model.intercepts_[0]
    assert (hidden > 0).any(axis=1).mean() < 0.05
    (finding,) = diagnose(model)
    assert finding.name == "stuck"
    assert "dead" in finding.advice


@seeds
def test_dead_units(seed):
    """Counted on the training rows, where they were left."""
    raw = load_digits().data
    model = fastml.MLPClassifier((64, 64), optimizer=SGD(0.15), max_iter=6, random_state=seed).fit(raw, y)
    h, shares = raw, []
    for coef, intercept in zip(model.coefs_[:-1], model.intercepts_[:-1], strict=True):
        h = np.maximum(h @ coef + intercept, 0)
        shares.append((h == 0).all(axis=0).mean())
    assert model.silent_units_ == shares
    assert max(shares) > 0.5
    finding = diagnose(model)[0]
    assert finding.name == "dead units"
    assert f"{max(shares):.0%} in hidden layer {np.argmax(shares) + 1}" in finding.message
    assert all(cure in finding.advice for cure in ("leaky_relu", "lower the learning rate", "he", "batch_norm"))
    for cure in {"activation": "leaky_relu", "optimizer": SGD(0.05)}, {"optimizer": SGD(0.01)}, {"batch_norm": True}:
        cured = clone(model).set_params(**cure).fit(raw, y)
        assert "dead units" not in names(cured)
        assert cured.score(raw, y) > 2 * model.score(raw, y)


@seeds
@pytest.mark.parametrize("load", [load_digits, load_iris, load_breast_cancer, load_diabetes])
def test_networks_in_good_health_give_no_alarm(load, seed):
    kind = fastml.MLPRegressor if load is load_diabetes else fastml.MLPClassifier
    for settings in (
        {"learning_rate_init": 0.005},
        {"hidden_layer_sizes": (30, 30), "optimizer": SGD(0.03, momentum=0.9), "max_iter": 100},
        {"hidden_layer_sizes": 300, "learning_rate_init": 0.01, "alpha": 1.0},
        {"batch_norm": True, "dropout": 0.2, "learning_rate_init": 0.01},
    ):
        model = kind(random_state=seed, early_stopping=True, **settings).fit(*scaled(load))
        assert "dead units" not in names(model)
        assert max(model.silent_units_) < 0.2


def few_noisy_rows(seed):
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(X))[:150]
    return np.hstack([X[rows], rng.normal(size=(150, 200))]), y[rows]


@seeds
def test_overfitting(seed):
    model = long_fit(60, optimizer=Adam(0.03), alpha=0.0, early_stopping=True, validation_fraction=0.4)
    model.set_params(random_state=seed).fit(*few_noisy_rows(seed))
    (finding,) = diagnose(model)
    assert finding.name == "overfitting"
    assert finding.epochs == tuple(range(int(np.argmin(model.validation_loss_curve_)) + 2, 61))
    model.set_params(n_iter_no_change=5).fit(*few_noisy_rows(seed))
    assert names(model) == []  # early stopping has seen to it


@seeds
@pytest.mark.parametrize("rate", [1e-3, 1e-4, 1e-5])
def test_still_falling(rate, seed):
    model = SoftmaxClassifier(optimizer=Adam(rate), max_iter=30, random_state=seed)
    (finding,) = diagnose(model.fit(X, y))
    assert finding.name == "still falling"
    assert "Train longer" in finding.advice
    assert finding.epochs == tuple(range(24, 31))
    assert names(model.set_params(early_stopping=True).fit(X, y)) == ["still falling"]


good = [
    (load_digits, SoftmaxClassifier()),
    (load_digits, SoftmaxClassifier(optimizer="sgd")),
    (load_digits, SoftmaxClassifier(optimizer=Adam(0.003), max_iter=400)),
    (load_digits, SoftmaxClassifier(optimizer=Adam(0.03))),
    (load_digits, SoftmaxClassifier(optimizer=SGD(1.0))),
    (load_digits, SoftmaxClassifier(optimizer=SGD(0.01), batch_size=1, max_iter=60)),
    (load_digits, SoftmaxClassifier(label_smoothing=0.1)),
    (load_digits, SoftmaxClassifier(early_stopping=True)),
    (load_digits, SoftmaxClassifier(solver="lbfgs")),
    (load_digits, SoftmaxClassifier(solver="lbfgs", early_stopping=True)),
    (load_digits, MLPClassifier((20,), solver="sgd", learning_rate_init=0.1, max_iter=30)),
    (load_iris, SoftmaxClassifier(solver="lbfgs")),
    (load_iris, SoftmaxClassifier(solver="lbfgs", tol=1e-8, max_iter=500)),
    (load_iris, SoftmaxClassifier(solver="lbfgs", early_stopping=True)),
    (load_iris, SoftmaxClassifier(optimizer=Adam(0.1), max_iter=400)),
    (load_breast_cancer, SoftmaxClassifier()),
    (load_breast_cancer, SoftmaxClassifier(optimizer=Adam(0.1))),
    (load_breast_cancer, SoftmaxClassifier(early_stopping=True)),
    (load_breast_cancer, SoftmaxClassifier(solver="lbfgs")),
    (load_breast_cancer, LogisticClassifier()),
    (load_breast_cancer, LogisticClassifier(solver="lbfgs")),
    (load_digits, LogisticClassifier()),
    (load_digits, LogisticClassifier(solver="lbfgs")),
    (load_diabetes, LinearRegressor()),
    (load_diabetes, LinearRegressor(solver="lbfgs")),
    (load_diabetes, LinearRegressor(loss="absolute", solver="lbfgs")),
    (load_diabetes, LinearRegressor(loss="huber", solver="lbfgs")),
]


@seeds
@pytest.mark.parametrize(("load", "model"), good, ids=lambda value: getattr(value, "__name__", None) or str(value))
def test_good_fits_give_no_alarm(load, model, seed):
    assert diagnose(model.set_params(random_state=seed).fit(*scaled(load))) == []


@seeds
@pytest.mark.parametrize("rate", [0.003, 0.01, "sgd"])
def test_many_rows_are_learned_in_the_first_epoch(rate, seed):
    """Nearly all of the fall is inside the first value of the curve: it is flat, and good."""
    data, labels = make_classification(60_000, 20, n_informative=8, flip_y=0.3, random_state=seed)
    optimizer = rate if rate == "sgd" else Adam(rate)
    model = SoftmaxClassifier(optimizer=optimizer, max_iter=30, random_state=seed)
    assert names(model.fit(StandardScaler().fit_transform(data).astype(np.float32), labels)) == []


@seeds
def test_good_multilabel_fits_give_no_alarm(seed):
    data, labels = make_multilabel_classification(1000, 20, n_classes=10, random_state=seed)
    for solver in ("minibatch", "lbfgs"):
        model = LogisticClassifier(solver=solver, random_state=seed)
        assert names(model.fit(StandardScaler().fit_transform(data), labels)) == []


@seeds
@pytest.mark.parametrize("scale", [1e-2, 1.0, 10.0])
def test_good_regressors_give_no_alarm(scale, seed):
    data, target = make_regression(500, 10, noise=30.0, random_state=seed)
    target *= scale / target.std()
    model = MLPRegressor(hidden_layer_sizes=(30,), learning_rate_init=0.01, max_iter=400, random_state=seed)
    assert names(model.fit(data, target)) == []


@pytest.mark.parametrize("factor", [1e-12, 3.0, 1e12])
def test_the_unit_of_the_loss_does_not_matter(factor):
    overfitted = long_fit(60, optimizer=Adam(0.03), alpha=0.0, early_stopping=True, random_state=0).fit(
        *few_noisy_rows(0)
    )
    models = {
        "oscillating": long_fit(optimizer=Adam(0.3), random_state=0).fit(X, y),
        "jump": stream("adam", 0, poisoned=10),
        "stuck": long_fit(optimizer=Adam(1e-8), random_state=0).fit(X, y),
        "overfitting": overfitted,
        "still falling": long_fit(optimizer=Adam(1e-3), random_state=0).fit(X, y),
    }
    for name, model in models.items():
        validation = model.validation_loss_curve_
        plain = Recorded(np.array(model.loss_curve_), None if validation is None else np.array(validation))
        other = Recorded(
            factor * plain.loss_curve_, None if validation is None else factor * plain.validation_loss_curve_
        )
        assert name in names(plain)
        assert [(found.name, found.epochs) for found in diagnose(other)] == [
            (found.name, found.epochs) for found in diagnose(plain)
        ]


@pytest.mark.parametrize("n_epochs", [5, 8, 30, 200, 1000])
def test_curves_of_any_length(n_epochs):
    time = np.linspace(0, 1, n_epochs)
    rng = np.random.default_rng(0)
    assert names(Recorded(1.0 - 0.5 * time)) == ["still falling"]
    assert names(Recorded(1.0 - 0.005 * time)) == ["stuck"]
    assert names(Recorded(np.full(n_epochs, 3.0))) == ["stuck"]
    assert names(Recorded(1.0 + 0.5 * (np.arange(n_epochs) % 2))) == ["oscillating"]
    assert names(Recorded(0.2 + 0.8 * np.exp(-30 * time))) == []
    assert names(Recorded((0.2 + 0.8 * np.exp(-30 * time)) * rng.uniform(0.98, 1.02, n_epochs))) == []
    spike = 0.2 + 0.8 * np.exp(-30 * time)
    spike[n_epochs // 2] = 4.0
    assert names(Recorded(spike)) == ["jump"]
    parted = Recorded(np.exp(-5 * time), 1.0 - time + 1.2 * time**2)
    assert names(parted) == ["overfitting"]


def test_what_has_arrived_is_not_stuck():
    """A curve that begins next to its end: lbfgs records its first loss after the first step."""
    assert names(Recorded([0.2501, 0.2500, 0.2500, 0.2500, 0.2500, 0.2500])) == []
    assert names(Recorded([0.0] * 8)) == []
    assert names(Recorded([2.0, 0.0, 0.0, 0.0, 0.0, 0.0])) == []


def test_short_curves():
    assert names(Recorded([1.0, 9.0, 1.0, 9.0])) == []
    assert names(Recorded([])) == []
    assert names(Recorded([1.0, np.inf])) == ["non-finite"]
    assert names(Recorded([1.0, 0.5], [1.0, np.nan])) == ["non-finite"]


def test_scores_and_labels_that_are_not_losses_are_left_alone():
    model = MLPClassifier((20,), early_stopping=True, max_iter=100, random_state=0).fit(X, y)
    assert len(model.validation_scores_) == len(model.loss_curve_)  # rises, as it should
    assert "overfitting" not in names(model)
    labels = Recorded(np.exp(-np.linspace(0, 10, 50)) + 4.6)
    labels.classes_, labels.multilabel_ = np.arange(100), True  # near log(100), which means nothing here
    assert names(labels) == []


def test_finds_the_model_inside():
    pipeline = make_pipeline(StandardScaler(), SoftmaxClassifier(max_iter=10, random_state=0))
    search = GridSearchCV(pipeline, {"softmaxclassifier__alpha": [1e-4]}, cv=2)
    assert names(pipeline.fit(X, y)) == names(search.fit(X, y)) == ["still falling"]


def test_what_has_no_curve():
    with pytest.raises(NotFittedError):
        diagnose(SoftmaxClassifier())
    with pytest.raises(TypeError, match="StandardScaler has no loss_curve_"):
        diagnose(StandardScaler().fit(X))


def test_a_finding_reads_well_and_stays_as_it_is():
    (finding,) = diagnose(Recorded([1.0, 0.8, 0.6, 0.4, 0.2]))
    assert str(finding).startswith(
        "still falling: The loss still fell from 1 to 0.2 in the last 4 epochs. Train longer"
    )
    assert finding == Finding(finding.name, finding.message, finding.advice, (2, 3, 4, 5))
    with pytest.raises(dataclasses.FrozenInstanceError):
        finding.name = "fine"
