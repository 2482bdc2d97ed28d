"""Time and memory as work grows: rows, classes, features, stored entries, factors, pairs, items, threads.

``pytest benchmarks/bench_scaling.py --benchmark-json=scaling.json`` measures the sizes of a curve in turns and notes
medians; ``python benchmarks/bench_scaling.py wals`` prints the curves whose names have all these words. Sizes that
would not fit into a quarter of the free memory are left out.
"""

import os
import sys
import warnings
from typing import NamedTuple

import numpy as np
import pytest
from _data import interactions
from _memory import peak_extra_memory
from _peers import N_THREADS, compare
from bench_contrastive import data as pairs
from bench_linear_softmax import data as linear_data
from bench_linear_softmax import in_numpy as linear_in_numpy
from bench_optimizers import make_fastml as adamw_in_fastml
from bench_optimizers import make_numpy as adamw_in_numpy
from bench_softmax import data as logits_and_labels
from bench_softmax import in_numpy as softmax_in_numpy
from bench_wals import epochs_of_fastml
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning

from fastml import SoftmaxClassifier
from fastml.functional import (
    info_nce_grad,
    linear_softmax_cross_entropy_grad,
    softmax_cross_entropy_grad,
    top_k,
)

ENTRIES_A_ROW, N_WORDS = 100, 20_000


class Curve(NamedTuple):
    """What grows, through which sizes, what stays, and the functions {name: function} of a size."""

    axis: str
    sizes: list
    small: list
    fixed: str
    make: object
    bytes_each: int = 0  # of one unit, in the largest candidate


def softmax(rows, classes):
    z, y = logits_and_labels((rows, classes))
    return {"fastml": lambda: softmax_cross_entropy_grad(z, y), "numpy": lambda: softmax_in_numpy(z, y)}


def linear_softmax(rows, features, classes, with_numpy=True):
    arrays = linear_data((rows, features, classes))
    functions = {"fastml": lambda: linear_softmax_cross_entropy_grad(*arrays)}
    if with_numpy:
        functions["numpy"] = lambda: linear_in_numpy(*arrays)
    return functions


def info_nce(n):
    queries, keys = pairs((n, 128))
    return {"fastml": lambda: info_nce_grad(queries, keys, similarity="dot")}


def best_items(n_items):
    rng = np.random.default_rng(0)
    queries, items = (rng.standard_normal((rows, 64), dtype=np.float32) for rows in (1000, n_items))
    return {"fastml": lambda: top_k(queries, items, 10)}


def adamw(n):
    w, g = np.ones(n, np.float32), np.ones(n, np.float32)
    return {"fastml": adamw_in_fastml("adamw", w.copy(), g), "numpy": adamw_in_numpy("adamw", w, g)}


def one_epoch(X, y):
    """An epoch of mini-batches as ``fit`` does it, checks included."""
    model = SoftmaxClassifier(max_iter=1, tol=0, random_state=0)

    def fit():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(X, y)

    return {"fastml": fit}


def dense_epoch(rows):
    rng = np.random.default_rng(0)
    return one_epoch(rng.standard_normal((rows, 100), dtype=np.float32), np.arange(rows) % 10)


def sparse_epoch(entries):
    rng, rows = np.random.default_rng(0), entries // ENTRIES_A_ROW
    columns = rng.integers(0, N_WORDS // ENTRIES_A_ROW, entries) + np.tile(
        np.arange(0, N_WORDS, N_WORDS // ENTRIES_A_ROW), rows
    )
    indptr = np.arange(0, entries + 1, ENTRIES_A_ROW)
    return one_epoch(csr_array((np.ones(entries, np.float32), columns, indptr), (rows, N_WORDS)), np.arange(rows) % 20)


def wals(entries, n_factors):
    shape = tuple(max(side * entries // 4_000_000, 200) for side in (60_000, 12_000))
    return {"fastml": epochs_of_fastml(interactions(entries, shape), "cg", n_factors)[0]}


def with_threads(n_threads, function):
    """The function with ``OMP_NUM_THREADS`` set meanwhile, which fastml heeds at each call."""

    def run():
        before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = str(n_threads)
        try:
            function()
        finally:
            os.environ.pop("OMP_NUM_THREADS")
            if before is not None:
                os.environ["OMP_NUM_THREADS"] = before

    return run


def threads(n_threads):
    functions = {
        "softmax": softmax(8192, 1000)["fastml"],
        "linear softmax": linear_softmax(4096, 128, 1000)["fastml"],
        "InfoNCE": info_nce(4096)["fastml"],
        "top_k": best_items(50_000)["fastml"],
    }
    return {name: with_threads(n_threads, function) for name, function in functions.items()}


def _powers(base, first, last):
    return [base**exponent for exponent in range(first, last + 1)]


CURVES = {
    "softmax_cross_entropy_grad by rows": Curve(
        "rows", _powers(4, 5, 9), [64, 256], "1000 classes", lambda n: softmax(n, 1000), 8000
    ),
    "softmax_cross_entropy_grad by classes": Curve(
        "classes", _powers(10, 1, 5), [10, 100], "4096 rows", lambda c: softmax(4096, c), 32768
    ),
    "linear_softmax_cross_entropy_grad by classes": Curve(
        "classes", _powers(10, 3, 6), [100, 200], "1024 rows, 64 features", lambda c: linear_softmax(1024, 64, c, False)
    ),
    "linear_softmax_cross_entropy_grad by features": Curve(
        "features", _powers(4, 2, 5), [8, 16], "4096 rows, 1000 classes", lambda d: linear_softmax(4096, d, 1000)
    ),
    "info_nce_grad by pairs": Curve("pairs", [1024, 4096, 16384, 32768], [64, 128], "128 features", info_nce),
    "top_k by items": Curve("items", _powers(10, 3, 6), [500, 1000], "1000 queries, 64 features", best_items),
    "AdamW by parameters": Curve("parameters", _powers(10, 4, 8), [100, 1000], "", adamw, 20),
    "SoftmaxClassifier epoch by rows": Curve(
        "rows", _powers(10, 3, 6), [500, 1000], "100 features, 10 classes", dense_epoch, 800
    ),
    "SoftmaxClassifier epoch by stored entries": Curve(
        "stored entries", _powers(10, 5, 8), [10_000, 20_000], "100 entries a row, 20 classes", sparse_epoch, 32
    ),
    "WALS epoch by stored entries": Curve(
        "stored entries", [1_000_000 * 2**k for k in range(4)], [5000, 10_000], "64 factors", lambda e: wals(e, 64), 48
    ),
    "WALS epoch by factors": Curve(
        "factors", [32, 64, 128, 256], [8, 16], "1M stored entries", lambda f: wals(1_000_000 if f > 16 else 5000, f)
    ),
    "several functions by threads": Curve("threads", list(range(1, N_THREADS + 1)), [1, 2], "", threads),
}


def _fits(size, curve):
    return size * curve.bytes_each <= os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


def measure(curve, small=False, rounds=3):
    """Medians in turns and peaks of memory, {name: a number for each size}."""
    sizes = curve.small if small else [size for size in curve.sizes if _fits(size, curve)]
    functions = {(name, size): function for size in sizes for name, function in curve.make(size).items()}
    if small:
        for function in functions.values():
            function()
        return {}
    seconds = compare(functions, rounds)
    memory = {key: peak_extra_memory(function) for key, function in functions.items()}
    names = list(dict.fromkeys(name for name, _ in functions))
    by_name = [{name: [each[name, size] for size in sizes] for name in names} for each in (seconds, memory)]
    return {"axis": curve.axis, "fixed": curve.fixed, "values": sizes, "seconds": by_name[0], "memory": by_name[1]}


@pytest.mark.parametrize("name", CURVES)
def test_curve(benchmark, small, name):
    benchmark.group = name
    found = benchmark.pedantic(lambda: measure(CURVES[name], small), rounds=1)
    benchmark.extra_info.update(found)


def main(words):
    """Print seconds and nanoseconds of a unit."""
    for name, curve in CURVES.items():
        if all(word.lower() in name.lower() for word in words):
            found = measure(curve)
            print(name, f"({curve.fixed})" * bool(curve.fixed))
            for candidate, seconds in found["seconds"].items():
                cells = (f"{v:,} {s:.3g} s {1e9 * s / v:.3g} ns" for v, s in zip(found["values"], seconds, strict=True))
                print(f"  {candidate:8}", "; ".join(cells), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
