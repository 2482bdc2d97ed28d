"""The mean softmax cross-entropy of some rows as a function of one flat vector of parameters."""

import numpy as np
from scipy.sparse import issparse

from fastml.runtime import linear_softmax
from fastml.runtime.linear_softmax import CSR

_MOMENT_ROWS = 512  # rows squared at a time


class SoftmaxProblem:
    """Rows, targets and weights of a fit, for any vector of parameters.

    Parameters
    ----------
    X : ndarray (n, d), C-contiguous, or CSR array with sorted indices
    target : ndarray
        Labels (n,) int64, or probabilities (n, C).
    sample_weight : ndarray (n,)
        Its mean is taken as 1: losses are weighted means.
    n_classes, fit_intercept, label_smoothing, n_threads
        As the estimator has them.

    A vector of parameters holds the coefficients, (C, d) or for CSR (d, C), and behind them C intercepts.
    """

    def __init__(self, X, target, sample_weight, n_classes, *, fit_intercept, label_smoothing, n_threads):
        real = X.dtype.type
        self.dtype, self.n_rows, self.n_classes = X.dtype, X.shape[0], n_classes
        self.is_sparse, self.matrix = issparse(X), X
        self.coef_shape = (X.shape[1], n_classes) if self.is_sparse else (n_classes, X.shape[1])
        self.n_coef = X.shape[1] * n_classes
        self.X = _csr_arrays(X) if self.is_sparse else X
        self.target = target
        mass = target.sum(axis=1) if target.ndim == 2 else 1
        weight = sample_weight / sample_weight.mean()
        self.weights = np.ascontiguousarray([weight, weight * mass], X.dtype)
        self.settings = real(1), real(1 - label_smoothing), real(label_smoothing / n_classes)
        self.fit_intercept, self.n_threads = fit_intercept, n_threads
        self._spans = None

    def split(self, values):
        """The coefficients, as a matrix, and the intercepts of a vector of parameters; views."""
        return values[: self.n_coef].reshape(self.coef_shape), values[self.n_coef :]

    def join(self, coef, intercept):
        """A new vector of parameters from ``coef`` (C, d) and ``intercept`` (C,)."""
        coef = coef.T if self.is_sparse else coef
        return np.concatenate([coef.ravel(), intercept]).astype(self.dtype)

    def coef(self, values):
        """Copies of the coefficients, (C, d), and the intercepts."""
        coef, intercept = self.split(values)
        return np.array(coef.T if self.is_sparse else coef, order="C"), intercept.copy()

    def feature_moments(self):
        """Weighted means of the features and of their squares, (d,) float64 each."""
        share = self.weights[0] / self.n_rows
        if self.is_sparse:
            share, squares = share.astype(np.float64), self.matrix.power(2, dtype=np.float64)
            return self.matrix.T @ share, squares.T @ share
        moments = np.zeros((2, self.X.shape[1]))
        for first in range(0, self.n_rows, _MOMENT_ROWS):
            rows, part = self.X[first : first + _MOMENT_ROWS], share[first : first + _MOMENT_ROWS]
            moments += part @ rows, part @ np.square(rows, dtype=np.float64)
        return moments

    def loss(self, values):
        """Weighted mean of the losses."""
        losses = linear_softmax.loss(
            self.X, *self.split(values), self.target, self.weights, self.settings, self.n_threads
        )
        return losses.mean(dtype=np.float64)

    def loss_grad(self, values, grad):
        """Weighted mean of the losses; fills ``grad`` with its gradient."""
        if self.is_sparse and self._spans is None:
            self._spans = list(linear_softmax.csc_spans(self.X, *self.coef_shape))
        return self._loss_grad(self.X, self.target, self.weights, values, grad, self._spans)

    def batch_loss_grad(self, rows, values, grad):
        """The same on some rows."""
        X = _csr_arrays(self.matrix[rows]) if self.is_sparse else self.X[rows]
        weights = np.ascontiguousarray(self.weights[:, rows])
        return self._loss_grad(X, self.target[rows], weights, values, grad, None)

    def _loss_grad(self, X, target, weights, values, grad, spans):
        no_grad = np.empty(0 if self.is_sparse else (0, X.shape[1]), self.dtype)
        losses = linear_softmax.loss_grad(
            X, *self.split(values), target, weights, self.settings, self.n_threads, no_grad, *self.split(grad), spans
        )
        grad /= self.dtype.type(len(losses))
        if not self.fit_intercept:
            grad[self.n_coef :] = 0
        return losses.mean(dtype=np.float64)


def _csr_arrays(X):
    """The arrays of a SciPy CSR, as kernels take them."""
    return CSR(X.indptr.astype(np.int64, copy=False), X.indices.astype(np.int64, copy=False), X.data)
