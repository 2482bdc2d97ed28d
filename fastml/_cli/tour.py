"""The tour: a model trained on real data, a kernel timed beside NumPy, and a picture, in under a minute."""

import statistics
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastml import SoftmaxClassifier, __version__
from fastml._cli import CommandError
from fastml._cli.idx import read_fashion_mnist
from fastml._cli.progress import Progress, SearchProgress
from fastml._optional import require
from fastml.display import LossCurveDisplay
from fastml.functional import softmax_cross_entropy_grad
from fastml.optim import Adam
from fastml.runtime import thread_count

_RATE = "softmaxclassifier__optimizer__learning_rate"
_RATES = [0.0003, 0.001, 0.003, 0.01]
_FOLDS = 3
_SETTINGS = {"batch_size": 64, "alpha": 1e-3, "early_stopping": True, "n_iter_no_change": 10, "random_state": 0}
_ROWS, _CLASSES = 8192, 1000  # of the kernel that is timed


def run_tour(output, fashion_mnist=None):
    """Run the tour and save its picture as ``output``; with the folder ``fashion_mnist`` on the images there."""
    began = time.perf_counter()
    output = Path(output).absolute()
    _check_can_draw(output)
    X_train, X_test, y_train, y_test = _load(fashion_mnist)
    print(f"fastml {__version__} on {thread_count()} threads")
    print(f"Data: {len(X_train)} rows to learn from, {len(X_test)} to test on, ", end="")
    print(f"{X_train.shape[1]} features, {len(np.unique(y_train))} classes")
    search = _search(X_train, y_train)
    print(f"\nTest accuracy: {search.score(X_test, y_test):.4f}")
    _race()
    _draw(search, output)
    print(f"\nDone in {time.perf_counter() - began:.1f} s.")


def _check_can_draw(output):
    """Find out before the work whether its result can be saved."""
    existed = output.exists()
    try:
        require("matplotlib", extra="display", feature="The picture of the tour")
        output.open("ab").close()
        if not existed:
            output.unlink()
    except ImportError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"cannot write {output}: {error.strerror}") from error


def _load(fashion_mnist):
    if fashion_mnist is not None:
        return read_fashion_mnist(fashion_mnist)
    X, y = load_digits(return_X_y=True)
    return train_test_split(X.astype(np.float32), y, test_size=0.2, stratify=y, random_state=0)


def _search(X, y):
    """Choose the learning rate by cross-validation."""
    print(f"\nSearching the learning rate, {len(_RATES)} values x {_FOLDS} folds:", flush=True)
    model = make_pipeline(StandardScaler(), SoftmaxClassifier(optimizer=Adam(), **_SETTINGS))
    search = GridSearchCV(model, {_RATE: _RATES}, cv=_FOLDS, error_score="raise")
    search.set_callbacks(SearchProgress(Progress(total=len(_RATES) * _FOLDS + 1)))
    with warnings.catch_warnings():  # that a low rate needs more epochs is what the search is to find out
        warnings.simplefilter("ignore", ConvergenceWarning)
        search.fit(X, y)
    for rate, score in zip(_RATES, search.cv_results_["mean_test_score"], strict=True):
        print(f"   {rate:<7} {score:.4f}{'  <- best' if rate == search.best_params_[_RATE] else ''}")
    return search


def _race():
    """Time softmax cross-entropy with its gradient in one pass beside NumPy, in place."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=3, size=(_ROWS, _CLASSES)).astype(np.float32)
    target = rng.integers(_CLASSES, size=_ROWS)
    out = np.empty_like(logits)

    print(f"\nSoftmax cross-entropy and its gradient, {_ROWS} x {_CLASSES}, float32:", flush=True)
    fused = softmax_cross_entropy_grad(logits, target)
    difference = np.abs(fused.loss - _numpy_cross_entropy_grad(logits, target, out)).max()
    numpy_seconds = _median_seconds(lambda: _numpy_cross_entropy_grad(logits, target, out))
    fused_seconds = _median_seconds(lambda: softmax_cross_entropy_grad(logits, target))
    print(f"   NumPy, in place  {1e3 * numpy_seconds:7.2f} ms")
    print(f"   fastml, fused    {1e3 * fused_seconds:7.2f} ms   {numpy_seconds / fused_seconds:.1f} times as fast")
    print(f"   largest difference of a loss: {difference:.1e} nats")


def _numpy_cross_entropy_grad(logits, target, out):
    """The same quantity with no temporaries but one number a row; the gradient is written to ``out``."""
    rows = np.arange(len(target))
    np.subtract(logits, logits.max(axis=1, keepdims=True), out=out)
    loss = -out[rows, target]
    np.exp(out, out=out)
    total = out.sum(axis=1, keepdims=True)
    loss += np.log(total[:, 0])
    out /= total
    out[rows, target] -= 1
    return loss


def _median_seconds(function, repeats=9):
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _draw(search, output):
    """Save the loss curve without touching matplotlib's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    LossCurveDisplay.from_estimator(search, ax=axes)
    axes.set_title(f"Softmax regression, Adam at learning rate {search.best_params_[_RATE]}")
    try:
        figure.savefig(output, format="png")
    except OSError as error:
        raise CommandError(f"cannot write {output}: {error.strerror}") from error
    print(f"\nThe loss curve: {output}")
