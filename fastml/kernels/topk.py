"""The largest inner products of queries with items, a tile of scores at a time: never queries x items of them.

A tile holds some queries against a panel of items and lies in L2. What a query keeps is a heap of its best items so
far with the worst of them on top: the one to beat. Eight stretches of a row of the tile are looked at side by side,
and only where one of eight scores may beat the worst are they looked at one by one. To find these few, and to sift
them down, costs more in branches that the processor guesses wrong than in work: hence selects in the place of ``if``.

Better is a higher score or, at the same score, a lower id. A free place of the heap has score -inf and id -1, so that
an item of score -inf, one to leave out, is not better than nothing. Equal items should have equal scores, to the last
bit, so all panels have one width, which BLAS cuts without a remainder: for a last, narrower one it would sum in another
order. (OpenBLAS does so for some of the items of any panel on processors without AVX-512: there the last bit decides.)
"""

from typing import NamedTuple

import numpy as np

from fastml.kernels._blas import matmul_nt
from fastml.kernels._jit import uncounted_kernel, uncounted_point
from fastml.kernels._rows import fill


class Exclude(NamedTuple):
    """Of a CSR (n, I), the items that are left out for each query; indices sorted."""

    indptr: np.ndarray
    indices: np.ndarray


class Scratch(NamedTuple):
    """What a thread needs for tiles of ``rows`` queries against ``width`` items."""

    tile: np.ndarray  # (rows, width): scores
    positions: np.ndarray  # (rows,): where each query is in its excluded items
    peaks: np.ndarray  # (width / 8,)
    found: np.ndarray  # (width + width / 8 + 1,): candidates, and what they are searched in


def scratch_for(rows, width, dtype):
    """New scratch of a dtype."""
    found = np.empty(width + width // 8 + 1, np.int64)
    return Scratch(np.empty((rows, width), dtype), np.empty(rows, np.int64), np.empty(width // 8, dtype), found)


@uncounted_point
def is_worse(score, item, other_score, other_item):
    """Whether an item comes after another in a ranking."""
    return (score < other_score) | ((score == other_score) & (item > other_item))


@uncounted_point
def sift_down(scores, ids, size, score, item):
    """Put an item in the place of the worst one of the heap ``scores[:size]``."""
    hole, child = 0, 1
    while child < size:
        if child + 1 < size:
            child += is_worse(scores[child + 1], ids[child + 1], scores[child], ids[child])
        if not is_worse(scores[child], ids[child], score, item):
            break
        scores[hole], ids[hole] = scores[child], ids[child]
        hole, child = child, 2 * child + 1
    scores[hole], ids[hole] = score, item


@uncounted_point
def sort_heap(scores, ids):
    """From a heap to best first: the worst goes to the end of what is left, again and again."""
    for end in range(len(scores) - 1, 0, -1):
        score, item = scores[end], ids[end]
        scores[end], ids[end] = scores[0], ids[0]
        sift_down(scores, ids, end, score, item)


@uncounted_point
def largest_of_eight(z, peaks, floor):
    """``peaks[j]`` is the largest of entry j of each eighth of ``z``; returns how many are above ``floor``."""
    n = peaks.shape[0]
    a, b, c, d = z[:n], z[n : 2 * n], z[2 * n : 3 * n], z[3 * n : 4 * n]
    e, f, g, h = z[4 * n : 5 * n], z[5 * n : 6 * n], z[6 * n : 7 * n], z[7 * n : 8 * n]
    n_above = 0
    for j in range(n):
        peak = max(max(max(a[j], b[j]), max(c[j], d[j])), max(max(e[j], f[j]), max(g[j], h[j])))
        peaks[j] = peak
        n_above += peak > floor
    return n_above


@uncounted_point
def kth_largest(peaks, k):
    """The k-th largest of at least k numbers, by counting for each how many are above it: that vectorises."""
    one, zero = peaks.dtype.type(1), peaks.dtype.type(0)
    result = peaks.dtype.type(-np.inf)
    for i in range(peaks.shape[0]):
        n_above = zero  # in their own type, which takes as many at a time
        for j in range(peaks.shape[0]):
            n_above += one if peaks[j] > peaks[i] else zero
        result = peaks[i] if (n_above >= k - 1) & (peaks[i] > result) else result
    return result


@uncounted_point
def find_candidates(z, peaks, floor, found):
    """Positions in ``z`` of scores from ``floor``, into ``found``; returns how many."""
    n = peaks.shape[0]
    lanes, n_lanes = found[8 * n :], 0
    for j in range(n):
        lanes[n_lanes] = j
        n_lanes += peaks[j] >= floor
    n_found = 0
    for lane in range(n_lanes):
        position = lanes[lane]
        for _ in range(8):
            found[n_found] = position
            n_found += z[position] >= floor
            position += n
    return n_found


@uncounted_point
def select(z, first_item, scratch, ids, scores):
    """Let the scores ``z`` of a panel into the heap of a query."""
    peaks, found = scratch.peaks, scratch.found
    floor = scores[0]
    n_above = largest_of_eight(z, peaks, floor)
    if n_above == 0:
        return
    if n_above > len(scores):  # k of the panel's own items are at least as good as its k-th peak
        floor = kth_largest(peaks, len(scores))
    n_found = find_candidates(z, peaks, floor, found)
    for candidate in range(n_found - 1, -1, -1):  # from the end, as scores rather rise with the id than fall
        position = found[candidate]
        score, item = z[position], first_item + position
        if is_worse(scores[0], ids[0], score, item):
            sift_down(scores, ids, len(scores), score, item)


@uncounted_point
def leave_out(z, first_item, indices, position, end):
    """Score -inf for the items of this panel among the sorted ``indices[position:end]``; moves ``position`` (1,) on."""
    p = position[0]
    while p < end and indices[p] < first_item + z.shape[0]:
        z[indices[p] - first_item] = -np.inf
        p += 1
    position[0] = p


@uncounted_kernel
def top_k(start, stop, queries, items, tail, exclude, scratch, ids, scores):
    """Best items of queries start..stop: ``ids`` and ``scores`` (n, k), best first, then -1 and -inf.

    ``tail`` (width, d) has the items beyond the last whole panel, and zeros; width is a multiple of 8. What may
    overflow was refused.
    """
    n_items, n_rows, width = items.shape[0], stop - start, tail.shape[0]
    size = min(scores.shape[1], n_items)
    for i in range(start, stop):
        fill(ids[i], -1)
        fill(scores[i], -np.inf)
        scratch.positions[i - start] = exclude.indptr[i]
    for first in range(0, n_items, width):
        n = min(width, n_items - first)
        panel = items[first : first + n] if n == width else tail
        matmul_nt(1.0, queries[start:stop], panel, 0.0, scratch.tile[:n_rows])
        for row in range(n_rows):
            i, z = start + row, scratch.tile[row]
            fill(z[n:], -np.inf)
            leave_out(z[:n], first, exclude.indices, scratch.positions[row : row + 1], exclude.indptr[i + 1])
            select(z, first, scratch, ids[i][:size], scores[i][:size])
    for i in range(start, stop):
        sort_heap(scores[i][:size], ids[i][:size])
