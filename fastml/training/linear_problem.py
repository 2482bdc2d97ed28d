"""The mean loss of a linear model on some rows as a function of one flat vector of parameters."""

import copy

import numpy as np
from scipy.sparse import issparse

from fastml.kernels import linear_epoch as kernels
from fastml.kernels._loss_tile import BINARY_CROSS_ENTROPY, HUBER, SOFTMAX, settings
from fastml.runtime import linear_loss, run_team
from fastml.runtime.linear_loss import CSR
from fastml.training.problem import Problem

_MOMENT_ROWS = 512  # rows squared at a time
_GATHERED = 1 << 15  # bytes of a batch that a second thread gathers ahead
LEAST_SHARE = 1e-6  # taken as true of a label that never is
TOO_LARGE = "X has values too large for solver='lbfgs': scale the features (for example with StandardScaler)."


class LinearProblem(Problem):
    """Rows, targets and weights of a fit, for any vector of parameters.

    Parameters
    ----------
    X : ndarray (n, d), C-contiguous, or CSR array with sorted indices
    target : ndarray
        Labels (n,) int64 or, in the dtype of X, what each output should be (n, K).
    sample_weight : ndarray (n,)
        Its mean is taken as 1: losses are weighted means.
    n_outputs : int
        K: classes, labels or targets.
    settings : fastml.kernels._loss_tile.Settings
        The loss.
    fit_intercept, n_threads
        As the estimator has them.

    A vector of parameters holds the coefficients, (K, d) or for CSR (d, K), and behind them K intercepts.
    """

    has_kernel = True

    def __init__(self, X, target, sample_weight, n_outputs, settings, *, fit_intercept, n_threads):
        self.dtype, self.n_rows, self.n_outputs = X.dtype, X.shape[0], n_outputs
        self.is_sparse, self.matrix = issparse(X), X
        self.coef_shape = (X.shape[1], n_outputs) if self.is_sparse else (n_outputs, X.shape[1])
        self.n_coef = X.shape[1] * n_outputs
        self.X = _csr_arrays(X) if self.is_sparse else X
        self.target, self.settings = target, settings
        weight = sample_weight / sample_weight.mean()
        self.weights = np.ascontiguousarray([weight, weight * self._mass()], X.dtype)
        self.fit_intercept, self.n_threads = fit_intercept, n_threads
        self._spans = None

    def _mass(self):
        """What multiplies the log-sum-exp of each row."""
        if self.settings.kind != SOFTMAX:
            return 0
        return self.target.sum(axis=1) if self.target.ndim == 2 else 1

    @property
    def n_trained(self):
        """Coefficients and intercepts."""
        return self.n_coef + self.n_outputs

    def operations(self, batch_size):
        """About how many operations a step takes."""
        per_row = self.matrix.nnz / self.n_rows if self.is_sparse else self.X.shape[1]
        updates = 10 * self.n_coef if self.is_sparse else 0
        return int(4 * batch_size * per_row * self.n_outputs + updates)

    def kernel_steps(self, batch_size, values, parameters, rule):
        """A function ``run(begin, end, order, rates, losses)`` that does steps of an epoch in one call."""
        n_features, size = self.matrix.shape[1], batch_size
        tile = min(linear_loss.tile_rows(n_features, self.n_outputs, self.dtype.itemsize), size)
        batch = kernels.Scratch(
            np.empty((2, 0 if self.is_sparse else size, n_features), self.dtype),
            np.empty((2, size, *self.target.shape[1:]), self.target.dtype),
            np.empty((2, 2, size), self.dtype),
            np.empty(size, self.dtype),
            np.empty((tile, self.n_outputs), self.dtype),
            np.empty((4, tile), self.dtype),
        )
        data = kernels.Data(self.X, self.target, self.weights)
        matrices = (self.split(vector)[0] for vector in parameters[:2])
        arguments = size, data, kernels.Parameters(*parameters, *matrices), self.fit_intercept, rule, self.settings

        def run_sparse(begin, end, order, rates, losses):
            kernels.csr_steps(begin, end, order, *arguments, rates, batch, losses)

        def run_dense(begin, end, order, rates, losses):
            def run(board, slot):
                kernels.dense_steps(begin, end, board, order, *arguments, rates, batch, losses)

            run_team(run, min(self.n_threads, 2) if batch.X[0].nbytes >= _GATHERED else 1)

        return run_sparse if self.is_sparse else run_dense

    def curvature(self):
        """Second derivative of the loss by each output where the model knows nothing, (K,) or (1,)."""
        if self.settings.kind == SOFTMAX:
            return np.array([(1 - 1 / self.n_outputs) / self.n_outputs])
        if self.settings.kind != BINARY_CROSS_ENTROPY:
            return np.ones(1)
        if not self.fit_intercept:
            return np.full(1, 0.25)
        share = self.weights[0].astype(np.float64) @ self.target / self.n_rows
        return np.maximum(share * (1 - share), LEAST_SHARE)

    def split(self, values):
        """The coefficients, as a matrix, and the intercepts of a vector of parameters; views."""
        return values[: self.n_coef].reshape(self.coef_shape), values[self.n_coef :]

    def join(self, *parts):
        """A new vector of parameters from the coefficients (K, d) and the intercepts (K,)."""
        coef, intercept = parts
        coef = coef.T if self.is_sparse else coef
        return np.concatenate([coef.ravel(), intercept]).astype(self.dtype)

    def coef(self, values):
        """Copies of the coefficients, (K, d), and the intercepts."""
        coef, intercept = self.split(values)
        return np.array(coef.T if self.is_sparse else coef, order="C"), intercept.copy()

    def feature_moments(self):
        """Weighted means of the features and of their squares, (d,) float64 each."""
        with np.errstate(over="ignore", invalid="ignore"):
            moments = self._moments()
        if not np.isfinite(moments).all():
            raise ValueError(TOO_LARGE)
        return moments

    def _moments(self):
        share = self.weights[0] / self.n_rows
        if self.is_sparse:
            share, squares = share.astype(np.float64), self.matrix.power(2, dtype=np.float64)
            return self.matrix.T @ share, squares.T @ share
        moments = np.zeros((2, self.X.shape[1]))
        for first in range(0, self.n_rows, _MOMENT_ROWS):
            rows, part = self.X[first : first + _MOMENT_ROWS], share[first : first + _MOMENT_ROWS]
            moments += part @ rows, part @ np.square(rows, dtype=np.float64)
        return moments

    def feature_covariance(self, mean):
        """Weighted covariance of the features, (d, d) float64, about ``mean``."""
        share = (self.weights[0] / self.n_rows).astype(np.float64)
        if self.is_sparse:
            X = self.matrix.astype(np.float64)
            return (X.T @ (X * share[:, np.newaxis])).toarray() - np.multiply.outer(mean, mean)
        covariance = np.zeros((self.X.shape[1], self.X.shape[1]))
        for first in range(0, self.n_rows, _MOMENT_ROWS):
            rows = self.X[first : first + _MOMENT_ROWS] - mean
            covariance += (rows * share[first : first + _MOMENT_ROWS, np.newaxis]).T @ rows
        return covariance

    def with_huber(self, delta):
        """The same rows and targets with Huber's loss."""
        other = copy.copy(self)
        other.settings = settings(self.dtype, HUBER, delta=delta)
        return other

    def of_outputs(self, chosen):
        """The same rows with some of the independent outputs."""
        other = copy.copy(self)
        other.target = np.ascontiguousarray(self.target[:, chosen])
        n_outputs, n_features = other.target.shape[1], self.n_coef // self.n_outputs
        other.n_outputs, other.n_coef = n_outputs, n_outputs * n_features
        other.coef_shape = (n_features, n_outputs) if self.is_sparse else (n_outputs, n_features)
        return other

    def loss(self, values):
        """Weighted mean of the losses."""
        losses = linear_loss.loss(self.X, *self.split(values), self.target, self.weights, self.settings, self.n_threads)
        return losses.mean(dtype=np.float64)

    def loss_grad(self, values, grad):
        """Weighted mean of the losses; fills ``grad`` with its gradient."""
        if self.is_sparse and self._spans is None:
            self._spans = list(linear_loss.csc_spans(self.X, *self.coef_shape))
        return self._loss_grad(self.X, self.target, self.weights, values, grad, self._spans)

    def batch_loss_grad(self, rows, values, grad):
        """The same on some rows."""
        X = _csr_arrays(self.matrix[rows]) if self.is_sparse else self.X[rows]
        weights = np.ascontiguousarray(self.weights[:, rows])
        return self._loss_grad(X, self.target[rows], weights, values, grad, None)

    def _loss_grad(self, X, target, weights, values, grad, spans):
        no_grad = np.empty(0 if self.is_sparse else (0, X.shape[1]), self.dtype)
        losses = linear_loss.loss_grad(
            X, *self.split(values), target, weights, self.settings, self.n_threads, no_grad, *self.split(grad), spans
        )
        grad /= self.dtype.type(len(losses))
        if not self.fit_intercept:
            grad[self.n_coef :] = 0
        return losses.mean(dtype=np.float64)


def _csr_arrays(X):
    """The arrays of a SciPy CSR, as kernels take them."""
    return CSR(X.indptr.astype(np.int64, copy=False), X.indices.astype(np.int64, copy=False), X.data)
