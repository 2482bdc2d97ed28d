"""How InfoNCE runs: blocks of queries against panels of keys, on arrays that are already valid.

Blocks of rows follow each other, and the panels of one block run on the threads: each owns the gradient of its keys.
The gradients of the block's queries are summed in lanes of panels, in their order: same bits for any number of threads.
"""

from functools import partial

import numpy as np

from fastml.kernels import contrastive as kernels
from fastml.runtime._blas_limit import blas_limited
from fastml.runtime._threads import run_blocks, run_tasks

_ROWS, _FAST_ROWS = 1024, 512  # queries of a block: at most, and enough for products at full speed
_BLOCK_BYTES = 12 << 20  # exponentials of a block of more rows than that
_KEPT_BYTES = 64 << 20  # exponentials of a block, or of all blocks in both directions
_TILE_BYTES = 1 << 20  # one tile: it stays in its core's L2
_LANES, _LANE_KEYS = 8, 256  # lanes at most, and keys of a lane at least


class _OneWay:
    """Queries among keys: log-sum-exps ``lse`` and own logits ``own`` (n,)."""

    def __init__(self, pairs, stats):
        self.pairs, self.stats = pairs, stats
        self.lse, self.own = np.empty((2, len(pairs.queries)), stats.dtype)

    def forward(self, panel, span, tile):
        kernels.forward(*span, self.pairs, tile, self.stats[panel])

    def join(self, first, last):
        kernels.join(first, last, self.stats, self.lse, self.own)

    def end(self):
        """All rows are seen; returns whether what came of it is of use."""
        return True

    def again(self, panel, span, tile):
        """The exponentials, where they were not kept."""

    def backward(self, panel, span, tile, grads):
        kernels.backward(*span, self.pairs, tile, self.stats[panel], *grads)

    def losses(self):
        return self._losses(self.lse)

    def _losses(self, lse):
        with np.errstate(over="ignore", invalid="ignore"):  # logits that overflow are told of one floor above
            return self.pairs.weight * (lse - self.own)


class _BothWays(_OneWay):
    """The mean of both directions, of any logits: the log-sum-exps ``other`` (n,) of the columns as well."""

    def __init__(self, pairs, stats):
        super().__init__(pairs, stats)
        self.sums = np.zeros((3, len(self.lse)), stats.dtype)
        self.sums[0] = -np.inf

    def forward(self, panel, span, tile):
        kernels.forward_both(*span, self.pairs, tile, self.stats[panel], self.sums)

    def end(self):
        self.other = np.log(self.sums[1]) + self.sums[0]
        return True

    def backward(self, panel, span, tile, grads):
        kernels.backward_both(*span, self.pairs, tile, self.stats[panel], self.lse, self.other, *grads)

    def losses(self):
        return self._losses(self.lse / 2 + self.other / 2)


class _LevelWays(_OneWay):
    """The mean of both directions of logits so near each other that they need no maxima: see the kernels."""

    def __init__(self, pairs, stats):
        super().__init__(pairs, stats)
        n = len(pairs.queries)
        self.own, self.totals, self.scratch = np.split(np.zeros((4, n), stats.dtype), [1, 3])  # rows, columns

    def forward(self, panel, span, tile):
        kernels.forward_level(*span, self.pairs, tile, self.stats[panel], self.totals[1])

    def join(self, first, last):
        self.own[0, first:last], self.totals[0, first:last] = self.stats[:, :2, : last - first].sum(axis=0)

    def end(self):
        half, (reach, margin) = self.pairs.weight / 2, _reach(self.own.dtype)
        if not self.totals.max() < np.exp(reach - margin / 2):  # an overflow, or shares would underflow
            return False
        self.shares = np.vstack([half / self.totals, half * ((self.own - self.totals) / self.totals).sum(axis=0)])
        return True

    def again(self, panel, span, tile):
        kernels.forward_level(*span, self.pairs, tile, self.stats[panel], self.scratch[0])

    def backward(self, panel, span, tile, grads):
        kernels.backward_level(*span, self.pairs, tile, self.shares, *grads)

    def losses(self):
        return self.pairs.weight / 2 * np.log(self.totals / self.own).sum(axis=0)


class InfoNCE:
    """The loss of some pairs.

    Parameters
    ----------
    pairs : Pairs
    is_symmetric : bool
    n_threads : int
    """

    def __init__(self, pairs, is_symmetric, n_threads):
        self.pairs, self.is_symmetric, self.n_threads = pairs, is_symmetric, n_threads
        n, n_keys, dtype = len(pairs.queries), len(pairs.keys), pairs.queries.dtype
        self.n_rows = _rows_of_a_block(n, n_keys * dtype.itemsize)
        self.blocks = [(first, min(first + self.n_rows, n)) for first in range(0, n, self.n_rows)]
        self.n_lanes = max(min(_LANES, n_keys // _LANE_KEYS), 1)
        self.n_panels = self.n_lanes * -(-n_keys * self.n_rows * dtype.itemsize // (_TILE_BYTES * self.n_lanes))
        self.bounds = [n_keys * panel // self.n_panels for panel in range(self.n_panels + 1)]
        self.stats = np.empty((self.n_panels, 3, self.n_rows), dtype)
        level = _level(pairs) if is_symmetric else None
        if level is None:
            self.way = (_BothWays if is_symmetric else _OneWay)(pairs, self.stats)
        else:
            self.way = _LevelWays(level, self.stats)

    def loss(self):
        """Losses (n,)."""
        self._keep(0)
        with blas_limited():
            self._first_sweep()
        return self.way.losses()

    def loss_grad(self):
        """Losses (n,), and the gradients of their sum with respect to queries and keys."""
        queries, keys = np.empty_like(self.pairs.queries), np.zeros_like(self.pairs.keys)
        lanes = np.empty((self.n_lanes, self.n_rows, queries.shape[1]), queries.dtype)
        with blas_limited():
            if self.is_symmetric:
                fits = len(queries) * len(keys) * keys.itemsize <= _KEPT_BYTES
                self._keep(len(self.blocks) if fits else 0)
                self._first_sweep()
            else:
                self._keep(1)
            for block, (first, last) in enumerate(self.blocks):
                if not self.is_symmetric:
                    self._forward(block)
                run_tasks(partial(self._backward, block, lanes, keys), self.n_lanes, self.n_threads)
                run_blocks(kernels.add_lanes, last - first, 256, self.n_threads, lanes, queries[first:last])
        return self.way.losses(), queries, keys

    def _keep(self, n_blocks):
        """Memory for the tiles of so many blocks, or for one of each thread."""
        self.n_kept = n_blocks
        n_tiles = n_blocks * self.n_panels or min(self.n_threads, self.n_panels)
        self.tiles = np.empty((n_tiles, self.n_rows * -(-self.bounds[-1] // self.n_panels)), self.stats.dtype)

    def _tile(self, block, panel, slot):
        """Rows and keys of a panel, and its tile."""
        first, last = self.bounds[panel : panel + 2]
        tile = self.tiles[block % self.n_kept * self.n_panels + panel if self.n_kept else slot]
        shape = self.n_rows, last - first
        return (*self.blocks[block], first, last), tile[: shape[0] * shape[1]].reshape(shape)

    def _first_sweep(self):
        for block in range(len(self.blocks)):
            self._forward(block)
        if not self.way.end():
            self.way = _BothWays(self.pairs, self.stats)
            self._first_sweep()

    def _forward(self, block):
        """Statistics of a block of rows, and of the columns so far."""

        def run(panel, slot):
            self.way.forward(panel, *self._tile(block, panel, slot))

        run_tasks(run, self.n_panels, self.n_threads)
        self.way.join(*self.blocks[block])

    def _backward(self, block, lanes, keys_grad, lane, slot):
        """What the panels of a lane have to the gradients."""
        start, end = (self.n_panels * at // self.n_lanes for at in (lane, lane + 1))
        for panel in range(start, end):
            span, tile = self._tile(block, panel, slot)
            if not self.n_kept:
                self.way.again(panel, span, tile)
            self.way.backward(panel, span, tile, (lanes.dtype.type(panel > start), lanes[lane], keys_grad))


def _rows_of_a_block(n, row_bytes):
    """Many rows for fast products, but few enough for their exponentials to stay near; all blocks about as large."""
    fast = min(_FAST_ROWS, max(_KEPT_BYTES // row_bytes, 32))
    rows = max(min(_ROWS, _BLOCK_BYTES // row_bytes), fast)
    return -(-n // -(-n // rows))


def _reach(dtype):
    """Logarithms, negated: of the smallest normal number, and of what is nothing in a sum of many beside 1."""
    limits = np.finfo(dtype)
    return float(-np.log(limits.tiny)), float(-2.5 * np.log(limits.eps))


def _level(pairs):
    """The pairs with one number taken from all logits, so that no exponential that counts underflows; or None.

    What counts is at most the margin below the lowest own logit, which is in a sum of its row and in one of its column.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # logits that overflow are told of one floor above
        own = pairs.beta * np.einsum("nd,nd->n", pairs.queries, pairs.keys[: len(pairs.queries)])
        own += pairs.bias[: len(own)]
        reach, margin = _reach(own.dtype)
        shift = min(own.mean(), own.min() + own.dtype.type(reach - margin))
        return pairs._replace(bias=pairs.bias - shift) if own.max() < shift + reach / 2 else None


def groups_of(ids):
    """Pairs of the same of ``ids`` (n,); empty arrays where all differ, or where there are none."""
    none = kernels.Groups(*[np.empty(0, np.int64)] * 3)
    if ids is None:
        return none
    _, group, sizes = np.unique(ids, return_inverse=True, return_counts=True)
    if len(sizes) == len(ids):
        return none
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return kernels.Groups(group.astype(np.int64), np.argsort(group, kind="stable"), starts)


def normalise(rows, n_threads):
    """Rows of length 1, and their lengths (n,); a row of zeros stays one."""
    out, length = np.empty_like(rows), np.empty(len(rows), rows.dtype)
    run_blocks(kernels.normalise, len(rows), 1024, n_threads, rows, out, length)
    return out, length


def normalise_grad(unit, length, grad, n_threads):
    """Turn the gradient of unit rows into that of the rows, in place; returns the products ``unit . grad`` (n,)."""
    slope = np.empty_like(length)
    run_blocks(kernels.normalise_grad, len(grad), 1024, n_threads, unit, length, grad, slope)
    return slope
