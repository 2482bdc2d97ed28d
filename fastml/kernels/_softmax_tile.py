"""Softmax cross-entropy on a tile of logits: some rows, and all classes or a panel of them.

With q the smoothed target, ``q = (1 - smoothing) t + smoothing / C``, and m its sum, the loss of a row is
``w (m lse - q.z)`` and its gradient ``w (m softmax(z) - q)``; ``weights`` holds w and w m. A panel of classes
knows its own maximum and its sum of exp(z - maximum); the log-sum-exp over all panels puts them together.
``stats`` (4, rows) holds for each row of the tile: that maximum, that sum, q.z, and the log-sum-exp.
"""

from fastml.kernels._jit import point
from fastml.kernels._math import exp, log, row_max
from fastml.kernels._rows import add, add_scaled, dot, exp_shifted, scale_shift, total


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
def softmax_tile(z, b, first_row, first_class, target, settings, stats):
    """Add the bias of the panel's classes and exponentiate: z becomes exp(z - maximum), row by row."""
    for i in range(z.shape[0]):
        row = z[i][: b.shape[0]]
        add(row, b)
        top = row_max(row)
        stats[2, i] = target_dot(row, target, first_row + i, first_class, settings[1], settings[2])
        stats[1, i] = exp_shifted(row, top)
        stats[0, i] = top


@point
def finish_rows(first, last, weights, stats, loss):
    """Log-sum-exp and losses of rows first..last, whose panels are put together."""
    for i in range(last - first):
        stats[3, i] = log(stats[1, i]) + stats[0, i]
        loss[first + i] = weights[1, first + i] * stats[3, i] - weights[0, first + i] * stats[2, i]


@point
def residual_tile(z, width, first_row, first_class, target, weights, settings, stats):
    """From exp(z - maximum) to the gradient ``w (m softmax(z) - q)``, over the first ``width`` columns."""
    for i in range(z.shape[0]):
        row = z[i][:width]
        w = weights[0, first_row + i]
        factor = weights[1, first_row + i] * exp(stats[0, i] - stats[3, i])
        scale_shift(row, factor, -w * settings[2])
        subtract_target(row, target, first_row + i, first_class, w * settings[1])
