"""Fitting LogisticClassifier on many labels, and LinearRegressor, against scikit-learn on the same objectives.

``python benchmarks/bench_linear_estimators.py`` takes the candidates in turns and prints the ratios; with pytest the
same comparisons run once each, and assert what is compared.
"""

import sys

import numpy as np
import pytest
from _data import bibtex, california_housing
from _peers import print_comparisons, timed
from sklearn.linear_model import HuberRegressor, LogisticRegression, Ridge, SGDRegressor
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier

from fastml import LinearRegressor, LogisticClassifier


def logistic_objective(coef, intercept, X, Y, alpha):
    """Mean of the binary cross-entropies summed over labels, plus the penalty, in double precision."""
    logits = X.astype(np.float64) @ coef.T.astype(np.float64) + intercept
    losses = np.logaddexp(0, logits) - Y * logits
    return losses.sum(axis=1).mean() + alpha / 2 * np.square(coef, dtype=np.float64).sum()


def labels_against_one_vs_rest(X, Y, X_test, Y_test, *, C=1.0, n_labels=None):
    """Seconds to an objective and a micro-F1 that are not worse."""
    Y, Y_test, alpha = Y[:, :n_labels], Y_test[:, :n_labels], 1 / (C * X.shape[0])
    ours = LogisticClassifier(solver="lbfgs", alpha=alpha, max_iter=1000)
    timed(lambda: ours.fit(X[:500], Y[:500]))  # compiled before the clock starts
    ours, our_seconds = timed(lambda: ours.fit(X, Y), repeats=3)
    theirs, their_seconds = timed(lambda: OneVsRestClassifier(LogisticRegression(C=C, max_iter=1000)).fit(X, Y))
    coef = np.vstack([model.coef_ for model in theirs.estimators_])
    intercept = np.ravel([model.intercept_ for model in theirs.estimators_])
    goal = logistic_objective(coef, intercept, X, Y, alpha)
    assert logistic_objective(ours.coef_, ours.intercept_, X, Y, alpha) <= goal * (1 + 1e-6)
    scores = [f1_score(Y_test, model.predict(X_test), average="micro", zero_division=0) for model in (theirs, ours)]
    assert scores[1] >= scores[0]
    return their_seconds, our_seconds, f"micro-F1 {scores[0]:.4f}, {scores[1]:.4f}", np.max(ours.n_iter_)


def squared(model, X, y, alpha):
    """The objective of Ridge in double precision, with ``alpha`` as in LinearRegressor."""
    residual = X.astype(np.float64) @ model.coef_ + model.intercept_ - y
    return np.mean(residual**2) / 2 + alpha / 2 * np.square(model.coef_, dtype=np.float64).sum()


def against_ridge(X, y, *, alpha=1e-3):
    """Seconds to the optimum of Ridge, in double precision."""
    X = X.astype(np.float64)
    ours, theirs = LinearRegressor(solver="lbfgs", alpha=alpha), Ridge(alpha=alpha * len(y))
    timed(lambda: ours.fit(X[:500], y[:500]))
    ours, our_seconds = timed(lambda: ours.fit(X, y), repeats=10)
    theirs, their_seconds = timed(lambda: theirs.fit(X, y), repeats=10)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-6)
    return their_seconds, our_seconds, f"R2 {theirs.score(X, y):.4f}, {ours.score(X, y):.4f}", np.max(ours.n_iter_)


def against_sgd(X, y, *, alpha=1e-4):
    """Seconds of SGDRegressor as it comes, to an objective that is not worse (its target standardized, as it needs)."""
    y = (y - y.mean()) / y.std()
    ours, theirs = LinearRegressor(solver="lbfgs", alpha=alpha), SGDRegressor(alpha=alpha, random_state=0)
    timed(lambda: ours.fit(X[:500], y[:500]))
    ours, our_seconds = timed(lambda: ours.fit(X, y), repeats=10)
    theirs, their_seconds = timed(lambda: theirs.fit(X, y), repeats=3)
    assert squared(ours, X, y, alpha) <= squared(theirs, X, y, alpha) * (1 + 1e-6)
    return their_seconds, our_seconds, f"R2 {theirs.score(X, y):.4f}, {ours.score(X, y):.4f}", np.max(ours.n_iter_)


def against_huber(X, y, *, epsilon=1.35):
    """Seconds to HuberRegressor's fit: the same ``delta``, which is ``epsilon`` times the scale that it finds."""
    X, y = X.astype(np.float64), y / 1e5
    theirs = HuberRegressor(epsilon=epsilon, alpha=1e-4, max_iter=1000)
    theirs, their_seconds = timed(lambda: theirs.fit(X, y), repeats=3)
    alpha = 1e-4 * theirs.scale_ / len(y)  # its objective holds the sum of the losses times 2 / scale_
    ours = LinearRegressor(solver="lbfgs", loss="huber", delta=epsilon * theirs.scale_, alpha=alpha, tol=1e-5)
    timed(lambda: ours.fit(X[:500], y[:500]))
    ours, our_seconds = timed(lambda: ours.fit(X, y), repeats=3)

    def objective(model):
        size = np.abs(X @ model.coef_ + model.intercept_ - y)
        loss = np.where(size <= ours.delta, size**2 / 2, ours.delta * (size - ours.delta / 2)).mean()
        return loss + alpha / 2 * np.square(model.coef_).sum()

    assert objective(ours) <= objective(theirs) * (1 + 1e-6)
    return their_seconds, our_seconds, f"R2 {theirs.score(X, y):.4f}, {ours.score(X, y):.4f}", np.max(ours.n_iter_)


COMPARISONS = {
    "159 labels, bibtex, OneVsRestClassifier": (labels_against_one_vs_rest, bibtex, {}),
    "squared, California, Ridge": (against_ridge, california_housing, {}),
    "squared, California, SGDRegressor": (against_sgd, california_housing, {}),
    "Huber, California, HuberRegressor": (against_huber, california_housing, {}),
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparison(benchmark, record_fit, small, name):
    function, data, options = COMPARISONS[name]
    arrays = data()
    if small and data is bibtex:
        options = {**options, "n_labels": 10}
    found = benchmark.pedantic(lambda: function(*arrays, **options), rounds=1)
    record_fit(found, arrays[0], n_outputs=arrays[1].shape[1] if arrays[1].ndim == 2 else 1)


if __name__ == "__main__":
    print_comparisons(COMPARISONS, sys.argv[1:])
