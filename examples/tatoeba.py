"""
Two towers on Tatoeba
=====================

Finding the French translation of an English sentence, and back, with :class:`fastml.TwoTower` on 160,000 pairs of
sentences, beside linear methods on the same features.

The guide to :doc:`/user_guide/two_tower` has the figures. The data are not part of fastml, so this script is not run
here:

.. code-block:: bash

    python examples/tatoeba.py FOLDER          # fit on the training pairs, search among the held-out ones
    python examples/tatoeba.py FOLDER --tune   # choose parameters, on a part of the training pairs

``FOLDER`` has ``fra.txt.gz`` or ``fra.txt``: lines of an English sentence, a tab, and a French one, as in
``fra-eng.zip`` of https://www.manythings.org/anki (sentences from https://tatoeba.org, CC BY 2.0 FR).
"""

import gzip
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from scipy.linalg import svd
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from sklearn.decomposition import TruncatedSVD
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_union
from sklearn.preprocessing import normalize

from fastml import TwoTower
from fastml.functional import top_k
from fastml.optim import Adam

N_HELD_OUT = 5000
N_COMPONENTS = 128
CHOSEN = {"batch_size": 2048, "max_iter": 8, "temperature": 0.07, "optimizer": Adam(0.0025), "random_state": 0}

# %%
# A sentence may have several translations, and these may have other ones. All pairs that hang together this way are a
# group: they are held out together, and their sentences are no negatives of each other.


def sentences(folder):
    """English and French sentences, arrays (n,) of strings."""
    path = Path(folder, "fra.txt")
    with path.open("rb") if path.is_file() else gzip.open(f"{path}.gz") as lines:
        pairs = [line.decode().rstrip("\r\n").split("\t")[:2] for line in lines]
    return np.array(pairs, object).T


def groups_of(english, french):
    """A number for each pair, the same where pairs are linked by sentences that they share."""
    (_, left), (_, right) = (np.unique(side, return_inverse=True) for side in (english, french))
    n = left.max() + 1 + right.max() + 1
    links = coo_array((np.ones(len(left)), (left, left.max() + 1 + right)), (n, n))
    return connected_components(links, directed=False)[1][left]


def split(groups, n_held_out, seed=0):
    """Rows to train on; and held-out rows, each the only one of its group, so that there is one right answer."""
    order = np.random.default_rng(seed).permutation(len(groups))
    _, first = np.unique(groups[order], return_index=True)
    held_out = order[np.sort(first)[:n_held_out]]
    return np.flatnonzero(~np.isin(groups, groups[held_out])), held_out


# %%
# Words, and groups of letters within words, which words of one stem have in common.


def features(train, held_out):
    """TF-IDF of training and held-out sentences, CSR float32."""
    options = {"sublinear_tf": True, "dtype": np.float32, "min_df": 3}
    words = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b|[?!]", **options)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4), **options)
    union = make_union(words, letters)
    return csr_array(union.fit_transform(train)), csr_array(union.transform(held_out))


# %%
# The baselines. CCA of features that a truncated SVD has made dense is an SVD of their whitened cross-covariance; PLS
# is one of the cross-covariance itself.


def linear(X, Y, X_held, Y_held, n_components, whiten, n_dense=256, ridge=1e-3):
    """Embeddings of held-out pairs by CCA (``whiten``) or PLS; components count by the root of their correlation."""
    dense, whitened = [], []
    for rows, held in (X, X_held), (Y, Y_held):
        reduce = TruncatedSVD(n_dense, n_iter=2, random_state=0).fit(rows)
        A, B = reduce.transform(rows), reduce.transform(held)
        mean = A.mean(axis=0)
        A, B = (A - mean).astype(float), (B - mean).astype(float)
        if whiten:
            values, vectors = np.linalg.eigh(A.T @ A / len(A))
            root = vectors / np.sqrt(values + ridge * values.mean())
            A, B = A @ root, B @ root
        dense.append(A)
        whitened.append(B)
    left, values, right = svd(dense[0].T @ dense[1] / len(dense[0]))
    n = n_components
    return whitened[0] @ left[:, :n] * values[:n] ** 0.5, whitened[1] @ right[:n].T * values[:n] ** 0.5


# %%
# A query's one right answer is the held-out sentence of its own pair.


def recalls(queries, items, ks=(1, 10)):
    """Recall@k among these items, in both directions: those of ``ks`` there, then back."""
    queries, items = normalize(queries), normalize(items)
    found = []
    for sides in ((queries, items), (items, queries)):
        ids = top_k(*sides, max(ks)).ids
        found += [(ids[:, :k] == np.arange(len(ids))[:, np.newaxis]).any(axis=1).mean() for k in ks]
    return found


def two_tower(train, held_out, ids, n_components=N_COMPONENTS, **parameters):
    """Recalls among held-out pairs, and the seconds of training."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few epochs are enough
        model = TwoTower(n_components, **parameters).fit(*train, ids)
    seconds = time.perf_counter() - start
    return *recalls(*model.transform(*held_out)), seconds


def table(english, french, n_held_out=N_HELD_OUT, n_components=N_COMPONENTS, parameters=CHOSEN):
    """Lines of the guide's table."""
    groups = groups_of(english, french)
    train, held_out = split(groups, n_held_out)
    (X, X_held), (Y, Y_held) = (features(side[train], side[held_out]) for side in (english, french))
    yield f"{len(train)} pairs to train on, {X.shape[1]} and {Y.shape[1]} features"
    for name, whiten in ("PLS", False), ("CCA", True):
        start = time.perf_counter()
        embedded = linear(X, Y, X_held, Y_held, n_components, whiten)
        yield line(name, (*recalls(*embedded), time.perf_counter() - start))
    for name, ids in ("TwoTower", None), ("TwoTower, ids", groups[train]):
        yield line(name, two_tower((X, Y), (X_held, Y_held), ids, n_components, **parameters))


def line(name, figures):
    """A row of a table in Markdown: four recalls, and seconds."""
    *found, seconds = figures
    return f"| {name} | {' | '.join(f'{figure:.3f}' for figure in found)} | {seconds:.0f} |"


# %%
# The parameters are chosen one after the other, by the mean recall@1 of both directions among 5,000 groups of the
# training pairs, on which nothing is trained then.

START = {"batch_size": 2048, "max_iter": 2, "temperature": 0.07, "optimizer": Adam(0.01), "random_state": 0}
SEARCH = {
    "optimizer": [Adam(rate) for rate in (0.001, 0.0025, 0.005, 0.01)],
    "temperature": [0.05, 0.1, 0.14],
    "max_iter": [4, 8],
}


def tune(english, french, n_held_out=N_HELD_OUT, n_components=N_COMPONENTS, start=START, search=SEARCH):
    """Lines of a table of all that is tried; the last one has the best parameters."""
    groups = groups_of(english, french)
    train, _ = split(groups, n_held_out)
    kept, held = (train[rows] for rows in split(groups[train], n_held_out))
    X, Y = (features(side[kept], side[held]) for side in (english, french))
    best, highest = start, 0.0
    for name, values in search.items():
        tried = [{**best, name: value} for value in values]
        for parameters in tried:
            figures = two_tower(*zip(X, Y, strict=True), groups[kept], n_components, **parameters)
            yield line(f"{name}={parameters[name]}", figures)
            recall_at_1 = (figures[0] + figures[2]) / 2
            if recall_at_1 > highest:
                best, highest = parameters, recall_at_1
    yield f"best: {best}"


if __name__ == "__main__":
    run = tune if "--tune" in sys.argv[2:] else table
    for row in run(*sentences(sys.argv[1])):
        print(row, flush=True)
