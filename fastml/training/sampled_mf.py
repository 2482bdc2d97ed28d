"""Matrix factorization trained on some interactions at a time, with drawn negatives or with all items.

With ``z_i = w_u . h_i``, the interaction of user u and item i, of weight c, has

    c (loss(u, i) + (ridge_u |w_u|^2 + ridge_i |h_i|^2) / 2)

and what is minimised is the sum over interactions, by the sum of the weights. With the weight n of a row's
interactions, relative to the mean of the rows that have any, ``ridge = regularization n^(exponent - 1)``. ``loss`` is

- "softmax": ``log sum_j e^z_j - z_i``, over all items;
- "sampled_softmax": the same over i and drawn negatives that a batch shares, each logit less the logarithm of the
  item's expected count among them, if that is corrected;
- "bpr" and "negative_sampling": as in ``fastml.kernels.factorization``, with negatives that the user has not.

The gradient of a step is that of the sum over its batch, with weights of mean 1: a row that occurs once moves as far in
a batch of any size. Only rows that occur in the batch, and their moments, are read and written.
"""

import math

import numpy as np

from fastml.kernels import factorization as kernels
from fastml.optim._base import OptimizerState
from fastml.runtime import sampled
from fastml.runtime.factorization import Stretch
from fastml.runtime.wals import aligned
from fastml.training.fold_in import Expectation, Ridge
from fastml.training.samplers import BatchSampler, RandomSampler, UniformSampler
from fastml.training.wals import Factors

_STRETCH = 1 << 19  # slots of the batches that are prepared at once
_MOST_NEGATIVES = 2048  # that stand for all items in a fold-in of BPR
_KINDS = {"bpr": kernels.BPR, "negative_sampling": kernels.NEGATIVE_SAMPLING}


class SampledMFProblem:
    """Interactions, and epochs over them.

    Parameters
    ----------
    X : CSR array (U, I), float32 or float64
        Weights above 0; canonical and finite.
    loss : {"sampled_softmax", "softmax", "negative_sampling", "bpr"}
    sampler : Sampler
        Of items; not used by "softmax".
    n_negatives, batch_size, regularization, regularization_exponent, correct_sampling_bias, n_threads
        As the estimator has them.
    optimizer : fastml.optim.Optimizer
    seed : int
        Of batches and negatives.
    """

    def __init__(self, X, *, loss, sampler, n_negatives, batch_size, regularization, regularization_exponent,
                 correct_sampling_bias, optimizer, seed, n_threads):  # fmt: skip
        optimizer._check()
        X = X if loss not in _KINDS else _with_negatives(X)
        self.X, self.loss, self.n_negatives, self.optimizer = X, loss, n_negatives, optimizer
        self.seed, self.n_threads, self.dtype = seed, n_threads, X.dtype
        lengths = np.diff(X.indptr)
        users, n_halvings = np.repeat(np.arange(X.shape[0]), lengths), int(lengths.max() - 1).bit_length()
        self.weights = (X.data / X.data.mean(dtype=np.float64)).astype(X.dtype)
        self.interactions = kernels.Interactions(X.indptr, X.indices, users, self.weights, X.shape[1], n_halvings)
        self.size = min(batch_size, X.nnz)
        self.counts = [
            np.bincount(ids, self.weights, n) for ids, n in zip((users, X.indices), X.shape, strict=True)
        ]  # of weights
        means = [count[count > 0].mean() for count in self.counts]
        ridges = [Ridge(regularization, regularization_exponent, mean) for mean in means]
        with np.errstate(over="ignore"):
            self.ridges = [r.of(count).astype(X.dtype) for r, count in zip(ridges, self.counts, strict=True)]
        self.ridge = ridges[0]._replace(mean=means[0] * X.data.mean(dtype=np.float64))  # of users, by weights of X
        if loss != "softmax":
            self.sampler = sampler.bind(X.shape[1], np.bincount(X.indices, minlength=X.shape[1]))
        self.log_q = None
        if loss == "sampled_softmax":
            self.log_q = self.sampler.log_expected_count(self.size if self._is_in_batch() else n_negatives)
        self.corrected = correct_sampling_bias
        self.n_steps = -(-X.nnz // self.size)
        self.n_epochs, self.moments, self.stretch = 0, None, None  # the others are made by the first epoch

    def _is_in_batch(self):
        return isinstance(self.sampler, BatchSampler)

    def start(self, n_factors, init_scale, random_state):
        """Factors to begin at: zeros where there is nothing to learn from."""
        scale = init_scale / math.sqrt(n_factors)
        with np.errstate(over="ignore"):
            drawn = [random_state.normal(scale=scale, size=(n, n_factors)).astype(self.dtype) for n in self.X.shape]
        return self.restart(Factors(*drawn, None, None, 0.0))

    def restart(self, factors):
        """These factors, with zeros where there is nothing to learn from."""
        has_entries = np.diff(self.X.indptr) > 0
        occurs = np.ones(self.X.shape[1], bool)
        if self.loss != "softmax":
            occurs = self.sampler.probability > 0
            occurs[self.X.indices] = True
        users, items = (
            np.where(has_entries[:, np.newaxis], factors.users, 0),
            np.where(occurs[:, np.newaxis], factors.items, 0),
        )
        return factors._replace(users=users, items=items)

    def expectation(self):
        """What a fold-in minimises."""
        if self.loss not in _KINDS:
            shift = np.zeros(self.X.shape[1]) if self.log_q is None or self.corrected else self.log_q
            return Expectation(self.loss, self.ridge, shift, None, None, 0)
        share = self.sampler.probability
        negatives = np.arange(len(share))
        if self.loss == "bpr" and len(share) > _MOST_NEGATIVES:
            drawn = RandomSampler(share, True).draw(_MOST_NEGATIVES, self.seed).ids
            negatives, counts = np.unique(drawn, return_counts=True)
            share = counts / _MOST_NEGATIVES
        return Expectation(self.loss, self.ridge, None, negatives, share, self.n_negatives)

    def epoch(self, factors):
        """New factors after one pass over the interactions; and the parts of the objective, loss and penalty."""
        tables = [self._copied(factors.users), self._copied(factors.items)]
        if self.moments is None:
            self.moments = [self.optimizer._moments(table.size, self.dtype, table.ctypes.data) for table in tables]
        order, first = self._order(), self.n_epochs * self.n_steps
        rates = self.optimizer._rates(first, self.n_steps)
        steps = self._pairs if self.loss in _KINDS else self._softmax
        with np.errstate(over="ignore", invalid="ignore"):  # told by the objective
            loss = steps(order, first, rates, *tables)
            penalty = self._penalty(*tables)
        self.n_epochs += 1
        return Factors(*tables, None, None, 0.0), (loss / self.X.nnz, penalty)

    def _copied(self, factors):
        table = aligned(factors.shape, self.dtype)
        table[:] = factors
        return table

    def _order(self):
        """The entries batch by batch, those of a batch in the order of X."""
        order = np.empty(self.X.nnz, np.int64)
        batch = np.empty(self.X.nnz, np.int32 if self.n_steps < 2**31 else np.int64)
        kernels.shuffle(self.seed, self.n_epochs, self.size, batch, np.empty(self.n_steps, np.int64), order)
        return order

    def _penalty(self, users, items):
        """Of the factors as they are, for each unit of weight; not finite if a factor is not."""
        squares = [np.einsum("nf,nf->n", table, table) for table in (users, items)]
        parts = zip(self.counts, self.ridges, squares, strict=True)
        return sum(float((count * ridge * square).sum()) for count, ridge, square in parts) / 2 / self.X.nnz

    def _pairs(self, order, first, rates, users, items):
        """Steps of a pairwise loss; returns the sum of the losses."""
        total, n_batches = 0.0, min(max(_STRETCH // (self.size * (1 + self.n_negatives)), 1), self.n_steps)
        if self.stretch is None:
            shape = n_batches, self.size, self.n_negatives, users.shape[1], self.n_threads, self.dtype
            self.stretch = Stretch(self.interactions, *shape)
        tables = [
            kernels.Table(rows, *(moment.reshape(len(rows), -1) for moment in moments), ridge)
            for rows, moments, ridge in zip((users, items), self.moments, self.ridges, strict=True)
        ]
        rule = _KINDS[self.loss], self.optimizer._kind, self.optimizer._hyper(self.dtype)
        for begin in range(0, self.n_steps, n_batches):
            part = order[begin * self.size : (begin + n_batches) * self.size]
            drawn = self._pool(part, first + begin), self.seed, first + begin
            total += self.stretch.steps(part, *drawn, *tables, rule, rates[begin : begin + n_batches]).sum()
        return total

    def _pool(self, entries, step):
        """A drawn item for each negative of the entries of some batches."""
        n = len(entries) * self.n_negatives
        if not self._is_in_batch():
            return self.sampler.draw(n, self.seed, step).ids
        rows = UniformSampler().bind(self.size).draw(n, self.seed, step).ids
        begin = np.repeat(np.arange(0, len(entries), self.size), self.size * self.n_negatives)[:n]
        sizes = np.minimum(len(entries) - begin, self.size)
        return self.X.indices[entries[begin + rows % sizes]]

    def _softmax(self, order, first, rates, users, items):
        """Steps of a softmax; returns the sum of the losses."""
        states = [OptimizerState(0, [a], [b]) for a, b in self.moments]
        total = 0.0
        for s in range(self.n_steps):
            entries = order[s * self.size : (s + 1) * self.size]
            ids, target, weight = self.interactions.users[entries], self.X.indices[entries], self.weights[entries]
            candidates, classes = self._candidates(target, first + s, items)
            rows = users[ids]
            grads = np.empty_like(rows), np.empty_like(candidates.W), np.empty_like(candidates.shift)
            total += sampled.softmax_loss_grad(rows, candidates, weight, self.n_threads, *grads).sum(dtype=np.float64)
            grads[0][:] += (self.ridges[0][ids] * weight)[:, np.newaxis] * rows
            pull = np.bincount(candidates.position, weight, len(classes)) * self.ridges[1][classes]
            grads[1][:] += pull.astype(self.dtype)[:, np.newaxis] * candidates.W
            if not math.isfinite(total + sum(grad.sum(dtype=np.float64) for grad in grads)):
                return math.nan
            for state, table, at, grad in zip(states, (users, items), (ids, classes), grads, strict=False):
                state.step = first + s
                self.optimizer.update_rows(table, at, grad, state)
        return total

    def _candidates(self, target, step, items):
        """What the batch's rows choose from, as kernels take it, and which classes that is."""
        log_q = None
        if self.loss == "softmax":
            negatives = np.arange(len(items))
        elif self._is_in_batch():
            negatives, log_q = self.sampler.draw_from(target)
        else:
            negatives, log_q = self.sampler.draw(self.n_negatives, self.seed, step)
        occurring = sampled.drawn(target, negatives)
        log_q = log_q if self.corrected else None
        return sampled.gather(occurring, items, None, log_q, True, self.dtype), occurring.classes


def _with_negatives(X):
    """X without the entries of users who have all items."""
    counts = np.diff(X.indptr)
    is_full = counts == X.shape[1]
    if not is_full.any():
        return X
    if not X[~is_full].nnz:
        raise ValueError(
            f"X (users x items) of shape {X.shape}: every user with entries has all items, {X.shape[1]} feature(s), "
            "and no negatives are left to draw. Pass more items, or loss='softmax'."
        )
    kept = X.copy()
    kept.data[np.repeat(is_full, counts)] = 0
    kept.eliminate_zeros()
    return kept
