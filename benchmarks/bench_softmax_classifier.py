"""Fitting SoftmaxClassifier: against scikit-learn's LogisticRegression, and against a training loop in PyTorch.

``python benchmarks/bench_softmax_classifier.py`` takes the candidates in turns and prints the ratios; with pytest the
same comparisons run once each, and assert what is compared.
"""

import sys

import numpy as np
import pytest
from _data import banking77, fashion_mnist
from _peers import medians_in_turns, print_comparisons, timed, torch, use_all_threads
from sklearn.linear_model import LogisticRegression

from fastml import SoftmaxClassifier
from fastml.optim import Adam


def objective(model, X, y, alpha):
    """Mean cross-entropy plus penalty, in double precision, of any model with ``coef_`` and ``predict_log_proba``."""
    log_probabilities = model.predict_log_proba(X)
    picked = log_probabilities[np.arange(len(y)), np.searchsorted(model.classes_, y)]
    return -picked.mean(dtype=np.float64) + alpha / 2 * np.square(model.coef_, dtype=np.float64).sum()


class Until:
    """A callback that stops a fit when ``is_enough(fitted estimator)``, with its own time kept apart."""

    def __init__(self, is_enough):
        self.is_enough, self.seconds = is_enough, 0.0

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        if context.task_name != "iteration":
            return False
        stop, seconds = timed(lambda: self.is_enough(fitted_estimator))
        self.seconds += seconds
        return stop


def fit_until(model, X, y, is_enough):
    """Fit until it is enough; seconds without those of the question."""
    until = Until(is_enough)
    _, seconds = timed(lambda: model.set_callbacks(until).fit(X, y))
    return model, seconds - until.seconds


def compiled(model, X, y, is_enough):
    """The model, with all that its fit and the question need compiled."""
    keep = model.max_iter
    fit_until(model.set_params(max_iter=2), X, y, is_enough)
    return model.set_params(max_iter=keep)


def lbfgs_against_logistic_regression(X, y, X_test, y_test, *, C=1.0, max_iter=100):
    """Seconds to the objective that LogisticRegression ends at."""
    theirs, their_seconds = timed(lambda: LogisticRegression(C=C, max_iter=max_iter).fit(X, y))
    alpha = 1 / (C * len(y))
    goal = objective(theirs, X, y, alpha) * (1 + 1e-6)

    def is_enough(model):
        return objective(model, X, y, alpha) <= goal

    ours = compiled(SoftmaxClassifier(solver="lbfgs", alpha=alpha, max_iter=10 * max_iter, tol=0), X, y, is_enough)
    ours, our_seconds = fit_until(ours, X, y, is_enough)
    assert objective(ours, X, y, alpha) <= goal
    return (
        their_seconds,
        our_seconds,
        f"test accuracy {theirs.score(X_test, y_test):.4f}, {ours.score(X_test, y_test):.4f}",
        ours.n_iter_,
    )


def minibatch_against_logistic_regression(X, y, X_test, y_test, *, accuracy=0.845):
    """Seconds to a test accuracy, against LogisticRegression(max_iter=100)."""
    theirs, their_seconds = timed(lambda: LogisticRegression(max_iter=100).fit(X, y))

    def is_enough(model):
        return model.score(X_test, y_test) >= accuracy

    ours = compiled(SoftmaxClassifier(random_state=0), X, y, is_enough)
    ours, our_seconds = fit_until(ours, X, y, is_enough)
    assert ours.score(X_test, y_test) >= accuracy
    return (
        their_seconds,
        our_seconds,
        f"test accuracy {theirs.score(X_test, y_test):.4f}, {ours.score(X_test, y_test):.4f}",
        ours.n_iter_,
    )


def torch_epoch(X, y, n_classes, batch_size):
    """One epoch of a linear layer with cross-entropy and the fused AdamW, rows in a new order."""
    use_all_threads()
    layer = torch.nn.Linear(X.shape[1], n_classes)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    X, y = torch.from_numpy(X), torch.from_numpy(y)

    def epoch():
        for rows in torch.randperm(len(X)).split(batch_size):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(layer(X[rows]), y[rows]).backward()
            optimizer.step()

    return epoch


def epoch_against_torch(X, y, *_, batch_size=64, epochs=3):
    """Seconds of an epoch."""
    pytest.importorskip("torch")
    epoch = torch_epoch(X, y, 10, batch_size)
    epoch()
    model = SoftmaxClassifier(optimizer=Adam(), batch_size=batch_size, max_iter=epochs, tol=0, random_state=0)
    timed(lambda: model.fit(X[:1000], y[:1000]))
    seconds = medians_in_turns(lambda: [epoch() for _ in range(epochs)], lambda: model.fit(X, y))
    return *(seconds / epochs), f"batch size {batch_size}", 1


COMPARISONS = {
    "lbfgs, Fashion-MNIST": (lbfgs_against_logistic_regression, fashion_mnist, {}),
    "lbfgs, banking77 TF-IDF, C=1": (lbfgs_against_logistic_regression, banking77, {"max_iter": 1000}),
    "lbfgs, banking77 TF-IDF, C=10": (lbfgs_against_logistic_regression, banking77, {"max_iter": 1000, "C": 10.0}),
    "minibatch, Fashion-MNIST to 0.845": (minibatch_against_logistic_regression, fashion_mnist, {}),
    "epoch, Fashion-MNIST, against PyTorch": (epoch_against_torch, fashion_mnist, {}),
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparison(benchmark, record_fit, small, name):
    function, data, options = COMPARISONS[name]
    X, y, X_test, y_test = data()
    if small:
        X, y, options = X[:2000], y[:2000], {**options, **({"accuracy": 0.7} if "0.845" in name else {})}
    found = benchmark.pedantic(lambda: function(X, y, X_test, y_test, **options), rounds=1)
    record_fit(found, X, n_outputs=len(np.unique(y)))


if __name__ == "__main__":
    print_comparisons(COMPARISONS, sys.argv[1:])
