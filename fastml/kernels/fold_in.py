"""Gradients by which users are folded in to the items of a factorization, for a tile of users at a time.

A user w with items of weights c, which sum to 1, minimises ``l2 / 2 |w|^2`` and, with logits ``z_i = w . h_i``,

- of a softmax: ``log sum_j exp(z_j + shift_j) - w . attraction`` with ``attraction = sum_i c_i h_i``;
- of BPR: ``sum_i c_i E_j log1p_exp(z_j - z_i)``;
- of negative sampling with m negatives: ``sum_i c_i log1p_exp(-z_i) + m E_j log1p_exp(z_j)``,

where E is the mean over the items j that the user has not, by the probabilities with which they are drawn. These are
convex in w. What BLAS does to a row may depend on how many there are: tiles always have the same number of rows.
"""

from typing import NamedTuple

import numpy as np

from fastml.kernels._blas import matmul_nn, matmul_nt
from fastml.kernels._jit import uncounted_kernel, uncounted_point
from fastml.kernels._math import exp, maximum, sigmoid
from fastml.kernels._rows import add_max, add_scaled, copy, dot, exp_shifted, fill, scale


class Users(NamedTuple):
    """Rows of users x items that are folded in, as CSR; ``weights`` sum to 1 in each.

    ``places`` are where among the negatives each item is, or -1; ``rest`` (n,) is what the probabilities of the others
    are multiplied by to sum to 1, 0 where there are none.
    """

    indptr: np.ndarray
    indices: np.ndarray
    weights: np.ndarray
    places: np.ndarray
    rest: np.ndarray


@uncounted_kernel
def softmax_user_grad(W, items, shift, attraction, z, stats, grad):
    """``grad`` (T, f) of ``log sum_j exp(w.h_j + shift_j) - w.attraction`` for users ``W`` (T, f), by panels of items.

    Scratch ``z`` (T, panel) and ``stats`` (2, T).
    """
    tops, totals = stats[0], stats[1]
    fill(tops, np.finfo(z.dtype).min)
    fill(totals, 0)
    for first in range(0, items.shape[0], z.shape[1]):
        last = min(first + z.shape[1], items.shape[0])
        panel, tile = items[first:last], z[:, : last - first]
        matmul_nt(1.0, W, panel, 0.0, tile)
        for r in range(W.shape[0]):
            row = z[r][: last - first]
            top = maximum(add_max(row, shift[first:last]), tops[r])
            kept = exp(tops[r] - top)
            tops[r], totals[r] = top, kept * totals[r] + exp_shifted(row, top)
            scale(grad[r], kept if first > 0 else kept - kept)
        matmul_nn(1.0, tile, panel, 1.0, grad)
    for r in range(W.shape[0]):
        scale(grad[r], 1 / totals[r])
        add_scaled(grad[r], z.dtype.type(-1), attraction[r])


@uncounted_point
def mask_own(first, users, u, z):
    """z = -inf at the user's own items among negatives ``first`` and following."""
    for p in range(users.indptr[u], users.indptr[u + 1]):
        place = users.places[p] - first
        if 0 <= place < z.shape[0]:
            z[place] = -np.inf


@uncounted_point
def pull_pairs(is_bpr, first, users, u, share, z, own, pulls, sums):
    """From logits ``z`` of a panel of negatives to their slopes; BPR adds what they are to the user's items."""
    rest = users.rest[u]
    if not is_bpr:
        for j in range(z.shape[0]):
            z[j] = rest * share[first + j] * sigmoid(z[j])
        return
    fill(sums[: z.shape[0]], 0)
    for p in range(users.indptr[u], users.indptr[u + 1]):
        weight, logit, pull = rest * users.weights[p], own[p], z.dtype.type(0)
        for j in range(z.shape[0]):
            slope = weight * share[first + j] * sigmoid(z[j] - logit)
            sums[j] += slope
            pull += slope
        pulls[p] -= pull
    copy(z, sums)


@uncounted_kernel
def pair_user_grad(is_bpr, start, stop, users, W, tables, z, scratch, grad):
    """``grad`` (T, f) of the expected pairwise loss of users start..stop, the first of ``W`` (T, f).

    ``tables`` are the items (I, f), the negatives (K, f), and their probabilities (K,), for negative sampling times how
    many there are. Scratch ``z`` (T, panel); ``scratch``: logits and slopes (nnz,), and a row as long as a panel.
    """
    items, negatives, share = tables
    own, pulls, sums = scratch
    for r in range(stop - start):
        for p in range(users.indptr[start + r], users.indptr[start + r + 1]):
            own[p] = dot(W[r], items[users.indices[p]])
            pulls[p] = 0 if is_bpr else -users.weights[p] * sigmoid(-own[p])
    for r in range(grad.shape[0]):
        fill(grad[r], 0)
    for first in range(0, negatives.shape[0], z.shape[1]):
        last = min(first + z.shape[1], negatives.shape[0])
        panel, tile = negatives[first:last], z[:, : last - first]
        matmul_nt(1.0, W, panel, 0.0, tile)
        for r in range(z.shape[0]):
            row = z[r][: last - first]
            if r < stop - start:
                mask_own(first, users, start + r, row)
                pull_pairs(is_bpr, first, users, start + r, share, row, own, pulls, sums)
            else:
                fill(row, 0)
        matmul_nn(1.0, tile, panel, 1.0, grad)
    for r in range(stop - start):
        for p in range(users.indptr[start + r], users.indptr[start + r + 1]):
            if users.rest[start + r] > 0:
                add_scaled(grad[r], pulls[p], items[users.indices[p]])
