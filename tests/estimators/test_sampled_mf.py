"""SampledMF: the contract of a recommender, and its place among scikit-learn's tools."""

import pickle

import naive
import numpy as np
import pytest
from recommenders import N_ITEMS, N_USERS, interactions
from scipy.sparse import csc_array, csr_array, csr_matrix
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from fastml import SampledMF
from fastml.optim import SGD, Adam
from fastml.training.samplers import InBatchSampler, PopularitySampler, UniformSampler

LOSSES = ["sampled_softmax", "softmax", "negative_sampling", "bpr"]
all_losses = pytest.mark.parametrize("loss", LOSSES)


def make(loss="sampled_softmax", **settings):
    options = {"n_factors": 6, "max_iter": 3, "random_state": 0, "n_negatives": 7, "batch_size": 50}
    return SampledMF(loss=loss, **{**options, "optimizer": Adam(0.03), **settings})


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("sampler", ["uniform", "popularity", "log_uniform", "in_batch"])
@all_losses
def test_fit(loss, sampler, dtype):
    X = interactions(dtype=dtype)
    model = make(loss, sampler=sampler, max_iter=15).fit(X)
    assert model.user_factors_.shape == (N_USERS, 6)
    assert model.item_factors_.shape == (N_ITEMS, 6)
    assert model.user_factors_.dtype == model.item_factors_.dtype == model.transform(X).dtype == dtype
    assert model.loss_curve_.shape == (model.n_iter_, 2) == (15, 2)
    assert model.loss_curve_[-1, 0] < model.loss_curve_[0, 0]
    factors = model.user_factors_.astype(float), model.item_factors_.astype(float)
    expected = naive.mf_penalty(X, *factors, model.regularization, model.regularization_exponent)
    np.testing.assert_allclose(model.loss_curve_[-1, 1], expected, rtol=1e-4)
    assert not model.user_factors_[3].any()  # no entries
    assert not model.transform(X)[3].any()
    never_drawn = sampler in ("popularity", "in_batch") and loss != "softmax"
    assert model.item_factors_[5].any() != never_drawn
    assert model.score(X) > make(loss, sampler=sampler, max_iter=1, optimizer=SGD(1e-9)).fit(X).score(X)


@all_losses
def test_samplers_by_name_are_the_samplers(loss):
    X = interactions()
    for name, sampler in (
        ("uniform", UniformSampler()),
        ("popularity", PopularitySampler()),
        ("in_batch", InBatchSampler()),
    ):
        same = [make(loss, sampler=s).fit(X).item_factors_ for s in (name, sampler)]
        np.testing.assert_array_equal(*same)
    other = make(loss, sampler=PopularitySampler(0.1)).fit(X).item_factors_
    assert np.array_equal(other, make(loss, sampler="popularity").fit(X).item_factors_) == (loss == "softmax")


@all_losses
def test_only_ratios_of_weights_count(loss):
    X = interactions()
    models = [make(loss, regularization_exponent=0.5).fit(X * factor) for factor in (1, 1024)]
    np.testing.assert_array_equal(models[0].item_factors_, models[1].item_factors_)
    np.testing.assert_allclose(models[0].transform(X), models[1].transform(1024 * X), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("optimizer", ["adam", "adagrad", "sgd", SGD(0.01, momentum=0.5)])
def test_optimizers(optimizer):
    curve = make(optimizer=optimizer, max_iter=20).fit(interactions()).loss_curve_
    assert curve[-1, 0] < curve[0, 0]


@all_losses
def test_transform(loss):
    X, new = interactions(), interactions(seed=5, shape=(9, N_ITEMS))
    model = make(loss).fit(X)
    np.testing.assert_array_equal(model.transform(new)[4:6], model.transform(new[4:6]))  # companions have no say
    np.testing.assert_array_equal(make(loss).fit_transform(X), model.transform(X))
    assert model.get_feature_names_out().tolist() == [f"sampledmf{i}" for i in range(6)]


@all_losses
def test_recommend(loss):
    X = interactions()
    model = make(loss).fit(X)
    scores = model.user_factors_ @ model.item_factors_.T
    np.testing.assert_allclose(model.predict_pairs(np.arange(5), np.arange(5)), np.diag(scores)[:5], rtol=1e-9)
    scores[X.toarray() > 0] = -np.inf
    ids, values = model.recommend([0, 1, 9], k=4)
    np.testing.assert_array_equal(ids, np.argsort(-scores[[0, 1, 9]], axis=1, kind="stable")[:, :4])
    np.testing.assert_allclose(values, -np.sort(-scores[[0, 1, 9]], axis=1)[:, :4], rtol=1e-9)
    own = model.transform(X) @ model.item_factors_.T
    own[X.toarray() > 0] = -np.inf
    np.testing.assert_array_equal(model.predict(X)[10:], np.argsort(-own, axis=1, kind="stable")[10:, :10])
    unit = model.item_factors_ / np.maximum(np.linalg.norm(model.item_factors_, axis=1, keepdims=True), 1e-300)
    ids, values = model.similar_items(0, k=1)
    cosines = unit @ unit[0]
    cosines[0] = -1
    assert ids == [cosines.argmax()]
    np.testing.assert_allclose(values, cosines.max())
    assert model.similar_users([0, 1], k=3)[0].shape == (2, 3)
    assert not hasattr(model, "explain")


@all_losses
def test_partial_fit(loss):
    X, new = interactions(), interactions(seed=5, shape=(9, N_ITEMS))[:3]
    model = make(loss).fit(X)
    items, users = model.item_factors_.copy(), model.user_factors_.copy()
    model.partial_fit(new).partial_fit(new[:1], [7])
    np.testing.assert_array_equal(model.item_factors_, items)
    np.testing.assert_array_equal(model.user_factors_[N_USERS:], model.transform(new))
    np.testing.assert_array_equal(model.user_factors_[7], model.transform(new)[0])
    np.testing.assert_array_equal(np.delete(model.user_factors_[:N_USERS], 7, axis=0), np.delete(users, 7, axis=0))
    seen = new[[1]].indices
    assert not np.isin(model.recommend(N_USERS + 1, k=N_ITEMS - len(seen))[0], seen).any()


def test_formats_and_types():
    X = interactions()
    model = make().fit(X)
    for other in X.toarray(), csr_matrix(X), csc_array(X), X.tocoo(), X.astype(np.int32), X.toarray().tolist():
        np.testing.assert_array_equal(make().fit(other).user_factors_, model.user_factors_)
        np.testing.assert_array_equal(model.predict(other), model.predict(X))
    zeros = X.copy()
    zeros.data[::7] = 0
    bare = zeros.copy()
    bare.eliminate_zeros()
    np.testing.assert_array_equal(make().fit(zeros).item_factors_, make().fit(bare).item_factors_)
    assert zeros.nnz > bare.nnz  # and the caller's X is as it was


@all_losses
def test_same_bits_for_any_n_jobs_and_another_seed_for_others(loss):
    X = interactions()
    models = [make(loss, n_jobs=n).fit(X) for n in (1, 2, 16)]
    for other in models[1:]:
        assert other.user_factors_.tobytes() == models[0].user_factors_.tobytes()
        assert other.item_factors_.tobytes() == models[0].item_factors_.tobytes()
        assert other.transform(X).tobytes() == models[0].transform(X).tobytes()
    assert not np.allclose(make(loss, random_state=1).fit(X).item_factors_, models[0].item_factors_)


@all_losses
def test_early_stopping(loss):
    X = interactions()
    settings = {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 2, "max_iter": 40}
    model = make(loss, **settings).fit(X)
    scores = np.array(model.validation_scores_)
    assert len(scores) == model.n_iter_ == len(model.loss_curve_)
    assert scores.argmax() == model.n_iter_ - 3
    held_out = np.random.RandomState(0).permutation(np.flatnonzero(np.diff(X.indptr) >= 2))
    held_out = held_out[: int(np.ceil(0.3 * len(held_out)))]
    np.testing.assert_array_equal(model.user_factors_[held_out], model.transform(X)[held_out])
    assert model.score(X[held_out]) == scores.max()
    assert make(loss).fit(X).validation_scores_ is None


def test_warm_start():
    X = interactions()
    model = make(warm_start=True).fit(X)
    curve, kept = model.loss_curve_, model.user_factors_
    before = kept.copy()
    model.fit(X)
    np.testing.assert_array_equal(kept, before)
    assert model.loss_curve_[0, 0] < curve[0, 0]
    model.partial_fit(X[:2]).set_params(early_stopping=True).fit(interactions(shape=(N_USERS + 2, N_ITEMS)))
    assert model.user_factors_.shape == (N_USERS + 2, 6)


def test_tol_and_verbose(capsys):
    model = make(max_iter=60, tol=0.01, verbose=1).fit(interactions())
    assert 1 < model.n_iter_ < 60
    first = capsys.readouterr().out.splitlines()[0]
    total, parts = model.loss_curve_[0].sum(), "(loss {:.6g}, regularization {:.6g})".format(*model.loss_curve_[0])
    assert first == f"SampledMF: epoch 1, objective {total:.6g} {parts}"


def test_pipeline_clone_pickle_and_search():
    X = interactions()
    pipeline = make_pipeline(FunctionTransformer(np.log1p, accept_sparse=True), make()).fit(X)
    logs = X.copy()
    logs.data = np.log1p(logs.data)
    model = make().fit(logs)
    np.testing.assert_array_equal(pipeline.transform(X), model.transform(logs))
    np.testing.assert_array_equal(clone(pipeline).fit(X).predict(X), model.predict(logs))
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.transform(X), model.transform(X))
    assert copy.partial_fit(logs[:1]).user_factors_.shape == (N_USERS + 1, 6)
    grid = {"optimizer__learning_rate": [0.001, 0.03], "loss": ["bpr", "softmax"]}
    search = GridSearchCV(make(), grid, cv=3).fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_data_frames():
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(interactions().toarray(), columns=[f"film {i}" for i in range(N_ITEMS)])
    model = make().set_output(transform="pandas").fit(X)
    assert model.feature_names_in_[0] == "film 0"
    assert list(model.transform(X).columns) == [f"sampledmf{i}" for i in range(6)]


@pytest.mark.parametrize("loss", ["negative_sampling", "bpr"])
def test_a_user_who_has_all_items(loss):
    X = interactions().toarray()
    X[10] = 1
    model, without = make(loss).fit(X), X.copy()
    without[10] = 0
    other = make(loss).fit(without)
    np.testing.assert_array_equal(model.item_factors_, other.item_factors_)
    assert not model.user_factors_[10].any()
    assert not model.transform(X)[10].any()
    assert (model.predict(X)[10] == -1).all()
    X[10, 1] = 0  # one is left
    assert make(loss).fit(csr_array(X)).user_factors_[10].any()
