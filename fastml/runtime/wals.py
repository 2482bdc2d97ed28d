"""How half-steps of WALS run: rows sorted by length, in tasks of about equal work, on turned factors.

The Gramian of the other side enters every row's system, and its product with a row costs d^2. So all factors are
turned into its eigenvectors first, as one matrix product: there it is diagonal, and its product costs d. The new
factors are turned back. Vectors that begin at a multiple of 64 bytes are read twice as fast: turned factors do.
"""

from typing import NamedTuple

import numpy as np

from fastml.kernels import wals as kernels
from fastml.kernels._tiles import EIGHT, LANES, STRIP
from fastml.runtime._blas_limit import blas_limited
from fastml.runtime._threads import run_tasks

_N_TASKS = 128
_ROW_COST = 16  # entries that take as long as what each row costs besides
_TURNED_ROWS = 256
_MAX_LANES = 16


class SortedRows(NamedTuple):
    """The stored entries row by row, longest first, and where tasks of about equal work begin and end."""

    rows: kernels.Rows
    bounds: np.ndarray


def aligned(shape, dtype):
    """Zeros that begin at a multiple of 64 bytes."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def padded(matrix):
    """A copy as kernels take factors: aligned, with columns of zeros up to a multiple of LANES."""
    result = aligned((len(matrix), -(-matrix.shape[1] // LANES) * LANES), matrix.dtype)
    result[:, : matrix.shape[1]] = matrix
    return result


def sort_rows(indptr, indices, weight, target):
    """The rows of a CSR matrix in the order of their work; arrays as kernels take them."""
    lengths = np.diff(indptr)
    order = np.argsort(-lengths, kind="stable")
    work = np.cumsum(lengths[order] + _ROW_COST)
    shares = work[-1] * np.arange(1, _N_TASKS) // _N_TASKS
    bounds = np.unique([0, *np.searchsorted(work, shares), len(lengths)])
    return SortedRows(kernels.Rows(order, indptr, indices, weight, target), bounds)


def gramian(factors, n_threads):
    """``factors.T @ factors`` in double precision."""
    n_rows = len(factors)
    n_lanes = max(min(-(-n_rows // 1024), _MAX_LANES), 1)
    bounds, lanes = [n_rows * lane // n_lanes for lane in range(n_lanes + 1)], [None] * n_lanes

    def run(lane, slot):
        part = factors[bounds[lane] : bounds[lane + 1]]
        lanes[lane] = part.T @ part

    with blas_limited():
        run_tasks(run, n_lanes, n_threads)
    return np.sum(lanes, axis=0, dtype=np.float64)


def _turned(factors, basis, out, n_threads):
    """``out = factors @ basis``, always so many rows at once: what BLAS does to a row depends on their number."""

    def run(block, slot):
        rows = slice(block * _TURNED_ROWS, (block + 1) * _TURNED_ROWS)
        part = factors[rows]
        if len(part) == _TURNED_ROWS:
            np.matmul(part, basis, out=out[rows])
        else:
            whole = np.zeros((_TURNED_ROWS, part.shape[1]), part.dtype)
            whole[: len(part)] = part
            out[rows] = (whole @ basis)[: len(part)]

    run_tasks(run, -(-len(factors) // _TURNED_ROWS), n_threads)
    return out


class Side(NamedTuple):
    """One side's rows, their ridge (n_rows,), and how to solve for them."""

    sorted_rows: SortedRows
    ridge: np.ndarray
    unobserved_weight: float
    blocks: np.ndarray | None  # ranges of factors (n, 2), or None for conjugate gradient
    n_steps: int = 0


def half_step(side, h, w, n_threads, loss=None, known=None):
    """New factors (n_rows, f) of one side, from where ``w`` is, given the other side's ``h``.

    ``loss`` (n_rows,) in double precision takes the weighted squared errors of the rows' entries. ``known`` is the
    Gramian of ``h``, if the caller has it.

    Raises
    ------
    ValueError
        If the system of a row is singular.
    """
    loss = np.empty(0) if loss is None else loss
    ridge = side.ridge[np.diff(side.sorted_rows.rows.indptr) > 0].min(initial=np.inf)
    with blas_limited():
        if side.unobserved_weight == 0:
            if side.blocks is None and ridge == 0:
                raise ValueError(_singular(ridge))
            diagonal = _diagonal(np.zeros(h.shape[1]), h.dtype)
            out = _begin(side, w, padded)
            out = _solved(side, kernels.System(padded(h), diagonal, side.ridge), out, loss, n_threads)
            return np.ascontiguousarray(out[:, : h.shape[1]])
        values, vectors = np.linalg.eigh(gramian(h, n_threads) if known is None else known)
        tiny = len(values) * np.finfo(h.dtype).eps * values[-1]
        # What is left of a zero eigenvalue is noise, which the pivots of turned factors cannot tell from small ones.
        if values[0] <= tiny and ridge <= side.unobserved_weight * np.finfo(h.dtype).eps * tiny:
            raise ValueError(_singular(ridge))
        basis = padded(vectors.astype(h.dtype))

        def turn(factors):
            return _turned(factors, basis, aligned((len(factors), basis.shape[1]), h.dtype), n_threads)

        system = kernels.System(turn(h), _diagonal(side.unobserved_weight * values, h.dtype), side.ridge)
        out = _solved(side, system, _begin(side, w, turn), loss, n_threads)
        return _turned(out, basis.T, np.empty_like(w), n_threads)


def _begin(side, w, prepare):
    """Where the rows begin: an exact solution may begin anywhere, and at 0 there are no products to subtract."""
    is_exact = side.blocks is not None and len(side.blocks) == 1
    return padded(np.zeros_like(w)) if is_exact else prepare(w)


def _diagonal(values, dtype):
    """As kernels take it: ones for the added columns, whose systems would be singular otherwise."""
    result = np.ones(-(-len(values) // LANES) * LANES, dtype)
    result[: len(values)] = np.maximum(values, 0)
    return result


def _solved(side, system, out, loss, n_threads):
    """The rows' new factors, in the place of the old ones."""
    rows, bounds = side.sorted_rows
    n_threads, n_tasks = min(n_threads, len(bounds) - 1), len(bounds) - 1
    scratch, is_regular = [_scratch(side, out) for _ in range(n_threads)], np.ones(n_tasks, bool)

    def run(task, slot):
        span, arrays = (bounds[task], bounds[task + 1]), (out, loss, scratch[slot])
        if side.blocks is None:
            kernels.cg_rows(*span, rows, system, side.n_steps, *arrays)
        elif is_regular.all():
            is_regular[task] = kernels.block_rows(*span, rows, system, side.blocks, *arrays)

    run_tasks(run, n_tasks, n_threads)
    if not is_regular.all():
        raise ValueError(_singular(side.ridge[np.diff(rows.indptr) > 0].min()))
    return out


def _singular(ridge):
    cure = "above 0" if ridge == 0 else "or, if X is float32, pass float64"
    return f"regularization is too small: the system of a row is singular to working precision. Raise it {cure}."


def _scratch(side, out):
    """For one thread."""
    blocks, dtype = np.zeros((1, 2), int) if side.blocks is None else side.blocks, out.dtype
    width = int((-(-blocks[:, 1] // LANES) * LANES - blocks[:, 0] // LANES * LANES).max())
    longest = int(np.diff(side.sorted_rows.rows.indptr).max())
    return kernels.Scratch(
        vectors=aligned((5, out.shape[1]), dtype),
        ids=np.zeros(EIGHT, np.int64),
        eight=np.zeros((3, EIGHT), dtype),
        residual=np.zeros(longest + EIGHT, dtype),
        gathered=aligned((kernels.BLOCK, width), dtype),
        gain=np.zeros(kernels.BLOCK, dtype),
        normal=aligned((width, width), dtype),
        corner=np.zeros((STRIP, STRIP), dtype),
    )
