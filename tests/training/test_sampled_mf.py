"""What an epoch of sampled factorization minimises, and how users are folded in."""

import time

import naive
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.sparse import csr_array

from fastml.functional._sparse import canonical_csr
from fastml.optim import SGD, Adam, CosineDecay
from fastml.training.fold_in import fold_in
from fastml.training.sampled_mf import SampledMFProblem
from fastml.training.samplers import InBatchSampler, PopularitySampler, UniformSampler

LOSSES = ["softmax", "sampled_softmax", "negative_sampling", "bpr"]
N_USERS, N_ITEMS = 40, 30
all_losses = pytest.mark.parametrize("loss", LOSSES)


def interactions(dtype=np.float64, shape=(N_USERS, N_ITEMS), density=0.2):
    """Weights of users of two tastes, the last but one of whom has all items, and the last none; others lack item 4."""
    rng = np.random.default_rng(0)
    tastes = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % 2
    X = (rng.random(shape) < density * np.where(tastes, 1.7, 0.3)) * rng.uniform(0.5, 2, shape)
    X[:, 4], X[-1] = 0, 0
    X[-2] = rng.uniform(0.5, 2, shape[1])
    return canonical_csr(csr_array(X.astype(dtype)))


def problem_of(X, loss="sampled_softmax", **settings):
    options = {
        "sampler": UniformSampler(),
        "n_negatives": 4,
        "batch_size": 64,
        "regularization": 0.03,
        "regularization_exponent": 0.6,
        "correct_sampling_bias": True,
        "optimizer": Adam(0.02),
        "seed": 3,
        "n_threads": 2,
    }
    return SampledMFProblem(X, loss=loss, **{**options, **settings})


def after(problem, n_epochs, n_factors=4):
    factors, curve = problem.start(n_factors, 1.0, np.random.RandomState(0)), []
    for _ in range(n_epochs):
        factors, parts = problem.epoch(factors)
        curve.append(parts)
    return factors, np.array(curve)


@all_losses
@pytest.mark.parametrize("exponent", [0.0, 1.0, 0.4])
def test_parts_of_the_objective(exponent, loss):
    """At a rate of nearly 0 the factors stay where they are, and the loss of an epoch is theirs."""
    X = interactions()
    problem = problem_of(X, loss, optimizer=SGD(1e-14), regularization_exponent=exponent)
    factors, curve = after(problem, 200 if loss != "softmax" else 1)
    kept = X.toarray()
    if loss in ("negative_sampling", "bpr"):
        kept[-2] = 0
    W, H = factors.users, factors.items
    np.testing.assert_allclose(curve[0, 1], naive.mf_penalty(kept, W, H, 0.03, exponent), rtol=1e-10)
    value, users = 0.0, np.flatnonzero(kept.sum(axis=1))
    for u in users:
        options = {"share": np.full(N_ITEMS, 1 / N_ITEMS), "n_negatives": 4}
        if loss != "sampled_softmax":
            value += kept[u].sum() * naive.user_objective(loss, W[u], kept[u], H, 0, **options)
    if loss == "sampled_softmax":  # of few negatives it is not the mean
        assert curve[:, 0].std() > 0
    else:
        np.testing.assert_allclose(curve[:, 0].mean(), value / kept.sum(), rtol=1e-12 if loss == "softmax" else 0.01)


def test_a_softmax_step_goes_against_the_gradient():
    """All interactions at once."""
    X = interactions()
    problem = problem_of(X, "softmax", optimizer=SGD(1e-3), batch_size=10**6)
    start = problem.start(4, 1.0, np.random.RandomState(0))
    end, _ = problem.epoch(start)
    dense = X.toarray()
    rows, items = dense.nonzero()
    scale = dense.sum() / X.data.mean()

    def objective(W, H):
        loss = naive.linear_softmax_cross_entropy(
            W[rows], H, np.zeros(N_ITEMS), items, sample_weight=dense[rows, items]
        )
        return scale * (loss.sum() / dense.sum() + naive.mf_penalty(dense, W, H, 0.03, 0.6))

    W, H = start.users, start.items
    np.testing.assert_allclose(
        end.users, W - 1e-3 * naive.finite_differences(lambda w: objective(w, H), W), rtol=0, atol=1e-9
    )
    np.testing.assert_allclose(
        end.items, H - 1e-3 * naive.finite_differences(lambda h: objective(W, h), H), rtol=0, atol=1e-9
    )


def full_softmax(X, factors):
    rows, items = X.nonzero()
    args = factors.users[rows], factors.items, np.zeros(X.shape[1]), items
    return naive.linear_softmax_cross_entropy(*args, sample_weight=X.data).sum() / X.data.sum()


def test_corrected_samples_come_to_what_the_full_softmax_comes_to():
    """Popular items are drawn more often; uncorrected, the model takes them for rarer ones."""
    rng = np.random.default_rng(1)
    X = canonical_csr(csr_array((rng.random((200, N_ITEMS)) < 2 / (2 + np.arange(N_ITEMS))).astype(float)))
    schedule = {"optimizer": Adam(CosineDecay(0.05, 400)), "batch_size": 256, "n_negatives": 256}
    final = {
        name: full_softmax(X, after(problem_of(X, loss, regularization_exponent=1.0, **schedule, **options), 60)[0])
        for name, loss, options in (
            ("full", "softmax", {}),
            ("corrected", "sampled_softmax", {"sampler": PopularitySampler(1.0)}),
            ("uncorrected", "sampled_softmax", {"sampler": PopularitySampler(1.0), "correct_sampling_bias": False}),
            ("in batch", "sampled_softmax", {"sampler": InBatchSampler()}),
            ("in batch, uncorrected", "sampled_softmax", {"sampler": InBatchSampler(), "correct_sampling_bias": False}),
        )
    }
    for name in "", "in batch":
        off = abs(final[name or "corrected"] - final["full"])
        assert off < 0.02
        assert final[f"{name}, uncorrected" if name else "uncorrected"] - final["full"] > 10 * off


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("sampler", [UniformSampler(), PopularitySampler(), InBatchSampler()])
@all_losses
def test_bits_do_not_depend_on_threads(loss, sampler, dtype):
    X = interactions(dtype)
    outcome = {n: after(problem_of(X, loss, sampler=sampler, n_threads=n), 2) for n in (1, 2, 16)}
    for factors, curve in outcome.values():
        assert factors.users.dtype == factors.items.dtype == dtype
        assert factors.users.tobytes() == outcome[1][0].users.tobytes()
        assert factors.items.tobytes() == outcome[1][0].items.tobytes()
        np.testing.assert_array_equal(curve, outcome[1][1])
    assert np.isfinite(outcome[1][1]).all()


@pytest.mark.parametrize("loss", ["sampled_softmax", "bpr"])
def test_rows_that_do_not_occur_keep_their_bits(loss):
    """One step on few interactions in a large table: no row, and no moment, beside those of the batch has changed."""
    X = interactions(shape=(300, 2000), density=0.01)
    problem = problem_of(X, loss, batch_size=X.nnz)
    start = problem.start(4, 1.0, np.random.RandomState(0))
    problem.epoch(start)
    before = [[moment.copy() for moment in moments] for moments in problem.moments]
    problem = problem_of(X, loss, batch_size=8)
    problem.n_steps, order = 1, np.arange(8)
    problem._order = lambda: order
    problem.moments = [[moment.copy() for moment in moments] for moments in before]
    end, _ = problem.epoch(start)
    for side, (old, new) in enumerate([(start.users, end.users), (start.items, end.items)]):
        changed = (old != new).any(axis=1)
        assert 0 < changed.sum() <= (8 if side == 0 else 8 * 5)
        for moment, now in zip(before[side], problem.moments[side], strict=True):
            np.testing.assert_array_equal(moment.reshape(old.shape)[~changed], now.reshape(old.shape)[~changed])
            assert (moment.reshape(old.shape)[changed] != now.reshape(old.shape)[changed]).any()


@pytest.mark.parametrize("loss", ["sampled_softmax", "bpr"])
def test_time_of_a_step_does_not_grow_with_the_tables(loss):
    """A hundred times the rows, the same batches, and, by popularity, the same negatives."""
    seconds = {}
    for factor in 1, 100:
        X = interactions(shape=(200, 500), density=0.05)[:198]  # without the one who has all
        indptr = np.append(X.indptr, np.full(198 * factor - 198, X.nnz))
        X = canonical_csr(csr_array((X.data, X.indices, indptr), (198 * factor, 500 * factor)))
        problem = problem_of(X, loss, sampler=PopularitySampler(), batch_size=1000, n_threads=1)
        factors = problem.start(16, 1.0, np.random.RandomState(0))
        problem.epoch(factors)
        steps = problem._pairs if loss == "bpr" else problem._softmax
        order, rates = problem._order(), problem.optimizer._rates(0, problem.n_steps)
        best = np.inf
        for _ in range(7):
            start = time.perf_counter()
            steps(order, 0, rates, factors.users, factors.items)
            best = min(best, time.perf_counter() - start)
        seconds[factor] = best
    assert seconds[100] < 5 * seconds[1]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("exponent", [0.0, 1.0])
@all_losses
def test_fold_in(loss, exponent, dtype):
    """The minimum of the definition, for known and for new rows, whatever rows are beside."""
    X = interactions(dtype)
    problem = problem_of(X, loss, sampler=PopularitySampler(), regularization_exponent=exponent)
    factors, _ = after(problem, 20)
    users = fold_in(X, factors.items, problem.expectation(), 2)
    assert users.dtype == dtype
    dense, H = X.toarray().astype(float), factors.items.astype(float)
    pairwise = loss in ("negative_sampling", "bpr")
    counts = (dense[:-2] > 0).sum(axis=0) if pairwise else (dense > 0).sum(axis=0)
    share = counts**0.75 / (counts**0.75).sum()
    trained = dense[:-2] if pairwise else dense
    mean = trained.sum() / (trained.sum(axis=1) > 0).sum()
    for u in 0, 1, 7, 20:
        ridge = 0.03 * (dense[u].sum() / mean) ** (exponent - 1)
        arguments = dense[u], H, ridge
        best = minimize(
            lambda w, arguments=arguments: naive.user_objective(loss, w, *arguments, share=share, n_negatives=4),
            np.zeros(4),
            tol=1e-12,
        )
        value = naive.user_objective(loss, users[u].astype(float), *arguments, share=share, n_negatives=4)
        assert value <= best.fun + (1e-9 if dtype == np.float64 else 1e-6)
        np.testing.assert_allclose(users[u], best.x, rtol=0, atol=1e-4 if dtype == np.float64 else 5e-3)
    assert not users[-1].any()
    assert users[-2].any() != pairwise
    order = np.random.default_rng(0).permutation(N_USERS)[:19]
    np.testing.assert_array_equal(
        fold_in(canonical_csr(X[order]), factors.items, problem.expectation(), 1), users[order]
    )
    alone = np.concatenate([fold_in(canonical_csr(X[[u]]), factors.items, problem.expectation(), 16) for u in range(9)])
    np.testing.assert_array_equal(alone, users[:9])


def test_fold_in_of_an_uncorrected_softmax():
    """It minimises what training does: the logits are larger by the logarithm of the counts."""
    X = interactions()
    problem = problem_of(X, sampler=PopularitySampler(), correct_sampling_bias=False)
    factors, _ = after(problem, 20)
    users, dense = fold_in(X, factors.items, problem.expectation(), 2), X.toarray()
    counts = (dense > 0).sum(axis=0) ** 0.75
    shift = np.log(4 * counts / counts.sum())
    ridge = 0.03 * (dense[0].sum() / dense.sum() * (N_USERS - 1)) ** -0.4

    def objective(w):
        return naive.user_objective("softmax", w, dense[0], factors.items, ridge, shift=shift)

    slope = naive.finite_differences(objective, users[0])
    np.testing.assert_allclose(slope, 0, atol=1e-6)


def test_fold_in_of_bpr_with_many_items_takes_some_of_them(monkeypatch):
    monkeypatch.setattr("fastml.training.sampled_mf._MOST_NEGATIVES", 20)
    X = interactions()
    problem = problem_of(X, "bpr")
    factors, expectation = after(problem, 20)[0], problem.expectation()
    assert len(expectation.negatives) < 20
    assert expectation.share.sum() == pytest.approx(1)
    share = np.zeros(N_ITEMS)
    share[expectation.negatives] = expectation.share
    user = fold_in(X, factors.items, expectation, 2)[0]
    row = X.toarray()[0]
    ridge = 0.03 * (row.sum() / X[:-2].sum() * (N_USERS - 2)) ** -0.4
    slope = naive.finite_differences(
        lambda w: naive.user_objective("bpr", w, row, factors.items, ridge, share=share), user
    )
    np.testing.assert_allclose(slope, 0, atol=1e-6)
