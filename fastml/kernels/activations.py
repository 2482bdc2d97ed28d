"""Activations and the products of their derivatives, on flat arrays; formulas in ``_activations``.

Any output may be its input. A NaN shows in the largest of the results, which costs no pass of its own; what is found
is told one floor above.
"""

import numpy as np

from fastml.kernels import _activations as points
from fastml.kernels import _math
from fastml.kernels._jit import kernel
from fastml.kernels._rows import is_finite


def _activation(function):
    """The kernel that fills ``out`` with a function of ``z``."""

    @kernel
    def activation_kernel(start, stop, z, out, found):
        """``out`` (size,) of ``z`` (size,); ``found[0] = 1`` if a result is NaN."""
        x, y, largest = z[start:stop], out[start:stop], z.dtype.type(0)
        for j in range(x.shape[0]):
            value = function(x[j])
            y[j] = value
            largest = _math.maximum(largest, value)
        if largest != largest:
            found[0] = 1

    return activation_kernel


def _product(slope):
    """The kernel that fills ``out`` with the derivative times what comes from above."""

    @kernel
    def product_kernel(start, stop, z, upstream, out, found):
        """``out`` (size,) of ``z`` and ``upstream`` (size,); ``found[0] = 1`` if a result is not finite."""
        x, u, y, largest = z[start:stop], upstream[start:stop], out[start:stop], z.dtype.type(0)
        for j in range(x.shape[0]):
            value = slope(x[j]) * u[j]
            y[j] = value
            largest = _math.maximum(largest, abs(value))
        if not largest < z.dtype.type(np.inf):
            found[0] = 1

    return product_kernel


@kernel
def leaky_relu(start, stop, z, slope, out, found):
    """``out`` (size,) of ``z`` (size,), below zero times ``slope`` (1,), or (size,) where each has its own."""
    x, y, largest = z[start:stop], out[start:stop], z.dtype.type(0)
    if slope.shape[0] == 1:
        below = slope[0]
        for j in range(x.shape[0]):
            y[j] = points.leaky_relu(x[j], below)
    else:
        own = slope[start:stop]
        for j in range(x.shape[0]):
            y[j] = points.leaky_relu(x[j], own[j])
    for j in range(x.shape[0]):
        largest = _math.maximum(largest, y[j])
    if largest != largest:
        found[0] = 1


@kernel
def leaky_relu_grad(start, stop, z, slope, upstream, out, found):
    """``out`` (size,) of ``z``, ``slope`` and ``upstream``; ``found[0] = 1`` if a result is not finite."""
    x, u, y = z[start:stop], upstream[start:stop], out[start:stop]
    if slope.shape[0] == 1:
        below = slope[0]
        for j in range(x.shape[0]):
            y[j] = points.leaky_relu_slope(x[j], below) * u[j]
    else:
        own = slope[start:stop]
        for j in range(x.shape[0]):
            y[j] = points.leaky_relu_slope(x[j], own[j]) * u[j]
    if not is_finite(y):
        found[0] = 1


relu, relu_grad = _activation(points.relu), _product(points.relu_slope)
elu, elu_grad = _activation(points.elu), _product(points.elu_slope)
gelu, gelu_grad = _activation(points.gelu), _product(points.gelu_slope)
gelu_tanh, gelu_tanh_grad = _activation(points.gelu_tanh), _product(points.gelu_tanh_slope)
sigmoid, sigmoid_grad = _activation(_math.sigmoid), _product(points.sigmoid_slope)
tanh, tanh_grad = _activation(_math.tanh), _product(points.tanh_slope)
