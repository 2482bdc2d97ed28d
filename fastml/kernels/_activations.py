"""Activations f(z) and their derivatives, and loops over a row: forward with the bias, backward with the gradient.

- identity: z;  ReLU: max(z, 0);  leaky ReLU: z, or 0.01 z below zero;  PReLU: z, or a z below zero, with a learned;
- ELU: z, or e^z - 1 below zero (Clevert, Unterthiner & Hochreiter, ICLR 2016);
- GELU: z Phi(z), with Phi the distribution function of a standard normal number; its tanh form is z s(2 u), with
  u = sqrt(2 / pi) (z + 0.044715 z^3) and s the sigmoid (Hendrycks & Gimpel, arXiv:1606.08415);
- tanh z and sigmoid z, whose derivatives are written with e^-|z|, so that nothing cancels in the tails.

The derivative at zero, where there are two, is that from below. Which activation a row has is a number, looked at once
a row and never inside of a loop.
"""

import math

from fastml.kernels._jit import exact_point, part, point
from fastml.kernels._math import exp, normal_cdf, sigmoid, tanh

IDENTITY, RELU, LEAKY_RELU, PRELU, ELU, GELU, GELU_TANH, TANH, SIGMOID = range(9)
LEAK = 0.01
_SATURATED = 40.0  # where a GELU has long been z, or zero
_WIDTH, _CUBE = math.sqrt(8 / math.pi), 0.044715
_PEAK = 1 / math.sqrt(2 * math.pi)


@point
def relu(z):
    """What is above zero."""
    return type(z)(0) if z <= 0 else z


@point
def relu_slope(z):
    """One above zero, and zero up to there; of NaN it is NaN."""
    slope = type(z)(1) if z > 0 else type(z)(0)
    return slope if z == z else z


@point
def leaky_relu(z, slope):
    """z, or ``slope`` times z below zero."""
    return slope * z if z <= 0 else z


@point
def leaky_relu_slope(z, slope):
    """One above zero, and ``slope`` up to there; of NaN it is NaN."""
    slope = type(z)(1) if z > 0 else slope
    return slope if z == z else z


@exact_point
def elu(z):
    """z, or e^z - 1 below zero; the tanh keeps its digits near zero."""
    real = type(z)
    below = real(0) if z > 0 else z
    return z if z > 0 else tanh(real(0.5) * below) * (exp(below) + real(1))


@exact_point
def elu_slope(z):
    """One, or e^z below zero."""
    return type(z)(1) if z > 0 else exp(z)


@exact_point
def gelu(z):
    """z times the share of a standard normal number that is below it."""
    low = type(z)(-_SATURATED)
    z = low if z < low else z  # not -infinity times zero
    return z * normal_cdf(z)


@exact_point
def _clipped(z):
    real = type(z)
    z = real(_SATURATED) if z > real(_SATURATED) else z
    return real(-_SATURATED) if z < real(-_SATURATED) else z


@exact_point
def gelu_slope(z):
    """Derivative of the GELU."""
    real = type(z)
    z = _clipped(z)
    return normal_cdf(z) + z * real(_PEAK) * exp(real(-0.5) * z * z)


@exact_point
def gelu_tanh(z):
    """The tanh form of the GELU."""
    real = type(z)
    low = real(-_SATURATED)
    z = low if z < low else z
    return z * sigmoid(real(_WIDTH) * (z + real(_CUBE) * z * z * z))


@exact_point
def sigmoid_slope(z):
    """Derivative of the sigmoid."""
    e = exp(-abs(z))
    root = type(z)(1) + e
    return e / (root * root)


@exact_point
def gelu_tanh_slope(z):
    """Derivative of the tanh form of the GELU."""
    real = type(z)
    z = _clipped(z)
    square = real(_CUBE) * z * z
    u = real(_WIDTH) * (z + square * z)
    return sigmoid(u) + z * sigmoid_slope(u) * real(_WIDTH) * (real(1) + real(3) * square)


@exact_point
def tanh_slope(z):
    """Derivative of the hyperbolic tangent."""
    e = exp(-abs(z + z))
    root = type(z)(1) + e
    return type(z)(4) * e / (root * root)


@part
def activate_row(kind, z, b, a, out):
    """z += b and out = f(z), with the slopes ``a`` of PReLU; ``out`` may be ``z``."""
    for j in range(z.shape[0]):
        z[j] += b[j]
    if kind == RELU:
        for j in range(z.shape[0]):
            out[j] = relu(z[j])
    elif kind == LEAKY_RELU:
        for j in range(z.shape[0]):
            out[j] = leaky_relu(z[j], z.dtype.type(LEAK))
    elif kind == PRELU:
        for j in range(z.shape[0]):
            out[j] = leaky_relu(z[j], a[j])
    elif kind == ELU:
        for j in range(z.shape[0]):
            out[j] = elu(z[j])
    elif kind == GELU:
        for j in range(z.shape[0]):
            out[j] = gelu(z[j])
    elif kind == GELU_TANH:
        for j in range(z.shape[0]):
            out[j] = gelu_tanh(z[j])
    elif kind == TANH:
        for j in range(z.shape[0]):
            out[j] = tanh(z[j])
    elif kind == SIGMOID:
        for j in range(z.shape[0]):
            out[j] = sigmoid(z[j])
    else:
        for j in range(z.shape[0]):
            out[j] = z[j]


@part
def slope_row(kind, z, a, upstream, out):
    """out = upstream * f'(z), with the slopes ``a`` of PReLU; ``out`` may be ``z`` or ``upstream``."""
    if kind == RELU:
        for j in range(z.shape[0]):
            out[j] = upstream[j] * relu_slope(z[j])
    elif kind == LEAKY_RELU:
        for j in range(z.shape[0]):
            out[j] = upstream[j] * leaky_relu_slope(z[j], z.dtype.type(LEAK))
    elif kind == PRELU:
        for j in range(z.shape[0]):
            out[j] = upstream[j] * leaky_relu_slope(z[j], a[j])
    elif kind == ELU:
        for j in range(z.shape[0]):
            out[j] = upstream[j] * elu_slope(z[j])
    elif kind == GELU:
        for j in range(z.shape[0]):
            out[j] = upstream[j] * gelu_slope(z[j])
    elif kind == GELU_TANH:
        for j in range(z.shape[0]):
            out[j] = upstream[j] * gelu_tanh_slope(z[j])
    elif kind == TANH:
        for j in range(z.shape[0]):
            out[j] = upstream[j] * tanh_slope(z[j])
    elif kind == SIGMOID:
        for j in range(z.shape[0]):
            out[j] = upstream[j] * sigmoid_slope(z[j])
    else:
        for j in range(z.shape[0]):
            out[j] = upstream[j]
