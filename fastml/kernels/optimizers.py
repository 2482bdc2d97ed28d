"""Optimizer updates of a range of parameters; the rules themselves are in ``_rules``."""

import numpy as np

from fastml.kernels._jit import kernel
from fastml.kernels._rules import apply_rule


@kernel
def update(start, stop, w, g, first, second, rule, rate, step, hyper, l1, factor):
    """Update w[start:stop] in place by ``factor`` times its gradient."""
    arrays = w[start:stop], g[start:stop], first[start:stop], second[start:stop]
    apply_rule(rule, *arrays, rate, step, hyper, l1, factor)


@kernel
def sum_of_squares(start, stop, block, g, sums):
    """Sum of squares of g[start:stop], in double precision, to ``sums`` at the block's place."""
    total = 0.0
    for i in range(start, stop):
        value = np.float64(g[i])  # float() of a float32 is a float32 to Numba
        total += value * value
    sums[start // block] = total
