"""Checks of whole arrays in one pass and without a temporary of their size; what is found is told one floor above."""

import numpy as np

from fastml.kernels._jit import kernel
from fastml.kernels._rows import is_finite

NOT_FINITE, NEGATIVE, NOT_ONE = 1, 2, 3


@kernel
def non_finite(start, stop, values, found):
    """``found[0] = 1`` if ``values[start:stop]`` has a NaN or an infinity; else ``found`` (1,) stays."""
    if not is_finite(values[start:stop]):
        found[0] = 1


@kernel
def probability_faults(start, stop, target, tolerance, fault):
    """``fault`` (n,): why a row of ``target`` (n, C) is no probability distribution, or 0."""
    zero, limit = target.dtype.type(0), target.dtype.type(np.inf)
    for i in range(start, stop):
        t = target[i]
        total, n_bad, n_negative = zero, 0, 0
        for j in range(t.shape[0]):
            total += t[j]
        for j in range(t.shape[0]):
            n_bad += not abs(t[j]) < limit
        for j in range(t.shape[0]):
            n_negative += t[j] < zero
        fault[i] = 0
        if n_bad:
            fault[i] = NOT_FINITE
        elif n_negative:
            fault[i] = NEGATIVE
        elif abs(total - target.dtype.type(1)) > tolerance:
            fault[i] = NOT_ONE
