"""
What an epoch costs as data grow
================================

The time of an epoch grows in proportion to rows, to classes and to stored entries; where it does not, a call's own cost
shows. Measured here on whatever machine builds this page, and so a script to run on yours.
"""

# %%
# One call of ``partial_fit`` is an epoch of mini-batches, checks included. The first call loads the kernels, and of
# three more the fastest counts: whatever else a machine does makes times longer, never shorter.

import time

import numpy as np
from matplotlib import pyplot as plt
from scipy.sparse import random_array

from fastml import SoftmaxClassifier

rng = np.random.default_rng(0)


def seconds_of_epoch(X, n_classes, **options):
    """The least of three, for random labels."""
    model, times, y = SoftmaxClassifier(random_state=0, **options), [], rng.integers(0, n_classes, X.shape[0])
    for _ in range(4):
        begin = time.perf_counter()
        model.partial_fit(X, y, classes=np.arange(n_classes))
        times.append(time.perf_counter() - begin)
    return min(times[1:])


# %%
# **Rows**, dense with 50 features, and CSR with 50 of 5,000 stored: an epoch multiplies what is stored, so that both
# grow alike.

ROWS = [1000, 4000, 16_000, 64_000]
dense = [seconds_of_epoch(rng.standard_normal((n, 50), dtype=np.float32), 10) for n in ROWS]
stored = [random_array((n, 5000), density=0.01, format="csr", dtype=np.float32, rng=rng) for n in ROWS]
sparse = [seconds_of_epoch(X, 10) for X in stored]

# %%
# **Classes**, 4,096 rows of 64 features. The softmax over all of them costs in proportion to their number; with 256
# sampled negatives a step does not, and what remains is the optimizer's sweep over a table that grows with the classes.

CLASSES = [1000, 4000, 16_000, 64_000]
X = rng.standard_normal((4096, 64), dtype=np.float32)
full = [seconds_of_epoch(X, n_classes) for n_classes in CLASSES]
sampled = [seconds_of_epoch(X, n_classes, n_negatives=256) for n_classes in CLASSES]

# %%
# Both axes are logarithmic, so work in proportion is a line of the slope of the dotted one.

figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for axes, sizes, curves, label in (
    (panels[0], ROWS, {"dense": dense, "CSR": sparse}, "rows"),
    (panels[1], CLASSES, {"all classes": full, "256 negatives": sampled}, "classes"),
):
    for name, seconds in curves.items():
        axes.plot(sizes, seconds, marker="o", label=name)
    first = next(iter(curves.values()))
    axes.plot(sizes, [first[-1] * size / sizes[-1] for size in sizes], ":", color="gray", label="in proportion")
    axes.set(xscale="log", yscale="log", xlabel=label, ylabel="seconds of an epoch")
    axes.legend()
plt.show()

# %%
# Small data lie above the line: an epoch of a thousand rows is mostly checks and preparation. What else grows how, and
# where each estimator stops being the right tool, is on the page :doc:`../cost`; curves up to what fits into memory are
# on :doc:`../speed`.
