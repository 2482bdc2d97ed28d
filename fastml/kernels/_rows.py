"""Loops over one contiguous row, for kernels to be made of."""

from fastml.kernels._jit import point
from fastml.kernels._math import exp, maximum


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
def add_max(row, other):
    """row += other; returns its maximum."""
    row[0] += other[0]
    top = row[0]
    for j in range(1, row.shape[0]):
        value = row[j] + other[j]
        row[j] = value
        top = maximum(top, value)
    return top


@point
def add_scaled(row, factor, other):
    """row += factor * other."""
    for j in range(row.shape[0]):
        row[j] += factor * other[j]


@point
def add_eight(row, factor, data, indices, matrix):
    """``add_gathered`` of eight: the row is read and written once."""
    a, b, c, d = matrix[indices[0]], matrix[indices[1]], matrix[indices[2]], matrix[indices[3]]
    e, f, g, h = matrix[indices[4]], matrix[indices[5]], matrix[indices[6]], matrix[indices[7]]
    p, q, r, s = factor * data[0], factor * data[1], factor * data[2], factor * data[3]
    t, u, v, w = factor * data[4], factor * data[5], factor * data[6], factor * data[7]
    for j in range(row.shape[0]):
        low = (p * a[j] + q * b[j]) + (r * c[j] + s * d[j])
        row[j] += low + ((t * e[j] + u * f[j]) + (v * g[j] + w * h[j]))


@point
def add_gathered(row, factor, data, indices, matrix):
    """row += factor * data @ matrix[indices]."""
    whole = len(indices) - len(indices) % 8
    for k in range(0, whole, 8):
        add_eight(row, factor, data[k : k + 8], indices[k : k + 8], matrix)
    for k in range(whole, len(indices)):
        add_scaled(row, factor * data[k], matrix[indices[k]])


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
def is_finite(row):
    """Whether no entry is NaN or infinite: 0 times such a one is NaN, and sums vectorise where comparisons count."""
    zero = row.dtype.type(0)
    result = zero
    for j in range(row.shape[0]):
        result += zero * row[j]
    return result == zero


@point
def exp_shifted(row, top):
    """row = exp(row - top); returns the sum."""
    result = row.dtype.type(0)
    for j in range(row.shape[0]):
        value = exp(row[j] - top)
        row[j] = value
        result += value
    return result


@point
def first_from(ids, low, high, least):
    """The first place in ``ids[low:high]``, which are sorted, with an id of at least ``least``; or ``high``."""
    while low < high:
        middle = (low + high) // 2
        if ids[middle] < least:
            low = middle + 1
        else:
            high = middle
    return low
