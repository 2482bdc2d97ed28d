"""Losses of outputs that stand each for itself, with their gradients: a value for each output, rows weighted."""

from typing import NamedTuple

import numpy as np

from fastml.functional._memory import empty
from fastml.functional._validate import (
    check_any_floats,
    check_finite,
    check_like,
    check_positive,
    check_sample_weight,
    check_shares,
)
from fastml.kernels import pointwise as kernels
from fastml.runtime import run_blocks, thread_count

_BLOCK = 2**16  # elements: tens of microseconds


class BinaryCrossEntropyGrad(NamedTuple):
    """Losses, and the gradient of their sum with respect to the logits, both in the shape of the logits."""

    loss: np.ndarray
    logits: np.ndarray


class SquaredErrorGrad(NamedTuple):
    """Losses, and the gradient of their sum with respect to the prediction, both in its shape."""

    loss: np.ndarray
    prediction: np.ndarray


class AbsoluteErrorGrad(NamedTuple):
    """Losses, and the gradient of their sum with respect to the prediction, both in its shape."""

    loss: np.ndarray
    prediction: np.ndarray


class HuberGrad(NamedTuple):
    """Losses, and the gradient of their sum with respect to the prediction, both in its shape."""

    loss: np.ndarray
    prediction: np.ndarray


def _run(kernel, n_outputs, name, prediction, target, sample_weight, delta=None, shares=False):
    """Check, run a kernel on all elements, return its outputs: arrays in the shape of the predictions.

    Bad numbers show in the losses, and no harm is done yet. Finite numbers whose loss overflows are no error.
    """
    prediction = check_any_floats(prediction, name, 2)
    target = check_like(target, "target", prediction, name)
    dtype = prediction.dtype
    weight = np.ones(1, dtype) if sample_weight is None else check_sample_weight(sample_weight, len(prediction), dtype)
    settings = () if delta is None else (check_positive(delta, dtype, "delta"),)
    outputs, found = [empty(prediction.shape, dtype) for _ in range(n_outputs)], np.zeros(1, np.int8)
    flat = prediction.reshape(-1), target.reshape(-1), settings, weight, *[out.reshape(-1) for out in outputs]
    # Asking joblib for the number of threads takes as long as a small call.
    n_threads = thread_count() if prediction.size > _BLOCK else 1
    run_blocks(kernel, prediction.size, _BLOCK, n_threads, *flat, found)
    if found[0]:
        check_finite(prediction, name)
        (check_shares if shares else check_finite)(target, "target")
    return outputs


def binary_cross_entropy(logits, target, *, sample_weight=None):
    """Cross-entropy between targets and the sigmoid of logits, a value per logit.

    ``log(1 + exp(z)) - t * z``, from the logit, so that neither tail overflows or is rounded away.

    Parameters
    ----------
    logits : array-like of shape (n_samples,) or (n_samples, n_labels)
        Scores of one label, or of several that do not exclude each other. Finite.
    target : array-like of the shape of ``logits``
        Whether the label holds, or its probability: booleans, integers or floats in 0..1.
    sample_weight : array-like of shape (n_samples,), default=None
        Factors of the rows, not negative and not all zero. None stands for ones.

    Returns
    -------
    loss : ndarray of the shape of ``logits``
        In nats; float32 if ``logits`` is, float64 otherwise.

    Raises
    ------
    ValueError
        If the shapes do not fit, a logit is not finite, a target not in 0..1, or a weight out of range.
    TypeError
        If an argument is not made of real numbers.

    See Also
    --------
    binary_cross_entropy_grad : The same with the gradient, in one pass.

    References
    ----------
    D. R. Cox, "The Regression Analysis of Binary Sequences", Journal of the Royal Statistical Society B 20, 1958.

    Examples
    --------
    >>> from fastml.functional import binary_cross_entropy
    >>> binary_cross_entropy([0.0, 2.0, -50.0], [1, 1, 1]).round(2)
    array([ 0.69,  0.13, 50.  ])
    """
    return _run(kernels.binary_cross_entropy, 1, "logits", logits, target, sample_weight, shares=True)[0]


def binary_cross_entropy_grad(logits, target, *, sample_weight=None):
    """Losses of :func:`binary_cross_entropy` and the gradient of their sum, in one pass.

    Parameters
    ----------
    logits : array-like of shape (n_samples,) or (n_samples, n_labels)
        Scores of one label, or of several that do not exclude each other. Finite.
    target : array-like of the shape of ``logits``
        Whether the label holds, or its probability: booleans, integers or floats in 0..1.
    sample_weight : array-like of shape (n_samples,), default=None
        Factors of the rows, not negative and not all zero. None stands for ones.

    Returns
    -------
    loss : ndarray of the shape of ``logits``
        In nats; float32 if ``logits`` is, float64 otherwise.
    logits : ndarray of the shape of ``logits``
        Gradient of ``loss.sum()``, ``w * (sigmoid(z) - t)``. The two are fields of a named tuple.

    Raises
    ------
    ValueError, TypeError
        As :func:`binary_cross_entropy`.

    References
    ----------
    D. R. Cox, "The Regression Analysis of Binary Sequences", Journal of the Royal Statistical Society B 20, 1958.

    Examples
    --------
    >>> from fastml.functional import binary_cross_entropy_grad
    >>> binary_cross_entropy_grad([[0.0, 2.0]], [[True, False]]).logits.round(4)
    array([[-0.5   ,  0.8808]])
    """
    outputs = _run(kernels.binary_cross_entropy_grad, 2, "logits", logits, target, sample_weight, shares=True)
    return BinaryCrossEntropyGrad(*outputs)


def squared_error(prediction, target, *, sample_weight=None):
    """Half the squared error, a value per output.

    ``0.5 * (prediction - target) ** 2``: its mean has its minimum at the mean of the target.

    Parameters
    ----------
    prediction : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Finite.
    target : array-like of the shape of ``prediction``
        Finite. A column (n_samples, 1) does not fit a prediction (n_samples,): reshape one of them.
    sample_weight : array-like of shape (n_samples,), default=None
        Factors of the rows, not negative and not all zero. None stands for ones.

    Returns
    -------
    loss : ndarray of the shape of ``prediction``
        In half squares of the target's unit; float32 if ``prediction`` is, float64 otherwise.

    Raises
    ------
    ValueError
        If the shapes do not fit, a number is not finite, or a weight is out of range.
    TypeError
        If an argument is not made of real numbers.

    See Also
    --------
    squared_error_grad : The same with the gradient, in one pass.

    References
    ----------
    C. F. Gauss, "Theoria combinationis observationum erroribus minimis obnoxiae", 1823.

    Examples
    --------
    >>> from fastml.functional import squared_error
    >>> squared_error([1.0, 2.0, 9.0], [1.0, 1.5, 1.0])
    array([ 0.   ,  0.125, 32.   ])
    """
    return _run(kernels.squared_error, 1, "prediction", prediction, target, sample_weight)[0]


def squared_error_grad(prediction, target, *, sample_weight=None):
    """Losses of :func:`squared_error` and the gradient of their sum, in one pass.

    Parameters
    ----------
    prediction : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Finite.
    target : array-like of the shape of ``prediction``
        Finite. A column (n_samples, 1) does not fit a prediction (n_samples,): reshape one of them.
    sample_weight : array-like of shape (n_samples,), default=None
        Factors of the rows, not negative and not all zero. None stands for ones.

    Returns
    -------
    loss : ndarray of the shape of ``prediction``
        In half squares of the target's unit; float32 if ``prediction`` is, float64 otherwise.
    prediction : ndarray of the shape of ``prediction``
        Gradient of ``loss.sum()``, ``w * (prediction - target)``. The two are fields of a named tuple.

    Raises
    ------
    ValueError, TypeError
        As :func:`squared_error`.

    References
    ----------
    C. F. Gauss, "Theoria combinationis observationum erroribus minimis obnoxiae", 1823.

    Examples
    --------
    >>> from fastml.functional import squared_error_grad
    >>> squared_error_grad([1.0, 2.0, 9.0], [1.0, 1.5, 1.0]).prediction
    array([0. , 0.5, 8. ])
    """
    return SquaredErrorGrad(*_run(kernels.squared_error_grad, 2, "prediction", prediction, target, sample_weight))


def absolute_error(prediction, target, *, sample_weight=None):
    """Absolute error, a value per output.

    ``abs(prediction - target)``: its mean has its minimum at the median of the target.

    Parameters
    ----------
    prediction : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Finite.
    target : array-like of the shape of ``prediction``
        Finite. A column (n_samples, 1) does not fit a prediction (n_samples,): reshape one of them.
    sample_weight : array-like of shape (n_samples,), default=None
        Factors of the rows, not negative and not all zero. None stands for ones.

    Returns
    -------
    loss : ndarray of the shape of ``prediction``
        In the target's unit; float32 if ``prediction`` is, float64 otherwise.

    Raises
    ------
    ValueError
        If the shapes do not fit, a number is not finite, or a weight is out of range.
    TypeError
        If an argument is not made of real numbers.

    See Also
    --------
    absolute_error_grad : The same with the gradient, in one pass.

    References
    ----------
    R. Koenker, G. Bassett, "Regression Quantiles", Econometrica 46, 1978.

    Examples
    --------
    >>> from fastml.functional import absolute_error
    >>> absolute_error([1.0, 2.0, 9.0], [1.0, 1.5, 1.0])
    array([0. , 0.5, 8. ])
    """
    return _run(kernels.absolute_error, 1, "prediction", prediction, target, sample_weight)[0]


def absolute_error_grad(prediction, target, *, sample_weight=None):
    """Losses of :func:`absolute_error` and the gradient of their sum, in one pass.

    Parameters
    ----------
    prediction : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Finite.
    target : array-like of the shape of ``prediction``
        Finite. A column (n_samples, 1) does not fit a prediction (n_samples,): reshape one of them.
    sample_weight : array-like of shape (n_samples,), default=None
        Factors of the rows, not negative and not all zero. None stands for ones.

    Returns
    -------
    loss : ndarray of the shape of ``prediction``
        In the target's unit; float32 if ``prediction`` is, float64 otherwise.
    prediction : ndarray of the shape of ``prediction``
        Gradient of ``loss.sum()``, ``w * sign(prediction - target)``, which is 0 where there is no error. The two are
        fields of a named tuple.

    Raises
    ------
    ValueError, TypeError
        As :func:`absolute_error`.

    References
    ----------
    R. Koenker, G. Bassett, "Regression Quantiles", Econometrica 46, 1978.

    Examples
    --------
    >>> from fastml.functional import absolute_error_grad
    >>> absolute_error_grad([1.0, 2.0, 9.0], [1.0, 1.5, 1.0]).prediction
    array([0., 1., 1.])
    """
    return AbsoluteErrorGrad(*_run(kernels.absolute_error_grad, 2, "prediction", prediction, target, sample_weight))


def huber(prediction, target, *, sample_weight=None, delta=1.0):
    """Huber's loss: half the squared error of small errors, the absolute error of large ones, a value per output.

    With r = prediction - target: ``0.5 * r**2`` up to ``abs(r) = delta``, ``delta * (abs(r) - 0.5 * delta)`` beyond, so
    that an outlier pulls with a force of delta at most.

    Parameters
    ----------
    prediction : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Finite.
    target : array-like of the shape of ``prediction``
        Finite. A column (n_samples, 1) does not fit a prediction (n_samples,): reshape one of them.
    sample_weight : array-like of shape (n_samples,), default=None
        Factors of the rows, not negative and not all zero. None stands for ones.
    delta : float, default=1.0
        Size of an error from which on the loss is straight, above 0, in the target's unit.

    Returns
    -------
    loss : ndarray of the shape of ``prediction``
        In half squares of the target's unit; float32 if ``prediction`` is, float64 otherwise.

    Raises
    ------
    ValueError
        If the shapes do not fit, a number is not finite, or a weight or delta is out of range.
    TypeError
        If an argument is not made of real numbers.

    See Also
    --------
    huber_grad : The same with the gradient, in one pass.

    References
    ----------
    P. J. Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical Statistics 35, 1964.

    Examples
    --------
    >>> from fastml.functional import huber
    >>> huber([1.0, 2.0, 9.0], [1.0, 1.5, 1.0])
    array([0.   , 0.125, 7.5  ])
    """
    return _run(kernels.huber, 1, "prediction", prediction, target, sample_weight, delta)[0]


def huber_grad(prediction, target, *, sample_weight=None, delta=1.0):
    """Losses of :func:`huber` and the gradient of their sum, in one pass.

    Parameters
    ----------
    prediction : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Finite.
    target : array-like of the shape of ``prediction``
        Finite. A column (n_samples, 1) does not fit a prediction (n_samples,): reshape one of them.
    sample_weight : array-like of shape (n_samples,), default=None
        Factors of the rows, not negative and not all zero. None stands for ones.
    delta : float, default=1.0
        Size of an error from which on the loss is straight, above 0, in the target's unit.

    Returns
    -------
    loss : ndarray of the shape of ``prediction``
        In half squares of the target's unit; float32 if ``prediction`` is, float64 otherwise.
    prediction : ndarray of the shape of ``prediction``
        Gradient of ``loss.sum()``, ``w * clip(prediction - target, -delta, delta)``. The two are fields of a named
        tuple.

    Raises
    ------
    ValueError, TypeError
        As :func:`huber`.

    References
    ----------
    P. J. Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical Statistics 35, 1964.

    Examples
    --------
    >>> from fastml.functional import huber_grad
    >>> huber_grad([1.0, 2.0, 9.0], [1.0, 1.5, 1.0]).prediction
    array([0. , 0.5, 1. ])
    """
    return HuberGrad(*_run(kernels.huber_grad, 2, "prediction", prediction, target, sample_weight, delta))
