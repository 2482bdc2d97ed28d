"""LossCurveDisplay: what is drawn for which estimators."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

pytest.importorskip("matplotlib")
from matplotlib.figure import Figure

from fastml.display import LossCurveDisplay


class Learner(ClassifierMixin, BaseEstimator):
    """Records made-up losses."""

    def __init__(self, n_epochs=4, validation=False):
        self.n_epochs = n_epochs
        self.validation = validation

    def fit(self, X, y):
        self.loss_curve_ = [1.0 / (1 + i) for i in range(self.n_epochs)]
        self.validation_loss_curve_ = [2.0 / (1 + i) for i in range(self.n_epochs)] if self.validation else None
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


X, y = np.random.default_rng(0).normal(size=(12, 2)), np.arange(12) % 2


@pytest.fixture
def axes():
    return Figure().subplots()


def labels(display):
    return [line.get_label() for line in display.lines_]


def test_training_loss(axes):
    display = LossCurveDisplay.from_estimator(Learner().fit(X, y), ax=axes)
    (line,) = display.lines_
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4])
    np.testing.assert_allclose(line.get_ydata(), [1, 1 / 2, 1 / 3, 1 / 4])
    assert display.ax_ is axes
    assert display.figure_ is axes.figure
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ("Epoch", "Loss (nats)", "linear")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["Learner, training"]


def test_validation_loss_is_dashed_in_the_same_colour(axes):
    display = LossCurveDisplay.from_estimator(Learner(validation=True).fit(X, y), ax=axes, linewidth=3)
    training, validation = display.lines_
    assert labels(display) == ["Learner, training", "Learner, validation"]
    assert training.get_color() == validation.get_color()
    assert (training.get_linestyle(), validation.get_linestyle()) == ("-", "--")
    assert training.get_linewidth() == validation.get_linewidth() == 3


def test_several_estimators_share_the_axes(axes):
    fitted = [Learner(validation=True).fit(X, y), Learner(n_epochs=2).fit(X, y)]
    display = LossCurveDisplay.from_estimator(fitted, ax=axes)
    assert labels(display) == ["Learner 1, training", "Learner 1, validation", "Learner 2, training"]
    first, _, second = display.lines_
    assert first.get_color() != second.get_color()
    assert labels(display.plot(axes, name=["a", "b"])) == ["a, training", "a, validation", "b, training"]


def test_logarithmic_axis_and_aliases_of_matplotlib(axes):
    display = LossCurveDisplay.from_estimator(
        Learner(validation=True).fit(X, y), ax=axes, name="mine", log_scale=True, lw=2, c="red"
    )
    assert axes.get_yscale() == "log"
    assert labels(display) == ["mine, training", "mine, validation"]
    assert {line.get_color() for line in display.lines_} == {"red"}


@pytest.mark.parametrize(
    "wrapped",
    [
        make_pipeline(StandardScaler(), Learner()),
        GridSearchCV(Learner(), {"n_epochs": [4]}, cv=2),
        GridSearchCV(make_pipeline(StandardScaler(), Learner()), {"learner__n_epochs": [4]}, cv=2),
    ],
    ids=["pipeline", "search", "search over a pipeline"],
)
def test_finds_the_model_inside(wrapped, axes):
    with pytest.raises(NotFittedError):
        LossCurveDisplay.from_estimator(wrapped, ax=axes)
    display = LossCurveDisplay.from_estimator(wrapped.fit(X, y), ax=axes)
    assert labels(display) == ["Learner, training"]


def test_gap_and_lowest_validation_loss(axes):
    fitted = [Learner(validation=True).fit(X, y), Learner(n_epochs=2).fit(X, y)]
    plain = LossCurveDisplay.from_estimator(fitted, ax=axes)
    assert (plain.gaps_, plain.best_) == ([], [])
    assert not axes.collections
    display = LossCurveDisplay.from_estimator(fitted, ax=axes, name=["", "b"], show_gap=True)
    (gap,), (best,) = display.gaps_, display.best_
    assert labels(display) == ["training", "validation", "b, training"]
    np.testing.assert_allclose(best.get_offsets(), [[4, 2 / 4]])
    assert best.get_label() == "lowest in epoch 4"
    corners = gap.get_paths()[0].vertices
    for epoch in range(1, 5):
        assert [epoch, 1 / epoch] in corners.tolist()
        assert [epoch, 2 / epoch] in corners.tolist()


def test_gap_of_partial_curves(axes):
    """A curve may end early, and hold values that are not finite."""
    display = LossCurveDisplay(
        loss_curves=[[3, 2, 1], [4, 3], [2, 1]],
        validation_loss_curves=[[4, np.nan, 2, 2.5, 3], None, [np.nan]],
        names=["a", "b", "c"],
    ).plot(axes, show_gap=True)
    assert [len(line.get_xdata()) for line in display.lines_] == [3, 5, 2, 2, 1]
    assert len(display.gaps_) == 2
    (best,) = display.best_
    assert best.get_label() == "a, lowest in epoch 3"
    assert display.gaps_[0].get_paths()[0].vertices[:, 0].max() <= 3
    axes.figure.canvas.draw()


def test_label_of_the_loss(axes):
    """Nats are the unit of classifiers; a squared error has another."""
    Regressor = type("Regressor", (BaseEstimator,), {"loss_curve_": [3.0, 2.0]})
    assert LossCurveDisplay.from_estimator(Regressor(), ax=axes).ax_.get_ylabel() == "Loss"
    assert LossCurveDisplay.from_estimator([Regressor(), Learner().fit(X, y)], ax=axes).ax_.get_ylabel() == "Loss"
    display = LossCurveDisplay(loss_curves=[[3, 2, 1]], loss_name="Squared error (m²)")
    assert display.plot(axes).ax_.get_ylabel() == "Squared error (m²)"


def test_without_names_and_axes():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    display = LossCurveDisplay(loss_curves=[[3, 2, 1]]).plot()
    assert labels(display) == ["training"]
    pyplot.close(display.figure_)


def test_what_cannot_be_drawn(axes):
    with pytest.raises(NotFittedError):
        LossCurveDisplay.from_estimator(Learner(), ax=axes)
    with pytest.raises(TypeError, match="StandardScaler has no loss_curve_"):
        LossCurveDisplay.from_estimator(StandardScaler().fit(X), ax=axes)
    with pytest.raises(TypeError, match="estimator instance"):
        LossCurveDisplay.from_estimator("a string", ax=axes)
    with pytest.raises(ValueError, match="empty list"):
        LossCurveDisplay.from_estimator([], ax=axes)
    with pytest.raises(ValueError, match="name has 2 entries for 1 estimators"):
        LossCurveDisplay.from_estimator(Learner().fit(X, y), ax=axes, name=["a", "b"])
    assert not axes.lines


def test_parts_of_a_loss_are_added_up(axes):
    model = Learner().fit(X, y)
    model.loss_curve_ = np.array([[3.0, 2.0, 1.0], [2.0, 1.0, 0.5]])
    assert LossCurveDisplay.from_estimator(model, ax=axes).lines_[0].get_ydata().tolist() == [6.0, 3.5]
