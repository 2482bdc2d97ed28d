"""Why an item has its score: the contributions of what a user has seen (Hu, Koren and Volinsky 2008, section 5)."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve


class Explanation(NamedTuple):
    """Why a user has a score for an item.

    ``score`` is ``baseline`` plus the contributions of all items in the user's row, of which ``ids`` (k,) and
    ``contributions`` (k,) name the largest. ``baseline`` is 0 for implicit feedback, else ``mean + b_i``.
    """

    score: float
    ids: np.ndarray
    contributions: np.ndarray
    baseline: float


def explain(row, factors, item, k, *, feedback, regularization, unobserved_weight, regularization_exponent,
            weights):  # fmt: skip
    """The explanation of one ``item`` for a user with this ``row``, CSR (1, I), and ``weights`` alike or None.

    With features x and targets t the user is ``A^-1 sum_j c_j t_j x_j``, so j contributes ``c_j t_j x_i' A^-1 x_j``.
    """
    ids, values = row.indices, row.data.astype(np.float64)
    features, baseline = factors.items.astype(np.float64), 0.0
    if feedback == "implicit":
        A, c, t = unobserved_weight * features.T @ features, values, 1.0
        n = len(ids) + unobserved_weight * len(features)
    else:
        features = np.column_stack([features, np.ones(len(features))])
        A, n = np.zeros((features.shape[1], features.shape[1])), len(ids)
        c = np.ones(n) if weights is None else weights.data.astype(np.float64)
        t = values - factors.mean - factors.item_biases[ids]
        baseline = factors.mean + float(factors.item_biases[item])
    seen = features[ids]
    A += (seen.T * c) @ seen
    A[np.diag_indices_from(A)] += regularization * n**regularization_exponent
    contributions = c * t * (seen @ _solve(A, features[item])) if len(ids) else np.zeros(0)
    order = np.lexsort((ids, -contributions))[:k]
    return Explanation(float(baseline + contributions.sum()), ids[order], contributions[order], float(baseline))


def _solve(A, b):
    try:
        return cho_solve(cho_factor(A), b)
    except LinAlgError as error:
        raise ValueError("regularization is too small to solve for this user: the system is singular.") from error
