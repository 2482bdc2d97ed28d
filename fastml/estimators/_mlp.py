"""What multi-layer perceptrons share: the network between the features and a loss."""

from abc import abstractmethod
from numbers import Integral, Real

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import check_is_fitted, validate_data

from fastml._sklearn_compat import Interval, StrOptions
from fastml.estimators._gradient import GradientModel
from fastml.functional._sparse import canonical_csr, check_structure
from fastml.functional._validate import canonical
from fastml.kernels._network import EPSILON
from fastml.optim import SGD, Adam, Optimizer
from fastml.runtime import thread_count
from fastml.training.network import ACTIVATIONS, Network
from fastml.training.network_problem import NetworkProblem

_FIRST_ROWS = 256  # whose loss says where a fit starts
_OUTPUT_SCALE = 0.4  # of the last layer's first coefficients: hidden units learn more of what it cannot say yet
_LOOKED_AT = 2000  # rows at a time, for units that never fire
_MOST_LOOKED_AT = 10_000  # of more rows evenly spaced ones: it should not take as long as an epoch
# Parts of a layer that has them, beside its coefficients, and the attributes that hold them.
_PARTS = {
    "intercept": "intercepts_",
    "scale": "scales_",
    "mean": "means_",
    "variance": "variances_",
    "slope": "slopes_",
}
_SGD = "pass optimizer=SGD(rate, momentum=0.9) from fastml.optim"
_ADAM = "pass optimizer=Adam(rate, beta_1=0.9, beta_2=0.999, epsilon=1e-8) from fastml.optim"
_CURES = {
    "learning_rate": "schedules are part of the optimizer, for example optimizer=SGD(StepDecay(...)) from fastml.optim",
    "power_t": "schedules are part of the optimizer, for example optimizer=SGD(InverseTimeDecay(...)) of fastml.optim",
    "momentum": _SGD,
    "nesterovs_momentum": _SGD.replace("0.9", "0.9, nesterov=True"),
    "beta_1": _ADAM,
    "beta_2": _ADAM,
    "epsilon": _ADAM,
    "max_fun": "it belongs to solver='lbfgs' of scikit-learn, leave it out",
}


class NetworkModel(GradientModel):
    """Base of the multi-layer perceptrons.

    A subclass says, beside what every ``GradientModel`` does, how many outputs its targets take (``_target``), which
    loss they have (``_settings``), and how the last layer's parameters stand for those that are trained (``_inward``,
    ``_outward``).
    """

    _weights = "coefs_"
    _parameter_constraints = {
        **GradientModel._parameter_constraints,
        "hidden_layer_sizes": ["array-like", Integral],
        "activation": [StrOptions({*ACTIVATIONS, "logistic"})],
        "batch_norm": ["boolean"],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "init": [StrOptions({"auto", "he", "glorot"})],
        "solver": [StrOptions({"adam", "sgd"}), None],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left"), None],
    }

    def __new__(cls, *args, **kwargs):
        """Say what takes the place of a parameter that only scikit-learn's has."""
        for name in kwargs.keys() & _CURES.keys():
            raise TypeError(f"{cls.__name__} has no {name}: {_CURES[name]}.")
        return super().__new__(cls)

    @abstractmethod
    def __init__(
        self, *, hidden_layer_sizes, activation, batch_norm, dropout, init, solver, learning_rate_init, **common
    ):
        super().__init__(**common)
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.batch_norm = batch_norm
        self.dropout = dropout
        self.init = init
        self.solver = solver
        self.learning_rate_init = learning_rate_init

    def _hidden(self):
        """Units of each hidden layer."""
        given = self.hidden_layer_sizes
        sizes = [given] if isinstance(given, Integral) else list(given)
        if not all(isinstance(size, Integral) and not isinstance(size, bool) and size > 0 for size in sizes):
            raise ValueError(
                f"hidden_layer_sizes must be positive integers, the units of each hidden layer, got {given!r}."
            )
        return [int(size) for size in sizes]

    def _network(self, sizes, dtype, batch_norm):
        return Network(
            sizes,
            activation="sigmoid" if self.activation == "logistic" else self.activation,
            output_activation=self._output_activation(),
            batch_norm=batch_norm,
            dropout=self.dropout,
            dtype=dtype,
            n_threads=thread_count(self.n_jobs),
        )

    def _output_activation(self):
        return "identity"

    def _problem(self, X, coded, weight):
        target = self._target(coded, X.dtype)
        network = self._network((X.shape[1], *self._hidden(), self._n_outputs(target)), X.dtype, self.batch_norm)
        return NetworkProblem(X, target, weight, network, self._settings(X.dtype))

    def _n_outputs(self, target):
        return target.shape[1]

    def _rows_of_a_batch(self, n_rows):
        size = 200 if self.batch_size == "auto" else self.batch_size
        return n_rows if size is None else min(size, n_rows)

    def _batch_rows(self, problem):
        """Rows of a batch; with batch norm the nearest number that leaves no last batch of a single row."""
        n_rows = problem.n_rows
        size = self._rows_of_a_batch(n_rows)
        if self.batch_norm and size < 2:
            raise ValueError(
                f"batch_norm needs batches of at least 2 rows, as one row has no variance; got batch_size="
                f"{self.batch_size!r} and n_samples={n_rows}. Raise batch_size or set batch_norm=False."
            )
        if not self.batch_norm or n_rows % size != 1:
            return size
        return min((s for s in range(2, n_rows + 1) if n_rows % s != 1), key=lambda s: abs(s - size))

    def _penalties(self, problem):
        """L2, with the strength that scikit-learn's has: divided by the weight of a batch."""
        return self.alpha / (self._rows_of_a_batch(problem.n_rows) * self._row_weight), 0.0

    def _optimizer(self):
        if isinstance(self.optimizer, Optimizer):
            if self.solver is not None:
                raise ValueError(f"solver={self.solver!r} and optimizer={self.optimizer!r} are given: leave one out.")
            return self.optimizer
        if (self.solver or self.optimizer) == "adam":
            return Adam(self.learning_rate_init)
        return SGD(self.learning_rate_init, momentum=0.9, nesterov=True)

    def _start(self, known, X, coded, weight, go_on=False):
        """A list of what each layer begins at, or None to begin anew."""
        sizes = self._hidden()
        if not (go_on or (self.warm_start and hasattr(self, "coefs_"))):
            return None
        self._check_same(known)
        old, new = [coef.shape[0] for coef in self.coefs_], [X.shape[1], *sizes]
        if old != new:
            raise ValueError(
                f"warm_start and partial_fit need the same layers: X and hidden_layer_sizes have {new} features and "
                f"units, the last fit {old}."
            )
        return self._inward(self._layers(), known)

    def _values(self, problem, start, random_state):
        network, problem.seed = problem.network, random_state.randint(2**31 - 1)
        values = network.start(self.init, random_state, _OUTPUT_SCALE if self.init == "auto" else 1.0)
        return values if start is None else _filled(network, values, start)

    def _start_loss(self, problem, values):
        """That of the first rows: features that are not scaled may begin far from where they get."""
        X, (_, target, _) = problem.matrix, problem.data
        first = slice(min(problem.n_rows, _FIRST_ROWS))
        weight = np.ones(first.stop)
        head = NetworkProblem(X[first], target[first], weight, problem.network, problem.settings)
        return max(self._blind_loss(problem), head.loss(values))

    def _layers(self):
        """The attributes, layer by layer: a dictionary each, as those of ``Network.layers``."""
        layers = [{"coef": coef} for coef in self.coefs_]
        for part, name in _PARTS.items():
            for layer, value in zip(layers, getattr(self, name, []), strict=False):
                layer[part] = value
        return layers

    def _fitted(self, problem, values):
        """The attributes that hold the parameters, from a vector of them."""
        views = problem.network.layers(values)
        layers = self._outward([{name: np.array(part, order="C") for name, part in view.items()} for view in views])
        parts = {name: [layer[part] for layer in layers if part in layer] for part, name in _PARTS.items()}
        return {"coefs_": [layer["coef"] for layer in layers], **parts}

    def _record(self, losses, validation_losses, n_seen):
        super()._record(losses, validation_losses, n_seen)
        self.t_, self.loss_ = n_seen, losses[-1]
        self.best_loss_ = min(validation_losses or losses)
        self.n_layers_, self.n_outputs_ = len(self.coefs_) + 1, self.coefs_[-1].shape[1]
        self.out_activation_, self.silent_units_ = self._out_activation(), None

    def _look_back(self, problem):
        can_be_silent = self.activation == "relu"
        self.silent_units_ = _silent_shares(problem.matrix, self._layers()[:-1]) if can_be_silent else None

    def _outputs(self, X):
        """Outputs (n, n_outputs) of rows as users pass them, by the parameters in the attributes."""
        check_is_fitted(self)
        check_structure(X)
        options = {"accept_sparse": "csr", "dtype": [np.float64, np.float32], "order": "C"}
        X = validate_data(self, X, reset=False, **options)
        dtype = np.result_type(X.dtype, self.coefs_[0].dtype)
        X = canonical_csr(X.astype(dtype, copy=False)) if issparse(X) else canonical(X, dtype)
        network = self._network((X.shape[1], *(coef.shape[1] for coef in self.coefs_)), dtype, bool(self.scales_))
        values = np.empty(network.n_values, dtype)
        return network.predict(X, _filled(network, values, self._layers()))


def mean_weight(sample_weight):
    """That of a row, as given: a row of weight 2 counts as two rows."""
    return 1.0 if sample_weight is None else float(np.mean(np.asarray(sample_weight, np.float64)))


def _filled(network, values, layers):
    """``values``, with the parameters of the layers written to their places."""
    for own, given in zip(network.layers(values), layers, strict=True):
        for name, part in own.items():
            if name not in given:
                raise ValueError(f"The last fit left no {name} of hidden units: call fit anew, without warm_start.")
            part[...] = given[name]
    return values


def _silent_shares(X, layers):
    """Of each hidden layer of ReLUs the share of units that give 0 for every row, or for all of 10,000 and fewer."""
    X = X[:: -(-X.shape[0] // _MOST_LOOKED_AT)]
    fired = [np.zeros(len(layer["intercept"]), bool) for layer in layers]
    for first in range(0, X.shape[0], _LOOKED_AT):
        if all(layer.all() for layer in fired):
            break
        h = X[first : first + _LOOKED_AT]
        for layer, has_fired in zip(layers, fired, strict=True):
            z = h @ layer["coef"]
            if "scale" in layer:
                z = (z - layer["mean"]) * (layer["scale"] / np.sqrt(layer["variance"] + EPSILON))
            h = np.maximum(z + layer["intercept"], 0)
            has_fired |= (h > 0).any(axis=0)
    return [1 - float(layer.mean()) for layer in fired]
