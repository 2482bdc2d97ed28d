"""Checks of sparse input: a broken index is an out-of-bounds access in any compiled loop, SciPy's own included."""

from copy import copy
from itertools import chain

import numpy as np
from scipy.sparse import csr_array, issparse

from fastml.functional._validate import canonical, check_finite


def check_structure(X, name="X"):
    """Raise ValueError where the indices of a sparse ``X`` do not fit its shape; dense input passes."""
    if not issparse(X):
        return
    try:
        if X.format == "coo":
            if any(len(coordinates) != len(X.data) for coordinates in X.coords):
                raise ValueError("coordinates and data differ in length")
            for axis, coordinates in enumerate(X.coords):
                _check_range(coordinates, X.shape[axis], axis)
        elif X.format == "lil":
            if any(len(row) != len(values) for row, values in zip(X.rows, X.data, strict=True)):
                raise ValueError("rows and data differ in length")
            _check_range(np.fromiter(chain.from_iterable(X.rows), np.int64), X.shape[1], 1)
        elif hasattr(X, "check_format"):
            if X.indices.dtype.kind not in "iu" or X.indptr.dtype.kind not in "iu":
                raise ValueError("indices and indptr must be integers")
            copy(X).check_format(full_check=True)  # it casts and trims the arrays of what it checks
    except ValueError as error:
        raise ValueError(f"{name} is a broken sparse {X.format} of shape {X.shape}: {error}. Build it anew.") from error


def _check_range(coordinates, size, axis):
    if len(coordinates) and not 0 <= coordinates.min() <= coordinates.max() < size:
        raise ValueError(f"coordinates of axis {axis} are not all in 0..{size - 1}")


def canonical_csr(X):
    """CSR with sorted indices, without duplicates, of arrays as kernels take them; for reading only.

    What is sorted already may be the caller's memory. The rest is copied first: SciPy sorts in place, which would
    permute the caller's data where the indices had to be copied to int64.
    """
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    data = canonical(X.data, X.data.dtype)
    indices, indptr = canonical(X.indices, np.int64), canonical(X.indptr, np.int64)
    result = csr_array(X.shape, dtype=data.dtype)
    result.data, result.indices, result.indptr = data, indices, indptr
    return result


def check_csr(X, name="X"):
    """Any SciPy sparse matrix as a valid CSR of finite float32 or (everything else) float64."""
    check_structure(X, name)
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"{name}: expected a matrix with at least one row and one column, got shape {X.shape}.")
    if X.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers, got dtype {X.dtype}; convert it to float64 first.")
    X = X.tocsr()
    X = X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)
    check_finite(X.data, name)
    return canonical_csr(X)
