"""The losses on a tile of logits or predictions: some rows, and all outputs or a panel of them.

Softmax couples the outputs (classes). With q the smoothed target, ``q = (1 - smoothing) t + smoothing / C``, and m
its sum, the loss of a row is ``w (m lse - q.z)`` and its gradient ``w (m softmax(z) - q)``; ``weights`` holds w and
w m. A panel of classes knows its own maximum and its sum of exp(z - maximum); the log-sum-exp over all panels puts
them together. ``stats`` (4, rows) holds for each row of the tile: that maximum, that sum, q.z, and the log-sum-exp.

The other losses (``_losses``) are sums over independent outputs, ``w sum_k l(z_k, t_k)``. They take the same way:
their panels leave minus their sum in the place of q.z, and their ``weights`` hold w and 0.

A row of few outputs does not fill a vector, so elementary functions are taken of all rows of a tile at once there.
"""

from typing import NamedTuple

import numpy as np

from fastml.kernels._jit import point
from fastml.kernels._losses import absolute_error, binary_cross_entropy, huber, squared_error
from fastml.kernels._math import exp, log
from fastml.kernels._rows import add, add_max, add_scaled, dot, exp_shifted, scale, scale_shift, total

SOFTMAX, BINARY_CROSS_ENTROPY, SQUARED, ABSOLUTE, HUBER = range(5)
_NARROW = 16  # outputs from which on a row fills a vector


class Settings(NamedTuple):
    """Which loss, and its numbers in the dtype of the rows; those of other losses are unused."""

    kind: int
    beta: float = 1.0  # 1 / temperature
    keep: float = 1.0  # 1 - smoothing
    spread: float = 0.0  # smoothing / C
    delta: float = 1.0  # Huber's


def settings(dtype, kind, **numbers):
    """``Settings`` in a dtype."""
    return Settings(kind, *(dtype.type(number) for number in Settings(kind, **numbers)[1:]))


@point
def target_dot(z, target, i, first_class, keep, spread):
    """q.z of row i over the classes of this panel; ``target`` holds labels (n,) or probabilities (n, C)."""
    result = z.dtype.type(0)
    if target.ndim == 1:
        j = target[i] - first_class
        if 0 <= j < z.shape[0]:
            result = keep * z[j]
    else:
        result = keep * dot(z, target[i][first_class : first_class + z.shape[0]])
    if spread > 0:
        result += spread * total(z)
    return result


@point
def subtract_target(z, target, i, first_class, weight):
    """z -= weight * t over the classes of this panel."""
    if target.ndim == 1:
        j = target[i] - first_class
        if 0 <= j < z.shape[0]:
            z[j] -= weight
    else:
        add_scaled(z, -weight, target[i][first_class : first_class + z.shape[0]])


@point
def is_narrow(z, b):
    """Whether the tile is one run of rows that do not fill a vector."""
    return b.shape[0] == z.shape[1] and z.shape[1] < _NARROW


@point
def narrow_softmax_tile(z, b, first_row, first_class, target, settings, stats):
    """As ``softmax_tile``."""
    for i in range(z.shape[0]):
        row, top = z[i], add_max(z[i], b)
        stats[0, i] = top
        stats[2, i] = target_dot(row, target, first_row + i, first_class, settings.keep, settings.spread)
        for j in range(row.shape[0]):
            row[j] -= top
    exp_shifted(z.reshape(-1), z.dtype.type(0))
    for i in range(z.shape[0]):
        stats[1, i] = total(z[i])


@point
def softmax_tile(z, b, first_row, first_class, target, settings, stats):
    """Add the bias of the panel's classes and exponentiate: z becomes exp(z - maximum), row by row."""
    for i in range(z.shape[0]):
        row = z[i][: b.shape[0]]
        top = add_max(row, b)
        stats[2, i] = target_dot(row, target, first_row + i, first_class, settings.keep, settings.spread)
        stats[1, i] = exp_shifted(row, top)
        stats[0, i] = top


def _over_tile(output_loss):
    """The function of flat ``z``, which becomes the derivative, and ``values``, of a loss."""

    @point
    def over_tile(z, t, values):
        for j in range(z.shape[0]):
            values[j], z[j] = output_loss(z[j], t[j])

    return over_tile


def _over_outputs(output_loss):
    """The row function of a loss: row + b becomes its derivative; returns the sum of the losses."""

    @point
    def over_outputs(row, b, t):
        result = row.dtype.type(0)
        for j in range(row.shape[0]):
            value, row[j] = output_loss(row[j] + b[j], t[j])
            result += value
        return result

    return over_outputs


_binary_cross_entropy_row, _squared_row, _absolute_row = map(
    _over_outputs, (binary_cross_entropy, squared_error, absolute_error)
)


_binary_cross_entropy_all, _squared_all, _absolute_all = map(
    _over_tile, (binary_cross_entropy, squared_error, absolute_error)
)


@point
def _huber_all(z, t, values, delta):
    for j in range(z.shape[0]):
        values[j], z[j] = huber(z[j], t[j], delta)


@point
def _huber_row(row, b, t, delta):
    result = row.dtype.type(0)
    for j in range(row.shape[0]):
        value, row[j] = huber(row[j] + b[j], t[j], delta)
        result += value
    return result


@point
def narrow_outputs_tile(z, b, first_row, target, settings, stats):
    """As ``outputs_tile``, of all outputs."""
    for i in range(z.shape[0]):
        add(z[i], b)
    values = np.empty_like(z)
    flat = z.reshape(-1), target[first_row : first_row + z.shape[0]].reshape(-1), values.reshape(-1)
    if settings.kind == BINARY_CROSS_ENTROPY:
        _binary_cross_entropy_all(*flat)
    elif settings.kind == SQUARED:
        _squared_all(*flat)
    elif settings.kind == ABSOLUTE:
        _absolute_all(*flat)
    else:
        _huber_all(*flat, settings.delta)
    for i in range(z.shape[0]):
        stats[0, i], stats[1, i], stats[2, i] = 0, 1, -total(values[i])


@point
def outputs_tile(z, b, first_row, first_output, target, settings, stats):
    """Add the bias of the panel's outputs; z becomes the derivative of each one's loss."""
    for i in range(z.shape[0]):
        row = z[i][: b.shape[0]]
        t = target[first_row + i][first_output : first_output + b.shape[0]]
        if settings.kind == BINARY_CROSS_ENTROPY:
            value = _binary_cross_entropy_row(row, b, t)
        elif settings.kind == SQUARED:
            value = _squared_row(row, b, t)
        elif settings.kind == ABSOLUTE:
            value = _absolute_row(row, b, t)
        else:
            value = _huber_row(row, b, t, settings.delta)
        stats[0, i], stats[1, i], stats[2, i] = 0, 1, -value


@point
def forward_tile(z, b, first_row, first_output, target, settings, stats):
    """Add the bias, and leave in z and ``stats`` what losses and gradient are made of."""
    if target.ndim == 1 or settings.kind == SOFTMAX:  # of labels Numba compiles this branch only
        if is_narrow(z, b):
            narrow_softmax_tile(z, b, first_row, first_output, target, settings, stats)
        else:
            softmax_tile(z, b, first_row, first_output, target, settings, stats)
    elif is_narrow(z, b) and target.shape[1] == z.shape[1]:
        narrow_outputs_tile(z, b, first_row, target, settings, stats)
    else:
        outputs_tile(z, b, first_row, first_output, target, settings, stats)


@point
def finish_rows(first, last, weights, stats, loss):
    """Log-sum-exp and losses of rows first..last, whose panels are put together."""
    for i in range(last - first):
        stats[3, i] = log(stats[1, i]) + stats[0, i]
        loss[first + i] = weights[1, first + i] * stats[3, i] - weights[0, first + i] * stats[2, i]


@point
def softmax_residual(row, i, first_row, first_class, target, weights, settings, stats):
    """From exp(z - maximum) to the gradient ``w (m softmax(z) - q)`` of row i of the tile."""
    w = weights[0, first_row + i]
    factor = weights[1, first_row + i] * exp(stats[0, i] - stats[3, i])
    scale_shift(row, factor, -w * settings.spread)
    subtract_target(row, target, first_row + i, first_class, w * settings.keep)


@point
def residual_tile(z, width, first_row, first_output, target, weights, settings, stats):
    """From what ``forward_tile`` left to the gradient, over the first ``width`` columns."""
    for i in range(z.shape[0]):
        row = z[i][:width]
        if target.ndim == 1 or settings.kind == SOFTMAX:
            softmax_residual(row, i, first_row, first_output, target, weights, settings, stats)
        else:
            scale(row, weights[0, first_row + i])
