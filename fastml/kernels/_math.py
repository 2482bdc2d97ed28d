"""Elementary functions that LLVM vectorises: point functions, branch-free, float32 and float64."""

import math

from fastml.kernels._jit import point


@point
def exp(x):
    """e to the x."""
    return math.exp(x)


@point
def log(x):
    """Natural logarithm."""
    return math.log(x)
