"""Epochs of WALS lower the objective that they report, and rows are folded in as an epoch solves for them."""

import naive
import numpy as np
import pytest
from scipy.sparse import csr_array

from fastml.functional._sparse import canonical_csr
from fastml.training.wals import WALSProblem, fold_in

N_USERS, N_ITEMS = 300, 90
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}
SOLVERS = "cholesky", "cg", "block"
IMPLICIT = {
    "feedback": "implicit",
    "regularization": 0.02,
    "unobserved_weight": 0.1,
    "regularization_exponent": 0.7,
}
MODELS = {
    "implicit": IMPLICIT,
    "only observed": {**IMPLICIT, "unobserved_weight": 0.0, "regularization_exponent": 0.0},
    "explicit": {**IMPLICIT, "feedback": "explicit"},
    "weighted": {**IMPLICIT, "feedback": "explicit", "regularization_exponent": 1.0},
}
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
every_solver = pytest.mark.parametrize("solver", SOLVERS)
every_model = pytest.mark.parametrize("model", MODELS)


def interactions(model, dtype):
    """X with an empty user and an empty item, and the weights of its ratings or None."""
    rng = np.random.default_rng(0)
    X = (rng.random((N_USERS, N_ITEMS)) < 0.15) * rng.integers(1, 6, (N_USERS, N_ITEMS))
    X[3], X[:, 5] = 0, 0
    X = canonical_csr(csr_array(X.astype(dtype)))
    return X, rng.uniform(0, 2, X.nnz).astype(dtype) if model == "weighted" else None


def started(model, solver, dtype, n_factors=7, n_threads=2):
    """A problem and the factors that it begins at."""
    X, weights = interactions(model, dtype)
    options = {"solver": solver, "block_size": 4, "n_threads": n_threads}
    problem = WALSProblem(X, weights=weights, **options, **MODELS[model])
    return problem, problem.start(n_factors, 0.3, np.random.RandomState(0))


def terms_of(model):
    """What definitions take."""
    terms = {name: value for name, value in MODELS[model].items() if name != "feedback"}
    if MODELS[model]["feedback"] == "explicit":
        del terms["unobserved_weight"]
    return terms


def weights_of(problem):
    return csr_array((problem.weights, problem.X.indices, problem.X.indptr), problem.X.shape)


def objective(model, problem, factors):
    """Its parts by definition."""
    if factors.item_biases is None:
        return naive.wals_objective(problem.X, *factors[:2], **terms_of(model))
    return naive.ratings_objective(problem.X, *factors, weights=weights_of(problem), **terms_of(model))


def exact(model, X, weights, other, biases, mean):
    """Factors, and biases or None, of the rows of X by definition, given the other side's."""
    if biases is None:
        return naive.wals_users(X, other, **terms_of(model)), None
    return naive.ratings_users(X, other, biases, mean, weights=weights, **terms_of(model))


def assert_near(got, expected):
    """Both are factors, and biases or None."""
    assert (got[1] is None) == (expected[1] is None)
    for a, b in zip(got, expected, strict=True):
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=0, atol=10 * TOLERANCE[a.dtype.type] * abs(b).max())


def assert_same_bits(results):
    first, *others = (tuple(None if array is None else array.tobytes() for array in result) for result in results)
    assert others == [first] * len(others)


@both_dtypes
@every_solver
@every_model
def test_parts_of_the_objective(model, solver, dtype):
    problem, factors = started(model, solver, dtype)
    before = sum(objective(model, problem, factors))
    for _ in range(3):
        factors, parts = problem.epoch(factors)
        np.testing.assert_allclose(parts, objective(model, problem, factors), rtol=TOLERANCE[dtype])
        assert sum(parts) < before
        before = sum(parts)
    assert all(array is None or array.dtype == dtype for array in factors[:4])
    assert not factors.users[3].any()
    assert not factors.items[5].any()


@every_solver
@every_model
def test_an_epoch_leaves_the_old_factors_alone(model, solver):
    problem, factors = started(model, solver, np.float32)
    copies = [None if array is None else array.copy() for array in factors[:4]]
    problem.epoch(factors)
    assert_same_bits([factors[:4], copies])


@both_dtypes
@every_solver
@every_model
def test_the_same_bits_on_any_number_of_threads(model, solver, dtype):
    results = []
    for n_threads in 1, 2, 16:
        problem, factors = started(model, solver, dtype, n_threads=n_threads)
        factors, parts = problem.epoch(problem.epoch(factors)[0])
        results.append([*factors[:4], np.array(parts)])
    assert_same_bits(results)


@pytest.mark.parametrize("size", [8, 100])
@every_model
def test_one_block_of_all_factors_is_the_exact_solution(model, size):
    results = []
    for solver in "cholesky", "block":
        problem, factors = started(model, "cholesky", np.float32)
        problem.solver, problem.block_size = solver, size
        results.append(problem.epoch(factors)[0][:4])
    assert_same_bits(results)


@pytest.mark.parametrize(("n_factors", "same"), [(3, "cholesky"), (40, "cg")])
def test_auto_is_exact_for_few_factors(n_factors, same):
    results = []
    for solver in "auto", same:
        problem, factors = started("implicit", solver, np.float32, n_factors)
        results.append(problem.epoch(factors)[0][:4])
    assert_same_bits(results)


def test_auto_is_exact_without_a_ridge():
    """Where conjugate gradient refuses; here all pairs are rated."""
    X = canonical_csr(csr_array(np.random.default_rng(0).uniform(1, 5, (60, 50))))
    terms, results = {**MODELS["explicit"], "regularization": 0.0}, []
    for solver in "auto", "cholesky":
        problem = WALSProblem(X, solver=solver, block_size=4, n_threads=2, **terms)
        results.append(problem.epoch(problem.start(40, 0.3, np.random.RandomState(0)))[0][:4])
    assert_same_bits(results)


@both_dtypes
@every_model
def test_an_epoch_solves_for_items_then_users(model, dtype):
    problem, start = started(model, "cholesky", dtype)
    X, weights = problem.X, weights_of(problem)
    factors, _ = problem.epoch(start)
    items, users = (factors.items, factors.item_biases), (factors.users, factors.user_biases)
    assert_near(items, exact(model, X.T, weights.T, start.users, start.user_biases, factors.mean))
    assert_near(users, exact(model, X, weights, *items, factors.mean))
    assert_near(fold_in(X, factors, n_threads=2, weights=problem.weights, **MODELS[model]), users)


@both_dtypes
@every_model
@pytest.mark.parametrize("n_factors", [7, 70])
def test_companions_have_no_say_in_folding_in(n_factors, model, dtype):
    problem, factors = started(model, "cholesky", dtype, n_factors)

    def folded(rows):
        X = problem.X[rows]
        weights = weights_of(problem)[rows].data
        return fold_in(canonical_csr(X), factors, n_threads=2, weights=weights, **MODELS[model])

    whole = folded(slice(None))
    shuffled = np.random.default_rng(0).permutation(N_USERS)
    for rows in shuffled, shuffled[:40], [N_USERS - 1], [3], [0, 3, 0]:
        assert_same_bits([folded(rows), [array if array is None else array[rows] for array in whole]])


def test_start():
    for model in MODELS:
        problem, factors = started(model, "cg", np.float64, n_factors=50)
        spread = np.concatenate([factors.users, factors.items]).std() * np.sqrt(50) / 0.3
        assert 0.97 < spread < 1.01  # a user and an item have no entries
        assert not factors.users[3].any()
        assert not factors.items[5].any()
        expected = np.average(problem.X.data, weights=problem.weights) if problem.users.is_explicit else 0
        np.testing.assert_allclose(factors.mean, expected, rtol=1e-12)


@both_dtypes
@every_solver
@pytest.mark.parametrize("model", ["implicit", "explicit"])
def test_singular_systems(model, solver, dtype):
    """More factors than items."""
    X, _ = interactions(model, dtype)
    terms = {**MODELS[model], "regularization": 0.0}
    problem = WALSProblem(canonical_csr(X[:, :12]), solver=solver, block_size=14, n_threads=2, **terms)
    factors = problem.start(20, 0.3, np.random.RandomState(0))
    with pytest.raises(ValueError, match="regularization is too small"):
        problem.epoch(problem.epoch(factors)[0])
    with pytest.raises(ValueError, match="regularization is too small"):
        fold_in(problem.X, factors, n_threads=2, **terms)


@both_dtypes
def test_users_without_ratings(dtype):
    _, factors = started("explicit", "cholesky", dtype)
    for n_rows in 1, 5:
        X = canonical_csr(csr_array((n_rows, N_ITEMS), dtype=dtype))
        users, biases = fold_in(X, factors, n_threads=2, **MODELS["explicit"])
        assert users.shape == (n_rows, 7)
        assert not users.any()
        assert not biases.any()
