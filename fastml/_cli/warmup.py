"""Compile the common kernels ahead, so that the first fit of a process finds them in the cache."""

import time
import warnings

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from fastml import (
    WALS,
    ContrastiveEmbedding,
    LinearRegressor,
    LogisticClassifier,
    MLPClassifier,
    MLPRegressor,
    SampledMF,
    SoftmaxClassifier,
    TwoTower,
    functional,
)
from fastml._cli.progress import Progress
from fastml.kernels._jit import cache_folder
from fastml.optim import Adam

_ROWS, _FEATURES = 30, 4
_CLASSES = {"few": 3, "many": 100, "very many": 5000}  # each has kernels of its own
_TWO_EPOCHS = {"max_iter": 2, "random_state": 0}
_UNITS = {"few": 5, "many": 30_000}  # likewise: the steps of small networks share a call, those of large ones threads


def run_warmup():
    """Run everything that is common on tiny data, in both precisions."""
    began = time.perf_counter()
    steps = [step for dtype in (np.float32, np.float64) for step in _steps(dtype)]
    progress = Progress(total=len(steps))
    for name, action in steps:
        with progress.step(name):
            action()
    progress.close()
    print(f"{len(steps)} steps in {time.perf_counter() - began:.1f} s")
    print(f"Kernels are kept in {cache_folder() or 'no folder, for none can be written: each process compiles anew'}")


def _steps(dtype):
    """Pairs of a name and a call without arguments."""
    precision = np.dtype(dtype).name
    rng = np.random.default_rng(0)
    X = rng.normal(size=(_ROWS, _FEATURES)).astype(dtype)
    yield f"SoftmaxClassifier, sampled, {precision}", _fit(SoftmaxClassifier, X, n_negatives=2)
    for kind, rows in (("dense", X), ("sparse", sparse.csr_array(X))):
        for solver in ("minibatch", "lbfgs"):
            yield f"SoftmaxClassifier, {solver}, {kind}, {precision}", _fit(SoftmaxClassifier, rows, solver=solver)
            yield f"LogisticClassifier, {solver}, {kind}, {precision}", _fit(LogisticClassifier, rows, solver=solver)
            yield f"LinearRegressor, {solver}, {kind}, {precision}", _fit(LinearRegressor, rows, solver=solver)
        for many, units in _UNITS.items():
            sizes = {"hidden_layer_sizes": (units,)}
            yield f"MLPClassifier, {many} units, {kind}, {precision}", _fit(MLPClassifier, rows, **sizes)
            yield f"MLPRegressor, {many} units, {kind}, {precision}", _fit(MLPRegressor, rows, **sizes)
        yield f"linear + softmax cross-entropy, {kind}, {precision}", _linear_losses(rows, _CLASSES["few"])
    yield f"the same, very many classes, {precision}", _linear_losses(X, _CLASSES["very many"])
    for many in ("few", "many"):
        logits = rng.normal(size=(_ROWS, _CLASSES[many])).astype(dtype)
        yield f"softmax, {many} classes, {precision}", _probabilities(logits)
        yield f"softmax cross-entropy, {many} classes, {precision}", _losses(logits)
    yield f"losses of single outputs, {precision}", _output_losses(X)
    yield f"optimizers, {precision}", _update(X)
    yield f"TwoTower, {precision}", _embed(TwoTower(2, hidden_layer_sizes=(4,), **_TWO_EPOCHS), X, sparse.csr_array(X))
    yield f"ContrastiveEmbedding, {precision}", _embed(ContrastiveEmbedding(2, **_TWO_EPOCHS), X, _labels(3))
    for solver in ("cg", "block"):
        model = WALS(n_factors=2, solver=solver, max_iter=1, random_state=0)
        yield f"WALS, {solver}, {precision}", _recommend(model, sparse.csr_array(np.abs(X)))
    for loss in ("sampled_softmax", "bpr"):
        model = SampledMF(n_factors=2, loss=loss, max_iter=1, random_state=0)
        yield f"SampledMF, {loss}, {precision}", _recommend(model, sparse.csr_array(np.abs(X) * (X > 0)))


def _embed(model, X, Y):
    def action():
        with warnings.catch_warnings():  # two epochs are not meant to converge
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(X, Y)
        model.transform(X)
        if isinstance(model, TwoTower):
            model.score(X, Y)

    return action


def _labels(n_classes):
    return np.arange(_ROWS) % n_classes


def _fit(kind, X, **settings):
    model = kind(early_stopping=True, max_iter=2, random_state=0, **settings)

    def action():
        with warnings.catch_warnings():  # two epochs are not meant to converge
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(X, _labels(_CLASSES["few"]))
        getattr(model, "predict_proba", model.predict)(X)

    return action


def _recommend(model, X):
    return lambda: model.fit(X).score(X)


def _output_losses(X):
    def action():
        for name in ("binary_cross_entropy", "squared_error", "absolute_error", "huber"):
            for function in (getattr(functional, name), getattr(functional, f"{name}_grad")):
                function(X, np.zeros_like(X))
        for function in (functional.sigmoid, functional.tanh, functional.relu, functional.elu, functional.gelu):
            function(X)

    return action


def _linear_losses(X, n_classes):
    W, b = np.zeros((n_classes, X.shape[1]), X.dtype), np.zeros(n_classes, X.dtype)

    def action():
        for target in (_labels(n_classes), np.full((_ROWS, n_classes), 1 / n_classes, X.dtype)):
            functional.linear_softmax_cross_entropy(X, W, b, target)
            functional.linear_softmax_cross_entropy_grad(X, W, b, target)

    return action


def _losses(logits):
    def action():
        for target in (_labels(logits.shape[1]), functional.softmax(logits)):
            functional.softmax_cross_entropy(logits, target)
            functional.softmax_cross_entropy_grad(logits, target)

    return action


def _probabilities(logits):
    def action():
        functional.softmax(logits)
        functional.log_softmax(logits)
        functional.log_sum_exp(logits)

    return action


def _update(weights):
    def action():
        optimizer, params = Adam(max_grad_norm=1.0), [weights.copy()]
        optimizer.update(params, [weights], optimizer.init(params))

    return action
