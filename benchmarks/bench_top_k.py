"""The k items with the largest inner products, seen ones left out: fastml, NumPy, PyTorch, implicit.

``pytest benchmarks/bench_top_k.py`` times each on its own; ``python benchmarks/bench_top_k.py`` takes them in turns and
prints the ratios, and the share of the rate of sgemm.
"""

import sys

import numpy as np
import pytest
from _peers import N_THREADS, compare, machine, torch, use_all_threads
from scipy.sparse import csr_array, csr_matrix
from threadpoolctl import threadpool_limits

from fastml.functional import top_k

try:
    import implicit
except ImportError:
    implicit = None

SHAPES = [(60_000, 12_000, 64, 10), (60_000, 12_000, 128, 100), (6000, 12_000, 64, 1000)]  # queries, items, features, k
SMALL = {shape: (300, 1200, 16, min(shape[3], 100)) for shape in SHAPES}
SEEN = 68  # items a query, on average
BLOCK = 1024  # queries that NumPy and PyTorch take at a time


def data(shape):
    """Factors, and items that each query has seen: the popular ones by many."""
    n, n_items, d, _ = shape
    rng = np.random.default_rng(0)
    queries, items = (rng.standard_normal((rows, d), dtype=np.float32) for rows in (n, n_items))
    columns = (n_items * rng.random(n * SEEN) ** 2).astype(np.int32)
    seen = csr_array((np.ones(n * SEEN, np.float32), (rng.integers(0, n, n * SEEN), columns)), shape=(n, n_items))
    return queries, items, seen


def in_numpy(queries, items, seen, k):
    """The baseline: a block of scores, a partition, and a sort of the k that are left."""
    n = len(queries)
    ids, best = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
    z = np.empty((BLOCK, len(items)), np.float32)
    for first in range(0, n, BLOCK):
        last = min(first + BLOCK, n)
        scores, rows = z[: last - first], np.arange(last - first)[:, None]
        np.matmul(queries[first:last], items.T, out=scores)
        lengths = np.diff(seen.indptr[first : last + 1])
        scores[np.repeat(rows[:, 0], lengths), seen.indices[seen.indptr[first] : seen.indptr[last]]] = -np.inf
        found = np.argpartition(scores, -k, axis=1)[:, -k:]
        order = np.argsort(-scores[rows, found], axis=1)
        ids[first:last] = found[rows, order]
        best[first:last] = scores[rows, ids[first:last]]
    return ids, best


def make_fastml(queries, items, seen, k):
    return lambda: top_k(queries, items, k, exclude=seen)


def make_numpy(*arguments):
    return lambda: in_numpy(*arguments)


def make_torch(queries, items, seen, k):
    use_all_threads()
    q, h = torch.from_numpy(queries), torch.from_numpy(items)

    def run():
        results = []
        for first in range(0, len(q), BLOCK):
            scores = q[first : first + BLOCK] @ h.T
            lengths = torch.from_numpy(np.diff(seen.indptr[first : first + BLOCK + 1]))
            columns = seen.indices[seen.indptr[first] : seen.indptr[min(first + BLOCK, len(q))]]
            scores[torch.repeat_interleave(lengths), torch.from_numpy(columns)] = -torch.inf
            results.append(torch.topk(scores, k))
        return torch.cat([r.indices for r in results]).numpy(), torch.cat([r.values for r in results]).numpy()

    return run


def make_implicit(queries, items, seen, k):
    with threadpool_limits(1, user_api="blas"):  # its own advice
        model = implicit.cpu.als.AlternatingLeastSquares(factors=queries.shape[1], num_threads=N_THREADS)
    model.user_factors, model.item_factors = queries, items
    users, liked = np.arange(len(queries)), csr_matrix(seen)

    def run():
        with threadpool_limits(1, user_api="blas"):
            return model.recommend(users, liked, N=k, filter_already_liked_items=True)

    return run


MAKERS = {"fastml": make_fastml, "numpy": make_numpy, "torch": make_torch, "implicit": make_implicit}


def present():
    """Names of those that are installed."""
    absent = {"torch": torch is None, "implicit": implicit is None}
    return [name for name in MAKERS if not absent.get(name)]


def check(result, expected):
    """Against the baseline; where scores are equal up to rounding, so may be the ids."""
    np.testing.assert_allclose(result[1], expected[1], rtol=1e-4)
    assert np.mean(np.asarray(result[0]) == expected[0]) > 0.999


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_top_k(benchmark, record, small, shape, name):
    if name not in present():
        pytest.skip(f"{name} is not installed")
    shape = SMALL[shape] if small else shape
    benchmark.group = "top_k " + "x".join(map(str, shape))
    arguments = *data(shape), shape[3]
    function = MAKERS[name](*arguments)
    check(function(), in_numpy(*arguments))
    benchmark.pedantic(function, rounds=3, warmup_rounds=1)
    record(bytes_moved=sum(a.nbytes for a in arguments[:2]), operations=2 * int(np.prod(shape[:3])))


def main(shapes):
    """Print the ratios, taken in turns."""
    sgemm = machine()["sgemm"]
    print(f"{N_THREADS} threads; sgemm {sgemm:.0f} GFLOP/s", flush=True)
    for shape in shapes:
        arguments = *data(shape), shape[3]
        functions = {name: MAKERS[name](*arguments) for name in present()}
        expected = in_numpy(*arguments)
        for function in functions.values():
            check(function(), expected)
        seconds = compare(functions, rounds=1)
        print("x".join(map(str, shape)))
        for name, median in seconds.items():
            rate = 2 * np.prod(shape[:3]) / median / 1e9
            ratio = median / seconds["fastml"]
            speed = f"{rate:5.0f} GFLOP/s {rate / sgemm:5.2f} of sgemm"
            print(f"  {name:10} {median:7.3f} s {ratio:6.2f}x {speed}", flush=True)


if __name__ == "__main__":
    main([tuple(map(int, shape.split("x"))) for shape in sys.argv[1:]] or SHAPES)
