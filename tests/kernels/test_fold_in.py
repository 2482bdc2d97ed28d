"""The gradients of a fold-in are those of its definition, whatever the panels."""

import naive
import numpy as np
import pytest

from fastml.kernels import fold_in as kernels

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-9}
both_dtypes = pytest.mark.parametrize("dtype", TOLERANCE)
panels = pytest.mark.parametrize("panel", [1, 7, 40])
N_ITEMS, N_FACTORS = 23, 3


def make(dtype):
    """Users with rows, one of them empty and one with all items; items; a row more than there are users in a tile."""
    rng = np.random.default_rng(0)
    rows = rng.uniform(0.5, 2, (5, N_ITEMS)) * (rng.random((5, N_ITEMS)) < 0.3)
    rows[1], rows[3] = 0, 1
    W, items = rng.normal(size=(6, N_FACTORS)).astype(dtype), rng.normal(size=(N_ITEMS, N_FACTORS)).astype(dtype)
    return rows, W, items


def expected(function, w):
    return naive.finite_differences(function, w.astype(float))


@both_dtypes
@panels
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_softmax(scale, masked, panel, dtype):
    rows, W, items = make(dtype)
    W *= dtype(scale)
    shift = np.random.default_rng(1).normal(size=N_ITEMS).astype(dtype)
    if masked:
        shift[:10] = -np.inf
    attraction = np.zeros_like(W)
    attraction[:5] = rows @ items / np.maximum(rows.sum(axis=1, keepdims=True), 1)
    grad, z = np.full((6, N_FACTORS + 1), 7, dtype), np.empty((6, panel), dtype)
    kernels.softmax_user_grad(W, items, shift, attraction, z, np.empty((2, 6), dtype), grad[:, :-1])
    for u in 0, 2, 3, 4:
        share = naive.softmax((W[[u]].astype(float) @ items.T.astype(float)) + shift)[0]
        definition = share @ items.astype(float) - attraction[u]
        np.testing.assert_allclose(grad[u, :-1], definition, rtol=0, atol=TOLERANCE[dtype] * scale)
        if scale == 1 and not masked:
            slope = expected(lambda w, u=u: naive.user_objective("softmax", w, rows[u], items, 0, shift=shift), W[u])
            np.testing.assert_allclose(grad[u, :-1], slope, rtol=0, atol=1e-5)
    assert (grad[:, -1] == 7).all()


@both_dtypes
@panels
@pytest.mark.parametrize("loss", ["bpr", "negative_sampling"])
@pytest.mark.parametrize("chosen", [slice(None), slice(2, None, 3)])
def test_pairs(chosen, loss, panel, dtype):
    """Over all items, and over some that stand for them."""
    rows, W, items = make(dtype)
    negatives = np.arange(N_ITEMS)[chosen]
    share = np.random.default_rng(2).random(len(negatives))
    share[1] = 0
    share /= share.sum()
    of_all = np.zeros(N_ITEMS)
    of_all[negatives] = share
    (users, ids), places = np.nonzero(rows), np.full(N_ITEMS, -1)
    places[negatives] = np.arange(len(negatives))
    weights = (rows / np.maximum(rows.sum(axis=1, keepdims=True), 1e-9))[users, ids].astype(dtype)
    left = of_all @ (rows == 0).T
    rest = np.where(left > 1e-9, 1 / np.maximum(left, 1e-9), 0).astype(dtype)
    indptr = np.append(0, np.cumsum((rows > 0).sum(axis=1)))
    data = kernels.Users(indptr, ids, weights, places[ids], rest)
    m = 1 if loss == "bpr" else 3
    tables = items, items[negatives], (m * share).astype(dtype)
    scratch = np.empty(len(ids), dtype), np.empty(len(ids), dtype), np.empty(panel, dtype)
    grad, z = np.full((6, N_FACTORS + 1), 7, dtype), np.empty((6, panel), dtype)
    kernels.pair_user_grad(loss == "bpr", 0, 5, data, W, tables, z, scratch, grad[:, :-1])
    for u in 0, 2, 4:
        slope = expected(
            lambda w, u=u: naive.user_objective(loss, w, rows[u], items, 0, share=of_all, n_negatives=m), W[u]
        )
        np.testing.assert_allclose(grad[u, :-1], slope, rtol=0, atol=max(TOLERANCE[dtype], 1e-6))
    assert not grad[3, :-1].any()  # nothing is left to draw
    assert not grad[5, :-1].any()
    assert (grad[:, -1] == 7).all()
