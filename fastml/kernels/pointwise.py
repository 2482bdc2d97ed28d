"""Losses of single outputs, with weights of rows: binary cross-entropy, squared, absolute and Huber's.

With a prediction or logit z, its target t and the weight w of its row::

    loss = w l(z, t),        d loss / dz = w l'(z, t)

where l and l' are those of ``_losses``. All arrays are flat. The elements belong to as many rows of one length as
``weight`` has entries, so a single weight of one stands for none. The gradient may overwrite the predictions.

A NaN or an infinity makes the loss of its element NaN or infinite, which shows in the sum of zero times the losses of a
chunk: a pass over the input to look for it would take as long as these loops do. What is found is told one floor above.
A weight of zero leaves zeros, also of a loss that overflows.
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


@point
def _is_weighted(weight):
    return weight.shape[0] > 1 or weight[0] != weight.dtype.type(1)


@point
def _apply(w, out):
    """``out`` times weights; zeros where they are, also of a loss that overflowed."""
    zero = out.dtype.type(0)
    for j in range(out.shape[0]):
        out[j] = w[j] * out[j] if w[j] > zero else zero


def _loss(function, of_shares=False):
    """The kernel that fills ``loss``, for a function of ``_losses``."""

    @kernel
    def loss_kernel(start, stop, prediction, target, settings, weight, loss, found):
        """``loss`` (size,); ``found[0] = 1`` where it is not finite, or a target of shares not in 0..1."""
        length, factors = prediction.shape[0] // weight.shape[0], np.empty(_CHUNK, prediction.dtype)
        zero = prediction.dtype.type(0)
        for first in range(start, stop, _CHUNK):
            last, fault, excess = min(first + _CHUNK, stop), zero, zero
            z, t, out = prediction[first:last], target[first:last], loss[first:last]
            for j in range(z.shape[0]):
                value, _ = function(z[j], t[j], *settings)
                excess = maximum(excess, _excess(t[j])) if of_shares else excess
                fault += zero * value
                out[j] = value
            if not (fault == zero and excess <= zero):
                found[0] = 1
            if _is_weighted(weight):
                _row_weights(weight, length, first, factors[: last - first])
                _apply(factors, out)

    return loss_kernel


def _loss_grad(function, of_shares=False):
    """The kernel that fills ``loss`` and ``grad``, for a function of ``_losses``."""

    @kernel
    def loss_grad_kernel(start, stop, prediction, target, settings, weight, loss, grad, found):
        """As the kernel of ``_loss``, with the gradient ``grad`` (size,)."""
        length, factors = prediction.shape[0] // weight.shape[0], np.empty(_CHUNK, prediction.dtype)
        zero = prediction.dtype.type(0)
        for first in range(start, stop, _CHUNK):
            last, fault, excess = min(first + _CHUNK, stop), zero, zero
            z, t, out, g = prediction[first:last], target[first:last], loss[first:last], grad[first:last]
            for j in range(z.shape[0]):
                value, slope = function(z[j], t[j], *settings)
                excess = maximum(excess, _excess(t[j])) if of_shares else excess
                fault += zero * value
                out[j] = value
                g[j] = slope
            if not (fault == zero and excess <= zero):
                found[0] = 1
            if _is_weighted(weight):
                _row_weights(weight, length, first, factors[: last - first])
                _apply(factors, out)
                _apply(factors, g)

    return loss_grad_kernel


binary_cross_entropy = _loss(_losses.binary_cross_entropy, of_shares=True)
binary_cross_entropy_grad = _loss_grad(_losses.binary_cross_entropy, of_shares=True)
squared_error, squared_error_grad = _loss(_losses.squared_error), _loss_grad(_losses.squared_error)
absolute_error, absolute_error_grad = _loss(_losses.absolute_error), _loss_grad(_losses.absolute_error)
huber, huber_grad = _loss(_losses.huber), _loss_grad(_losses.huber)
