"""How often unrelated keys crowd a neighbourhood: fastml and NumPy.

``pytest benchmarks/bench_folding.py`` times each on its own; ``python benchmarks/bench_folding.py`` takes them in turns
and prints the ratio, and the share of the rate of sgemm.
"""

import numpy as np
import pytest
from _peers import N_THREADS, compare, machine

from fastml.functional import folding_score

SHAPE = (20_000, 64)
SMALL = (300, 16)
K = 10
BLOCK = 1024  # queries that NumPy takes at a time


def data(shape):
    """Keys that are found by most of their queries."""
    rng = np.random.default_rng(0)
    queries = rng.standard_normal(shape, dtype=np.float32)
    return queries, queries + 1.5 * rng.standard_normal(shape, dtype=np.float32)


def in_numpy(queries, keys, k=K):
    """The baseline: a block of cosines is compared with the own ones and counted, and nothing is sorted."""
    queries, keys = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, keys))
    least = np.einsum("nd,nd->n", queries, keys) - np.float32(0.01)
    crowded, z = 0, np.empty((BLOCK, len(keys)), np.float32)
    for first in range(0, len(queries), BLOCK):
        part = slice(first, first + BLOCK)
        scores = np.matmul(queries[part], keys.T, out=z[: len(queries[part])])
        counts = np.count_nonzero(scores >= least[part, np.newaxis], axis=1) - 1
        crowded += np.minimum(counts, k).sum()
    return crowded / (len(queries) * k)


CANDIDATES = {"fastml": lambda *pair: folding_score(*pair, k=K), "numpy": in_numpy}


@pytest.mark.parametrize("name", CANDIDATES)
def test_folding_score(benchmark, record, small, name):
    shape = SMALL if small else SHAPE
    pair = data(shape)
    benchmark.group = "folding_score " + "x".join(map(str, shape))
    score = benchmark.pedantic(CANDIDATES[name], args=pair, rounds=5, warmup_rounds=1)
    assert 0 < score < 0.9
    assert score == pytest.approx(in_numpy(*pair), abs=1e-4)
    record(bytes_moved=2 * pair[0].nbytes, operations=2 * shape[0] * pair[0].size)


def main():
    """Print the ratio."""
    pair = data(SHAPE)
    seconds = compare({name: lambda f=function: f(*pair) for name, function in CANDIDATES.items()}, rounds=5)
    print(f"{N_THREADS} threads; folding_score {'x'.join(map(str, SHAPE))}, k={K}")
    for name, median in seconds.items():
        share = 2 * SHAPE[0] * pair[0].size / median / 1e9 / machine()["sgemm"]
        print(f"  {name:8} {1e3 * median:8.1f} ms {median / seconds['fastml']:6.2f}x {share:5.2f} of sgemm")


if __name__ == "__main__":
    main()
