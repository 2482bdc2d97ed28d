"""FoldingDisplay: what is drawn for which embeddings."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

pytest.importorskip("matplotlib")
from matplotlib.figure import Figure

from fastml.display import FoldingDisplay
from fastml.functional import folding_score

rng = np.random.default_rng(0)
QUERIES = rng.normal(size=(30, 4))
KEYS = QUERIES + rng.normal(size=(30, 4))
GROUPS = np.arange(30) % 3


class Towers(BaseEstimator):
    """Queries as they are, and keys scaled."""

    def __init__(self, scale=2.0):
        self.scale = scale

    def fit(self, X, Y=None):
        self.scale_ = self.scale
        return self

    def transform(self, X):
        return X

    def item_transform(self, Y):
        return self.scale_ * Y

    def score(self, X, Y=None):
        return self.scale_


@pytest.fixture
def axes():
    return Figure().subplots()


def legend(display):
    texts = display.ax_.get_legend()
    return texts.get_title().get_text(), [text.get_text() for text in texts.get_texts()]


@pytest.mark.parametrize("k", [1, 5, 100])
def test_points(axes, k):
    display = FoldingDisplay.from_embeddings(QUERIES, KEYS, k=k, ax=axes)
    q, h = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (QUERIES, KEYS))
    cosines = q @ h.T
    own = np.diag(cosines).copy()
    np.fill_diagonal(cosines, -np.inf)
    k = min(k, 29)
    (points,) = display.points_
    np.testing.assert_allclose(points.get_offsets(), np.c_[own, np.sort(cosines, axis=1)[:, -k]], atol=1e-12)
    assert display.score == folding_score(QUERIES, KEYS, k=k)
    assert (display.ax_, display.figure_, display.k) == (axes, axes.figure, k)
    assert legend(display) == ("", [f"folding {display.score:.2f}"])
    assert {1: "1st", 5: "5th", 29: "29th"}[k] in axes.get_ylabel()
    np.testing.assert_array_equal(display.diagonal_.get_xdata(), display.diagonal_.get_ydata())
    low, high = axes.get_xlim()
    assert axes.get_ylim() == (low, high)
    offsets = points.get_offsets()
    assert low < offsets.min()
    assert offsets.max() < high
    axes.figure.canvas.draw()


def test_groups_and_style(axes):
    display = FoldingDisplay.from_embeddings(QUERIES, KEYS, groups=GROUPS, ax=axes, name="mine", sizes=[3], alpha=1)
    assert [len(points.get_offsets()) for points in display.points_] == [10, 10, 10]
    assert len({tuple(points.get_facecolor()[0]) for points in display.points_}) == 3
    assert {points.get_alpha() for points in display.points_} == {1}
    assert legend(display) == (f"mine, folding {display.score:.2f}", ["0", "1", "2"])
    assert legend(display.plot(axes, name="other"))[0].startswith("other, ")


def test_of_an_estimator(axes):
    with pytest.raises(NotFittedError):
        FoldingDisplay.from_estimator(Towers(), QUERIES, KEYS, ax=axes)
    expected = folding_score(QUERIES, KEYS, k=3)
    for estimator in Towers(), GridSearchCV(Towers(), {"scale": [1.0]}, cv=2):
        display = FoldingDisplay.from_estimator(
            estimator.fit(QUERIES, KEYS), QUERIES, KEYS, k=3, ax=Figure().subplots()
        )
        assert display.score == expected
        assert legend(display) == ("", [f"Towers, folding {expected:.2f}"])
    Blind = type("Blind", (BaseEstimator,), {"transform": None, "__sklearn_is_fitted__": lambda self: True})
    with pytest.raises(TypeError, match="^Blind has no item_transform: use from_embeddings"):
        FoldingDisplay.from_estimator(Blind(), QUERIES, KEYS, ax=axes)


def test_collapse_and_zeros(axes):
    """Nothing is spread out: the picture still has a square."""
    for rows in np.ones((5, 2)), np.zeros((5, 2)):
        display = FoldingDisplay.from_embeddings(rows, rows, ax=axes)
        assert display.score == 1
        axes.figure.canvas.draw()


def test_bad_input(axes):
    with pytest.raises(ValueError, match=r"^groups: expected shape \(30,\), one label per pair, got \(3,\)"):
        FoldingDisplay.from_embeddings(QUERIES, KEYS, groups=[0, 1, 2], ax=axes)
    with pytest.raises(ValueError, match="^keys: expected shape"):
        FoldingDisplay.from_embeddings(QUERIES, KEYS[:5], ax=axes)


def test_new_axes_and_ordinals():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    labels = []
    for k in 2, 3, 11, 21, 112:
        display = FoldingDisplay(own=[0.9], crowd=[0.1], score=0.0, k=k).plot()
        labels.append(display.ax_.get_ylabel().split()[3])
        pyplot.close(display.figure_)
    assert labels == ["2nd", "3rd", "11th", "21st", "112th"]
