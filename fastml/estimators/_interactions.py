"""Interactions users x items: what is asked of ids, weights and sizes, and which entries a score holds out."""

import numpy as np
from scipy.sparse import csr_array, issparse, vstack

from fastml.functional._sparse import canonical_csr, check_csr

_WHAT_IDS_ARE = {
    "user": "an id is a row's number in the X of fit, and new rows need two dimensions, (n, n_items)",
    "item": "an id is a column's number in X",
}
_HELD_SHARE = 5  # one entry in so many is held out


def n_dimensions(value):
    """Of an array-like, sparse or dense."""
    return value.ndim if hasattr(value, "ndim") else np.ndim(value)


def as_ids(value, name, kind):
    """Integers of shape (n,), whatever they are; a single one has n = 1."""
    ids = np.asarray(value)
    if ids.size == 0 and ids.ndim == 1:
        return np.empty(0, np.int64)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integer ids of {kind}s, got {ids.dtype}; {_WHAT_IDS_ARE[kind]}.")
    if ids.ndim > 1:
        raise ValueError(f"{name}: expected one id or ids of shape (n,), got shape {ids.shape}.")
    return np.atleast_1d(ids)


def check_ids(value, n_known, name, kind):
    """Ids as int64 (n,), all of them in 0..n_known-1; a single one has n = 1."""
    ids = as_ids(value, name, kind)
    unknown = (ids < 0) | (ids >= n_known)
    if unknown.any():
        at = int(np.argmax(unknown))
        raise ValueError(
            f"{name}: unknown {kind} {ids[at]} at position {at}: X was users x items, with {kind}s 0..{n_known - 1}."
        )
    return ids.astype(np.int64)


def check_new_ids(value, n_known, n_rows):
    """Ids of known users and of new ones that follow on them, one for each of ``n_rows``; None: all are new."""
    if value is None:
        return np.arange(n_known, n_known + n_rows)
    ids = as_ids(value, "user_ids", "user")
    if len(ids) != n_rows:
        raise ValueError(f"user_ids: expected {n_rows} ids, one a row of X (users x items), got {len(ids)}.")
    new = np.unique(ids[ids >= n_known])
    if len(new) and new[-1] != n_known + len(new) - 1:
        raise ValueError(f"user_ids: new users must follow on {n_known - 1} without gaps, got {new.tolist()}.")
    check_unique_ids(ids, n_known + len(new), "user_ids", "user")
    return ids.astype(np.int64)


def check_unique_ids(value, n_known, name, kind):
    """The same, sorted, at least one and none twice."""
    ids = np.sort(check_ids(value, n_known, name, kind))
    if not len(ids):
        raise ValueError(f"{name} is empty: pass at least one {kind}, or None for all.")
    repeated = ids[1:][ids[1:] == ids[:-1]]
    if len(repeated):
        raise ValueError(f"{name}: {kind} {repeated[0]} comes more than once; pass each one once.")
    return ids


def check_weights(weights, X):
    """Weights of ratings as a CSR with the pattern and dtype of the CSR ``X``, or None."""
    if weights is None:
        return None
    if not issparse(weights):
        raise TypeError(
            f"weights: expected a sparse matrix users x items with the pattern of X, got {type(weights).__name__}."
        )
    if weights.shape != X.shape:
        raise ValueError(f"weights: expected shape {X.shape}, users x items as X, got {weights.shape}.")
    weights = check_csr(weights, "weights")
    if not (np.array_equal(weights.indptr, X.indptr) and np.array_equal(weights.indices, X.indices)):
        raise ValueError("weights: expected one for each entry that X stores (zeros too), and no others.")
    check_not_negative(weights, "weights", "weights multiply squared errors")
    weights = cast(weights, X.dtype, "weights")
    if not weights.data.any():
        raise ValueError("weights: expected at least one above 0, all of them are 0.")
    cast(weights * X, X.dtype, "weights times X")
    return weights


def check_not_negative(X, name, why):
    """Raise where a stored value of the CSR ``X`` is below 0, and say ``why`` it must not be."""
    if X.nnz and X.data.min() < 0:
        at = int(np.argmin(X.data))
        row, column = int(np.searchsorted(X.indptr, at, side="right")) - 1, X.indices[at]
        raise ValueError(f"Negative values in data: {name} has {X.data[at]} at row {row}, column {column}; {why}.")


def cast(X, dtype, name):
    """The CSR ``X`` in this dtype; its row and column sums must leave room for squares and products."""
    with np.errstate(over="ignore"):
        X = X if X.dtype == dtype else canonical_csr(X.astype(dtype))
        limit = np.sqrt(np.finfo(dtype).max)
        if np.abs(X.data).sum(dtype=np.float64) < limit:
            return X
        for axis, kind in (1, "row (a user)"), (0, "column (an item)"):
            sums = abs(X.astype(np.float64)).sum(axis=axis)
            if not sums.max() < limit:
                raise ValueError(
                    f"{name}: the values of {kind} {np.argmax(sums)} sum to {sums.max():.3g} and would overflow "
                    f"{np.dtype(dtype)} when multiplied; scale them to sums below {limit:.2g}."
                )
    return X


def without_zeros(X):
    """The CSR ``X`` without stored zeros."""
    return X if X.data.all() else _chosen(X, X.data != 0)


def replace_rows(stored, rows, ids):
    """CSR ``stored`` with ``rows`` at these ids; those from ``len(stored)`` on are appended."""
    n_rows = stored.shape[0]
    source = np.arange(max(n_rows, ids.max() + 1))
    source[ids] = n_rows + np.arange(len(ids))
    return canonical_csr(csr_array(vstack([stored, rows], format="csr"))[source])


def hold_out(X):
    """Split each row that has two entries or more: what is kept, and a fifth of it that is held out, as ones.

    Which entries is decided by a hash of the row's own columns: neither the row's position, nor other rows, nor a
    seed, nor the dtype has a say in it.
    """
    X = X[np.diff(X.indptr) >= 2]
    counts = np.diff(X.indptr)
    if not len(counts):
        raise ValueError(
            "X (users x items) has no row with two entries or more: there is nothing to hold out and score."
        )
    rows = np.repeat(np.arange(len(counts), dtype=np.uint64), counts)
    columns = _hash(X.indices.astype(np.uint64))
    keys = _hash(columns ^ np.add.reduceat(columns, X.indptr[:-1])[rows])
    order = np.argsort((rows << np.uint64(32)) | (keys >> np.uint64(32)), kind="stable")
    n_held = np.maximum(1, np.rint(counts / _HELD_SHARE))
    held = np.empty(X.nnz, bool)
    held[order] = np.arange(X.nnz) - X.indptr[rows] < n_held[rows]
    relevant = _chosen(X, held)
    relevant.data[:] = 1
    return _chosen(X, ~held), relevant


def _chosen(X, mask):
    """The entries of a CSR where ``mask`` (of its data) is true."""
    counts = np.concatenate([[0], np.cumsum(mask)])[X.indptr]
    return canonical_csr(csr_array((X.data[mask], X.indices[mask], counts), X.shape))


def _hash(number):
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014) on uint64."""
    number = number + np.uint64(0x9E3779B97F4A7C15)
    number = (number ^ (number >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    number = (number ^ (number >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return number ^ (number >> np.uint64(31))
