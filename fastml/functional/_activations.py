"""Activations of any array, and the products of their derivatives with the gradient from above."""

import numpy as np

from fastml.functional._memory import empty
from fastml.functional._validate import check_any_floats, check_finite, check_like
from fastml.kernels import activations as kernels
from fastml.runtime import run_blocks, thread_count

_BLOCK = 2**16  # elements: tens of microseconds


def _run(kernel, z, *others, upstream=None):
    """Run a kernel on all elements; an array like ``z``. Bad numbers show in the results, and no harm is done yet."""
    out, found = empty(z.shape, z.dtype), np.zeros(1, np.int8)
    arrays = [array.reshape(-1) for array in (z, *others, upstream, out) if array is not None]
    # Asking joblib for the number of threads takes as long as a small call.
    run_blocks(kernel, z.size, _BLOCK, thread_count() if z.size > _BLOCK else 1, *arrays, found)
    if found[0]:
        is_nan = np.isnan(z)
        if is_nan.any():
            at = tuple(int(i) for i in np.unravel_index(int(np.argmax(is_nan)), z.shape))
            raise ValueError(f"z: expected numbers, got nan at {at}; a model that gives such values has diverged.")
        check_finite(upstream, "upstream")
    return out


def _run_grad(kernel, z, upstream):
    """Check, run a kernel of two inputs, return the product."""
    z = check_any_floats(z, "z")
    return _run(kernel, z, upstream=check_like(upstream, "upstream", z, "z"))


def sigmoid(z):
    """Logistic function ``1 / (1 + exp(-z))``, which makes a probability of a logit.

    Parameters
    ----------
    z : array-like of shape (n_samples, ...)
        Any number of dimensions from one. ``-inf`` and ``inf`` give 0 and 1.

    Returns
    -------
    ndarray of the shape of ``z``
        Float32 if ``z`` is, float64 otherwise; as accurate in the tails, down to the smallest numbers.

    Raises
    ------
    ValueError
        If ``z`` is a single number, empty or NaN.
    TypeError
        If it is not made of real numbers.

    See Also
    --------
    binary_cross_entropy : Takes logits, so that no probability is rounded to 1.

    References
    ----------
    P.-F. Verhulst, "Recherches mathématiques sur la loi d'accroissement de la population", 1845.

    Examples
    --------
    >>> from fastml.functional import sigmoid
    >>> sigmoid([-1000.0, 0.0, 1.0]).round(4)
    array([0.    , 0.5   , 0.7311])
    """
    return _run(kernels.sigmoid, check_any_floats(z, "z"))


def sigmoid_grad(z, upstream):
    """Derivative of :func:`sigmoid` at ``z`` times ``upstream``.

    Parameters
    ----------
    z : array-like of shape (n_samples, ...)
        What the function was taken of, not its result: where that is rounded to 1 the derivative is not yet 0.
    upstream : array-like of the shape of ``z``
        Gradient with respect to ``sigmoid(z)``; finite.

    Returns
    -------
    ndarray of the shape of ``z``
        Gradient with respect to ``z``; float32 if ``z`` is, float64 otherwise.

    Raises
    ------
    ValueError
        If the shapes differ, ``z`` is a single number, empty or NaN, or ``upstream`` is not finite.
    TypeError
        If an argument is not made of real numbers.

    References
    ----------
    D. E. Rumelhart, G. E. Hinton, R. J. Williams, "Learning representations by back-propagating errors", Nature 323,
    1986.

    Examples
    --------
    >>> from fastml.functional import sigmoid_grad
    >>> sigmoid_grad([0.0, 1.0], [1.0, 2.0]).round(4)
    array([0.25  , 0.3932])
    """
    return _run_grad(kernels.sigmoid_grad, z, upstream)


def tanh(z):
    """Hyperbolic tangent, an output between -1 and 1.

    Parameters
    ----------
    z : array-like of shape (n_samples, ...)
        Any number of dimensions from one. ``-inf`` and ``inf`` give -1 and 1.

    Returns
    -------
    ndarray of the shape of ``z``
        Float32 if ``z`` is, float64 otherwise.

    Raises
    ------
    ValueError
        If ``z`` is a single number, empty or NaN.
    TypeError
        If it is not made of real numbers.

    References
    ----------
    Y. LeCun, L. Bottou, G. Orr, K.-R. Müller, "Efficient BackProp", 1998.

    Examples
    --------
    >>> from fastml.functional import tanh
    >>> tanh([-1000.0, 0.0, 1.0]).round(4)
    array([-1.    ,  0.    ,  0.7616])
    """
    return _run(kernels.tanh, check_any_floats(z, "z"))


def tanh_grad(z, upstream):
    """Derivative of :func:`tanh` at ``z`` times ``upstream``.

    Parameters
    ----------
    z : array-like of shape (n_samples, ...)
        What the function was taken of, not its result: where that is rounded to 1 the derivative is not yet 0.
    upstream : array-like of the shape of ``z``
        Gradient with respect to ``tanh(z)``; finite.

    Returns
    -------
    ndarray of the shape of ``z``
        Gradient with respect to ``z``; float32 if ``z`` is, float64 otherwise.

    Raises
    ------
    ValueError, TypeError
        As :func:`sigmoid_grad`.

    References
    ----------
    Y. LeCun, L. Bottou, G. Orr, K.-R. Müller, "Efficient BackProp", 1998.

    Examples
    --------
    >>> from fastml.functional import tanh_grad
    >>> tanh_grad([0.0, 1.0], [1.0, 2.0]).round(4)
    array([1.    , 0.8399])
    """
    return _run_grad(kernels.tanh_grad, z, upstream)
