"""The optimizers. An update is one pass over memory in a kernel; the rules are in ``fastml.kernels._rules``."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Real

import numpy as np
from sklearn.base import BaseEstimator

from fastml.functional._validate import canonical
from fastml.kernels import _rules as rules
from fastml.kernels import optimizers as kernels
from fastml.runtime import run_blocks, thread_count

_BLOCK = 1 << 16  # parameters of a block: some 50 us of work
_INTERVALS = {"[0, 1)": (0, 1), "[0, inf)": (0, math.inf), "(0, inf)": (math.ulp(0.0), math.inf)}


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


class Optimizer(ABC, BaseEstimator):
    """What all optimizers share: ``init``, ``update`` and the checks of their parameters."""

    @abstractmethod
    def _limits(self):
        """The rule's own numbers: name -> (value, interval)."""

    @abstractmethod
    def _uses(self):
        """Whether the rule has a first and a second moment."""

    @abstractmethod
    def _hyper(self, dtype):
        """The rule's settings as kernels take them."""

    def _check(self):
        """Raise for a parameter out of range; the message names it."""
        limits = {"weight_decay": (self.weight_decay, "[0, inf)"), **self._limits()}
        if not callable(self.learning_rate):
            limits["learning_rate"] = self.learning_rate, "[0, inf)"
        if self.max_grad_norm is not None:
            limits["max_grad_norm"] = self.max_grad_norm, "(0, inf)"
        for name, (value, interval) in limits.items():
            if isinstance(value, bool) or not isinstance(value, Real):
                raise TypeError(f"{name} of {self!r} must be a real number, got {value!r}.")
            least, bound = _INTERVALS[interval]
            if not least <= value < bound:
                raise ValueError(f"{name} of {self!r} must be in {interval}, got {value!r}.")

    def _rates(self, step, n_steps):
        """Learning rate and number, from 1, of the ``n_steps`` updates after ``step``; shape (n_steps, 2)."""
        steps, table = range(step, step + n_steps), np.empty((n_steps, 2))
        is_scheduled = callable(self.learning_rate)
        table[:, 0] = [self._scheduled(s) for s in steps] if is_scheduled else self.learning_rate
        table[:, 1] = np.arange(step + 1, step + n_steps + 1)
        return table

    def _scheduled(self, step):
        rate = self.learning_rate(step)
        if not isinstance(rate, Real) or not 0 <= rate < math.inf:
            raise ValueError(
                f"learning_rate of {self!r} must give numbers in [0, inf), but gave {rate!r} at step {step}."
            )
        return rate

    def _moments(self, n, dtype):
        """The two moments of ``n`` parameters at the start: zeros, or empty where the rule has none."""
        return tuple(np.zeros(n if used else 0, dtype) for used in self._uses())

    def init(self, params):
        """State before the first update.

        Parameters
        ----------
        params : list of ndarray
            C-contiguous float32 or float64 arrays, of any shapes.

        Returns
        -------
        OptimizerState
        """
        self._check()
        moments = [self._moments(p.size, p.dtype) for p in _checked_arrays("params", params)]
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
        """
        self._check()
        params, grads = _checked_arrays("params", params, writable=True), _checked_arrays("grads", grads)
        self._check_state(state, params)
        if [(p.shape, p.dtype) for p in params] != [(g.shape, g.dtype) for g in grads]:
            raise ValueError("grads must have the shapes and dtypes of params, array by array.")
        _check_apart(params, grads)
        # To ask joblib takes as long as a small update.
        threads = thread_count() if any(p.size > _BLOCK for p in params) else 1
        norm = math.sqrt(sum(_sum_of_squares(g.reshape(-1), threads) for g in grads))
        if not math.isfinite(norm):
            raise ValueError("grads has NaN or infinite values: lower the learning rate or look for outliers.")
        factor = 1.0 if self.max_grad_norm is None else min(1.0, self.max_grad_norm / max(norm, math.ulp(0.0)))
        rate, step = self._rates(state.step, 1)[0]
        for p, g, first, second in zip(params, grads, state.first, state.second, strict=True):
            kind = p.dtype.type
            arrays = p.reshape(-1), g.reshape(-1), first, second
            rule = self._kind, rate, step, self._hyper(p.dtype), kind(0), kind(factor)
            run_blocks(kernels.update, p.size, _BLOCK, threads, *arrays, *rule)
        state.step += 1

    def _check_state(self, state, params):
        """Raise unless the moments fit the parameters."""
        if not isinstance(state, OptimizerState):
            raise TypeError(f"state must be what init(params) returned, got {type(state).__name__}.")
        expected = [(p.size if used else 0, p.dtype) for used in self._uses() for p in params]
        if [(m.size, m.dtype) for m in state.first + state.second] != expected:
            raise ValueError("state does not belong to these params: make it with init(params).")


def _check_apart(params, grads):
    """Raise where an array to be written shares memory with another."""
    arrays = [("params", i, p) for i, p in enumerate(params)] + [("grads", i, g) for i, g in enumerate(grads)]
    spans = sorted((a.ctypes.data, a.ctypes.data + a.nbytes, name, i) for name, i, a in arrays if a.size)
    read_to = written_to = 0
    for first, last, name, i in spans:
        if first < written_to or (name == "params" and first < read_to):
            raise ValueError(f"{name}[{i}] shares memory with another array, and updates are in place: pass a copy.")
        read_to, written_to = max(read_to, last), max(written_to, last if name == "params" else 0)


def _checked_arrays(name, arrays, writable=False):
    """A list of arrays that a kernel may take, or an error that names the culprit."""
    if not isinstance(arrays, list | tuple):
        raise TypeError(f"{name} must be a list of arrays, got {type(arrays).__name__}.")
    for i, array in enumerate(arrays):
        if not isinstance(array, np.ndarray) or array.dtype not in (np.float32, np.float64):
            got = f"dtype {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(f"{name}[{i}] must be a float32 or float64 array, got {got}.")
        if not (array.flags.c_contiguous and array.flags.aligned):
            raise ValueError(f"{name}[{i}] must be C-contiguous and aligned: pass np.array(it, order='C').")
        if writable and not array.flags.writeable:
            raise ValueError(f"{name}[{i}] is read-only, and updates are in place: pass a writable copy.")
    return [canonical(array, array.dtype) for array in arrays]  # to Numba, subclasses and read-only ones are others


def _below_one(value, dtype):
    """A number below 1 that stays below 1 in this dtype."""
    return min(value, 1 - np.finfo(dtype).epsneg)


def _sum_of_squares(flat, threads):
    sums = np.zeros(-(-flat.size // _BLOCK))
    run_blocks(kernels.sum_of_squares, flat.size, _BLOCK, threads, _BLOCK, flat, sums)
    return sums.sum()


class SGD(Optimizer):
    """Stochastic gradient descent, plain or with (Nesterov) momentum.

    The velocity is ``v = momentum * v + g``, the step ``w -= learning_rate * v``; with ``nesterov``
    ``w -= learning_rate * (g + momentum * v)``: the form of PyTorch.

    Parameters
    ----------
    learning_rate : float or callable, default=0.01
        Size of a step, or a schedule ``step -> rate`` with steps counted from 0.
    momentum : float, default=0.0
        In [0, 1): how much of the velocity each step keeps.
    nesterov : bool, default=False
        Look ahead along the velocity.
    weight_decay : float, default=0.0
        Added to the gradient as ``weight_decay * w``.
    max_grad_norm : float or None, default=None
        Gradients of a larger Euclidean norm (over all arrays) are scaled down to it.

    References
    ----------
    Sutskever, Martens, Dahl, Hinton: On the importance of initialization and momentum in deep learning. ICML 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.optim import SGD
    >>> w, optimizer = [np.array([1.0, 2.0])], SGD(learning_rate=0.5)
    >>> state = optimizer.init(w)
    >>> optimizer.update(w, [np.array([1.0, 0.0])], state)
    >>> w[0]
    array([0.5, 2. ])
    """

    _kind = rules.SGD

    def __init__(self, learning_rate=0.01, *, momentum=0.0, nesterov=False, weight_decay=0.0, max_grad_norm=None):
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.nesterov = nesterov
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm

    def _limits(self):
        if not isinstance(self.nesterov, bool | np.bool_):
            raise TypeError(f"nesterov of {self!r} must be True or False, got {self.nesterov!r}.")
        return {"momentum": (self.momentum, "[0, 1)")}

    def _uses(self):
        return self.momentum > 0, False

    def _hyper(self, dtype):
        return np.array([_below_one(self.momentum, dtype), 0, 0, self.nesterov, self.weight_decay], dtype)


class Adam(Optimizer):
    """Adam: steps in units of the learning rate, from bias-corrected means of the gradient and of its square.

    ``m = beta_1 m + (1 - beta_1) g``, ``v = beta_2 v + (1 - beta_2) g^2``, and at step t
    ``w -= learning_rate * m / (1 - beta_1^t) / (sqrt(v / (1 - beta_2^t)) + epsilon)``.

    Parameters
    ----------
    learning_rate : float or callable, default=0.001
        Size of a step, or a schedule ``step -> rate`` with steps counted from 0.
    beta_1, beta_2 : float, default=0.9 and 0.999
        In [0, 1): how long the mean of the gradient and the mean of its square remember.
    epsilon : float, default=1e-8
        Keeps the divisor from 0.
    weight_decay : float, default=0.0
        Added to the gradient as ``weight_decay * w``.
    max_grad_norm : float or None, default=None
        Gradients of a larger Euclidean norm (over all arrays) are scaled down to it.

    References
    ----------
    Kingma, Ba: Adam: a method for stochastic optimization. ICLR 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.optim import Adam
    >>> w, optimizer = [np.array([1.0, 2.0])], Adam(learning_rate=0.5)
    >>> state = optimizer.init(w)
    >>> optimizer.update(w, [np.array([10.0, 0.0])], state)
    >>> w[0]
    array([0.5, 2. ])
    """

    _kind = rules.ADAM

    def __init__(
        self, learning_rate=1e-3, *, beta_1=0.9, beta_2=0.999, epsilon=1e-8, weight_decay=0.0, max_grad_norm=None
    ):
        self.learning_rate = learning_rate
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm

    def _limits(self):
        return {
            "beta_1": (self.beta_1, "[0, 1)"),
            "beta_2": (self.beta_2, "[0, 1)"),
            "epsilon": (self.epsilon, "(0, inf)"),
        }

    def _uses(self):
        return True, True

    def _hyper(self, dtype):
        betas = _below_one(self.beta_1, dtype), _below_one(self.beta_2, dtype)
        return np.array([*betas, max(self.epsilon, np.finfo(dtype).tiny), 0, self.weight_decay], dtype)
