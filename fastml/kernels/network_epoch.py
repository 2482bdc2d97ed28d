"""Mini-batch training of a stack of dense layers: many steps in one call, which threads make together.

A step is two phases of ``_team`` or, with batch norm or sparse rows, a few more: its rows go forward and back in lanes,
then the gradient of the parameters is made, and each range of them moved at once. Lanes and ranges do not depend on
the number of threads. ``Examples`` are all rows or, gathered from them, those of a batch; the weights of a batch are
divided by its size, so that sums are means. For pieces and parameters see ``_network``, for losses ``_loss_tile``.
"""

from typing import NamedTuple

import numpy as np

from fastml.kernels import _network as pieces
from fastml.kernels._denormals import flush_denormals, restore
from fastml.kernels._epoch import gather_target, update
from fastml.kernels._jit import kernel, part, point
from fastml.kernels._rows import add_scaled
from fastml.kernels._rules import apply_rule
from fastml.kernels._team import claim, complete


class Examples(NamedTuple):
    """Rows, labels (n,) or targets (n, K), and weights (2, n) as ``_loss_tile`` takes them."""

    X: object
    target: np.ndarray
    weights: np.ndarray


class Plan(NamedTuple):
    """Which rows make a step, and how far it goes."""

    order: np.ndarray
    size: int  # rows of a step
    bounds: np.ndarray  # limits of its lanes
    last_bounds: np.ndarray  # and of those of the last step, which may have fewer rows
    rates: np.ndarray  # (steps, 2): learning rate and number of each, from 1 on
    means: np.ndarray  # (steps,): takes the mean loss of each
    moves: int  # 0: the gradient is all that is wanted


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


@point
def _join(cut, next_cut, bounds, values, net, batch):
    """Where lanes wait for each other."""
    if net.is_normed and cut[1] > 0 and cut[1] <= net.n_hidden:
        pieces.join_measures(cut[1] - 1, bounds, values, net, batch)
    if net.is_normed and next_cut[3] > 0 and next_cut[3] <= net.n_hidden:
        pieces.join_grads(next_cut[3] - 1, bounds, net, batch)


@part
def _lane(lane, c, bounds, picked, cuts, data, examples, losses, settings, values, net, batch):
    """What a lane does between two points where it waits for the others; dense rows are gathered on the way."""
    start, stop = bounds[lane], bounds[lane + 1]
    if c == 0 and data.X.indptr.shape[0] == 0:
        _gather(start, stop, picked, data, examples)
    _pass(start, stop, lane, cuts[c], picked.shape[0], examples, losses, settings, values, net, batch)


@point
def _go_through(s, phase, board, picked, data, cuts, bounds, settings, values, net, room):
    """The rows of step s forward and back; returns the number of the phase behind it."""
    (examples, losses, batch), n, n_lanes = room, picked.shape[0], bounds.shape[0] - 1
    if data.X.indptr.shape[0] > 0:
        while claim(board, phase, 1) >= 0:
            _gather(bounds[0], n, picked, data, examples)
            complete(board, phase, 1)
        phase += 1
    for c in range(cuts.shape[0]):
        if c > 0:
            while claim(board, phase, 1) >= 0:
                _join(cuts[c - 1], cuts[c], bounds, values, net, batch)
                complete(board, phase, 1)
            phase += 1
        lane = claim(board, phase, n_lanes)
        while lane >= 0:
            _lane(lane, c, bounds, picked, cuts, data, examples, losses, settings, values, net, batch)
            complete(board, phase, n_lanes)
            lane = claim(board, phase, n_lanes)
        phase += 1
    return phase


@part
def _tail(s, n, plan, n_lanes, net, losses, batch, grad):
    """Gradient of all that is no coefficient, and the mean loss; the next step draws other numbers."""
    pieces.tail_grad(net, batch.tails[:n_lanes], grad)
    plan.means[s] = 0
    for i in range(n):
        plan.means[s] += losses.loss[i]
    batch.draw[1] += np.uint64(1)


@part
def _move(start, stop, s, plan, rule, parameters):
    """Step of the optimizer for a range of parameters."""
    first, second = parameters.first[start:stop], parameters.second[start:stop]
    w, g = parameters.values[start:stop], parameters.grad[start:stop]
    if rule.l2 > 0:
        add_scaled(g, rule.l2, w)
    rate, number, one = plan.rates[s, 0], plan.rates[s, 1], w.dtype.type(1)
    apply_rule(rule.kind, w, g, first, second, rate, number, rule.hyper, rule.l1, one)


@part
def _clip_and_move(s, n_coef, plan, rule, parameters):
    """Step of the optimizer for all parameters, of which it must know the gradient first."""
    if rule.l2 > 0:
        add_scaled(parameters.grad[:n_coef], rule.l2, parameters.values)
    update(parameters, n_coef, rule, plan.rates[s, 0], plan.rates[s, 1])


@point
def _descend(s, phase, board, n, n_lanes, plan, tasks, rules, parameters, net, room):
    """Gradient of the parameters and, a range at a time, their step; returns the number of the phase behind it."""
    k = claim(board, phase, tasks.shape[0])
    while k >= 0:
        start, stop, first, last, layer = tasks[k]
        if start < net.n_coef:
            pieces.coef_grad(first, last, layer, n, room[0].X, net, room[2].work, parameters.grad)
        else:
            _tail(s, n, plan, n_lanes, net, room[1], room[2], parameters.grad)
        if plan.moves and rules[0].max_norm == 0:
            _move(start, stop, s, plan, rules[0] if start < net.n_coef else rules[1], parameters)
        complete(board, phase, tasks.shape[0])
        k = claim(board, phase, tasks.shape[0])
    if plan.moves and rules[0].max_norm > 0:
        phase += 1
        while claim(board, phase, 1) >= 0:
            _clip_and_move(s, net.n_coef, plan, rules[0], parameters)
            complete(board, phase, 1)
    return phase + 1


@kernel
def steps(begin, end, board, plan, data, tables, settings, rules, values, parameters, net, room):
    """Steps begin..end of an epoch, together with the other threads that were given this ``board``.

    ``tables`` are the cuts of a step and the tasks that its gradient is made in: the range of parameters of each, and
    rows and layer of its coefficients. ``rules`` are those of coefficients and of all else.
    """
    mode = flush_denormals()
    phase = begin - begin  # a literal 0 would have everything compiled twice
    for s in range(begin, end):
        picked = plan.order[s * plan.size : (s + 1) * plan.size]
        n, bounds = picked.shape[0], plan.bounds if picked.shape[0] == plan.size else plan.last_bounds
        phase = _go_through(s, phase, board, picked, data, tables[0], bounds, settings, values, net, room)
        phase = _descend(s, phase, board, n, bounds.shape[0] - 1, plan, tables[1], rules, parameters, net, room)
    restore(mode)
