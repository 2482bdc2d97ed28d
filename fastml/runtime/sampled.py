"""How losses of sampled candidates run: only the rows of classes that occur are read, and have a gradient.

Sampled softmax takes two sweeps over each block of rows. The first goes by tiles of rows and leaves the gradient of the
logits, the second goes by runs of classes, and each class is summed by one task. Tiles, blocks and runs depend on the
shape alone: the same bits on one thread and on sixteen. Arguments are already valid, and of one dtype.
"""

from typing import NamedTuple

import numpy as np

from fastml.kernels import sampled as kernels
from fastml.runtime._blas_limit import blas_limited
from fastml.runtime._threads import run_tasks

_STORED_BYTES = 32 << 20  # the gradient of logits that is kept between the two sweeps over a block
_TILE_BYTES = 1 << 20  # a tile of logits: it stays in its core's L2
_TILE_ROWS = 256
_LEAST_ROWS = 16  # fewer would leave BLAS too little to do
_LEAST_CLASSES = 128
_MAX_RUNS = 16
_BLOCK = 1 << 16  # numbers of a block of rows with negatives of their own


class Drawn(NamedTuple):
    """Which classes occur in a batch, each once.

    ``classes`` (u,) begins with the drawn ones in ascending order, ``counts`` (c,) tells how often each was; the
    targets that were not drawn follow. ``position`` (n,) is where in ``classes`` each row's target is.
    """

    classes: np.ndarray
    counts: np.ndarray
    position: np.ndarray


def drawn(target, negatives):
    """The classes of labels (n,) and shared negatives (m,), repeats allowed."""
    columns, counts = np.unique(negatives, return_counts=True)
    position = np.searchsorted(columns, target)
    is_new = columns[np.minimum(position, len(columns) - 1)] != target
    others, new_position = np.unique(target[is_new], return_inverse=True)
    position[is_new] = len(columns) + new_position
    return Drawn(np.concatenate([columns, others]), counts, position)


def gather(occurring, W, b, log_q, masks_hits, dtype, features=None):
    """Candidates as kernels take them, from tables of all classes; ``b`` and ``log_q`` may be None.

    With ``features``, those columns of ``W``.
    """
    classes, counts, position = occurring
    shift = np.zeros(len(classes), dtype)
    if b is not None:
        shift += b[classes]
    if log_q is not None:
        shift -= log_q[classes].astype(dtype, copy=False)
    column_shift = shift[: len(counts)] + np.log(counts).astype(dtype)
    rows = W.take(classes, axis=0) if features is None else W[np.ix_(classes, features)]
    rows = rows.astype(dtype, copy=False)
    return kernels.Candidates(rows, shift, column_shift, position, masks_hits)


def _tile_rows(n_rows, n_columns, itemsize):
    """Rows of a tile of logits; two tiles at least, as there may be two threads."""
    fitting = min(_TILE_BYTES // (n_columns * itemsize), _TILE_ROWS, -(-n_rows // 4))
    return max(fitting, _LEAST_ROWS)


def softmax_loss(X, candidates, weight, n_threads):
    """Losses (n,) of sampled softmax cross-entropy."""
    n_columns, loss = len(candidates.column_shift), np.empty(len(X), X.dtype)
    rows = _tile_rows(len(X), n_columns, X.itemsize)
    n_tiles = -(-len(X) // rows)
    z = np.empty((min(n_tiles, n_threads), rows, n_columns), X.dtype)

    def run(tile, slot):
        span = tile * rows, min((tile + 1) * rows, len(X))
        kernels.softmax_loss(*span, X, candidates, weight, z[slot], loss)

    with blas_limited():
        run_tasks(run, n_tiles, n_threads)
    return loss


def softmax_loss_grad(X, candidates, weight, n_threads, X_grad, W_grad, b_grad):
    """Losses (n,); fills ``W_grad`` (u, d), ``b_grad`` (u,) of the candidates, and ``X_grad`` unless it has no rows."""
    n_columns, n_classes = len(candidates.column_shift), len(candidates.W)
    rows = _tile_rows(len(X), n_columns, X.itemsize)
    block = max(min(_STORED_BYTES // (n_columns * X.itemsize), len(X)) // rows, 1) * rows
    z, share, loss = (
        np.empty((min(block, len(X)), n_columns), X.dtype),
        np.empty(len(X), X.dtype),
        np.empty_like(weight),
    )
    n_runs = min(-(-n_classes // _LEAST_CLASSES), _MAX_RUNS)
    with blas_limited():
        for first in range(0, len(X), block):
            last = min(first + block, len(X))

            def logits_grad(tile, slot, first=first, last=last):
                span = first + tile * rows, min(first + (tile + 1) * rows, last)
                kernels.softmax_loss_grad(*span, first, X, candidates, weight, z, share, loss, X_grad)

            def class_grad(run, slot, first=first, last=last):
                span = n_classes * run // n_runs, n_classes * (run + 1) // n_runs
                kernels.class_grad(*span, first, last, X, candidates.position, z, share, W_grad, b_grad)

            run_tasks(logits_grad, -(-(last - first) // rows), n_threads)
            run_tasks(class_grad, n_runs, n_threads)
    return loss


def negative_sampling(queries, keys, negatives, weight, n_threads, grads=None):
    """Losses (n,) of rows with negatives (n, m, d) of their own; fills ``grads``, a tuple in the three's shapes."""
    n, n_negatives, _ = negatives.shape
    rows = max(_BLOCK // negatives[0].size, 1)
    n_blocks = -(-n // rows)
    z, loss = np.empty((min(n_blocks, n_threads), n_negatives), queries.dtype), np.empty_like(weight)

    def run(block, slot):
        span = block * rows, min((block + 1) * rows, n)
        arrays = queries, keys, negatives, weight, z[slot], loss
        if grads is None:
            kernels.negative_sampling(*span, *arrays)
        else:
            kernels.negative_sampling_grad(*span, *arrays, grads)

    run_tasks(run, n_blocks, n_threads)
    return loss
