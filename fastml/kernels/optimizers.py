"""Optimizer updates of a range of parameters, or of rows of a table; the rules themselves are in ``_rules``."""

import numpy as np

from fastml.kernels._denormals import flush_denormals, restore
from fastml.kernels._jit import kernel, point
from fastml.kernels._rows import is_finite
from fastml.kernels._rules import coefficients, take_step

_LINE = 64  # bytes of a cache line, and of the widest store


@point
def _update(start, stop, w, g, first, second, rule, constants, factor):
    """Update w[start:stop], beginning with what lies before its first whole cache line.

    A store across two lines costs several times one within; moments are laid out as the parameters are.
    """
    lead = -(w.ctypes.data // w.itemsize + start) % (_LINE // w.itemsize)
    mode = flush_denormals()
    for part in range(2):
        end = stop if part else min(start + lead, stop)
        take_step(rule, w[start:end], g[start:end], first[start:end], second[start:end], constants, factor)
        start = end
    restore(mode)


@kernel
def update(start, stop, w, g, first, second, rule, rate, step, hyper, l1, factor):
    """Update w[start:stop] in place by ``factor`` times its gradient."""
    _update(start, stop, w, g, first, second, rule, coefficients(rule, rate, step, hyper, l1), factor)


@kernel
def checked_update(w, g, first, second, rule, rate, step, hyper):
    """Update all of ``w`` unless its gradient has a NaN or an infinity; returns whether it did."""
    if not is_finite(g):
        return False
    one = w.dtype.type(1)
    constants = coefficients(rule, rate, step, hyper, one - one)
    _update(0, w.shape[0], w, g, first, second, rule, constants, one)
    return True


@kernel
def sum_of_squares(start, stop, g, result):
    """``result`` (1,): sum of squares of g[start:stop], in double precision."""
    total, part = 0.0, g[start:stop]
    for i in range(part.shape[0]):
        value = np.float64(part[i])  # float() of a float32 is a float32 to Numba
        total += value * value
    result[0] = total


@kernel
def sum_duplicates(start, stop, block, bounds, order, grads, total, sums):
    """``total`` (u, d): sums of the rows order[bounds[k]:bounds[k + 1]] of ``grads``, in this order.

    Does rows start..stop of it, and puts the sum of their squares to ``sums`` at the block's place.
    """
    square = 0.0
    for k in range(start, stop):
        out = total[k]
        for j in range(out.shape[0]):
            out[j] = grads[order[bounds[k]], j]
        for p in range(bounds[k] + 1, bounds[k + 1]):
            row = grads[order[p]]
            for j in range(out.shape[0]):
                out[j] += row[j]
        for j in range(out.shape[0]):
            value = np.float64(out[j])
            square += value * value
    sums[start // block] = square


@kernel
def update_rows(start, stop, rows, w, total, first, second, rule, rate, step, hyper, factor):
    """Update the rows rows[start:stop] of ``w`` by ``factor`` times ``total``; unused moments have rows of no width."""
    constants = coefficients(rule, rate, step, hyper, w.dtype.type(0))
    for k in range(start, stop):
        i = rows[k]
        take_step(rule, w[i], total[k], first[i], second[i], constants, factor)
