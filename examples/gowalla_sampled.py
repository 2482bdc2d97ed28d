"""
SampledMF on gowalla
====================

Recall@20 and NDCG@20 of :class:`fastml.SampledMF` on the check-ins of :doc:`WALS on gowalla </auto_examples/gowalla>`:
sampled softmax with negatives drawn uniformly, and with those of the batch, corrected and not.

The guide to :doc:`/user_guide/sampled_mf` has the figures. The data are not part of fastml, so this script is not run
here:

.. code-block:: bash

    python examples/gowalla_sampled.py FOLDER          # fit the chosen parameters on train, evaluate on test
    python examples/gowalla_sampled.py FOLDER --tune   # what was tried, on a part of train

``FOLDER`` is that of ``gowalla.py``, which reads it. ``--tune`` never opens the test file.
"""

import sys
import time

import numpy as np
from gowalla import held_out_fifth, interactions

from fastml import SampledMF
from fastml.functional import ndcg, recall
from fastml.optim import Adam, CosineDecay


def adam(rate, max_iter, batch_size, n_entries=810_128):
    """Adam whose rate falls to 0 at the end of the last epoch."""
    return Adam(CosineDecay(rate, n_steps=max_iter * -(-n_entries // batch_size)))


SOFTMAX = {
    "n_factors": 128,
    "n_negatives": 512,
    "regularization": 0.15,
    "regularization_exponent": 0.5,
    "optimizer": adam(0.01, 16, 4096),
    "batch_size": 4096,
    "max_iter": 16,
}
IN_BATCH = {**SOFTMAX, "sampler": "in_batch", "optimizer": adam(0.0035, 16, 512), "batch_size": 512}
VARIANTS = {
    "uniform negatives": SOFTMAX,
    "in-batch, corrected": IN_BATCH,
    "in-batch, not corrected": {**IN_BATCH, "correct_sampling_bias": False},
}

# %%
# The figures: all items that are not in train are ranked.


def figures(train, test, **parameters):
    """Recall@20 and NDCG@20, means over the users who have entries in test, and the seconds of the fit."""
    start = time.perf_counter()
    model = SampledMF(random_state=0, **parameters).fit(train)
    seconds = time.perf_counter() - start
    users = np.flatnonzero(np.diff(test.indptr))
    ids, _ = model.recommend(users, k=20)
    return recall(ids, test[users]).mean(), ndcg(ids, test[users]).mean(), seconds


def report(name, measured):
    print("{:40} Recall@20 {:.4f}, NDCG@20 {:.4f}, {:4.0f} s".format(name, *measured), flush=True)


# %%
# The search changes one parameter at a time, on a fifth of each user's items that is held out from train.

SEARCH = {
    "regularization": [0.05, 0.15, 0.4],
    "regularization_exponent": [0.0, 1.0],
    "n_factors": [64, 256],
    "n_negatives": [1024],
    "sampler": ["popularity"],
}


def tune(train):
    """Prints what each change of the first variant does."""
    kept, held = held_out_fifth(train)
    base = {**SOFTMAX, "optimizer": adam(0.01, 16, 4096, kept.nnz)}
    for name, values in SEARCH.items():
        for value in values:
            report(f"{name}={value}", figures(kept, held, **{**base, name: value}))


if __name__ == "__main__":
    folder = sys.argv[1]
    train = interactions(folder, "train.txt")
    if "--tune" in sys.argv[2:]:
        tune(train)
    else:
        test = interactions(folder, "test.txt", train.shape)
        for name, parameters in VARIANTS.items():
            report(name, figures(train, test, **parameters))
