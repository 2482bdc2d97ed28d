"""Losses of a few sampled candidates in the place of all of them.

Sampled softmax. The candidates of row i are its target t and the negatives, which all rows share. With the corrected
logits z_c = x.w_c + b_c - log q_c, and s = z_t: ``loss = w log(1 + sum_j e^z_j / e^s) = w log1p_exp(margin)``, where
margin = log sum_j e^z_j - s. With share = w sigmoid(margin) the gradient of s is -share, and that of z_j is share times
its part of the sum: nothing cancels where the target is nearly certain. A class that was drawn k times is one column
with log k added to its logit. So a row has at most one accidental hit, the column of its own target.

Negative sampling: ``loss = w (log1p_exp(-q.k) + sum_j log1p_exp(q.n_j))``; every row has negatives of its own.
"""

from typing import NamedTuple

import numpy as np

from fastml.kernels._blas import matmul_nn, matmul_nt, matmul_tn
from fastml.kernels._jit import uncounted_kernel, uncounted_point
from fastml.kernels._math import log, log1p_exp, maximum, sigmoid
from fastml.kernels._rows import add, add_max, add_scaled, dot, exp_shifted, fill, scale


class Candidates(NamedTuple):
    """The classes that occur, each once: first the drawn ones, the columns, then the targets that were not drawn."""

    W: np.ndarray  # (u, d)
    shift: np.ndarray  # (u,): b - log q
    column_shift: np.ndarray  # (c,): of the columns, with the log of how often they were drawn
    position: np.ndarray  # (n,): of each row's target among the u
    masks_hits: bool  # whether the column of the own target is left out


@uncounted_point
def exponentials(z, candidates, i):
    """Of row i, z becomes exp(z + shift - top); returns top and the sum."""
    if candidates.masks_hits and candidates.position[i] < z.shape[0]:
        z[candidates.position[i]] = -np.inf
    top = add_max(z, candidates.column_shift)
    top = maximum(top, np.finfo(z.dtype).min)  # finite even where the only column is masked
    return top, exp_shifted(z, top)


@uncounted_point
def target_margin(x, candidates, i, top, total):
    """How far the negatives together are above the target of row i; -inf without any."""
    c = candidates.position[i]
    return (top - (dot(x, candidates.W[c]) + candidates.shift[c])) + log(total)


@uncounted_kernel
def softmax_loss(start, stop, X, candidates, weight, z, loss):
    """``loss`` (n,) of rows start..stop; scratch ``z`` (at least as many rows, c)."""
    tile = z[: stop - start]
    matmul_nt(1.0, X[start:stop], candidates.W[: z.shape[1]], 0.0, tile)
    for i in range(start, stop):
        top, total = exponentials(tile[i - start], candidates, i)
        loss[i] = weight[i] * log1p_exp(target_margin(X[i], candidates, i, top, total))


@uncounted_kernel
def softmax_loss_grad(start, stop, first, X, candidates, weight, z, share, loss, X_grad):
    """As ``softmax_loss``; leaves the logits' gradient in ``z`` and ``share`` (n,), row 0 of ``z`` is row ``first``.

    ``X_grad`` (n, d) may have no rows.
    """
    tile, W = z[start - first : stop - first], candidates.W[: z.shape[1]]
    matmul_nt(1.0, X[start:stop], W, 0.0, tile)
    for i in range(start, stop):
        row = tile[i - start]
        top, total = exponentials(row, candidates, i)
        margin = target_margin(X[i], candidates, i, top, total)
        loss[i] = weight[i] * log1p_exp(margin)
        share[i] = weight[i] * sigmoid(margin)
        scale(row, share[i] / total if total > 0 else total)
    if X_grad.shape[0] > 0:
        matmul_nn(1.0, tile, W, 0.0, X_grad[start:stop])
        for i in range(start, stop):
            add_scaled(X_grad[i], -share[i], candidates.W[candidates.position[i]])


@uncounted_kernel
def class_grad(start, stop, first, last, X, position, z, share, W_grad, b_grad):
    """Adds what rows first..last have to the gradients of classes start..stop, from 0 if first is 0."""
    n_columns = min(z.shape[1], stop)
    if first == 0:
        fill(b_grad[start:stop], 0)
        for c in range(max(n_columns, start), stop):
            fill(W_grad[c], 0)
    if start < n_columns:
        part = z[: last - first, start:n_columns]
        matmul_tn(1.0, part, X[first:last], 0.0 if first == 0 else 1.0, W_grad[start:n_columns])
        for i in range(last - first):
            add(b_grad[start:n_columns], part[i])
    for i in range(first, last):
        c = position[i]
        if start <= c < stop:
            add_scaled(W_grad[c], -share[i], X[i])
            b_grad[c] -= share[i]


@uncounted_point
def negative_logits(query, negatives, z):
    """z = negatives @ query; returns the sum of log1p_exp(z)."""
    for j in range(z.shape[0]):
        z[j] = dot(query, negatives[j])
    result = z.dtype.type(0)
    for j in range(z.shape[0]):
        result += log1p_exp(z[j])
    return result


@uncounted_kernel
def negative_sampling(start, stop, queries, keys, negatives, weight, z, loss):
    """``loss`` (n,) of rows start..stop with ``negatives`` (n, m, d); scratch ``z`` (m,)."""
    for i in range(start, stop):
        rest = negative_logits(queries[i], negatives[i], z)
        loss[i] = weight[i] * (log1p_exp(-dot(queries[i], keys[i])) + rest)


@uncounted_kernel
def negative_sampling_grad(start, stop, queries, keys, negatives, weight, z, loss, grads):
    """As ``negative_sampling``; ``grads`` are of queries, keys and negatives, in their shapes."""
    queries_grad, keys_grad, negatives_grad = grads
    for i in range(start, stop):
        query, key, query_grad, key_grad, w = queries[i], keys[i], queries_grad[i], keys_grad[i], weight[i]
        rest = negative_logits(query, negatives[i], z)
        logit = dot(query, key)
        loss[i] = w * (log1p_exp(-logit) + rest)
        pull = -w * sigmoid(-logit)
        for k in range(query.shape[0]):
            key_grad[k], query_grad[k] = pull * query[k], pull * key[k]
        for j in range(z.shape[0]):
            z[j] = w * sigmoid(z[j])
        for j in range(z.shape[0]):
            negative, negative_grad, push = negatives[i, j], negatives_grad[i, j], z[j]
            for k in range(query.shape[0]):
                query_grad[k] += push * negative[k]
                negative_grad[k] = push * query[k]
