"""WALS: what it minimises, how it stops and goes on, and its place among scikit-learn's tools."""

import pickle

import naive
import numpy as np
import pytest
from recommenders import (
    N_ITEMS,
    N_USERS,
    TERMS,
    TOLERANCE,
    interactions,
    make,
    objective,
    users_by_definition,
    weights_like,
    with_zeros,
)
from scipy.sparse import csc_array, csr_array, csr_matrix, random_array
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from fastml import WALS


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("solver", ["cholesky", "cg", "block", "auto"])
@pytest.mark.parametrize("feedback", ["implicit", "explicit"])
def test_objective(feedback, solver, dtype):
    X = interactions(dtype=dtype)
    model = make(feedback, solver=solver, block_size=2).fit(X)
    assert model.user_factors_.dtype == model.item_factors_.dtype == dtype
    assert model.loss_curve_.shape == (model.n_iter_, 3) == (3, 3)
    np.testing.assert_allclose(model.loss_curve_[-1], objective(model, X), rtol=TOLERANCE[dtype])
    assert (np.diff(model.loss_curve_.sum(axis=1)) < 0).all()
    assert not model.user_factors_[3].any()
    assert not model.item_factors_[5].any()


def test_objective_of_weighted_ratings():
    X = with_zeros(interactions())
    weights = weights_like(X)
    model = make("explicit").fit(X, weights=weights)
    np.testing.assert_allclose(model.mean_, np.average(X.data, weights=weights.data), rtol=1e-12)
    np.testing.assert_allclose(model.loss_curve_[-1], objective(model, X, weights), rtol=1e-8)
    unweighted = make("explicit").fit(X)
    np.testing.assert_allclose(unweighted.loss_curve_[-1], objective(unweighted, X), rtol=1e-8)
    assert not np.allclose(model.item_factors_, unweighted.item_factors_)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("feedback", ["implicit", "explicit"])
def test_an_epoch_solves_for_items_then_users(feedback, weighted, dtype):
    """From the users of the first epoch, the second one's factors follow by definition."""
    X = interactions(dtype=dtype)
    weights = weights_like(X).astype(dtype) if weighted and feedback == "explicit" else None
    first, second = (make(feedback, max_iter=n).fit(X, weights=weights) for n in (1, 2))
    if feedback == "implicit":
        items = naive.wals_users(X.T, first.user_factors_, unobserved_weight=0.1, **TERMS)
    else:
        sideways = None if weights is None else weights.T
        items, biases = naive.ratings_users(
            X.T, first.user_factors_, first.user_biases_, first.mean_, weights=sideways, **TERMS
        )
        np.testing.assert_allclose(second.item_biases_, biases, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    np.testing.assert_allclose(second.item_factors_, items, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    users, biases = users_by_definition(second, X, weights)
    np.testing.assert_allclose(second.user_factors_, users, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    if biases is not None:
        np.testing.assert_allclose(second.user_biases_, biases, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("feedback", ["implicit", "explicit"])
def test_transform(feedback):
    X, new = interactions(), interactions(seed=5, shape=(9, N_ITEMS))
    model = make(feedback).fit(X)
    np.testing.assert_allclose(model.transform(X), model.user_factors_, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(model.transform(new), users_by_definition(model, new)[0], rtol=1e-8, atol=1e-12)
    np.testing.assert_array_equal(model.transform(new)[4:6], model.transform(new[4:6]))  # companions have no say
    np.testing.assert_array_equal(make(feedback).fit_transform(X), model.transform(X))
    assert model.get_feature_names_out().tolist() == [f"wals{i}" for i in range(6)]


def test_transform_with_weights():
    X = interactions()
    weights = weights_like(X)
    model = make("explicit").fit(X, weights=weights)
    np.testing.assert_allclose(model.transform(X, weights=weights), model.user_factors_, rtol=1e-8, atol=1e-12)
    assert not np.allclose(model.transform(X), model.user_factors_)
    np.testing.assert_array_equal(
        make("explicit").fit_transform(X, weights=weights), model.transform(X, weights=weights)
    )


@pytest.mark.parametrize("feedback", ["implicit", "explicit"])
def test_stored_zeros_are_ratings_but_no_interactions(feedback):
    X = with_zeros(interactions())
    bare = X.copy()
    bare.eliminate_zeros()
    models = [make(feedback).fit(X), make(feedback).fit(bare)]
    same = np.array_equal(models[0].item_factors_, models[1].item_factors_)
    assert same == (feedback == "implicit")
    assert (models[0].mean_ < models[1].mean_) == (feedback == "explicit")
    assert X.nnz > bare.nnz  # and the caller's X is as it was
    seen = X.indices[X.indptr[0] + np.flatnonzero(X.data[: X.indptr[1]] == 0)]
    assert len(seen)
    assert np.isin(seen, models[0].recommend(X[:1], k=N_ITEMS)[0]).all() == (feedback == "implicit")


def test_formats_and_types():
    X = interactions()
    shuffled = X.copy()
    for row in range(N_USERS):
        span = slice(X.indptr[row], X.indptr[row + 1])
        shuffled.indices[span], shuffled.data[span] = X.indices[span][::-1], X.data[span][::-1]
    shuffled = csr_array((shuffled.data, shuffled.indices, shuffled.indptr), X.shape)
    model = make().fit(X)
    for other in (
        X.toarray(),
        csr_matrix(X),
        csc_array(X),
        X.tocoo(),
        X.astype(np.int32),
        X.toarray().tolist(),
        shuffled,
    ):
        np.testing.assert_array_equal(make().fit(other).user_factors_, model.user_factors_)
        np.testing.assert_array_equal(model.predict(other), model.predict(X))
    assert make().fit(X > 0).user_factors_.dtype == np.float64
    assert make().fit(X.astype(np.float32)).transform(X).dtype == np.float32


def test_the_callers_data_is_neither_changed_nor_kept():
    X = interactions()
    X.data.flags.writeable = X.indices.flags.writeable = X.indptr.flags.writeable = False
    model = make().fit(X)
    copy = X.copy()
    expected = make().fit(copy).recommend([0, 1])[0]
    model.predict(X)
    model.partial_fit(X[:2], [0, 1])
    copy.indices[:] = 0
    np.testing.assert_array_equal(model.recommend([0, 1])[0], expected)


@pytest.mark.parametrize("solver", ["cholesky", "cg", "block"])
@pytest.mark.parametrize("feedback", ["implicit", "explicit"])
def test_same_bits_for_any_n_jobs(feedback, solver):
    X = random_array((300, 200), density=0.1, format="csr", rng=np.random.default_rng(0))
    models = [make(feedback, solver=solver, block_size=4, n_jobs=n).fit(X) for n in (1, 2, 7)]
    for other in models[1:]:
        for name in "user_factors_", "item_factors_", "loss_curve_":
            np.testing.assert_array_equal(getattr(other, name), getattr(models[0], name))
    np.testing.assert_array_equal(models[0].transform(X), models[1].transform(X))


def test_random_state():
    X = interactions()
    again, other = make().fit(X), make(random_state=1).fit(X)
    np.testing.assert_array_equal(again.item_factors_, make().fit(X).item_factors_)
    assert not np.allclose(again.item_factors_, other.item_factors_)


def test_more_factors_than_users_and_items():
    X = interactions()[:, :12]
    model = make(n_factors=100).fit(X)
    assert model.item_factors_.shape == (12, 100)
    np.testing.assert_allclose(model.loss_curve_[-1], objective(model, X), rtol=1e-8)


def test_tol():
    X = interactions()
    objectives = make(max_iter=30).fit(X).loss_curve_.sum(axis=1)
    falls = 1 - objectives[1:] / objectives[:-1]
    tol = falls[8] * 1.0001
    assert make(max_iter=30, tol=tol).fit(X).n_iter_ == np.argmax(falls < tol) + 2
    assert make(max_iter=30, tol=0).fit(X).n_iter_ == 30


@pytest.mark.parametrize("feedback", ["implicit", "explicit"])
def test_early_stopping(feedback):
    X = interactions()
    settings = {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 2, "max_iter": 40}
    model = make(feedback, **settings).fit(X)
    scores = np.array(model.validation_scores_)
    assert len(scores) == model.n_iter_ == len(model.loss_curve_) < 40
    assert scores.argmax() == model.n_iter_ - 3
    assert model.user_factors_.shape == (N_USERS, 6)
    np.testing.assert_allclose(model.transform(X), model.user_factors_, rtol=1e-8, atol=1e-12)
    shorter = make(feedback, **{**settings, "max_iter": int(scores.argmax()) + 1}).fit(X)
    np.testing.assert_array_equal(shorter.item_factors_, model.item_factors_)
    assert make(feedback).fit(X).validation_scores_ is None


def test_early_stopping_scores_the_held_out_users_by_score():
    X = interactions()
    model = make(early_stopping=True, max_iter=1, validation_fraction=0.3).fit(X)
    eligible = np.flatnonzero(np.diff(X.indptr) >= 2)
    held_out = np.random.RandomState(0).permutation(eligible)[: int(np.ceil(0.3 * len(eligible)))]
    assert model.score(X[held_out]) == model.validation_scores_[0]


@pytest.mark.parametrize("feedback", ["implicit", "explicit"])
def test_warm_start(feedback):
    X = interactions()
    model = make(feedback, warm_start=True, max_iter=2).fit(X)
    before = model.user_factors_.copy()
    kept = model.user_factors_
    model.fit(X)
    np.testing.assert_array_equal(kept, before)
    whole = make(feedback, max_iter=4).fit(X)
    np.testing.assert_allclose(model.item_factors_, whole.item_factors_, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(model.loss_curve_, whole.loss_curve_[2:], rtol=1e-8)
    assert model.n_iter_ == 2


def test_warm_start_goes_on_after_partial_fit():
    X = interactions()
    model = make(warm_start=True).fit(X[:50])
    model.partial_fit(X[50:]).fit(X)
    assert model.user_factors_.shape == (N_USERS, 6)


def test_verbose(capsys):
    model = make(verbose=1, early_stopping=True).fit(interactions())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == model.n_iter_
    assert lines[0].startswith(f"WALS: epoch 1, objective {model.loss_curve_[0].sum():.6g} (observed ")
    assert f"validation score {model.validation_scores_[0]:.4f}" in lines[0]


@pytest.mark.parametrize("feedback", ["implicit", "explicit"])
def test_grid_search(feedback):
    grid = {"regularization": [0.001, 0.1], "unobserved_weight": [0.05, 0.5]}
    search = GridSearchCV(WALS(n_factors=4, max_iter=2, feedback=feedback, random_state=0), grid, cv=3)
    search.fit(interactions())
    assert np.isfinite(search.best_score_)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.predict(interactions()[:2]).shape == (2, 10)


def test_cross_validation_is_strong_generalisation():
    X = interactions(shape=(200, N_ITEMS))
    folds = KFold(4, shuffle=True, random_state=0)
    by_hand = [make().fit(X[train]).score(X[test]) for train, test in folds.split(X)]
    np.testing.assert_array_equal(cross_val_score(make(), X, cv=folds), by_hand)
    assert np.mean(by_hand) > cross_val_score(make(n_factors=1), X, cv=folds).mean()


def test_pipeline_clone_and_pickle():
    X = interactions()
    pipeline = make_pipeline(FunctionTransformer(np.log1p, accept_sparse=True), make()).fit(X)
    logs = X.copy()
    logs.data = np.log1p(logs.data)
    model = make().fit(logs)
    np.testing.assert_array_equal(pipeline.transform(X), model.transform(logs))
    assert pipeline.score(X) == model.score(logs)
    np.testing.assert_array_equal(clone(pipeline).fit(X).predict(X), model.predict(logs))
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.recommend([1, 2])[1], model.recommend([1, 2])[1])
    assert copy.partial_fit(logs[:1]).user_factors_.shape == (N_USERS + 1, 6)


def test_data_frames():
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(interactions().toarray(), columns=[f"film {i}" for i in range(N_ITEMS)])
    model = make().set_output(transform="pandas").fit(X)
    assert model.feature_names_in_[0] == "film 0"
    assert list(model.transform(X).columns) == [f"wals{i}" for i in range(6)]
    np.testing.assert_array_equal(model.recommend(X[:3])[0], model.recommend([0, 1, 2])[0])
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(X.rename(columns={"film 0": "film x"}))
