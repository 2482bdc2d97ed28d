"""Half-steps of weighted alternating least squares: the factors of each row, given those of the other side.

A row with the stored entries S, weights c and targets t minimises over its factors w

    sum_S c (t - w.h)^2 + sum_j diagonal_j w_j^2 + ridge |w|^2

where h are the factors of the other side. ``diagonal`` is what pairs that are not stored cost: ``unobserved_weight``
times the Gramian of all h, which the caller made diagonal by turning the factors into its eigenvectors. An empty row's
factors are 0. ``block_rows`` solves for one block of factors after the other with Cholesky's method, and carries the
residual of each entry along (Rendle, Krichene, Zhang & Koren, *iALS++*, 2021); with one block that is the exact
solution. ``cg_rows`` takes a few steps of conjugate gradient from where the row was (Takács, Pilászy & Tikk, 2011),
preconditioned by the diagonal.

Factors are (n, d) with d a multiple of LANES; columns that were added for it are 0 and stay 0. ``loss`` (n_rows,) takes
sum_S c (t - w.h)^2, unless it has no rows.
"""

from math import sqrt
from typing import NamedTuple

import numpy as np

from fastml.kernels._cholesky import factor, solve
from fastml.kernels._jit import uncounted_kernel, uncounted_point
from fastml.kernels._rows import add, copy, dot, fill
from fastml.kernels._tiles import (
    EIGHT,
    LANES,
    STRIP,
    add_outer,
    add_residuals,
    add_strip,
    dot_eight,
    put_outer,
    put_scaled,
)

BLOCK = 64  # entries gathered at a time


class Rows(NamedTuple):
    """Stored entries row by row (CSR), and the order in which rows are taken; int64, factors' dtype."""

    order: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    weight: np.ndarray
    target: np.ndarray


class System(NamedTuple):
    """The other side's factors (n, d), the diagonal (d,) and the ridge (n_rows,)."""

    h: np.ndarray
    diagonal: np.ndarray
    ridge: np.ndarray


class Scratch(NamedTuple):
    """Of one thread; ``n`` is the widest block and the columns that fill it up to vectors."""

    vectors: np.ndarray  # (5, d)
    ids: np.ndarray  # (EIGHT,) int64
    eight: np.ndarray  # (3, EIGHT)
    residual: np.ndarray  # (longest row + EIGHT,)
    gathered: np.ndarray  # (BLOCK, n)
    gain: np.ndarray  # (BLOCK,)
    normal: np.ndarray  # (n, n)
    corner: np.ndarray  # (STRIP, STRIP)


@uncounted_point
def _last_few(at, end, rows, scratch):
    """The entries at..end, filled up to eight with entries of weight 0."""
    ids, weight, target = scratch.ids, scratch.eight[0], scratch.eight[1]
    for r in range(EIGHT):
        k = min(at + r, end - 1)
        ids[r], target[r] = rows.indices[k], rows.target[k]
        weight[r] = rows.weight[k] if at + r < end else 0
    return ids, weight, target


@uncounted_point
def _add_all_residuals(begin, end, kept, rows, h, w, out, scratch):
    """out += sum c (kept t - w.h) h over the entries begin..end."""
    whole = end - (end - begin) % EIGHT
    for at in range(begin, whole, EIGHT):
        add_residuals(at, (rows.indices, rows.weight, rows.target), kept, h, w, out)
    if whole < end:
        add_residuals(0, _last_few(whole, end, rows, scratch), kept, h, w, out)


@uncounted_point
def _subtract_dots(begin, end, rows, h, w, residual, scratch):
    """residual -= w.h, entry by entry; what lies behind the last one changes too."""
    dots = scratch.eight[2]
    for at in range(begin, end, EIGHT):
        if at + EIGHT <= end:
            dot_eight(at, rows.indices, h, w, dots)
        else:
            dot_eight(0, _last_few(at, end, rows, scratch)[0], h, w, dots)
        for r in range(EIGHT):
            residual[at - begin + r] -= dots[r]


@uncounted_point
def _residuals(begin, end, rows, h, w, scratch):
    """t - w.h of each entry."""
    residual = scratch.residual
    for k in range(end - begin):
        residual[k] = rows.target[begin + k]
    if dot(w, w) > 0:
        _subtract_dots(begin, end, rows, h, w, residual, scratch)


@uncounted_point
def _loss(begin, end, rows, scratch):
    total = 0.0
    for k in range(end - begin):
        total += rows.weight[begin + k] * scratch.residual[k] ** 2
    return total


@uncounted_point
def _gather(at, count, rows, h, residual, gathered, gain):
    """Factors and residuals of some entries, times the square roots of their weights; zeros up to a whole strip."""
    for r in range(count):
        root = sqrt(rows.weight[at + r])
        put_scaled(h[rows.indices[at + r]], root, gathered[r])
        gain[r] = root * residual[r]
    for r in range(count, min(count + STRIP, BLOCK)):
        gain[r] = 0


@uncounted_point
def _add_gathered(begin, end, rows, h, normal, right, scratch):
    """normal = sum c h h', its upper triangle; right += sum c residual h."""
    gathered, gain, width = scratch.gathered[:, : len(right)], scratch.gain, len(right)
    for at in range(begin, end, BLOCK):
        count = min(end - at, BLOCK)
        _gather(at, count, rows, h, scratch.residual[at - begin :], gathered, gain)
        for row in range(0, width, STRIP):
            if at == begin:
                put_outer(count, gathered, row, normal)
            else:
                add_outer(count, gathered, row, normal)
        for first in range(0, count, STRIP):
            add_strip(gathered[first : first + STRIP], gain[first : first + STRIP], right)


@uncounted_point
def _hold(normal, right, start, stop):
    """Hold the unknowns outside of start..stop where they are."""
    for j in range(len(right)):
        if j < start or j >= stop:
            for i in range(j):
                normal[i, j] = 0
            for i in range(j, len(right)):
                normal[j, i] = 0
            normal[j, j], right[j] = 1, 0


@uncounted_point
def _correct(begin, end, block, rows, h, diagonal, ridge, w, scratch):
    """Solve for the factors of one block, given the others: to ``scratch.vectors[2]``; False if it is singular."""
    first, last = block[0] // LANES * LANES, -(-block[1] // LANES) * LANES
    normal = scratch.normal[: last - first, : last - first]
    right, change = scratch.vectors[1][: last - first], scratch.vectors[2][: last - first]
    floors = scratch.vectors[3][: last - first]
    for j in range(len(right)):
        right[j] = -(diagonal[first + j] + ridge) * w[first + j]
    _add_gathered(begin, end, rows, h[:, first:last], normal, right, scratch)
    for j in range(len(right)):
        normal[j, j] += diagonal[first + j] + ridge
    _hold(normal, right, block[0] - first, block[1] - first)
    tiny = len(right) * np.finfo(h.dtype).eps
    for j in range(len(right)):
        floors[j] = tiny * normal[j, j]
    if not factor(normal, floors, scratch.corner):
        return False
    solve(normal, right, change, scratch.eight[2])
    add(w[first:last], change)
    return True


@uncounted_kernel
def block_rows(start, stop, rows, system, blocks, out, loss, scratch):
    """New factors ``out`` of the rows; ``blocks`` (n, 2) are ranges of factors. Returns whether all were regular."""
    h, w = system.h, scratch.vectors[0]
    for k in range(start, stop):
        i = rows.order[k]
        begin, end = rows.indptr[i], rows.indptr[i + 1]
        copy(w, out[i])
        _residuals(begin, end, rows, h, w, scratch)
        for b in range(len(blocks) if begin < end else 0):
            if not _correct(begin, end, blocks[b], rows, h, system.diagonal, system.ridge[i], w, scratch):
                return False
            if b + 1 < len(blocks) or len(loss):
                first, last = blocks[b, 0] // LANES * LANES, -(-blocks[b, 1] // LANES) * LANES
                change = scratch.vectors[2][: last - first]
                _subtract_dots(begin, end, rows, h[:, first:last], change, scratch.residual, scratch)
        if begin == end:
            fill(w, 0)
        copy(out[i], w)
        if len(loss):
            loss[i] = _loss(begin, end, rows, scratch)
    return True


@uncounted_point
def _start(begin, end, rows, system, ridge, vectors, scratch):
    """Residual of the normal equations, preconditioner and first direction of a row; returns their product."""
    w, r, p, _, inverse = vectors
    zero, one = w.dtype.type(0), w.dtype.type(1)
    for j in range(len(w)):
        pivot = system.diagonal[j] + ridge
        r[j] = -pivot * w[j]
        inverse[j] = one / pivot if pivot > zero else one
    _add_all_residuals(begin, end, one, rows, system.h, w, r, scratch)
    product = zero
    for j in range(len(w)):
        p[j] = inverse[j] * r[j]
        product += r[j] * p[j]
    return product


@uncounted_point
def _step(begin, end, rows, system, ridge, product, vectors, scratch):
    """One step of conjugate gradient; returns the next residual's product, 0 where there is nothing left to do."""
    w, r, p, q, inverse = vectors
    zero = w.dtype.type(0)
    for j in range(len(w)):
        q[j] = -(system.diagonal[j] + ridge) * p[j]
    _add_all_residuals(begin, end, zero, rows, system.h, p, q, scratch)
    curvature = -dot(p, q)
    if not curvature > zero:
        return zero
    length, following = product / curvature, zero
    for j in range(len(w)):
        w[j] += length * p[j]
        r[j] += length * q[j]
        following += r[j] * r[j] * inverse[j]
    turn = following / product
    for j in range(len(w)):
        p[j] = inverse[j] * r[j] + turn * p[j]
    return following


@uncounted_kernel
def cg_rows(start, stop, rows, system, n_steps, out, loss, scratch):
    """New factors ``out`` of the rows, by ``n_steps`` of conjugate gradient from where they are."""
    vectors = (scratch.vectors[0], scratch.vectors[1], scratch.vectors[2], scratch.vectors[3], scratch.vectors[4])
    w = vectors[0]
    for k in range(start, stop):
        i = rows.order[k]
        begin, end = rows.indptr[i], rows.indptr[i + 1]
        if begin == end:
            fill(w, 0)
        else:
            copy(w, out[i])
            product = _start(begin, end, rows, system, system.ridge[i], vectors, scratch)
            for _ in range(n_steps):
                if product > 0:
                    product = _step(begin, end, rows, system, system.ridge[i], product, vectors, scratch)
        copy(out[i], w)
        if len(loss):
            _residuals(begin, end, rows, system.h, w, scratch)
            loss[i] = _loss(begin, end, rows, scratch)
