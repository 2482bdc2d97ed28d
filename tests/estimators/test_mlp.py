"""MLPClassifier and MLPRegressor: scikit-learn's networks with the same numbers, and what scikit-learn's lack."""

import copy
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csc_array, csr_array
from sklearn import neural_network as theirs
from sklearn.base import clone
from sklearn.datasets import load_diabetes, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastml import MLPClassifier, MLPRegressor
from fastml.optim import SGD, Adam, InverseTimeDecay

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
ACTIVATIONS = ["identity", "logistic", "tanh", "relu"]
QUIET = {"max_iter": 3, "tol": 0, "random_state": 0}


def rows(kind="classes", n=60, d=5):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    if kind == "labels":
        return X, (X @ rng.standard_normal((d, 4)) > 0).astype(int)
    if kind == "number":
        return X, X @ rng.standard_normal(d) + 3
    if kind == "numbers":
        return X, X @ rng.standard_normal((d, 2)) + 3
    y = rng.permutation(np.arange(n) % (2 if kind == "two classes" else 3))
    X[:, 0] += 2 * y
    return X, np.array(["ant", "bee", "cat"])[y]


CLASSIFIED = ["classes", "two classes", "labels"]
KINDS = [*CLASSIFIED, "number", "numbers"]


def pair(kind, **settings):
    """The same estimator of this library and of scikit-learn."""
    name = "MLPClassifier" if kind in CLASSIFIED else "MLPRegressor"
    return [getattr(place, name)(**settings) for place in (__import__("fastml"), theirs)]


def make(kind, *sizes, **settings):
    return pair(kind)[0].set_params(**{"hidden_layer_sizes": sizes or (8,), "random_state": 0, **settings})


def answers(model, X):
    return model.predict_proba(X) if hasattr(model, "predict_proba") else model.predict(X)


def first_call(model, X, y):
    return model.partial_fit(X, y, classes=np.unique(y) if y.ndim == 1 else range(4)) if hasattr(
        model, "predict_proba"
    ) else model.partial_fit(X, y)  # fmt: skip


# ------------------------------------------------------------------------------------------------- as scikit-learn's


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_weights_of_scikit_learn_give_its_predictions(activation, kind):
    X, y = rows(kind)
    ours, other = pair(kind, hidden_layer_sizes=(7, 4), activation=activation, **QUIET)
    ours.fit(X, y)
    other.fit(X, y)
    ours.coefs_, ours.intercepts_ = other.coefs_, other.intercepts_
    np.testing.assert_allclose(answers(ours, X), answers(other, X), atol=1e-12)
    np.testing.assert_allclose(answers(ours, csr_array(X.astype(np.float32))), answers(other, X), atol=1e-5)
    assert ours.score(X, y) == pytest.approx(other.score(X, y), abs=1e-12)
    for name in "n_layers_", "n_outputs_", "n_iter_", "t_", "out_activation_", "n_features_in_":
        assert getattr(ours, name) == getattr(other, name), name
    if kind in CLASSIFIED:
        assert ours.classes_.tolist() == other.classes_.tolist()
        np.testing.assert_array_equal(ours.predict(X), other.predict(X))
        np.testing.assert_allclose(ours.predict_log_proba(X), other.predict_log_proba(X), atol=1e-10)


@pytest.mark.parametrize("kind", CLASSIFIED)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_is_that_of_scikit_learn(weighted, kind):
    """With its weights, penalty and rate: alpha means the same."""
    X, y = rows(kind)
    weight = np.random.default_rng(1).random(len(X)) if weighted and kind != "labels" else None
    settings = {"alpha": 3.0, "shuffle": False, "batch_size": 20, "random_state": 0}
    ours = first_call(make(kind, 6, **settings), X, y).set_params(optimizer=SGD(0.1))
    other = pair(kind)[1].set_params(hidden_layer_sizes=(6,), solver="sgd", momentum=0, learning_rate_init=0.1)
    first_call(other.set_params(nesterovs_momentum=False, **settings), X, y)
    ours.coefs_, ours.intercepts_ = copy.deepcopy(other.coefs_), copy.deepcopy(other.intercepts_)
    if weight is None:
        ours.partial_fit(X, y)
        other.partial_fit(X, y)
    else:  # whose batches divide by the sum of their own weights
        ours.set_params(batch_size=None).partial_fit(X, y, sample_weight=weight)
        other.set_params(batch_size=60).partial_fit(X, y, sample_weight=weight)
    for own, expected in zip([*ours.coefs_, *ours.intercepts_], [*other.coefs_, *other.intercepts_], strict=True):
        np.testing.assert_allclose(own, expected, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_code_for_scikit_learn_runs_with_the_import_changed(kind):
    X, y = rows(kind)
    for settings in (
        {"activation": "tanh", "alpha": 0.1, "batch_size": 16, "learning_rate_init": 0.01, "solver": "adam"},
        {"solver": "sgd", "shuffle": False, "warm_start": True, "verbose": False, "n_iter_no_change": 3},
        {"early_stopping": True, "validation_fraction": 0.2, "batch_size": "auto"},
    ):
        models = pair(kind, hidden_layer_sizes=(9, 5), **QUIET | settings)
        curves = [model.fit(X, y).loss_curve_ for model in models]
        assert len(curves[0]) == len(curves[1])
        assert models[0].predict(X).shape == models[1].predict(X).shape
        assert [c.shape for c in models[0].coefs_] == [c.shape for c in models[1].coefs_]


@pytest.mark.parametrize("estimator", [MLPClassifier, MLPRegressor])
def test_what_only_scikit_learn_has_says_what_to_use(estimator):
    for name, cure in (
        ("learning_rate", "schedules are part of the optimizer"),
        ("momentum", r"SGD\(rate, momentum=0.9\)"),
        ("beta_1", r"optimizer=Adam\("),
        ("max_fun", "leave it out"),
    ):
        with pytest.raises(TypeError, match=f"{estimator.__name__} has no {name}: .*{cure}"):
            estimator(**{name: 1})
    with pytest.raises(ValueError, match="'solver' parameter .* must be a str among"):
        estimator(solver="lbfgs").fit(*rows("number"))
    with pytest.raises(ValueError, match="solver='sgd' and optimizer=Adam"):
        estimator(solver="sgd", optimizer=Adam()).fit(*rows("number" if estimator is MLPRegressor else "classes"))
    with pytest.raises(TypeError, match="unexpected keyword"):
        estimator(nothing=1)


# ------------------------------------------------------------------------------------------------- targets


def test_soft_targets_smoothing_and_weights_of_classes():
    for kind in "classes", "two classes":
        X, y = rows(kind)
        classes = np.unique(y)
        hard = (y[:, None] == classes).astype(float)
        soft = 0.9 * hard + 0.1 / len(classes)
        plain = make(kind).fit(X, y)
        np.testing.assert_array_equal(make(kind).fit(X, hard).coefs_[0], plain.coefs_[0])
        smoothed, softly = make(kind, label_smoothing=0.1).fit(X, y), make(kind).fit(X, soft)
        np.testing.assert_allclose(softly.coefs_[0], smoothed.coefs_[0], rtol=1e-7, atol=1e-9)
        assert not softly.multilabel_
        assert softly.predict(X).tolist() == np.searchsorted(classes, smoothed.predict(X)).tolist()
        weights = dict(zip(classes, [1.0, 4.0, 2.0], strict=False))
        weighted = make(kind, class_weight=weights, alpha=0.0).fit(X, y)
        np.testing.assert_allclose(
            make(kind, alpha=0.0).fit(X, y, sample_weight=[weights[label] for label in y]).coefs_[0],
            weighted.coefs_[0],
            atol=1e-9,
        )
        assert np.mean(weighted.predict(X) == classes[1]) > np.mean(plain.predict(X) == classes[1])


def test_matrices_are_labels_or_probabilities():
    X, Y = rows("labels")
    one_hot = np.eye(3)[np.arange(60) % 3]
    for target, is_multilabel in (
        (Y, True), (Y.astype(bool), True), (csr_array(Y), True), (Y.astype(float), True), (one_hot.astype(int), True),
        (one_hot, False), (one_hot.astype(np.float32), False), (0.5 * one_hot + 0.5 / 3, False),
    ):  # fmt: skip
        model = make("classes", max_iter=2).fit(X, target)
        assert model.multilabel_ == is_multilabel
        assert model.out_activation_ == ("logistic" if is_multilabel else "softmax")
        assert model.predict(X).ndim == (2 if is_multilabel else 1)
    with pytest.raises(ValueError, match="probabilities >= 0 with sum 1"):
        make("classes").fit(X, 0.5 * Y)
    with pytest.raises(ValueError, match="y must be 0 or 1 for each label"):
        make("classes").fit(X, 2 * Y)
    with pytest.raises(ValueError, match="class_weight needs labels"):
        make("classes", class_weight="balanced").fit(X, Y)


def test_multilabel():
    X, Y = make_multilabel_classification(400, 10, n_classes=4, random_state=0)
    X = StandardScaler().fit_transform(X)
    model = make("labels", 30, optimizer=Adam(0.03), label_smoothing=0.05).fit(X, Y)
    assert (model.predict(X) == Y).mean() > 0.9
    p = model.predict_proba(X)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), p, rtol=1e-10)
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-model.decision_function(X))), rtol=1e-10)
    softer = model.predict_proba(X, temperature=2.0)
    np.testing.assert_allclose(softer, 1 / (1 + np.exp(-model.decision_function(X) / 2)), rtol=1e-10)
    assert model.decision_function(X).shape == (400, 4)


def test_temperature():
    X, y = rows()
    model = make("classes").fit(X, y)
    z = model.decision_function(X)
    for t in 0.5, 3.0:
        expected = np.exp(z / t) / np.exp(z / t).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(model.predict_proba(X, temperature=t), expected, rtol=1e-10)
        np.testing.assert_allclose(np.exp(model.predict_log_proba(X, temperature=t)), expected, rtol=1e-10)


@pytest.mark.parametrize("loss", ["squared", "absolute", "huber"])
def test_the_unit_of_the_target_does_not_matter(loss):
    X, y = rows("numbers", n=200)
    factors = {"squared": 1e6**2, "absolute": 1e6, "huber": 1e6**2}
    small = make("numbers", loss=loss, max_iter=20).fit(X, y)
    large = make("numbers", loss=loss, max_iter=20, delta=1e6).fit(X, 1e6 * y + 1e7)
    np.testing.assert_allclose(large.predict(X), 1e6 * small.predict(X) + 1e7, rtol=1e-6)
    np.testing.assert_allclose(large.loss_curve_, np.multiply(factors[loss], small.loss_curve_), rtol=1e-6)
    assert small.loss_ < small.loss_curve_[0]


def test_losses_of_outliers():
    X, y = rows("number", n=400)
    spoilt = y.copy()
    spoilt[::20] += 100
    error = {}
    for loss in "squared", "absolute", "huber":
        model = make("number", 20, loss=loss, optimizer=Adam(0.01), early_stopping=True, n_iter_no_change=30)
        error[loss] = np.median(np.abs(model.fit(X, spoilt).predict(X) - y))
    assert error["absolute"] < 0.5 * error["squared"]
    assert error["huber"] < 0.5 * error["squared"]


@pytest.mark.parametrize(("output", "low", "high"), [("tanh", -1, 1), ("sigmoid", 0, 1)])
def test_outputs_have_a_range(output, low, high):
    X, _ = rows("number", n=300)
    y = low + (high - low) / (1 + np.exp(-3 * X[:, 0]))
    model = make("number", 20, output_activation=output, optimizer=Adam(0.01))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(X, y)
    assert model.score(X, y) > 0.95
    assert low < model.predict(X).min() < model.predict(X).max() < high
    assert model.out_activation_ == output
    with pytest.warns(UserWarning, match=f"no {output} gives: "):
        model.fit(X, 5 * y)


# ------------------------------------------------------------------------------------------------- training

RICH = [
    {},
    {"batch_norm": True},
    {"dropout": 0.3},
    {"batch_norm": True, "dropout": 0.3, "activation": "tanh"},
    {"activation": "prelu", "solver": "sgd"},
]


@pytest.mark.parametrize("settings", RICH)
@pytest.mark.parametrize("kind", ["classes", "number"])
def test_sparse_threads_and_parts(kind, settings):
    """CSR rows are as dense ones, any number of threads gives the same bits, and calls are the epochs of fit."""
    X, y = rows(kind, n=300)
    X[np.abs(X) < 0.5] = 0
    settings = {**settings, "batch_size": 128, "max_iter": 4, "tol": 0, "shuffle": False}
    model = make(kind, 12, 7, **settings).fit(X, y)
    for jobs in 1, 2, 5:
        same = make(kind, 12, 7, n_jobs=jobs, **settings).fit(X, y)
        np.testing.assert_array_equal(answers(same, X), answers(model, X))
    sparse = make(kind, 12, 7, **settings).fit(csr_array(X), y)
    np.testing.assert_allclose(answers(sparse, csc_array(X)), answers(model, X), atol=1e-8)
    parts = first_call(make(kind, 12, 7, **settings), X, y)
    for _ in range(3):
        parts.partial_fit(X, y)
    np.testing.assert_allclose(answers(parts, X), answers(model, X), atol=1e-8)
    np.testing.assert_allclose(parts.loss_curve_, model.loss_curve_, rtol=1e-8)
    assert (parts.n_iter_, parts.t_) == (model.n_iter_, model.t_) == (4, 1200)


@pytest.mark.parametrize("settings", RICH)
def test_copies_predict_and_go_on_alike(settings):
    X, y = rows()
    model = first_call(make("classes", 6, **settings), X, y)
    for twin in copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.copy(model):
        np.testing.assert_array_equal(twin.predict_proba(X), model.predict_proba(X))
        before = [coef.copy() for coef in model.coefs_]
        twin.partial_fit(X, y)
        np.testing.assert_array_equal(model.coefs_[0], before[0])
    model.partial_fit(X, y)
    np.testing.assert_array_equal(twin.predict_proba(X), model.predict_proba(X))
    assert not hasattr(clone(model), "coefs_")


def test_parts_of_batch_norm_and_prelu_are_attributes():
    X, y = rows()
    model = make("classes", 6, 4, batch_norm=True, activation="prelu", max_iter=30).fit(X, y)
    for name in "scales_", "means_", "variances_", "slopes_":
        assert [part.shape for part in getattr(model, name)] == [(6,), (4,)], name
    h = X
    for layer in range(2):
        z = h @ model.coefs_[layer] - model.means_[layer]
        z = model.scales_[layer] * z / np.sqrt(model.variances_[layer] + 1e-5) + model.intercepts_[layer]
        h = np.where(z > 0, z, model.slopes_[layer] * z)
    np.testing.assert_allclose(h @ model.coefs_[2] + model.intercepts_[2], model.decision_function(X), atol=1e-10)
    plain = make("classes", 6, max_iter=2).fit(X, y)
    assert plain.scales_ == plain.slopes_ == []


def test_float32_stays_and_may_alternate():
    X, y = rows()
    model = make("classes").fit(X.astype(np.float32), y)
    assert {part.dtype for part in [*model.coefs_, *model.intercepts_]} == {np.dtype(np.float32)}
    assert model.predict_proba(X.astype(np.float32)).dtype == np.float32
    assert model.predict_proba(X).dtype == np.float64
    steady, mixed = (first_call(make("classes", optimizer=Adam(0.01)), X, y) for _ in range(2))
    for call in range(4):
        steady.partial_fit(X, y)
        mixed.partial_fit(X.astype([np.float32, np.float64][call % 2]), y)
    np.testing.assert_allclose(mixed.predict_proba(X), steady.predict_proba(X), atol=1e-4)


@pytest.mark.parametrize("kind", ["classes", "labels", "number"])
def test_early_stopping_keeps_the_best(kind):
    X, y = rows(kind, n=200)
    model = make(kind, 30, early_stopping=True, validation_fraction=0.5, optimizer=Adam(0.03), n_iter_no_change=8,
                 batch_norm=True).fit(X, y)  # fmt: skip
    curve = model.validation_loss_curve_
    assert len(curve) == model.n_iter_ < 200
    assert np.argmin(curve) < len(curve) - 1
    assert model.best_loss_ == min(curve)
    longer = clone(model).set_params(max_iter=int(np.argmin(curve)) + 1).fit(X, y)
    np.testing.assert_array_equal(answers(longer, X), answers(model, X))
    assert model.loss_ == model.loss_curve_[-1]


def test_warm_start_goes_on():
    for kind in "classes", "number":
        X, y = rows(kind)
        settings = {"optimizer": SGD(0.05), "shuffle": False, "tol": 0, "batch_norm": True}
        whole = make(kind, max_iter=6, **settings).fit(X, y)
        parts = make(kind, max_iter=3, warm_start=True, **settings).fit(X, y).fit(X, y)
        np.testing.assert_allclose(answers(parts, X), answers(whole, X), atol=1e-10)
        for sizes, message in (((9,), "same layers"), ((8,), "the same")):
            other = np.stack([y, y], axis=1) if kind == "number" else np.where(y == "cat", "dog", y)
            target = y if sizes == (9,) else other
            before = dict(vars(parts.set_params(hidden_layer_sizes=sizes)))
            with pytest.raises(ValueError, match=message):
                parts.fit(X, target)
            assert vars(parts) == before
        parts.set_params(activation="prelu")
        for method, arguments in (parts.predict, (X,)), (parts.fit, (X, y)):
            with pytest.raises(ValueError, match="The last fit left no slope of hidden units: call fit anew"):
                method(*arguments)


@pytest.mark.parametrize("n", [61, 41, 21, 2, 3])
@pytest.mark.parametrize("batch_size", [20, 2, "auto", None])
def test_batch_norm_has_no_batch_of_one_row(batch_size, n):
    X, y = rows(n=n)
    model = make("classes", batch_norm=True, batch_size=batch_size, max_iter=2).fit(X, y)
    assert np.isfinite(model.predict_proba(X)).all()
    if n > 20:  # of which a single one may be held out
        model.set_params(early_stopping=True, validation_fraction=0.01).fit(X, y)


def test_a_deep_network_learns():
    X, y = rows(n=400)
    for activation in "relu", "gelu", "elu", "leaky_relu", "gelu_tanh", "sigmoid":
        model = make("classes", 16, 16, activation=activation, batch_norm=True, optimizer=Adam(0.01), max_iter=40)
        model.fit(X, y)
        assert model.score(X, y) > 0.78, activation
        assert log_loss(y, model.predict_proba(X)) < 0.55


def test_optimizers():
    X, y = rows()
    for optimizer in Adam(InverseTimeDecay(0.1, 0.1)), SGD(0.1, max_grad_norm=1.0):
        assert make("classes", optimizer=optimizer, max_iter=100).fit(X, y).loss_ < 0.5 * np.log(3)
    np.testing.assert_array_equal(
        make("classes", optimizer=Adam(0.02)).fit(X, y).coefs_[0],
        make("classes", learning_rate_init=0.02).fit(X, y).coefs_[0],
    )
    sgd = SGD(0.02, momentum=0.9, nesterov=True)
    np.testing.assert_array_equal(
        make("classes", optimizer=sgd).fit(X, y).coefs_[0],
        make("classes", learning_rate_init=0.02, optimizer="sgd").fit(X, y).coefs_[0],
    )


def test_search_and_pipeline():
    X, y = load_diabetes(return_X_y=True)
    model = make_pipeline(StandardScaler(), make("number", optimizer=Adam(), max_iter=20))
    grid = {"mlpregressor__optimizer__learning_rate": [1e-6, 0.01], "mlpregressor__hidden_layer_sizes": [(5,), (10, 5)]}
    search = GridSearchCV(model, grid, cv=2).fit(X, y)
    assert search.best_params_["mlpregressor__optimizer__learning_rate"] == 0.01
    assert search.score(X, y) > 0.3


class StopAt:
    """A callback that asks to stop, and keeps what it saw."""

    def __init__(self, n):
        self.n, self.coefs = n, []

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        if context.task_name == "iteration":
            self.coefs.append(fitted_estimator.coefs_[0].copy())
        return len(self.coefs) == self.n


def test_callbacks_verbose_and_the_warning(capsys):
    X, y = rows()
    stop = StopAt(3)
    model = make("classes", verbose=1).set_callbacks(stop).fit(X, y)
    assert model.n_iter_ == len(stop.coefs) == 3
    np.testing.assert_array_equal(stop.coefs[-1], model.coefs_[0])
    assert capsys.readouterr().out.splitlines()[0] == f"MLPClassifier: iteration 1, loss {model.loss_curve_[0]:.6f}"
    with pytest.warns(ConvergenceWarning, match="MLPClassifier did not converge in max_iter=2") as caught:
        make("classes", max_iter=2).fit(X, y)
    assert [Path(w.filename) for w in caught] == [Path(__file__)]


# ------------------------------------------------------------------------------------------------- bad input

PARAMETERS = [
    ({"hidden_layer_sizes": (0,)}, r"hidden_layer_sizes must be positive integers.*got \(0,\)"),
    ({"hidden_layer_sizes": (5, -1)}, "hidden_layer_sizes must be positive integers"),
    ({"hidden_layer_sizes": (5, 2.5)}, "hidden_layer_sizes must be positive integers"),
    ({"hidden_layer_sizes": -3}, "hidden_layer_sizes must be positive integers"),
    ({"hidden_layer_sizes": "100"}, "'hidden_layer_sizes' parameter"),
    ({"activation": "swish"}, "'activation' parameter .* must be a str among .*'relu'"),
    ({"init": "zeros"}, "'init' parameter .* must be a str among .*'he'"),
    ({"optimizer": "adamw"}, "'optimizer' parameter .* must be a str among .*'sgd'"),
    ({"dropout": 1.0}, "'dropout' parameter"),
    ({"dropout": -0.1}, "'dropout' parameter"),
    ({"learning_rate_init": 0.0}, "'learning_rate_init' parameter"),
    ({"batch_size": 0}, "'batch_size' parameter"),
    ({"batch_size": 1, "batch_norm": True}, "batch_norm needs batches of at least 2 rows.*batch_size=1|left no scale"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "message"), PARAMETERS)
@pytest.mark.parametrize("kind", ["classes", "number"])
def test_bad_parameters(kind, settings, message):
    X, y = rows(kind)
    model = make(kind, max_iter=2).fit(X, y).set_params(**settings)
    before = dict(vars(model))
    for method in model.fit, model.partial_fit:
        with pytest.raises(ValueError, match=message):
            method(X, y)
        assert vars(model) == before


def test_bad_rows_and_targets():
    X, y = rows()
    model = make("classes", max_iter=2).fit(X, y)
    before = dict(vars(model))
    for bad, target, message in (
        (np.where(X > 1, np.nan, X), y, "Input X contains NaN"),
        (X, y[:5], "inconsistent numbers of samples"),
        (X, np.full(60, "ant"), "one class only"),
        (X[:, :0], y, r"0 feature\(s\)"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(bad, target)
    with pytest.raises(ValueError, match="not among the classes"):
        model.partial_fit(X, np.full(60, "dog"))
    with pytest.raises(ValueError, match="are not those of the first partial_fit"):
        model.partial_fit(X, y, classes=["ant", "dog"])
    with pytest.raises(ValueError, match="classes must be passed to the first call"):
        clone(model).partial_fit(X, y)
    with pytest.raises(ValueError, match="X has 4 features"):
        model.predict(X[:, :4])
    with pytest.raises(ValueError, match="early_stopping=False"):
        clone(model).set_params(early_stopping=True).partial_fit(X, y, classes=["ant", "bee", "cat"])
    with pytest.raises(ValueError, match="batch_norm needs batches of at least 2 rows"):
        make("classes", batch_norm=True).partial_fit(X[:1], y[:1], classes=["ant", "bee", "cat"])
    labels = make("labels", max_iter=2).fit(*rows("labels"))
    with pytest.raises(ValueError, match="earlier calls had a matrix of labels"):
        labels.partial_fit(X, np.arange(60) % 4)
    assert vars(model) == before


@pytest.mark.parametrize("kind", ["classes", "number"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_exploding_fit_says_so(kind):
    X, y = rows(kind)
    model = make(kind, max_iter=3).fit(X, y).set_params(optimizer=SGD(1e200))
    before = dict(vars(model))
    for method in model.fit, model.partial_fit:
        with pytest.raises(ValueError, match="diverged.*Lower the learning rate or scale the features"):
            method(X, y)
        assert vars(model) == before
    clipped = make(kind, optimizer=SGD(0.01, max_grad_norm=1.0), max_iter=3).fit(1e3 * X, y)
    assert np.isfinite(clipped.loss_curve_).all()
