"""L-BFGS for many independent outputs at once: each has its own memory, step and end, all share the passes over X.

A round evaluates the gradients of all outputs at their trial points; then each output, on its own, takes its point or
shortens its step (``advance``). The directions are those of Nocedal (Mathematics of Computation 35, 1980; two loops
over the last differences of points ``S`` and gradients ``Y``). The losses are convex, so slopes along the direction
suffice for the line search: a point is taken where the slope is not steeper uphill than ``_UPHILL`` times what it was
downhill, otherwise the next step is where the line between both slopes crosses zero.

The work is done in coordinates where features are centred and have unit curvature: ``u = w * scale``,
``c = (b + w @ mean) * b_scale`` with ``scale = sqrt(curvature * variance + l2)`` and ``b_scale = sqrt(curvature)``.
Rows hold the coefficients of one output and behind them its intercept.
"""

import math
from typing import NamedTuple

import numpy as np

from fastml.kernels._jit import kernel, point
from fastml.kernels._rows import add_scaled, copy, dot

FRESH, ACTIVE, DONE = 0, 1, 2  # status of an output
_UPHILL = 0.5
_FIRST_STEP = 0.1  # of the gradient, while nothing is known of the curvature
_LEAST_CUT = 0.05  # a step shrinks no further at a time
_LEAST_STEP = 1e-6  # of the direction: below, rounding decides


class Shape(NamedTuple):
    """Means and variances of the features (d,), curvatures of the outputs (K,), the L2 penalty, and tolerances."""

    mean: np.ndarray
    variance: np.ndarray
    curvature: np.ndarray
    l2: float
    tol: float
    scaled_tol: float
    fit_intercept: bool


class State(NamedTuple):
    """For each output: point, gradient and direction (K, p), scratch (K, at least p and m), and pairs (K, m, p).

    ``rho`` (K, m) holds 1 / s.y; ``n_pairs`` (K,) counts the pairs; ``step`` and ``slope`` (K,) are of the direction.
    """

    status: np.ndarray
    point: np.ndarray
    grad: np.ndarray
    direction: np.ndarray
    scratch: np.ndarray
    S: np.ndarray
    Y: np.ndarray
    rho: np.ndarray
    n_pairs: np.ndarray
    step: np.ndarray
    slope: np.ndarray


@point
def scale_of(variance, curvature, l2):
    """What a coefficient is multiplied with; 1 where nothing depends on it."""
    square = curvature * variance + l2
    return math.sqrt(square) if square > 0 else type(square)(1)


@point
def from_trial(w, w_grad, k, shape, out):
    """Gradient in the coordinates of the work, and the largest entry of the gradient by w, with the penalty's part."""
    d, curvature = shape.mean.shape[0], shape.curvature[k]
    b_grad = w_grad[d] if shape.fit_intercept else w_grad[d] - w_grad[d]
    largest = abs(b_grad)
    for j in range(d):
        value = w_grad[j] + shape.l2 * w[j]
        largest = max(largest, abs(value))
        out[j] = (value - b_grad * shape.mean[j]) / scale_of(shape.variance[j], curvature, shape.l2)
    out[d] = b_grad / math.sqrt(curvature)
    return largest


@point
def to_trial(k, shape, state, w):
    """Coefficients and intercept one step along the direction."""
    d, curvature, step = shape.mean.shape[0], shape.curvature[k], state.step[k]
    start, direction = state.point[k], state.direction[k]
    for j in range(d):
        scale = scale_of(shape.variance[j], curvature, shape.l2)
        w[j] = (start[j] + step * direction[j]) / scale
    shift = dot(w[:d], shape.mean)  # a sum in the loop above would depend on where in memory its arrays are
    w[d] = (start[d] + step * direction[d]) / math.sqrt(curvature) - shift


@point
def largest_entry(row):
    """Largest absolute value."""
    result = row.dtype.type(0)
    for j in range(row.shape[0]):
        result = max(result, abs(row[j]))
    return result


@point
def take(k, state):
    """Move to the trial point; keep the pair of differences where the curvature is positive."""
    step, memory = state.step[k], state.S.shape[1]
    grad, fresh = state.grad[k], state.scratch[k]
    s, y = state.S[k, state.n_pairs[k] % memory], state.Y[k, state.n_pairs[k] % memory]
    for j in range(s.shape[0]):
        s[j] = step * state.direction[k, j]
        y[j] = fresh[j] - grad[j]
    add_scaled(state.point[k], step, state.direction[k])
    copy(grad, fresh)
    rho = 1 / dot(s, y)
    if 0 < rho < np.inf:
        state.rho[k, state.n_pairs[k] % memory] = rho
        state.n_pairs[k] += 1


@point
def aim(k, state):
    """The next direction, from the gradient and the pairs."""
    memory, n_pairs = state.S.shape[1], state.n_pairs[k]
    grad, direction, rho = state.grad[k], state.direction[k], state.rho[k]
    alpha = state.scratch[k]
    oldest = max(n_pairs - memory, 0)
    for j in range(grad.shape[0]):
        direction[j] = -grad[j]
    for pair in range(n_pairs - 1, oldest - 1, -1):
        i = pair % memory
        alpha[i] = rho[i] * dot(state.S[k, i], direction)
        add_scaled(direction, -alpha[i], state.Y[k, i])
    factor = direction.dtype.type(_FIRST_STEP)
    if n_pairs > 0:
        i = (n_pairs - 1) % memory
        factor = 1 / (rho[i] * dot(state.Y[k, i], state.Y[k, i]))
    for j in range(grad.shape[0]):
        direction[j] *= factor
    for pair in range(oldest, n_pairs):
        i = pair % memory
        add_scaled(direction, alpha[i] - rho[i] * dot(state.Y[k, i], direction), state.S[k, i])
    state.step[k] = 1
    state.slope[k] = dot(grad, direction)
    if not state.slope[k] < 0:  # rounding has spoilt the pairs
        state.n_pairs[k] = 0
        for j in range(grad.shape[0]):
            direction[j] = -direction.dtype.type(_FIRST_STEP) * grad[j]
        state.slope[k] = dot(grad, direction)


@point
def is_flat(largest, grad, shape):
    """Whether the gradient is within the tolerances."""
    return largest <= shape.tol and largest_entry(grad) <= shape.scaled_tol


@point
def shorten(k, slope, state):
    """A smaller step, to where the slope should be zero; an output whose step has become tiny is done."""
    cut = state.slope[k] / (state.slope[k] - slope)
    state.step[k] *= cut if cut > _LEAST_CUT else _LEAST_CUT  # also where it is not a number
    if state.step[k] < _LEAST_STEP:
        state.status[k], state.step[k] = DONE, 0


@kernel
def advance(start, stop, w, w_grad, shape, state):
    """For outputs start..stop: from the gradients (K, p) at the trial points to the next trial points ``w`` (K, p)."""
    for k in range(start, stop):
        if state.status[k] == DONE:
            continue
        fresh = state.scratch[k][: w.shape[1]]
        largest = from_trial(w[k], w_grad[k], k, shape, fresh)
        slope = dot(fresh, state.direction[k])
        if state.status[k] == FRESH:
            copy(state.grad[k], fresh)
            state.status[k] = ACTIVE
        elif slope <= -_UPHILL * state.slope[k]:
            take(k, state)
        else:
            shorten(k, slope, state)
            to_trial(k, shape, state, w[k])
            continue
        if is_flat(largest, state.grad[k], shape):
            state.status[k] = DONE
        else:
            aim(k, state)
            to_trial(k, shape, state, w[k])
