"""Output functions and the products of their derivatives, on flat arrays.

With e = exp(-|z|), so that nothing overflows and nothing cancels in the tails::

    sigmoid z = 1 / (1 + exp(-z)),    sigmoid' z = e / (1 + e)^2
    tanh z,                           tanh' z = 4 e^2 / (1 + e^2)^2

Any output may be its input. A NaN shows in the largest of the results, which costs no pass of its own; what is found
is told one floor above.
"""

import numpy as np

from fastml.kernels import _math
from fastml.kernels._jit import exact_point, kernel


@exact_point
def _sigmoid_slope(z):
    """Derivative of the sigmoid."""
    e = _math.exp(-abs(z))
    root = type(z)(1) + e
    return e / (root * root)


@exact_point
def _tanh_slope(z):
    """Derivative of the hyperbolic tangent."""
    e = _math.exp(-abs(z + z))
    root = type(z)(1) + e
    return type(z)(4) * e / (root * root)


def _activation(function):
    """The kernel that fills ``out`` with a function of ``_math``."""

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


sigmoid, sigmoid_grad = _activation(_math.sigmoid), _product(_sigmoid_slope)
tanh, tanh_grad = _activation(_math.tanh), _product(_tanh_slope)
