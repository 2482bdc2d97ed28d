"""InfoNCE with in-batch negatives: validation and documentation."""

from typing import NamedTuple

import numpy as np

from fastml.functional._validate import (
    _as_array,
    _numeric,
    canonical,
    check_finite,
    check_floats,
    check_losses,
    check_products,
    check_sample_weight,
    check_temperature,
)
from fastml.kernels.contrastive import Pairs
from fastml.runtime import thread_count
from fastml.runtime.contrastive import InfoNCE, groups_of, normalise, normalise_grad

_AXES = ("n_samples", "n_features")
_LOGITS = "similarities / temperature - log_q"


class InfoNCEGrad(NamedTuple):
    """Losses (n,) and the gradients of their sum; ``negatives`` is None without negatives."""

    loss: np.ndarray
    queries: np.ndarray
    keys: np.ndarray
    negatives: np.ndarray | None
    temperature: float


class _Batch:
    """Valid arrays: queries and keys as they are multiplied, and the lengths that they were divided by, or None."""

    def __init__(self, queries, keys, *, negatives, temperature, similarity, symmetric, ids, log_q, sample_weight):
        if similarity not in ("cosine", "dot"):
            raise ValueError(f"similarity: expected 'cosine' or 'dot', got {similarity!r}.")
        arrays = [check_floats(queries, "queries", _AXES), check_floats(keys, "keys", _AXES)]
        if negatives is not None:
            arrays.append(check_floats(negatives, "negatives", _AXES))
        queries, keys, *others = _alike(arrays)
        self.n = n = len(queries)
        if len(keys) != n:
            raise ValueError(f"keys: expected {n} rows, the positives of the queries in their order, got {len(keys)}.")
        if n == 1 and not others:
            raise ValueError("queries: one row has no negatives; pass more rows, or negatives.")
        self.n_threads, self.is_symmetric = thread_count(), bool(symmetric)
        keys, beta = np.concatenate([keys, *others]) if others else keys, check_temperature(temperature, queries.dtype)
        self.lengths = None
        if similarity == "cosine":
            (queries, a), (keys, b) = (normalise(rows, self.n_threads) for rows in (queries, keys))
            self.lengths = a, b
        else:
            check_products(queries, keys, ("queries", "keys and negatives"), beta)
        bias, weight = _bias(log_q, n, len(keys), queries.dtype), check_sample_weight(sample_weight, n, queries.dtype)
        groups = groups_of(None if ids is None else check_ids(ids, n))
        self.pairs = Pairs(queries, keys, bias, weight, beta, groups)

    def loss(self):
        loss = InfoNCE(self.pairs, self.is_symmetric, self.n_threads).loss()
        check_losses(loss, _LOGITS)
        return loss

    def loss_grad(self):
        loss, queries, keys = InfoNCE(self.pairs, self.is_symmetric, self.n_threads).loss_grad()
        check_losses(loss, _LOGITS)
        if self.lengths is None:
            slope = np.einsum("nd,nd->n", queries, self.pairs.queries)
        else:
            slope = normalise_grad(self.pairs.queries, self.lengths[0], queries, self.n_threads)
            normalise_grad(self.pairs.keys, self.lengths[1], keys, self.n_threads)
        negatives = keys[self.n :] if len(keys) > self.n else None
        temperature = -float(self.pairs.beta) * float(slope.sum(dtype=np.float64))
        return InfoNCEGrad(loss, queries, keys[: self.n], negatives, temperature)


def _alike(arrays):
    """The same in one dtype, with as many columns, and finite."""
    names, dtype = ("queries", "keys", "negatives"), np.result_type(*arrays)
    for array, name in zip(arrays, names, strict=False):
        if array.shape[1] != arrays[0].shape[1]:
            raise ValueError(f"{name}: expected {arrays[0].shape[1]} columns, as queries has, got {array.shape[1]}.")
        check_finite(array, name)
    return [canonical(array, dtype) for array in arrays]


def _bias(log_q, n, n_keys, dtype):
    """What is added to the logits of each key."""
    bias = np.zeros(n_keys, dtype)
    if log_q is not None:
        log_q = check_floats(log_q, "log_q", ("n_samples",))
        if len(log_q) not in (n, n_keys):
            also = f" (or {n_keys}, with those of the negatives)" if n_keys > n else ""
            raise ValueError(f"log_q: expected {n} numbers, one a key{also}, got {len(log_q)}.")
        check_finite(log_q, "log_q")
        bias[: len(log_q)] = -log_q
        check_finite(bias, "log_q")
    return bias


def check_ids(ids, n):
    """Anything that can be compared, one for each of n pairs, as an array (n,)."""
    ids = _as_array(ids, "ids")
    if ids.shape != (n,):
        raise ValueError(f"ids: expected shape ({n},), one a pair, got {ids.shape}.")
    if ids.dtype.kind in "fc":
        _numeric(ids, "ids")
        check_finite(canonical(ids, np.float64), "ids")
    return ids


def info_nce(
    queries,
    keys,
    *,
    negatives=None,
    temperature=0.07,
    similarity="cosine",
    symmetric=False,
    ids=None,
    log_q=None,
    sample_weight=None,
):
    """InfoNCE: how hard it is to tell each query's own key from all other keys.

    With similarities s and the temperature T, the loss of pair i is::

        w_i (log sum_j exp(s_ij / T - log_q_j) - (s_ii / T - log_q_i))

    over all keys and ``negatives`` j. Symmetric, it is the mean of this and of the same with queries and keys
    exchanged. The similarities are never whole in memory.

    Parameters
    ----------
    queries, keys : array-like (n, d)
        Row i of ``keys`` is the positive of row i of ``queries``, the other rows are its negatives. Two float32 arrays
        stay float32, everything else becomes float64.
    negatives : array-like (m, d), default=None
        Further keys, negatives of all queries; in the exchanged direction they play no part.
    temperature : float, default=0.07
        T, above 0.
    similarity : {"cosine", "dot"}, default="cosine"
        Cosine of the angle (a row of zeros has 0 with all others, and the gradient 0), or the inner product.
    symmetric : bool, default=False
        Whether to average both directions.
    ids : array-like (n,), default=None
        Pairs with the same id are no negatives of each other: they are left out of each other's sum.
    log_q : array-like (n,) or (n + m,), default=None
        Logarithm of how often each key is expected as a negative, subtracted from its logits also where it is the
        positive; 0 for negatives if there are only n. In the exchanged direction it cancels.
    sample_weight : array-like (n,), default=None
        Weights w of the pairs.

    Returns
    -------
    ndarray (n,)
        Losses in nats, times the weights.

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, the temperature is not above 0, inner products may overflow, or
        there is a single pair without negatives.
    TypeError
        If values are not real numbers.

    References
    ----------
    A. van den Oord, Y. Li, O. Vinyals. Representation learning with contrastive predictive coding. 2018.

    A. Radford et al. Learning transferable visual models from natural language supervision. ICML 2021.

    X. Yi et al. Sampling-bias-corrected neural modeling for large corpus item recommendations. RecSys 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.functional import info_nce
    >>> queries = np.eye(3)
    >>> info_nce(queries, queries, temperature=1.0).round(3)
    array([0.551, 0.551, 0.551])
    """
    options = {"negatives": negatives, "temperature": temperature, "similarity": similarity, "symmetric": symmetric}
    return _Batch(queries, keys, **options, ids=ids, log_q=log_q, sample_weight=sample_weight).loss()


def info_nce_grad(
    queries,
    keys,
    *,
    negatives=None,
    temperature=0.07,
    similarity="cosine",
    symmetric=False,
    ids=None,
    log_q=None,
    sample_weight=None,
):
    """Losses of :func:`info_nce` and the gradients of their sum.

    Parameters
    ----------
    queries, keys, negatives, temperature, similarity, symmetric, ids, log_q, sample_weight
        As for :func:`info_nce`.

    Returns
    -------
    loss : ndarray (n,)
        Losses in nats, times the weights.
    queries, keys : ndarray (n, d)
        Gradients with respect to the rows as they were passed; under cosine they are orthogonal to them.
    negatives : ndarray (m, d) or None
        Gradient with respect to the negatives.
    temperature : float
        Gradient with respect to the temperature.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.functional import info_nce_grad
    >>> queries = np.eye(3)
    >>> result = info_nce_grad(queries, np.roll(queries, 1, axis=0), temperature=1.0)
    >>> result.queries[0].round(3)
    array([ 0.   ,  0.212, -0.788])
    >>> round(result.temperature, 3)
    -1.728
    """
    options = {"negatives": negatives, "temperature": temperature, "similarity": similarity, "symmetric": symmetric}
    return _Batch(queries, keys, **options, ids=ids, log_q=log_q, sample_weight=sample_weight).loss_grad()
