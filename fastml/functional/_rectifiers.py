"""The activations of hidden layers that do not saturate above zero, and the products of their derivatives."""

import numpy as np

from fastml.functional._activations import _run, _run_grad
from fastml.functional._validate import check_any_floats, check_like
from fastml.kernels import activations as kernels


def _check_slope(slope, z):
    """One slope, (1,), or one for each number of ``z``, in its dtype."""
    try:
        slope = np.asarray(slope, z.dtype)
        wide = np.broadcast_to(slope, z.shape)
    except (TypeError, ValueError) as error:
        raise ValueError(f"slope: expected a number, or {z.shape[-1]} of them, one for each column of z.") from error
    if not np.isfinite(slope).all():
        raise ValueError("slope: expected finite numbers; a model that gives others has diverged.")
    return slope.reshape(1) if slope.size == 1 else np.ascontiguousarray(wide)


def relu(z):
    """Rectified linear unit: ``max(z, 0)``.

    Parameters
    ----------
    z : array-like of shape (n_samples, ...)
        Any number of dimensions from one.

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
    X. Glorot, A. Bordes, Y. Bengio, "Deep sparse rectifier neural networks", AISTATS 2011.

    Examples
    --------
    >>> from fastml.functional import relu
    >>> relu([-2.0, 0.0, 1.5]).round(4)
    array([0. , 0. , 1.5])
    """
    return _run(kernels.relu, check_any_floats(z, "z"))


def relu_grad(z, upstream):
    """Derivative of :func:`relu` at ``z`` times ``upstream``.

    Parameters
    ----------
    z : array-like of shape (n_samples, ...)
        What the function was taken of, not its result.
    upstream : array-like of the shape of ``z``
        Gradient with respect to ``relu(z)``; finite.

    Returns
    -------
    ndarray of the shape of ``z``
        Gradient with respect to ``z``; float32 if ``z`` is, float64 otherwise.

    Raises
    ------
    ValueError, TypeError
        As :func:`relu`, and if the shapes differ or ``upstream`` is not finite.

    References
    ----------
    X. Glorot, A. Bordes, Y. Bengio, "Deep sparse rectifier neural networks", AISTATS 2011.

    Examples
    --------
    >>> from fastml.functional import relu_grad
    >>> relu_grad([-2.0, 0.0, 1.5], [1.0, 1.0, 2.0]).round(4)
    array([0., 0., 2.])
    """
    return _run_grad(kernels.relu_grad, z, upstream)


def leaky_relu(z, *, slope=0.01):
    """Leaky ReLU: ``z``, or ``slope * z`` below zero.

    Parameters
    ----------
    z : array-like of shape (n_samples, ...)
        Any number of dimensions from one.
    slope : float, default=0.01
        What numbers below zero are multiplied by, so that no unit falls silent for good.

    Returns
    -------
    ndarray of the shape of ``z``
        Float32 if ``z`` is, float64 otherwise.

    Raises
    ------
    ValueError
        If ``z`` is a single number, empty or NaN, or a slope is not finite.
    TypeError
        If it is not made of real numbers.

    References
    ----------
    A. L. Maas, A. Y. Hannun, A. Y. Ng, "Rectifier nonlinearities improve neural network acoustic models", ICML 2013.

    Examples
    --------
    >>> from fastml.functional import leaky_relu
    >>> leaky_relu([-2.0, 0.0, 1.5]).round(4)
    array([-0.02,  0.  ,  1.5 ])
    """
    return prelu(z, slope)


def leaky_relu_grad(z, upstream, *, slope=0.01):
    """Derivative of :func:`leaky_relu` at ``z`` times ``upstream``.

    Parameters
    ----------
    z : array-like of shape (n_samples, ...)
        What the function was taken of, not its result.
    upstream : array-like of the shape of ``z``
        Gradient with respect to ``leaky_relu(z)``; finite.
    slope : float, default=0.01
        What numbers below zero are multiplied by, so that no unit falls silent for good.

    Returns
    -------
    ndarray of the shape of ``z``
        Gradient with respect to ``z``; float32 if ``z`` is, float64 otherwise.

    Raises
    ------
    ValueError, TypeError
        As :func:`leaky_relu`, and if the shapes differ or ``upstream`` is not finite.

    References
    ----------
    A. L. Maas, A. Y. Hannun, A. Y. Ng, "Rectifier nonlinearities improve neural network acoustic models", ICML 2013.

    Examples
    --------
    >>> from fastml.functional import leaky_relu_grad
    >>> leaky_relu_grad([-2.0, 0.0, 1.5], [1.0, 1.0, 2.0]).round(4)
    array([0.01, 0.01, 2.  ])
    """
    return prelu_grad(z, upstream, slope)


def prelu(z, slope=0.25):
    """Parametric ReLU: ``z``, or ``slope * z`` below zero, with a slope that is learned.

    Parameters
    ----------
    z : array-like of shape (n_samples, ...)
        Any number of dimensions from one.
    slope : float or array-like, default=0.25
        What numbers below zero are multiplied by: one for all, or one for each column of ``z``.

    Returns
    -------
    ndarray of the shape of ``z``
        Float32 if ``z`` is, float64 otherwise.

    Raises
    ------
    ValueError
        If ``z`` is a single number, empty or NaN, or a slope is not finite.
    TypeError
        If it is not made of real numbers.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers", ICCV 2015.

    Examples
    --------
    >>> from fastml.functional import prelu
    >>> prelu([-2.0, 0.0, 1.5]).round(4)
    array([-0.5,  0. ,  1.5])
    """
    z = check_any_floats(z, "z")
    return _run(kernels.leaky_relu, z, _check_slope(slope, z))


def prelu_grad(z, upstream, slope=0.25):
    """Derivative of :func:`prelu` at ``z`` times ``upstream``.

    Parameters
    ----------
    z : array-like of shape (n_samples, ...)
        What the function was taken of, not its result.
    upstream : array-like of the shape of ``z``
        Gradient with respect to ``prelu(z)``; finite.
    slope : float or array-like, default=0.25
        What numbers below zero are multiplied by: one for all, or one for each column of ``z``.

    Returns
    -------
    ndarray of the shape of ``z``
        Gradient with respect to ``z``; float32 if ``z`` is, float64 otherwise.
        That with respect to a slope is the sum of ``upstream * minimum(z, 0)`` over all that it multiplies.

    Raises
    ------
    ValueError, TypeError
        As :func:`prelu`, and if the shapes differ or ``upstream`` is not finite.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers", ICCV 2015.

    Examples
    --------
    >>> from fastml.functional import prelu_grad
    >>> prelu_grad([-2.0, 0.0, 1.5], [1.0, 1.0, 2.0]).round(4)
    array([0.25, 0.25, 2.  ])
    """
    z = check_any_floats(z, "z")
    upstream = check_like(upstream, "upstream", z, "z")
    return _run(kernels.leaky_relu_grad, z, _check_slope(slope, z), upstream=upstream)


def elu(z):
    """Exponential linear unit: ``z``, or ``exp(z) - 1`` below zero.

    Parameters
    ----------
    z : array-like of shape (n_samples, ...)
        Any number of dimensions from one.

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
    D.-A. Clevert, T. Unterthiner, S. Hochreiter, "Fast and accurate deep network learning by exponential linear units",
    ICLR 2016.

    Examples
    --------
    >>> from fastml.functional import elu
    >>> elu([-2.0, 0.0, 1.5]).round(4)
    array([-0.8647,  0.    ,  1.5   ])
    """
    return _run(kernels.elu, check_any_floats(z, "z"))


def elu_grad(z, upstream):
    """Derivative of :func:`elu` at ``z`` times ``upstream``.

    Parameters
    ----------
    z : array-like of shape (n_samples, ...)
        What the function was taken of, not its result.
    upstream : array-like of the shape of ``z``
        Gradient with respect to ``elu(z)``; finite.

    Returns
    -------
    ndarray of the shape of ``z``
        Gradient with respect to ``z``; float32 if ``z`` is, float64 otherwise.

    Raises
    ------
    ValueError, TypeError
        As :func:`elu`, and if the shapes differ or ``upstream`` is not finite.

    References
    ----------
    D.-A. Clevert, T. Unterthiner, S. Hochreiter, "Fast and accurate deep network learning by exponential linear units",
    ICLR 2016.

    Examples
    --------
    >>> from fastml.functional import elu_grad
    >>> elu_grad([-2.0, 0.0, 1.5], [1.0, 1.0, 2.0]).round(4)
    array([0.1353, 1.    , 2.    ])
    """
    return _run_grad(kernels.elu_grad, z, upstream)


def gelu(z, *, approximate="none"):
    """Gaussian error linear unit: ``z`` times the share of a standard normal distribution that is below it.

    Parameters
    ----------
    z : array-like of shape (n_samples, ...)
        Any number of dimensions from one.
    approximate : {"none", "tanh"}, default="none"
        The exact form, or that with a tanh in the place of the error function, off by at most 5e-4.

    Returns
    -------
    ndarray of the shape of ``z``
        Float32 if ``z`` is, float64 otherwise.

    Raises
    ------
    ValueError
        If ``z`` is a single number, empty or NaN, or ``approximate`` is unknown.
    TypeError
        If it is not made of real numbers.

    References
    ----------
    D. Hendrycks, K. Gimpel, "Gaussian error linear units", arXiv:1606.08415, 2016.

    Examples
    --------
    >>> from fastml.functional import gelu
    >>> gelu([-2.0, 0.0, 1.5]).round(4)
    array([-0.0455,  0.    ,  1.3998])
    """
    return _run(_gelu_kernels(approximate)[0], check_any_floats(z, "z"))


def gelu_grad(z, upstream, *, approximate="none"):
    """Derivative of :func:`gelu` at ``z`` times ``upstream``.

    Parameters
    ----------
    z : array-like of shape (n_samples, ...)
        What the function was taken of, not its result.
    upstream : array-like of the shape of ``z``
        Gradient with respect to ``gelu(z)``; finite.
    approximate : {"none", "tanh"}, default="none"
        The exact form, or that with a tanh in the place of the error function, off by at most 5e-4.

    Returns
    -------
    ndarray of the shape of ``z``
        Gradient with respect to ``z``; float32 if ``z`` is, float64 otherwise.

    Raises
    ------
    ValueError, TypeError
        As :func:`gelu`, and if the shapes differ or ``upstream`` is not finite.

    References
    ----------
    D. Hendrycks, K. Gimpel, "Gaussian error linear units", arXiv:1606.08415, 2016.

    Examples
    --------
    >>> from fastml.functional import gelu_grad
    >>> gelu_grad([-2.0, 0.0, 1.5], [1.0, 1.0, 2.0]).round(4)
    array([-0.0852,  0.5   ,  2.2549])
    """
    return _run_grad(_gelu_kernels(approximate)[1], z, upstream)


def _gelu_kernels(approximate):
    """Kernels of the function and its product."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate: expected 'none' or 'tanh', got {approximate!r}.")
    is_exact = approximate == "none"
    return (kernels.gelu, kernels.gelu_grad) if is_exact else (kernels.gelu_tanh, kernels.gelu_tanh_grad)
