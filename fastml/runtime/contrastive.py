"""How InfoNCE runs: blocks of queries against panels of keys, on arrays that are already valid.

Blocks of rows follow each other, and the panels of one block run on the threads: each owns the gradient of its keys.
The gradients of the block's queries are summed in lanes of panels, in their order: same bits for any number of threads.
"""

from functools import partial

import numpy as np

from fastml.kernels import contrastive as kernels
from fastml.runtime._blas_limit import blas_limited
from fastml.runtime._threads import run_blocks, run_tasks

_ROWS = 256  # queries of a block
_KEPT_BYTES = 36 << 20  # exponentials of a block
_PANEL_BYTES = 1 << 20  # one tile: it stays in its core's L2
_LANES = 8


class InfoNCE:
    """The loss of some pairs: ``lse`` and ``own`` (n,) of the rows, ``other`` (n,) of the columns if symmetric.

    Parameters
    ----------
    pairs : Pairs
    is_symmetric : bool
    n_threads : int
    """

    def __init__(self, pairs, is_symmetric, n_threads):
        self.pairs, self.is_symmetric, self.n_threads = pairs, is_symmetric, n_threads
        n, n_keys, dtype = len(pairs.queries), len(pairs.keys), pairs.queries.dtype
        self.n_rows = int(min(_ROWS, n, max(_KEPT_BYTES // (n_keys * dtype.itemsize), 32)))
        n_panels = max(-(-n_keys * self.n_rows * dtype.itemsize // _PANEL_BYTES), min(_LANES, -(-n_keys // 64)))
        self.bounds = [n_keys * panel // n_panels for panel in range(n_panels + 1)]
        self.width = max(np.diff(self.bounds))
        self.stats = np.empty((n_panels, 4, self.n_rows), dtype)
        self.lse, self.own = np.empty(n, dtype), np.empty(n, dtype)
        self.sums = np.zeros((3, n if is_symmetric else 0), dtype)
        self.sums[0] = -np.inf
        self.other = None

    def loss(self):
        """Losses (n,)."""
        with blas_limited():
            self._first_sweep(self._tiles(kept=False))
        return self._losses()

    def loss_grad(self):
        """Losses (n,), and the gradients of their sum with respect to queries and keys."""
        queries, keys = np.zeros_like(self.pairs.queries), np.zeros_like(self.pairs.keys)
        n_panels = len(self.bounds) - 1
        n_lanes = min(_LANES, n_panels)
        lanes = [n_panels * lane // n_lanes for lane in range(n_lanes + 1)]
        parts = np.empty((n_lanes, self.n_rows, queries.shape[1]), queries.dtype)
        tiles = self._tiles(kept=not self.is_symmetric)
        with blas_limited():
            if self.is_symmetric:
                self._first_sweep(tiles)

            def backward(rows, lane, slot):
                parts[lane] = 0
                for panel in range(lanes[lane], lanes[lane + 1]):
                    self._backward(rows, panel, slot, tiles, parts[lane], keys)

            for rows in self._blocks():
                if not self.is_symmetric:
                    self._forward(rows, tiles)
                run_tasks(partial(backward, rows), n_lanes, self.n_threads)
                np.add.reduce(parts[:, : rows[1] - rows[0]], axis=0, out=queries[rows[0] : rows[1]])
        return self._losses(), queries, keys

    def _blocks(self):
        n = len(self.pairs.queries)
        return [(first, min(first + self.n_rows, n)) for first in range(0, n, self.n_rows)]

    def _tiles(self, kept):
        """Scratch: a tile for each panel, or for each thread."""
        n_panels = len(self.bounds) - 1
        return np.empty((n_panels if kept else min(self.n_threads, n_panels), self.n_rows, self.width), self.lse.dtype)

    def _panel(self, rows, panel):
        return *rows, self.bounds[panel], self.bounds[panel + 1], self.pairs

    def _forward(self, rows, tiles):
        """Statistics of a block of rows, and of the columns so far."""

        def run(panel, slot):
            tile = tiles[panel if len(tiles) == len(self.stats) else slot]
            if self.is_symmetric:
                kernels.forward_both(*self._panel(rows, panel), tile, self.stats[panel], self.sums)
            else:
                kernels.forward(*self._panel(rows, panel), tile, self.stats[panel])

        run_tasks(run, len(self.stats), self.n_threads)
        kernels.join(*rows, self.stats, self.lse, self.own)

    def _first_sweep(self, tiles):
        for rows in self._blocks():
            self._forward(rows, tiles)
        if self.is_symmetric:
            self.other = np.log(self.sums[1]) + self.sums[0]

    def _backward(self, rows, panel, slot, tiles, queries_grad, keys_grad):
        grads = queries_grad, keys_grad
        if self.is_symmetric:
            arrays = tiles[slot], self.stats[panel], self.lse, self.other
            kernels.backward_both(*self._panel(rows, panel), *arrays, *grads)
        else:
            kernels.backward(*self._panel(rows, panel), tiles[panel], self.stats[panel], self.lse, *grads)

    def _losses(self):
        lse = self.lse if self.other is None else (self.lse + self.other) / 2
        with np.errstate(over="ignore", invalid="ignore"):  # logits that overflow are told of one floor above
            return self.pairs.weight * (lse - self.own)


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
