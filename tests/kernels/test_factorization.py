"""Batches are a partition, negatives are new to the user, and a step goes against the gradient of what it touches."""

import naive
import numpy as np
import pytest
from numba import config

from fastml.kernels import factorization as kernels
from fastml.optim import SGD, AdaGrad, Adam, RMSProp
from fastml.runtime.factorization import Stretch

# Uncompiled, integers of 64 bits that wrap around are told.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")

TOLERANCE = {np.float32: 2e-5, np.float64: 1e-11}
KINDS = {"bpr": kernels.BPR, "negative_sampling": kernels.NEGATIVE_SAMPLING}
both_dtypes = pytest.mark.parametrize("dtype", TOLERANCE)


def make(n_users=30, n_items=20, density=0.3, dtype=np.float64, seed=0):
    """Interactions of random weight; the first user has all items but one, the last one none."""
    rng = np.random.default_rng(seed)
    has = rng.random((n_users, n_items)) < density
    has[0], has[0, 3], has[-1] = True, False, False
    users, items = np.nonzero(has)
    indptr = np.append(0, np.cumsum(has.sum(axis=1)))
    weights = rng.uniform(0.5, 1.5, len(users)).astype(dtype)
    return kernels.Interactions(indptr, items, users, weights, n_items, 5), has


def tables(interactions, n_users, n_factors, dtype, optimizer, seed=1):
    rng = np.random.default_rng(seed)
    made = []
    for n in n_users, interactions.n_items:
        moments = optimizer._moments(n * n_factors, dtype)
        rows, ridge = rng.normal(size=(n, n_factors)).astype(dtype), rng.uniform(0, 0.1, n).astype(dtype)
        made.append(kernels.Table(rows, *(moment.reshape(n, -1) for moment in moments), ridge))
    return made


@pytest.mark.parametrize(("n", "size"), [(1, 1), (7, 3), (100, 100), (101, 10)])
def test_shuffle(n, size):
    n_batches = -(-n // size)
    orders = []
    for epoch in 0, 0, 1:
        order = np.empty(n, np.int64)
        kernels.shuffle(5, epoch, size, np.empty(n, np.int64), np.empty(n_batches, np.int64), order)
        assert sorted(order) == list(range(n))
        for start in range(0, n, size):
            assert (np.diff(order[start : start + size]) > 0).all()
        orders.append(order.tolist())
    assert orders[0] == orders[1]
    assert n == size or n < 10 or orders[1] != orders[2]


def test_an_entry_is_as_often_in_any_batch():
    found = np.zeros((12, 4), int)
    for epoch in range(300):
        order = np.empty(12, np.int64)
        kernels.shuffle(0, epoch, 3, np.empty(12, np.int64), np.empty(4, np.int64), order)
        found[order, np.repeat(np.arange(4), 3)] += 1
    assert abs(found - 75).max() < 40  # five standard deviations


def prepared(stretch, order, pool, seed, number):
    """The batches of a stretch that takes no step."""
    none = tables(stretch.interactions, 30, 5, stretch.work.old.dtype, SGD())
    stretch.steps(order, pool, seed, number, *none, (0, 0, np.zeros(5, stretch.work.old.dtype)), np.empty((0, 2)))
    made, size = stretch.room[2:-1], stretch.room.place.shape[1]
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    return [kernels.Batch(part, made[0][b, : len(part)], *(a[b] for a in made[1:])) for b, part in enumerate(parts)]


def stretch_of(interactions, size, n_negatives, n_threads=1, n_factors=5, dtype=np.float64, n_batches=2):
    return Stretch(interactions, n_batches, size, n_negatives, n_factors, n_threads, dtype)


@pytest.mark.parametrize("n_items", [20, 300, 70_000])
@pytest.mark.parametrize("n_negatives", [1, 3])
def test_prepare(n_negatives, n_items):
    interactions, has = make()
    interactions = interactions._replace(n_items=n_items)
    rng, n = np.random.default_rng(0), len(interactions.indices)
    order = np.concatenate([np.sort(part) for part in np.split(rng.permutation(n)[:67], [40])])
    pool = rng.integers(0, n_items, 67 * n_negatives)
    stretch = stretch_of(interactions, 40, n_negatives)
    for b, batch in enumerate(prepared(stretch, order, pool, 3, 17)):
        entries = order[40 * b : 40 * b + 40]
        n_users, n_rows = stretch.room.counts[b]
        users, items = interactions.users[entries], batch.items
        np.testing.assert_array_equal(items[:, 0], interactions.indices[entries])
        assert not any(j < 20 and has[u, j] for u, row in zip(users, items[:, 1:], strict=True) for j in row)
        drawn = pool[40 * b * n_negatives :][: items[:, 1:].size].reshape(-1, n_negatives)
        was_free = [[j >= 20 or not has[u, j] for j in row] for u, row in zip(users, drawn, strict=True)]
        np.testing.assert_array_equal(items[:, 1:][was_free], drawn[was_free])
        np.testing.assert_array_equal(batch.users[:n_users], np.unique(users))
        np.testing.assert_array_equal(batch.users[batch.place[: len(entries)]], users)
        np.testing.assert_array_equal(batch.user_starts[: n_users + 1], np.searchsorted(users, [*np.unique(users), 99]))
        flat = items.ravel()
        by_item = np.argsort(flat, kind="stable")
        np.testing.assert_array_equal(batch.slots[: flat.size], by_item)
        rows, starts = np.unique(flat[by_item], return_index=True)
        np.testing.assert_array_equal(batch.rows[:n_rows], rows)
        np.testing.assert_array_equal(batch.row_starts[: n_rows + 1], [*starts, flat.size])


def test_a_user_who_has_nearly_all_gets_what_is_left():
    """Also where the draws never hit it; and from the draws, where they do."""
    interactions, _ = make()
    stretch = stretch_of(interactions, 19, 2)
    (batch,) = prepared(stretch, np.arange(19), np.full(38, 5), 0, 0)
    np.testing.assert_array_equal(batch.items[:, 1:], 3)
    interactions = interactions._replace(indptr=np.array([0, 19]), indices=np.delete(np.arange(20), 19))
    (batch,) = prepared(stretch_of(interactions, 19, 1), np.arange(19), np.full(19, 18), 0, 0)
    np.testing.assert_array_equal(batch.items[:, 1:], 19)


@both_dtypes
@pytest.mark.parametrize("n_negatives", [1, 4])
@pytest.mark.parametrize("loss", KINDS)
def test_a_step_goes_against_the_gradient(loss, n_negatives, dtype):
    interactions, _ = make(dtype=dtype)
    optimizer, n = SGD(), len(interactions.indices)
    users, items = tables(interactions, 30, 5, dtype, optimizer)
    before = [table.rows.astype(float) for table in (users, items)]
    stretch = stretch_of(interactions, n, n_negatives, dtype=dtype)
    pool = np.random.default_rng(0).integers(0, 20, n * n_negatives)
    (batch,) = prepared(stretch, np.arange(n), pool, 0, 0)
    rule = KINDS[loss], optimizer._kind, optimizer._hyper(np.dtype(dtype))
    (total,) = stretch.steps(np.arange(n), pool, 0, 0, users, items, rule, np.array([[0.5, 1.0]]))
    ridges = [table.ridge.astype(float) for table in (users, items)]
    arguments = interactions.users, batch.items[:, 0], batch.items[:, 1:], interactions.weights.astype(float)

    def objective(W, H, ridges=ridges):
        return naive.pairwise_batch(loss, W, H, *arguments, ridges)

    zeros = [np.zeros_like(ridge) for ridge in ridges]
    np.testing.assert_allclose(total, objective(*before, zeros), rtol=TOLERANCE[dtype])
    W, H = before
    grads = (
        naive.finite_differences(lambda w: objective(w, H), W),
        naive.finite_differences(lambda h: objective(W, h), H),
    )
    for table, old, grad in zip((users, items), before, grads, strict=True):
        np.testing.assert_allclose(table.rows, old - 0.5 * grad, rtol=0, atol=max(TOLERANCE[dtype], 1e-7) * 10)


@both_dtypes
@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.9), AdaGrad(0.1), RMSProp(0.1), Adam(0.1, weight_decay=0.1)])
def test_rules_and_threads(optimizer, dtype):
    """Any optimizer; the same bits for 1, 2, and 16 threads; rows and moments that do not occur are left alone."""
    interactions, _ = make(dtype=dtype, n_items=600, density=0.05)
    n_batches = 5 if not config.DISABLE_JIT else 2
    outcome = []
    for n_threads in 1, 2, 16:
        users, items = tables(interactions, 30, 5, dtype, optimizer)
        first = [array.copy() for table in (users, items) for array in table]
        stretch, touched = stretch_of(interactions, 40, 2, n_threads, dtype=dtype, n_batches=n_batches), [set(), set()]
        order, pool = np.arange(40 * n_batches), np.random.default_rng(0).integers(0, 600, 80 * n_batches)
        rule = kernels.BPR, optimizer._kind, optimizer._hyper(np.dtype(dtype))
        rates = np.array([[0.1, b + 1.0] for b in range(n_batches)])
        assert np.isfinite(stretch.steps(order, pool, 0, 0, users, items, rule, rates)).all()
        for batch in prepared(stretch, order, pool, 0, 0):
            touched[0].update(interactions.users[batch.entries])
            touched[1].update(batch.items.ravel())
        now = [array for table in (users, items) for array in table]
        for side in range(2):
            left_alone = np.setdiff1d(np.arange(len(now[4 * side])), list(touched[side]))
            assert 0 < len(left_alone) < len(now[4 * side])
            for a, b in zip(now[4 * side :][:4], first[4 * side :][:4], strict=True):
                np.testing.assert_array_equal(a[left_alone], b[left_alone])
        assert not np.array_equal(now[0], first[0])
        outcome.append(b"".join(array.tobytes() for array in now))
    assert outcome[0] == outcome[1] == outcome[2]
