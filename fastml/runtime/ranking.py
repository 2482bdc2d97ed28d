"""How rankings are made and measured: blocks of queries on the threads, a tile of scores or a mark an item for each.

Both take arrays that are already valid, a CSR with sorted int64 indices among them.
"""

import itertools

import numpy as np

from fastml.kernels import ranking as ranking_kernels
from fastml.kernels import topk as topk_kernels
from fastml.runtime._blas_limit import blas_limited
from fastml.runtime._threads import run_tasks

_TILE_BYTES = 1 << 19  # half of L2: the other half is for BLAS
_PANEL = 512  # items
_UNIT = 16  # items that BLAS takes at once
_LEAST_ROWS = 64  # queries of a tile: of fewer BLAS makes less than its usual speed
_BLOCKS = 8  # tiles to be had, beyond that, for the threads that might come to work
_COLLECTED_BYTES = 1 << 20  # of what the queries of a tile collect
_RANKED_BLOCK = 2**14  # ranked items: tens of microseconds


def _tile_rows(n_queries, k, itemsize):
    """Queries of a tile."""
    collected = max(_COLLECTED_BYTES // (topk_kernels.most_collected(k) * (itemsize + 8)), 1)
    return min(max(-(-n_queries // _BLOCKS), _LEAST_ROWS), _TILE_BYTES // (_PANEL * itemsize), collected, n_queries)


def _panel_width(n_items):
    """Items of a panel: up to ``_PANEL``, with few places left over in the last."""
    n_panels = -(-n_items // _PANEL)
    return -(-n_items // (n_panels * _UNIT)) * _UNIT


def top_k(queries, items, exclude, n_threads, ids, scores):
    """Fill ``ids`` and ``scores`` (n, k), best first, for ``queries`` (n, d) and ``items`` (I, d).

    ``exclude`` is a CSR (n, I), or None. No product may overflow.
    """
    k = min(ids.shape[1], len(items))
    rows = _tile_rows(len(queries), k, queries.itemsize)
    n_blocks = -(-len(queries) // rows)
    bounds = [len(queries) * block // n_blocks for block in range(n_blocks + 1)]
    width = _panel_width(len(items))
    tail, n_left = np.zeros((width, items.shape[1]), items.dtype), len(items) % width
    tail[:n_left] = items[len(items) - n_left :]
    scratch = [topk_kernels.scratch_for(rows, width, k, items.dtype) for _ in range(min(n_threads, n_blocks))]
    excluded = topk_kernels.Exclude(
        np.zeros(len(queries) + 1, np.int64) if exclude is None else exclude.indptr,
        np.empty(0, np.int64) if exclude is None else exclude.indices,
    )

    def run(block, slot):
        span = bounds[block], bounds[block + 1]
        topk_kernels.top_k(*span, queries, items, tail, excluded, scratch[slot], ids, scores)

    with blas_limited():
        run_tasks(run, n_blocks, n_threads)


def find_hits(ranked, relevant, n_threads):
    """Which of the ``ranked`` ids (n, k) are ``relevant``, a CSR (n, I).

    Returns ``hits`` (n, k) of 0 and 1, the number of relevant items (n,), and for each row its fault, or 0.
    """
    n, width = ranked.shape
    hits, n_relevant, fault = np.empty((n, width), np.int8), np.empty(n, np.int64), np.empty(n, np.int8)
    block = max(_RANKED_BLOCK // width, 1)
    bounds = list(itertools.pairwise([*range(0, n, block), n]))
    marks = np.zeros((min(n_threads, len(bounds)), relevant.shape[1]), np.int8)
    arrays = relevant.indptr, relevant.indices, relevant.data

    def run(task, slot):
        ranking_kernels.find_hits(*bounds[task], ranked, *arrays, marks[slot], hits, n_relevant, fault)

    run_tasks(run, len(bounds), n_threads)
    return hits, n_relevant, fault
