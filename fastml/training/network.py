"""A stack of dense layers on one flat vector of parameters, and backpropagation through it."""

import itertools
import math
from copy import copy
from dataclasses import dataclass

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_random_state

from fastml.kernels import _activations as activations
from fastml.kernels import network as kernels
from fastml.kernels._network import (
    COEF,
    EPSILON,
    INTERCEPT,
    KIND,
    MEAN,
    N_IN,
    N_OUT,
    PLACE,
    SCALE,
    SLOPE,
    SWAPPED,
    VARIANCE,
    Batch,
    Net,
    Rows,
)
from fastml.runtime import blas_limited, run_tasks

ACTIVATIONS = {
    "identity": activations.IDENTITY,
    "sigmoid": activations.SIGMOID,
    "tanh": activations.TANH,
    "relu": activations.RELU,
    "leaky_relu": activations.LEAKY_RELU,
    "prelu": activations.PRELU,
    "elu": activations.ELU,
    "gelu": activations.GELU,
    "gelu_tanh": activations.GELU_TANH,
}
_WIDE = 2048  # outputs from which on they are cut into panels, and each one's coefficients must lie together
_LANE_ROWS, _LEAST_ROWS = 128, 32
_MAX_LANES = 16
_PREDICTED_ROWS = 256
_PREDICTED = 1 << 22  # numbers that a block of them may have
_CHUNK, _MOST_CHUNKS = 1 << 15, 32  # coefficients whose gradient is one task, and tasks of a layer


@dataclass
class Pass:
    """What a forward pass leaves: ``output`` (n, n_outputs), and what ``Network.backward`` needs."""

    output: np.ndarray
    rows: Rows
    values: np.ndarray
    batch: Batch
    bounds: np.ndarray


class Network:
    """Dense layers with activations between them.

    Parameters
    ----------
    sizes : tuple of int
        Number of features, units of each hidden layer, number of outputs.
    activation, output_activation : str
        Of the hidden layers and of the outputs: a key of ``ACTIVATIONS``.
    batch_norm : bool
        Whether hidden layers normalise each unit over the batch, before the activation; the intercept is what is added
        behind. A batch must have at least two rows.
    dropout : float
        Share of the hidden units that are left out at each training step, in [0, 1).
    dtype : dtype
        float32 or float64.
    n_threads : int

    A vector of parameters holds ``n_coef`` coefficients, layer by layer (n_in, n_out) each, then the intercepts, the
    scales of batch norm and the slopes of PReLU: ``n_trained`` in all. Behind them lie the running means and variances
    of batch norm, which training moves and prediction uses; ``n_values`` with these.
    """

    def __init__(
        self,
        sizes,
        *,
        activation="relu",
        output_activation="identity",
        batch_norm=False,
        dropout=0.0,
        dtype=np.float32,
        n_threads=1,
    ):
        self.sizes, self.activation, self.n_threads = tuple(map(int, sizes)), activation, n_threads
        n_layers = len(self.sizes) - 1
        self.batch_norm, self.dtype = bool(batch_norm), np.dtype(dtype)
        self.is_wide = n_layers > 1 and self.sizes[-1] >= _WIDE and output_activation == "identity"
        table = np.zeros((n_layers, SWAPPED + 1), np.int64)
        table[:, N_IN], table[:, N_OUT] = self.sizes[:-1], self.sizes[1:]
        table[:, KIND] = [ACTIVATIONS[activation]] * (n_layers - 1) + [ACTIVATIONS[output_activation]]
        table[-1, SWAPPED] = self.is_wide
        table[:, PLACE] = np.cumsum(table[:, N_OUT]) - table[:, N_OUT]
        self.n_coef = self._lay_out(table, COEF, 0, n_layers, table[:, N_IN] * table[:, N_OUT])
        n = self._lay_out(table, INTERCEPT, self.n_coef, n_layers)
        n = self._lay_out(table, SCALE, n, (n_layers - 1) * self.batch_norm)
        self.n_trained = self._lay_out(table, SLOPE, n, (n_layers - 1) * (activation == "prelu"))
        n = self._lay_out(table, MEAN, self.n_trained, (n_layers - 1) * self.batch_norm)
        self.n_values = self._lay_out(table, VARIANCE, n, (n_layers - 1) * self.batch_norm)
        self.table, self.dropout = table, dropout
        self.net, self.cuts, self.tasks = self._net(dropout), self._cut_step(), self._cut_gradient()

    @staticmethod
    def _lay_out(table, column, first, n_layers, sizes=None):
        """Give the first layers their places from ``first`` on; returns where the next may begin."""
        sizes = table[:n_layers, N_OUT] if sizes is None else sizes
        ends = first + np.cumsum(sizes)
        table[:n_layers, column] = ends - sizes
        return int(ends[-1]) if n_layers else first

    def _net(self, dropout):
        widths, grow = self.table[:, N_OUT], self.dtype.type(1 / (1 - dropout))
        sums = int(widths.sum()), int(widths.max())
        normed, dropped = int(self.batch_norm), round(dropout * 2**24)
        return Net(self.table, len(self.sizes) - 2, *sums, self.n_coef, normed, dropped, grow)

    def trunk(self):
        """The hidden layers alone, on the same vector of parameters; its outputs are the last one's activations."""
        other = copy(self)
        other.table = self.table[:-1]
        other.net, other.tasks = other._net(self.dropout), other._cut_gradient()
        return other

    @property
    def n_outputs(self):
        """Width of the last layer."""
        return int(self.table[-1, N_OUT])

    def start(self, init, random_state, output_scale=1.0):
        """New parameters: uniform coefficients, those of the last layer times ``output_scale``; intercepts 0.

        ``init="he"`` bounds them by sqrt(6 / n_in), "glorot" by sqrt(6 / (n_in + n_out)), with 2 for 6 where sigmoids
        are between the layers; "auto" takes "he" for the ReLU family and "glorot" for the rest.
        """
        random_state, values = check_random_state(random_state), np.zeros(self.n_values, self.dtype)
        for layer in self.layers(values):
            coef = layer["coef"]
            bound = self._bound(init, *coef.shape)
            coef[...] = random_state.uniform(-bound, bound, coef.shape)
            for name, value in ("scale", 1), ("variance", 1), ("slope", 0.25):
                if name in layer:
                    layer[name][...] = value
        layer["coef"][...] *= self.dtype.type(output_scale)
        return values

    def _bound(self, init, n_in, n_out):
        if init == "he" or (init == "auto" and self.activation not in ("identity", "sigmoid", "tanh")):
            return math.sqrt(6 / n_in)
        return math.sqrt((2 if self.activation == "sigmoid" else 6) / (n_in + n_out))

    def layers(self, values):
        """Views of the parameters: for each layer a dictionary of ``coef`` (n_in, n_out), ``intercept`` (n_out,) ...

        ... and with batch norm ``scale``, ``mean`` and ``variance``, with PReLU ``slope``.
        """
        return [self._layer(values, k) for k in range(len(self.table))]

    def _layer(self, values, k):
        row, is_hidden = self.table[k], k < self.net.n_hidden
        n_in, n_out = int(row[N_IN]), int(row[N_OUT])
        coef = values[row[COEF] : row[COEF] + n_in * n_out]
        layer = {"coef": coef.reshape(n_out, n_in).T if row[SWAPPED] else coef.reshape(n_in, n_out)}
        names = {"intercept": INTERCEPT}
        if is_hidden and self.batch_norm:
            names |= {"scale": SCALE, "mean": MEAN, "variance": VARIANCE}
        if is_hidden and self.activation == "prelu":
            names["slope"] = SLOPE
        return layer | {name: values[row[column] : row[column] + n_out] for name, column in names.items()}

    def batch(self, n_rows, n_lanes):
        """Room for a pass of ``n_rows`` rows."""
        size = ((2 + self.batch_norm) * self.net.total + self.net.widest) * n_rows
        moments = n_lanes if self.batch_norm else 0
        return Batch(
            np.empty(size, self.dtype),
            np.empty((moments, 2, self.net.total)),
            np.zeros((4, self.net.total), self.dtype),
            np.zeros(2, np.uint64),
            np.empty((n_lanes, self.n_trained - self.n_coef), self.dtype),
        )

    def predict(self, X, values):
        """Outputs (n, n_outputs) of dense or CSR rows, by the running moments and without dropout."""
        rows, n = as_rows(X), X.shape[0]
        output = np.empty((n, self.n_outputs), self.dtype)
        self._over_blocks(n, values, lambda span, batch, net: kernels.predict(*span, rows, values, net, batch, output))
        return output

    def losses(self, X, target, weights, settings, values):
        """Losses (n,) of dense or CSR rows, as ``predict`` sees them; arguments as ``_loss_tile`` has them."""
        rows = as_rows(X)
        n = weights.shape[1]
        loss = np.empty(n, self.dtype)

        def run(span, batch, net):
            part = np.ascontiguousarray(weights[:, span[0] : span[1]])  # of the layout that training has
            arrays = target, part, settings, values, net, batch, np.empty((4, part.shape[1]), self.dtype), loss
            kernels.predict_losses(*span, rows, *arrays)

        self._over_blocks(n, values, run)
        return loss

    def _over_blocks(self, n, values, function):
        """``function(span, batch, net)`` for blocks of n rows, none of them in training."""
        block, net = max(min(_PREDICTED_ROWS, n, _PREDICTED // self.net.total), 1), self._net(0.0)
        batches = [self.batch(block, 1) for _ in range(min(self.n_threads, -(-n // block)))]
        for batch in batches:
            self._use_running_moments(values, batch)

        def run(task, slot):
            function((task * block, min((task + 1) * block, n)), batches[slot], net)

        with blas_limited():
            run_tasks(run, -(-n // block), self.n_threads)

    def _use_running_moments(self, values, batch):
        if self.batch_norm:
            for row, layer in zip(self.table[: self.net.n_hidden], self.layers(values), strict=False):
                place = slice(row[PLACE], row[PLACE] + row[N_OUT])
                batch.joined[0, place] = layer["mean"]
                batch.joined[1, place] = 1 / np.sqrt(layer["variance"].astype(np.float64) + EPSILON)

    def forward(self, X, values, seed=0, step=0):
        """Outputs of a batch as in training: moments of the batch, which move the running ones, and dropout.

        ``seed`` and ``step`` say what dropout draws. Returns a ``Pass``.
        """
        rows, n = as_rows(X), X.shape[0]
        bounds = lane_bounds(n)
        batch, output = self.batch(n, len(bounds) - 1), np.empty((n, self.n_outputs), self.dtype)
        batch.draw[:] = seed, step
        with blas_limited():
            self.forward_lanes(rows, values, batch, bounds)
            self.over_lanes(bounds, kernels.outputs, n, values, self.net, batch, output)
        return Pass(output, rows, values, batch, bounds)

    def over_lanes(self, bounds, kernel, *args):
        """``kernel(start, stop, lane, *args)`` for each lane of a batch."""

        def run(lane, slot):
            kernel(int(bounds[lane]), int(bounds[lane + 1]), lane, *args)

        run_tasks(run, len(bounds) - 1, self.n_threads)

    def forward_lanes(self, rows, values, batch, bounds):
        """All lanes of a batch up to the products of the last layer."""
        n = int(bounds[-1])
        for begin, end in self._runs():
            arguments = begin, end, n, rows, values, self.net, batch
            self.over_lanes(bounds, kernels.forward, *arguments)
            if self.batch_norm and end <= self.net.n_hidden:
                kernels.join_measures(end - 1, bounds, values, self.net, batch)

    def _runs(self):
        """Runs of layers that a lane may pass without waiting for the others."""
        n_layers = len(self.table)
        return [(k, k + 1) for k in range(n_layers)] if self.batch_norm else [(0, n_layers)]

    def _cut_step(self):
        """A step in parts between which lanes wait for each other: layers to go forward, and then back, in each."""
        *others, last = self._runs()
        back = [(0, 0, *run) for run in reversed(others)]
        return np.array([(*run, 0, 0) for run in others] + [(*last, *last)] + back)

    def backward(self, past, output_grad, grad):
        """Fill ``grad[:n_trained]`` with the gradient of ``(output_grad * past.output).sum()``.

        A ``Pass`` may go backward once.
        """
        arguments = len(past.output), output_grad, past.values, self.net, past.batch
        with blas_limited():
            self.over_lanes(past.bounds, kernels.outputs_grad, *arguments)
            self.backward_lanes(past.values, past.batch, past.bounds)
            self.parameter_grad(past.rows, past.batch, len(past.output), grad)

    def backward_lanes(self, values, batch, bounds):
        """All lanes of a batch from the gradient of the last layer's sums down to that of the first's."""
        n = int(bounds[-1])
        for begin, end in reversed(self._runs()):
            if self.batch_norm and end <= self.net.n_hidden:
                kernels.join_grads(end - 1, bounds, self.net, batch)
            self.over_lanes(bounds, kernels.backward, begin, end, n, values, self.net, batch)

    def parameter_grad(self, rows, batch, n, grad):
        """From the gradients of all layers' sums to that of the parameters."""
        tasks = self.tasks

        def run(task, slot):
            if task < len(tasks) - 1:
                first, last, k = map(int, tasks[task, 2:])
                kernels.coef_grad(first, last, k, n, rows, self.net, batch.work, grad)
            else:
                kernels.tail_grad(self.net, batch.tails, grad)

        run_tasks(run, len(tasks), self.n_threads)

    def _cut_gradient(self):
        """Ranges of parameters whose gradient is a task each (n_tasks, 5): where it begins and ends ...

        ... and, but for the last, which has all that is no coefficient: from which row of the coefficients of which
        layer to which row.
        """
        tasks = []
        for k, row in enumerate(self.table.tolist()):
            height, width = (row[N_OUT], row[N_IN]) if row[SWAPPED] else (row[N_IN], row[N_OUT])
            n_parts = min(-(-height * width // _CHUNK), height, _MOST_CHUNKS)
            bounds = [height * part // n_parts for part in range(n_parts + 1)]
            for first, last in itertools.pairwise(bounds):
                tasks.append((row[COEF] + first * width, row[COEF] + last * width, first, last, k))
        return np.array([*tasks, (self.n_coef, self.n_trained, 0, 0, 0)])


def lane_bounds(n):
    """Limits of the lanes of a batch of n rows: long ones, which BLAS likes, but two where they pay."""
    n_lanes = min(max(n // _LANE_ROWS, min(n // _LEAST_ROWS, 2), 1), _MAX_LANES)
    return np.array([n * lane // n_lanes for lane in range(n_lanes + 1)])


def as_rows(X):
    """Dense or CSR rows, or what this made of them, as kernels take them."""
    if isinstance(X, Rows):
        return X
    none, nowhere = np.empty(0, X.dtype), np.empty(0, np.int64)
    if not issparse(X):
        return Rows(X, nowhere, nowhere, none)
    pointers = (a.astype(np.int64, copy=False) for a in (X.indptr, X.indices))
    return Rows(np.empty((0, X.shape[1]), X.dtype), *pointers, X.data)
