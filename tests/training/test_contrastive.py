"""InfoNCE of embedded batches: its gradient, views of rows, and recall that counts ties honestly."""

import naive
import numpy as np
import pytest
from scipy.sparse import csr_array

from fastml.optim import SGD
from fastml.training.contrastive import (
    LEAST_TEMPERATURE,
    PairProblem,
    ViewProblem,
    WholeBatches,
    embed,
    recall_at_1,
)
from fastml.training.network import Network

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 5)), RNG.normal(size=(40, 7))
IDS, LOG_Q = RNG.integers(12, size=40), RNG.normal(size=40)


def pair_problem(X=X, Y=Y, ids=IDS, n_threads=2, dtype=np.float64, **options):
    networks = [
        Network((5, 6, 3), activation="tanh", dtype=dtype, n_threads=n_threads),
        Network((7, 3), dtype=dtype, n_threads=n_threads),
    ]
    options = {"temperature": 0.3, "symmetric": True, "log_q": LOG_Q, **options}
    return PairProblem(networks, X, Y, ids, n_threads=n_threads, **options)


def start(problem, temperature=0.3):
    values = problem.pack([network.start("auto", 0) for network in problem.networks], temperature)
    return values + 0.1 * np.random.default_rng(1).normal(size=values.size).astype(values.dtype)


def defined_loss(problem, rows, values):
    """The mean of the loss as ``naive`` has it, and the penalty."""
    parts = problem.split(values)
    sides = [
        n.predict(A[rows], part) for n, A, part in zip(problem.networks, (problem.X, problem.Y), parts, strict=True)
    ]
    temperature = np.exp(values[-1]) if problem.is_learned else problem.fixed
    options = {"temperature": temperature, "symmetric": problem.symmetric, "ids": problem.ids[rows]}
    losses = naive.info_nce(*sides, log_q=None if problem.log_q is None else problem.log_q[rows], **options)
    squares = sum((part[: n.n_coef] ** 2).sum() for n, part in zip(problem.networks, parts, strict=True))
    return losses.mean() + problem.alpha / 2 * squares


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": "learn", "alpha": 0.1},
        {"X": csr_array(X), "Y": csr_array(Y)},
        {"ids": np.arange(40), "log_q": None},
    ],
)
def test_gradient(options, symmetric):
    problem = pair_problem(symmetric=symmetric, **options)
    values, rows = start(problem), np.random.default_rng(2).permutation(40)[:17]
    grad = np.full_like(values, np.nan)
    assert problem.n_trained == values.size
    np.testing.assert_allclose(problem.batch_loss_grad(rows, values, grad), defined_loss(problem, rows, values))
    expected = naive.finite_differences(lambda v: defined_loss(problem, rows, v), values)
    np.testing.assert_allclose(grad, expected, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_bits_on_any_number_of_threads(dtype):
    X, Y = (np.random.default_rng(0).normal(size=(700, d)).astype(dtype) for d in (5, 7))
    results = []
    for n_threads in 1, 2, 5:
        problem = pair_problem(X, csr_array(Y), np.arange(700), n_threads, dtype, log_q=None, temperature="learn")
        values = start(problem)
        grad = np.empty_like(values)
        results.append((problem.batch_loss_grad(np.arange(699, -1, -1), values, grad), grad.tobytes()))
    assert results[0] == results[1] == results[2]
    assert grad.dtype == dtype


def test_a_learned_temperature_is_bounded():
    problem = pair_problem(temperature="learn")
    values = start(problem)
    values[-1] = np.log(LEAST_TEMPERATURE) - 1
    grad = np.empty_like(values)
    problem.batch_loss_grad(np.arange(20), values, grad)
    assert grad[-1] <= 0  # a step of descent does not lower it
    assert problem.temperature(values) == LEAST_TEMPERATURE
    assert pair_problem(temperature=1e-3).temperature(values) == 1e-3


def test_whole_batches():
    seen = []

    class Seen(PairProblem):
        def batch_loss_grad(self, rows, values, grad):
            seen.append(rows)
            return super().batch_loss_grad(rows, values, grad)

    problem = pair_problem()
    problem.__class__ = Seen
    for size, n_batches in (16, 2), (20, 2), (39, 1), (100, 1):
        seen.clear()
        order = np.random.default_rng(size).permutation(40)
        steps = WholeBatches(problem, SGD(0.0), start(problem), batch_size=size, l2=0.0, l1=0.0)
        loss = steps.epoch(order)
        used = min(size, 40) * n_batches
        np.testing.assert_array_equal(np.concatenate(seen), order[:used])
        np.testing.assert_allclose(loss, np.mean([defined_loss(problem, rows, start(problem)) for rows in seen]))


def view_problem(labels, n_threads=1, **options):
    network = Network((5, 3), dtype=np.float64, n_threads=n_threads)
    options = {"seed": 3, "rate": 0.4, "temperature": 0.3, "symmetric": True, **options}
    return ViewProblem(network, X, labels, n_threads=n_threads, **options)


def test_views():
    problem, rows = view_problem(np.arange(40)), np.array([7, 0, 31])
    problem.step = 5
    (views,) = problem._inputs(rows)
    expected = [naive.corrupted(X, rows, 3, 10 + view, 0.4) for view in (0, 1)]
    np.testing.assert_array_equal(views, np.concatenate(expected))
    np.testing.assert_array_equal(view_problem(np.arange(40), rate=0.0)._inputs(rows)[0], X[[*rows, *rows]])


def test_partners_have_the_same_label():
    labels = np.arange(40) % 3
    problem, rows, seen = view_problem(labels, rate=0.0), np.arange(40), set()
    for problem.step in range(60):
        partners = problem._partners(rows)
        np.testing.assert_array_equal(labels[partners], labels)
        np.testing.assert_array_equal(problem._inputs(rows)[0][40:], X[partners])
        seen.update(zip(rows.tolist(), partners.tolist(), strict=True))
    assert len(seen) > 0.97 * sum(n**2 for n in np.bincount(labels))  # all pairs come up


def test_gradient_of_views():
    problem, rows = view_problem(np.arange(40) % 12), np.arange(20)
    values = start(problem)
    grad, (network,) = np.empty_like(values), problem.networks

    def loss(v):
        outputs = network.predict(problem._inputs(rows)[0], v)
        return naive.info_nce(outputs[:20], outputs[20:], temperature=0.3, symmetric=True, ids=rows % 12).mean()

    np.testing.assert_allclose(problem.batch_loss_grad(rows, values, grad), loss(values))
    np.testing.assert_allclose(grad, naive.finite_differences(loss, values), atol=1e-7)


def test_recall():
    queries, keys = np.eye(4), np.eye(4)[[0, 1, 3, 2]]
    assert recall_at_1(queries, keys, np.arange(4), 1) == 0.5
    assert recall_at_1(queries, keys, np.array([0, 1, 2, 2]), 1) == 1.0  # any key with the query's id is right
    assert recall_at_1(queries[:1], keys[:1], np.arange(1), 1) == 1.0
    assert recall_at_1(queries, keys[[0, 0, 0, 0]], np.arange(4), 1) == 0.25


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_recall_of_constant_embeddings_is_chance(dtype):
    row = np.random.default_rng(0).normal(size=13)
    rows = np.tile((row / np.linalg.norm(row)).astype(dtype), (1500, 1))
    np.testing.assert_allclose(recall_at_1(rows, rows, np.arange(1500), 2), 1 / 1500)
    np.testing.assert_allclose(recall_at_1(0 * rows, rows, np.arange(1500), 2), 1 / 1500)
    np.testing.assert_allclose(recall_at_1(rows, rows, np.arange(1500) % 3, 2), 1 / 3)


def test_embeddings_of_zeros_and_of_huge_numbers():
    network = Network((5, 3), dtype=np.float64)
    values, rows = network.start("auto", 0), np.zeros((2, 5))
    np.testing.assert_array_equal(embed(network, rows, values), np.zeros((2, 3)))
    rows[1] = 1e300
    with pytest.raises(ValueError, match="embedding of row 1 overflows float64"):
        embed(network, rows, values)


def test_overflow_is_told():
    problem = pair_problem(Y=Y * 1e300)
    values = start(problem)
    values[:] = 1e10
    assert np.isnan(problem.batch_loss_grad(np.arange(9), values, np.empty_like(values)))
