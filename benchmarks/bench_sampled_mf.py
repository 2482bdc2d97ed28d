"""SampledMF beside implicit's BPR: an epoch of as many samples, on the same threads.

``python benchmarks/bench_sampled_mf.py`` takes both in turns and prints the ratios; words pick the comparisons.
implicit has an item's bias beside its factors, and updates without locks; ours has the same bits for any number of
threads. An epoch of either sees as many samples as there are interactions; implicit draws them with replacement, and
skips those whose negative the user has, where ours draws another one.
"""

import functools
import sys
import warnings

import numpy as np
import pytest
from _data import FOLDER, gowalla, interactions
from _peers import N_THREADS, print_comparisons, timed
from scipy.sparse import csr_matrix

from fastml import SampledMF
from fastml.functional._sparse import canonical_csr
from fastml.optim import SGD, Adam
from fastml.training.sampled_mf import SampledMFProblem
from fastml.training.samplers import UniformSampler

try:
    import implicit
except ImportError:
    implicit = None

RATE, REGULARIZATION = 0.01, 0.01  # implicit's
OPTIMIZERS = {"sgd": SGD(RATE), "adam": Adam(0.001)}
SMALL = {"n_entries": 30_000, "shape": (1000, 300)}


def epochs_of_fastml(X, optimizer, n_factors, batch_size=4096):
    """A function that does an epoch, and one that returns the factors."""
    problem = SampledMFProblem(
        canonical_csr(X),
        loss="bpr",
        sampler=UniformSampler(),
        n_negatives=1,
        batch_size=batch_size,
        regularization=REGULARIZATION,
        regularization_exponent=1.0,
        correct_sampling_bias=False,
        optimizer=OPTIMIZERS[optimizer],
        seed=0,
        n_threads=N_THREADS,
    )
    factors = problem.start(n_factors, 1.0, np.random.RandomState(0))

    def epoch():
        nonlocal factors
        factors, _ = problem.epoch(factors)

    return epoch, lambda: (factors.users, factors.items)


def epochs_of_implicit(X, n_factors):
    """An iteration: the difference of a fit and one with one iteration less is what it takes; set-up is left out."""
    options = {"learning_rate": RATE, "regularization": REGULARIZATION, "num_threads": N_THREADS, "random_state": 0}
    model = implicit.cpu.bpr.BayesianPersonalizedRanking(n_factors, iterations=1, **options)
    X = csr_matrix(X)
    model.fit(X, show_progress=False)

    def seconds_of_fit(iterations):
        model.iterations = iterations
        return timed(lambda: model.fit(X, show_progress=False))[1]

    return seconds_of_fit, lambda: (model.user_factors, model.item_factors)


def share_in_order(X, users, items, n=100_000):
    """How many of some pairs of an item of a user and one drawn are in the right order."""
    rng, X = np.random.default_rng(0), canonical_csr(X)
    entries = rng.integers(0, X.nnz, n)
    rows, drawn = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))[entries], rng.integers(0, X.shape[1], n)
    return ((users[rows] * (items[X.indices[entries]] - items[drawn])).sum(axis=1) > 0).mean()


def epoch_against_implicit(X, *, optimizer, n_factors, rounds=4, per_round=3):
    """Medians of seconds of an epoch, in turns; after as many epochs both order pairs."""
    theirs, their_factors = epochs_of_implicit(X, n_factors)
    ours, our_factors = epochs_of_fastml(X, optimizer, n_factors)
    ours()  # loads or compiles the kernels
    seconds = []
    for _ in range(rounds):
        both = theirs(1 + per_round), theirs(1)
        own = [timed(ours)[1] for _ in range(per_round)]
        seconds.append(((both[0] - both[1]) / per_round, np.median(own)))
    order = [share_in_order(X, *factors()) for factors in (their_factors, our_factors)]
    assert order[1] > 0.5
    return *np.median(seconds, axis=0), "pairs in order {:.3f}, {:.3f}".format(*order), 1


def made_up():
    return [interactions(1_000_000, (40_000, 30_000))]


def real():
    return gowalla()[:1]


COMPARISONS = {
    f"epoch implicit {optimizer} {n_factors} {place}": (
        epoch_against_implicit,
        data,
        {"optimizer": optimizer, "n_factors": n_factors},
    )
    for place, data in (("made-up", made_up), ("gowalla", real))
    for optimizer in OPTIMIZERS
    for n_factors in (64, 128)
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparison(benchmark, record_fit, small, name):
    function, data, options = COMPARISONS[name]
    if implicit is None or ("gowalla" in name and (small or not (FOLDER / "gowalla").is_dir())):
        pytest.skip("the peer or the data are not there")
    X = interactions(**SMALL) if small else data()[0]
    found = benchmark.pedantic(lambda: function(X, **options), rounds=1)
    record_fit(found, X, flops_a_pass=12 * X.nnz * options["n_factors"])  # two logits, and both rows' gradients of each


@pytest.mark.parametrize("loss", ["sampled_softmax", "bpr"])
def test_fit(benchmark, small, loss):
    """Whole fits of the estimator, for their time beside each other."""
    X = interactions(**SMALL) if small else made_up()[0]
    model = SampledMF(loss=loss, max_iter=2, n_jobs=N_THREADS, random_state=0)
    benchmark.pedantic(functools.partial(model.fit, X), rounds=1)
    assert (np.diff(model.loss_curve_[:, 0]) < 0).all()


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # implicit's, about BLAS threads
    print_comparisons(COMPARISONS, sys.argv[1:])
