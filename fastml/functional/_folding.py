"""Folding: unrelated keys that are as near to a query as its own."""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from fastml.functional._top_k import top_k
from fastml.functional._validate import canonical, check_count, check_finite, check_floats
from fastml.runtime import thread_count
from fastml.runtime.contrastive import normalise

_BLOCK = 1 << 22  # similarities kept at a time
_NEARLY = 0.01  # cosines that differ by less say nothing


def folding_score(queries, keys, *, k=10):
    """How often the keys of other pairs crowd the neighbourhood of a query, from 0 to 1.

    Row i of ``keys`` is the positive of row i of ``queries``; the keys of all other rows are taken to be unrelated
    to it. With cosine similarities s, and the k unrelated keys ``N(i)`` that are nearest to query i::

        score = 1 / (n k) sum_i |{j in N(i) : s_ij >= s_ii - 0.01}| = mean_i min(r_i, k) / k

    where r_i is the number of unrelated keys that are as near as the own one, or nearly so; k is n - 1 at most. So it
    is 0 if each query's own key is nearer than all others, and 1 if every query has k unrelated keys or more that are
    as near. A tie counts as crowded, since nothing tells the own key apart there: where all embeddings are the same the
    score is 1. The hundredth makes it see a collapse that is not complete: embeddings that are drawn to one point
    never arrive, and what is left of their order drowns in any noise, or in the rounding of an index.

    Where keys have nothing to do with their queries the rank of the own one is arbitrary: the score of chance is about
    ``1 - (k + 1) / (2 n)``. A high score says that neighbourhoods are useless, for one reason or the other.

    Parameters
    ----------
    queries : array-like of shape (n_samples, n_features)
        Embeddings; float32 stays float32, everything else becomes float64. Lengths do not count.
    keys : array-like of shape (n_samples, n_features)
        The positive of each query. Two rows with the same key crowd each other: pass each key once.
    k : int, default=10
        Size of a neighbourhood, at least 1. The smaller, the more does a single unrelated key count.

    Returns
    -------
    float
        In 0..1, the lower the better.

    Raises
    ------
    ValueError
        If a shape does not fit, there is but one pair, a value is not finite, or k is below 1.
    TypeError
        If k is not an integer, or other values not real numbers.

    See Also
    --------
    fastml.display.FoldingDisplay : Draws what crowds the neighbourhoods.
    info_nce : A loss that parts unrelated pairs.

    Notes
    -----
    A row of zeros has similarity 0 with all others: the neighbourhood of such a query is crowded. Similarities are
    computed a tile at a time, and at most 4 million of them kept: memory does not grow with the square of n.

    References
    ----------
    Xin, Mayoraz, Pham, Lakshmanan, Anderson, "Folding: Why Good Models Sometimes Make Spurious Recommendations", 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.functional import folding_score
    >>> queries = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> folding_score(queries, 2 * queries), folding_score(queries, np.ones((3, 2)))
    (0.0, 1.0)
    >>> folding_score(queries, queries[[1, 0, 2]], k=1)
    0.6666666666666666
    """
    return crowding(queries, keys, k).score


class Crowding(NamedTuple):
    """For each query its similarity with its own key, that with the k-th nearest other, and how many are as near."""

    own: np.ndarray
    last: np.ndarray
    count: np.ndarray
    k: int

    @property
    def score(self):
        """Share of all places in the neighbourhoods that are taken by keys as near as the own one."""
        return float(self.count.mean() / self.k)


def crowding(queries, keys, k):
    """The neighbourhoods of all queries, for the score and for pictures."""
    arrays = check_floats(queries, "queries"), check_floats(keys, "keys")
    n, shape = len(arrays[0]), arrays[0].shape
    if arrays[1].shape != shape:
        raise ValueError(f"keys: expected shape {shape}, a key for each query, in their order; got {arrays[1].shape}.")
    if n == 1:
        raise ValueError("queries: one pair has no unrelated keys; pass at least two.")
    dtype, k = np.result_type(*arrays), min(check_count(k, "k"), n - 1)
    queries, keys = (_unit_rows(*pair, dtype) for pair in zip(arrays, ("queries", "keys"), strict=True))
    found = Crowding(np.einsum("nd,nd->n", queries, keys), np.empty(n, dtype), np.empty(n, np.int64), k)
    least = found.own - dtype.type(_NEARLY)
    for first in range(0, n, max(_BLOCK // k, 1)):
        rows = np.arange(first, min(first + max(_BLOCK // k, 1), n))
        itself = csr_array((np.ones(len(rows)), rows, np.arange(len(rows) + 1)), shape=(len(rows), n))
        others = top_k(queries[rows], keys, k, exclude=itself).scores
        found.last[rows] = others[:, -1]
        found.count[rows] = (others >= least[rows, np.newaxis]).sum(axis=1)
    return found


def _unit_rows(rows, name, dtype):
    """Rows of length 1, whatever their scale; a row of zeros stays one."""
    check_finite(rows, name)
    reach = np.abs(rows).max(axis=1, keepdims=True)  # squares of what is scaled by it neither overflow nor vanish
    scaled = rows / np.where(reach > 0, reach, rows.dtype.type(1))
    return normalise(canonical(scaled, dtype), thread_count())[0]
