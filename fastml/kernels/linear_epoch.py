"""Mini-batch training of a small linear softmax model: many steps in one call, so that no step waits for Python.

A step gathers its rows, sums the gradient of the batch's mean loss, adds the L2 penalty, and updates the
parameters: the coefficients first (``n_coef`` of them: (C, d) for dense rows, (d, C) for CSR rows), then the
intercepts. Losses and gradients: ``_loss_tile``; updates and penalties: ``_epoch``.

Dense rows come from all over memory, and to gather them takes as long as to compute with them. So a second thread, if
there is one, gathers those of the next step meanwhile: see ``_team``.
"""

from typing import NamedTuple

import numpy as np

from fastml.kernels._blas import matmul_nt, matmul_tn
from fastml.kernels._denormals import flush_denormals, restore
from fastml.kernels._epoch import gather_target, mean_loss_and_penalty, update
from fastml.kernels._jit import kernel, part, point
from fastml.kernels._loss_tile import finish_rows, forward_tile, residual_tile
from fastml.kernels._rows import add, add_gathered, add_scaled, copy, fill
from fastml.kernels._team import claim, complete


class Data(NamedTuple):
    """All rows; ``X`` is an array (n, d), or the three arrays of a CSR."""

    X: object
    target: np.ndarray  # labels (n,) or probabilities (n, C)
    weights: np.ndarray  # (2, n): w, and w times the sum of the target; the mean of w is 1


class Parameters(NamedTuple):
    """Flat and of one length: values, gradient, and the optimizer's moments (empty where it has none).

    The coefficients and their gradient, which come first, also as matrices.
    """

    values: np.ndarray
    grad: np.ndarray
    first: np.ndarray
    second: np.ndarray
    W: np.ndarray
    W_grad: np.ndarray


class Scratch(NamedTuple):
    """A batch: its rows (B, d) (unused for CSR), targets, weights (2, B) and losses, and a tile of logits (T, C).

    What is gathered, rows, targets and weights, is there for two batches, (2, B, d) and so on.
    """

    X: np.ndarray
    target: np.ndarray
    weights: np.ndarray
    loss: np.ndarray
    z: np.ndarray
    stats: np.ndarray


@point
def of_step(s, both):
    """Scratch of one batch: that of step s."""
    k = s % 2
    return Scratch(both.X[k], both.target[k], both.weights[k], both.loss, both.z, both.stats)


@point
def gather(rows, data, batch):
    """Copy the targets and weights of ``rows``."""
    gather_target(rows, data.target, batch.target)
    for i in range(rows.shape[0]):
        batch.weights[0, i] = data.weights[0, rows[i]]
        batch.weights[1, i] = data.weights[1, rows[i]]


@part
def gather_dense(rows, data, batch):
    """Copy ``rows`` themselves, too."""
    gather(rows, data, batch)
    for i in range(rows.shape[0]):
        copy(batch.X[i], data.X[rows[i]])


@point
def dense_gradient(n_rows, W, b, settings, batch, W_grad, b_grad):
    """Gradient of the sum of the losses of the rows of a batch, a tile at a time."""
    for first in range(0, n_rows, batch.z.shape[0]):
        last = min(first + batch.z.shape[0], n_rows)
        tile, X = batch.z[: last - first], batch.X[first:last]
        matmul_nt(1.0, X, W, 0.0, tile)
        forward_tile(tile, b, first, 0, batch.target, settings, batch.stats)
        finish_rows(first, last, batch.weights, batch.stats, batch.loss)
        residual_tile(tile, b.shape[0], first, 0, batch.target, batch.weights, settings, batch.stats)
        matmul_tn(1.0, tile, X, 0.0 if first == 0 else 1.0, W_grad)
        for i in range(last - first):
            add(b_grad, tile[i])


@point
def csr_gradient(rows, data, W, b, settings, batch, W_grad, b_grad):
    """The same for CSR rows; here ``W`` and ``W_grad`` are (d, C), and only the rows of stored features are met."""
    indptr, indices, values = data.X
    for j in range(W_grad.shape[0]):
        fill(W_grad[j], 0)
    for first in range(0, rows.shape[0], batch.z.shape[0]):
        last = min(first + batch.z.shape[0], rows.shape[0])
        tile = batch.z[: last - first]
        for i in range(last - first):
            fill(tile[i], 0)
            entries = slice(indptr[rows[first + i]], indptr[rows[first + i] + 1])
            add_gathered(tile[i], values.dtype.type(1), values[entries], indices[entries], W)
        forward_tile(tile, b, first, 0, batch.target, settings, batch.stats)
        finish_rows(first, last, batch.weights, batch.stats, batch.loss)
        residual_tile(tile, b.shape[0], first, 0, batch.target, batch.weights, settings, batch.stats)
        for i in range(last - first):
            for k in range(indptr[rows[first + i]], indptr[rows[first + i] + 1]):
                add_scaled(W_grad[indices[k]], values[k], tile[i])
            add(b_grad, tile[i])


@point
def descend(s, n_rows, parameters, has_intercept, rule, rates, batch, losses):
    """From the sums of a batch to the step of the optimizer."""
    n_coef = parameters.W.size
    losses[s] = mean_loss_and_penalty(n_rows, batch.loss, parameters, n_coef, rule)
    if not has_intercept:
        fill(parameters.grad[n_coef:], 0)
    update(parameters, n_coef, rule, rates[s, 0], rates[s, 1])


@part
def dense_step(s, n_rows, parameters, has_intercept, rule, settings, rates, batch, losses):
    """Step s, whose rows are gathered."""
    W, W_grad = parameters.W, parameters.W_grad
    b, b_grad = parameters.values[W.size :], parameters.grad[W.size :]
    fill(b_grad, 0)
    dense_gradient(n_rows, W, b, settings, batch, W_grad, b_grad)
    descend(s, n_rows, parameters, has_intercept, rule, rates, batch, losses)


@kernel
def dense_steps(begin, end, board, order, size, data, parameters, has_intercept, rule, settings, rates, both, losses):
    """Steps begin..end of an epoch over ``order`` in batches of ``size``, with who else was given this ``board``.

    ``rates`` holds each step's learning rate and number; ``losses`` takes each step's mean loss.
    """
    mode, phase = flush_denormals(), begin - begin
    while claim(board, phase, 1) >= 0:
        gather_dense(order[begin * size : (begin + 1) * size], data, of_step(begin, both))
        complete(board, phase, 1)
    for s in range(begin, end):
        phase += 1
        rows, others = order[s * size : (s + 1) * size], order[(s + 1) * size : (s + 2) * size]
        n_tasks = 2 if s + 1 < end else 1
        task = claim(board, phase, n_tasks)
        while task >= 0:
            if task == 0:
                batch = of_step(s, both)
                dense_step(s, rows.shape[0], parameters, has_intercept, rule, settings, rates, batch, losses)
            else:
                gather_dense(others, data, of_step(s + 1, both))
            complete(board, phase, n_tasks)
            task = claim(board, phase, n_tasks)
    restore(mode)


@kernel
def csr_steps(begin, end, order, size, data, parameters, has_intercept, rule, settings, rates, both, losses):
    """Steps of CSR rows, by one thread."""
    W, W_grad = parameters.W, parameters.W_grad
    b, b_grad = parameters.values[W.size :], parameters.grad[W.size :]
    mode, batch = flush_denormals(), of_step(0, both)
    for s in range(begin, end):
        rows = order[s * size : (s + 1) * size]
        gather(rows, data, batch)
        fill(b_grad, 0)
        csr_gradient(rows, data, W, b, settings, batch, W_grad, b_grad)
        descend(s, rows.shape[0], parameters, has_intercept, rule, rates, batch, losses)
    restore(mode)
