"""L-BFGS of independent outputs: each reaches its own optimum, whatever the others do."""

import naive
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.sparse import csr_array

from fastml.functional._sparse import canonical_csr
from fastml.kernels import lbfgs as kernels
from fastml.kernels._loss_tile import BINARY_CROSS_ENTROPY, HUBER, settings
from fastml.training import lbfgs
from fastml.training.lbfgs import minimize_outputs
from fastml.training.linear_problem import LinearProblem

LOSSES = {"binary_cross_entropy": (BINARY_CROSS_ENTROPY, {}), "huber": (HUBER, {"delta": 0.4})}


def make(name, dtype=np.float64, is_sparse=False, fit_intercept=True, n=60, d=4, n_outputs=5, n_threads=2):
    """A problem whose outputs differ: rare and frequent, easy and hard."""
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((n, d)) + [3, 0, 0, -1]) * [1, 10, 0.1, 1]
    X[rng.random(X.shape) < 0.3] = 0
    target = (rng.random((n, n_outputs)) < np.linspace(0.05, 0.9, n_outputs)) * 1.0
    target[:, 0] = (X[:, 0] > 4) * 1.0
    kind, numbers = LOSSES[name]
    rows = canonical_csr(csr_array(X.astype(dtype))) if is_sparse else X.astype(dtype)
    loss, weight = settings(np.dtype(dtype), kind, **numbers), rng.random(n) + 0.5
    options = {"fit_intercept": fit_intercept, "n_threads": n_threads}
    return LinearProblem(rows, target.astype(dtype), weight, n_outputs, loss, **options), X, target, weight, numbers


def optimum(name, X, target, weight, numbers, l2, fit_intercept):
    """Objective of each output at its optimum, by SciPy on the definition."""
    w, X = weight / weight.sum(), np.column_stack([X, np.ones(len(X))])
    X = X / (scale := np.abs(X).max(axis=0))

    def objective(values, t):
        coef = values / scale
        coef[-1] *= fit_intercept
        z = X * scale @ coef
        loss = getattr(naive, name)(z, t, w, **numbers).sum() + l2 / 2 * coef[:-1] @ coef[:-1]
        grad = (X * scale).T @ getattr(naive, f"{name}_grad")(z, t, w, **numbers)
        grad[:-1] += l2 * coef[:-1]
        grad[-1] *= fit_intercept
        return loss, grad / scale

    options = {"method": "BFGS", "jac": True, "options": {"gtol": 1e-10, "maxiter": 5000}}
    return [minimize(objective, np.zeros(X.shape[1]), (t,), **options).fun for t in target.T]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_every_output_reaches_its_optimum(name, fit_intercept, is_sparse, dtype):
    problem, *data = make(name, dtype, is_sparse, fit_intercept)
    losses, tol = [], 1e-7 if dtype == np.float64 else 1e-4
    values, trouble = minimize_outputs(
        problem, np.zeros(problem.n_coef + 5, dtype), l2=1e-3, max_iter=500, tol=tol,
        on_iteration=lambda loss, values: losses.append(loss),
    )  # fmt: skip
    assert trouble is None
    assert values.dtype == dtype
    coef = values[: problem.n_coef].astype(np.float64)
    got = problem.loss(values) + 1e-3 / 2 * coef @ coef
    expected = sum(optimum(name, *data, 1e-3, fit_intercept))
    np.testing.assert_allclose(got, expected, rtol=1e-9 if dtype == np.float64 else 2e-5)
    assert (np.diff(losses) <= 0).all()
    assert fit_intercept or not values[problem.n_coef :].any()


def test_an_output_does_not_know_of_the_others(monkeypatch):
    problem, *_ = make("binary_cross_entropy")
    start = np.random.default_rng(1).standard_normal(problem.n_coef + 5)

    def solve(problem, start):
        options = {"l2": 1e-3, "max_iter": 500, "tol": 1e-6, "on_iteration": lambda loss, values: False}
        return problem.coef(minimize_outputs(problem, start, **options)[0])

    together = solve(problem, start)
    coef, intercept = problem.coef(start)
    for few in 0.0, 0.9:  # going on with the active ones alone never, and at once
        monkeypatch.setattr(lbfgs, "_FEW", few)
        for got, expected in zip(solve(problem, start), together, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-5)
    for k in range(5):
        alone = problem.of_outputs(np.array([k]))
        for got, expected in zip(solve(alone, alone.join(coef[[k]], intercept[[k]])), together, strict=True):
            np.testing.assert_allclose(got[0], expected[k], rtol=1e-5)


def test_the_same_bits_on_any_number_of_threads():
    results = []
    for n_threads in 1, 2, 16:
        problem, *_ = make("binary_cross_entropy", np.float32, n_threads=n_threads)
        options = {"l2": 1e-3, "max_iter": 500, "tol": 1e-4, "on_iteration": lambda loss, values: False}
        results.append(minimize_outputs(problem, np.zeros(problem.n_coef + 5, np.float32), **options)[0])
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_iterations_are_limited_and_can_be_stopped():
    problem, *_ = make("binary_cross_entropy")
    for stop_at, max_iter, expected in (None, 3, 3), (2, 50, 2):
        seen = []
        _, trouble = minimize_outputs(
            problem, np.zeros(problem.n_coef + 5), l2=1e-3, max_iter=max_iter, tol=1e-12,
            on_iteration=lambda loss, values, seen=seen, at=stop_at: seen.append(loss) or len(seen) == at,
        )  # fmt: skip
        assert len(seen) == expected
        assert (trouble is None) == (stop_at is not None)


def state_of_one(point, grad, direction, slope, pairs=0):
    """An output with three values, in the middle of its work."""
    state = kernels.State(
        np.array([kernels.ACTIVE]), *(np.array([a]) for a in (point, grad, direction)), np.zeros((1, 3)),
        np.ones((1, 3, 3)), np.zeros((1, 3, 3)), np.full((1, 3), -9.0), np.array([pairs]), np.ones(1),
        np.array([slope]),
    )  # fmt: skip
    shape = kernels.Shape(np.zeros(2), np.zeros(2), np.ones(1), 0.0, 1e-9, 1e-9, True)
    return shape, state


def test_spoilt_pairs_are_forgotten():
    grad = np.array([1.0, 2.0, 3.0])
    shape, state = state_of_one(np.zeros(3), grad, -grad, -14.0, pairs=2)  # pairs without curvature
    w = np.zeros((1, 3))
    kernels.advance(0, 1, w, grad[np.newaxis], shape, state)
    assert state.n_pairs[0] == 0
    np.testing.assert_allclose(state.direction[0], -0.1 * grad)
    assert state.slope[0] < 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
def test_steps_uphill_are_cut_until_they_are_tiny(bad):
    grad = np.array([1.0, 2.0, 3.0])
    shape, state = state_of_one(np.zeros(3), grad, -grad, -14.0)
    w, rounds = np.zeros((1, 3)), 0
    while state.status[0] == kernels.ACTIVE:
        before = state.step[0]
        kernels.advance(0, 1, w, np.full((1, 3), -bad), shape, state)
        assert state.step[0] < before
        rounds += 1
    assert 3 < rounds < 30
    np.testing.assert_array_equal(w, 0)
    np.testing.assert_array_equal(state.point, 0)
