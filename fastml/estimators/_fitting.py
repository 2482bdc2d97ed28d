"""What the ``fit`` of every iterative estimator needs around its loop."""

import functools
import warnings
from contextlib import contextmanager

import numpy as np
from sklearn.exceptions import ConvergenceWarning


def unchanged_on_error(method):
    """Decorate a fitting method: if it raises, the estimator is as it was before the call."""

    @functools.wraps(method)
    def fitting(self, *args, **kwargs):
        before = dict(self.__dict__)
        try:
            return method(self, *args, **kwargs)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    return fitting


class CallbackTasks:
    """Tells scikit-learn's callbacks of a fit and of each of its iterations.

    Parameters
    ----------
    estimator : CallbackSupportMixin
    max_iter : int
    attributes : callable
        ``values -> dict`` of the fitted attributes at that point, asked for only if a callback wants them.
    X, y, sample_weight
        As passed to ``fit``.
    """

    def __init__(self, estimator, max_iter, attributes, X, y, sample_weight):
        self.estimator, self.attributes = estimator, attributes
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        self.data = {"X": X, "y": y, "metadata": metadata}
        self.root = estimator._init_callback_context(max_subtasks=max_iter)
        self.iteration = None

    @contextmanager
    def fit(self):
        """Around the whole fit, which has set all fitted attributes at its end."""
        self.root.call_on_fit_task_begin(estimator=self.estimator, **self.data)
        yield
        self.root.call_on_fit_task_end(estimator=self.estimator, **self.data, reconstruction_attributes={})

    def begin_iteration(self, values):
        """An iteration begins at these parameters."""
        self.iteration = self.root.subcontext(task_name="iteration")
        self._call(self.iteration.call_on_fit_task_begin, values)

    def end_iteration(self, values):
        """An iteration came to these parameters; returns whether a callback asks to stop."""
        return self._call(self.iteration.call_on_fit_task_end, values)

    def _call(self, hook, values):
        return hook(estimator=self.estimator, **self.data, reconstruction_attributes=lambda: self.attributes(values))


def row_order(estimator, n_rows, random_state):
    """The order of the rows in an epoch: a new one each time, unless ``shuffle`` is off."""
    return random_state.permutation(n_rows) if estimator.shuffle else np.arange(n_rows)


def run_epochs(estimator, steps, values, monitor, tasks, random_state):
    """Epochs until the loss has settled, a callback asks to stop, or ``max_iter``.

    Parameters
    ----------
    estimator : BaseEstimator
        Its ``max_iter`` and ``shuffle`` are followed.
    steps : MiniBatches
        ``epoch(order) -> loss`` goes over the rows of ``steps.problem`` once.
    values : ndarray
        The parameters that ``steps`` updates in place.
    monitor : Monitor
    tasks : CallbackTasks
    random_state : RandomState
        Draws the orders of the rows.

    Returns
    -------
    values : ndarray
        Those to keep: the best ones on held-out rows where there are any, else ``values`` as passed.
    trouble : str or None
        A sentence for ``warn_unconverged`` where the loss has not settled.
    """
    trouble = None
    for _ in range(estimator.max_iter):
        tasks.begin_iteration(values)
        stop = monitor.record(steps.epoch(row_order(estimator, steps.problem.n_rows, random_state)), values)
        if tasks.end_iteration(values) or stop:
            break
    else:
        advice = "raise max_iter, tol or the learning rate"
        trouble = f"did not converge in max_iter={estimator.max_iter} epochs: {advice}."
    return values if monitor.best_values is None else monitor.best_values, trouble


def warn_unconverged(estimator, message):
    """A ConvergenceWarning, from within ``fit``, that points to who called it."""
    # Six frames up: this, fit and its three decorators, and who called fit.
    warnings.warn(f"{type(estimator).__name__} {message}", ConvergenceWarning, stacklevel=6)
