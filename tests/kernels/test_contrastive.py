"""The kernels of InfoNCE, in which uncompiled coverage sees every line; what they compute is tested with their face."""

import naive
import numpy as np
import pytest

from fastml.kernels._rows import first_from
from fastml.kernels.contrastive import Groups, Pairs
from fastml.runtime import contrastive
from fastml.runtime.contrastive import InfoNCE, normalise, normalise_grad


def make(n, m, d, dtype, ids):
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(n, d)).astype(dtype), rng.normal(size=(n + m, d)).astype(dtype)
    order, starts = np.argsort(ids, kind="stable"), np.searchsorted(np.sort(ids), np.arange(ids.max(initial=-1) + 2))
    groups = Groups(ids, order, starts) if len(ids) else Groups(*[np.empty(0, np.int64)] * 3)
    bias, weight = rng.normal(size=n + m).astype(dtype), rng.random(n).astype(dtype)
    return Pairs(queries, keys, bias, weight, dtype(0.5), groups)


@pytest.mark.parametrize("way", ["one", "both", "level"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("has_ids", [False, True])
def test_loss_and_gradients(has_ids, dtype, way, monkeypatch):
    is_symmetric = way != "one"
    monkeypatch.setattr(contrastive, "_LANE_KEYS", 40)  # two lanes
    if way == "both":
        monkeypatch.setattr(contrastive, "_level", lambda pairs: None)
    ids = np.arange(20) % 3 if has_ids else np.empty(0, np.int64)
    pairs = make(20, 70, 3, dtype, ids)
    options = {"temperature": 2.0, "similarity": "dot", "symmetric": is_symmetric, "ids": ids if has_ids else None}
    options.update(log_q=-pairs.bias.astype(np.float64), sample_weight=pairs.weight)

    def total(queries):
        return naive.info_nce(queries, pairs.keys[:20], negatives=pairs.keys[20:], **options)

    loss, queries, keys = InfoNCE(pairs, is_symmetric, 1).loss_grad()
    tolerance = 1e-4 if dtype == np.float32 else 1e-7
    np.testing.assert_allclose(loss, total(pairs.queries), rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(InfoNCE(pairs, is_symmetric, 1).loss(), loss)
    expected = naive.finite_differences(lambda q: total(q).sum(), pairs.queries.astype(np.float64))
    np.testing.assert_allclose(queries, expected, atol=tolerance)
    np.testing.assert_allclose((keys * pairs.keys).sum(), (queries * pairs.queries).sum(), atol=10 * tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalise(dtype):
    rows = np.random.default_rng(0).normal(size=(7, 5)).astype(dtype)
    rows[3] = 0
    unit, length = normalise(rows, 1)
    np.testing.assert_allclose(length, np.linalg.norm(rows.astype(float), axis=1), rtol=1e-6)
    np.testing.assert_allclose(unit * length[:, None], rows, rtol=1e-6)
    upstream = np.random.default_rng(1).normal(size=(7, 5))
    grad = upstream.astype(dtype)
    slope = normalise_grad(unit, length, grad, 1)
    np.testing.assert_allclose(slope, (unit * upstream).sum(axis=1), atol=1e-5)
    assert not grad[3].any()
    others = np.delete(np.arange(7), 3)

    def total(x):
        return (upstream[others] * x / np.linalg.norm(x, axis=1, keepdims=True)).sum()

    expected = naive.finite_differences(total, rows[others].astype(np.float64))
    np.testing.assert_allclose(grad[others], expected, atol=1e-5)


def test_search_finds_the_first_place():
    members = np.array([2, 3, 5, 9])
    for key in range(11):
        assert first_from(members, 0, 4, key) == np.searchsorted(members, key)
