"""Interactions for the tests of recommenders, and what WALS should make of them."""

import naive
import numpy as np
from scipy.sparse import csr_array

from fastml import WALS

N_USERS, N_ITEMS = 60, 40
TOLERANCE = {np.float64: 1e-8, np.float32: 1e-3}
TERMS = {"regularization": 0.02, "regularization_exponent": 0.7}


def interactions(seed=0, shape=(N_USERS, N_ITEMS), dtype=np.float64):
    """Users of two tastes, with an empty user, an empty item and a user of one entry."""
    rng = np.random.default_rng(seed)
    tastes = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % 2
    X = (rng.random(shape) < np.where(tastes, 0.3, 0.03)) * rng.integers(1, 6, shape)
    X[3], X[:, 5], X[7], X[7, 8] = 0, 0, 0, 2
    return csr_array(X.astype(dtype))


def with_zeros(X):
    """The same with a few ratings of zero, stored as such."""
    X = X.copy()
    X.data[::7] = 0
    return X


def weights_like(X):
    return csr_array((np.random.default_rng(1).uniform(0, 2, X.nnz).round(1), X.indices, X.indptr), X.shape)


def make(feedback="implicit", **settings):
    extra = {"unobserved_weight": 0.1} if feedback == "implicit" else {}
    options = {"n_factors": 6, "max_iter": 3, "random_state": 0, "solver": "cholesky", **TERMS, **extra}
    return WALS(feedback=feedback, **{**options, **settings})


def objective(model, X, weights=None):
    """The parts of a fitted model's objective, by definition."""
    factors = model.user_factors_, model.item_factors_
    if model.feedback == "implicit":
        return naive.wals_objective(X, *factors, unobserved_weight=model.unobserved_weight, **TERMS)
    biases = model.user_biases_, model.item_biases_, model.mean_
    return naive.ratings_objective(X, *factors, *biases, weights=weights, **TERMS)


def users_by_definition(model, X, weights=None):
    """Users given the items: factors and biases, or None."""
    if model.feedback == "implicit":
        return naive.wals_users(X, model.item_factors_, unobserved_weight=model.unobserved_weight, **TERMS), None
    return naive.ratings_users(X, model.item_factors_, model.item_biases_, model.mean_, weights=weights, **TERMS)
