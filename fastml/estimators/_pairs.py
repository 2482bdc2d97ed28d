"""Pairs of queries and items: their number, which items are the same, and which pairs early stopping holds out."""

import numpy as np
from scipy.sparse import issparse
from sklearn.model_selection import GroupShuffleSplit

from fastml.estimators._interactions import without_zeros


def hold_out(pairs, fraction, random_state):
    """The pairs (X, Y, ids, items or None) to train on, and those of early stopping; pairs of one id stay together."""
    ids, parts = pairs[2], []
    splitter = GroupShuffleSplit(1, test_size=fraction, random_state=random_state)
    for rows, what in zip(*splitter.split(ids, groups=ids), ("train on", "hold out"), strict=True):
        n = len(np.unique(ids[rows]))
        if n < 2:
            raise ValueError(
                f"early_stopping has {n} pair(s) or id(s) to {what}, and needs 2: change validation_fraction, or set "
                "early_stopping=False."
            )
        parts.append([None if part is None else part[rows] for part in pairs])
    return parts


def check_same_length(X, Y):
    """Raise where there are not as many items as queries."""
    if X.shape[0] != Y.shape[0]:
        raise ValueError(f"Y: expected {X.shape[0]} rows, the items of the rows of X in their order, got {Y.shape[0]}.")


def codes_of_rows(Y):
    """A number for each row, the same for equal rows."""
    codes = {}
    if issparse(Y):
        Y = without_zeros(Y)
        spans = zip(Y.indptr[:-1], Y.indptr[1:], strict=True)
        keys = (Y.indices[first:last].tobytes() + Y.data[first:last].tobytes() for first, last in spans)
    else:
        keys = (row.tobytes() for row in Y + 0)  # of -0 it makes 0
    return np.array([codes.setdefault(key, len(codes)) for key in keys])
