"""Ranking metrics: fastml beside vectorised NumPy, both validated input to a number for each row.

``pytest benchmarks/bench_ranking.py`` times each on its own; ``python benchmarks/bench_ranking.py`` takes them in turns
and prints the ratios.
"""

import numpy as np
import pytest
from _peers import N_THREADS, compare
from scipy.sparse import csr_array

from fastml import functional

SHAPES = [(60_000, 12_000, 10), (60_000, 12_000, 100)]  # rows, items, ranked
SMALL = {shape: (300, 1200, shape[2]) for shape in SHAPES}
RELEVANT = 20  # items a row, on average
METRICS = ["ndcg", "recall", "precision", "hit_rate", "reciprocal_rank", "average_precision"]


def data(shape):
    n, n_items, k = shape
    rng = np.random.default_rng(0)
    start, step = rng.integers(0, n_items, (n, 1)), rng.integers(1, n_items // k, (n, 1))
    ranked = (start + step * np.arange(k)) % n_items  # k different ones
    entries = rng.integers(0, n, n * RELEVANT), rng.integers(0, n_items, n * RELEVANT)
    relevant = csr_array((np.ones(n * RELEVANT, np.float32), entries), shape=(n, n_items))
    relevant.sum_duplicates()
    return ranked, relevant


def in_numpy(name, ranked, relevant):
    """The baseline: pairs of row and item as single numbers, hits by a binary search among them."""
    (n, k), n_items = ranked.shape, relevant.shape[1]
    counts = np.diff(relevant.indptr)
    known = np.repeat(np.arange(n), counts) * n_items + relevant.indices
    asked = (np.arange(n)[:, None] * n_items + ranked).ravel()
    at = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    hits = (known[at] == asked).reshape(n, k)
    if name == "recall":
        return hits.sum(axis=1) / np.maximum(counts, 1)
    if name == "precision":
        return hits.sum(axis=1) / k
    if name == "hit_rate":
        return hits.any(axis=1).astype(float)
    if name == "reciprocal_rank":
        return hits.any(axis=1) / (1 + hits.argmax(axis=1))
    possible = np.maximum(np.minimum(counts, k), 1)
    if name == "average_precision":
        return (hits * hits.cumsum(axis=1) / np.arange(1, k + 1)).sum(axis=1) / possible
    discounts = 1 / np.log2(np.arange(2, k + 2))
    return hits @ discounts / discounts.cumsum()[possible - 1]


def functions(name, ranked, relevant):
    return {
        "fastml": lambda: getattr(functional, name)(ranked, relevant),
        "numpy": lambda: in_numpy(name, ranked, relevant),
    }


@pytest.mark.parametrize("who", ["fastml", "numpy"])
@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_metric(benchmark, record, small, shape, name, who):
    shape = SMALL[shape] if small else shape
    benchmark.group = f"{name} " + "x".join(map(str, shape))
    arrays = data(shape)
    function = functions(name, *arrays)[who]
    np.testing.assert_allclose(function(), in_numpy(name, *arrays), rtol=1e-12)
    benchmark.pedantic(function, rounds=10, warmup_rounds=1)
    record(bytes_moved=arrays[0].nbytes + arrays[1].indices.nbytes, operations=arrays[0].size)


def main():
    """Print the ratios, taken in turns."""
    print(f"{N_THREADS} threads")
    for shape in SHAPES:
        arrays = data(shape)
        for name in METRICS:
            candidates = functions(name, *arrays)
            np.testing.assert_allclose(candidates["fastml"](), in_numpy(name, *arrays), rtol=1e-12)
            seconds = compare(candidates, rounds=5)
            ratio = seconds["numpy"] / seconds["fastml"]
            times = ", ".join(f"{who} {1e3 * value:.1f} ms" for who, value in seconds.items())
            print(f"{name:18} {'x'.join(map(str, shape)):16} {times}: {ratio:.1f}x", flush=True)


if __name__ == "__main__":
    main()
