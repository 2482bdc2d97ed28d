"""The mean loss of a network on some rows as a function of one flat vector of parameters."""

import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy.sparse import issparse

from fastml.kernels import network_epoch as kernels
from fastml.kernels._epoch import Parameters, Rule
from fastml.kernels._loss_tile import SOFTMAX
from fastml.kernels._network import Batch, Rows
from fastml.kernels._rules import ADAMW
from fastml.runtime import blas_limited, linear_loss, run_team
from fastml.training.network import as_rows, lane_bounds
from fastml.training.problem import Problem

_SHARED = 1_000_000  # operations of a step from which on a second thread pays


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

    kernel_limit = math.inf  # its threads need not come back to Python between the parts of a step

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
        room, rest = self._new_room(batch_size), rule._replace(l2=rule.l2 * 0, l1=rule.l1 * 0)
        if rule.kind != ADAMW and not rule.max_norm:  # an L2 penalty is what they call weight decay
            decay = rule.hyper.copy()
            decay[4] += rule.l2
            rule = rule._replace(hyper=decay, l2=rest.l2)

        def run(begin, end, order, rates, losses):
            plan = _plan(order, batch_size, rates, losses, 1)
            self._run_steps(begin, end, plan, (rule, rest), values, parameters, room)

        return run

    def batch_loss_grad(self, rows, values, grad):
        """Weighted mean of the losses of some rows in training; fills ``grad`` with its gradient."""
        if self._trunk is not None:
            return self._wide_loss_grad(rows, values, grad)
        real, none, mean = self.dtype.type, np.empty(0, self.dtype), np.empty(1)
        rule = Rule(0, np.zeros(5, self.dtype), 0.0, real(0), real(0))
        parameters = Parameters(values[: self.n_trained], grad, none, none)
        plan = _plan(rows, len(rows), np.array([[0.0, self.step + 1]]), mean, 0)
        with blas_limited():
            self._run_steps(0, 1, plan, (rule, rule), values, parameters, self._new_room(len(rows)))
        return mean[0]

    def _run_steps(self, begin, end, plan, rules, values, parameters, room):
        network = self.network
        room.batch.draw[:] = self.seed, int(plan.rates[begin, 1]) - 1
        tables = network.cuts, network.tasks
        arguments = plan, self.data, tables, self.settings, rules, values, parameters, network.net, room

        def run(board, slot):
            kernels.steps(begin, end, board, *arguments)

        run_team(run, self.n_threads if self.operations(plan.size) > _SHARED else 1)

    def _head(self, vector):
        """Coefficients (K, n_in) and intercepts of the last layer; views."""
        last = self.network.layers(vector)[-1]
        return last["coef"].T, last["intercept"]

    def _wide_loss_grad(self, rows, values, grad):
        """The last layer's outputs, and their loss, a panel at a time: see ``linear_loss``."""
        n = len(rows)
        weights = np.ascontiguousarray(self.data.weights[:, rows]) / self.dtype.type(n)
        past = self._trunk.forward(self.matrix[rows], values, self.seed, self.step)
        hidden_grad, (coef, intercept) = np.empty_like(past.output), self._head(grad)
        arrays = self.data.target[rows], weights, self.settings, self.n_threads, hidden_grad
        intercept_grad = np.empty_like(intercept)
        losses = linear_loss.loss_grad(past.output, *self._head(values), *arrays, coef, intercept_grad)
        self._trunk.backward(past, hidden_grad, grad)
        intercept[...] = intercept_grad  # the others of the tail were cleared with it
        return losses.sum(dtype=np.float64)

    def _new_room(self, n):
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
        batch = self.network.batch(n, len(lane_bounds(n)) - 1)
        return _Room(examples, losses, batch)


def _plan(order, size, rates, means, moves):
    n_last = (len(order) - 1) % size + 1
    return kernels.Plan(order, size, lane_bounds(size), lane_bounds(n_last), rates, means, moves)
