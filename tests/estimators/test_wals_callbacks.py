"""What callbacks see of a WALS fit, and what an interrupt or an error leaves behind."""

import numpy as np
import pytest
from recommenders import interactions, make
from sklearn.callback import ScoringMonitor
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from fastml import WALS

FEEDBACK = pytest.mark.parametrize("feedback", ["implicit", "explicit"])
EARLY = pytest.mark.parametrize("early_stopping", [False, True])


class Recorder:
    """Keeps what it is told; raises or stops in the iteration it is asked to."""

    max_propagation_depth = None

    def __init__(self, stop_after=None, fail=None, fail_at=None):
        self.stop_after, self.fail, self.fail_at = stop_after, fail, fail_at
        self.calls, self.models = [], []

    def note(self, call):
        self.calls.append(call)
        if (call, self.calls.count(call)) == self.fail_at:
            raise self.fail

    def setup(self, estimator, context):
        self.note("setup")

    def teardown(self, estimator, context):
        self.note("teardown")

    def on_fit_task_begin(self, estimator, context, *, fitted_estimator=None):
        self.note(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        self.X = X
        if context.task_name == "iteration":
            self.models.append(fitted_estimator)
        self.note(f"end {context.task_name}")
        return len(self.models) == self.stop_after and context.task_name == "iteration"


@FEEDBACK
@EARLY
def test_hooks(early_stopping, feedback):
    X, recorder = interactions(), Recorder()
    model = make(feedback, early_stopping=early_stopping).set_callbacks(recorder).fit(X)
    iterations = ["begin iteration", "end iteration"] * model.n_iter_
    assert recorder.calls == ["setup", "begin fit", *iterations, "end fit", "teardown"]
    assert recorder.X is X
    silent = make(feedback, early_stopping=early_stopping).fit(X)
    np.testing.assert_array_equal(model.user_factors_, silent.user_factors_)
    for n_epochs, seen in enumerate(recorder.models, start=1):
        if not early_stopping:
            np.testing.assert_array_equal(seen.item_factors_, make(feedback, max_iter=n_epochs).fit(X).item_factors_)
        np.testing.assert_allclose(seen.user_factors_, seen.transform(X), rtol=1e-8, atol=1e-12)
        assert 0 < seen.score(X) < 1


def test_a_callback_stops_the_fit():
    model = make().set_callbacks(Recorder(stop_after=2)).fit(interactions())
    assert model.n_iter_ == len(model.loss_curve_) == 2
    np.testing.assert_array_equal(model.user_factors_, make(max_iter=2).fit(interactions()).user_factors_)


def test_scoring_monitor():
    """It scores nothing where there is no y."""
    X, monitor = interactions(), ScoringMonitor(scoring={"ndcg": lambda model, X, y: model.score(X)})
    model = make().set_callbacks(monitor).fit(X, np.zeros(X.shape[0]))
    rows = [row for row in monitor.get_logs(select="most_recent").data if row["task_name"] == "iteration"]
    assert len(rows) == model.n_iter_
    assert rows[-1]["ndcg"] == model.score(X)


@pytest.mark.filterwarnings("ignore:The estimator FunctionTransformer does not support callbacks")
def test_in_a_pipeline_and_a_search():
    recorder = Recorder()
    make_pipeline(FunctionTransformer(accept_sparse=True), make()).set_callbacks(recorder).fit(interactions())
    assert recorder.calls.count("end iteration") == 3
    recorder = Recorder()
    GridSearchCV(make(), {"regularization": [0.1, 0.2]}, cv=2).set_callbacks(recorder).fit(interactions())
    assert recorder.calls.count("end iteration") == 3 * 5


@pytest.mark.parametrize("error", [RuntimeError("no more"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("call", ["begin iteration", "end iteration", "end fit"])
@pytest.mark.parametrize("fitted", [False, True])
def test_unchanged_by_what_is_raised(fitted, call, error):
    model = make()
    if fitted:
        model.fit(interactions(seed=1))
        factors = model.user_factors_.copy()
    recorder = Recorder(fail=error, fail_at=(call, 1))
    model.set_callbacks(recorder)
    before = dict(vars(model))
    with pytest.raises(type(error)):
        model.fit(interactions())
    assert vars(model) == before
    assert recorder.calls[-1] == "teardown"
    if fitted:
        np.testing.assert_array_equal(model.user_factors_, factors)


@FEEDBACK
@EARLY
@pytest.mark.parametrize(("call", "n_whole"), [("begin iteration", 1), ("end iteration", 2)])
def test_keep_on_interrupt(call, n_whole, early_stopping, feedback):
    X, settings = interactions(), {"early_stopping": early_stopping}
    recorder = Recorder(fail=KeyboardInterrupt(), fail_at=(call, 2))
    model = make(feedback, keep_on_interrupt=True, **settings).set_callbacks(recorder)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert recorder.calls[-1] == "teardown"
    whole = make(feedback, max_iter=n_whole, **settings).fit(X)
    for name in "user_factors_", "item_factors_", "loss_curve_", "n_iter_":
        np.testing.assert_array_equal(getattr(model, name), getattr(whole, name))
    assert model.validation_scores_ == whole.validation_scores_
    np.testing.assert_array_equal(model.recommend([1, 2])[0], whole.recommend([1, 2])[0])
    assert model.score(X) == whole.score(X)
    model.set_callbacks().partial_fit(X[:1]).fit(X)


def test_an_interrupt_amid_an_epoch(monkeypatch):
    from fastml.training.wals import WALSProblem

    epoch, n_epochs = WALSProblem.epoch, []

    def interrupted(self, factors):
        n_epochs.append(1)
        if len(n_epochs) == 3:
            raise KeyboardInterrupt
        return epoch(self, factors)

    monkeypatch.setattr(WALSProblem, "epoch", interrupted)
    model = make(keep_on_interrupt=True)
    with pytest.raises(KeyboardInterrupt):
        model.fit(interactions())
    n_epochs.clear()
    np.testing.assert_array_equal(model.item_factors_, make(max_iter=2).fit(interactions()).item_factors_)


def test_an_interrupt_before_the_first_epoch_leaves_nothing():
    recorder = Recorder(fail=KeyboardInterrupt(), fail_at=("begin iteration", 1))
    model = make(keep_on_interrupt=True).set_callbacks(recorder)
    with pytest.raises(KeyboardInterrupt):
        model.fit(interactions())
    assert not hasattr(model, "n_iter_")
    assert not hasattr(model, "n_features_in_")


def test_partial_fit_has_no_callbacks():
    model = make().fit(interactions())
    recorder = Recorder()
    model.set_callbacks(recorder).partial_fit(interactions())
    assert recorder.calls == []


def test_an_objective_that_is_not_finite(monkeypatch):
    from fastml.training.wals import WALSProblem

    monkeypatch.setattr(WALSProblem, "epoch", lambda self, factors: (factors, (np.inf, 0.0, 0.0)))
    with pytest.raises(ValueError, match="WALS: the objective is not finite after epoch 1.*float64"):
        WALS(2).fit(interactions())
