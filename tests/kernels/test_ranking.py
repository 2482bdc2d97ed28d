"""Ranking metrics of random rankings are their definitions."""

import naive
import numpy as np
import pytest
from scipy.sparse import csr_array, random_array

from fastml.functional._sparse import canonical_csr
from fastml.kernels import ranking as kernels
from fastml.runtime import ranking

METRICS = ["precision", "recall", "hit_rate", "reciprocal_rank", "average_precision", "ndcg"]
SHAPES = [(1, 1, 1), (5, 3, 2), (40, 30, 7), (9, 4, 4)]  # rows, items, ranked


def make(shape, dtype=np.float64):
    """Ids with padding at any place, and relevance with stored zeros and empty rows."""
    n, n_items, width = shape
    rng = np.random.default_rng(0)
    ranked = np.array([rng.permutation(n_items)[:width] for _ in range(n)])
    ranked[rng.random(ranked.shape) < 0.1] = -1
    relevant = random_array((n, n_items), density=0.2, format="csr", rng=rng).astype(dtype)
    relevant.data[rng.random(relevant.nnz) < 0.2] = 0
    relevant.data[rng.random(relevant.nnz) < 0.2] = -2
    return ranked, relevant


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", METRICS)
def test_equals_its_definition(name, shape, dtype):
    ranked, relevant = make(shape, dtype)
    hits, n_relevant, fault = ranking.find_hits(ranked, canonical_csr(relevant), 2)
    assert not fault.any()
    np.testing.assert_array_equal(n_relevant, (relevant.toarray() != 0).sum(axis=1))
    for k in {1, (shape[2] + 1) // 2, shape[2]}:
        value = np.full(shape[0], np.nan)
        getattr(kernels, name)(0, shape[0], k, hits, n_relevant, value)
        np.testing.assert_allclose(value, getattr(naive, name)(ranked, relevant, k), rtol=1e-14)


@pytest.mark.parametrize("name", METRICS)
def test_other_rows_stay_as_they_are(name):
    value = np.full(5, 77.0)
    getattr(kernels, name)(1, 3, 2, np.ones((5, 4), np.int8), np.full(5, 4), value)
    assert (value[[0, 3, 4]] == 77).all()
    assert (value[1:3] <= 1).all()


def test_faults():
    ranked = np.array([[0, 1, -1], [2, -1, 2], [3, 0, 1], [-2, 0, 1], [-1, -1, -1], [2, 1, 0]])
    relevant = canonical_csr(csr_array(np.eye(6, 3)))
    marks = np.zeros(3, np.int8)
    hits, n_relevant, fault = np.empty((6, 3), np.int8), np.empty(6, np.int64), np.empty(6, np.int8)
    arrays = relevant.indptr, relevant.indices, relevant.data, marks
    kernels.find_hits(0, 6, ranked, *arrays, hits, n_relevant, fault)
    assert fault.tolist() == [0, kernels.REPEATED, kernels.OUT_OF_RANGE, kernels.OUT_OF_RANGE, 0, 0]
    assert hits[0].tolist() == [1, 0, 0]
    assert n_relevant.tolist() == [1, 1, 1, 0, 0, 0]
    assert not marks.any()  # as the next block needs them, also after a fault


def test_blocks_and_threads_do_not_matter(monkeypatch):
    ranked, relevant = make((100, 30, 7))
    expected = ranking.find_hits(ranked, canonical_csr(relevant), 1)
    monkeypatch.setattr(ranking, "_RANKED_BLOCK", 40)
    for n_threads in 1, 2, 16:
        for got, right in zip(ranking.find_hits(ranked, canonical_csr(relevant), n_threads), expected, strict=True):
            np.testing.assert_array_equal(got, right)
