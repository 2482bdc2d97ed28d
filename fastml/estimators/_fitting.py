"""What the ``fit`` of every iterative estimator needs around its loop."""

import functools
from contextlib import contextmanager


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
