"""The mean loss of a network on some rows as a function of one flat vector of parameters."""

import itertools
from typing import NamedTuple

import numpy as np
from scipy.sparse import issparse

from fastml.kernels import network_epoch as kernels
from fastml.kernels._loss_tile import SOFTMAX
from fastml.kernels._network import Batch, Rows
from fastml.runtime import blas_limited, linear_loss, run_blocks
from fastml.training.network import as_rows, lane_bounds
from fastml.training.problem import Problem

_BLOCK = 1 << 16  # coefficients updated by a thread at a time


class _Room(NamedTuple):
    """Memory for batches: their rows, targets and weights; losses; what layers leave."""

    examples: kernels.Examples
    losses: kernels.Losses
    batch: Batch


class NetworkProblem(Problem):
    """Rows, targets and weights of a fit, for any vector of parameters of a network.

    Parameters
    ----------
    X : ndarray (n, d), C-contiguous, or CSR array with sorted indices
        In the dtype of the network.
    target : ndarray
        Labels (n,) int64 or, in the dtype of X, what each output should be (n, K).
    sample_weight : ndarray (n,)
        Its mean is taken as 1: losses are weighted means.
    network : Network
    settings : fastml.kernels._loss_tile.Settings
        The loss; its ``beta`` is 1. Losses other than the squared, absolute and Huber's take the identity as output
        activation.
    seed : int
        Of the units that dropout leaves out: those of a step are a function of both numbers.
    """

    updates_parts = True

    def __init__(self, X, target, sample_weight, network, settings, *, seed=0):
        self.network, self.settings, self.seed = network, settings, seed
        self.dtype, self.n_threads = network.dtype, network.n_threads
        self.n_coef, self.n_trained = network.n_coef, network.n_trained
        self.matrix, self.n_rows, self.is_sparse = X, X.shape[0], issparse(X)
        weight = sample_weight / sample_weight.mean()
        mass = (target.sum(axis=1) if target.ndim == 2 else 1) if settings.kind == SOFTMAX else 0
        weights = np.ascontiguousarray([weight, weight * mass], X.dtype)
        self.data = kernels.Examples(as_rows(X), target, weights)
        self.has_kernel = not network.is_wide
        self._trunk = network.trunk() if network.is_wide else None
        self._room, self._capacity = None, 0

    def operations(self, batch_size):
        """About how many operations a step takes."""
        sizes = self.network.sizes
        first = self.matrix.nnz / self.n_rows if self.is_sparse else sizes[0]
        products = first * sizes[1] + sum(a * b for a, b in itertools.pairwise(sizes[1:]))
        return int(6 * batch_size * products + 10 * self.n_trained)

    def loss(self, values):
        """Weighted mean of the losses, by the running moments and without dropout."""
        if self.network.is_wide:
            hidden, head = self._trunk.predict(self.matrix, values), self._head(values)
            losses = linear_loss.loss(hidden, *head, *self.data[1:], self.settings, self.n_threads)
        else:
            losses = self.network.losses(*self.data, self.settings, values)
        return losses.mean(dtype=np.float64)

    def kernel_steps(self, batch_size, values, parameters, rule):
        """A function ``run(begin, end, order, rates, losses)`` that does steps of an epoch in one call."""
        network, room = self.network, self._new_room(batch_size, 1)
        arguments = batch_size, self.data, network.cuts, values, parameters, network.net, rule, self.settings

        def run(begin, end, order, rates, losses):
            kernels.steps(begin, end, order, *arguments, rates, *room, losses)

        return run

    def batch_loss_grad(self, rows, values, grad, update=None):
        """Weighted mean of the losses of some rows in training; fills ``grad`` with its gradient.

        ``update(start, stop)`` is called, from any thread, for each range of parameters whose gradient is complete.
        """
        if self._trunk is not None:
            return self._wide_loss_grad(rows, values, grad, update)
        if len(rows) > self._capacity:
            self._room, self._capacity = self._new_room(len(rows), len(lane_bounds(len(rows))) - 1), len(rows)
        bounds, room = lane_bounds(len(rows)), self._room
        batch = room.batch._replace(tails=room.batch.tails[: len(bounds) - 1])
        batch.draw[1] = self.step
        if self.is_sparse:
            kernels.gather(0, len(rows), rows, self.data, room.examples)
        with blas_limited():
            self._pass(rows, values, batch, bounds)
            self.network.parameter_grad(room.examples.X, batch, len(rows), grad, update)
        return room.losses.loss[: len(rows)].sum(dtype=np.float64)

    def _head(self, vector):
        """Coefficients (K, n_in) and intercepts of the last layer; views."""
        last = self.network.layers(vector)[-1]
        return last["coef"].T, last["intercept"]

    def _wide_loss_grad(self, rows, values, grad, update):
        """The last layer's outputs, and their loss, a panel at a time: see ``linear_loss``."""
        network, n = self.network, len(rows)
        weights = np.ascontiguousarray(self.data.weights[:, rows]) / self.dtype.type(n)
        past = self._trunk.forward(self.matrix[rows], values, self.seed, self.step)
        hidden_grad, (coef, intercept) = np.empty_like(past.output), self._head(grad)
        arrays = self.data.target[rows], weights, self.settings, self.n_threads, hidden_grad
        intercept_grad = np.empty_like(intercept)
        losses = linear_loss.loss_grad(past.output, *self._head(values), *arrays, coef, intercept_grad)
        self._trunk.backward(past, hidden_grad, grad)
        intercept[...] = intercept_grad  # the others of the tail were cleared with it
        if update is not None:
            run_blocks(update, network.n_coef, _BLOCK, self.n_threads)
            update(network.n_coef, network.n_trained)
        return losses.sum(dtype=np.float64)

    def _pass(self, rows, values, batch, bounds):
        network, (examples, losses, _) = self.network, self._room
        arrays = rows, self.data, examples, losses, self.settings, values, network.net, batch
        before = None
        for cut in network.cuts:
            if before is not None:
                kernels.join(before, cut, bounds, values, network.net, batch)
            network.over_lanes(bounds, kernels.train_lane, cut, *arrays)
            before = cut

    def _new_room(self, n, n_lanes):
        """Room for batches of up to n rows."""
        X, target = self.data[:2]
        if self.is_sparse:
            lengths = np.diff(X.indptr)
            most = (
                int(np.partition(lengths, self.n_rows - n)[self.n_rows - n :].sum()) if n < self.n_rows else X.data.size
            )
            rows = Rows(X.dense, np.zeros(n + 1, np.int64), np.empty(most, np.int64), np.empty(most, self.dtype))
        else:
            rows = X._replace(dense=np.empty((n, X.dense.shape[1]), self.dtype))
        examples = kernels.Examples(rows, np.empty((n, *target.shape[1:]), target.dtype), np.empty((2, n), self.dtype))
        losses = kernels.Losses(np.empty(n, self.dtype), np.empty((4, n), self.dtype))
        batch = self.network.batch(n, n_lanes)
        batch.draw[0] = self.seed
        return _Room(examples, losses, batch)
