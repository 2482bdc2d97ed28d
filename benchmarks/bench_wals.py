"""WALS beside implicit and irspack: to the same objective, epoch by epoch, and recommending.

``python benchmarks/bench_wals.py`` takes the candidates in turns and prints the ratios. Words pick the comparisons
whose names have all of them: ``bench_wals.py epoch cg 64``. ``bench_wals.py growth`` prints what an entry costs as
entries grow, ``bench_wals.py plots FOLDER`` draws. With pytest the comparisons run once, and assert what is compared.

One objective serves all. implicit minimises, for weights ``alpha`` of the stored entries S and scores s,

    sum_S alpha (1 - s)^2 + sum_notS s^2 + reg |factors|^2.

With ``t = alpha / (alpha - 1)`` and factors sqrt(t) times those of WALS, so that s is t times as large, this is

    alpha t (sum_S (1 - s)^2 + 1 / (alpha - 1) sum_all s^2 + reg / alpha |factors|^2) - t |S|

in the scores and factors of WALS. irspack minimises half of what WALS does.
"""

import functools
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from _data import FOLDER, gowalla, interactions
from _memory import peak_extra_memory
from _peers import N_THREADS, PEAKS, compare, print_comparisons, timed
from bench_softmax_classifier import Until
from numba import njit
from scipy.sparse import csr_matrix
from threadpoolctl import ThreadpoolController

from fastml import WALS
from fastml.functional._sparse import canonical_csr
from fastml.runtime import run_blocks
from fastml.training.wals import WALSProblem

try:
    import implicit
except ImportError:
    implicit = None
try:
    import irspack
except ImportError:
    irspack = None

ALPHA, REG = 10.0, 0.1  # implicit's
RATIO = ALPHA / (ALPHA - 1)  # of its scores to those of WALS
SCALE = np.float32(RATIO**-0.5)  # of factors of WALS to its own
TERMS = {"regularization": REG / ALPHA, "unobserved_weight": 1 / (ALPHA - 1), "regularization_exponent": 0.0}
BLOCK_SIZE, CG_STEPS = 64, 3
SHAPE, N_ENTRIES = (60_000, 12_000), 4_500_000
ONE_BLAS_THREAD = functools.partial(ThreadpoolController().limit, limits=1, user_api="blas")  # as implicit advises
SMALL = {"n_entries": 30_000, "shape": (1000, 300)}


@njit(nogil=True, fastmath={"reassoc", "contract"})
def _squared_errors(start, stop, indptr, indices, users, items, errors):
    for u in range(start, stop):
        w = users[u]
        for k in range(indptr[u], indptr[u + 1]):
            h, score = items[indices[k]], 0.0
            for j in range(len(w)):
                score += np.float64(w[j]) * np.float64(h[j])
            errors[u] += (score - 1) ** 2


def objective(X, users, items):
    """Of WALS with TERMS, in double precision, for a CSR of ones."""
    errors = np.zeros(len(users))
    run_blocks(_squared_errors, len(users), 256, N_THREADS, X.indptr, X.indices, users, items, errors)
    gramians = [factors.T @ factors for factors in (users.astype(np.float64), items.astype(np.float64))]
    unobserved, penalty = (gramians[0] * gramians[1]).sum(), np.trace(gramians[0]) + np.trace(gramians[1])
    return errors.sum() + TERMS["unobserved_weight"] * unobserved + TERMS["regularization"] * penalty


# ---------------------------------------------------------------------------------------------- to the same objective


class Point(NamedTuple):
    """How far a fit was at the end of an epoch."""

    seconds: float
    objective: float


class Course:
    """Runs from when it is made: the points of a fit, without the time in which the objective was computed."""

    def __init__(self, X, scale=1):
        self.X, self.scale, self.points, self.start = X, scale, [], time.perf_counter()

    def add(self, users, items):
        now = time.perf_counter()
        self.points.append(Point(now - self.start, objective(self.X, self.scale * users, self.scale * items)))
        self.start += time.perf_counter() - now


def course_of_fastml(X, n_factors, solver, *, goal=-np.inf, max_iter=100):
    """Points of ``WALS.fit`` up to the epoch that reaches the goal; everything from the CSR on is counted."""
    options = {**TERMS, "solver": solver, "block_size": BLOCK_SIZE, "n_jobs": N_THREADS, "random_state": 0}
    WALS(n_factors, max_iter=1, **options).fit(X[:200])  # loads or compiles the kernels
    model = WALS(n_factors, max_iter=max_iter, **options)

    def is_enough(fitted):
        course.add(fitted.user_factors_, fitted.item_factors_)
        return course.points[-1].objective <= goal

    model.set_callbacks(Until(is_enough))
    course = Course(X)
    model.fit(X)
    return course.points


def course_of_implicit(X, n_factors, *, max_iter=15):
    """Points of ``AlternatingLeastSquares.fit``."""
    X = csr_matrix(X)
    with ONE_BLAS_THREAD():
        model = make_implicit(n_factors, iterations=max_iter)
        course = Course(X, SCALE)
        model.fit(X, show_progress=False, callback=lambda *_: course.add(model.user_factors, model.item_factors))
    return course.points


def make_implicit(n_factors, **options):
    options = {"alpha": ALPHA, "regularization": REG, "num_threads": N_THREADS, "random_state": 0, **options}
    return implicit.cpu.als.AlternatingLeastSquares(n_factors, use_cg=True, **options)


def goal_of_implicit(X, *, solver, n_factors):
    """Seconds to the objective that implicit has after 15 iterations."""
    theirs = course_of_implicit(X, n_factors)
    ours = course_of_fastml(X, n_factors, solver, goal=theirs[-1].objective)
    assert ours[-1].objective <= theirs[-1].objective
    return theirs[-1].seconds, ours[-1].seconds, f"{len(ours)} epochs to {theirs[-1].objective:.5g}", len(ours)


# ---------------------------------------------------------------------------------------------- epochs


def epochs_of_fastml(X, solver, n_factors):
    """Two functions: one does an epoch, the other returns the factors of users and items in the terms of WALS."""
    options = {"solver": solver, "block_size": BLOCK_SIZE, "n_threads": N_THREADS}
    problem = WALSProblem(canonical_csr(X), feedback="implicit", **TERMS, **options)
    factors = problem.start(n_factors, 0.1, np.random.RandomState(0))

    def epoch():
        nonlocal factors
        factors, _ = problem.epoch(factors)

    return epoch, lambda: (factors.users, factors.items)


def epochs_of_implicit(X, solver, n_factors):
    """An iteration: what its ``fit`` does over and over."""
    with ONE_BLAS_THREAD():
        model = make_implicit(n_factors, iterations=0)
        model.fit(csr_matrix(X), show_progress=False)
    by_user, factors = csr_matrix(np.float32(ALPHA) * X), [model.user_factors, model.item_factors]
    sides = (by_user, *factors), (by_user.T.tocsr(), *factors[::-1])

    def epoch():
        with ONE_BLAS_THREAD():
            for side in sides:
                model.solver(*side, REG, num_threads=N_THREADS)

    return epoch, lambda: [SCALE * array for array in factors]


def make_irspack(X, solver, n_factors):
    terms = dict(zip(("reg", "alpha0", "nu"), TERMS.values(), strict=True))
    solver_type = "IALSPP" if solver == "block" else solver.upper()
    options = {"solver_type": solver_type, "max_cg_steps": 3, "ialspp_subspace_dimension": BLOCK_SIZE}
    model = irspack.IALSRecommender(csr_matrix(X), n_factors, **terms, **options, n_threads=N_THREADS)
    model.start_learning()
    return model


def epochs_of_irspack(X, solver, n_factors):
    model = make_irspack(X, solver, n_factors)
    return model.run_epoch, lambda: (model.get_user_embedding(), model.get_item_embedding())


def epochs_of_cholesky(X, solver, n_factors):
    return epochs_of_fastml(X, "cholesky", n_factors)


def epoch_against(epochs_of_peer, X, *, solver, n_factors, rounds=3):
    """Median seconds of an epoch, in turns, after one to warm up; objectives after as many epochs of both."""
    both = [make(X, solver, n_factors) for make in (epochs_of_peer, epochs_of_fastml)]
    seconds = [[timed(epoch)[1] for epoch, _ in both] for _ in range(1 + rounds)]
    theirs, ours = (objective(X, *factors()) for _, factors in both)
    assert ours <= 1.02 * theirs
    PEAKS.update(zip(("peer", "fastml"), (peak_extra_memory(epoch) for epoch, _ in both), strict=True))
    return *np.median(seconds[1:], axis=0), f"objective after {rounds + 1} epochs {theirs:.5g}, {ours:.5g}", 1


def operations(X, solver, n_factors):
    """Of an epoch at least: Gramians, then for each row its system, from its entries, and the steps or the solution."""
    f, n_rows, b = n_factors, sum(X.shape), min(BLOCK_SIZE, n_factors)
    an_entry = {"cholesky": f**2, "block": f * b + 4 * f}.get(solver, 4 * f * (CG_STEPS + 1))
    a_row = {"cholesky": f**3 / 3 + 2 * f**2, "block": f * b**2 / 3 + 2 * f**2}.get(solver, 2 * f**2 * (CG_STEPS + 1))
    return 2 * X.nnz * an_entry + n_rows * (f**2 + a_row)


# ---------------------------------------------------------------------------------------------- recommending


def recommend_against_implicit(X, *, solver, n_factors, k=10):
    """Seconds of the best items of all users, without those they have, from the same factors."""
    model = WALS(n_factors, max_iter=2, solver=solver, n_jobs=N_THREADS, random_state=0, **TERMS).fit(X)
    with ONE_BLAS_THREAD():
        peer = make_implicit(n_factors)
    peer.user_factors, peer.item_factors = model.user_factors_, model.item_factors_
    users, seen = np.arange(X.shape[0]), csr_matrix(X)

    def theirs():
        with ONE_BLAS_THREAD():
            return peer.recommend(users, seen, N=k, filter_already_liked_items=True)

    functions = {"implicit": theirs, "fastml": lambda: model.recommend(users, k=k)}
    np.testing.assert_allclose(functions["fastml"]()[1], theirs()[1], rtol=1e-3, atol=1e-6)
    seconds = compare(functions, rounds=1)
    PEAKS.update({name: peak_extra_memory(function) for name, function in functions.items()})
    return seconds["implicit"], seconds["fastml"], f"{1e6 * seconds['fastml'] / len(users):.0f} us a user", 1


# ---------------------------------------------------------------------------------------------- comparisons


def made_up():
    return [interactions(N_ENTRIES, SHAPE)]


def a_tenth():
    """For many factors: Cholesky's method would take minutes an epoch. Rows are as long as in the whole."""
    return [interactions(N_ENTRIES // 10, tuple(n // 10 for n in SHAPE))]


def real():
    return gowalla()[:1]


AGAINST_IMPLICIT, AGAINST_IRSPACK, AGAINST_CHOLESKY = (
    functools.partial(epoch_against, epochs) for epochs in (epochs_of_implicit, epochs_of_irspack, epochs_of_cholesky)
)
CASES = {  # what is compared, the solver, numbers of factors
    "goal implicit cg": (goal_of_implicit, "cg", (64, 128, 256)),
    "goal implicit auto": (goal_of_implicit, "auto", (64, 128, 256)),
    "epoch implicit cg": (AGAINST_IMPLICIT, "cg", (64, 128, 256)),
    "epoch irspack cg": (AGAINST_IRSPACK, "cg", (64, 128, 256)),
    "epoch irspack cholesky": (AGAINST_IRSPACK, "cholesky", (64, 128)),
    "epoch irspack block": (AGAINST_IRSPACK, "block", (128, 256)),
    "recommend implicit": (recommend_against_implicit, "cg", (64,)),
}
MANY_FACTORS = {"epoch cholesky block": (AGAINST_CHOLESKY, "block", (512, 1024))}
COMPARISONS = {
    f"{name} {n_factors} {place}": (function, data, {"solver": solver, "n_factors": n_factors})
    for place, data, cases in (("all", made_up, CASES), ("tenth", a_tenth, MANY_FACTORS), ("gowalla", real, CASES))
    for name, (function, solver, sizes) in cases.items()
    for n_factors in sizes
}


def is_present(name):
    """Whether the peer is installed and the data are there."""
    absent = {"implicit": implicit is None, "irspack": irspack is None, "gowalla": not (FOLDER / "gowalla").is_dir()}
    return not any(absent.get(word) for word in name.split())


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparison(benchmark, record_fit, small, name):
    if not is_present(name):
        pytest.skip("the peer or the data are not there")
    function, data, options = COMPARISONS[name]
    if small and data is real:
        pytest.skip("the same as with made-up data")
    if small:
        X, options = interactions(**SMALL), {**options, "n_factors": min(options["n_factors"], 96)}
    else:
        X = data()[0]
    found = benchmark.pedantic(lambda: function(X, **options), rounds=1)
    scores = 2 * X.shape[0] * X.shape[1] * options["n_factors"]
    record_fit(found, X, flops_a_pass=scores if "recommend" in name else operations(X, **options))


def test_objective_is_that_of_implicit():
    """By the formula of implicit's objective, for any factors."""
    X, rng = interactions(300, (30, 20)), np.random.default_rng(0)
    users, items = (rng.normal(size=(n, 5)) for n in X.shape)
    stored, scores = X.toarray() > 0, RATIO * users @ items.T
    squares = RATIO * (np.square(users).sum() + np.square(items).sum())
    theirs = ALPHA * ((1 - scores) ** 2)[stored].sum() + (scores**2)[~stored].sum() + REG * squares
    assert theirs == pytest.approx(ALPHA * RATIO * objective(X, users, items) - RATIO * X.nnz, rel=1e-12)


@pytest.mark.skipif(implicit is None, reason="implicit is not installed")
def test_implicit_minimises_that_objective():
    """Its exact half-step, from items scaled to its own, gives users that are scaled so too."""
    X = interactions(300, (30, 20))
    model = WALS(5, solver="cholesky", random_state=0, **TERMS).fit(X)
    peer = make_implicit(5)
    peer.item_factors = model.item_factors_ / SCALE
    theirs = peer.recalculate_user(np.arange(30), csr_matrix(X))
    np.testing.assert_allclose(SCALE * theirs, model.transform(X), rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(irspack is None, reason="irspack is not installed")
@pytest.mark.parametrize("solver", ["cg", "cholesky", "block"])
def test_irspack_minimises_half_of_it(solver):
    X = interactions(300, (30, 20))
    model = make_irspack(X, solver, 5)
    model.run_epoch()
    factors = model.get_user_embedding(), model.get_item_embedding()
    assert objective(X, *factors) == pytest.approx(2 * model.trainer.compute_loss(), rel=1e-5)


# ---------------------------------------------------------------------------------------------- growing entries

GROWTH = [1, 2, 4, 8]  # million entries


def seconds_as_entries_grow(n_factors, solver="cg", million=1_000_000):
    """Seconds of an epoch by entries, with rows and columns in proportion to them, and with as many throughout."""
    seconds = {}
    for variant, grows in (("rows and columns grow", True), ("rows and columns stay", False)):
        functions = {}
        for size in GROWTH:
            shape = tuple(n * size // 4 for n in SHAPE) if grows else SHAPE
            functions[size], _ = epochs_of_fastml(interactions(size * million, shape), solver, n_factors)
        seconds[variant] = compare(functions, rounds=3)
    return seconds


def print_growth():
    print(f"{N_THREADS} threads; an epoch of cg, seconds and nanoseconds an entry")
    for n_factors in (64, 128):
        for variant, seconds in seconds_as_entries_grow(n_factors).items():
            costs = {size: 1e3 * value / size for size, value in seconds.items()}
            cells = ", ".join(f"{size}M {seconds[size]:.3f} s {cost:.0f} ns" for size, cost in costs.items())
            spread = max(costs.values()) / min(costs.values()) - 1
            print(f"{n_factors} factors, {variant}: {cells}; {spread:.0%} between the extremes", flush=True)


# ---------------------------------------------------------------------------------------------- plots


def plot_objective(path, X, sizes=(64, 128)):
    """Objective against seconds, a panel for each number of factors."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    for n_factors, axes in zip(sizes, figure.subplots(1, len(sizes)), strict=True):
        courses = {f"fastml, {s}": course_of_fastml(X, n_factors, s, max_iter=15) for s in ("cg", "block", "cholesky")}
        if implicit is not None:
            courses["implicit, cg"] = course_of_implicit(X, n_factors)
        for name, points in courses.items():
            axes.plot(*zip(*points, strict=True), marker=".", label=name)
        first = [points[1].objective for points in courses.values()]
        axes.set(title=f"{n_factors} factors", xlabel="seconds", ylabel="objective", ylim=(None, max(first)))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.tick_params(which="minor", labelbottom=False)
        axes.legend()
    figure.savefig(path, dpi=150)


def plot_growth(path, sizes=(64, 128)):
    """Seconds of an epoch against entries; dotted: in proportion to them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    for n_factors, axes in zip(sizes, figure.subplots(1, len(sizes)), strict=True):
        for variant, seconds in seconds_as_entries_grow(n_factors).items():
            (line,) = axes.plot(seconds.keys(), seconds.values(), marker="o", label=variant)
            axes.axline((0, 0), (GROWTH[-1], seconds[GROWTH[-1]]), linestyle=":", color=line.get_color())
        axes.set(title=f"{n_factors} factors, cg", xlabel="million entries", ylabel="seconds an epoch", ylim=0, xlim=0)
        axes.legend()
    figure.savefig(path, dpi=150)


def main(words):
    if words[:1] == ["plots"]:
        plot_objective(Path(words[1], "wals_objective.png"), *made_up())
        plot_growth(Path(words[1], "wals_growth.png"))
    elif words == ["growth"]:
        print_growth()
    else:
        chosen = {name: c for name, c in COMPARISONS.items() if set(words) <= set(name.split()) and is_present(name)}
        print_comparisons(chosen, [])


if __name__ == "__main__":
    main(sys.argv[1:])
