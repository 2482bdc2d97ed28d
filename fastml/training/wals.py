"""Weighted alternating least squares on a CSR matrix users x items.

Implicit feedback minimises, over the stored entries S with weights c,

    sum_S c (w_u.h_i - 1)^2 + a0 sum_all (w_u.h_i)^2 + lambda (sum_u n_u^nu |w_u|^2 + sum_i n_i^nu |h_i|^2)

with n_u = |S_u| + a0 I and n_i = |S_i| + a0 U. Explicit feedback minimises, over the ratings r with weights c,

    sum_S c (w_u.h_i + b_u + b_i + mean - r)^2 + lambda (sum_u n_u^nu (|w_u|^2 + b_u^2) + the same of the items)

with n_u = |S_u| and n_i = |S_i|. Each half-step is a least squares problem for every row on its own.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from fastml.runtime.wals import Side, gramian, half_step, sort_rows

_CG_STEPS = 3
_FEW_FACTORS = 16  # up to here an exact half-step costs little more than three steps of conjugate gradient


class Factors(NamedTuple):
    """What is learned; biases are None and the mean is 0 for implicit feedback."""

    users: np.ndarray
    items: np.ndarray
    user_biases: np.ndarray | None
    item_biases: np.ndarray | None
    mean: float


class _Rows:
    """The rows of X, or of X.T, and their part of the objective."""

    def __init__(self, X, weights, *, feedback, regularization, unobserved_weight, regularization_exponent):
        self.shape, self.is_explicit = X.shape, feedback == "explicit"
        self.unobserved_weight = 0.0 if self.is_explicit else unobserved_weight
        weight, self.ratings = (weights, X.data) if self.is_explicit else (X.data, None)
        self.sorted = sort_rows(X.indptr, X.indices, weight, np.ones_like(weight))
        n = np.diff(X.indptr) + self.unobserved_weight * X.shape[1]
        self.ridge = (regularization * n**regularization_exponent).astype(X.dtype)

    def solve(self, own, other, mean, how, n_threads, loss=None, known=None):
        """New factors and biases (or None) given (factors, biases) of the other side; ``how`` are blocks and steps."""
        side = Side(self.sorted, self.ridge, self.unobserved_weight, *how(own[0].shape[1] + self.is_explicit))
        if not self.is_explicit:
            return half_step(side, other[0], own[0], n_threads, loss, known), None
        rows = self.sorted.rows
        target = (self.ratings - mean - other[1][rows.indices]).astype(self.ridge.dtype)
        side = side._replace(sorted_rows=self.sorted._replace(rows=rows._replace(target=target)))
        features = np.column_stack([other[0], np.ones_like(other[1])])
        solved = half_step(side, features, np.column_stack(own), n_threads, loss)
        return np.ascontiguousarray(solved[:, :-1]), np.ascontiguousarray(solved[:, -1])

    def penalty(self, factors, biases):
        """The regularization part of the objective."""
        squares = np.einsum("nf,nf->n", factors, factors).astype(np.float64)
        return float(self.ridge @ (squares if biases is None else squares + biases**2))


class WALSProblem:
    """The objective on some interactions, and epochs that lower it.

    Parameters
    ----------
    X : CSR array (U, I), float32 or float64
        Weights, or ratings; canonical and finite.
    feedback, regularization, unobserved_weight, regularization_exponent, solver, block_size, n_threads
        As the estimator has them.
    weights : ndarray or None
        Weights of the ratings, in the order of ``X.data``.
    """

    def __init__(self, X, *, solver, block_size, n_threads, weights=None, **terms):
        self.X, self.n_threads = X, n_threads
        self.solver, self.block_size = solver, block_size
        self.weights = np.ones_like(X.data) if weights is None else weights
        self.users = _Rows(X, self.weights, **terms)
        self.items = _Rows(*_transposed(X, self.weights), **terms)
        self._last = None, None  # users' factors that an epoch ended with, and their Gramian: the next begins there

    def start(self, n_factors, init_scale, random_state):
        """Factors to begin at."""
        factors = []
        for rows in self.users, self.items:
            drawn = random_state.normal(scale=init_scale / math.sqrt(n_factors), size=(rows.shape[0], n_factors))
            has_entries = np.diff(rows.sorted.rows.indptr) > 0
            factors.append((drawn * has_entries[:, None]).astype(self.X.dtype))
        if not self.users.is_explicit:
            return Factors(*factors, None, None, 0.0)
        biases = [np.zeros(len(side), self.X.dtype) for side in factors]
        return Factors(*factors, *biases, float(np.average(self.X.data.astype(np.float64), weights=self.weights)))

    def epoch(self, factors):
        """New factors of all items, then of all users; and the objective's parts, observed, unobserved, penalty."""
        users, items = (factors.users, factors.user_biases), (factors.items, factors.item_biases)
        of_users = self._gramian(users[0]) if self._last[0] is not users[0] else self._last[1]
        items = self.items.solve(items, users, factors.mean, self._how, self.n_threads, known=of_users)
        of_items, loss = self._gramian(items[0]), np.empty(len(users[0]))
        users = self.users.solve(users, items, factors.mean, self._how, self.n_threads, loss, of_items)
        self._last = users[0], self._gramian(users[0])
        unobserved = self.users.unobserved_weight * float(np.vdot(self._last[1], of_items))
        penalty = self.users.penalty(*users) + self.items.penalty(*items)
        return Factors(users[0], items[0], users[1], items[1], factors.mean), (float(loss.sum()), unobserved, penalty)

    def _gramian(self, factors):
        """Only where something is made of it."""
        return gramian(factors, self.n_threads) if self.users.unobserved_weight > 0 else np.zeros((1, 1))

    def _how(self, n_unknowns):
        """Blocks of unknowns, or None and the number of steps of conjugate gradient."""
        solver = self.solver
        if solver == "auto":
            is_safe = self.users.unobserved_weight > 0 or self.users.ridge.any()
            solver = "cg" if n_unknowns > _FEW_FACTORS and is_safe else "cholesky"
        if solver == "cg":
            return None, _CG_STEPS
        return _blocks(n_unknowns, self.block_size if solver == "block" else n_unknowns), 0


def _blocks(n_unknowns, size):
    """Ranges of at most ``size`` unknowns."""
    starts = np.arange(0, n_unknowns, min(size, n_unknowns))
    return np.column_stack([starts, np.append(starts[1:], n_unknowns)])


def _transposed(X, weights):
    """X.T as CSR, and the weights in its order."""
    order = csr_array((np.arange(X.nnz), X.indices, X.indptr), X.shape).T.tocsr()
    indptr, indices = order.indptr.astype(np.int64, copy=False), order.indices.astype(np.int64, copy=False)
    result = csr_array(order.shape, dtype=X.dtype)
    result.data, result.indices, result.indptr = X.data[order.data], indices, indptr
    return result, weights[order.data]


def fold_in(X, factors, *, n_threads, weights=None, **terms):
    """Users (n, f) and their biases (or None) for rows X (n, I), each solved exactly given the items."""
    rows = _Rows(X, np.ones_like(X.data) if weights is None else weights, **terms)
    items = factors.items, factors.item_biases
    own = tuple(None if array is None else np.zeros((X.shape[0], *array.shape[1:]), array.dtype) for array in items)
    return rows.solve(own, items, factors.mean, lambda n: (_blocks(n, n), 0), n_threads)
