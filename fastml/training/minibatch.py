"""Steps of gradient descent on a ``Problem``, from one row a step to all of them."""

import numpy as np

from fastml.kernels import optimizers as kernels
from fastml.kernels._epoch import Parameters, Rule
from fastml.runtime import blas_limited, run_blocks

_CALL = 2_000_000_000  # operations of one kernel call: an interrupt waits no longer than this takes
_BLOCK = 1 << 16  # parameters updated by a thread at a time


class MiniBatches:
    """Optimizer, penalties and state of a fit; ``epoch`` does one pass over the rows.

    Parameters
    ----------
    problem : Problem
    optimizer : fastml.optim.Optimizer
    values : ndarray
        The parameters; updated in place.
    batch_size : int
    l2, l1 : float
        Penalties of the coefficients.
    state : tuple or None
        Steps done and moments of an earlier run to go on from.
    """

    def __init__(self, problem, optimizer, values, *, batch_size, l2, l1, state=None):
        optimizer._check()
        self.problem, self.optimizer = problem, optimizer
        self.batch_size = min(batch_size, problem.n_rows)
        self.step, *moments = self._resumed(state)
        n_trained, real = problem.n_trained, values.dtype.type
        self.values = values
        self.parameters = Parameters(values[:n_trained], np.empty(n_trained, values.dtype), *moments)
        max_norm = float(optimizer.max_grad_norm or 0)
        self.rule = Rule(optimizer._kind, optimizer._hyper(values.dtype), max_norm, real(l2), real(l1))
        self.penalty = l2, l1
        is_small = problem.has_kernel and problem.operations(self.batch_size) <= problem.kernel_limit
        self.run = self._in_kernel() if is_small else self._in_threads

    @property
    def state(self):
        """What a later run, on other rows, needs to go on: steps done, and moments shaped as coefficients."""
        moments = self.parameters.first, self.parameters.second
        return self.step, *(self.problem.coef(m) if m.size else None for m in moments)

    def _resumed(self, state):
        """Steps done and flat moments; an optimizer with other moments than the last one's starts anew."""
        fresh = self.optimizer._moments(self.problem.n_trained, self.problem.dtype)
        if state is None or [m is None for m in state[1:]] != [m.size == 0 for m in fresh]:
            return 0, *fresh
        pairs = zip(state[1:], fresh, strict=True)
        return state[0], *(m if old is None else self.problem.join(*old) for old, m in pairs)

    def epoch(self, order):
        """One pass over the rows in this order; returns the mean loss on the way, penalties at the end included."""
        n_steps = -(-len(order) // self.batch_size)
        rates, losses = self.optimizer._rates(self.step, n_steps), np.empty(n_steps)
        with blas_limited():
            self.run(order, rates, losses)
        self.step += n_steps
        sizes = np.full(n_steps, self.batch_size)
        sizes[-1] = len(order) - self.batch_size * (n_steps - 1)
        return losses @ sizes / len(order) + self.penalty_value()

    def penalty_value(self):
        """L2 and L1 penalties of the coefficients as they are."""
        l2, l1 = self.penalty
        coef = self.parameters.values[: self.problem.n_coef]
        result = 0.5 * l2 * np.square(coef, dtype=np.float64).sum() if l2 else 0.0
        return result + (l1 * np.abs(coef).sum(dtype=np.float64) if l1 else 0.0)

    def _in_kernel(self):
        """Many steps in one call."""
        steps = self.problem.kernel_steps(self.batch_size, self.values, self.parameters, self.rule)
        stride = max(_CALL // self.problem.operations(self.batch_size), 1)

        def run(order, rates, losses):
            for begin in range(0, len(losses), stride):
                steps(begin, min(begin + stride, len(losses)), order, rates, losses)

        return run

    def _in_threads(self, order, rates, losses):
        """Each step spread over the threads."""
        problem, (values, grad, *_) = self.problem, self.parameters
        for s, (rate, number) in enumerate(rates):
            rows = order[s * self.batch_size : (s + 1) * self.batch_size]
            problem.step = int(number) - 1
            losses[s] = problem.batch_loss_grad(rows, self.values, grad)
            if self.rule.l2:
                grad[: problem.n_coef] += self.rule.l2 * values[: problem.n_coef]
            self._update(rate, number)

    def _update(self, rate, number):
        values, grad, first, second, *_ = self.parameters
        n_coef, rule, n_threads = self.problem.n_coef, self.rule, self.problem.n_threads
        factor = values.dtype.type(1)
        if rule.max_norm:
            norm = np.sqrt(np.square(grad, dtype=np.float64).sum())
            factor = values.dtype.type(min(1.0, rule.max_norm / max(norm, 1e-300)))
        for part, l1 in ((slice(None, n_coef), rule.l1), (slice(n_coef, None), values.dtype.type(0))):
            arrays = values[part], grad[part], first[part], second[part]
            scalars = rule.kind, rate, number, rule.hyper, l1, factor
            run_blocks(kernels.update, len(arrays[0]), _BLOCK, n_threads, *arrays, *scalars)
