"""scikit-learn's callbacks: its own, alone and from outside, and ones that stop or fail."""

import warnings

import numpy as np
import pytest
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.datasets import load_iris
from sklearn.metrics import log_loss, mean_squared_error
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from fastml import LinearRegressor, LogisticClassifier, SoftmaxClassifier

SOLVERS = ["lbfgs", "minibatch"]
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class Recorder:
    """Keeps what it is told; stops or fails where asked to."""

    def __init__(self, stop_after=None, fail_at=None):
        self.stop_after, self.fail_at = stop_after, fail_at
        self.calls, self.begun, self.ended = [], [], []

    def note(self, hook, context=None):
        self.calls.append(hook if context is None else f"{hook} {context.task_name}")
        if self.calls[-1] == self.fail_at:
            raise RuntimeError("no more")

    def setup(self, estimator, context):
        self.note("setup")

    def teardown(self, estimator, context):
        self.note("teardown")

    def on_fit_task_begin(self, estimator, context, *, fitted_estimator=None):
        if context.task_name == "iteration":
            self.begun.append((fitted_estimator.coef_.copy(), fitted_estimator.intercept_.copy()))
        self.note("begin", context)

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        self.X, self.y, self.metadata = X, y, metadata
        if context.task_name == "iteration":
            self.ended.append((fitted_estimator.coef_.copy(), fitted_estimator.intercept_.copy()))
        self.note("end", context)
        return len(self.ended) == self.stop_after and context.task_name == "iteration"


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return StandardScaler().fit_transform(X), y


KINDS = {
    "softmax": SoftmaxClassifier,
    "logistic": LogisticClassifier,
    "regressor": lambda **settings: LinearRegressor(loss="huber", delta=0.1, **settings),
}


@pytest.fixture(autouse=True, params=KINDS)
def kind(request):
    """The estimator that ``make`` makes."""
    make.kind = request.param
    return request.param


def make(solver, **settings):
    return KINDS[make.kind](solver=solver, max_iter=6, random_state=0, tol=0, **settings)


def is_side_by_side(model):
    """Whether each output goes its own way: callbacks see where it looks, which need not be where it stays."""
    return model.solver == "lbfgs" and make.kind == "logistic" and len(model.coef_) > 1


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_hooks(early_stopping, n_classes, solver, iris):
    X, y = iris[0][iris[1] < n_classes], iris[1][iris[1] < n_classes]
    recorder = Recorder()
    model = make(solver, early_stopping=early_stopping).set_callbacks(recorder)
    weight = np.ones(len(y))
    assert model.fit(X, y, weight) is model
    iterations = ["begin iteration", "end iteration"] * model.n_iter_
    assert recorder.calls == ["setup", "begin fit", *iterations, "end fit", "teardown"]
    assert recorder.X is X
    assert recorder.y is y
    assert recorder.metadata["sample_weight"] is weight
    assert not recorder.begun[0][0].any()
    for begun, ended in zip(recorder.begun[1:], recorder.ended[:-1], strict=True):
        np.testing.assert_allclose(begun[0], ended[0], atol=1e-12)
        np.testing.assert_allclose(begun[1], ended[1], atol=1e-12)
    assert all(not np.array_equal(a[0], b[0]) for a, b in zip(recorder.begun, recorder.ended, strict=True))
    if not early_stopping and not is_side_by_side(model):
        np.testing.assert_array_equal(recorder.ended[-1][0], model.coef_)
    silent = make(solver, early_stopping=early_stopping).fit(X, y, weight)
    np.testing.assert_array_equal(silent.coef_, model.coef_)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_callback_stops_the_fit(solver, iris):
    recorder = Recorder(stop_after=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it was stopped: nothing to warn of
        model = make(solver).set_callbacks(recorder).fit(*iris)
    assert model.n_iter_ == len(model.loss_curve_) == len(recorder.ended) == 2
    if not is_side_by_side(model):
        np.testing.assert_array_equal(recorder.ended[-1][0], model.coef_)
    assert recorder.calls[-2:] == ["end fit", "teardown"]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("fail_at", ["setup", "begin fit", "begin iteration", "end iteration", "end fit", "teardown"])
def test_a_failing_callback(fail_at, solver, iris):
    recorder = Recorder(fail_at=fail_at)
    model = make(solver).set_callbacks(recorder)
    before = dict(vars(model))
    with pytest.raises(RuntimeError, match="no more"):
        model.fit(*iris)
    assert recorder.calls[-1] == "teardown"
    assert vars(model) == before
    recorder.fail_at = None
    assert model.fit(*iris).n_iter_ > 2


@pytest.mark.parametrize("solver", SOLVERS)
def test_teardown_after_errors(solver, iris):
    recorder = Recorder()
    model = make(solver).set_callbacks(recorder)
    before = dict(vars(model))
    bad = iris[0].copy()
    bad[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        model.fit(bad, iris[1])
    assert recorder.calls == []  # nothing had begun
    if solver == "minibatch":
        model.set_params(optimizer="sgd")
        before = dict(vars(model))
        with pytest.raises(ValueError, match="diverged"):
            model.fit(1e9 * iris[0], iris[1])
        assert recorder.calls[0] == "setup"
        assert recorder.calls[-1] == "teardown"
    assert vars(model) == before


@pytest.mark.parametrize("solver", SOLVERS)
def test_scoring_monitor(solver, iris):
    X, y = iris
    regressor = make.kind == "regressor"
    scores = ["r2", "neg_mean_squared_error"] if regressor else ["accuracy", "neg_log_loss"]
    monitor = ScoringMonitor(scoring=scores)
    model = make(solver).set_callbacks(monitor).fit(X, y)
    log = monitor.get_logs(select="most_recent")
    rows = [row for row in log.data if row["task_name"] == "iteration"]
    assert len(rows) == model.n_iter_
    assert rows[-1][scores[1]] > rows[0][scores[1]]
    if not is_side_by_side(model):
        final = mean_squared_error(y, model.predict(X)) if regressor else log_loss(y, model.predict_proba(X))
        np.testing.assert_allclose(rows[-1][scores[1]], -final, rtol=1e-9)
    if solver == "lbfgs" and make.kind == "softmax":
        penalty = 1e-4 / 2 * (model.coef_**2).sum()
        np.testing.assert_allclose(-rows[-1]["neg_log_loss"] + penalty, model.loss_curve_[-1], rtol=1e-9)


class Propagated(Recorder):
    """One that meta-estimators pass on to what they hold."""

    max_propagation_depth = None


@pytest.mark.parametrize("solver", SOLVERS)
def test_callbacks_of_a_pipeline_and_a_search(solver, iris):
    X, y = iris
    recorder = Propagated()
    pipeline = make_pipeline(StandardScaler(), make(solver)).set_callbacks(recorder).fit(X, y)
    assert recorder.calls.count("end iteration") == pipeline[-1].n_iter_
    assert recorder.calls.count("setup") == recorder.calls.count("teardown") == 1
    recorder = Propagated()
    GridSearchCV(make(solver), {"alpha": [1e-3, 1e-1]}, cv=3).set_callbacks(recorder).fit(X, y)
    assert recorder.calls.count("setup") == recorder.calls.count("teardown") == 1
    assert recorder.calls.count("end iteration") > 7
    assert recorder.calls.count("begin iteration") == recorder.calls.count("end iteration")


@pytest.mark.parametrize("solver", SOLVERS)
def test_monitor_and_recorder_inside_of_other_estimators(solver, iris):
    X, y = iris
    for wrap in (
        lambda model: make_pipeline(StandardScaler(), model),
        lambda model: GridSearchCV(model, {"alpha": [1e-3, 1e-1]}, cv=3),
        lambda model: GridSearchCV(Pipeline([("scale", StandardScaler()), ("model", model)]), {"model__alpha": [1e-3]}),
    ):
        monitor = ScoringMonitor(scoring="r2" if make.kind == "regressor" else "accuracy")
        outer = wrap(make(solver).set_callbacks(monitor)).fit(X, y)
        logs = monitor.get_logs(select="all")
        assert logs
        assert all(any(row["task_name"] == "iteration" for row in log.data) for log in logs)
        assert outer.score(X, y) > (0.8 if make.kind == "softmax" else 0.3)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("depth", [0, 1, None])
def test_progress_bar(depth, solver, iris, capfd):
    pytest.importorskip("rich")
    X, y = iris
    model = make(solver).set_callbacks(ProgressBar(max_propagation_depth=depth)).fit(X, y)
    name = type(model).__name__
    assert f"{name} - fit" in capfd.readouterr().out
    assert "100%" not in repr(model)
    search = GridSearchCV(make(solver), {"alpha": [1e-3, 1e-1]}, cv=2)
    pipeline = make_pipeline(StandardScaler(), make(solver))
    for outer in search, pipeline:
        outer.set_callbacks(ProgressBar(max_propagation_depth=depth)).fit(X, y)
        out = capfd.readouterr().out
        assert type(outer).__name__ in out
        assert (f"{name} - fit" in out) == (depth is None or (depth == 1 and name in out))


def test_partial_fit_has_no_callbacks(iris):
    recorder = Recorder()
    options = {} if make.kind == "regressor" else {"classes": [0, 1, 2]}
    make("minibatch").set_callbacks(recorder).partial_fit(*iris, **options)
    assert recorder.calls == []


def test_what_is_no_callback_is_refused():
    with pytest.raises(TypeError, match="callbacks must be instances"):
        make("lbfgs").set_callbacks(print)
