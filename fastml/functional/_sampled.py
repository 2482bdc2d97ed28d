"""Losses against sampled candidates: softmax over shared ones, and word2vec's, where each row has its own."""

from typing import NamedTuple

import numpy as np

from fastml.functional._memory import empty
from fastml.functional._validate import (
    _as_array,
    canonical,
    check_finite,
    check_floats,
    check_labels,
    check_losses,
    check_sample_weight,
)
from fastml.runtime import sampled, thread_count


class SampledSoftmaxCrossEntropyGrad(NamedTuple):
    """Losses (n_samples,), and the gradients of their sum with respect to X, W and b (None where b is None)."""

    loss: np.ndarray
    X: np.ndarray
    W: np.ndarray
    b: np.ndarray | None


class NegativeSamplingLossGrad(NamedTuple):
    """Losses (n_samples,), and the gradients of their sum with respect to queries, keys and negatives."""

    loss: np.ndarray
    queries: np.ndarray
    keys: np.ndarray
    negatives: np.ndarray


def _check_table(value, name, n_classes):
    """One number for each class, or None; only those of classes that occur have to be finite."""
    if value is None:
        return None
    array = check_floats(value, name, ("n_classes",))
    if array.shape != (n_classes,):
        raise ValueError(f"{name}: expected shape ({n_classes},), one number for each row of W, got {array.shape}.")
    return array


def _check_negatives(value, n_classes):
    """Class ids (n_negatives,) as int64."""
    ids = _as_array(value, "negatives")
    if ids.ndim != 1 or ids.size == 0:
        raise ValueError(
            f"negatives: expected shape (n_negatives,), at least one class id, shared by all rows; got {ids.shape}."
        )
    return check_labels(ids, len(ids), n_classes, "negatives")


def _check_used(values, name, classes, dtype):
    """Values of the classes that occur, finite in the dtype of the result."""
    if values is None:
        return
    with np.errstate(over="ignore"):
        used = values[classes].astype(dtype)
    is_finite = np.isfinite(used.reshape(len(used), -1)).all(axis=1)
    if not is_finite.all():
        c = int(classes[np.argmin(is_finite)])
        what = f"got {values[c]}" if values.ndim == 1 else "got a NaN or an infinity"
        cure = "; every class that is a target or a negative needs one that it can be drawn with" * (name == "log_q")
        raise ValueError(f"{name}: expected finite numbers of classes that occur, {what} at class {c}{cure}.")


class _Problem:
    """Valid arguments of sampled softmax, in one dtype, with the rows of W that occur."""

    def __init__(self, X, W, b, target, negatives, log_q, remove_accidental_hits, sample_weight):
        X, W = check_floats(X, "X"), check_floats(W, "W", ("n_classes", "n_features"))
        check_finite(X, "X")
        self.shape = W.shape
        if X.shape[1] != W.shape[1]:
            raise ValueError(f"X: expected {W.shape[1]} columns, as W has; got {X.shape[1]}.")
        b, log_q = _check_table(b, "b", len(W)), _check_table(log_q, "log_q", len(W))
        dtype = np.result_type(X.dtype, W.dtype, *([] if b is None else [b.dtype]))
        target, negatives = check_labels(target, len(X), len(W)), _check_negatives(negatives, len(W))
        if not isinstance(remove_accidental_hits, (bool, np.bool_)):
            raise TypeError(f"remove_accidental_hits: expected True or False, got {remove_accidental_hits!r}.")
        weight = check_sample_weight(sample_weight, len(X), dtype)
        occurring = sampled.drawn(target, negatives)
        self.classes = occurring.classes
        for name, values in ("W", W), ("b", b), ("log_q", log_q):
            _check_used(values, name, self.classes, dtype)
        self.candidates = sampled.gather(occurring, W, b, log_q, bool(remove_accidental_hits), dtype)
        self.arguments = canonical(X, dtype), self.candidates, weight, thread_count()


def sampled_softmax_cross_entropy(
    X, W, b, target, *, negatives, log_q=None, remove_accidental_hits=True, sample_weight=None
):
    """Softmax cross-entropy among the target and some sampled classes, in the place of all classes.

    The candidates of a row are its target and all negatives. With the corrected logits
    ``z_c = x.w_c + b_c - log_q_c``, of the negatives and of the target alike,

        loss = w (log sum_candidates exp(z_c) - z_target)

    The work does not depend on the number of classes: only the rows of W that occur are read. At most 32 MiB of logits
    are held at a time, for up to 250,000 negatives.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Rows; float32 stays float32, everything else becomes float64.
    W : array-like of shape (n_classes, n_features)
        Coefficients. A row-major array of float32 or float64 is not copied.
    b : array-like of shape (n_classes,) or None
        Intercepts.
    target : array-like of int of shape (n_samples,)
        Labels in 0..n_classes-1.
    negatives : array-like of int of shape (n_negatives,)
        Sampled classes in 0..n_classes-1, shared by all rows. One that was drawn twice counts twice.
    log_q : array-like of shape (n_classes,), default=None
        Log of how often each class is expected among the negatives: log(n_negatives * p) if drawn with replacement
        with probabilities p, the log of the probability of inclusion if drawn without. None corrects nothing, which
        is right where all classes are drawn alike.
    remove_accidental_hits : bool, default=True
        Whether negatives that are a row's target are left out for that row. With replacement, where targets are
        expected among the negatives about once or more, pass False: see the user guide.
    sample_weight : array-like of shape (n_samples,), default=None
        Factors of the losses, not negative and not all zero. None stands for ones.

    Returns
    -------
    ndarray of shape (n_samples,)
        Losses in nats; float32 if X, W and b all are, float64 otherwise. They are comparable only between samples of
        one size: log(n_classes) of an untrained model is log(1 + n_negatives) here.

    Raises
    ------
    ValueError
        If a shape does not fit, there are no negatives, a label or a negative is out of range, a value of X, or of W,
        b or log_q at a class that occurs, is not finite, or the logits overflow.
    TypeError
        If X is sparse, labels or negatives are not integers, or other values not real numbers.

    See Also
    --------
    linear_softmax_cross_entropy : The same over all classes.

    References
    ----------
    Bengio, Senecal, "Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic Language Model",
    2008.
    Jean et al., "On Using Very Large Target Vocabulary for Neural Machine Translation", 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.functional import sampled_softmax_cross_entropy
    >>> X, W = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[2.0, 0.0], [0.0, 2.0], [0.0, 0.0], [1.0, 1.0]])
    >>> sampled_softmax_cross_entropy(X, W, None, [0, 1], negatives=[1, 3]).round(4)
    array([0.4076, 0.3133])
    """
    problem = _Problem(X, W, b, target, negatives, log_q, remove_accidental_hits, sample_weight)
    loss = sampled.softmax_loss(*problem.arguments)
    check_losses(loss, "X, W")
    return loss


def sampled_softmax_cross_entropy_grad(
    X, W, b, target, *, negatives, log_q=None, remove_accidental_hits=True, sample_weight=None
):
    """Losses of :func:`sampled_softmax_cross_entropy` and the gradients of their sum, in one go.

    The gradients of W and b are dense, as W and b are; only the rows of classes that occur are computed.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Rows; float32 stays float32, everything else becomes float64.
    W : array-like of shape (n_classes, n_features)
        Coefficients.
    b : array-like of shape (n_classes,) or None
        Intercepts.
    target : array-like of int of shape (n_samples,)
        Labels in 0..n_classes-1.
    negatives : array-like of int of shape (n_negatives,)
        Sampled classes in 0..n_classes-1, shared by all rows. One that was drawn twice counts twice.
    log_q : array-like of shape (n_classes,), default=None
        Log of how often each class is expected among the negatives. None corrects nothing.
    remove_accidental_hits : bool, default=True
        Whether negatives that are a row's target are left out for that row.
    sample_weight : array-like of shape (n_samples,), default=None
        Factors of the losses, not negative and not all zero. None stands for ones.

    Returns
    -------
    loss : ndarray of shape (n_samples,)
        In nats.
    X : ndarray of shape (n_samples, n_features)
        Gradient with respect to X.
    W : ndarray of shape (n_classes, n_features)
        Gradient with respect to W; zeros for classes that do not occur.
    b : ndarray of shape (n_classes,) or None
        Gradient with respect to b. The four are fields of a named tuple.

    Raises
    ------
    ValueError, TypeError
        As :func:`sampled_softmax_cross_entropy`.

    References
    ----------
    Jean et al., "On Using Very Large Target Vocabulary for Neural Machine Translation", 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.functional import sampled_softmax_cross_entropy_grad
    >>> X, W = np.array([[1.0, 0.0], [0.0, 1.0]]), np.zeros((4, 2))
    >>> sampled_softmax_cross_entropy_grad(X, W, None, [0, 1], negatives=[2]).W
    array([[-0.5,  0. ],
           [ 0. , -0.5],
           [ 0.5,  0.5],
           [ 0. ,  0. ]])
    """
    problem = _Problem(X, W, b, target, negatives, log_q, remove_accidental_hits, sample_weight)
    rows, table = problem.arguments[0], problem.candidates
    X_grad, used_W, used_b = np.empty_like(rows), np.empty_like(table.W), np.empty_like(table.shift)
    loss = sampled.softmax_loss_grad(*problem.arguments, X_grad, used_W, used_b)
    check_losses(loss, "X, W")
    W_grad, b_grad = np.zeros(problem.shape, rows.dtype), None if b is None else np.zeros(problem.shape[0], rows.dtype)
    W_grad[problem.classes] = used_W
    if b is not None:
        b_grad[problem.classes] = used_b
    return SampledSoftmaxCrossEntropyGrad(loss, X_grad, W_grad, b_grad)


def _check_triples(queries, keys, negatives, sample_weight):
    """Finite arrays of fitting shapes in one dtype, and weights."""
    queries, keys = check_floats(queries, "queries"), check_floats(keys, "keys")
    negatives = check_floats(negatives, "negatives", ("n_samples", "n_negatives", "n_features"))
    if keys.shape != queries.shape:
        raise ValueError(f"keys: expected shape {queries.shape}, a key for each query, got {keys.shape}.")
    n, d = queries.shape
    if negatives.shape != (n, negatives.shape[1], d):
        raise ValueError(f"negatives: expected shape ({n}, n_negatives, {d}), as queries has, got {negatives.shape}.")
    dtype = np.result_type(queries, keys, negatives)
    arrays = [canonical(array, dtype) for array in (queries, keys, negatives)]
    for name, array in zip(("queries", "keys", "negatives"), arrays, strict=True):
        check_finite(array, name)
    return *arrays, check_sample_weight(sample_weight, n, dtype)


def negative_sampling_loss(queries, keys, negatives, *, sample_weight=None):
    """Word2vec's loss: a query and its key are to be told from the query and each of its negatives.

    ``w (-log sigmoid(q.k) - sum_j log sigmoid(-q.n_j))``. Its optimum is ``q.k = log(p(k | q) / (m p_n(k)))`` for m
    negatives drawn with probabilities p_n: the scores are not those of a softmax, but tell how much likelier a key is
    with this query than among the negatives.

    Parameters
    ----------
    queries : array-like of shape (n_samples, n_features)
        Rows; float32 stays float32, everything else becomes float64.
    keys : array-like of shape (n_samples, n_features)
        The positive of each query.
    negatives : array-like of shape (n_samples, n_negatives, n_features)
        The negatives of each query.
    sample_weight : array-like of shape (n_samples,), default=None
        Factors of the losses, not negative and not all zero. None stands for ones.

    Returns
    -------
    ndarray of shape (n_samples,)
        Losses in nats; float32 if all three arrays are, float64 otherwise.

    Raises
    ------
    ValueError
        If a shape does not fit, a value is not finite, or products overflow.
    TypeError
        If values are not real numbers.

    References
    ----------
    Mikolov et al., "Distributed Representations of Words and Phrases and their Compositionality", 2013.
    Levy, Goldberg, "Neural Word Embedding as Implicit Matrix Factorization", 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.functional import negative_sampling_loss
    >>> negative_sampling_loss(np.array([[1.0, 0.0]]), np.array([[2.0, 0.0]]), np.zeros((1, 3, 2))).round(4)
    array([2.2064])
    """
    arguments = _check_triples(queries, keys, negatives, sample_weight)
    loss = sampled.negative_sampling(*arguments, thread_count())
    check_losses(loss, "queries, keys, negatives")
    return loss


def negative_sampling_loss_grad(queries, keys, negatives, *, sample_weight=None):
    """Losses of :func:`negative_sampling_loss` and the gradients of their sum, in one pass over the negatives.

    Parameters
    ----------
    queries : array-like of shape (n_samples, n_features)
        Rows; float32 stays float32, everything else becomes float64.
    keys : array-like of shape (n_samples, n_features)
        The positive of each query.
    negatives : array-like of shape (n_samples, n_negatives, n_features)
        The negatives of each query.
    sample_weight : array-like of shape (n_samples,), default=None
        Factors of the losses, not negative and not all zero. None stands for ones.

    Returns
    -------
    loss : ndarray of shape (n_samples,)
        In nats.
    queries : ndarray of shape (n_samples, n_features)
        Gradient with respect to queries.
    keys : ndarray of shape (n_samples, n_features)
        Gradient with respect to keys.
    negatives : ndarray of shape (n_samples, n_negatives, n_features)
        Gradient with respect to negatives. The four are fields of a named tuple.

    Raises
    ------
    ValueError, TypeError
        As :func:`negative_sampling_loss`.

    References
    ----------
    Mikolov et al., "Distributed Representations of Words and Phrases and their Compositionality", 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.functional import negative_sampling_loss_grad
    >>> negative_sampling_loss_grad(np.array([[1.0, 2.0]]), np.zeros((1, 2)), np.zeros((1, 1, 2))).keys
    array([[-0.5, -1. ]])
    """
    arguments = _check_triples(queries, keys, negatives, sample_weight)
    grads = tuple(empty(array.shape, array.dtype) for array in arguments[:3])
    loss = sampled.negative_sampling(*arguments, thread_count(), grads)
    check_losses(loss, "queries, keys, negatives")
    return NegativeSamplingLossGrad(loss, *grads)
