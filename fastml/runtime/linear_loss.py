"""How linear layers with a loss run: whole rows where classes are few, panels of classes where they are many.

Both split the work by its shape alone, never by the number of threads, and add up the parts in a fixed order:
the same bits on one thread and on sixteen. ``loss`` and ``loss_grad`` take arrays that are already valid;
``weights`` and ``settings`` are those of ``fastml.kernels._loss_tile``.
"""

import itertools
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from fastml.kernels import linear_loss as kernels
from fastml.runtime._blas_limit import blas_limited
from fastml.runtime._threads import run_tasks

_STORED_BYTES = 36 << 20  # logits kept between the two sweeps over a block of rows
_LANES_BYTES = 12 << 20  # partial gradients that are added up at the end
_TILE_BYTES = 1 << 20  # one tile of logits: it stays in its core's L2
_SMALL_PRODUCT = 800_000  # BLAS does without packing up to an m n k of a million: faster where n is small
_SPAN_ENTRIES = 500_000  # stored entries transposed at a time
_COPIED_BYTES = 8 << 20  # weights transposed at a time
_LEAST_WORK = 200_000  # multiply-adds worth handing to a thread
_MAX_LANES = 16
_PANEL_ROWS, _ADDED_ROWS = 256, 64
_LEAST_PANEL = 65_536  # weights of a panel: narrower ones would leave BLAS too little to do


class CSR(NamedTuple):
    """The arrays of a CSR (or, transposed, of a CSC) matrix; int64 indices, float data."""

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray


def tile_rows(n_features, n_classes, itemsize):
    """Rows of a tile of whole rows: cheap for BLAS, and within L2."""
    small = _SMALL_PRODUCT // (n_features * n_classes)
    fitting = _TILE_BYTES // (n_classes * itemsize)
    return max(min(small if small >= 32 else 256, fitting, 256), 1)


def _lanes(n_parts, bytes_each):
    """How many partial sums to keep: what parts, memory and threads that might use them allow, a power of two.

    Threads, of which there are mostly two, four or eight, then have equal shares.
    """
    most = max(min(n_parts, _LANES_BYTES // max(bytes_each, 1), _MAX_LANES), 1)
    return 1 << (most.bit_length() - 1)


def _bounds(n, n_parts):
    """Limits of ``n_parts`` nearly equal runs of 0..n."""
    return [n * part // n_parts for part in range(n_parts + 1)] if n_parts else [0]


def loss(X, W, b, target, weights, settings, n_threads):
    """Losses (n,) of dense or CSR rows; ``W`` is (C, d), for CSR (d, C), there of any layout."""
    problem = X, W, settings.beta * b, target, weights, settings
    out = np.empty(weights.shape[1], W.dtype)
    with blas_limited():
        if isinstance(X, CSR):
            _csr_loss(*problem, n_threads, out)
        elif 64 * len(b) * W.itemsize <= _TILE_BYTES:
            _rows_loss(*problem, n_threads, out)
        else:
            _Panels(*problem, n_threads).loss(out)
    return out


def loss_grad(X, W, b, target, weights, settings, n_threads, X_grad, W_grad, b_grad, spans=None):
    """Losses (n,); fills ``W_grad`` and ``b_grad``, and ``X_grad`` (of CSR: of its data) unless it has no rows.

    ``spans`` is ``list(csc_spans(...))`` where the same CSR is used again and again.
    """
    problem = X, W, settings.beta * b, target, weights, settings
    out = np.empty(weights.shape[1], W.dtype)
    with blas_limited():
        if isinstance(X, CSR):
            _csr_loss_grad(*problem, n_threads, out, X_grad, W_grad, b_grad, spans)
        elif 64 * len(b) * W.itemsize <= _TILE_BYTES and 4 * W.nbytes <= _LANES_BYTES:
            _rows_loss_grad(*problem, n_threads, out, X_grad, W_grad, b_grad)
        else:
            _Panels(*problem, n_threads).loss_grad(out, X_grad, W_grad, b_grad)
    b_grad *= settings.beta
    return out


def _rows_scratch(rows, n_tasks, n_threads, W):
    """A tile of logits and its statistics for each thread that may come to work."""
    n_slots = min(n_tasks, n_threads)
    return np.empty((n_slots, rows, W.shape[0]), W.dtype), np.empty((n_slots, 4, rows), W.dtype)


def _rows_loss(X, W, b, target, weights, settings, n_threads, out):
    rows = tile_rows(W.shape[1], W.shape[0], W.itemsize)
    bounds = _bounds(len(X), min(-(-len(X) // rows), 4 * _MAX_LANES))
    z, stats = _rows_scratch(rows, len(bounds) - 1, n_threads, W)

    def run(part, slot):
        span = bounds[part], bounds[part + 1]
        kernels.rows_loss(*span, X, W, b, target, weights, settings, z[slot], stats[slot], out)

    run_tasks(run, len(bounds) - 1, n_threads)


def _rows_loss_grad(X, W, b, target, weights, settings, n_threads, out, X_grad, W_grad, b_grad):
    rows = tile_rows(W.shape[1], W.shape[0], W.itemsize)
    # Each partial gradient costs memory and an addition, so that short ones pay only where there are no others.
    n_lanes = _lanes(max(-(-len(X) // 512), min(-(-len(X) // min(rows, 128)), 4)), W.nbytes)
    rows = min(rows, -(-len(X) // n_lanes))
    bounds = _bounds(len(X), n_lanes)
    z, stats = _rows_scratch(rows, n_lanes, n_threads, W)
    W_lanes = [W_grad, *np.empty((n_lanes - 1, *W.shape), W.dtype)]
    b_lanes = [b_grad, *np.empty((n_lanes - 1, *b.shape), W.dtype)]

    def run(lane, slot):
        arrays = z[slot], stats[slot], out, X_grad, W_lanes[lane], b_lanes[lane]
        kernels.rows_loss_grad(bounds[lane], bounds[lane + 1], X, W, b, target, weights, settings, *arrays)

    run_tasks(run, n_lanes, n_threads)
    _add_lanes(W_lanes, n_threads)
    _add_lanes(b_lanes, 1)


def _add_lanes(lanes, n_threads):
    """Add all others to the first, in their order."""
    bounds = _bounds(len(lanes[0]), min(-(-lanes[0].size // 65536), _MAX_LANES) if len(lanes) > 1 else 0)

    def run(part, slot):
        span = slice(bounds[part], bounds[part + 1])
        for lane in lanes[1:]:
            lanes[0][span] += lane[span]

    run_tasks(run, len(bounds) - 1, n_threads)


class _Panels:
    """Blocks of rows against panels of classes: a sweep for the log-sum-exp, then one for the gradients.

    The first sweep's exponentials are kept for the second while the memory for them lasts, and computed again beyond.
    """

    def __init__(self, X, W, b, target, weights, settings, n_threads):
        self.X, self.W, self.b, self.target = X, W, b, target
        self.weights, self.settings, self.n_threads = weights, settings, n_threads
        n_classes, n_features = W.shape
        kept_rows = _STORED_BYTES // (n_classes * W.itemsize)
        self.is_kept = kept_rows >= 32
        self.n_rows = min(kept_rows if self.is_kept else _PANEL_ROWS, _PANEL_ROWS, len(X))
        least = max(min(_LEAST_PANEL // n_features, 256), 1)
        width = max(min(_TILE_BYTES // (self.n_rows * W.itemsize), -(-n_classes // _MAX_LANES)), least)
        bounds = _bounds(n_classes, -(-n_classes // width))
        self.panels = [slice(*pair) for pair in itertools.pairwise(bounds)]
        self.stats = np.empty((len(self.panels), 4, self.n_rows), W.dtype)
        self.joined = np.empty((4, self.n_rows), W.dtype)

    def blocks(self):
        """Go from one block of rows to the next."""
        for first in range(0, len(self.X), self.n_rows):
            self.rows = first, min(first + self.n_rows, len(self.X))
            yield

    def allocate(self, n_tiles):
        width = max(panel.stop - panel.start for panel in self.panels)
        self.tiles = np.empty((n_tiles, self.n_rows, width), self.W.dtype)

    def forward(self, p, tile):
        """Exponentials of panel ``p`` for the rows of this block."""
        panel = self.panels[p]
        arrays = self.X, self.W[panel], self.b[panel], self.target, self.settings, self.tiles[tile], self.stats[p]
        kernels.panel_forward(*self.rows, panel.start, *arrays)

    def backward(self, p, tile, carry, X_grad, W_grad, b_grad):
        """Add what panel ``p`` has to the gradients; what ``X_grad`` holds is taken ``carry`` times."""
        panel = self.panels[p]
        if not self.is_kept:
            self.forward(p, tile)
            self.stats[p, 3] = self.joined[3]
        problem = self.X, self.W[panel], self.target, self.weights, self.settings, self.tiles[tile], self.stats[p]
        kernels.panel_backward(*self.rows, panel.start, *problem, carry, X_grad, W_grad[panel], b_grad[panel])

    def join(self, out):
        kernels.join_panels(*self.rows, self.weights, self.stats, self.joined, out)

    def loss(self, out):
        self.allocate(min(self.n_threads, len(self.panels)))
        for _ in self.blocks():
            run_tasks(self.forward, len(self.panels), self.n_threads)
            self.join(out)

    def loss_grad(self, out, X_grad, W_grad, b_grad):
        W_grad[...], b_grad[...] = 0, 0
        self.allocate(len(self.panels) if self.is_kept else min(self.n_threads, len(self.panels)))
        n_lanes = _lanes(len(self.panels), self.n_rows * self.X.shape[1] * self.W.itemsize)
        bounds = _bounds(len(self.panels), n_lanes)
        X_lanes = np.empty((n_lanes, self.n_rows, self.X.shape[1]), self.W.dtype)

        def forward(p, slot):
            self.forward(p, p if self.is_kept else slot)

        def backward(lane, slot):
            for p in range(bounds[lane], bounds[lane + 1]):
                carry = float(p > bounds[lane])
                self.backward(p, p if self.is_kept else slot, carry, X_lanes[lane], W_grad, b_grad)

        def add_up(part, slot):
            first, last = self.rows
            begin, end = part * _ADDED_ROWS, min((part + 1) * _ADDED_ROWS, last - first)
            np.add.reduce(X_lanes[:, begin:end], axis=0, out=X_grad[first + begin : first + end])

        for _ in self.blocks():
            run_tasks(forward, len(self.panels), self.n_threads)
            self.join(out)
            run_tasks(backward, n_lanes, self.n_threads)
            if len(X_grad):
                run_tasks(add_up, -(-(self.rows[1] - self.rows[0]) // _ADDED_ROWS), self.n_threads)


def csc_spans(X, n_features, n_classes):
    """Rows in runs whose logits, and whose entries, stay within the memory for them: (first, last, CSC of the run).

    A CSC is what lets the gradient of the weights be summed without two threads meeting: a feature each.
    """
    for first, last in _spans(X, n_classes):
        begin, end = X.indptr[first], X.indptr[last]
        arrays = X.data[begin:end], X.indices[begin:end], X.indptr[first : last + 1] - begin
        columns = csr_array(arrays, shape=(last - first, n_features)).tocsc()
        yield first, last, CSR(columns.indptr.astype(np.int64), columns.indices.astype(np.int64), columns.data)


def _spans(X, n_classes):
    """Rows in runs whose logits, and whose entries in CSC, stay within the memory for them."""
    n_rows = len(X.indptr) - 1
    by_logits = max(_STORED_BYTES // (n_classes * X.data.itemsize), 1)
    first = 0
    while first < n_rows:
        by_entries = int(np.searchsorted(X.indptr, X.indptr[first] + _SPAN_ENTRIES, side="right")) - 1
        last = min(max(min(first + by_logits, by_entries), first + 1), n_rows)
        yield first, last
        first = last


def _even_runs(indptr, first, last, n_classes):
    """Cut rows first..last into runs of about equal work, each worth handing over."""
    work = (indptr[first : last + 1] - indptr[first] + np.arange(last - first + 1)) * n_classes
    n_runs = min(work[-1] // _LEAST_WORK + 1, 2 * _MAX_LANES)
    inner = np.searchsorted(work, work[-1] * np.arange(1, n_runs) / n_runs)
    return np.unique([first, *(first + inner), last]).tolist()


class _Span:
    """A run of CSR rows with their logits; each method is one sweep over them."""

    def __init__(self, first, last, X, b, target, weights, settings, n_threads):
        self.first, self.X, self.b, self.n_threads = first, X, b, n_threads
        self.target, self.weights, self.settings = target, weights, settings
        self.z = np.empty((last - first, len(b)), X.data.dtype)
        self.stats = np.empty((4, last - first), X.data.dtype)
        self.runs = _even_runs(X.indptr, first, last, len(b))

    def sweep(self, kernel, *args):
        """``kernel(start, stop, first, *args)`` on each run of rows."""
        runs, first = self.runs, self.first
        run_tasks(lambda part, _: kernel(runs[part], runs[part + 1], first, *args), len(runs) - 1, self.n_threads)

    def loss(self, W, out):
        for first_class, panel in _panels_of(W):
            self.sweep(kernels.csr_logits, self.X, panel, first_class, self.settings, self.z)
        self.sweep(kernels.csr_losses, self.b, self.target, self.weights, self.settings, self.z, self.stats, out)

    def residual(self):
        self.sweep(kernels.csr_residual, self.target, self.weights, self.settings, self.z, self.stats)

    def entry_grad(self, W, X_grad):
        for first_class, panel in _panels_of(W):
            self.sweep(kernels.csr_entry_grad, self.X, panel, first_class, self.settings, self.z, X_grad)

    def weight_grad(self, columns, W_grad):
        runs = _even_runs(columns.indptr, 0, len(W_grad), len(self.b))
        args = columns, self.z, self.settings, self.first == 0, W_grad
        kernel = kernels.csc_weight_grad
        run_tasks(lambda part, _: kernel(runs[part], runs[part + 1], *args), len(runs) - 1, self.n_threads)


def _panels_of(W):
    """The weights (d, C) by panels of classes: one, or copies a panel at a time where ``W`` lies class by class."""
    if W.flags.c_contiguous or W.nbytes <= _COPIED_BYTES:
        yield 0, np.ascontiguousarray(W)
        return
    width = max(_COPIED_BYTES // (W.shape[0] * W.itemsize), 1)
    for first in range(0, W.shape[1], width):
        yield first, np.ascontiguousarray(W[:, first : first + width])


def _csr_loss(X, W, b, *problem):
    *problem, out = problem
    for span in _spans(X, len(b)):
        _Span(*span, X, b, *problem).loss(W, out)


def _csr_loss_grad(X, W, b, target, weights, settings, n_threads, out, X_grad, W_grad, b_grad, spans):
    b_grad[...] = 0
    for first, last, columns in spans or csc_spans(X, len(W), len(b)):
        span = _Span(first, last, X, b, target, weights, settings, n_threads)
        span.loss(W, out)
        span.residual()
        if len(X_grad):
            span.entry_grad(W, X_grad)
        span.weight_grad(columns, W_grad)
        b_grad += span.z.sum(axis=0)
