"""What training inside a kernel shares: targets of a batch, penalties, clipping, and the optimizer's update."""

import math
from typing import NamedTuple

import numpy as np

from fastml.kernels._jit import point
from fastml.kernels._rows import copy
from fastml.kernels._rules import apply_rule


class Parameters(NamedTuple):
    """Flat and of one length: values, gradient, and the optimizer's moments (empty where it has none)."""

    values: np.ndarray
    grad: np.ndarray
    first: np.ndarray
    second: np.ndarray


class Rule(NamedTuple):
    """How a gradient becomes a step; see ``_rules``."""

    kind: int
    hyper: np.ndarray
    max_norm: float  # 0: no clipping
    l2: float
    l1: float


@point
def gather_target(rows, target, batch_target):
    """Copy the labels or the probabilities of ``rows``."""
    for i in range(rows.shape[0]):
        if target.ndim == 1:
            batch_target[i] = target[rows[i]]
        else:
            copy(batch_target[i], target[rows[i]])


@point
def mean_loss_and_penalty(n_rows, loss, parameters, n_coef, rule):
    """From the batch's sums to its means: scales the gradient, adds the L2 term, returns the mean loss."""
    total = 0.0
    for i in range(n_rows):
        total += loss[i]
    values, grad = parameters.values, parameters.grad
    factor = grad.dtype.type(1 / n_rows)
    for i in range(n_coef):
        grad[i] = factor * grad[i] + rule.l2 * values[i]
    for i in range(n_coef, grad.shape[0]):
        grad[i] *= factor
    return total / n_rows


@point
def clipping(grad, max_norm):
    """The factor that brings the gradient's norm down to ``max_norm``."""
    if max_norm == 0:
        return grad.dtype.type(1)
    square = 0.0
    for i in range(grad.shape[0]):
        value = np.float64(grad[i])  # float() of a float32 is a float32 to Numba
        square += value * value
    return grad.dtype.type(min(1.0, max_norm / (math.sqrt(square) + 1e-300)))


@point
def update(parameters, n_coef, rule, rate, step):
    """One step of the optimizer; the intercepts, behind the coefficients, are not shrunk."""
    factor = clipping(parameters.grad, rule.max_norm)
    for start, stop, l1 in ((0, n_coef, rule.l1), (n_coef, parameters.values.shape[0], rule.l1 - rule.l1)):
        first, second = parameters.first[start:stop], parameters.second[start:stop]
        w, g = parameters.values[start:stop], parameters.grad[start:stop]
        apply_rule(rule.kind, w, g, first, second, rate, step, rule.hyper, l1, factor)
