"""How the linear softmax kernels run: whole rows where classes are few, panels of classes where they are many.

Both split the work by its shape alone, never by the number of threads, and add up the parts in a fixed order:
the same bits on one thread and on sixteen. ``loss`` and ``loss_grad`` take arrays that are already valid;
``weights`` (2, n) holds w and w times the sum of the target, ``settings`` (1/T, 1 - smoothing, smoothing/C).
"""

from typing import NamedTuple

import numpy as np

from scipy.sparse import csr_array

from fastml.kernels import linear_softmax as kernels
from fastml.runtime._blas_limit import blas_limited
from fastml.runtime._threads import run_tasks

_STORED_BYTES = 36 << 20  # logits kept between the two sweeps over a block of rows
_LANES_BYTES = 12 << 20  # partial gradients that are added up at the end
_TILE_BYTES = 1 << 20  # one tile of logits: it stays in its core's L2
_SMALL_PRODUCT = 800_000  # BLAS does without packing up to an m n k of a million: twice as fast where n is 10
_SPAN_ENTRIES = 500_000  # stored entries transposed at a time
_COPIED_BYTES = 8 << 20  # weights transposed at a time
_LEAST_WORK = 200_000  # multiply-adds worth handing to a thread
_MAX_LANES = 16
_PANEL_ROWS = 256


class CSR(NamedTuple):
    """The arrays of a CSR (or, transposed, of a CSC) matrix; int64 indices, float data."""

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray


def tile_rows(n_features, n_classes, itemsize):
    """Rows of a tile of whole rows: cheap for BLAS, and within L2."""
    small = _SMALL_PRODUCT // (n_features * n_classes)
    fitting = _TILE_BYTES // (n_classes * itemsize)
    return max(min(small if small >= 32 else 192, fitting, 192), 1)


def _lanes(n_parts, bytes_each):
    """How many partial sums to keep: as many as there are parts, memory and threads that might use them."""
    return max(min(n_parts, _LANES_BYTES // max(bytes_each, 1), _MAX_LANES), 1)


def _bounds(n, n_parts):
    """Limits of ``n_parts`` nearly equal runs of 0..n."""
    return [n * part // n_parts for part in range(n_parts + 1)] if n_parts else [0]


def loss(X, W, b, target, weights, settings, n_threads):
    """Losses (n,) of dense or CSR rows; ``W`` is (C, d), for CSR (d, C), there of any layout."""
    problem = X, W, settings[0] * b, target, weights, settings
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
    problem = X, W, settings[0] * b, target, weights, settings
    out = np.empty(weights.shape[1], W.dtype)
    with blas_limited():
        if isinstance(X, CSR):
            _csr_loss_grad(*problem, n_threads, out, X_grad, W_grad, b_grad, spans)
        elif 64 * len(b) * W.itemsize <= _TILE_BYTES and 4 * W.nbytes <= _LANES_BYTES:
            _rows_loss_grad(*problem, n_threads, out, X_grad, W_grad, b_grad)
        else:
            _Panels(*problem, n_threads).loss_grad(out, X_grad, W_grad, b_grad)
    b_grad *= settings[0]
    return out


def _rows_scratch(n_threads, W):
    """A tile of logits and its statistics for each thread."""
    rows = tile_rows(W.shape[1], W.shape[0], W.itemsize)
    return np.empty((n_threads, rows, W.shape[0]), W.dtype), np.empty((n_threads, 4, rows), W.dtype)


def _rows_loss(X, W, b, target, weights, settings, n_threads, out):
    z, stats = _rows_scratch(n_threads, W)
    bounds = _bounds(len(X), min(-(-len(X) // z.shape[1]), 4 * _MAX_LANES))

    def run(part, slot):
        span = bounds[part], bounds[part + 1]
        kernels.rows_loss(*span, X, W, b, target, weights, settings, z[slot], stats[slot], out)

    run_tasks(run, len(bounds) - 1, n_threads)


def _rows_loss_grad(X, W, b, target, weights, settings, n_threads, out, X_grad, W_grad, b_grad):
    z, stats = _rows_scratch(n_threads, W)
    n_lanes = _lanes(-(-len(X) // min(z.shape[1], 128)), W.nbytes)
    bounds = _bounds(len(X), n_lanes)
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
    """Blocks of rows against panels of classes: a sweep for the log-sum-exp, then one for the gradients."""

    def __init__(self, X, W, b, target, weights, settings, n_threads):
        self.X, self.W, self.b, self.target = X, W, b, target
        self.weights, self.settings, self.n_threads = weights, settings, n_threads
        n_classes, n_features = W.shape
        stored_rows = _STORED_BYTES // (n_classes * W.itemsize)
        self.is_stored = stored_rows >= 32
        self.n_rows = min(stored_rows if self.is_stored else _PANEL_ROWS, _PANEL_ROWS, len(X))
        least = min(max(65536 // n_features, 1), 256)  # narrower panels would leave BLAS too little to do
        width = max(min(_TILE_BYTES // (self.n_rows * W.itemsize), -(-n_classes // _MAX_LANES)), least)
        self.classes = _bounds(n_classes, -(-n_classes // width))
        self.n_panels = len(self.classes) - 1
        self.stats = np.empty((self.n_panels, 4, self.n_rows), W.dtype)
        self.joined = np.empty((4, self.n_rows), W.dtype)

    def tiles(self, count):
        width = max(np.diff(self.classes))
        return np.empty((count, self.n_rows, width), self.W.dtype)

    def forward(self, first, last, panel, z):
        span = slice(self.classes[panel], self.classes[panel + 1])
        stats = self.stats[panel]
        arrays = self.X, self.W[span], self.b[span], self.target, self.settings, z, stats
        kernels.panel_forward(first, last, span.start, *arrays)

    def row_blocks(self):
        for first in range(0, len(self.X), self.n_rows):
            yield first, min(first + self.n_rows, len(self.X))

    def join(self, first, last, out):
        kernels.join_panels(first, last, self.weights, self.stats, self.joined, out)

    def loss(self, out):
        z = self.tiles(self.n_threads)
        for first, last in self.row_blocks():
            run_tasks(lambda p, slot: self.forward(first, last, p, z[slot]), self.n_panels, self.n_threads)
            self.join(first, last, out)

    def loss_grad(self, out, X_grad, W_grad, b_grad):
        W_grad[...], b_grad[...] = 0, 0
        z = self.tiles(self.n_panels if self.is_stored else self.n_threads)
        n_lanes = _lanes(self.n_panels, self.n_rows * self.X.shape[1] * self.W.itemsize)
        lanes = _bounds(self.n_panels, n_lanes)
        X_lanes = np.empty((n_lanes, self.n_rows, self.X.shape[1]), self.W.dtype)

        def tile(panel, slot):
            return z[panel if self.is_stored else slot]

        for first, last in self.row_blocks():

            def forward(panel, slot):
                self.forward(first, last, panel, tile(panel, slot))

            def backward(lane, slot):
                X_lanes[lane] = 0
                for panel in range(lanes[lane], lanes[lane + 1]):
                    if not self.is_stored:
                        forward(panel, slot)
                        self.stats[panel, 3] = self.joined[3]
                    span = slice(self.classes[panel], self.classes[panel + 1])
                    arrays = self.X, self.W[span], self.target, self.weights, self.settings
                    results = X_lanes[lane], W_grad[span], b_grad[span]
                    kernels.panel_backward(
                        first, last, span.start, *arrays, tile(panel, slot), self.stats[panel], *results
                    )

            run_tasks(forward, self.n_panels, self.n_threads)
            self.join(first, last, out)
            run_tasks(backward, n_lanes, self.n_threads)
            if len(X_grad):
                np.add.reduce(X_lanes[:, : last - first], axis=0, out=X_grad[first:last])


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
    n_runs = min(work[-1] // _LEAST_WORK + 1, 4 * _MAX_LANES)
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

    def sweep(self, function):
        """``function(start, stop)`` on each run of rows."""
        run_tasks(lambda part, _: function(self.runs[part], self.runs[part + 1]), len(self.runs) - 1, self.n_threads)

    def loss(self, panels, out):
        for first_class, W in panels:
            where = self.first, self.X, W, first_class, self.settings, self.z
            self.sweep(lambda *run: kernels.csr_logits(*run, *where))  # noqa: B023 - called at once
        rest = self.target, self.weights, self.settings, self.z, self.stats, out
        self.sweep(lambda *run: kernels.csr_softmax(*run, self.first, self.b, *rest))

    def residual(self):
        rest = self.target, self.weights, self.settings, self.z, self.stats
        self.sweep(lambda *run: kernels.csr_residual(*run, self.first, *rest))

    def entry_grad(self, panels, X_grad):
        for first_class, W in panels:
            where = self.first, self.X, W, first_class, self.settings, self.z, X_grad
            self.sweep(lambda *run: kernels.csr_entry_grad(*run, *where))  # noqa: B023 - called at once

    def weight_grad(self, columns, W_grad):
        runs = _even_runs(columns.indptr, 0, len(W_grad), len(self.b))
        where = columns, self.z, self.settings, self.first == 0, W_grad
        run_tasks(
            lambda part, _: kernels.csc_weight_grad(runs[part], runs[part + 1], *where), len(runs) - 1, self.n_threads
        )


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
        _Span(*span, X, b, *problem).loss(_panels_of(W), out)


def _csr_loss_grad(X, W, b, target, weights, settings, n_threads, out, X_grad, W_grad, b_grad, spans):
    b_grad[...] = 0
    for first, last, columns in spans or csc_spans(X, len(W), len(b)):
        span = _Span(first, last, X, b, target, weights, settings, n_threads)
        span.loss(_panels_of(W), out)
        span.residual()
        if len(X_grad):
            span.entry_grad(_panels_of(W), X_grad)
        span.weight_grad(columns, W_grad)
        b_grad += span.z.sum(axis=0)
