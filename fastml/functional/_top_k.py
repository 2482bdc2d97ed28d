"""The items with the largest inner products: the scores are never whole in memory."""

from typing import NamedTuple

import numpy as np

from fastml.functional._memory import empty
from fastml.functional._ranking import check_interactions
from fastml.functional._validate import canonical, check_count, check_floats, check_products
from fastml.runtime import ranking, thread_count


class TopK(NamedTuple):
    """Ids (n_queries, k), int64, and scores (n_queries, k), best first."""

    ids: np.ndarray
    scores: np.ndarray


def top_k(queries, items, k, *, exclude=None):
    """The k items with the largest inner product with each query, best first.

    The rows of ``queries @ items.T``, of which a tile at a time is computed and looked through: at most a few MiB per
    thread beside the result and a copy of what has to be converted, for any number of queries and items.

    Parameters
    ----------
    queries : array-like of shape (n_queries, n_features)
        Rows; float32 stays float32, everything else becomes float64.
    items : array-like of shape (n_items, n_features)
        Rows to be ranked. An id is the number of a row.
    k : int
        Number of results, at least 1; it may be larger than the number of items.
    exclude : sparse matrix of shape (n_queries, n_items), default=None
        Every stored entry, whatever its value and be it a zero, is an item that is not returned for that query.
        Formats other than CSR are converted.

    Returns
    -------
    ids : ndarray of shape (n_queries, k)
        Of dtype int64; at equal scores the lower id comes first. Where fewer than k items are left, the rest is -1.
    scores : ndarray of shape (n_queries, k)
        Inner products; float32 if queries and items both are, float64 otherwise. The rest is -inf. The two are fields
        of a named tuple.

    Raises
    ------
    ValueError
        If a shape does not fit, a value is not finite, k is below 1, or products may overflow their dtype.
    TypeError
        If k is not an integer, ``exclude`` not sparse, or other values not real numbers.

    See Also
    --------
    ndcg, recall, precision, average_precision, reciprocal_rank, hit_rate

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse import csr_array
    >>> from fastml.functional import top_k
    >>> queries, items = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[3.0, 1.0], [1.0, 2.0], [2.0, 2.0]])
    >>> top_k(queries, items, 2).ids
    array([[0, 2],
           [1, 2]])
    >>> top_k(queries, items, 2, exclude=csr_array([[1, 0, 0], [0, 1, 1]]))
    TopK(ids=array([[ 2,  1],
           [ 0, -1]]), scores=array([[  2.,   1.],
           [  1., -inf]]))
    """
    queries = check_floats(queries, "queries", ("n_queries", "n_features"))
    items = check_floats(items, "items", ("n_items", "n_features"))
    if queries.shape[1] != items.shape[1]:
        raise ValueError(f"queries: expected {items.shape[1]} columns, as items has, got {queries.shape[1]}.")
    k, shape = check_count(k, "k"), (len(queries), len(items))
    exclude = None if exclude is None else check_interactions(exclude, "exclude", *shape)
    dtype = np.result_type(queries.dtype, items.dtype)
    queries, items = canonical(queries, dtype), canonical(items, dtype)
    check_products(queries, items, ("queries", "items"))  # a kernel that compares scores knows no NaN
    ids, scores = empty((len(queries), k), np.int64), empty((len(queries), k), dtype)
    ranking.top_k(queries, items, exclude, thread_count(), ids, scores)
    return TopK(ids, scores)
