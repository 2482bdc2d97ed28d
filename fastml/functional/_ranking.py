"""Ranking metrics of binary relevance: how good a list of recommended items is, a number for each row."""

import numpy as np
from scipy.sparse import issparse

from fastml.functional._sparse import check_csr
from fastml.functional._validate import _as_array, canonical, check_count
from fastml.kernels import ranking as kernels
from fastml.runtime import run_blocks, thread_count
from fastml.runtime.ranking import find_hits

_BLOCK = 2**16  # hits: tens of microseconds


def check_interactions(value, name, n_rows, n_items=None):
    """A CSR (n_rows, n_items) as kernels take it; any number of items for None."""
    if not issparse(value):
        raise TypeError(
            f"{name}: expected a SciPy sparse matrix (n_rows, n_items), got {type(value).__name__}; "
            f"convert it with scipy.sparse.csr_array({name})."
        )
    if value.ndim != 2 or value.shape[0] != n_rows or n_items not in (None, value.shape[1]):
        expected = f"({n_rows}, {'n_items' if n_items is None else n_items})"
        raise ValueError(f"{name}: expected shape {expected}, a row for each query, got {value.shape}.")
    return check_csr(value, name)


def _check_ranked(value):
    """Ids (n, k) as int64; their range and repetitions are found with the hits."""
    ranked = _as_array(value, "ranked_ids")
    if ranked.dtype.kind not in "iu":
        raise TypeError(f"ranked_ids: expected integer ids, got dtype {ranked.dtype}; cast them to int64.")
    if ranked.ndim != 2 or ranked.size == 0:
        raise ValueError(f"ranked_ids: expected shape (n_rows, k), both at least 1, got {ranked.shape}.")
    if ranked.dtype.kind == "u":  # what int64 has no room for becomes negative, and is told
        return canonical(ranked.astype(np.int64), np.int64)
    return canonical(ranked, np.int64)


def _raise_fault(fault, ranked, n_items):
    row = int(np.argmax(fault != 0))
    if fault[row] == kernels.REPEATED:
        raise ValueError(f"ranked_ids: row {row} has an id twice; an item is ranked once.")
    bad = ranked[row][(ranked[row] < -1) | (ranked[row] >= n_items)][0]
    raise ValueError(
        f"ranked_ids: expected ids in 0..{n_items - 1}, or -1 for padding, got {bad} in row {row}; "
        "its items are the columns of relevant."
    )


def _metric(kernel, ranked_ids, relevant, k):
    ranked = _check_ranked(ranked_ids)
    n, width = ranked.shape
    k = width if k is None else check_count(k, "k")
    if k > width:
        raise ValueError(f"k: expected at most {width}, as many as ranked_ids has columns, got {k}; rank more items.")
    relevant = check_interactions(relevant, "relevant", n)
    n_threads = thread_count()
    hits, n_relevant, fault = find_hits(ranked, relevant, n_threads)
    if fault.any():
        _raise_fault(fault, ranked, relevant.shape[1])
    value = np.empty(n)
    run_blocks(kernel, n, max(_BLOCK // k, 1), n_threads, k, hits, n_relevant, value)
    return value


def ndcg(ranked_ids, relevant, *, k=None):
    """Normalised discounted cumulative gain: hits count the less, the later they come.

    With h_j = 1 where the item at rank j = 1..k is relevant, and R the number of relevant items of the row,
    ``sum_j h_j / log2(j + 1)`` over the same sum of the ideal ranking, whose first min(k, R) items are relevant.

    Parameters
    ----------
    ranked_ids : array-like of shape (n_rows, n_ranked)
        Integer ids of items, best first, as :func:`top_k` returns them. An id of -1 is padding and never a hit; all
        others are columns of ``relevant``, and differ within a row.
    relevant : sparse matrix of shape (n_rows, n_items)
        A stored entry that is not zero makes an item relevant, whatever its value. Formats other than CSR are
        converted.
    k : int, default=None
        Only the first k items of each row count. None stands for all of them.

    Returns
    -------
    ndarray of shape (n_rows,)
        In 0..1, float64; 0 for a row with nothing relevant.

    Raises
    ------
    ValueError
        If a shape does not fit, an id is out of range or twice in a row, or k is not in 1..n_ranked.
    TypeError
        If ids or k are not integers, or ``relevant`` is not sparse.

    See Also
    --------
    recall, precision, average_precision, reciprocal_rank, hit_rate

    References
    ----------
    Järvelin, Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> from fastml.functional import ndcg
    >>> relevant = csr_array([[1, 0, 0, 1], [0, 1, 0, 0]])
    >>> ndcg([[0, 1, 3], [1, 2, -1]], relevant).round(4)
    array([0.9197, 1.    ])
    """
    return _metric(kernels.ndcg, ranked_ids, relevant, k)


def recall(ranked_ids, relevant, *, k=None):
    """Share of the relevant items that are among the first k.

    The number of hits over R, the number of relevant items of the row. (Some papers divide by min(k, R).)

    Parameters
    ----------
    ranked_ids : array-like of shape (n_rows, n_ranked)
        Integer ids, best first, -1 for padding; see :func:`ndcg`.
    relevant : sparse matrix of shape (n_rows, n_items)
        Relevant items are its stored entries that are not zero.
    k : int, default=None
        Only the first k items of each row count. None stands for all of them.

    Returns
    -------
    ndarray of shape (n_rows,)
        In 0..1, float64; 0 for a row with nothing relevant.

    Raises
    ------
    ValueError, TypeError
        As :func:`ndcg`.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> from fastml.functional import recall
    >>> recall([[0, 1, 3], [1, 2, -1]], csr_array([[1, 0, 0, 1], [0, 1, 0, 0]]), k=2)
    array([0.5, 1. ])
    """
    return _metric(kernels.recall, ranked_ids, relevant, k)


def precision(ranked_ids, relevant, *, k=None):
    """Share of the first k items that are relevant.

    The number of hits over k, also where fewer than k items are ranked or relevant.

    Parameters
    ----------
    ranked_ids : array-like of shape (n_rows, n_ranked)
        Integer ids, best first, -1 for padding; see :func:`ndcg`.
    relevant : sparse matrix of shape (n_rows, n_items)
        Relevant items are its stored entries that are not zero.
    k : int, default=None
        Only the first k items of each row count. None stands for all of them.

    Returns
    -------
    ndarray of shape (n_rows,)
        In 0..1, float64; 0 for a row with nothing relevant.

    Raises
    ------
    ValueError, TypeError
        As :func:`ndcg`.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> from fastml.functional import precision
    >>> precision([[0, 1, 3], [1, 2, -1]], csr_array([[1, 0, 0, 1], [0, 1, 0, 0]]), k=2)
    array([0.5, 0.5])
    """
    return _metric(kernels.precision, ranked_ids, relevant, k)


def average_precision(ranked_ids, relevant, *, k=None):
    """Precision up to each hit, averaged over the hits there could be.

    With h_j = 1 where the item at rank j = 1..k is relevant, and R the number of relevant items of the row,
    ``sum_j h_j (h_1 + ... + h_j) / j`` over min(k, R). Its mean over rows is known as MAP.

    Parameters
    ----------
    ranked_ids : array-like of shape (n_rows, n_ranked)
        Integer ids, best first, -1 for padding; see :func:`ndcg`.
    relevant : sparse matrix of shape (n_rows, n_items)
        Relevant items are its stored entries that are not zero.
    k : int, default=None
        Only the first k items of each row count. None stands for all of them.

    Returns
    -------
    ndarray of shape (n_rows,)
        In 0..1, float64; 0 for a row with nothing relevant.

    Raises
    ------
    ValueError, TypeError
        As :func:`ndcg`.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> from fastml.functional import average_precision
    >>> average_precision([[0, 1, 3], [2, 1, -1]], csr_array([[1, 0, 0, 1], [0, 1, 0, 0]])).round(4)
    array([0.8333, 0.5   ])
    """
    return _metric(kernels.average_precision, ranked_ids, relevant, k)


def reciprocal_rank(ranked_ids, relevant, *, k=None):
    """One over the rank of the first relevant item, 0 if there is none among the first k.

    Its mean over rows is known as MRR.

    Parameters
    ----------
    ranked_ids : array-like of shape (n_rows, n_ranked)
        Integer ids, best first, -1 for padding; see :func:`ndcg`.
    relevant : sparse matrix of shape (n_rows, n_items)
        Relevant items are its stored entries that are not zero.
    k : int, default=None
        Only the first k items of each row count. None stands for all of them.

    Returns
    -------
    ndarray of shape (n_rows,)
        In 0..1, float64; 0 for a row with nothing relevant.

    Raises
    ------
    ValueError, TypeError
        As :func:`ndcg`.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> from fastml.functional import reciprocal_rank
    >>> reciprocal_rank([[1, 0, 3], [1, 2, -1]], csr_array([[1, 0, 0, 1], [0, 1, 0, 0]]))
    array([0.5, 1. ])
    """
    return _metric(kernels.reciprocal_rank, ranked_ids, relevant, k)


def hit_rate(ranked_ids, relevant, *, k=None):
    """1 if any of the first k items is relevant, 0 otherwise.

    Parameters
    ----------
    ranked_ids : array-like of shape (n_rows, n_ranked)
        Integer ids, best first, -1 for padding; see :func:`ndcg`.
    relevant : sparse matrix of shape (n_rows, n_items)
        Relevant items are its stored entries that are not zero.
    k : int, default=None
        Only the first k items of each row count. None stands for all of them.

    Returns
    -------
    ndarray of shape (n_rows,)
        0 or 1, float64; 0 for a row with nothing relevant.

    Raises
    ------
    ValueError, TypeError
        As :func:`ndcg`.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> from fastml.functional import hit_rate
    >>> hit_rate([[1, 0, 3], [0, 2, -1]], csr_array([[1, 0, 0, 1], [0, 1, 0, 0]]))
    array([1., 0.])
    """
    return _metric(kernels.hit_rate, ranked_ids, relevant, k)
