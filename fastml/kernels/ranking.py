"""Ranking metrics of binary relevance, row by row.

``find_hits`` tells which ranked items are relevant. With h_j = 1 where the item at rank j = 1..k is, and R the number
of relevant items of the row, the metrics are

- precision: sum_j h_j / k
- recall: sum_j h_j / R
- hit rate: max_j h_j
- reciprocal rank: max_j h_j / j
- average precision: sum_j h_j (h_1 + ... + h_j) / j, over min(k, R)
- NDCG: sum_j h_j / log2(j + 1), over the same sum of min(k, R) hits in a row

and all of them 0 where R = 0.
"""

import numpy as np

from fastml.kernels._jit import kernel, point
from fastml.kernels._math import log

OUT_OF_RANGE, REPEATED = 1, 2
_RELEVANT, _RANKED = 1, 2  # bits of a mark


@kernel
def find_hits(start, stop, ranked, indptr, indices, data, marks, hits, n_relevant, fault):
    """Where ``ranked`` (n, k) is among the nonzero entries of a CSR (n, I): ``hits`` (n, k), and their number (n,).

    ``fault`` (n,) is why a row is no ranking, or 0; an id of -1 is padding. Scratch ``marks`` (I,) begins and ends 0.
    """
    n_items = len(marks)
    for i in range(start, stop):
        n_relevant[i], fault[i] = 0, 0
        for p in range(indptr[i], indptr[i + 1]):
            if data[p] != 0:
                marks[indices[p]] = _RELEVANT
                n_relevant[i] += 1
        for j in range(ranked.shape[1]):
            hits[i, j], item = 0, ranked[i, j]
            if item < -1 or item >= n_items:
                fault[i] = OUT_OF_RANGE
            elif item >= 0:
                if marks[item] >= _RANKED:
                    fault[i] = REPEATED
                hits[i, j] = marks[item] == _RELEVANT
                marks[item] |= _RANKED
        for p in range(indptr[i], indptr[i + 1]):
            marks[indices[p]] = 0
        for j in range(ranked.shape[1]):
            if 0 <= ranked[i, j] < n_items:
                marks[ranked[i, j]] = 0


@point
def count_hits(row):
    """Sum of a row of hits."""
    total = 0
    for j in range(len(row)):
        total += row[j]
    return total


@kernel
def precision(start, stop, k, hits, n_relevant, value):
    """``value`` (n,) from ``hits`` (n, at least k), as in the metrics below."""
    for i in range(start, stop):
        value[i] = count_hits(hits[i][:k]) / k


@kernel
def recall(start, stop, k, hits, n_relevant, value):
    """Share of the relevant items that are ranked."""
    for i in range(start, stop):
        value[i] = count_hits(hits[i][:k]) / max(n_relevant[i], 1)


@kernel
def hit_rate(start, stop, k, hits, n_relevant, value):
    """Whether any item is relevant."""
    for i in range(start, stop):
        value[i] = count_hits(hits[i][:k]) > 0


@kernel
def reciprocal_rank(start, stop, k, hits, n_relevant, value):
    """One over the rank of the first relevant item."""
    for i in range(start, stop):
        value[i] = 0
        for j in range(k):
            if hits[i, j]:
                value[i] = 1 / (j + 1)
                break


@kernel
def average_precision(start, stop, k, hits, n_relevant, value):
    """Mean over the hits, and over those that are missing, of the precision up to there."""
    for i in range(start, stop):
        n_hits, total = 0, 0.0
        for j in range(k):
            n_hits += hits[i, j]
            total += hits[i, j] * (n_hits / (j + 1))
        value[i] = total / max(min(k, n_relevant[i]), 1)


@point
def discounted(j):
    """What a hit at place j = 0, 1... counts, but for the factor log 2."""
    return 1 / log(np.float64(j + 2))


@kernel
def ndcg(start, stop, k, hits, n_relevant, value):
    """Discounted gain, over that of the ideal ranking."""
    for i in range(start, stop):
        gain, ideal = 0.0, 0.0
        for j in range(k):
            gain += hits[i, j] * discounted(j)
        for j in range(max(min(k, n_relevant[i]), 1)):
            ideal += discounted(j)
        value[i] = gain / ideal
