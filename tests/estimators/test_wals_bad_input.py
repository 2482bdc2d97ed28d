"""Bad input to WALS, case by case: the error that comes, what it says, and that nothing has changed afterwards."""

import contextlib
import copy

import numpy as np
import pytest
from recommenders import N_ITEMS, N_USERS, interactions, make, weights_like
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

X = interactions()


def changed(**arrays):
    """X with one of its arrays changed."""
    other = X.copy()
    for name, (at, value) in arrays.items():
        array = getattr(other, name)
        array[at] = value
    return other


def dense(value):
    array = X.toarray()
    array[2, 3] = value
    return array


def times(factor, dtype=np.float32):
    return csr_array((X.data.astype(dtype) * dtype(factor), X.indices, X.indptr), X.shape)


MATRICES = {
    "negative": (lambda: dense(-1), "Negative values in data: X has -1.0 at row 2, column 3; .*users x items"),
    "negative, CSR": (lambda: changed(data=(5, -2)), "Negative values in data: X has -2.0 at row"),
    "NaN": (lambda: dense(np.nan), "Input X contains NaN"),
    "NaN, CSR": (lambda: changed(data=(5, np.nan)), "Input X contains NaN"),
    "infinity": (lambda: changed(data=(5, np.inf)), "Input X contains infinity"),
    "column too large": (lambda: changed(indices=(5, N_ITEMS)), "X is a broken sparse csr"),
    "column negative": (lambda: changed(indices=(5, -1)), "X is a broken sparse csr"),
    "indptr falls": (lambda: changed(indptr=(5, 10**4)), "X is a broken sparse csr"),
    "indptr ends late": (lambda: changed(indptr=(-1, 10**6)), "X is a broken sparse csr"),
    "one dimension": (lambda: X.toarray()[0], "Expected 2D array, got 1D array(?s:.*)users x items"),
    "three dimensions": (lambda: np.ones((2, N_ITEMS, 2)), "dim 3(?s:.*)users x items"),
    "no users": (lambda: csr_array((0, N_ITEMS)), r"0 sample\(s\)(?s:.*)users x items"),
    "no items": (lambda: csr_array((N_USERS, 0)), r"0 feature\(s\)(?s:.*)users x items"),
    "complex": (lambda: X * 1j, "Complex data not supported"),
    "strings": (lambda: np.full(X.shape, "a"), "could not convert string to float"),
    "overflow of float32": (lambda: times(1e19), "X: the values of .* would overflow float32 when multiplied; scale"),
    "sums that overflow": (lambda: times(1e18), "X: the values of .* sum to .* would overflow float32"),
    "overflow of float64": (lambda: times(1e200, np.float64), "would overflow float"),
}  # fmt: skip
OF_NO_MODEL = {
    "no entries": (lambda: csr_array((N_USERS, N_ITEMS)), r"X \(users x items\) of shape \(60, 40\) has no entries"),
    "zeros": (lambda: np.zeros((N_USERS, N_ITEMS)), "has no entries: there is nothing to learn from"),
    "stored zeros": (lambda: times(0), "has no entries"),
}
OF_A_MODEL = {
    "transposed": (lambda: X.T, r"X has 60 features, .*(?s:.*)users x items with 40 items.*\(60, 40\).*pass X\.T"),
    "fewer items": (lambda: X[:, :-1], "X has 39 features, (?s:.*)users x items with 40 items"),
    "beyond float32": (lambda: times(1e40, np.float64), "would overflow float32"),
}


def unchanged(model, call, error, match):
    """The call raises, and leaves the model as it was, down to the factors."""
    before, state = dict(vars(model)), copy.deepcopy(vars(model))
    with pytest.raises(error, match=match):
        call(model)
    assert vars(model) == before
    for name, value in state.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(model, name), value)


@pytest.fixture(scope="module")
def fitted():
    return make().fit(X.astype(np.float32))


@pytest.fixture(scope="module")
def rated():
    return make("explicit").fit(X)


@pytest.mark.parametrize("case", [*MATRICES, *OF_NO_MODEL])
def test_fit(case, fitted):
    matrix, match = {**MATRICES, **OF_NO_MODEL}[case]
    unchanged(clone(fitted), lambda model: model.fit(matrix()), ValueError, match)
    unchanged(fitted, lambda model: model.fit(matrix()), ValueError, match)


@pytest.mark.parametrize("method", ["transform", "predict", "score", "recommend", "partial_fit", "explain"])
@pytest.mark.parametrize("case", [*MATRICES, *OF_A_MODEL])
def test_use(case, method, fitted):
    matrix, match = {**MATRICES, **OF_A_MODEL}[case]
    arguments = {"explain": (3,)}.get(method, ())
    error = ValueError
    if case == "one dimension" and method in ("recommend", "explain"):  # that is ids
        error, match = TypeError, "expected integer ids of users, got float64; .* new rows need two dimensions"
    unchanged(fitted, lambda model: getattr(model, method)(matrix(), *arguments), error, match)


def test_large_sums_are_no_error_where_each_is_small_enough():
    model = make(n_factors=1).fit(times(1e17))
    assert np.isfinite(model.loss_curve_).all()
    np.testing.assert_allclose(model.transform(times(1e17)), model.user_factors_, rtol=1e-3)


def test_weights_times_ratings_that_overflow():
    ratings = times(1e10)
    weights = ratings * np.float32(1e2)
    match = "weights times X: the values of .* would overflow float32"
    unchanged(make("explicit"), lambda model: model.fit(ratings, weights=weights), ValueError, match)


def test_explicit_feedback_takes_any_sign(rated):
    shifted = X.copy()
    shifted.data -= 3
    assert np.isfinite(make("explicit").fit(shifted).transform(shifted)).all()


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda m: m.recommend(N_USERS), ValueError, r"user_ids: unknown user 60 at position 0: .* users 0\.\.59"),
        (lambda m: m.recommend([1, -1]), ValueError, "user_ids: unknown user -1 at position 1"),
        (lambda m: m.recommend(2**64 - 1), ValueError, "unknown user 18446744073709551615"),
        (lambda m: m.recommend([1.0, 2.0]), TypeError, "user_ids: expected integer ids of users, got float64"),
        (lambda m: m.recommend(1.5), TypeError, "user_ids: expected integer ids of users"),
        (lambda m: m.recommend([True, False]), TypeError, "expected integer ids of users, got bool"),
        (lambda m: m.recommend(True), TypeError, "expected integer ids of users, got bool"),
        (lambda m: m.recommend("anna"), TypeError, "expected integer ids of users, got <U4"),
        (lambda m: m.recommend(None), TypeError, "expected integer ids of users, got object"),
        (lambda m: m.recommend(1, 0), ValueError, "k: expected at least 1, got 0"),
        (lambda m: m.recommend(1, -3), ValueError, "k: expected at least 1, got -3"),
        (lambda m: m.recommend(1, 2.0), TypeError, "k: expected a whole number, got 2.0 of type float"),
        (lambda m: m.recommend(1, True), TypeError, "k: expected a whole number"),
        (lambda m: m.recommend(1, candidates=[]), ValueError, "candidates is empty: pass at least one item, or None"),
        (lambda m: m.recommend(1, candidates=[3, 5, 3]), ValueError, "candidates: item 3 comes more than once"),
        (lambda m: m.recommend(1, candidates=[3, N_ITEMS]), ValueError, r"unknown item 40 at position 1.* 0\.\.39"),
        (lambda m: m.recommend(1, candidates=[3.5]), TypeError, "integer ids of items, got float64; an id is a"),
        (lambda m: m.recommend(1, candidates=np.ones(N_ITEMS, bool)), TypeError, "candidates: expected integer ids"),
        (lambda m: m.recommend(1, candidates=[[1, 2]]), ValueError, r"candidates: .* got shape \(1, 2\)"),
        (lambda m: m.similar_items(N_ITEMS), ValueError, "ids: unknown item 40"),
        (lambda m: m.similar_items([0.5]), TypeError, "ids: expected integer ids of items"),
        (lambda m: m.similar_items([[1]]), ValueError, r"got shape \(1, 1\)"),
        (lambda m: m.similar_items(1, 0), ValueError, "k: expected at least 1"),
        (lambda m: m.similar_users(N_USERS), ValueError, "ids: unknown user 60"),
        (lambda m: m.explain(N_USERS, 1), ValueError, "user: unknown user 60"),
        (lambda m: m.explain([1, 2], 1), ValueError, r"user: expected one id or one row \(1, n_items\)"),
        (lambda m: m.explain(X[:2], 1), ValueError, r"user: expected one row of users x items"),
        (lambda m: m.explain(1, N_ITEMS), ValueError, "item: unknown item 40"),
        (lambda m: m.explain(1, [2]), ValueError, "item: expected one item's id, got shape"),
        (lambda m: m.explain(1, 2, 0), ValueError, "k: expected at least 1"),
        (lambda m: m.predict_pairs([1, 2], [1, 2, 3]), ValueError, "expected pairs, got 2 users and 3 items"),
        (lambda m: m.predict_pairs([1, N_USERS], [1, 2]), ValueError, "user_ids: unknown user 60"),
        (lambda m: m.predict_pairs(1, -1), ValueError, "item_ids: unknown item -1"),
        (lambda m: m.partial_fit(X[:2], [1, 1]), ValueError, "user_ids: user 1 comes more than once"),
        (lambda m: m.partial_fit(X[:2], [1]), ValueError, "user_ids: expected 2 ids, one a row of X"),
        (lambda m: m.partial_fit(X[:2], [1, 61]), ValueError, r"must follow on 59 without gaps, got \[61\]"),
        (lambda m: m.partial_fit(X[:2], [1, 10**6]), ValueError, r"must follow on 59 without gaps, got \[1000000\]"),
        (lambda m: m.partial_fit(X[:2], [-1, 1]), ValueError, "user_ids: unknown user -1"),
        (lambda m: m.partial_fit(X[:2], [0.0, 1.0]), TypeError, "user_ids: expected integer ids of users"),
        (lambda m: m.partial_fit(X, weights=weights_like(X)), ValueError, "weights: only for feedback='explicit'"),
        (lambda m: m.transform(X, weights=weights_like(X)), ValueError, "weights: only for feedback='explicit'"),
        (lambda m: m.fit(X, weights=weights_like(X)), ValueError, "weights: only for feedback='explicit'"),
        (lambda m: m.score(X[[3, 7]]), ValueError, r"X \(users x items\) has no row with two entries or more"),
    ],
)  # fmt: skip
def test_arguments(call, error, match, fitted):
    unchanged(fitted, call, error, match)


@pytest.mark.parametrize(
    ("weights", "error", "match"),
    [
        (lambda: weights_like(X).toarray(), TypeError, "weights: expected a sparse matrix users x items"),
        (lambda: weights_like(X)[:-1], ValueError, r"weights: expected shape \(60, 40\), users x items as X, got \(59"),
        (lambda: weights_like(X).T, ValueError, r"expected shape \(60, 40\), users x items as X, got \(40, 60\)"),
        (lambda: weights_like(X) * (X > 1), ValueError, "weights: expected one for each entry that X stores"),
        (lambda: csr_array(np.ones(X.shape)), ValueError, "weights: expected one for each entry that X stores"),
        (lambda: changed(data=(3, -1)), ValueError, "Negative values in data: weights has -1.0 at row"),
        (lambda: changed(data=(3, np.nan)), ValueError, "weights: expected finite numbers"),
        (lambda: changed(indices=(3, 99)), ValueError, "weights is a broken sparse csr"),
        (lambda: changed(data=(slice(None), 0)), ValueError, "weights: expected at least one above 0"),
        (lambda: times(1e200, np.float64), ValueError, "weights: .* would overflow float64"),
        (lambda: X * 1j, TypeError, "weights: expected real numbers"),
    ],
)
def test_weights(weights, error, match, rated):
    for call in (
        lambda model: model.fit(X, weights=weights()),
        lambda model: model.transform(X, weights=weights()),
        lambda model: model.partial_fit(X, weights=weights()),
    ):
        unchanged(rated, call, error, match)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"n_factors": 0}, "n_factors"),
        ({"n_factors": 2.0}, "n_factors"),
        ({"feedback": "both"}, "feedback"),
        ({"regularization": -1}, "regularization"),
        ({"regularization": np.inf}, "regularization"),
        ({"regularization": np.nan}, "regularization"),
        ({"unobserved_weight": -0.1}, "unobserved_weight"),
        ({"regularization_exponent": -1}, "regularization_exponent"),
        ({"solver": "svd"}, "solver"),
        ({"block_size": 0}, "block_size"),
        ({"max_iter": 0}, "max_iter"),
        ({"tol": -1}, "tol"),
        ({"init_scale": 0}, "init_scale"),
        ({"n_recommendations": 0}, "n_recommendations"),
        ({"early_stopping": "yes"}, "early_stopping"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"n_iter_no_change": 0}, "n_iter_no_change"),
        ({"random_state": "zero"}, "random_state"),
        ({"n_jobs": 0}, "n_jobs"),
        ({"regularization": 1e30}, "regularization=1e.30 is too large: numbers would overflow float32"),
        ({"regularization_exponent": 1e3, "regularization": 0}, "regularization_exponent=1000.0 is too large"),
        ({"unobserved_weight": 1e19}, "unobserved_weight=1e.19 is too large"),
        ({"init_scale": 1e20}, "init_scale=1e.20 is too large"),
    ],
)
def test_parameters(settings, match, fitted):
    model = clone(fitted).set_params(**settings)
    unchanged(model, lambda model: model.fit(X.astype(np.float32)), ValueError, match)


@pytest.mark.parametrize("solver", ["cholesky", "block", "auto"])
def test_singular_systems(solver):
    """Without regularization a user with fewer ratings than unknowns has no unique factor."""
    model = make("explicit", regularization=0, solver=solver, n_factors=12, block_size=4)
    unchanged(model, lambda model: model.fit(X), ValueError, "regularization")


def test_conjugate_gradient_of_singular_systems():
    """Its few steps are defined where no solution is: numbers or the error, never NaN."""
    model = make("explicit", regularization=0, solver="cg", n_factors=12)
    with contextlib.suppress(ValueError):
        model.fit(X)
    for name in "user_factors_", "item_factors_":
        assert np.isfinite(getattr(model, name, 0)).all()


def test_singular_fold_in(rated):
    model = copy.copy(rated).set_params(regularization=0)
    for call in (
        lambda model: model.transform(X),
        lambda model: model.partial_fit(X),
        lambda model: model.recommend(X),
        lambda model: model.explain(7, 3),
    ):
        unchanged(model, call, ValueError, "regularization")
    assert np.isfinite(make(regularization=0).fit(X).user_factors_).all()  # all pairs are observed a little


@pytest.mark.parametrize(
    ("settings", "X", "match"),
    [
        ({"n_factors": 3}, X, r"warm_start needs the same .* \(60, 40, 6, 'implicit'\), now it is \(60, 40, 3"),
        ({}, X.T, r"warm_start needs the same users x items.*now it is \(40, 60"),
        ({}, X[:-1], r"now it is \(59, 40"),
        ({"feedback": "explicit"}, X, "warm_start needs the same users x items, n_factors and feedback"),
    ],
)
def test_warm_start(settings, X, match, fitted):
    model = copy.copy(fitted).set_params(warm_start=True, **settings)
    unchanged(model, lambda model: model.fit(X), ValueError, match)


def test_early_stopping_needs_users():
    few = csr_array(np.eye(4) + np.eye(4, k=1) * [0, 1, 0, 0])
    unchanged(make(early_stopping=True), lambda m: m.fit(csr_array(np.eye(4))), ValueError, "early_stopping: 0 users")
    assert make(early_stopping=True).fit(few).n_iter_ > 0
    alone = csr_array(np.ones((1, 4)))
    unchanged(make(early_stopping=True), lambda m: m.fit(alone), ValueError, "early_stopping: 1 users have")
    weights = csr_array((np.ones(few.nnz), few.indices, few.indptr), few.shape)
    weights.data[few.indptr[1] :] = 0
    model = make("explicit", early_stopping=True)
    unchanged(model, lambda m: m.fit(few, weights=weights), ValueError, "weights: all are 0 for the users to train on")


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.predict(X),
        lambda m: m.transform(X),
        lambda m: m.score(X),
        lambda m: m.recommend(1),
        lambda m: m.similar_items(1),
        lambda m: m.similar_users(1),
        lambda m: m.explain(1, 1),
        lambda m: m.predict_pairs(1, 1),
    ],
)
def test_before_fit(call):
    unchanged(make(), call, NotFittedError, "not fitted yet")


def test_partial_fit_before_fit():
    match = r"not fitted yet: partial_fit folds users in .* Call fit\(X\) first, with X users x items"
    unchanged(make(), lambda m: m.partial_fit(X), NotFittedError, match)
