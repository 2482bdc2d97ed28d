"""Compile the common kernels ahead, so that the first fit of a process finds them in the cache."""

import time
import warnings

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from fastml import SoftmaxClassifier, functional
from fastml._cli.progress import Progress
from fastml.kernels._jit import cache_folder
from fastml.optim import SGD, Adam

_ROWS, _FEATURES, _CLASSES = 12, 4, 3


def run_warmup():
    """Run everything that is common on tiny data, in both precisions."""
    began = time.perf_counter()
    steps = [step for dtype in (np.float32, np.float64) for step in _steps(dtype)]
    progress = Progress(total=len(steps))
    for name, action in steps:
        with progress.step(name):
            action()
    progress.close()
    folder = cache_folder() or "no writable folder, so this was in vain: kernels are compiled anew in each process"
    print(f"{len(steps)} steps in {time.perf_counter() - began:.1f} s; kernels are kept in {folder}")


def _steps(dtype):
    """Pairs of a name and a call without arguments."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(_ROWS, _FEATURES)).astype(dtype)
    logits = rng.normal(size=(_ROWS, _CLASSES)).astype(dtype)
    labels = np.arange(_ROWS) % _CLASSES
    precision = np.dtype(dtype).name
    for kind, rows in (("dense", X), ("sparse", sparse.csr_array(X))):
        for name, model in _classifiers().items():
            yield f"SoftmaxClassifier, {name}, {kind}, {precision}", _fit(model, rows, labels)
        yield f"linear + softmax cross-entropy, {kind}, {precision}", _linear_losses(rows, logits, labels)
    yield f"softmax cross-entropy, {precision}", _losses(logits, labels)
    yield f"softmax and sigmoid, {precision}", _probabilities(logits)


def _classifiers():
    small = {"max_iter": 2, "random_state": 0}
    return {
        "Adam": SoftmaxClassifier(optimizer=Adam(), early_stopping=True, **small),
        "SGD": SoftmaxClassifier(optimizer=SGD(momentum=0.9, nesterov=True), l1_ratio=0.5, **small),
        "L-BFGS": SoftmaxClassifier(solver="lbfgs", **small),
    }


def _fit(model, X, y):
    def action():
        with warnings.catch_warnings():  # two epochs are not meant to converge
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(X, y).predict_proba(X)

    return action


def _losses(logits, labels):
    def action():
        for target in (labels, functional.softmax(logits)):
            functional.softmax_cross_entropy(logits, target)
            functional.softmax_cross_entropy_grad(logits, target)

    return action


def _linear_losses(X, logits, labels):
    W, b = np.zeros((_CLASSES, X.shape[1]), X.dtype), np.zeros(_CLASSES, X.dtype)

    def action():
        for target in (labels, functional.softmax(logits)):
            functional.linear_softmax_cross_entropy(X, W, b, target)
            functional.linear_softmax_cross_entropy_grad(X, W, b, target)

    return action


def _probabilities(logits):
    def action():
        functional.softmax(logits)
        functional.log_softmax(logits)
        functional.log_sum_exp(logits)
        functional.sigmoid(logits)

    return action
