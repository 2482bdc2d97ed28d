"""InfoNCE: the softmax over the similarities of one query with all keys, of which its own is the right one.

With logits ``z_ij = beta q_i.k_j + bias_j`` and s the softmax of a row over its keys, the loss of pair i is
``w_i (lse_i - z_ii)`` and the gradient of z ``w_i (s_ij - [i = j])`` (van den Oord, Li & Vinyals, *Representation
learning with contrastive predictive coding*, 2018). Symmetric, half of it is that of row i, and half that of column i
over the first n keys, whose log-sum-exp ``other_i`` is taken over the queries (Radford et al., *CLIP*, 2021).

The n x n logits are never whole: a tile holds some rows against a panel of keys. In one direction the exponentials of a
block of rows are kept until its log-sum-exps are known; in both directions a first sweep takes the log-sum-exps of rows
and columns together, and a second one the gradient. Of ``stats`` (4, rows) a panel fills: its maximum, its sum of
exp(z - maximum), the logit of the row's own key; then the log-sum-exp over all panels is put beside them.
``sums`` (2, n) are the columns' maxima and sums so far.

Pairs of one group are no negatives of each other: ``groups`` are the group of each pair, the pairs sorted by group, and
where each group begins there; all empty if there are none.
"""

from typing import NamedTuple

import numpy as np

from fastml.kernels._blas import matmul_nn, matmul_nt, matmul_tn
from fastml.kernels._jit import uncounted_kernel, uncounted_point
from fastml.kernels._math import exp, log, maximum, row_max
from fastml.kernels._rows import add_max, add_scaled, dot, exp_shifted, fill, scale


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
def _first_from(members, low, high, key):
    """The first place in ``members[low:high]``, which are sorted, with a number of at least ``key``."""
    while low < high:
        middle = (low + high) // 2
        if members[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low


@uncounted_point
def _mask(row, i, first_key, groups):
    """-inf for the other members of the query's group among the keys of this panel."""
    last, group = first_key + row.shape[0], groups.group[i]
    end = groups.starts[group + 1]
    at = _first_from(groups.members, groups.starts[group], end, first_key)
    while at < end and groups.members[at] < last:
        if groups.members[at] != i:
            row[groups.members[at] - first_key] = -np.inf
        at += 1


@uncounted_point
def _logits(first, last, first_key, last_key, pairs, z, stats):
    """Logits of rows first..last and a panel of keys; maxima and own logits of the rows to ``stats``."""
    lowest, width = np.finfo(z.dtype).min, last_key - first_key  # of a row whose logits are all -inf here
    matmul_nt(pairs.beta, pairs.queries[first:last], pairs.keys[first_key:last_key], 0.0, z[: last - first, :width])
    for r in range(last - first):
        i, row = first + r, z[r][:width]  # a row of the tile, not of a slice of it: contiguous for the compiler too
        top = add_max(row, pairs.bias[first_key:last_key])
        if len(pairs.groups.group) > 0:
            _mask(row, i, first_key, pairs.groups)
            top = row_max(row)
        stats[0, r] = maximum(top, lowest)
        stats[2, r] = row[i - first_key] if first_key <= i < last_key else row.dtype.type(0)


@uncounted_point
def _exp_rows(n_rows, width, z, stats):
    """exp(z - maximum), and the sums."""
    for r in range(n_rows):
        stats[1, r] = exp_shifted(z[r][:width], stats[0, r])


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
    _exp_rows(last - first, last_key - first_key, z, stats)


@uncounted_kernel
def forward_both(first, last, first_key, last_key, pairs, z, stats, sums):
    """As ``forward``, and takes the panel's columns of the first n keys into their ``sums`` (3, n)."""
    _logits(first, last, first_key, last_key, pairs, z, stats)
    own = min(last_key, len(pairs.queries))
    if first_key < own:
        columns = slice(first_key, own)
        _add_columns(last - first, z, sums[0][columns], sums[1][columns], sums[2][columns])
    _exp_rows(last - first, last_key - first_key, z, stats)


@uncounted_kernel
def join(first, last, panels, lse, own):
    """Log-sum-exp ``lse`` (n,) and own logits ``own`` (n,) of rows first..last from the ``panels`` (p, 4, rows)."""
    for r in range(last - first):
        top, total, logit = panels[0, 0, r], panels[0, 1, r], panels[0, 2, r]
        for p in range(1, panels.shape[0]):
            higher = maximum(top, panels[p, 0, r])
            total = total * exp(top - higher) + panels[p, 1, r] * exp(panels[p, 0, r] - higher)
            logit += panels[p, 2, r]
            top = higher
        lse[first + r], own[first + r] = log(total) + top, logit


@uncounted_point
def _subtract_own(row, i, first_key, weight):
    if first_key <= i < first_key + row.shape[0]:
        row[i - first_key] -= weight


@uncounted_point
def _add_products(first, last, first_key, last_key, pairs, z, queries_grad, keys_grad):
    tile = z[: last - first, : last_key - first_key]
    matmul_nn(pairs.beta, tile, pairs.keys[first_key:last_key], 1.0, queries_grad[: last - first])
    matmul_tn(pairs.beta, tile, pairs.queries[first:last], 1.0, keys_grad[first_key:last_key])


@uncounted_kernel
def backward(first, last, first_key, last_key, pairs, z, stats, lse, queries_grad, keys_grad):
    """Add what a panel has to the gradients, from what ``forward`` left; ``queries_grad`` begins at row first."""
    for r in range(last - first):
        i, row = first + r, z[r][: last_key - first_key]
        scale(row, pairs.weight[i] * exp(stats[0, r] - lse[i]))
        _subtract_own(row, i, first_key, pairs.weight[i])
    _add_products(first, last, first_key, last_key, pairs, z, queries_grad, keys_grad)


@uncounted_kernel
def backward_both(first, last, first_key, last_key, pairs, z, stats, lse, other, queries_grad, keys_grad):
    """As ``backward`` for both directions; ``other`` (n,) are the columns' log-sum-exps."""
    _logits(first, last, first_key, last_key, pairs, z, stats)
    n_own = max(min(last_key, len(pairs.queries)) - first_key, 0)
    columns, weights = other[first_key : first_key + n_own], pairs.weight[first_key : first_key + n_own]
    half = z.dtype.type(0.5)
    for r in range(last - first):
        i = first + r
        row, w = z[r][: last_key - first_key], half * pairs.weight[i]
        own, extra = row[:n_own], row[n_own:]
        for j in range(n_own):
            own[j] = w * exp(own[j] - lse[i]) + half * weights[j] * exp(own[j] - columns[j])
        for j in range(len(extra)):
            extra[j] = w * exp(extra[j] - lse[i])
        _subtract_own(row, i, first_key, w + w)
    _add_products(first, last, first_key, last_key, pairs, z, queries_grad, keys_grad)


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
