"""Users of a factorization that was trained with negatives, given the items: each is a small convex problem.

What each loss is for one user is in ``fastml.kernels.fold_in``. It is minimised by L-BFGS from 0, in coordinates where
the items have no covariance. A tile of users shares the passes over the items, and each user has its own steps and end:
companions have no say in a row, and neither has the number of threads.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from fastml.kernels import fold_in as kernels
from fastml.kernels import lbfgs
from fastml.runtime import blas_limited, run_tasks

_TILE = 16  # users
_PANEL = 512  # items
_PAIRS = 10
_MAX_ROUNDS = 200
_TOLERANCE = {"f": 1e-5, "d": 1e-10}  # of the gradient, in units of the items' size


class Ridge(NamedTuple):
    """How much factors are held back by: ``regularization n^(exponent - 1)`` of a row of weight ``n mean``."""

    regularization: float
    exponent: float
    mean: float

    def of(self, weights):
        """For each of some rows; 0 for those without weight."""
        relative = np.where(weights > 0, weights, self.mean) / self.mean
        with np.errstate(over="ignore"):
            return np.where(weights > 0, self.regularization * relative ** (self.exponent - 1), 0.0)


class Expectation(NamedTuple):
    """What a fold-in minimises: the loss of a user, averaged over what is drawn.

    ``shift`` (I,) is of a softmax, else None. ``negatives`` (K,), ascending, are items that stand for all, and
    ``share`` (K,) their probabilities; for negative sampling ``n_negatives`` of them count.
    """

    loss: str
    ridge: Ridge
    shift: np.ndarray | None
    negatives: np.ndarray | None
    share: np.ndarray | None
    n_negatives: int


def fold_in(X, items, expectation, n_threads):
    """Factors (n, f) of users with the rows X (n, I), a CSR of positive weights."""
    basis, variance = _basis(items)
    turned = np.ascontiguousarray(items @ basis)
    evaluate = (_softmax if expectation.share is None else _pairs)(X, turned, expectation)
    size = np.sqrt(np.einsum("if,if->", turned, turned, dtype=np.float64) / len(items))
    n_factors, real = items.shape[1], items.dtype.type
    tol = real(_TOLERANCE[items.dtype.char] * max(size, np.finfo(items.dtype).tiny * 1e10))
    ridges = expectation.ridge.of(X.sum(axis=1, dtype=np.float64)).astype(items.dtype)
    users = np.zeros((X.shape[0], n_factors), items.dtype)
    l2 = real(expectation.ridge.regularization)
    shape = lbfgs.Shape(np.zeros_like(variance), variance, np.ones(_TILE, items.dtype), l2, tol, 10 * tol, False)

    def run(tile, slot):
        rows = slice(tile * _TILE, min((tile + 1) * _TILE, X.shape[0]))
        n = rows.stop - rows.start

        def gradient(W, grad):
            evaluate(rows, W, grad)
            grad[:n] += (ridges[rows] - l2)[:, np.newaxis] * W[:n]  # beyond what L-BFGS adds for all

        solved = _solve(gradient, shape, np.diff(X.indptr[rows.start : rows.stop + 1]))
        users[rows] = (solved @ basis.T)[:n]

    with blas_limited():
        run_tasks(run, -(-X.shape[0] // _TILE), n_threads)
    users[np.diff(X.indptr) == 0] = 0
    return users


def _basis(items):
    """Directions without covariance, and the variances along them."""
    centred = items - items.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T.astype(np.float64) @ centred / len(items))
    return vectors.astype(items.dtype), np.maximum(values, 0).astype(items.dtype)


def _solve(evaluate, shape, counts):
    """The minima (T, f) of a tile; rows without entries stay at 0."""
    n_factors, dtype = len(shape.mean), shape.mean.dtype
    trial, grad = (np.zeros((_TILE, n_factors + 1), dtype) for _ in range(2))  # the last is an intercept, not used
    status = np.full(_TILE, lbfgs.DONE)
    status[: len(counts)][counts > 0] = lbfgs.FRESH
    width = n_factors + 1
    state = lbfgs.State(
        status,
        *(np.zeros((_TILE, n), dtype) for n in (width, width, width, max(width, _PAIRS))),
        *(np.zeros((_TILE, _PAIRS, width), dtype) for _ in range(2)),
        np.zeros((_TILE, _PAIRS), dtype),
        np.zeros(_TILE, np.int64),
        *(np.zeros(_TILE, dtype) for _ in range(2)),
    )
    for _ in range(_MAX_ROUNDS):
        evaluate(trial[:, :-1], grad[:, :-1])
        lbfgs.advance(0, _TILE, trial, grad, shape, state)
        if (status == lbfgs.DONE).all():
            break
    scale = np.sqrt(shape.variance + shape.l2)
    scale[scale == 0] = 1
    return state.point[:, :-1] / scale


def _normalised(X):
    """Weights that sum to 1 in each row."""
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    sums = np.bincount(rows, X.data, X.shape[0])
    return (X.data / sums[rows]).astype(X.dtype)


def _softmax(X, items, expectation):
    """Fills the gradients of some rows, by a softmax over all items."""
    weights = csr_array((_normalised(X), X.indices, X.indptr), X.shape)
    shift = expectation.shift.astype(items.dtype)

    def evaluate(rows, W, grad):
        n = rows.stop - rows.start
        attraction = np.zeros((_TILE, items.shape[1]), items.dtype)
        attraction[:n] = weights[rows] @ items
        z, stats = np.empty((_TILE, _PANEL), items.dtype), np.empty((2, _TILE), items.dtype)
        kernels.softmax_user_grad(W, items, shift, attraction, z, stats, grad)

    return evaluate


def _pairs(X, items, expectation):
    """Fills the gradients of some rows, by the expected pairwise loss."""
    negatives, share = expectation.negatives, expectation.share
    places = np.full(len(items), -1)
    places[negatives] = np.arange(len(negatives))
    own = places[X.indices]
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    mass = np.bincount(rows, np.where(own < 0, 0, share[own]), X.shape[0])
    n_own = np.bincount(rows, (own >= 0) & (share[own] > 0), X.shape[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = np.where(n_own < np.count_nonzero(share), 1 / (1 - mass), 0.0).astype(items.dtype)
    users = kernels.Users(X.indptr, X.indices, _normalised(X), own, rest)
    is_bpr = expectation.loss == "bpr"
    share = (share * (1 if is_bpr else expectation.n_negatives)).astype(items.dtype)
    tables, own_logits, pulls = (items, items[negatives], share), np.empty_like(X.data), np.empty_like(X.data)

    def evaluate(rows, W, grad):
        z, sums = np.empty((_TILE, _PANEL), items.dtype), np.empty(_PANEL, items.dtype)
        scratch = own_logits, pulls, sums
        kernels.pair_user_grad(is_bpr, rows.start, rows.stop, users, W, tables, z, scratch, grad)

    return evaluate
