"""The largest inner products of queries with items, a tile of scores at a time: never queries x items of them.

A tile holds some queries against a panel of items and lies in L2. A query collects scores that reach its ``floor``,
below which no score can be among the best; when it has some more than twice as many as wanted, the others go and the
floor rises. Eight stretches of a row of the tile are looked at side by side, and only where one of eight reaches the
floor are they looked at one by one. The floor is found, and what is left is sorted, by counting how many scores are
above one: that vectorises, where heaps and pivots cost branches that the processor guesses wrong.

Better is a higher score or, at the same score, a lower id: what is collected stays in the order of ids. A score of
-inf, that of an item to leave out, is below every floor. Equal items should have equal scores, to the last bit, so all
panels have one width, which BLAS cuts without a remainder: for a last, narrower one it would sum in another order.
(OpenBLAS does so for some of the items of any panel on processors without AVX-512: there the last bit decides.)
"""

from typing import NamedTuple

import numpy as np

from fastml.kernels._blas import matmul_nt
from fastml.kernels._jit import uncounted_kernel, uncounted_point
from fastml.kernels._math import maximum
from fastml.kernels._rows import fill

_RUN = 64  # scores that are sorted by counting, which takes the square of their number


class Exclude(NamedTuple):
    """Of a CSR (n, I), the items that are left out for each query; indices sorted."""

    indptr: np.ndarray
    indices: np.ndarray


class Scratch(NamedTuple):
    """What a thread needs for tiles of ``rows`` queries against ``width`` items."""

    tile: np.ndarray  # (rows, width): scores
    positions: np.ndarray  # (rows,): where each query is in its excluded items
    peaks: np.ndarray  # (width / 8,)
    lanes: np.ndarray  # (width / 8 + 1,): which peaks reach the floor
    floors: np.ndarray  # (rows,)
    sizes: np.ndarray  # (rows,): how many scores each query has collected
    scores: np.ndarray  # (rows, room): collected, in the order of ids
    ids: np.ndarray  # (rows, room)
    half_sorted: tuple  # scores and ids (k,)


@uncounted_point
def most_collected(k):
    """Scores that a query collects at most before it keeps the ``k`` best of them, but for one panel."""
    return 2 * k + 32


def scratch_for(rows, width, k, dtype):
    """New scratch of a dtype for ``k`` results, no more than there are items."""
    room = most_collected(k) + width + 1
    return Scratch(
        np.empty((rows, width), dtype),
        np.empty(rows, np.int64),
        np.empty(width // 8, dtype),
        np.empty(width // 8 + 1, np.int64),
        np.empty(rows, dtype),
        np.empty(rows, np.int64),
        np.empty((rows, room), dtype),
        np.empty((rows, room), np.int64),
        (np.empty(k, dtype), np.empty(k, np.int64)),
    )


@uncounted_point
def count_from(scores, floor):
    """How many scores reach ``floor``, and how many are above it."""
    one, zero = scores.dtype.type(1), scores.dtype.type(0)
    n_from, n_above = zero, zero  # in their own type, which takes as many at a time
    for j in range(scores.shape[0]):
        n_from += one if scores[j] >= floor else zero
        n_above += one if scores[j] > floor else zero
    return np.int64(n_from), np.int64(n_above)


@uncounted_point
def kth_largest(scores, k):
    """The k-th largest of at least k numbers."""
    result = scores.dtype.type(-np.inf)
    for i in range(scores.shape[0]):
        n_from, _ = count_from(scores, scores[i])
        result = scores[i] if (n_from >= k) & (scores[i] > result) else result
    return result


@uncounted_point
def floor_of(scores, k):
    """A floor that k of at least k finite scores reach, and no k are above: by halving the range of the scores."""
    half = scores.dtype.type(0.5)
    low, high = scores[0], scores[0]
    for j in range(scores.shape[0]):
        low, high = -maximum(-low, -scores[j]), maximum(high, scores[j])
    while True:
        middle = half * low + half * high
        if not low < middle < high:  # no number is between them
            return high if count_from(scores, high)[0] >= k else low
        n_from, _ = count_from(scores, middle)
        if n_from == k:
            return middle
        if n_from > k:
            low = middle
        else:
            high = middle


@uncounted_point
def keep_best(scores, ids, k):
    """Move the k best to the front, in the order that they have; returns a floor for others."""
    floor = floor_of(scores, k)
    n_kept, n_ties = 0, k - count_from(scores, floor)[1]
    for j in range(scores.shape[0]):
        score, is_tie = scores[j], scores[j] == floor
        scores[n_kept], ids[n_kept] = score, ids[j]
        n_kept += (score > floor) | (is_tie & (n_ties > 0))
        n_ties -= is_tie
    return floor


@uncounted_point
def sort_runs(scores, ids, sorted_scores, sorted_ids):
    """Each stretch of ``_RUN`` best first, and of equal scores the first one first."""
    for first in range(0, scores.shape[0], _RUN):
        run = scores[first : first + _RUN]
        for j in range(run.shape[0]):
            n_from, place = count_from(run, run[j])
            if n_from > place + 1:
                for before in range(j):
                    place += run[before] == run[j]
            sorted_scores[first + place], sorted_ids[first + place] = run[j], ids[first + j]


@uncounted_point
def merge(scores, ids, first, middle, last, merged_scores, merged_ids):
    """Of two sorted stretches that meet in ``middle`` one."""
    left, right = first, middle
    for place in range(first, last):
        a, b = min(left, middle - 1), min(right, last - 1)
        is_left = (right == last) | ((left < middle) & (scores[a] >= scores[b]))
        merged_scores[place] = scores[a] if is_left else scores[b]
        merged_ids[place] = ids[a] if is_left else ids[b]
        left += is_left
        right += not is_left


@uncounted_point
def sort(scores, ids, scratch, sorted_scores, sorted_ids):
    """Best first, and of equal scores the first one first."""
    n, run = scores.shape[0], _RUN
    source_scores, source_ids = scratch[0][:n], scratch[1][:n]
    target_scores, target_ids = sorted_scores, sorted_ids
    while run < n:
        source_scores, target_scores = target_scores, source_scores
        source_ids, target_ids = target_ids, source_ids
        run *= 2
    sort_runs(scores, ids, target_scores, target_ids)
    run = _RUN
    while run < n:
        source_scores, target_scores = target_scores, source_scores
        source_ids, target_ids = target_ids, source_ids
        for first in range(0, n, 2 * run):
            middle, last = min(first + run, n), min(first + 2 * run, n)
            merge(source_scores, source_ids, first, middle, last, target_scores, target_ids)
        run *= 2


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
def collect(z, first_item, floor, scratch, n, scores, ids):
    """Append what reaches the floor, in the order of ids, to the ``n`` that are there; returns how many are then."""
    peaks, lanes, n_lanes = scratch.peaks, scratch.lanes, 0
    for j in range(peaks.shape[0]):
        lanes[n_lanes] = j
        n_lanes += peaks[j] >= floor
    for eighth in range(0, z.shape[0], peaks.shape[0]):
        for lane in range(n_lanes):
            position = eighth + lanes[lane]
            scores[n], ids[n] = z[position], first_item + position
            n += z[position] >= floor
    return n


@uncounted_point
def select(z, first_item, k, row, scratch):
    """Let query ``row`` collect from the scores ``z`` of a panel."""
    floor, scores, ids = scratch.floors[row], scratch.scores[row], scratch.ids[row]
    n_above = largest_of_eight(z, scratch.peaks, floor)
    if n_above == 0:
        return
    if n_above > k:  # k of the panel's own items are at least as good as its k-th peak
        floor = kth_largest(scratch.peaks, k)
    n = collect(z, first_item, floor, scratch, scratch.sizes[row], scores, ids)
    if n > most_collected(k):
        floor, n = keep_best(scores[:n], ids[:n], k), k
    scratch.floors[row], scratch.sizes[row] = floor, n


@uncounted_point
def leave_out(z, first_item, indices, position, end):
    """Score -inf for the items of this panel among the sorted ``indices[position:end]``; moves ``position`` (1,) on."""
    p = position[0]
    while p < end and indices[p] < first_item + z.shape[0]:
        z[indices[p] - first_item] = -np.inf
        p += 1
    position[0] = p


@uncounted_point
def finish(row, k, scratch, ids, scores):
    """What query ``row`` has collected, best first, then -1 and -inf."""
    n = scratch.sizes[row]
    if n > k:
        keep_best(scratch.scores[row, :n], scratch.ids[row, :n], k)
        n = k
    sort(scratch.scores[row, :n], scratch.ids[row, :n], scratch.half_sorted, scores[:n], ids[:n])
    fill(ids[n:], -1)
    fill(scores[n:], -np.inf)


@uncounted_kernel
def top_k(start, stop, queries, items, tail, exclude, scratch, ids, scores):
    """Best items of queries start..stop: ``ids`` and ``scores`` (n, k), best first, then -1 and -inf.

    ``tail`` (width, d) has the items beyond the last whole panel, and zeros; width is a multiple of 8. What may
    overflow was refused.
    """
    n_items, n_rows, width = items.shape[0], stop - start, tail.shape[0]
    size = min(scores.shape[1], n_items)
    for i in range(start, stop):
        scratch.positions[i - start] = exclude.indptr[i]
    fill(scratch.floors[:n_rows], np.finfo(scores.dtype).min)
    fill(scratch.sizes[:n_rows], 0)
    for first in range(0, n_items, width):
        n = min(width, n_items - first)
        panel = items[first : first + n] if n == width else tail
        matmul_nt(1.0, queries[start:stop], panel, 0.0, scratch.tile[:n_rows])
        for row in range(n_rows):
            i, z = start + row, scratch.tile[row]
            fill(z[n:], -np.inf)
            leave_out(z[:n], first, exclude.indices, scratch.positions[row : row + 1], exclude.indptr[i + 1])
            select(z, first, size, row, scratch)
    for row in range(n_rows):
        finish(row, size, scratch, ids[start + row], scores[start + row])
