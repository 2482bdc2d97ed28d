"""Learning-rate schedules: callables from the number of a step, counted from 0, to its learning rate."""

from abc import ABC, abstractmethod

import numpy as np
from sklearn.base import BaseEstimator

from fastml.optim._numbers import check_number


class Schedule(ABC, BaseEstimator):
    """What all schedules share: the warm-up, and steps one at a time or many in an array.

    During ``warmup_steps`` the rate rises linearly to the schedule's first one, with step s at
    ``(s + 1) / (warmup_steps + 1)`` of it; the schedule itself begins behind them.
    """

    @abstractmethod
    def _check(self):
        """Raise for a parameter of a wrong type or out of range."""

    @abstractmethod
    def _values(self, steps):
        """Rates of steps, float64 (n,), behind the warm-up."""

    def __call__(self, step):
        """Learning rate of a step, or of an array of steps.

        Parameters
        ----------
        step : int or ndarray of shape (n_steps,)
            Steps, counted from 0.

        Returns
        -------
        float or ndarray of shape (n_steps,), float64
            The same for a step alone as for one in an array.

        Raises
        ------
        TypeError, ValueError
            If a parameter of the schedule has a wrong type or is out of range.
        """
        self._check()
        check_number(self, "warmup_steps", "[0, inf)", integer=True)
        steps = np.atleast_1d(np.asarray(step, np.float64))
        behind = steps - self.warmup_steps
        rates = self._values(np.maximum(behind, 0)) * np.minimum((steps + 1) / (self.warmup_steps + 1), 1)
        return float(rates[0]) if np.ndim(step) == 0 else rates


class Constant(Schedule):
    """The same rate at every step, after a warm-up.

    Parameters
    ----------
    initial : float
        The rate, in [0, inf).
    warmup_steps : int, default=0
        Steps over which the rate rises linearly to ``initial``.

    References
    ----------
    Goyal et al.: Accurate, large minibatch SGD: training ImageNet in 1 hour. arXiv:1706.02677, 2017 (the warm-up).

    Examples
    --------
    >>> from fastml.optim import Constant
    >>> schedule = Constant(1.0, warmup_steps=3)
    >>> [schedule(step) for step in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    def __init__(self, initial, *, warmup_steps=0):
        self.initial = initial
        self.warmup_steps = warmup_steps

    def _check(self):
        check_number(self, "initial", "[0, inf)")

    def _values(self, steps):
        return np.full(steps.shape, float(self.initial))


class InverseTimeDecay(Schedule):
    """``initial / (1 + decay * step)``, after a linear warm-up.

    A decay of 0.01 halves the rate after 100 steps.

    Parameters
    ----------
    initial : float
        Rate of the first step (of the first after the warm-up), in [0, inf).
    decay : float
        How fast the rate falls, per step, in [0, inf).
    warmup_steps : int, default=0
        Steps over which the rate rises linearly to ``initial``; the decay begins behind them.

    References
    ----------
    Robbins, Monro: A stochastic approximation method. Annals of Mathematical Statistics 22, 1951.

    Examples
    --------
    >>> from fastml.optim import InverseTimeDecay
    >>> schedule = InverseTimeDecay(0.1, 0.01)
    >>> schedule(0), schedule(100)
    (0.1, 0.05)
    """

    def __init__(self, initial, decay, *, warmup_steps=0):
        self.initial = initial
        self.decay = decay
        self.warmup_steps = warmup_steps

    def _check(self):
        check_number(self, "initial", "[0, inf)")
        check_number(self, "decay", "[0, inf)")

    def _values(self, steps):
        return self.initial / (1 + self.decay * steps)


class StepDecay(Schedule):
    """``initial * gamma ** (step // step_size)``: a fall every ``step_size`` steps, after a linear warm-up.

    Parameters
    ----------
    initial : float
        Rate of the first step (of the first after the warm-up), in [0, inf).
    step_size : int
        Steps between two falls, at least 1.
    gamma : float, default=0.1
        What each fall multiplies the rate by, in (0, 1].
    warmup_steps : int, default=0
        Steps over which the rate rises linearly to ``initial``; the decay begins behind them.

    References
    ----------
    ``torch.optim.lr_scheduler.StepLR``, whose names these are.

    Examples
    --------
    >>> from fastml.optim import StepDecay
    >>> schedule = StepDecay(0.1, 1000, gamma=0.5)
    >>> schedule(999), schedule(1000), schedule(2000)
    (0.1, 0.05, 0.025)
    """

    def __init__(self, initial, step_size, *, gamma=0.1, warmup_steps=0):
        self.initial = initial
        self.step_size = step_size
        self.gamma = gamma
        self.warmup_steps = warmup_steps

    def _check(self):
        check_number(self, "initial", "[0, inf)")
        check_number(self, "step_size", "[1, inf)", integer=True)
        check_number(self, "gamma", "(0, 1]")

    def _values(self, steps):
        return self.initial * self.gamma ** (steps // self.step_size)


class ExponentialDecay(Schedule):
    """``initial * gamma ** step``, after a linear warm-up.

    Parameters
    ----------
    initial : float
        Rate of the first step (of the first after the warm-up), in [0, inf).
    gamma : float
        What each step multiplies the rate by, in (0, 1].
    warmup_steps : int, default=0
        Steps over which the rate rises linearly to ``initial``; the decay begins behind them.

    References
    ----------
    ``torch.optim.lr_scheduler.ExponentialLR``, whose names these are.

    Examples
    --------
    >>> from fastml.optim import ExponentialDecay
    >>> schedule = ExponentialDecay(0.1, 0.5)
    >>> schedule(0), schedule(1), schedule(2)
    (0.1, 0.05, 0.025)
    """

    def __init__(self, initial, gamma, *, warmup_steps=0):
        self.initial = initial
        self.gamma = gamma
        self.warmup_steps = warmup_steps

    def _check(self):
        check_number(self, "initial", "[0, inf)")
        check_number(self, "gamma", "(0, 1]")

    def _values(self, steps):
        return self.initial * self.gamma**steps


class CosineDecay(Schedule):
    """``final + (initial - final) * (1 + cos(pi * step / n_steps)) / 2``, and ``final`` from ``n_steps`` on.

    Parameters
    ----------
    initial : float
        Rate of the first step (of the first after the warm-up), in [0, inf).
    n_steps : int
        Steps from ``initial`` to ``final``, the warm-up not counted; at least 1.
    final : float, default=0.0
        Rate at the end, in [0, inf).
    warmup_steps : int, default=0
        Steps over which the rate rises linearly to ``initial``; the decay begins behind them.

    References
    ----------
    Loshchilov, Hutter: SGDR: stochastic gradient descent with warm restarts. ICLR 2017, equation 5, without restarts.

    Examples
    --------
    >>> from fastml.optim import CosineDecay
    >>> schedule = CosineDecay(0.1, 100)
    >>> schedule(0), round(schedule(50), 6), schedule(100), schedule(1000)
    (0.1, 0.05, 0.0, 0.0)
    """

    def __init__(self, initial, n_steps, *, final=0.0, warmup_steps=0):
        self.initial = initial
        self.n_steps = n_steps
        self.final = final
        self.warmup_steps = warmup_steps

    def _check(self):
        check_number(self, "initial", "[0, inf)")
        check_number(self, "n_steps", "[1, inf)", integer=True)
        check_number(self, "final", "[0, inf)")

    def _values(self, steps):
        return _cosine(self.initial, self.final, np.minimum(steps / self.n_steps, 1))


class OneCycle(Schedule):
    """Up to a high rate and down to almost none, in half cosines: one cycle of ``n_steps`` steps.

    From ``maximum / div_factor`` the rate rises to ``maximum`` over the first ``pct_start`` of the steps and falls to
    ``maximum / div_factor / final_div_factor`` over the others, where it stays.

    Parameters
    ----------
    maximum : float
        Highest rate, in [0, inf).
    n_steps : int
        Steps of the cycle, the warm-up not counted; at least 2.
    pct_start : float, default=0.3
        Fraction of the steps in which the rate rises, in (0, 1).
    div_factor : float, default=25.0
        Highest rate over the first one, at least 1.
    final_div_factor : float, default=1e4
        First rate over the last one, at least 1.
    warmup_steps : int, default=0
        Steps over which the rate rises linearly to the first rate of the cycle, which begins behind them.

    References
    ----------
    Smith, Topin: Super-convergence: very fast training of neural networks using large learning rates.
    arXiv:1708.07120, 2017; with the half cosines and the names of ``torch.optim.lr_scheduler.OneCycleLR``.

    Examples
    --------
    >>> from fastml.optim import OneCycle
    >>> schedule = OneCycle(1.0, 100)
    >>> [round(schedule(step), 9) for step in (0, 29, 99)]
    [0.04, 1.0, 4e-06]
    """

    def __init__(self, maximum, n_steps, *, pct_start=0.3, div_factor=25.0, final_div_factor=1e4, warmup_steps=0):
        self.maximum = maximum
        self.n_steps = n_steps
        self.pct_start = pct_start
        self.div_factor = div_factor
        self.final_div_factor = final_div_factor
        self.warmup_steps = warmup_steps

    def _check(self):
        check_number(self, "maximum", "[0, inf)")
        check_number(self, "n_steps", "[1, inf)", integer=True)
        check_number(self, "pct_start", "(0, 1)")
        check_number(self, "div_factor", "[1, inf)")
        check_number(self, "final_div_factor", "[1, inf)")
        if self.n_steps < 2:
            raise ValueError(f"n_steps of {self!r} must be at least 2, one up and one down, got {self.n_steps!r}.")

    def _values(self, steps):
        last, first_rate = self.n_steps - 1, self.maximum / self.div_factor
        top = max(self.pct_start * self.n_steps - 1, 0.0)
        rising = _cosine(first_rate, self.maximum, np.minimum(steps / top, 1) if top else np.ones_like(steps))
        fallen = np.clip((steps - top) / (last - top), 0, 1)
        falling = _cosine(self.maximum, first_rate / self.final_div_factor, fallen)
        return np.where(steps <= top, rising, falling)


def _cosine(begin, end, fraction):
    """From one rate to another along half a cosine."""
    return end + (begin - end) * (0.5 * (1 + np.cos(np.pi * fraction)))
