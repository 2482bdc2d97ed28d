"""ContrastiveEmbedding: neighbours in its space, with labels and without, and what it refuses."""

import pickle

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastml import ContrastiveEmbedding
from fastml.optim import SGD

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
LABELS = np.repeat([3, 1, 2], 40)
X = RNG.normal(size=(120, 6)) + 2 * np.eye(6)[LABELS]


def make(**settings):
    defaults = {"n_components": 4, "hidden_layer_sizes": (20,), "batch_size": 40, "max_iter": 5, "random_state": 0}
    return ContrastiveEmbedding(**{**defaults, **settings})


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X.astype(np.float32), y


class Unlabelled(ContrastiveEmbedding):
    """Takes no notice of labels that a pipeline passes on."""

    def fit(self, X, y=None):
        return super().fit(X)


def accuracy(embedding, digits, seed):
    """Of neighbours in the embedding of one half, for the other half."""
    pipeline = make_pipeline(StandardScaler(), embedding, KNeighborsClassifier())
    X, X_test, y, y_test = train_test_split(*digits, test_size=0.5, stratify=digits[1], random_state=seed)
    return pipeline.fit(X, y).score(X_test, y_test)


@pytest.mark.parametrize(("n_components", "margin"), [(4, 0.08), (16, 0.005)])
def test_labels_beat_pca_on_digits(n_components, margin, digits):
    embedding = ContrastiveEmbedding(n_components, batch_size=256, max_iter=60, random_state=1)
    assert accuracy(embedding, digits, 1) > accuracy(PCA(n_components, random_state=1), digits, 1) + margin


def test_rows_alone_beat_pca_on_digits(digits):
    embedding = Unlabelled(8, max_iter=150, random_state=0)
    assert accuracy(embedding, digits, 0) > accuracy(PCA(8, random_state=0), digits, 0) + 0.005


def test_pulls_labels_together():
    def spread(Z, y):
        """Mean cosine within labels less that between them."""
        Z = Z / np.linalg.norm(Z, axis=1, keepdims=True)
        same = y[:, None] == y
        return (Z @ Z.T)[same].mean() - (Z @ Z.T)[~same].mean()

    alone, labelled = (make(max_iter=100, corruption_rate=0.0, tol=0.0).fit(X, y).transform(X) for y in (None, LABELS))
    assert spread(labelled, LABELS) > spread(alone, LABELS) + 0.2
    np.testing.assert_array_equal(
        make(max_iter=100, corruption_rate=0.0, tol=0.0).fit(X, LABELS.astype(str)).transform(X), labelled
    )


def test_attributes():
    model = make(temperature="learn").fit(X)
    hidden = np.maximum(X @ model.coefs_[0] + model.intercepts_[0], 0)
    np.testing.assert_allclose(model.transform(X), hidden @ model.coefs_[1] + model.intercepts_[1])
    assert model.get_feature_names_out().tolist() == [f"contrastiveembedding{i}" for i in range(4)]
    assert len(model.loss_curve_) == model.n_iter_ == 5
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    assert model.temperature_ != 0.07
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).transform(X), model.transform(X))
    single = make().fit(X.astype(np.float32))
    assert single.transform(X).dtype == single.coefs_[0].dtype == np.float32


@pytest.mark.parametrize("y", [None, LABELS])
def test_same_bits_for_any_number_of_threads(y):
    rows = np.tile(X, (4, 40))[:, :200]
    labels = None if y is None else np.tile(y, 4)
    first, *others = (make(n_jobs=n, batch_size=400, max_iter=2).fit(rows, labels) for n in (1, 2, 5))
    for other in others:
        assert other.loss_curve_ == first.loss_curve_
        assert other.transform(rows).tobytes() == first.transform(rows).tobytes()
    assert make(random_state=1, batch_size=400, max_iter=2).fit(rows, labels).loss_curve_ != first.loss_curve_


def test_without_corruption():
    """Views are then the rows: what is left is to push rows apart."""
    model = make(corruption_rate=0.0, max_iter=1, batch_size=None, optimizer=SGD(0.0)).fit(X)
    Z = model.transform(X)
    Z /= np.linalg.norm(Z, axis=1, keepdims=True)
    logits = Z @ Z.T / 0.1
    np.testing.assert_allclose(model.loss_curve_, (np.logaddexp.reduce(logits, axis=1) - np.diag(logits)).mean())


def test_partial_fit_and_warm_start():
    model = make()
    losses = [
        model.partial_fit(X[part]).loss_curve_[-1] for _ in range(15) for part in (slice(0, None, 2), slice(1, None, 2))
    ]
    assert model.n_iter_ == 30
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])
    again = clone(model).set_params(warm_start=True, max_iter=1)
    assert again.fit(X).loss_curve_[0] > again.set_params(max_iter=10).fit(X).loss_curve_[-1]


def test_search():
    pipeline = make_pipeline(StandardScaler(), make(), KNeighborsClassifier())
    search = GridSearchCV(pipeline, {"contrastiveembedding__n_components": [1, 4]}, cv=2).fit(X, LABELS)
    assert search.best_score_ > 0.6


def test_warns_where_it_did_not_converge():
    with pytest.warns(ConvergenceWarning, match="ContrastiveEmbedding did not converge in max_iter=5") as record:
        make().fit(X)
    assert record[0].filename == __file__


@pytest.mark.parametrize(
    ("settings", "data", "error", "match"),
    [
        ({}, (csr_array(X),), TypeError, "Sparse data was passed for X, but dense data is required"),
        ({}, (X[:1],), ValueError, "1 sample: the only pair has no negatives"),
        ({}, (X * np.nan,), ValueError, "Input X contains NaN"),
        ({}, (X, LABELS[:-1]), ValueError, "y: expected 120 labels, one for each row of X, got 119"),
        ({}, (X, np.ones(120)), ValueError, "y has one class only, .*1.0.*, and so no negatives"),
        ({}, (X, np.eye(3)[LABELS - 1]), ValueError, "y should be a 1d array"),
        ({}, (X, X[:, 0]), ValueError, "Unknown label type: continuous"),
        ({"corruption_rate": 1.1}, (X,), ValueError, "'corruption_rate' parameter of ContrastiveEmbedding"),
        ({"temperature": 0.0}, (X,), ValueError, "'temperature' parameter of ContrastiveEmbedding"),
        ({"batch_size": 1}, (X,), ValueError, "'batch_size' parameter of ContrastiveEmbedding"),
        ({"hidden_layer_sizes": ("a",)}, (X,), ValueError, "hidden_layer_sizes: expected whole numbers"),
        ({"optimizer": SGD(1e200)}, (X,), ValueError, "ContrastiveEmbedding diverged"),
        ({"warm_start": True, "hidden_layer_sizes": ()}, (X,), ValueError, "same layers"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_bad_input(settings, data, error, match):
    model = make(max_iter=1).fit(X).set_params(max_iter=5, **settings)
    before = dict(vars(model))
    with pytest.raises(error, match=match):
        model.fit(*data)
    assert vars(model).keys() == before.keys()
    assert all(value is before[name] for name, value in vars(model).items())


def test_before_fit():
    with pytest.raises(NotFittedError):
        make().transform(X)
