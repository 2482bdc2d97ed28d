"""What estimators that embed rows by InfoNCE share: their networks, batches, learning rate and temperature."""

import math
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state

from fastml._sklearn_compat import CallbackSupportMixin, Interval, StrOptions
from fastml.estimators._fitting import CallbackTasks, run_epochs
from fastml.estimators._gradient import GradientModel
from fastml.functional._sparse import canonical_csr
from fastml.functional._validate import canonical, check_temperature
from fastml.optim import SGD, Adam, InverseTimeDecay
from fastml.runtime import thread_count
from fastml.training.contrastive import LEAST_TEMPERATURE, WholeBatches, embed
from fastml.training.monitor import Monitor
from fastml.training.network import ACTIVATIONS, Network

_FIRST_TEMPERATURE = 0.07  # of a learned one


@dataclass
class Tower:
    """A network and its parameters, without what depends on the machine."""

    sizes: tuple
    activation: str
    values: np.ndarray

    def network(self, n_jobs=1):
        """The network, for so many threads."""
        options = {"activation": self.activation, "dtype": self.values.dtype, "n_threads": thread_count(n_jobs)}
        return Network(self.sizes, **options)

    def outputs(self, X, n_jobs):
        """What the network makes of valid rows, (n, n_components)."""
        return self.network(n_jobs).predict(X, self.values)

    def embed(self, X, n_jobs):
        """The same with length 1."""
        return embed(self.network(n_jobs), X, self.values)

    def parameters(self, name):
        """The parameters of this name, an array for each layer; views."""
        return [layer[name] for layer in self.network().layers(self.values)]


class ContrastiveModel(ClassNamePrefixFeaturesOutMixin, TransformerMixin, CallbackSupportMixin, BaseEstimator):
    """Base of the estimators that embed rows by InfoNCE.

    A subclass has a ``fit`` that makes a ``ContrastiveProblem`` and lowers it. It says in ``_fitted`` which attributes
    hold a vector of parameters, and in ``_rates`` at which learning rates Adam and SGD begin.
    """

    _parameter_constraints = {
        **{name: rule for name, rule in GradientModel._parameter_constraints.items() if name != "shuffle"},
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "temperature": [Interval(Real, 0, None, closed="neither"), StrOptions({"learn"})],
        "batch_size": [Interval(Integral, 2, None, closed="left"), None],
    }
    shuffle = True  # no parameter: each epoch leaves other rows out of its whole batches

    def _sizes(self, n_features):
        hidden = np.atleast_1d(np.asarray(self.hidden_layer_sizes))
        if hidden.size and (hidden.ndim != 1 or hidden.dtype.kind not in "iu" or hidden.min() < 1):
            raise ValueError(
                f"hidden_layer_sizes: expected whole numbers of at least 1, got {self.hidden_layer_sizes!r}; () has no "
                "hidden layer."
            )
        return n_features, *map(int, hidden), self.n_components

    def _tower(self, n_features, dtype, values=None):
        """A tower as the parameters describe it; ``values`` may come later."""
        return Tower(self._sizes(n_features), self.activation, np.empty(0, dtype) if values is None else values)

    def _first_values(self, tower, last, random_state):
        """Parameters to begin at: new ones, or those of the ``last`` tower where there is one."""
        if last is None:
            return tower.network().start("auto", random_state)
        if (last.sizes, last.activation) != (tower.sizes, tower.activation):
            raise ValueError(
                f"warm_start and partial_fit need the same layers: the last fit had {last.sizes} with "
                f"{last.activation!r}, now it is {tower.sizes} with {tower.activation!r}."
            )
        return last.values.astype(tower.values.dtype)

    def _last(self, name, go_on):
        """An attribute to go on from, or None to begin anew."""
        return getattr(self, name, None) if go_on or self.warm_start else None

    def _first_temperature(self, go_on):
        """The temperature to begin at."""
        if self.temperature != "learn":
            return self.temperature
        last = self._last("temperature_", go_on)
        return _FIRST_TEMPERATURE if last is None else max(last, LEAST_TEMPERATURE)

    def _options(self, dtype):
        """Of a ``ContrastiveProblem``."""
        if self.temperature != "learn":
            check_temperature(self.temperature, dtype)
        return {"temperature": self.temperature, "alpha": self.alpha, "n_threads": thread_count(self.n_jobs)}

    def _lower(self, problem, values, validate, random_state, data):
        """Fit to ``data`` as passed to ``fit``; returns what to warn of, or None."""
        tasks = CallbackTasks(self, self.max_iter, lambda v: self._fitted(problem, v.copy()), *data, None)
        monitor = self._monitor(problem, validate)
        with tasks.fit():
            values, trouble = run_epochs(self, self._steps(problem, values), values, monitor, tasks, random_state)
            monitor.check(values)
            self.__dict__.update(self._fitted(problem, values))
            self.__dict__.pop("_optimizer_state", None)  # it belonged to other parameters
            self._record(monitor.losses, None if validate is None else monitor.validation_losses)
        return trouble

    def _lower_once(self, problem, values, random_state):
        """One epoch, going on from the moments of the last one."""
        monitor = self._monitor(problem, None)
        steps = self._steps(problem, values, getattr(self, "_optimizer_state", None))
        monitor.record(steps.epoch(random_state.permutation(problem.n_rows)), values)
        self.__dict__.update(self._fitted(problem, values))
        self._optimizer_state = steps.state
        self._record([*getattr(self, "loss_curve_", []), *monitor.losses])
        return self

    def _record(self, losses, validation_losses=None):
        """Keep the curves of the epochs done."""
        self.loss_curve_, self.n_iter_ = losses, len(losses)

    def _batch_rows(self, n_rows):
        return min(self.batch_size or n_rows, n_rows)

    def _steps(self, problem, values, state=None):
        size = self._batch_rows(problem.n_rows)
        return WholeBatches(problem, self._chosen(), values, batch_size=size, l2=0.0, l1=0.0, state=state)

    def _chosen(self):
        """The optimizer; those that a name stands for slow down to half their rate in a thousand steps."""
        if not isinstance(self.optimizer, str):
            return self.optimizer
        rate = InverseTimeDecay(self._rates[self.optimizer], 0.001)
        return Adam(rate) if self.optimizer == "adam" else SGD(rate, momentum=0.9)

    def _monitor(self, problem, validate):
        lowest = LEAST_TEMPERATURE if self.temperature == "learn" else self.temperature
        largest = math.log(self._batch_rows(problem.n_rows)) + 2 / lowest  # all negatives close, the positives far
        options = {"tol": self.tol, "patience": self.n_iter_no_change, "validate": validate, "verbose": self.verbose}
        return Monitor(type(self).__name__, largest, **options)


def as_rows(X, dtype):
    """Valid rows in this dtype, as kernels take them."""
    return canonical_csr(X.astype(dtype, copy=False)) if issparse(X) else canonical(X, dtype)


def check_pairs(X):
    """Raise where there are no negatives."""
    if X.shape[0] < 2:
        raise ValueError("X has 1 sample: the only pair has no negatives; pass at least 2 rows.")


def draw_seed(random_state):
    """``random_state`` as an object, and a seed drawn from it."""
    random_state = check_random_state(random_state)
    return random_state, int(random_state.randint(2**31))
