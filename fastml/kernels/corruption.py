"""Rows in which some features have the value that they have in another row, drawn at random.

So a feature keeps its distribution while it loses its bond with the others (Bahri, Jiang, Tay & Metzler, *SCARF:
Self-supervised contrastive learning using random feature corruption*, 2022). What becomes of a feature of a row is a
function of seed, step, the number of the row and that of the feature: see ``_random``.
"""

import numpy as np

from fastml.kernels._jit import kernel
from fastml.kernels._random import key_of, random_bits, scaled


@kernel
def corrupt(start, stop, X, rows, seed, step, threshold, out):
    """``out`` (m, d) = the ``rows`` (m,) of ``X`` (n, d); a feature is replaced with probability threshold / 2^64."""
    n, d = np.uint64(X.shape[0]), np.uint64(X.shape[1])
    key = key_of(seed, step)
    for i in range(start, stop):
        row, target, first = X[rows[i]], out[i], np.uint64(rows[i]) * d
        for j in range(X.shape[1]):
            bits = random_bits(key, first + np.uint64(j))
            source = scaled(random_bits(bits, 1), n)[0]  # a number of its own
            target[j] = X[source, j] if bits < threshold else row[j]
