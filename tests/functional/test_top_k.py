"""The face of top_k: what it takes, what it refuses, what it costs in memory."""

import subprocess
import sys

import naive
import numpy as np
import pytest
from scipy.sparse import coo_array, csc_array, csr_array, csr_matrix, random_array

from fastml.functional import _top_k, top_k
from fastml.kernels import topk as kernels

rng = np.random.default_rng(0)
QUERIES = rng.integers(-4, 5, (30, 4)).astype(np.float64)
ITEMS = rng.integers(-4, 5, (50, 4)).astype(np.float64)
SEEN = csr_array(rng.random((30, 50)) < 0.3)
NAN, INF = np.nan, np.inf


def changed(array, value, at=(0, 0)):
    array = array.copy()
    array[at] = value
    return array


def assert_equal(got, expected):
    assert got._fields == ("ids", "scores")
    assert got.ids.dtype == np.int64
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("k", [1, 10, 50, 70, np.int32(3), np.uint8(3)])
def test_equals_its_definition(k):
    assert_equal(top_k(QUERIES, ITEMS, k), naive.top_k(QUERIES, ITEMS, int(k)))
    assert_equal(top_k(QUERIES, ITEMS, k, exclude=SEEN), naive.top_k(QUERIES, ITEMS, int(k), SEEN))


def test_dtypes():
    single = np.float32
    for types, expected in {(single, single): single, (single, float): float, (int, single): float}.items():
        got = top_k(QUERIES.astype(types[0]), ITEMS.astype(types[1]), 5)
        assert got.scores.dtype == expected
        assert_equal(got, naive.top_k(QUERIES, ITEMS, 5))
    assert_equal(top_k(QUERIES.tolist(), ITEMS.tolist(), 5), naive.top_k(QUERIES, ITEMS, 5))


@pytest.mark.parametrize("wrap", [np.asfortranarray, lambda a: a[::-1][::-1], lambda a: a.astype(">f8"), "read-only"])
def test_layouts(wrap):
    def laid_out(array):
        if wrap != "read-only":
            return wrap(array)
        array = array.copy()
        array.flags.writeable = False
        return array

    expected = top_k(QUERIES, ITEMS, 5)
    n_compiled = len(getattr(kernels.top_k, "signatures", ()))
    queries, items = laid_out(QUERIES), laid_out(ITEMS)
    assert_equal(top_k(queries, items, 5), expected)
    np.testing.assert_array_equal(queries, QUERIES)
    np.testing.assert_array_equal(items, ITEMS)
    assert len(getattr(kernels.top_k, "signatures", ())) == n_compiled


@pytest.mark.parametrize("convert", [csr_array, csr_matrix, csc_array, coo_array])
@pytest.mark.parametrize("dtype", [bool, np.int8, np.float32, np.float64])
def test_formats_of_exclude(convert, dtype):
    assert_equal(top_k(QUERIES, ITEMS, 40, exclude=convert(SEEN.astype(dtype))), naive.top_k(QUERIES, ITEMS, 40, SEEN))


def test_unsorted_duplicate_and_zero_entries_are_excluded_and_stay_as_they_are():
    indices, data = np.array([3, 0, 0, 2], np.int32), np.array([1.0, 1.0, -1.0, 0.0])
    exclude = csr_array((data.copy(), indices.copy(), np.array([0, 0, 4], np.int32)), shape=(2, 4))
    got = top_k([[1.0], [1.0]], [[4.0], [3.0], [2.0], [1.0]], 3, exclude=exclude)
    assert got.ids.tolist() == [[0, 1, 2], [1, -1, -1]]
    assert got.scores.tolist() == [[4, 3, 2], [3, -INF, -INF]]
    np.testing.assert_array_equal(exclude.indices, indices)
    np.testing.assert_array_equal(exclude.data, data)


def test_nothing_left():
    got = top_k(QUERIES, ITEMS, 4, exclude=csr_array(np.ones((30, 50))))
    assert (got.ids == -1).all()
    assert np.isneginf(got.scores).all()


def test_result_does_not_depend_on_where_the_items_fall_in_panels():
    """The best of all items are the best of the best of two halves."""
    queries, items = rng.integers(-9, 10, (70, 6)), rng.integers(-9, 10, (1400, 6))
    whole, halves = top_k(queries, items, 12), [top_k(queries, part, 12) for part in (items[:701], items[701:])]
    ids = np.hstack([halves[0].ids, halves[1].ids + 701])
    scores = np.hstack([half.scores for half in halves])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :12]
    assert_equal(whole, (np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_thread_equals_many_bit_for_bit(dtype, monkeypatch):
    queries, items = rng.standard_normal((700, 20)).astype(dtype), rng.standard_normal((900, 20)).astype(dtype)
    exclude, results = random_array((700, 900), density=0.02, format="csr", rng=rng), []
    for n_threads in 1, 2, 16:
        monkeypatch.setattr(_top_k, "thread_count", lambda n=n_threads: n)
        results.append([a.tobytes() for a in top_k(queries, items, 10, exclude=exclude)])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(("one", "other"), [(2.0**100, 2.0**16), (2.0**16, 2.0**100), (2.0**-100, 2.0**-100)])
def test_very_large_and_very_small_numbers(one, other):
    queries, items = np.array([[one, -one]], np.float32), np.array([[other, other], [2 * other, other]], np.float32)
    product = np.float32(one * other)  # 0 in the last case, and so a tie
    got = top_k(queries, items, 2)
    assert got.ids.tolist() == ([[1, 0]] if product else [[0, 1]])
    assert got.scores.tolist() == [[product, 0]]


BAD = [
    ({"queries": changed(QUERIES, NAN, (2, 1))}, ValueError, r"^queries: expected finite numbers, got nan at \(2, 1\)"),
    ({"queries": changed(QUERIES, -INF)}, ValueError, "^queries: expected finite numbers, got -inf"),
    ({"items": changed(ITEMS, NAN, (49, 3))}, ValueError, r"^items: expected finite numbers, got nan at \(49, 3\)"),
    ({"items": changed(ITEMS, INF)}, ValueError, "^items: expected finite numbers, got inf"),
    ({"queries": QUERIES[0]}, ValueError, r"^queries: expected 2 dimensions \(n_queries, n_features\)"),
    ({"queries": QUERIES[:0]}, ValueError, "^queries has 0 rows"),
    ({"items": ITEMS[:0]}, ValueError, "^items has 0 rows"),
    ({"queries": QUERIES[:, :3]}, ValueError, "^queries: expected 4 columns, as items has, got 3"),
    ({"queries": csr_array(QUERIES)}, TypeError, "^queries: expected a dense array"),
    ({"items": ITEMS + 1j}, TypeError, "^items: expected real numbers"),
    ({"items": ITEMS.astype(str)}, TypeError, "^items: expected real numbers"),
    ({"k": 0}, ValueError, "^k: expected at least 1, got 0"),
    ({"k": -3}, ValueError, "^k: expected .* got -3"),
    ({"k": 2.0}, TypeError, "^k: expected a whole number, got 2.0 of type float"),
    ({"k": True}, TypeError, "^k: expected a whole number, got True"),
    ({"k": None}, TypeError, "^k: expected a whole number, got None"),
    ({"k": "5"}, TypeError, "^k: expected a whole number, got '5'"),
    ({"exclude": np.ones((30, 50))}, TypeError, "^exclude: expected a SciPy sparse matrix .* got ndarray; convert"),
    ({"exclude": [[1, 2]] * 30}, TypeError, "^exclude: expected a SciPy sparse matrix .* got list"),
    ({"exclude": SEEN[:29]}, ValueError, r"^exclude: expected shape \(30, 50\), .* got \(29, 50\)"),
    ({"exclude": SEEN.T}, ValueError, r"^exclude: expected shape \(30, 50\), .* got \(50, 30\)"),
    ({"exclude": csr_array((30, 51))}, ValueError, r"^exclude: expected shape \(30, 50\)"),
    ({"queries": 1e200 * QUERIES, "items": 1e200 * ITEMS}, ValueError, "overflow float64; scale them down.$"),
    (
        {"queries": 1e20 * QUERIES.astype("f"), "items": 1e20 * ITEMS.astype("f")},
        ValueError,
        "^queries, items: their products can reach .* and overflow float32; scale them down, or pass float64 arrays",
    ),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
@pytest.mark.filterwarnings("error")
def test_bad_input(arguments, error, message):
    arguments = {"queries": QUERIES, "items": ITEMS, "k": 5, **arguments}
    with pytest.raises(error, match=message):
        top_k(**arguments)


def test_broken_exclude():
    for name, value in {"indices": 50, "indptr": 99}.items():
        broken = csr_array(SEEN.astype(float))
        setattr(broken, name, changed(getattr(broken, name), value, 1))
        with pytest.raises(ValueError, match="^exclude is a broken sparse csr"):
            top_k(QUERIES, ITEMS, 3, exclude=broken)


MEMORY = """
import numpy as np
from pathlib import Path
from scipy.sparse import random_array
from fastml.functional import top_k


def status(name):
    return next(int(row.split()[1]) / 1024 for row in open("/proc/self/status") if row.startswith(name))


rng = np.random.default_rng(0)
queries, items = rng.standard_normal((9000, 16), dtype=np.float32), rng.standard_normal((70_000, 16), dtype=np.float32)
exclude = random_array((9000, 70_000), density=1e-4, format="csr", dtype=np.float32, rng=rng)
top_k(queries[:300], items[:5000], 10, exclude=exclude[:300, :5000])  # what compiling, the threads and BLAS take
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = status("VmRSS")
result = top_k(queries, items, 10, exclude=exclude)
print(status("VmHWM") - before - sum(field.nbytes for field in result) / 2**20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_extra_memory_is_a_few_mib():
    """All scores would be 2.3 GiB."""
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=300, check=True)
    assert float(run.stdout) <= 24
