"""What all optimizers share: checks, state, and how an update is spread over blocks and threads."""

import functools
import math
import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Real

import numpy as np
from sklearn import get_config
from sklearn.base import BaseEstimator

from fastml.kernels import checks
from fastml.kernels import optimizers as kernels
from fastml.optim import _arrays
from fastml.optim._numbers import check_number
from fastml.optim._rows import RowGradients
from fastml.optim._schedules import Schedule
from fastml.runtime import run_tasks, thread_count

_BLOCK = 1 << 18  # parameters of a block: some 50 us of work
_SMALL = 1 << 17  # parameters that one thread updates sooner than another one wakes up


@dataclass
class OptimizerState:
    """What an optimizer remembers between updates.

    Attributes
    ----------
    step : int
        Number of updates done.
    first, second : list of ndarray
        For each parameter array its moments, flat; empty where the rule has none.
    """

    step: int
    first: list
    second: list


@functools.cache
def _settings_of(kind):
    """Reads the parameters of an optimizer of this class: a tuple."""
    return operator.attrgetter(*kind._get_param_names())


class Optimizer(ABC, BaseEstimator):
    """What all optimizers share: ``init``, ``update``, ``update_rows`` and the checks of their parameters."""

    @abstractmethod
    def _check_rule(self):
        """Raise for one of the rule's own parameters that is out of range."""

    @abstractmethod
    def _uses(self):
        """Whether the rule has a first and a second moment."""

    @abstractmethod
    def _hyper(self, dtype):
        """The rule's settings as kernels take them."""

    def _check(self):
        """Raise for a parameter out of range; the message names it."""
        check_number(self, "weight_decay", "[0, inf)")
        self._check_rule()
        if not callable(self.learning_rate):
            check_number(self, "learning_rate", "[0, inf)")
        if self.max_grad_norm is not None:
            check_number(self, "max_grad_norm", "(0, inf)")

    def _checked_hyper(self, dtype):
        """``_hyper``, checked and computed anew only where a parameter has become another object."""
        settings = _settings_of(type(self))(self)
        known = self.__dict__.get("_known")
        if known is None or not all(map(operator.is_, known[0], settings)):
            self._check()
            self._known = known = settings, {}
        if dtype not in known[1]:
            known[1][dtype] = self._hyper(dtype)
        return known[1][dtype]

    def __getstate__(self):
        """Parameters without what is known of them."""
        return {name: value for name, value in super().__getstate__().items() if name != "_known"}

    def _rates(self, step, n_steps):
        """Learning rate and number, from 1, of the ``n_steps`` updates after ``step``; shape (n_steps, 2)."""
        table = np.empty((n_steps, 2))
        table[:, 1] = np.arange(step + 1, step + n_steps + 1)
        rate = self.learning_rate
        if type(rate).__call__ is Schedule.__call__:
            table[:, 0] = rate(table[:, 1] - 1)
            for s in np.flatnonzero(~((table[:, 0] >= 0) & (table[:, 0] < math.inf)))[:1]:
                self._refuse_rate(table[s, 0], step + s)
        else:
            table[:, 0] = [self._rate(s) for s in range(step, step + n_steps)] if callable(rate) else rate
        return table

    def _rate(self, step):
        """Learning rate of a step, counted from 0."""
        rate = self.learning_rate
        if callable(rate):
            rate = rate(step)
            if not isinstance(rate, Real) or not 0 <= rate < math.inf:
                self._refuse_rate(rate, step)
        return float(rate)

    def _refuse_rate(self, rate, step):
        raise ValueError(f"learning_rate of {self!r} must give numbers in [0, inf), but gave {rate!r} at step {step}.")

    def _moments(self, n, dtype, beside=0):
        """The two moments of ``n`` parameters at the start: zeros, or empty where the rule has none.

        They get the place within a cache line of what lies at the address ``beside``.
        """
        dtype = np.dtype(dtype)
        return tuple(
            _arrays.zeros(n if used else 0, dtype, beside + k * _arrays.STRIDE)
            for k, used in enumerate(self._uses(), 1)
        )

    def init(self, params):
        """State before the first update.

        Parameters
        ----------
        params : list of ndarray
            C-contiguous float32 or float64 arrays, of any shapes.

        Returns
        -------
        OptimizerState

        Raises
        ------
        TypeError, ValueError
            If a parameter of the optimizer is out of range, or an array has a wrong type or layout.
        """
        self._check()
        moments = [self._moments(p.size, p.dtype, p.ctypes.data) for p in _arrays.checked("params", params)]
        return OptimizerState(0, [m[0] for m in moments], [m[1] for m in moments])

    def update(self, params, grads, state):
        """One update, in place, of ``params`` and ``state``; ``grads`` are left as they are.

        Parameters
        ----------
        params, grads : list of ndarray
            Arrays of the same shapes and dtypes, C-contiguous, float32 or float64.
        state : OptimizerState
            From ``init(params)``.

        Raises
        ------
        TypeError, ValueError
            If shapes, dtypes or the state do not fit, arrays overlap, or a gradient is not finite; nothing is changed
            then.

        Notes
        -----
        To look for gradients that are not finite takes a sweep of its own over large arrays. It is left out under
        ``sklearn.config_context(assume_finite=True)``, unless ``max_grad_norm`` needs it: then NaN spreads.
        """
        params, grads = _arrays.checked("params", params, writable=True), _arrays.checked("grads", grads)
        hypers = [self._checked_hyper(p.dtype) for p in params] or self._check()
        self._check_state(state, params)
        _arrays.check_alike(params, grads)
        _arrays.check_apart(params, grads)
        rate, step = self._rate(state.step), state.step + 1.0
        arrays = [(p.reshape(-1), g.reshape(-1)) for p, g in zip(params, grads, strict=True)]
        if len(params) == 1 and self.max_grad_norm is None and params[0].size <= _SMALL:
            moments = state.first[0], state.second[0]
            if not kernels.checked_update(*arrays[0], *moments, self._kind, rate, step, hypers[0]):
                _arrays.check_finite(grads)
        else:
            self._update_blocks(arrays, grads, state, hypers, rate, step)
        state.step += 1

    def _update_blocks(self, arrays, grads, state, hypers, rate, step):
        """Two sweeps, as nothing may change before all gradients are known to be finite; one where that is assumed."""
        size = sum(w.size for w, _ in arrays)
        threads = thread_count() if size > _SMALL else 1  # to ask joblib takes as long as a small update
        block = max(min(_BLOCK, size // 4), _BLOCK // 8)
        tasks = [(i, b, min(b + block, w.size)) for i, (w, _) in enumerate(arrays) for b in range(0, w.size, block)]
        sums, found = np.zeros((len(tasks), 1)), np.zeros(1, np.int8)

        def sweep(task, slot):
            k = len(tasks) - 1 - task  # backwards: what was read last is in the cache for the first updates
            i, start, stop = tasks[k]
            if self.max_grad_norm is None:
                checks.non_finite(start, stop, arrays[i][1], found)
            else:
                kernels.sum_of_squares(start, stop, arrays[i][1], sums[k])

        if self.max_grad_norm is not None or not get_config()["assume_finite"]:
            run_tasks(sweep, len(tasks), threads)
        factor = self._factor(np.inf if found[0] else sums.sum(), grads)

        def update(task, slot):
            i, start, stop = tasks[task]
            w, g = arrays[i]
            scalars = self._kind, rate, step, hypers[i], w.dtype.type(0), w.dtype.type(factor)
            kernels.update(start, stop, w, g, state.first[i], state.second[i], *scalars)

        run_tasks(update, len(tasks), threads)

    def _factor(self, square, grads):
        """What gradients with this sum of squares are multiplied by, once they are known to be finite."""
        if not math.isfinite(square):
            _arrays.check_finite(grads)
        if self.max_grad_norm is None:
            return 1.0
        if not math.isfinite(square):  # beyond the range of double precision
            top = max(float(np.abs(g).max()) for g in grads if g.size)
            root = math.sqrt(sum(float(np.square(g / top).sum()) for g in grads))
            return min(1.0, self.max_grad_norm / top / root)
        return min(1.0, self.max_grad_norm / max(math.sqrt(square), math.ulp(0.0)))

    def update_rows(self, param, rows, grads, state):
        """One update, in place, of some rows of a table of embeddings, and of ``state``.

        Only these rows, and their moments, are read and written: the work does not depend on the length of the table.
        A row behaves as in ``update`` with the bias corrections of step ``state.step + 1``; the moments (and, with
        weight decay, the values) of other rows wait where they are, as in lazy Adam. With ``max_grad_norm`` the norm is
        that of the gradients once duplicates are combined.

        Parameters
        ----------
        param : ndarray of shape (n_rows, n_components)
            The table: C-contiguous, float32 or float64.
        rows : array-like of int of shape (n_updates,)
            Which rows the gradients belong to, in 0..n_rows-1. Gradients of the same row are added, in their order.
        grads : ndarray of shape (n_updates, n_components)
            Gradients, of the dtype of ``param``.
        state : OptimizerState
            From ``init([param])``.

        Raises
        ------
        TypeError, ValueError
            If rows are not integers or out of range, shapes, dtypes or the state do not fit, arrays overlap, or a
            gradient is not finite; nothing is changed then.

        Examples
        --------
        >>> import numpy as np
        >>> from fastml.optim import SGD
        >>> table, optimizer = np.zeros((4, 2)), SGD(1.0)
        >>> state = optimizer.init([table])
        >>> optimizer.update_rows(table, [3, 1, 3], np.ones((3, 2)), state)
        >>> table[:, 0]
        array([ 0., -1.,  0., -2.])
        """
        param = _arrays.checked_one("param", param, writable=True)
        hyper = self._checked_hyper(param.dtype)
        gradients = RowGradients(param, rows, grads)
        self._check_state(state, [param])
        rate, step = self._rate(state.step), state.step + 1.0
        if len(gradients.rows):
            square = gradients.sum_of_squares()
            if not math.isfinite(square):
                _arrays.check_finite([grads])
            factor = param.dtype.type(self._factor(square, [gradients.total]))
            moments = (m[0].reshape(len(param), -1 if m[0].size else 0) for m in (state.first, state.second))
            gradients.run(kernels.update_rows, param, gradients.total, *moments, self._kind, rate, step, hyper, factor)
        state.step += 1

    def _check_state(self, state, params):
        """Raise unless the moments fit the parameters."""
        if not isinstance(state, OptimizerState):
            raise TypeError(f"state must be what init(params) returned, got {type(state).__name__}.")
        has_first, has_second = self._uses()
        fit = len(state.first) == len(state.second) == len(params)
        for p, first, second in zip(params, state.first, state.second, strict=False):
            fit = fit and first.dtype == second.dtype == p.dtype
            fit = fit and first.size == p.size * has_first and second.size == p.size * has_second
        if not fit:
            raise ValueError("state does not belong to these params: make it with init(params).")
