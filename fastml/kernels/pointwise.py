"""Losses of single outputs, with weights of rows: binary cross-entropy, squared, absolute and Huber's.

With a prediction or logit z, its target t and the weight w of its row::

    loss = w l(z, t),        d loss / dz = w l'(z, t)

where l and l' are those of ``_losses``. All arrays are flat. The elements belong to as many rows of one length as
``weight`` has entries, so a single weight of one stands for none. The gradient may overwrite the predictions.

A NaN or an infinity makes the loss of its element NaN or infinite, which shows in the largest loss of a chunk: a pass
over the input to look for it would take as long as these loops do. What is found is told one floor above. A weight
of zero leaves zeros, also of a loss that overflows.
"""

import numpy as np

from fastml.kernels import _losses
from fastml.kernels._jit import kernel, point
from fastml.kernels._math import maximum
from fastml.kernels._rows import copy, fill

_CHUNK = 1024  # elements at a time: all arrays within the first-level cache


@point
def _row_weights(weight, length, first, out):
    """``out`` = weights of the elements from ``first`` on, in rows of ``length``."""
    if length == 1:
        copy(out, weight[first : first + out.shape[0]])
        return
    row, start = first // length, 0
    stop = (row + 1) * length - first
    while start < out.shape[0]:
        fill(out[start : min(stop, out.shape[0])], weight[row])
        row, start, stop = row + 1, stop, stop + length


@point
def _excess(t):
    """Above zero if a share is not in 0..1; both differences are exact where it matters."""
    real = type(t)
    return t - real(1) if t > real(0.5) else -t


def _loss(function, of_shares=False):
    """The kernel that fills ``loss``, for a function of ``_losses``."""

    @kernel
    def loss_kernel(start, stop, prediction, target, settings, weight, loss, found):
        """``loss`` (size,); ``found[0] = 1`` where it is not finite, or a target of shares not in 0..1."""
        length, factors = prediction.shape[0] // weight.shape[0], np.empty(_CHUNK, prediction.dtype)
        zero, limit = prediction.dtype.type(0), prediction.dtype.type(np.inf)
        for first in range(start, stop, _CHUNK):
            last, largest, excess = min(first + _CHUNK, stop), zero, zero
            z, t, w, out = prediction[first:last], target[first:last], factors[: last - first], loss[first:last]
            _row_weights(weight, length, first, w)
            for j in range(z.shape[0]):
                value, _ = function(z[j], t[j], *settings)
                excess = maximum(excess, _excess(t[j])) if of_shares else excess
                largest = maximum(largest, value)
                out[j] = w[j] * value if w[j] > zero else zero
            if not (largest < limit and excess <= zero):
                found[0] = 1

    return loss_kernel


def _loss_grad(function, of_shares=False):
    """The kernel that fills ``loss`` and ``grad``, for a function of ``_losses``."""

    @kernel
    def loss_grad_kernel(start, stop, prediction, target, settings, weight, loss, grad, found):
        """As the kernel of ``_loss``, with the gradient ``grad`` (size,)."""
        length, factors = prediction.shape[0] // weight.shape[0], np.empty(_CHUNK, prediction.dtype)
        zero, limit = prediction.dtype.type(0), prediction.dtype.type(np.inf)
        for first in range(start, stop, _CHUNK):
            last, largest, excess = min(first + _CHUNK, stop), zero, zero
            z, t, w, out = prediction[first:last], target[first:last], factors[: last - first], loss[first:last]
            g = grad[first:last]
            _row_weights(weight, length, first, w)
            for j in range(z.shape[0]):
                value, slope = function(z[j], t[j], *settings)
                excess = maximum(excess, _excess(t[j])) if of_shares else excess
                largest = maximum(largest, value)
                out[j] = w[j] * value if w[j] > zero else zero
                g[j] = w[j] * slope if w[j] > zero else zero
            if not (largest < limit and excess <= zero):
                found[0] = 1

    return loss_grad_kernel


binary_cross_entropy = _loss(_losses.binary_cross_entropy, of_shares=True)
binary_cross_entropy_grad = _loss_grad(_losses.binary_cross_entropy, of_shares=True)
squared_error, squared_error_grad = _loss(_losses.squared_error), _loss_grad(_losses.squared_error)
absolute_error, absolute_error_grad = _loss(_losses.absolute_error), _loss_grad(_losses.absolute_error)
huber, huber_grad = _loss(_losses.huber), _loss_grad(_losses.huber)
