"""The same as ``LinearProblem`` with softmax, but each step takes some drawn classes in the place of all of them.

A step costs what its negatives cost, whatever the number of classes; what depends on all classes is the sweep over the
parameters by which an optimizer moves them. ``loss`` is that of all classes.

The negatives of a step are a set: classes that are drawn, without replacement, and those of the batch's rows, whose
weights are read anyway. With the probability d_c to be drawn, n_c rows of class c, and a share f of all rows in
the batch, class c is among them with probability q_c = 1 - (1 - d_c) (1 - f)^n_c. For a set, a row leaves its own
class out of the negatives.
"""

import itertools

import numpy as np

from fastml.runtime import linear_loss, sampled
from fastml.training.linear_problem import LinearProblem
from fastml.training.samplers import PopularitySampler

# Without replacement: frequent classes leave places to others.
_SAMPLER = PopularitySampler(power=0.75, replacement=False)
_LEAST_WEIGHT = 0.1  # of the mean one: classes that are rare, or have not come yet, are drawn now and then all the same
_BLOCK_BYTES = 32 << 20  # of CSR rows, and of the weights that they meet, made dense at a time


class SampledProblem(LinearProblem):
    """Rows, labels and weights of a fit by sampled softmax.

    Parameters
    ----------
    n_negatives : int
        Classes drawn for each step, fewer than there are.
    seed : int
        Of the draws: what step s draws is a function of both.
    *args, **options
        As ``LinearProblem`` takes them; ``target`` is labels.

    Coefficients lie (K, d) also for CSR: rows of the classes that occur are what a step reads.
    """

    has_kernel = False

    def __init__(self, *args, n_negatives, seed, **options):
        super().__init__(*args, **options)
        self.coef_shape = self.coef_shape[::-1] if self.is_sparse else self.coef_shape
        self.n_negatives, self.seed, self._log_qs = n_negatives, seed, {}
        weight = np.bincount(self.target, self.weights[0], minlength=self.n_outputs)
        self.sampler = _SAMPLER.bind(self.n_outputs, np.maximum(weight, _LEAST_WEIGHT * weight.mean()))

    def negatives(self, rows):
        """The classes of a step (c,), ascending, and the log of each class's probability to be among them (K,)."""
        ids, log_d = self.sampler.draw(self.n_negatives, self.seed, self.step)
        if len(rows) not in self._log_qs:  # at most two: the last batch of an epoch is smaller
            share = (len(rows) - 1) / max(self.n_rows - 1, 1)  # of the other rows
            missed = (1 - share) ** np.bincount(self.target, minlength=self.n_outputs)
            self._log_qs[len(rows)] = np.log1p(np.expm1(np.minimum(log_d, 0)) * missed)
        return np.union1d(ids, self.target[rows]), self._log_qs[len(rows)]

    def join(self, *parts):
        """A new vector of parameters from the coefficients (K, d) and the intercepts (K,)."""
        coef, intercept = parts
        return np.concatenate([coef.ravel(), intercept]).astype(self.dtype)

    def coef(self, values):
        """Copies of the coefficients, (K, d), and the intercepts."""
        return tuple(array.copy() for array in self.split(values))

    def loss(self, values):
        """Weighted mean of the losses over all classes."""
        coef, intercept = self.split(values)
        coef = coef.T if self.is_sparse else coef
        losses = linear_loss.loss(self.X, coef, intercept, self.target, self.weights, self.settings, self.n_threads)
        return losses.mean(dtype=np.float64)

    def batch_loss_grad(self, rows, values, grad):
        """Weighted mean of the sampled losses; fills ``grad`` with its gradient."""
        grad.fill(0)
        negatives = self.negatives(rows)
        weight = self.weights[0, rows] / self.dtype.type(len(rows))
        parts = self._dense_parts(rows)
        tables, grads = self.split(values), self.split(grad)
        return sum(
            self._add(X, features, rows[part], weight[part], negatives, tables, grads) for part, X, features in parts
        )

    def _add(self, X, features, rows, weight, negatives, tables, grads):
        """Sum of the losses of ``rows``; adds its gradient to the rows, and columns, of the tables that occur."""
        ids, log_q = negatives
        occurring = sampled.drawn(self.target[rows], ids)
        classes = occurring.classes
        candidates = sampled.gather(occurring, *tables, log_q, True, self.dtype, features)
        W_grad, b_grad = np.empty_like(candidates.W), np.empty_like(candidates.shift)
        no_grad = np.empty((0, X.shape[1]), self.dtype)
        losses = sampled.softmax_loss_grad(X, candidates, weight, self.n_threads, no_grad, W_grad, b_grad)
        grads[0][classes if features is None else np.ix_(classes, features)] += W_grad
        if self.fit_intercept:
            grads[1][classes] += b_grad
        return losses.sum(dtype=np.float64)

    def _dense_parts(self, rows):
        """Rows as dense arrays on the features (None: all) that they have; CSR rows in parts that bound the memory."""
        if not self.is_sparse:
            yield slice(None), self.X[rows], None
            return
        batch = self.matrix[rows]
        for first, last in itertools.pairwise(self._bounds(batch)):
            part = batch[first:last]
            features, column = np.unique(np.append(0, part.indices), return_inverse=True)  # one at least
            X = np.zeros((last - first, len(features)), self.dtype)
            X[np.repeat(np.arange(last - first), np.diff(part.indptr)), column[1:]] = part.data
            yield slice(first, last), X, features

    def _bounds(self, batch):
        """Where to cut CSR rows: a part has one row, or features that fit the memory for it."""
        n_rows, n_features = batch.shape
        width = _BLOCK_BYTES // ((n_rows + self.n_negatives) * self.dtype.itemsize)
        if n_features <= width:
            return [0, n_rows]
        bounds = [0]
        while bounds[-1] < n_rows:
            last = np.searchsorted(batch.indptr, batch.indptr[bounds[-1]] + width, side="right") - 1
            bounds.append(int(max(last, bounds[-1] + 1)))
        return bounds
