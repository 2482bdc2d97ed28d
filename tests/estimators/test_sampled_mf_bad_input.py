"""Bad input to SampledMF: the error that comes, what it says, and that nothing has changed afterwards."""

import copy

import numpy as np
import pytest
from recommenders import N_ITEMS, N_USERS, interactions
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from fastml import SampledMF
from fastml.optim import SGD, Adam
from fastml.training.samplers import InBatchSampler, PopularitySampler, UniformSampler

X = interactions()


def make(**settings):
    options = {"n_factors": 4, "max_iter": 2, "random_state": 0, "n_negatives": 7, "batch_size": 50}
    return SampledMF(**{**options, **settings})


@pytest.fixture(scope="module")
def fitted():
    return make().fit(X)


def unchanged(model, call, error, match):
    before = dict(vars(model))
    arrays = {name: value.copy() for name, value in before.items() if isinstance(value, np.ndarray)}
    with pytest.raises(error, match=match):
        call(model)
    assert vars(model) == before
    for name, value in arrays.items():
        np.testing.assert_array_equal(getattr(model, name), value)


def dense(value, at=(2, 3)):
    array = X.toarray()
    array[at] = value
    return array


def broken():
    other = X.copy()
    other.indices[5] = N_ITEMS
    return other


MATRICES = {
    "negative": (lambda: dense(-1), "Negative values in data: X has -1.0 at row 2, column 3; .*users x items"),
    "NaN": (lambda: dense(np.nan), "Input X contains NaN"),
    "infinity": (lambda: dense(np.inf), "Input X contains infinity"),
    "column too large": (broken, "X is a broken sparse csr"),
    "one dimension": (lambda: X.toarray()[0], "Expected 2D array, got 1D array(?s:.*)users x items"),
    "no users": (lambda: csr_array((0, N_ITEMS)), r"0 sample\(s\)(?s:.*)users x items"),
    "strings": (lambda: np.full(X.shape, "a"), "could not convert string to float"),
}


@pytest.mark.parametrize("name", MATRICES)
def test_matrices(name, fitted):
    make_bad, match = MATRICES[name]
    for call in (
        lambda model: model.fit(make_bad()),
        lambda model: model.transform(make_bad()),
        lambda model: model.partial_fit(make_bad()),
        lambda model: model.recommend(make_bad()) if np.ndim(make_bad()) != 1 else model.predict(make_bad()),
    ):
        unchanged(copy.copy(fitted), call, ValueError, match)


def test_sums_that_overflow(fitted):
    match = "X: the values of .* sum to .* would overflow float32"
    unchanged(copy.copy(fitted), lambda m: m.fit((X * 1e18).astype(np.float32)), ValueError, match)


@pytest.mark.parametrize("entries", [0, -0.0])
def test_no_entries(entries, fitted):
    unchanged(copy.copy(fitted), lambda m: m.fit(np.full(X.shape, entries)), ValueError, r"\(60, 40\) has no entries")
    assert not fitted.transform(np.zeros((2, N_ITEMS))).any()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"n_factors": 0}, "n_factors"),
        ({"loss": "hinge"}, "loss.*must be a str among .*'bpr'"),
        ({"sampler": "zipf"}, "sampler.*must be a str among .*'in_batch'"),
        ({"sampler": UniformSampler}, "sampler"),
        ({"optimizer": "lbfgs"}, "optimizer.*must be a str among .*'adagrad'"),
        ({"n_negatives": 0}, "n_negatives"),
        ({"n_negatives": 1.5}, "n_negatives"),
        ({"correct_sampling_bias": "yes"}, "correct_sampling_bias"),
        ({"regularization": -1}, "regularization"),
        ({"regularization_exponent": -1}, "regularization_exponent"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_iter": 0}, "max_iter"),
        ({"tol": -1}, "tol"),
        ({"init_scale": 0}, "init_scale"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"n_jobs": 0}, "n_jobs"),
        ({"optimizer": Adam(-1)}, "learning_rate"),
        ({"optimizer": Adam(max_grad_norm=1.0)}, "optimizer: SampledMF does not clip.*max_grad_norm=None"),
        ({"sampler": PopularitySampler(-1)}, "power"),
        ({"sampler": UniformSampler(replacement=False), "n_negatives": 41}, "n_negatives: expected at most 40 without"),
        ({"sampler": UniformSampler(replacement=False), "loss": "bpr"}, "sampler: with loss='bpr'.*replacement=True"),
        ({"sampler": InBatchSampler(replacement=False), "loss": "negative_sampling"}, "sampler: .*replacement=True"),
    ],
)
def test_parameters(settings, match, fitted):
    model = clone(fitted).set_params(**settings)
    unchanged(model, lambda model: model.fit(X), (ValueError, TypeError), match)


@pytest.mark.parametrize("loss", ["sampled_softmax", "softmax", "negative_sampling", "bpr"])
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": SGD(1e12)},
        {"optimizer": SGD(1e30)},
        {"init_scale": 1e30},
        {"init_scale": 1e300},
        {"regularization": 1e38, "optimizer": SGD(1.0)},
        {"regularization": 1e300},
    ],
)
def test_divergence(settings, loss, fitted):
    model = copy.copy(fitted).set_params(loss=loss, max_iter=20, **settings)
    match = "SampledMF: the objective is not finite after epoch .* Lower the learning rate"
    unchanged(model, lambda model: model.fit(X.astype(np.float32)), ValueError, match)


@pytest.mark.parametrize("loss", ["negative_sampling", "bpr"])
def test_nobody_has_negatives(loss):
    full = np.ones((3, 4))
    full[1] = 0
    unchanged(make(loss=loss), lambda m: m.fit(full), ValueError, "every user with entries has all items.*softmax")
    assert make().fit(full).n_iter_ == 2


def test_warm_start_and_early_stopping(fitted):
    model = copy.copy(fitted).set_params(warm_start=True)
    match = (
        r"warm_start needs the same users x items, n_factors: the last fit had \(60, 40, 4\), now it is \(59, 40, 4\)"
    )
    unchanged(model, lambda m: m.fit(X[:-1]), ValueError, match)
    match = "early_stopping: 0 users"
    unchanged(make(early_stopping=True), lambda m: m.fit(csr_array(np.eye(4))), ValueError, match)


@pytest.mark.parametrize("call", ["predict", "transform", "score", "recommend", "partial_fit"])
def test_before_fit(call):
    unchanged(make(), lambda m: getattr(m, call)(X), NotFittedError, "not fitted yet")


def test_ids(fitted):
    for call, error, match in (
        (lambda m: m.recommend(N_USERS), ValueError, "user_ids: unknown user 60"),
        (lambda m: m.recommend(0.5), TypeError, "user_ids: expected integer ids"),
        (lambda m: m.recommend(0, k=0), ValueError, "k"),
        (lambda m: m.similar_items(N_ITEMS), ValueError, "ids: unknown item 40"),
        (lambda m: m.predict_pairs([0, 1], [0, 1, 2]), ValueError, "expected pairs"),
        (lambda m: m.transform(X.T), ValueError, "looks transposed, pass X.T"),
        (lambda m: m.partial_fit(X[:2], [1, 1]), ValueError, "user_ids: user 1 comes more than once"),
    ):
        unchanged(copy.copy(fitted), call, error, match)
