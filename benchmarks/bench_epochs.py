"""Five epochs of each estimator beside the same in plain NumPy: all that ``fit`` takes, its checks included.

Both sides have the same model, batch size, optimizer and number of negatives, float32, and all threads in products of
matrices. Before they are timed, one function computes in double precision the loss that each has come to: the two may
differ by 5 %, and a tenth of the first loss must be gone.

``pytest benchmarks/bench_epochs.py`` times each on its own; ``python benchmarks/bench_epochs.py`` takes them in turns
and prints the ratios; names of estimators pick them.
"""

import itertools
import sys
import warnings
from typing import NamedTuple

import numpy as np
import pytest
from _data import interactions
from _numpy_epochs import (
    Network,
    corrupted,
    draw_negatives,
    fit_bpr,
    fit_network,
    fit_pairs,
    fit_wals,
    logistic_slope,
    softmax_slope,
    squared_slope,
)
from _peers import N_THREADS, compare
from bench_contrastive import TEMPERATURE, value_in_numpy
from bench_contrastive import in_numpy as info_nce_in_numpy
from bench_wals import TERMS, objective
from bench_wals import operations as operations_of_wals
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

import fastml
from fastml.optim import SGD, Adam

CANDIDATES = ("fastml", "numpy")
EPOCHS, SMALL_EPOCHS = 5, 20
TOLERANCE, PROGRESS = 0.05, 0.1
RATE, BPR_RATE, REGULARIZATION = 0.001, 0.05, 0.01
COMMON = {"optimizer": Adam(RATE), "alpha": 0, "tol": 0, "random_state": 0}
HARD_WEIGHT, CORRUPTION_RATE = 0.1, 0.3
LOOKED_AT = 4096  # pairs whose loss is computed


def fitted(model, *arrays):
    """The model, fitted; that so few epochs are not enough is known."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(*arrays)


def paired(coefs, intercepts):
    return list(zip(coefs, intercepts, strict=True))


def outputs_of(layers, X):
    """What layers (coefficients, intercepts) make of rows, in double precision."""
    for k, (coef, intercept) in enumerate(layers):
        X = (np.maximum(X, 0) if k else X.astype(np.float64)) @ coef + intercept
    return X


def products(*sizes):
    """Operations of a row: products forward, and back to coefficients and, behind the first layer, to their input."""
    first, *later = (2 * n_in * n_out for n_in, n_out in itertools.pairwise(sizes))
    return 2 * first + 3 * sum(later)


# ---------------------------------------------------------------------------------------------- rows and targets


class Loss(NamedTuple):
    """Targets of scores (n, K), the gradient in NumPy, and the mean loss of outputs."""

    targets: object
    slope: object
    mean: object


def cross_entropy(z, target):
    picked = z[np.arange(len(z)), target] if target.ndim == 1 else (z * target).sum(axis=1)
    return (logsumexp(z, axis=1) - picked).mean()


SOFTMAX = Loss(lambda scores: scores.argmax(axis=1), softmax_slope, cross_entropy)
LOGISTIC = Loss(
    lambda scores: (scores > 0).astype(np.float32),
    logistic_slope,
    lambda z, target: (np.logaddexp(0, z) - target * z).sum(axis=1).mean(),
)
SQUARED = Loss(
    lambda scores: (scores - scores.mean()) / scores.std(),
    squared_slope,
    lambda z, target: np.square(z - target).mean() / 2,
)


class Supervised:
    """A linear model or a network on ``shape``: rows, features, outputs."""

    def __init__(self, name, loss, shape, hidden=()):
        self.name, self.loss_of, self.shape, self.hidden = name, loss, shape, hidden
        self.small = 3000, 20, min(shape[2], 5)
        self.about = "".join(f", hidden {size}" for size in hidden)
        self.options = {"batch_size": 256, **({"hidden_layer_sizes": hidden} if hidden else {})}

    def data(self, shape):
        """Targets follow from the rows by a small network, and by chance."""
        n, d, n_outputs = shape
        rng = np.random.default_rng(0)
        X = rng.standard_normal((n, d), dtype=np.float32)
        hidden = np.tanh(X @ rng.standard_normal((d, 20), dtype=np.float32) / np.float32(d**0.5))
        scores = hidden @ rng.standard_normal((20, n_outputs), dtype=np.float32)
        scores += 2 * rng.standard_normal(scores.shape, dtype=np.float32)
        return X, self.loss_of.targets(scores)

    def in_fastml(self, n_epochs, X, y):
        model = getattr(fastml, self.name)(max_iter=n_epochs, **COMMON, **self.options)
        return self._layers(fitted(model, X, y[:, 0] if y.shape[1:] == (1,) else y))

    def _layers(self, model):
        if self.hidden:
            return paired(model.coefs_, model.intercepts_)
        return [(np.atleast_2d(model.coef_).T, model.intercept_)]

    def _sizes(self, X, y):
        return X.shape[1], *self.hidden, y.shape[1] if y.ndim == 2 else y.max() + 1

    def in_numpy(self, n_epochs, X, y):
        """Linear models begin at 0, networks at small outputs, as in fastml."""
        rng = np.random.default_rng(0)
        network = Network(self._sizes(X, y), rng, output_scale=0.4 if self.hidden else 0)
        return fit_network(network, X, y, self.loss_of.slope, rng, n_epochs=n_epochs, batch_size=256, rate=RATE)

    def loss(self, layers, X, y):
        return self.loss_of.mean(outputs_of(layers, X), y)

    def work(self, X, y):
        """Rows and targets are read once."""
        return X.nbytes + y.nbytes, len(X) * products(*self._sizes(X, y))


class Distilled(Supervised):
    """A student of the probabilities of a fitted teacher, for which both sides ask it."""

    def data(self, shape):
        X, y = super().data(shape)
        return X, y, LogisticRegression(max_iter=20).fit(X[:2000], y[:2000])

    def _targets(self, X, y, teacher):
        """Its probabilities at temperature 2, and a share of the labels."""
        soft = np.sqrt(teacher.predict_proba(X))
        soft *= (1 - HARD_WEIGHT) / soft.sum(axis=1, keepdims=True)
        soft[np.arange(len(y)), y] += HARD_WEIGHT
        return soft.astype(np.float32, copy=False)

    def in_fastml(self, n_epochs, X, y, teacher):
        student = fastml.MLPClassifier(max_iter=n_epochs, **COMMON, **self.options)
        model = fastml.DistilledClassifier(student, teacher, temperature=2.0, hard_weight=HARD_WEIGHT)
        return self._layers(fitted(model, X, y).student_)

    def in_numpy(self, n_epochs, *arrays):
        return super().in_numpy(n_epochs, arrays[0], self._targets(*arrays))

    def loss(self, layers, *arrays):
        return super().loss(layers, arrays[0], self._targets(*arrays))

    def work(self, X, y, teacher):
        return super().work(X, y)


# ---------------------------------------------------------------------------------------------- pairs


def said(meaning, n_features, rng):
    """Rows that follow from what is meant, and from chance."""
    X = meaning @ rng.standard_normal((meaning.shape[1], n_features), dtype=np.float32)
    X += rng.standard_normal(X.shape, dtype=np.float32)
    return X


def mean_info_nce(queries, keys):
    """In both directions, of outputs of any length."""
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, keys)]
    return value_in_numpy(*unit, True)[0].mean()


def info_nce_grad(queries, keys):
    return info_nce_in_numpy(queries, keys, True)


class Towers:
    """Pairs of rows and a linear tower for each side; ``shape``: pairs, features of queries, features of items."""

    name, shape, small = "TwoTower", (20_480, 256, 300), (2048, 20, 30)
    about, n_components, options = ", 64 components, batches of 512", 64, {"batch_size": 512}

    def data(self, shape):
        n, *n_features = shape
        rng = np.random.default_rng(0)
        meaning = rng.standard_normal((n, 16), dtype=np.float32)
        return [said(meaning, d, rng) for d in n_features]

    def in_fastml(self, n_epochs, X, Y):
        options = {"n_components": self.n_components, "temperature": TEMPERATURE, **self.options}
        model = fitted(fastml.TwoTower(max_iter=n_epochs, **COMMON, **options), X, Y)
        query = paired(model.query_coefs_, model.query_intercepts_)
        return query, paired(model.item_coefs_, model.item_intercepts_)

    def in_numpy(self, n_epochs, X, Y):
        rng = np.random.default_rng(0)
        networks = [Network((rows.shape[1], self.n_components), rng) for rows in (X, Y)]

        def inputs(rows):
            return X.take(rows, axis=0), Y.take(rows, axis=0)

        options = {"n_rows": len(X), "n_epochs": n_epochs, "rate": RATE, **self.options}
        return fit_pairs(networks, inputs, info_nce_grad, rng, **options)

    def loss(self, towers, X, Y):
        return mean_info_nce(*(outputs_of(tower, rows[:LOOKED_AT]) for tower, rows in zip(towers, (X, Y), strict=True)))

    def work(self, X, Y):
        """Rows are read once; beside the towers, rows of a batch are multiplied with each other and with slopes."""
        among = 6 * len(X) * self.options["batch_size"] * self.n_components
        return X.nbytes + Y.nbytes, among + sum(len(X) * products(rows.shape[1], self.n_components) for rows in (X, Y))


class Views:
    """Rows and one network for two corrupted views of each."""

    name, shape, small = "ContrastiveEmbedding", (20_480, 100), (2048, 20)
    about, hidden, n_components, options = ", hidden 256, batches of 512", (256,), 32, {"batch_size": 512}

    def data(self, shape):
        rng = np.random.default_rng(0)
        return (said(rng.standard_normal((shape[0], 16), dtype=np.float32), shape[1], rng),)

    def in_fastml(self, n_epochs, X):
        options = {"hidden_layer_sizes": self.hidden, "corruption_rate": CORRUPTION_RATE, "temperature": TEMPERATURE}
        model = fastml.ContrastiveEmbedding(self.n_components, max_iter=n_epochs, **COMMON, **options, **self.options)
        fitted(model, X)
        return paired(model.coefs_, model.intercepts_)

    def in_numpy(self, n_epochs, X):
        rng = np.random.default_rng(0)
        network = Network((X.shape[1], *self.hidden, self.n_components), rng)

        def inputs(rows):
            return (corrupted(X, np.tile(rows, 2), CORRUPTION_RATE, rng),)

        options = {"n_rows": len(X), "n_epochs": n_epochs, "rate": RATE, **self.options}
        return fit_pairs([network], inputs, info_nce_grad, rng, **options)[0]

    def loss(self, layers, X):
        """Of two views of the first rows."""
        rng, rows = np.random.default_rng(1), np.arange(min(len(X), LOOKED_AT))
        return mean_info_nce(*(outputs_of(layers, corrupted(X, rows, CORRUPTION_RATE, rng)) for _ in range(2)))

    def work(self, X):
        """Rows are read twice; products as above."""
        among = 6 * len(X) * self.options["batch_size"] * self.n_components
        return 2 * X.nbytes, among + 2 * len(X) * products(X.shape[1], *self.hidden, self.n_components)


# ---------------------------------------------------------------------------------------------- interactions


class Factors:
    """Users x items; ``shape``: users, items, entries. Numbers of factors are those of users, then of items."""

    n_factors, init_scale = 64, 1.0

    def data(self, shape):
        return (interactions(shape[2], shape[:2]),)

    def in_fastml(self, n_epochs, X):
        model = fitted(self.model(max_iter=n_epochs, init_scale=self.init_scale, random_state=0), X)
        return model.user_factors_, model.item_factors_

    def start(self, X, rng):
        scale = self.init_scale / self.n_factors**0.5
        return [rng.normal(scale=scale, size=(n, self.n_factors)).astype(np.float32) for n in X.shape]

    def bytes_moved(self, X):
        """Entries and factors are read once, and factors written."""
        return X.data.nbytes + X.indices.nbytes + 8 * sum(X.shape) * self.n_factors


class Pairwise(Factors):
    """BPR by SGD, a negative for each interaction."""

    name, shape, small = "SampledMF", (10_000, 4000, 200_000), (500, 200, 10_000)
    about = ", 64 factors, BPR by SGD"

    def model(self, **options):
        settings = {"optimizer": SGD(BPR_RATE), "regularization": REGULARIZATION, "regularization_exponent": 1}
        return fastml.SampledMF(self.n_factors, loss="bpr", batch_size=4096, **settings, **options)

    def in_numpy(self, n_epochs, X):
        rng = np.random.default_rng(0)
        options = {"batch_size": 4096, "rate": BPR_RATE, "regularization": REGULARIZATION}
        return fit_bpr(X, self.start(X, rng), rng, n_epochs=n_epochs, **options)

    def loss(self, factors, X):
        """Of some interactions with a negative each, penalty included."""
        rng, owners = np.random.default_rng(1), np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
        drawn, rows = draw_negatives(X, rng), rng.integers(0, X.nnz, 20_000)
        users, items = (table.astype(np.float64) for table in factors)
        w, h, other = users[owners[rows]], items[X.indices[rows]], items[drawn[rows]]
        penalty = REGULARIZATION / 2 * (np.square(w) + np.square(h)).sum(axis=1)
        return (np.logaddexp(0, -(w * (h - other)).sum(axis=1)) + penalty).mean()

    def work(self, X):
        """Two logits an interaction, and the gradients of both."""
        return self.bytes_moved(X), 12 * X.nnz * self.n_factors


class Alternating(Factors):
    """WALS, exactly."""

    name, shape, small = "WALS", (6000, 2000, 200_000), (500, 200, 10_000)
    n_factors, about = 32, ", 32 factors, exactly"

    def model(self, **options):
        return fastml.WALS(self.n_factors, solver="cholesky", **TERMS, **options)

    def in_numpy(self, n_epochs, X):
        terms = {name: TERMS[name] for name in ("unobserved_weight", "regularization")}
        return fit_wals(X, self.start(X, np.random.default_rng(0)), n_epochs=n_epochs, **terms)

    def loss(self, factors, X):
        return objective(X, *factors)

    def work(self, X):
        return self.bytes_moved(X), operations_of_wals(X, "cholesky", self.n_factors)


# ---------------------------------------------------------------------------------------------- comparisons


CASES = {
    case.name: case
    for case in (
        Supervised("SoftmaxClassifier", SOFTMAX, (200_000, 100, 10)),
        Supervised("LogisticClassifier", LOGISTIC, (200_000, 100, 10)),
        Supervised("LinearRegressor", SQUARED, (200_000, 100, 1)),
        Supervised("MLPClassifier", SOFTMAX, (40_000, 100, 10), (256,)),
        Supervised("MLPRegressor", SQUARED, (40_000, 100, 1), (256,)),
        Distilled("DistilledClassifier", SOFTMAX, (40_000, 100, 10), (256,)),
        Towers(),
        Views(),
        Pairwise(),
        Alternating(),
    )
}


def functions(case, arrays, n_epochs):
    """What is timed, by candidate."""
    return {"fastml": lambda: case.in_fastml(n_epochs, *arrays), "numpy": lambda: case.in_numpy(n_epochs, *arrays)}


def check(case, arrays, n_epochs):
    """Both come to about the same loss, a good part of the way from where they begin; says which."""
    ours, theirs = (case.loss(function(), *arrays) for function in functions(case, arrays, n_epochs).values())
    start = case.loss(case.in_numpy(0, *arrays), *arrays)
    assert abs(ours / theirs - 1) < TOLERANCE, (case.name, ours, theirs)
    assert ours < (1 - PROGRESS) * start, (case.name, ours, start)
    return f"loss {start:.4g}, then {ours:.4g} and {theirs:.4g}"


def group(case, shape, n_epochs):
    return f"{case.name}, {n_epochs} epochs {'x'.join(map(str, shape))}{case.about}"


@pytest.mark.parametrize("maker", CANDIDATES)
@pytest.mark.parametrize("name", CASES)
def test_epochs(benchmark, record, small, name, maker):
    case = CASES[name]
    shape, n_epochs = (case.small, SMALL_EPOCHS) if small else (case.shape, EPOCHS)
    benchmark.group = group(case, shape, n_epochs)
    arrays = case.data(shape)
    if maker == "fastml":
        check(case, arrays, n_epochs)
    benchmark.pedantic(functions(case, arrays, n_epochs)[maker], rounds=5, warmup_rounds=1)
    record(*(n_epochs * work for work in case.work(*arrays)), shape=list(shape))


def main(names):
    """Print the ratios, taken in turns."""
    print(f"{N_THREADS} threads")
    for case in map(CASES.get, names or CASES):
        arrays = case.data(case.shape)
        note = check(case, arrays, EPOCHS)
        seconds = compare(functions(case, arrays, EPOCHS), rounds=3)
        times = ", ".join(f"{who} {1e3 * s:.0f} ms" for who, s in seconds.items())
        ratio = seconds["numpy"] / seconds["fastml"]
        print(f"{group(case, case.shape, EPOCHS)}: {times}, {ratio:.2f}x; {note}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
