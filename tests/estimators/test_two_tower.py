"""TwoTower: what it learns, what it counts, and what it refuses."""

import pickle
import warnings

import naive
import numpy as np
import pytest
from scipy.sparse import csc_array, csr_array, csr_matrix
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastml import TwoTower
from fastml.estimators._pairs import hold_out
from fastml.optim import SGD, Adam

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

N, D, E = 300, 12, 9


def said_twice(n=N, noise=0.1, seed=0):
    """Rows of the same meaning in two languages."""
    rng = np.random.default_rng(seed)
    meaning, first, second = rng.normal(size=(n, 5)), rng.normal(size=(5, D)), rng.normal(size=(5, E))
    return meaning @ first + noise * rng.normal(size=(n, D)), meaning @ second + noise * rng.normal(size=(n, E))


X, Y = said_twice()


def make(**settings):
    return TwoTower(**{"n_components": 6, "batch_size": 50, "max_iter": 15, "random_state": 0, **settings})


@pytest.fixture(scope="module")
def fitted():
    return make().fit(X, Y)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"hidden_layer_sizes": (30,)},
        {"hidden_layer_sizes": [20, 10], "activation": "tanh", "max_iter": 40},
        {"temperature": "learn"},
        {"symmetric": False},
        {"correct_sampling_bias": True},
        {"optimizer": SGD(0.3, momentum=0.9)},
        {"batch_size": None, "max_iter": 60},
        {"early_stopping": True, "max_iter": 40},
        {"alpha": 1e-3},
    ],
)
def test_finds_partners(settings):
    model = make(**settings).fit(X[:200], Y[:200])
    assert model.score(X[200:], Y[200:]) > 0.6
    assert model.score(X[200:], Y[200:][::-1]) < 0.1
    assert len(model.loss_curve_) == model.n_iter_ <= model.max_iter
    assert model.loss_curve_[-1] < 0.5 * model.loss_curve_[0]


def test_loss_is_that_of_its_definition(fitted):
    """An epoch that moves nothing has the loss of the towers as they are."""
    still = clone(fitted).set_params(warm_start=True, optimizer=SGD(0.0), batch_size=None, max_iter=1, alpha=0.01)
    still.__dict__.update({k: v for k, v in vars(fitted).items() if k not in still.get_params()})
    queries, items = fitted.transform(X, Y)
    penalty = sum((coef**2).sum() for coef in fitted.query_coefs_ + fitted.item_coefs_)
    ids = np.arange(N) // 2
    still.fit(X, Y, ids)
    expected = naive.info_nce(queries, items, temperature=0.07, symmetric=True, ids=ids).mean() + 0.005 * penalty
    np.testing.assert_allclose(still.loss_curve_, expected)
    still.set_params(correct_sampling_bias=True, symmetric=False, alpha=0.0).fit(X, Y, np.arange(N) // 30)
    log_q = np.log(np.full(N, 30.0))
    expected = naive.info_nce(queries, items, temperature=0.07, ids=np.arange(N) // 30, log_q=log_q).mean()
    np.testing.assert_allclose(still.loss_curve_, expected)
    repeated = Y.copy()
    repeated[:100] = repeated[0]
    log_q = np.log(np.where(np.arange(N) < 100, 100.0, 1.0))
    expected = naive.info_nce(queries, still.item_transform(repeated), temperature=0.07, log_q=log_q).mean()
    for items in repeated, csr_array(repeated):
        np.testing.assert_allclose(still.fit(X, items).loss_curve_, expected)


def test_embeddings(fitted):
    queries, items = fitted.transform(X, Y)
    np.testing.assert_array_equal(queries, fitted.transform(X))
    np.testing.assert_array_equal(items, fitted.item_transform(Y))
    raw = X @ fitted.query_coefs_[0] + fitted.query_intercepts_[0]
    np.testing.assert_allclose(queries, raw / np.linalg.norm(raw, axis=1, keepdims=True))
    raw = Y @ fitted.item_coefs_[0] + fitted.item_intercepts_[0]
    np.testing.assert_allclose(items, raw / np.linalg.norm(raw, axis=1, keepdims=True))
    ids, scores = fitted.kneighbors(X[:20], Y, k=5)
    expected = naive.top_k(queries[:20], items, 5)
    np.testing.assert_array_equal(ids, expected[0])
    np.testing.assert_allclose(scores, expected[1])
    best = fitted.kneighbors(X, Y, 1)[0][:, 0]
    assert fitted.score(X, Y) == np.mean(best == np.arange(N))
    assert fitted.get_feature_names_out().tolist() == [f"twotower{i}" for i in range(6)]
    assert (fitted.n_features_in_, fitted.n_item_features_in_) == (D, E)
    assert fitted.temperature_ == 0.07
    assert fitted.validation_scores_ is None


def test_ties_are_counted_honestly(fitted):
    np.testing.assert_allclose(fitted.score(X, np.tile(Y[:1], (N, 1))), 1 / N)
    np.testing.assert_allclose(fitted.score(np.repeat(X[:9], 2, axis=0), np.repeat(Y[:9], 2, axis=0)), 0.5)


@pytest.mark.parametrize("kinds", [(csr_array, csr_matrix), (csr_array, np.asarray), (np.asarray, csc_array)])
def test_sparse_and_dense_input_give_the_same_fit(kinds):
    sparse_X, sparse_Y = X * (X > 1), Y * (Y > 1)
    settings = {"hidden_layer_sizes": (7,), "max_iter": 3}
    dense = make(**settings).fit(sparse_X, sparse_Y)
    mixed = make(**settings).fit(kinds[0](sparse_X), kinds[1](sparse_Y))
    for name in "query_coefs_", "item_coefs_", "query_intercepts_", "item_intercepts_":
        for a, b in zip(getattr(dense, name), getattr(mixed, name), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-9)
    np.testing.assert_allclose(mixed.transform(kinds[0](sparse_X)), dense.transform(sparse_X), atol=1e-8)


def test_precision():
    single = make(max_iter=3).fit(X.astype(np.float32), Y.astype(np.float32))
    arrays = [*single.transform(X, Y), *single.query_coefs_, *single.item_intercepts_]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
    assert make(max_iter=3).fit(X.astype(np.float32), Y).transform(X).dtype == np.float64
    np.testing.assert_allclose(single.transform(X), make(max_iter=3).fit(X, Y).transform(X), atol=1e-3)


def test_same_bits_for_any_number_of_threads():
    first, *others = (make(n_jobs=n, temperature="learn", max_iter=3, batch_size=200).fit(X, Y) for n in (1, 2, 5))
    for other in others:
        assert other.loss_curve_ == first.loss_curve_
        assert other.transform(X).tobytes() == first.transform(X).tobytes()


def test_false_negatives():
    """Items that come many times are pushed from their own queries, unless ids tell."""
    rng = np.random.default_rng(0)
    group = rng.integers(8, size=N)
    items = np.eye(8)[group]
    queries = items + 0.1 * rng.normal(size=items.shape)
    aware, unaware = (make(max_iter=30).fit(queries, items, ids) for ids in (group, None))
    assert aware.loss_curve_[-1] < 0.3 * unaware.loss_curve_[-1] < unaware.loss_curve_[-1]
    text = make(max_iter=30).fit(queries, items, [f"item {g}" for g in group])
    np.testing.assert_array_equal(text.transform(queries), aware.transform(queries))


def test_sampling_bias_correction_helps_popular_items():
    """Popular items are negatives more often; corrected scores are nearer to how often an item is chosen."""
    rng = np.random.default_rng(0)
    n_items, share = 20, 0.75 ** np.arange(20)
    item = rng.choice(n_items, 3000, p=share / share.sum())
    queries = 0.01 * rng.normal(size=(3000, 3))  # that say nothing: the best guess is the popular one
    settings = {"temperature": 0.2, "symmetric": False, "max_iter": 20, "batch_size": 100}
    ranks = []
    for corrected in False, True:
        model = make(correct_sampling_bias=corrected, **settings).fit(queries, np.eye(n_items)[item], item)
        scores = model.transform(queries[:50]) @ model.item_transform(np.eye(n_items)).T
        ranks.append(np.corrcoef(scores.mean(axis=0), np.log(share))[0, 1])
    assert ranks[1] > 0.8
    assert ranks[1] > ranks[0] + 0.2


def test_early_stopping_keeps_the_best_and_holds_out_ids_together():
    ids = np.arange(N) // 3
    model = make(early_stopping=True, max_iter=60, n_iter_no_change=8, tol=0.0, validation_fraction=0.3)
    model.fit(X, Y, ids)
    train, held_out = hold_out((X, Y, ids, None), 0.3, 0)
    assert not set(train[2]) & set(held_out[2])
    assert len(held_out[2]) == 0.3 * N
    best = int(np.argmax(model.validation_scores_))
    assert model.n_iter_ == len(model.validation_scores_) == min(best + 1 + 8, 60)
    same = make(max_iter=best + 1, tol=0.0, early_stopping=True, n_iter_no_change=60, validation_fraction=0.3)
    assert same.fit(X, Y, ids).validation_scores_ == model.validation_scores_[: best + 1]
    np.testing.assert_array_equal(same.transform(X), model.transform(X))


def test_partial_fit_and_warm_start(fitted):
    model = make()
    losses = [
        model.partial_fit(X[part], Y[part]).loss_curve_[-1] for _ in range(10) for part in np.split(np.arange(N), 2)
    ]
    assert model.n_iter_ == len(model.loss_curve_) == 20
    assert losses[-1] < 0.5 * losses[0]
    assert model.score(X, Y) > 0.5
    again = clone(fitted).set_params(warm_start=True, max_iter=1)
    first = again.fit(X, Y).loss_curve_[0]
    assert again.fit(X, Y).loss_curve_[0] < first
    assert clone(again).set_params(temperature="learn").fit(X, Y).temperature_ != 0.07


def test_scikit_learn_tools(fitted):
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).transform(X), fitted.transform(X))
    search = GridSearchCV(make(max_iter=30), {"temperature": [0.1, 100.0]}, cv=3).fit(csr_array(X), csr_array(Y))
    assert search.best_params_ == {"temperature": 0.1}
    pipeline = make_pipeline(StandardScaler(), make())
    embedded = pipeline.fit_transform(X, Y, twotower__ids=np.arange(N))
    assert embedded.shape == (N, 6)
    assert pipeline.score(X, Y) > 0.5
    assert pipeline.set_output(transform="default").get_feature_names_out().shape == (6,)


def test_data_frames():
    pandas = pytest.importorskip("pandas")
    frame, items = pandas.DataFrame(X).add_prefix("x"), pandas.DataFrame(Y).add_prefix("y")
    model = make(max_iter=2).fit(frame, items)
    assert model.feature_names_in_[0] == "x0"
    assert model.item_feature_names_in_[-1] == f"y{E - 1}"
    with pytest.raises(ValueError, match="feature names"):
        model.item_transform(items[items.columns[::-1]])


def test_callbacks():
    class Stop:
        def setup(self, estimator, context):
            self.scores = []

        def teardown(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context):
            pass

        def on_fit_task_end(self, estimator, context, *, X, y, fitted_estimator):
            if context.task_name == "iteration":
                self.scores.append(fitted_estimator.score(X, y))
            return len(self.scores) == 4

    stop = Stop()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = make().set_callbacks(stop).fit(X, Y)
    assert model.n_iter_ == 4
    assert stop.scores[-1] == model.score(X, Y) > stop.scores[0]


def test_warns_where_it_did_not_converge():
    with pytest.warns(ConvergenceWarning, match="TwoTower did not converge in max_iter=2 epochs") as record:
        make(max_iter=2).fit(X, Y)
    assert record[0].filename == __file__


def put(array, at, value):
    array = array.copy()
    array[at] = value
    return array


@pytest.mark.parametrize(
    ("settings", "data", "error", "match"),
    [
        ({}, (X, Y[:-1]), ValueError, "Y: expected 300 rows, the items of the rows of X in their order, got 299"),
        ({}, (X, None), ValueError, "requires y to be passed.*pass the items Y"),
        ({}, (X[:1], Y[:1]), ValueError, "1 sample: the only pair has no negatives"),
        ({}, (put(X, (3, 2), np.nan), Y), ValueError, "Input X contains NaN"),
        ({}, (X, put(Y, (3, 2), np.inf)), ValueError, "Input Y contains infinity"),
        ({}, (X, [["a"]] * N), ValueError, "could not convert string to float"),
        ({}, (X, Y, np.arange(N - 1)), ValueError, r"ids: expected shape \(300,\), one a pair, got \(299,\)"),
        ({}, (X, Y, put(np.arange(N) * 1.0, 4, np.nan)), ValueError, "ids: expected finite numbers, got nan at"),
        ({}, (X, Y, np.zeros(N)), ValueError, "ids: all pairs have the same id, and so no negatives"),
        ({"temperature": 0}, (X, Y), ValueError, "'temperature' parameter of TwoTower"),
        ({"temperature": -0.1}, (X, Y), ValueError, "'temperature' parameter of TwoTower"),
        ({"temperature": "learned"}, (X, Y), ValueError, "'temperature' parameter of TwoTower"),
        ({"temperature": 1e-320}, (X, Y), ValueError, "temperature: 1e-320 is out of the range"),
        ({"batch_size": 1}, (X, Y), ValueError, r"'batch_size' parameter of TwoTower .* range \[2"),
        ({"hidden_layer_sizes": (3, 0)}, (X, Y), ValueError, "hidden_layer_sizes: expected whole numbers of at leas"),
        ({"hidden_layer_sizes": [2.5]}, (X, Y), ValueError, "hidden_layer_sizes: expected whole numbers of at least"),
        ({"activation": "relay"}, (X, Y), ValueError, "'activation' parameter of TwoTower"),
        ({"n_components": 0}, (X, Y), ValueError, "'n_components' parameter of TwoTower"),
        ({"alpha": -1}, (X, Y), ValueError, "'alpha' parameter of TwoTower"),
        ({"optimizer": SGD(1e200)}, (X, Y), ValueError, "TwoTower diverged"),
        ({"optimizer": Adam(-1.0)}, (X, Y), ValueError, "learning_rate"),
        ({"early_stopping": True}, (X, Y, np.arange(N) // 150), ValueError, r"early_stopping has 1 pair\(s\) or id"),
        ({"warm_start": True, "n_components": 5}, (X, Y), ValueError, r"same layers: the last fit had \(12, 6\)"),
        ({"warm_start": True}, (X[:, :5], Y), ValueError, r"same layers: the last fit had \(12, 6\)"),
        ({"n_jobs": 0}, (X, Y), ValueError, "n_jobs=0"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_bad_input(settings, data, error, match, fitted):
    model = pickle.loads(pickle.dumps(fitted)).set_params(**settings)
    before = dict(vars(model))
    with pytest.raises(error, match=match):
        model.fit(*data)
    assert vars(model).keys() == before.keys()
    assert all(value is before[name] for name, value in vars(model).items())


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda m: m.transform(X[:, :3]), "X has 3 features, but TwoTower is expecting 12"),
        (lambda m: m.item_transform(Y[:, :3]), "Y has 3 features, but TwoTower is expecting 9 of an item"),
        (lambda m: m.score(X, Y[:-1]), "Y: expected 300 rows"),
        (lambda m: m.kneighbors(X, Y, 0), "k: expected at least 1"),
        (lambda m: m.partial_fit(X, Y[:, :3]), "Y has 3 features"),
        (lambda m: m.set_params(early_stopping=True).partial_fit(X, Y), "partial_fit has no pairs to hold out"),
        (lambda m: m.set_params(n_components=3).partial_fit(X, Y), "partial_fit need the same layers"),
    ],
)
def test_bad_calls(call, match, fitted):
    with pytest.raises(ValueError, match=match):
        call(pickle.loads(pickle.dumps(fitted)))


@pytest.mark.parametrize("method", ["transform", "item_transform"])
def test_before_fit(method):
    with pytest.raises(NotFittedError):
        getattr(make(), method)(X)


def test_rows_of_zeros():
    """Without intercepts, as before training, they are zeros: similar to nothing, and no NaN."""
    sparse_X = csr_array(put(X, slice(0, 5), 0))
    model = make(max_iter=2, optimizer=SGD(0.0)).fit(sparse_X, Y)
    np.testing.assert_array_equal(model.transform(sparse_X[:5]), 0)
    np.testing.assert_allclose(model.score(sparse_X[:5], Y[:5]), 0.2)
    trained = make(max_iter=5).fit(sparse_X, Y)
    assert np.isfinite(trained.transform(sparse_X)).all()
