"""Mini-batch training of a stack of dense layers: a lane of a batch in one call, or many steps.

``Examples`` are all rows or, gathered from them, those of a batch; the weights of a batch are divided by its size, so
that sums are means. For pieces and parameters see ``_network``, for losses ``_loss_tile``.
"""

from typing import NamedTuple

import numpy as np

from fastml.kernels import _network as pieces
from fastml.kernels._epoch import gather_target, update
from fastml.kernels._jit import kernel, point
from fastml.kernels._rows import add_scaled


class Examples(NamedTuple):
    """Rows, labels (n,) or targets (n, K), and weights (2, n) as ``_loss_tile`` takes them."""

    X: object
    target: np.ndarray
    weights: np.ndarray


class Losses(NamedTuple):
    """Of a batch: each row's loss (B,), and what it is made of (4, B)."""

    loss: np.ndarray
    stats: np.ndarray


@point
def _gather(start, stop, picked, data, examples):
    """Rows picked[start:stop], with targets and weights."""
    pieces.gather_rows(start, stop, picked, data.X, examples.X)
    gather_target(picked[start:stop], data.target, examples.target[start:stop])
    share = data.weights.dtype.type(1 / picked.shape[0])
    for i in range(start, stop):
        for k in range(2):
            examples.weights[k, i] = share * data.weights[k, picked[i]]


@point
def _pass(start, stop, lane, cut, n, examples, losses, settings, values, net, batch):
    """Part of a step for rows start..stop: forward from layer cut[0] to cut[1], backward from cut[3] to cut[2]."""
    pieces.forward_layers(start, stop, lane, cut[0], cut[1], n, examples.X, values, net, batch)
    if cut[1] == net.layers.shape[0]:
        pieces.begin_lane(lane, batch)
        arrays = examples.target, examples.weights, settings, losses.stats, losses.loss
        pieces.loss_layer(start, stop, lane, n, *arrays, values, net, batch)
    pieces.backward_layers(start, stop, lane, cut[2], cut[3], n, values, net, batch)


@kernel
def gather(start, stop, picked, data, examples):
    """Rows picked[start:stop] of ``data`` as rows start..stop of ``examples``; of a CSR all at once."""
    _gather(start, stop, picked, data, examples)


@kernel
def train_lane(start, stop, lane, cut, picked, data, examples, losses, settings, values, net, batch):
    """What a lane does between two points where it waits for the others; dense rows are gathered on the way."""
    if cut[0] == 0 and cut[1] > 0 and data.X.indptr.shape[0] == 0:
        _gather(start, stop, picked, data, examples)
    _pass(start, stop, lane, cut, picked.shape[0], examples, losses, settings, values, net, batch)


@point
def _join(cut, next_cut, bounds, values, net, batch):
    """Where lanes wait for each other."""
    if net.is_normed and cut[1] > 0 and cut[1] <= net.n_hidden:
        pieces.join_measures(cut[1] - 1, bounds, values, net, batch)
    if net.is_normed and next_cut[3] > 0 and next_cut[3] <= net.n_hidden:
        pieces.join_grads(next_cut[3] - 1, bounds, net, batch)


@kernel
def join(cut, next_cut, bounds, values, net, batch):
    """Between two calls of ``train_lane`` for all lanes."""
    _join(cut, next_cut, bounds, values, net, batch)


@point
def _gradient(n, X, net, batch, grad):
    for layer in range(net.layers.shape[0]):
        height = net.layers[layer, pieces.N_OUT if net.layers[layer, pieces.SWAPPED] else pieces.N_IN]
        pieces.coef_grad(height - height, height, layer, n, X, net, batch.work, grad)
    pieces.tail_grad(net, batch.tails, grad)


@kernel
def steps(begin, end, order, size, data, cuts, values, parameters, net, rule, settings, rates, examples, losses, batch,
          means):  # fmt: skip
    """Steps begin..end of an epoch over ``order`` in batches of ``size``, each in one lane.

    ``rates`` holds each step's learning rate and number; ``means`` takes each step's mean loss.
    """
    bounds = np.zeros(2, np.int64)
    start = lane = bounds[0]  # a literal 0 would have everything compiled twice
    for s in range(begin, end):
        picked = order[s * size : (s + 1) * size]
        n = bounds[1] = picked.shape[0]
        batch.draw[1] = np.uint64(rates[s, 1] - 1)
        _gather(start, n, picked, data, examples)
        for c in range(cuts.shape[0]):
            _pass(start, n, lane, cuts[c], n, examples, losses, settings, values, net, batch)
            if c + 1 < cuts.shape[0]:
                _join(cuts[c], cuts[c + 1], bounds, values, net, batch)
        _gradient(n, examples.X, net, batch, parameters.grad)
        means[s] = 0
        for i in range(n):
            means[s] += losses.loss[i]
        if rule.l2 > 0:
            add_scaled(parameters.grad[: net.n_coef], rule.l2, parameters.values)
        update(parameters, net.n_coef, rule, rates[s, 0], rates[s, 1])
