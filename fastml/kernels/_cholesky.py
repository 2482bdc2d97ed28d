"""Cholesky's factor of a small symmetric matrix, and the solution of its system.

A = U'U, a strip of rows at a time: the products of the rows above are subtracted, then the strip is solved. Only the
upper triangle is read; U takes its place, with the reciprocals of its diagonal.
"""

from math import sqrt

from fastml.kernels._jit import uncounted_point
from fastml.kernels._tiles import LANES, STRIP, add_strip, dot_strip, solve_strip, subtract_outer


@uncounted_point
def _factor_corner(a, row, floors, corner):
    """Factor of a strip's diagonal block to ``corner`` (STRIP, STRIP); returns whether all pivots exceed floors."""
    for i in range(STRIP):
        for j in range(i, STRIP):
            value = a[row + i, row + j]
            for k in range(i):
                value -= corner[k, i] * corner[k, j]
            if j > i:
                corner[i, j] = value * corner[i, i]
            elif value > floors[row + i]:
                corner[i, i] = 1 / sqrt(value)
            else:
                return False
    return True


@uncounted_point
def factor(a, floors, corner):
    """Factor ``a`` (n, n) in place; False, with ``a`` spoilt, where a pivot does not exceed its floor."""
    for row in range(0, a.shape[0], STRIP):
        subtract_outer(row, a, row, a)
        if not _factor_corner(a, row, floors, corner):
            return False
        solve_strip(corner, a[row : row + STRIP, row // LANES * LANES :])
        for i in range(STRIP):
            a[row + i, row + i] = corner[i, i]
    return True


@uncounted_point
def solve(u, b, x, part):
    """``x`` = the solution with right side ``b``, which is spoilt; ``part`` is (STRIP,)."""
    for row in range(0, u.shape[0], STRIP):
        for i in range(STRIP):
            value = b[row + i]
            for k in range(i):
                value += u[row + k, row + i] * part[k]
            x[row + i] = value * u[row + i, row + i]
            part[i] = -x[row + i]
        first = row // LANES * LANES
        add_strip(u[row : row + STRIP, first:], part, b[first:])
    for i in range(u.shape[0]):
        b[i], x[i] = x[i], 0
    for row in range(u.shape[0] - STRIP, -1, -STRIP):
        first = row // LANES * LANES
        dot_strip(u[row : row + STRIP, first:], x[first:], part)
        for i in range(STRIP - 1, -1, -1):
            value = b[row + i] - part[i]
            for k in range(i + 1, STRIP):
                value -= u[row + i, row + k] * x[row + k]
            x[row + i] = value * u[row + i, row + i]
