"""The mean InfoNCE of pairs whose embeddings come from networks, as a function of one flat vector of parameters."""

import math
from abc import abstractmethod

import numpy as np

from fastml.kernels import corruption
from fastml.kernels.contrastive import Pairs
from fastml.runtime import ranking, run_blocks
from fastml.runtime.contrastive import InfoNCE, groups_of, normalise, normalise_grad
from fastml.training.minibatch import MiniBatches
from fastml.training.problem import Problem

LEAST_TEMPERATURE = 0.01  # a learned one, as in CLIP: below, a few pairs would decide everything
_CORRUPTED = 1 << 14  # features of a block
_TIED = 512  # queries whose ties are counted at a time


class WholeBatches(MiniBatches):
    """An epoch ends with the last whole batch: a short one would be an easier question, of fewer negatives."""

    def epoch(self, order):
        """One pass over the rows in this order, up to the remainder; returns the mean loss on the way."""
        return super().epoch(order[: len(order) // self.batch_size * self.batch_size])


class ContrastiveProblem(Problem):
    """Batches of pairs, embedded by one network or by one for each side, and their InfoNCE.

    Parameters
    ----------
    networks : list of Network
        With as many outputs each. Their outputs, one behind the other, are first all queries of a batch, then its keys.
    ids : ndarray (n,) of int64
        Pairs with the same id are no negatives of each other.
    temperature : float or "learn"
        Learned, its logarithm is the last parameter.
    symmetric : bool
    log_q : ndarray (n,) or None
        Logarithm of how often each pair's key is expected in a batch.
    alpha : float
        L2 penalty of the coefficients.
    n_threads : int

    A subclass has ``_inputs``. A vector of parameters holds those of each network. Their coefficients lie in several
    places of it, so the penalty is added here: to ``MiniBatches`` there are none.
    """

    n_coef = 0

    def __init__(self, networks, ids, *, temperature, symmetric, log_q=None, alpha=0.0, n_threads=1):
        self.networks, self.ids, self.log_q = networks, ids, log_q
        self.is_learned, self.fixed = temperature == "learn", temperature
        self.symmetric, self.alpha, self.n_threads = symmetric, alpha, n_threads
        self.n_rows, self.dtype, self.n_outputs = len(ids), networks[0].dtype, networks[0].sizes[-1]
        self.n_trained = sum(network.n_trained for network in networks) + self.is_learned

    @abstractmethod
    def _inputs(self, rows):
        """What each network gets for these rows."""

    def split(self, values):
        """The parameters of each network; views."""
        ends = np.cumsum([network.n_trained for network in self.networks])
        return np.split(values[: ends[-1]], ends[:-1])

    def pack(self, parts, temperature):
        """A new vector of parameters from those of each network."""
        return np.concatenate([*parts, [math.log(temperature)] if self.is_learned else []]).astype(self.dtype)

    def temperature(self, values):
        """The temperature, learned or not."""
        return max(math.exp(values[-1]), LEAST_TEMPERATURE) if self.is_learned else float(self.fixed)

    def batch_loss_grad(self, rows, values, grad):
        """Mean loss of the pairs of these rows; fills ``grad`` with its gradient."""
        parts, n = self.split(values), len(rows)
        passes = [
            network.forward(X, part) for network, X, part in zip(self.networks, self._inputs(rows), parts, strict=True)
        ]
        unit, length = normalise(np.concatenate([past.output for past in passes]), self.n_threads)
        if not np.isfinite(length).all():  # rows of zeros would hide it
            grad[:] = 0
            return math.nan
        pairs = self._pairs(rows, unit[:n], unit[n:], values)
        losses, *sides = InfoNCE(pairs, self.symmetric, self.n_threads).loss_grad()
        output_grad = np.concatenate(sides)
        slope = normalise_grad(unit, length, output_grad, self.n_threads)
        if self.is_learned:
            self._temperature_grad(-slope[:n].sum(dtype=np.float64), values, grad)
        penalty = self._backward(passes, parts, output_grad, self.split(grad))
        return losses.sum(dtype=np.float64) + penalty

    def _pairs(self, rows, queries, keys, values):
        n, real = len(rows), self.dtype.type
        bias = np.zeros(n, self.dtype) if self.log_q is None else -self.log_q[rows].astype(self.dtype)
        beta = real(1 / self.temperature(values))
        return Pairs(queries, keys, bias, np.full(n, real(1 / n)), beta, groups_of(self.ids[rows]))

    def _temperature_grad(self, slope, values, grad):
        """Put the derivative by log T into ``grad``; at its bound the temperature can only rise."""
        at_bound = values[-1] <= math.log(LEAST_TEMPERATURE)
        grad[-1] = min(slope, 0.0) if at_bound else slope

    def _backward(self, passes, parts, output_grad, grads):
        """From the gradient of the outputs to those of the parameters; returns the penalty."""
        penalty, first = 0.0, 0
        for network, past, part, grad in zip(self.networks, passes, parts, grads, strict=True):
            last = first + len(past.output)
            network.backward(past, output_grad[first:last], grad)
            first = last
            if self.alpha:
                coef = part[: network.n_coef]
                grad[: network.n_coef] += self.dtype.type(self.alpha) * coef
                penalty += self.alpha / 2 * np.square(coef, dtype=np.float64).sum()
        return penalty


class PairProblem(ContrastiveProblem):
    """Pairs of rows of ``X`` and of ``Y``, dense or CSR each, and a network for each side."""

    def __init__(self, networks, X, Y, ids, **options):
        super().__init__(networks, ids, **options)
        self.X, self.Y = X, Y

    def _inputs(self, rows):
        return self.X[rows], self.Y[rows]


class ViewProblem(ContrastiveProblem):
    """Two views of each row of a dense ``X``: the row and itself, or a row of its label, corrupted both.

    Parameters
    ----------
    network : Network
    X : ndarray (n, d), C-contiguous
    labels : ndarray (n,) of int64
        Different ones for all rows if there are none.
    seed : int
        Of the views; each step has its own.
    rate : float
        Share of the features that are replaced by another row's.
    """

    def __init__(self, network, X, labels, *, seed, rate, **options):
        super().__init__([network], labels, **options)
        self.X, self.seed, self.groups = X, seed, groups_of(labels)
        self.threshold = np.uint64(min(int(rate * 2.0**64), 2**64 - 1))

    def _inputs(self, rows):
        n, d = len(rows), self.X.shape[1]
        views = np.empty((2 * n, d), self.dtype)
        for view, source in enumerate((rows, self._partners(rows))):
            arguments = (
                self.X,
                source,
                self.seed,
                2 * self.step + view,
                self.threshold,
                views[view * n : (view + 1) * n],
            )
            run_blocks(corruption.corrupt, n, max(_CORRUPTED // d, 1), self.n_threads, *arguments)
        return (views,)

    def _partners(self, rows):
        """Rows of the same labels, drawn anew each step."""
        if not len(self.groups.group):
            return rows
        group = self.groups.group[rows]
        first, last = self.groups.starts[group], self.groups.starts[group + 1]
        share = np.random.default_rng((self.seed, self.step)).random(len(rows))
        return self.groups.members[first + (share * (last - first)).astype(np.int64)]


def embed(network, X, values):
    """Outputs of length 1, (n, n_outputs); zeros where the output is.

    Raises
    ------
    ValueError
        If the length of an output overflows.
    """
    unit, length = normalise(network.predict(X, values), network.n_threads)
    if not np.isfinite(length).all():
        row = int(np.argmin(np.isfinite(length)))
        raise ValueError(f"the embedding of row {row} overflows {unit.dtype}: scale the features, as for fit.")
    return unit


def recall_at_1(queries, keys, ids, n_threads):
    """Share of the queries whose most similar key has their id; where several are best, the share of those that have.

    Queries and keys (n, k) have length 1. Best is what differs from it by rounding: constant embeddings find their own
    key by chance.
    """
    best, scores = np.empty((len(queries), 2), np.int64), np.empty((len(queries), 2), queries.dtype)
    ranking.top_k(queries, keys, None, n_threads, best, scores)
    slack = 16 * np.finfo(queries.dtype).eps
    found = (ids[best[:, 0]] == ids).astype(np.float64)
    tied = np.flatnonzero(scores[:, 1] >= scores[:, 0] - slack)
    for begin in range(0, len(tied), _TIED):
        rows = tied[begin : begin + _TIED]
        is_best = queries[rows] @ keys.T >= scores[rows, :1] - slack
        is_right = is_best & (ids[rows, np.newaxis] == ids)
        found[rows] = is_right.sum(axis=1) / is_best.sum(axis=1)
    return found.mean()
