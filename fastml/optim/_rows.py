"""Gradients of some rows of a table: checked, and combined where a row comes more than once."""

import numpy as np

from fastml.functional._validate import canonical
from fastml.kernels import optimizers as kernels
from fastml.optim import _arrays
from fastml.runtime import run_blocks, thread_count

_BLOCK = 1 << 15  # parameters of a block of rows
_SMALL = 1 << 16  # parameters that one thread updates sooner than another one wakes up


class RowGradients:
    """The rows with a gradient, each once and in ascending order, and their gradients added up.

    Parameters
    ----------
    param : ndarray of shape (n_rows, n_components)
    rows, grads
        As the caller of ``update_rows`` passed them.

    Attributes
    ----------
    rows : ndarray of shape (n_unique,), int64
    total : ndarray of shape (n_unique, n_components)
        Sums over the gradients of each row, in the order in which they came.
    """

    def __init__(self, param, rows, grads):
        if param.ndim != 2:
            raise ValueError(f"param must have 2 dimensions (n_rows, n_components), got shape {param.shape}.")
        rows = _checked_rows(rows, len(param))
        grads = _arrays.checked_one("grads", grads)
        if grads.shape != (len(rows), param.shape[1]) or grads.dtype != param.dtype:
            raise ValueError(
                f"grads must have a row for each of rows and the dtype of param, shape ({len(rows)}, {param.shape[1]}) "
                f"and {param.dtype}, got {grads.shape} and {grads.dtype}."
            )
        _arrays.check_apart([param], [grads])
        order = np.argsort(rows, kind="stable")
        rows = rows[order]
        is_first = np.ones(len(rows), bool)
        np.not_equal(rows[1:], rows[:-1], out=is_first[1:])
        starts = np.flatnonzero(is_first)
        self.rows, self.total = rows[starts], np.empty((len(starts), param.shape[1]), param.dtype)
        self.parts = np.append(starts, len(rows)), order, grads
        self.block = max(_BLOCK // max(param.shape[1], 1), 1)
        self.n_threads = thread_count() if grads.size > _SMALL else 1

    def sum_of_squares(self):
        """Fill ``total``; returns the sum of its squares, in double precision."""
        sums = np.zeros(-(-len(self.rows) // self.block))
        arrays = *self.parts, self.total, sums
        run_blocks(kernels.sum_duplicates, len(self.rows), self.block, self.n_threads, self.block, *arrays)
        return sums.sum()

    def run(self, kernel, *args):
        """``kernel(start, stop, rows, *args)`` on blocks of rows."""
        run_blocks(kernel, len(self.rows), self.block, self.n_threads, self.rows, *args)


def _checked_rows(rows, n_rows):
    rows = np.asarray(rows)
    if rows.size == 0 and rows.ndim == 1:
        return np.zeros(0, np.int64)
    if rows.dtype.kind not in "iu":
        raise TypeError(f"rows must be integers, got dtype {rows.dtype}: pass rows.astype(np.int64).")
    if rows.ndim != 1:
        raise ValueError(f"rows must have 1 dimension (n_updates,), got shape {rows.shape}: pass rows.ravel().")
    if rows.min() < 0 or rows.max() >= n_rows:
        at = int(np.argmax((rows < 0) | (rows >= n_rows)))
        raise ValueError(f"rows must be in 0..{n_rows - 1}, the rows of param, got {rows[at]} at {at}.")
    return canonical(rows, np.int64)
