"""Half-steps of WALS: each row beside its normal equations, for all ways to solve them."""

import dataclasses
import functools
import itertools
import mmap
import sys

import naive
import numpy as np
import pytest
from numba import config

from fastml.runtime.wals import Side, half_step, sort_rows

N_FACTORS = [3, 17] if config.DISABLE_JIT else [1, 3, 16, 17, 64, 70]
N_ENTRIES = [0, 1, 7, 8, 9, 64, 65, 129, 0, 200 if config.DISABLE_JIT else 2000]
N_ITEMS = N_ENTRIES[-1] + 100
EMPTY = np.array(N_ENTRIES) == 0
MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # from Python 3.13 on
SOLVERS = {
    "exact": {"size": 128},
    "blocks of 1": {"size": 1},
    "blocks of 5": {"size": 5},
    "conjugate gradient": {"n_steps": 3},
}

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
unobserved = pytest.mark.parametrize("a0", [0.0, 0.1])
every_solver = pytest.mark.parametrize("solver", SOLVERS)
every_n_factors = pytest.mark.parametrize("n_factors", N_FACTORS)


@dataclasses.dataclass(frozen=True)
class Problem:
    """Factors of both sides, the rows (indptr, indices, weight, target), what unobserved pairs weigh, the ridge."""

    H: np.ndarray
    W: np.ndarray
    rows: tuple
    a0: float
    ridge: np.ndarray

    @functools.cached_property
    def systems(self):
        """Normal equations of each row."""
        systems = []
        for (items, *values), ridge in zip(self.entries(), self.ridge, strict=True):
            c, t = np.zeros((2, len(self.H)))
            c[items], t[items] = values
            systems.append(naive.normal_equations(self.H, c, t, self.a0, ridge))
        return systems

    def entries(self):
        """Items, weights and targets of each row."""
        indptr, *arrays = self.rows
        for begin, end in itertools.pairwise(indptr):
            yield [array[begin:end] for array in arrays]

    def by_row(self, solve):
        """What ``solve(A, b, w, i)`` makes of each row's system and factors; 0 of an empty row's."""
        rows = zip(self.systems, self.W.astype(float), np.diff(self.rows[0]), strict=True)
        return np.array([solve(*system, w, i) if n else 0 * w for i, (system, w, n) in enumerate(rows)])

    def exact(self):
        return self.by_row(lambda A, b, w, i: np.linalg.solve(A, b))

    def losses(self, W):
        """sum c (t - w.h)^2 of each row."""
        H, rows = self.H.astype(float), zip(self.entries(), W, strict=True)
        return np.array([(c * (t - H[items] @ w) ** 2).sum() for (items, c, t), w in rows])

    def objectives(self, W):
        """What each row minimises."""
        H, W = self.H.astype(float), W.astype(float)
        return self.losses(W) + self.a0 * ((W @ H.T) ** 2).sum(axis=1) + self.ridge * (W**2).sum(axis=1)


@functools.cache
def problem(n_factors, dtype, a0, n_entries=tuple(N_ENTRIES), n_items=N_ITEMS):
    """Random; a fifth of the weights are 0, and the factors begin far from the solution."""
    rng = np.random.default_rng(n_factors)
    H, W = (rng.standard_normal((n, n_factors)) / np.sqrt(n_factors) for n in (n_items, len(n_entries)))
    indptr = np.append(0, np.cumsum(n_entries))
    indices = np.concatenate([np.sort(rng.permutation(n_items)[:n]) for n in n_entries])
    weight, target = rng.uniform(0, 2, len(indices)), rng.standard_normal(len(indices))
    weight[::5], ridge = 0, rng.uniform(0.1, 1, len(W))
    H, W, weight, target, ridge = (x.astype(dtype) for x in (H, W, weight, target, ridge))
    return Problem(H, W, (indptr, indices, weight, target), a0, ridge)


def blocks(n_factors, size):
    starts = np.arange(0, n_factors, size)
    return np.column_stack([starts, np.minimum(starts + size, n_factors)])


def solved(given, size=None, n_steps=0, n_threads=2, loss=None):
    """New factors by blocks of a size, or by steps of conjugate gradient."""
    how = None if size is None else blocks(given.W.shape[1], size)
    side = Side(sort_rows(*given.rows), given.ridge, given.a0, how, n_steps)
    return half_step(side, given.H, given.W, n_threads, loss)


def assert_near(got, expected):
    assert got.shape == expected.shape
    assert abs(got - expected).max() <= 200 * np.finfo(got.dtype).eps * abs(expected).max()


@both_dtypes
@unobserved
@every_n_factors
def test_exact_solution(n_factors, a0, dtype):
    given = problem(n_factors, dtype, a0)
    got = solved(given, n_factors)
    assert got.dtype == dtype
    assert_near(got, given.exact())
    assert not got[EMPTY].any()


@both_dtypes
@every_n_factors
@pytest.mark.parametrize("size", [1, 5, 16, 20])
def test_blocks(size, n_factors, dtype):
    """One after the other; of size 1 they are coordinate descent."""
    given = problem(n_factors, dtype, 0.0)
    assert_near(solved(given, size), given.by_row(lambda A, b, w, i: naive.block_descent(A, b, w, size)))


@both_dtypes
@pytest.mark.parametrize("size", [1, 5, 16])
def test_blocks_lead_to_the_exact_solution(size, dtype):
    """With an unobserved part they are blocks of the Gramian's eigenvectors."""
    now = given = dataclasses.replace(problem(17, dtype, 0.1), ridge=np.full(len(N_ENTRIES), 2, dtype))
    for _ in range(20):
        now = dataclasses.replace(now, W=solved(now, size))
    assert_near(now.W, given.exact())


@both_dtypes
@unobserved
@every_n_factors
@pytest.mark.parametrize("n_steps", [1, 3])
def test_conjugate_gradient(n_steps, n_factors, a0, dtype):
    given = problem(n_factors, dtype, a0)
    gramian = a0 * given.H.astype(float).T @ given.H.astype(float)

    def steps(A, b, w, i):
        return naive.conjugate_gradient(A, b, w, gramian + given.ridge[i] * np.eye(n_factors), n_steps)

    got = solved(given, n_steps=n_steps)
    assert_near(got, given.by_row(steps))
    assert not got[EMPTY].any()


@both_dtypes
@unobserved
@every_n_factors
def test_conjugate_gradient_leads_to_the_exact_solution(n_factors, a0, dtype):
    given = problem(n_factors, dtype, a0)
    assert_near(solved(given, n_steps=100), given.exact())


@both_dtypes
@unobserved
@every_n_factors
@every_solver
def test_each_half_step_lowers_the_objective(solver, n_factors, a0, dtype):
    given = problem(n_factors, dtype, a0)
    objectives, loss = [given.objectives(given.W)], np.full(len(given.W), np.nan)
    for _ in range(2):
        given = dataclasses.replace(given, W=solved(given, **SOLVERS[solver], loss=loss))
        assert_near(loss.astype(dtype), given.losses(given.W))
        objectives.append(given.objectives(given.W))
    first, second, third = objectives
    assert (second < first)[~EMPTY].all()
    assert (third <= second * (1 + 4 * np.finfo(dtype).eps)).all()


@unobserved
def test_what_came_in_stays_as_it_was(a0):
    given = problem(17, np.float64, a0)
    H, W = given.H.copy(), given.W.copy()
    solved(given, 5)
    np.testing.assert_array_equal(given.H, H)
    np.testing.assert_array_equal(given.W, W)


@both_dtypes
@unobserved
@every_solver
def test_the_same_bits_on_any_number_of_threads(solver, a0, dtype):
    n_entries = np.random.default_rng(0).zipf(1.7, 50 if config.DISABLE_JIT else 1000).clip(max=N_ITEMS) - 1
    given = problem(17, dtype, a0, tuple(n_entries))
    results = []
    for n_threads in 1, 2, 16:
        loss = np.empty(len(n_entries))
        results.append((solved(given, **SOLVERS[solver], n_threads=n_threads, loss=loss).tobytes(), loss.tobytes()))
    assert results[1:] == results[:1] * 2


def short_rows(n_factors, n_items, dtype, a0, ridge):
    """More factors than items, or rows shorter than their factors."""
    given = problem(n_factors, dtype, a0, (2, 0, min(n_items, 5)), n_items)
    return dataclasses.replace(given, ridge=np.array([ridge, 0, ridge], dtype))


@both_dtypes
@every_solver
@pytest.mark.parametrize(("n_factors", "n_items"), [(6, 5), (20, 12), (64, 5)])
def test_more_factors_than_items_need_a_ridge(n_factors, n_items, solver, dtype):
    with pytest.raises(ValueError, match="regularization is too small: .* Raise it above 0"):
        solved(short_rows(n_factors, n_items, dtype, 0.1, 0), **SOLVERS[solver])
    given = short_rows(n_factors, n_items, dtype, 0.1, 0.1)
    assert_near(solved(given, n_factors), given.exact())


@both_dtypes
@pytest.mark.parametrize("solver", ["exact", "blocks of 5", "conjugate gradient"])
def test_rows_with_fewer_entries_than_factors_need_a_ridge(solver, dtype):
    """Unless all pairs count."""
    with pytest.raises(ValueError, match="regularization is too small: .* Raise it above 0"):
        solved(short_rows(8, 40, dtype, 0.0, 0), **SOLVERS[solver])
    given = short_rows(8, 40, dtype, 0.1, 0)
    assert_near(solved(given, 8), given.exact())


@both_dtypes
def test_rounding_errors_are_no_pivots(dtype):
    """One entry and two factors: what is left of the second pivot is noise, often above 0."""
    given = problem(2, dtype, 0.0, (1,) * 20, 30)
    for i, entry in enumerate(given.entries()):
        row = dataclasses.replace(given, W=given.W[[i]], ridge=np.zeros(1, dtype), rows=(np.array([0, 1]), *entry))
        with pytest.raises(ValueError, match="regularization is too small"):
            solved(row, 2)


@both_dtypes
@unobserved
@pytest.mark.parametrize("solver", ["exact", "blocks of 5"])
def test_a_ridge_that_is_lost_in_rounding_is_none(solver, a0, dtype):
    with pytest.raises(ValueError, match="regularization is too small"):
        solved(short_rows(20, 12, dtype, a0, np.finfo(dtype).smallest_subnormal), **SOLVERS[solver])


@both_dtypes
@pytest.mark.filterwarnings("ignore:overflow|invalid value:RuntimeWarning")  # uncompiled
def test_a_step_that_overflows_is_not_taken(dtype):
    """The reciprocal of the ridge is infinite."""
    given = short_rows(20, 12, dtype, 0.0, np.finfo(dtype).smallest_subnormal)
    np.testing.assert_array_equal(solved(given, n_steps=3)[[0, 2]], given.W[[0, 2]])


def far(values, at):
    """The values from a place on that 32 bits cannot count, in an array whose other pages were never touched."""
    size = (at + len(values)) * values.itemsize
    try:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    except OSError as error:
        pytest.skip(f"{size} bytes of address space: {error}")
    array = np.frombuffer(memory, values.dtype)
    array[at:] = values
    return array


@both_dtypes
@every_solver
@pytest.mark.skipif(sys.platform != "linux", reason="needs memory that is not there")
def test_more_entries_than_32_bits_count(solver, dtype):
    """Rows that begin before, across and behind 2^31 stored entries."""
    given, at = problem(17, dtype, 0.1), 2**31 - 70
    indptr, *arrays = given.rows
    moved = dataclasses.replace(given, rows=(indptr + at, *(far(array, at) for array in arrays)))
    results = []
    for one in given, moved:
        loss = np.empty(len(given.W))
        results.append((solved(one, **SOLVERS[solver], loss=loss).tobytes(), loss.tobytes()))
    assert results[0] == results[1]
