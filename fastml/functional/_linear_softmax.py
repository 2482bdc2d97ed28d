"""Linear layer and softmax cross-entropy in one: the logits are never whole in memory."""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array, issparse

from fastml.functional._sparse import check_csr
from fastml.functional._validate import (
    canonical,
    check_finite,
    check_floats,
    check_fraction,
    check_sample_weight,
    check_target,
    check_temperature,
)
from fastml.kernels._loss_tile import SOFTMAX, settings
from fastml.runtime import linear_loss, thread_count


class LinearSoftmaxCrossEntropyGrad(NamedTuple):
    """Losses (n_samples,), and the gradients of their sum with respect to X, W and b (None where b is None)."""

    loss: np.ndarray
    X: np.ndarray | csr_array
    W: np.ndarray
    b: np.ndarray | None


def _check_weights(W, b):
    """Finite coefficients (C, d), and intercepts (C,) or None."""
    W = check_floats(W, "W", ("n_classes", "n_features"))
    check_finite(W, "W")
    if b is None:
        return W, None
    b = check_floats(b, "b", ("n_classes",))
    if b.shape != (len(W),):
        raise ValueError(f"b: expected shape ({len(W)},), one intercept for each row of W, got {b.shape}.")
    check_finite(b, "b")
    return W, b


def _check_rows(X, n_features):
    """Finite dense or CSR rows with as many columns as W."""
    if issparse(X):
        X = check_csr(X)
    else:
        X = check_floats(X, "X")
        check_finite(X, "X")
    if X.shape[1] != n_features:
        raise ValueError(
            f"X: expected {n_features} columns, as W of shape (n_classes, n_features) has; got {X.shape[1]}."
        )
    return X


class _Problem:
    """Valid arguments, in one dtype, as the runtime takes them."""

    def __init__(self, X, W, b, target, sample_weight, label_smoothing, temperature):
        W, b = _check_weights(W, b)
        X = _check_rows(X, W.shape[1])
        dtype = np.result_type(X.dtype, W.dtype, *([] if b is None else [b.dtype]))
        self.shape = X.shape[0], len(W)
        target = check_target(target, self.shape, dtype)
        weight = check_sample_weight(sample_weight, len(target), dtype)
        smoothing = check_fraction(label_smoothing, dtype)
        weights = np.stack([weight, weight * target.sum(axis=1) if target.ndim == 2 else weight])
        numbers = {"beta": check_temperature(temperature, dtype), "keep": 1 - smoothing, "spread": smoothing / len(W)}
        self.matrix = X
        if issparse(X):
            X = linear_loss.CSR(X.indptr, X.indices, canonical(X.data, dtype))
        else:
            X = canonical(X, dtype)
        W = canonical(W, dtype)
        b = np.zeros(len(W), dtype) if b is None else canonical(b, dtype)
        loss = settings(dtype, SOFTMAX, **numbers)
        self.arguments = X, W.T if self.is_sparse else W, b, target, weights, loss, thread_count()

    @property
    def is_sparse(self):
        return issparse(self.matrix)


def _check_losses(loss):
    """Finite arguments can still have products that are not."""
    if not np.isfinite(loss).all():
        row = int(np.argmin(np.isfinite(loss)))
        raise ValueError(
            f"X, W: the logits of row {row} overflow {loss.dtype}; scale X or W down, or pass float64 arrays."
        )


def linear_softmax_cross_entropy(X, W, b, target, *, sample_weight=None, label_smoothing=0.0, temperature=1.0):
    """Softmax cross-entropy of the logits ``X @ W.T + b``, which are never whole in memory.

    The losses of ``softmax_cross_entropy(X @ W.T + b, target, ...)``, computed a tile of logits at a time with an
    online log-sum-exp: at most 64 MiB beside the result, for any number of rows and classes.

    Parameters
    ----------
    X : array-like or sparse matrix of shape (n_samples, n_features)
        Rows; float32 stays float32, everything else becomes float64. Sparse formats are converted to CSR.
    W : array-like of shape (n_classes, n_features)
        Coefficients.
    b : array-like of shape (n_classes,) or None
        Intercepts.
    target : array-like of shape (n_samples,) or (n_samples, n_classes)
        Integer labels in 0..n_classes-1, or probabilities: not negative, with sum 1 in each row.
    sample_weight : array-like of shape (n_samples,), default=None
        Factors of the losses, not negative and not all zero. None stands for ones.
    label_smoothing : float in [0, 1), default=0.0
        Share of the target that is spread evenly over all classes.
    temperature : float, default=1.0
        The logits are divided by it.

    Returns
    -------
    ndarray of shape (n_samples,)
        Losses in nats; float32 if X, W and b all are, float64 otherwise.

    Raises
    ------
    ValueError
        If a shape does not fit, a value is not finite, a label is out of range, or the logits overflow.
    TypeError
        If labels are not integers, or other values not real numbers.

    References
    ----------
    Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", 2024.
    Milakov, Gimelshein, "Online normalizer calculation for softmax", 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.functional import linear_softmax_cross_entropy
    >>> X, W = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[2.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    >>> linear_softmax_cross_entropy(X, W, None, [0, 2]).round(4)
    array([0.2395, 2.2395])
    """
    problem = _Problem(X, W, b, target, sample_weight, label_smoothing, temperature)
    loss = linear_loss.loss(*problem.arguments)
    _check_losses(loss)
    return loss


def linear_softmax_cross_entropy_grad(X, W, b, target, *, sample_weight=None, label_smoothing=0.0, temperature=1.0):
    """Losses of :func:`linear_softmax_cross_entropy` and the gradients of their sum, in one go.

    At most 64 MiB beside the results, for any number of rows and classes.

    Parameters
    ----------
    X : array-like or sparse matrix of shape (n_samples, n_features)
        Rows; float32 stays float32, everything else becomes float64. Sparse formats are converted to CSR.
    W : array-like of shape (n_classes, n_features)
        Coefficients.
    b : array-like of shape (n_classes,) or None
        Intercepts.
    target : array-like of shape (n_samples,) or (n_samples, n_classes)
        Integer labels in 0..n_classes-1, or probabilities: not negative, with sum 1 in each row.
    sample_weight : array-like of shape (n_samples,), default=None
        Factors of the losses, not negative and not all zero. None stands for ones.
    label_smoothing : float in [0, 1), default=0.0
        Share of the target that is spread evenly over all classes.
    temperature : float, default=1.0
        The logits are divided by it; all gradients carry the factor 1 / temperature.

    Returns
    -------
    loss : ndarray of shape (n_samples,)
        In nats.
    X : ndarray of shape (n_samples, n_features), or CSR array
        Gradient with respect to X; of a sparse X with respect to its stored entries only, in its pattern.
    W : ndarray of shape (n_classes, n_features)
        Gradient with respect to W; column-major where X is sparse.
    b : ndarray of shape (n_classes,) or None
        Gradient with respect to b. The four are fields of a named tuple.

    Raises
    ------
    ValueError, TypeError
        As :func:`linear_softmax_cross_entropy`.

    References
    ----------
    Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.functional import linear_softmax_cross_entropy_grad
    >>> X, W = np.array([[1.0, 0.0], [0.0, 1.0]]), np.zeros((2, 2))
    >>> result = linear_softmax_cross_entropy_grad(X, W, np.zeros(2), [0, 1])
    >>> result.W
    array([[-0.5,  0.5],
           [ 0.5, -0.5]])
    """
    problem = _Problem(X, W, b, target, sample_weight, label_smoothing, temperature)
    rows, weights = problem.arguments[:2]
    dtype, n_classes = weights.dtype, problem.shape[1]
    X_grad = np.empty(len(rows.data) if problem.is_sparse else rows.shape, dtype)
    W_grad, b_grad = np.empty(weights.shape, dtype), np.empty(n_classes, dtype)
    loss = linear_loss.loss_grad(*problem.arguments, X_grad, W_grad, b_grad)
    _check_losses(loss)
    if problem.is_sparse:
        matrix = problem.matrix
        X_grad = csr_array((X_grad, matrix.indices.copy(), matrix.indptr.copy()), shape=matrix.shape)
        W_grad = W_grad.T
    return LinearSoftmaxCrossEntropyGrad(loss, X_grad, W_grad, None if b is None else b_grad)
