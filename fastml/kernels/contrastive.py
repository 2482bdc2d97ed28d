"""InfoNCE: the softmax over the similarities of one query with all keys, of which its own is the right one.

With logits ``z_ij = beta q_i.k_j + bias_j`` and s the softmax of a row over its keys, the loss of pair i is
``w_i (lse_i - z_ii)`` and the gradient of z ``w_i (s_ij - [i = j])`` (van den Oord, Li & Vinyals, *Representation
learning with contrastive predictive coding*, 2018). Symmetric, half of it is that of row i, and half that of column i
over the first n keys, whose log-sum-exp ``other_i`` is taken over the queries (Radford et al., *CLIP*, 2021).

The n x n logits are never whole beyond a fixed size: a tile holds some rows against a panel of keys. In one direction
the exponentials of a block of rows are kept until its log-sum-exps are known. Of ``stats`` (3, rows) a panel fills: its
maximum, its sum of exp(z - maximum), the logit of the row's own key.

In both directions a first sweep takes the log-sum-exps of rows and columns together, and a second one the gradient;
``sums`` (3, n) are the columns' maxima, their sums so far, and scratch. The maxima of row i and of column j differ, and
so would the exponentials. But where all own logits are about as large, no sum is far below them, and one number taken
from all logits (here from the bias) serves rows and columns: with e = exp(z), R_i its sum over row i and C_j over
column j, the gradient is e_ij (w_i / R_i + w_j / C_j) / 2. That are the ``level`` kernels, whose ``stats`` begin with
the exponential of the own logit, and whose ``shares`` (3, n) are w / 2R, w / 2C and the gradient of the own logit.

Pairs of one group are no negatives of each other: ``groups`` are the group of each pair, the pairs sorted by group, and
where each group begins there; all empty if there are none.
"""

from typing import NamedTuple

import numpy as np

from fastml.kernels._blas import matmul_nn, matmul_nt, matmul_tn
from fastml.kernels._jit import uncounted_kernel, uncounted_point
from fastml.kernels._math import exp, log, maximum
from fastml.kernels._rows import add, add_max, add_scaled, copy, dot, exp_shifted, fill, first_from, scale


class Groups(NamedTuple):
    """Pairs that are no negatives of each other; int64."""

    group: np.ndarray
    members: np.ndarray
    starts: np.ndarray


class Pairs(NamedTuple):
    """Queries (n, d); keys (n + m, d), of which the first n are the queries' own; the keys' bias; weights (n,)."""

    queries: np.ndarray
    keys: np.ndarray
    bias: np.ndarray
    weight: np.ndarray
    beta: float
    groups: Groups


@uncounted_point
def _mask(row, i, first_key, groups):
    """-inf for the other members of the query's group among the keys of this panel."""
    last, group = first_key + row.shape[0], groups.group[i]
    end = groups.starts[group + 1]
    at = first_from(groups.members, groups.starts[group], end, first_key)
    while at < end and groups.members[at] < last:
        if groups.members[at] != i:
            row[groups.members[at] - first_key] = -np.inf
        at += 1


@uncounted_point
def _products(first, last, first_key, last_key, pairs, z):
    """Logits of rows first..last and a panel of keys, but for the bias."""
    matmul_nt(pairs.beta, pairs.queries[first:last], pairs.keys[first_key:last_key], 0.0, z[: last - first])
    if len(pairs.groups.group) > 0:
        for r in range(last - first):
            _mask(z[r], first + r, first_key, pairs.groups)


@uncounted_point
def _own(row, i, first_key):
    """The entry of the row's own key, 0 if that is in another panel."""
    return row[i - first_key] if first_key <= i < first_key + row.shape[0] else row.dtype.type(0)


@uncounted_point
def _logits(first, last, first_key, last_key, pairs, z, stats):
    """Logits, and maxima and own logits of the rows to ``stats``."""
    lowest = np.finfo(z.dtype).min  # of a row whose logits are all -inf here
    _products(first, last, first_key, last_key, pairs, z)
    for r in range(last - first):
        stats[0, r] = maximum(add_max(z[r], pairs.bias[first_key:last_key]), lowest)
        stats[2, r] = _own(z[r], first + r, first_key)


@uncounted_point
def _exp_rows(n_rows, z, stats):
    """exp(z - maximum), and the sums."""
    for r in range(n_rows):
        stats[1, r] = exp_shifted(z[r], stats[0, r])


@uncounted_point
def _exp_columns(row, bias, totals):
    """row = exp(row + bias), also added to ``totals``; returns the sum."""
    result = row.dtype.type(0)
    for j in range(row.shape[0]):
        value = exp(row[j] + bias[j])
        row[j] = value
        totals[j] += value
        result += value
    return result


@uncounted_point
def _add_columns(n_rows, z, tops, totals, before):
    """Take the logits of a tile into the columns' maxima and sums; ``before`` is scratch."""
    lowest = np.finfo(z.dtype).min
    for j in range(len(tops)):
        before[j] = tops[j]
    for r in range(n_rows):
        row = z[r]
        for j in range(len(tops)):
            tops[j] = maximum(tops[j], row[j])
    for j in range(len(tops)):
        tops[j] = maximum(tops[j], lowest)
        totals[j] *= exp(before[j] - tops[j])
    for r in range(n_rows):
        row = z[r]
        for j in range(len(tops)):
            totals[j] += exp(row[j] - tops[j])


@uncounted_kernel
def forward(first, last, first_key, last_key, pairs, z, stats):
    """A panel of rows first..last up to what ``backward`` needs: exponentials ``z`` and ``stats``."""
    _logits(first, last, first_key, last_key, pairs, z, stats)
    _exp_rows(last - first, z, stats)


@uncounted_kernel
def forward_both(first, last, first_key, last_key, pairs, z, stats, sums):
    """As ``forward``, and takes the panel's columns of the first n keys into their ``sums`` (3, n)."""
    _logits(first, last, first_key, last_key, pairs, z, stats)
    own = min(last_key, len(pairs.queries))
    if first_key < own:
        columns = slice(first_key, own)
        _add_columns(last - first, z, sums[0][columns], sums[1][columns], sums[2][columns])
    _exp_rows(last - first, z, stats)


@uncounted_kernel
def forward_level(first, last, first_key, last_key, pairs, z, stats, totals):
    """As ``forward_both`` of logits that need no maxima; ``totals`` (n,) are the columns' sums so far."""
    _products(first, last, first_key, last_key, pairs, z)
    n_own = max(min(last_key, len(pairs.queries)) - first_key, 0)
    bias, columns = pairs.bias[first_key:last_key], totals[first_key : first_key + n_own]
    for r in range(last - first):
        row, extra = z[r], z[r][n_own:]
        add(extra, bias[n_own:])
        stats[1, r] = _exp_columns(row[:n_own], bias[:n_own], columns) + exp_shifted(extra, z.dtype.type(0))
        stats[0, r] = _own(row, first + r, first_key)


@uncounted_kernel
def join(first, last, panels, lse, own):
    """Log-sum-exp ``lse`` (n,) and own logits ``own`` (n,) of rows first..last from the ``panels`` (p, 3, rows).

    The maxima there become exp(maximum - lse), with which exponentials are those of the softmax.
    """
    for r in range(last - first):
        top, total, logit = panels[0, 0, r], panels[0, 1, r], panels[0, 2, r]
        for p in range(1, panels.shape[0]):
            higher = maximum(top, panels[p, 0, r])
            total = total * exp(top - higher) + panels[p, 1, r] * exp(panels[p, 0, r] - higher)
            logit += panels[p, 2, r]
            top = higher
        lse[first + r], own[first + r] = log(total) + top, logit
        for p in range(panels.shape[0]):
            panels[p, 0, r] = exp(panels[p, 0, r] - top) / total


@uncounted_point
def _subtract_own(row, i, first_key, weight):
    if first_key <= i < first_key + row.shape[0]:
        row[i - first_key] -= weight


@uncounted_point
def _add_products(first, last, first_key, last_key, pairs, z, carry, queries_grad, keys_grad):
    tile = z[: last - first]
    matmul_nn(pairs.beta, tile, pairs.keys[first_key:last_key], carry, queries_grad[: last - first])
    matmul_tn(pairs.beta, tile, pairs.queries[first:last], 1.0, keys_grad[first_key:last_key])


@uncounted_kernel
def backward(first, last, first_key, last_key, pairs, z, stats, carry, queries_grad, keys_grad):
    """Add what a panel has to the gradients, from what ``forward`` and ``join`` left.

    ``queries_grad`` begins at row first; what it holds is taken ``carry`` times, 0 or 1.
    """
    for r in range(last - first):
        i, row = first + r, z[r]
        scale(row, pairs.weight[i] * stats[0, r])
        _subtract_own(row, i, first_key, pairs.weight[i])
    _add_products(first, last, first_key, last_key, pairs, z, carry, queries_grad, keys_grad)


@uncounted_kernel
def backward_both(first, last, first_key, last_key, pairs, z, stats, lse, other, carry, queries_grad, keys_grad):
    """As ``backward`` for both directions, from the start; ``other`` (n,) are the columns' log-sum-exps."""
    _logits(first, last, first_key, last_key, pairs, z, stats)
    n_own = max(min(last_key, len(pairs.queries)) - first_key, 0)
    columns, weights = other[first_key : first_key + n_own], pairs.weight[first_key : first_key + n_own]
    half = z.dtype.type(0.5)
    for r in range(last - first):
        i = first + r
        row, w = z[r], half * pairs.weight[i]
        own, extra = row[:n_own], row[n_own:]
        for j in range(n_own):
            own[j] = w * exp(own[j] - lse[i]) + half * weights[j] * exp(own[j] - columns[j])
        for j in range(len(extra)):
            extra[j] = w * exp(extra[j] - lse[i])
        _subtract_own(row, i, first_key, w + w)
    _add_products(first, last, first_key, last_key, pairs, z, carry, queries_grad, keys_grad)


@uncounted_kernel
def backward_level(first, last, first_key, last_key, pairs, z, shares, carry, queries_grad, keys_grad):
    """As ``backward`` for both directions, from what ``forward_level`` left."""
    n_own = max(min(last_key, len(pairs.queries)) - first_key, 0)
    columns = shares[1][first_key : first_key + n_own]
    for r in range(last - first):
        i, own, share = first + r, z[r][:n_own], shares[0, first + r]
        for j in range(n_own):
            own[j] *= share + columns[j]
        scale(z[r][n_own:], share)
        if first_key <= i < last_key:
            z[r, i - first_key] = shares[2, i]
    _add_products(first, last, first_key, last_key, pairs, z, carry, queries_grad, keys_grad)


@uncounted_kernel
def add_lanes(start, stop, lanes, out):
    """``out`` (rows, d) = the sum of ``lanes`` (l, rows, d), in their order."""
    for r in range(start, stop):
        copy(out[r], lanes[0, r])
        for lane in range(1, lanes.shape[0]):
            add(out[r], lanes[lane, r])


@uncounted_kernel
def normalise(start, stop, rows, out, length):
    """``out`` = rows of length 1 and their ``length`` (n,); of a row of length 0 zeros."""
    for i in range(start, stop):
        row, total = rows[i], 0.0
        for j in range(row.shape[0]):
            total += np.float64(row[j]) * np.float64(row[j])
        length[i] = np.sqrt(total)
        fill(out[i], 0)
        if length[i] > 0:
            factor = 1.0 / np.sqrt(total)
            for j in range(row.shape[0]):
                out[i, j] = row[j] * factor


@uncounted_kernel
def normalise_grad(start, stop, unit, length, grad, slope):
    """``grad`` of the unit rows becomes that of the rows: (g - u (u.g)) / length; ``slope`` (n,) is u.g."""
    for i in range(start, stop):
        g, u = grad[i], unit[i]
        along = dot(u, g)
        slope[i] = along
        if length[i] > 0:
            add_scaled(g, -along, u)
            scale(g, g.dtype.type(1) / length[i])
        else:
            fill(g, 0)
