"""Loops over one contiguous row, for kernels to be made of."""

from fastml.kernels._jit import point
from fastml.kernels._math import exp


# Assigning to a slice would compile NumPy's broadcasting, error messages and all: half a second each.
@point
def fill(row, value):
    """row = value."""
    for j in range(row.shape[0]):
        row[j] = value


@point
def copy(row, other):
    """row = other."""
    for j in range(row.shape[0]):
        row[j] = other[j]


@point
def add(row, other):
    """row += other."""
    for j in range(row.shape[0]):
        row[j] += other[j]


@point
def add_scaled(row, factor, other):
    """row += factor * other."""
    for j in range(row.shape[0]):
        row[j] += factor * other[j]


@point
def scale(row, factor):
    """row *= factor."""
    for j in range(row.shape[0]):
        row[j] *= factor


@point
def scale_shift(row, factor, shift):
    """row = factor * row + shift."""
    for j in range(row.shape[0]):
        row[j] = factor * row[j] + shift


@point
def total(row):
    """Sum of the row."""
    result = row.dtype.type(0)
    for j in range(row.shape[0]):
        result += row[j]
    return result


@point
def dot(row, other):
    """Scalar product of two rows."""
    result = row.dtype.type(0)
    for j in range(row.shape[0]):
        result += row[j] * other[j]
    return result


@point
def exp_shifted(row, top):
    """row = exp(row - top); returns the sum."""
    result = row.dtype.type(0)
    for j in range(row.shape[0]):
        value = exp(row[j] - top)
        row[j] = value
        result += value
    return result
