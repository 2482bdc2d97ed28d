"""
WALS on gowalla
===============

Recall@20 and NDCG@20 of :class:`fastml.WALS` on 1,027,370 check-ins of 29,858 users at 40,981 places, on the split and
by the protocol of NGCF and LightGCN.

The guide to :doc:`/user_guide/wals` has the figures. The data are not part of fastml, so this script is not run here:

.. code-block:: bash

    python examples/gowalla.py FOLDER          # fit the chosen parameters on train, evaluate on test
    python examples/gowalla.py FOLDER --tune   # choose parameters, on a part of train

``FOLDER`` has ``train.txt`` and ``test.txt``, or these with ``.gz``, as in the folder ``Data/gowalla`` of
https://github.com/kuandeng/LightGCN. ``--tune`` never opens the test file.
"""

import gzip
import sys
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array, diags_array
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import make_pipeline

from fastml import WALS
from fastml.functional import ndcg, recall

CHOSEN = {
    "n_factors": 1024,
    "unobserved_weight": 0.03,
    "regularization": 0.003,
    "user_power": 0.3,
    "item_power": 0.3,
    "max_iter": 4,
}

# %%
# A line of the files is a user and its items.


def interactions(folder, name, shape=None):
    """Ones in a CSR array users x items, from a file that may be compressed."""
    path = Path(folder, name)
    with path.open() if path.is_file() else gzip.open(f"{path}.gz", "rt") as lines:
        rows = [[int(item) for item in line.split()[1:]] for line in lines]
    indptr, indices = np.cumsum([0, *map(len, rows)]), np.concatenate(rows).astype(int)
    return csr_array((np.ones(len(indices), np.float32), indices, indptr), shape)


# %%
# Popular places say little about who goes there, and busy users little about a place. As weights of their entries they
# are toned down by a step before the model.


class PopularityWeights(TransformerMixin, BaseEstimator):
    """Weights ``n_u^-user_power * n_i^-item_power``, n the entries of a user and of an item, of mean 1 in training."""

    def __init__(self, user_power=0.3, item_power=0.3):
        self.user_power = user_power
        self.item_power = item_power

    def fit(self, X, y=None):
        counts = np.bincount(X.indices, minlength=X.shape[1])
        self.items_ = diags_array(np.maximum(counts, 1.0) ** -self.item_power)
        self.scale_ = X.sum() / self._weighted(X).sum()
        return self

    def transform(self, X):
        return (self.scale_ * self._weighted(X)).astype(X.dtype)

    def _weighted(self, X):
        counts = np.diff(X.indptr)
        return diags_array(np.maximum(counts, 1.0) ** -self.user_power) @ X @ self.items_


# %%
# The figures: all items that are not in train are ranked.


def figures(train, test, user_power=0.0, item_power=0.0, **parameters):
    """Recall@20 and NDCG@20, means over the users who have entries in test."""
    model = WALS(solver="block", random_state=0, **parameters)
    make_pipeline(PopularityWeights(user_power, item_power), model).fit(train)
    users = np.flatnonzero(np.diff(test.indptr))
    ids, _ = model.recommend(users, k=20)
    return recall(ids, test[users]).mean(), ndcg(ids, test[users]).mean()


# %%
# The search: one parameter after the other takes the value that is best for those before it, by NDCG@20 on a fifth of
# each user's items that is held out from train.

START = {
    "n_factors": 256,
    "unobserved_weight": 0.03,
    "regularization": 0.003,
    "user_power": 0.0,
    "item_power": 0.0,
    "max_iter": 6,
}
SEARCH = [
    ("item_power", [0.0, 0.15, 0.3, 0.45]),
    ("user_power", [0.15, 0.3, 0.45]),
    ("unobserved_weight", [0.01, 0.1]),
    ("n_factors", [512, 1024]),
    ("max_iter", [3, 4]),
    ("regularization", [0.002, 0.004]),
]


def held_out_fifth(X, seed=0):
    """What is kept of each row, and a fifth of it, rounded down, that is held out."""
    counts = np.diff(X.indptr)
    rows = np.repeat(np.arange(len(counts)), counts)
    rank = np.empty(X.nnz, int)
    rank[np.lexsort((np.random.default_rng(seed).random(X.nnz), rows))] = np.arange(X.nnz) - X.indptr[rows]
    is_held = rank < (counts // 5)[rows]
    return tuple(csr_array((X.data[m], (rows[m], X.indices[m])), X.shape) for m in (~is_held, is_held))


def tune(train, start=START, search=SEARCH):
    """The best parameters; prints a line for each set that is tried."""
    kept, held = held_out_fifth(train)
    names, best, found = [*start, "Recall@20", "NDCG@20"], start, {}
    print(*names, sep="  ")
    for name, values in search:
        for value in values:
            tried = {**best, name: value}
            measured = found[tuple(tried.values())] = figures(kept, held, **tried)
            cells = [*map(str, tried.values()), *(f"{number:.4f}" for number in measured)]
            print(*(cell.rjust(len(name)) for cell, name in zip(cells, names, strict=True)), sep="  ", flush=True)
        best = dict(zip(start, max(found, key=lambda values: found[values][1]), strict=True))
    return best


if __name__ == "__main__":
    folder = sys.argv[1]
    train = interactions(folder, "train.txt")
    if "--tune" in sys.argv[2:]:
        print("best:", tune(train))
    else:
        measured = figures(train, interactions(folder, "test.txt", train.shape), **CHOSEN)
        print("Recall@20 {:.4f}, NDCG@20 {:.4f}".format(*measured))
