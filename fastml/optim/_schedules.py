"""Learning-rate schedules: callables from the number of a step, counted from 0, to its learning rate."""

from numbers import Real

from sklearn.base import BaseEstimator


class InverseTimeDecay(BaseEstimator):
    """``initial / (1 + decay * step)``, after a linear warm-up.

    A decay of 0.01 halves the rate after 100 steps.

    Parameters
    ----------
    initial : float
        Rate of the first step (of the first after the warm-up).
    decay : float
        How fast the rate falls, per step.
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

    def __call__(self, step):
        """Learning rate of a step, counted from 0."""
        for name in ("initial", "decay", "warmup_steps"):
            value = getattr(self, name)
            if not isinstance(value, Real) or not value >= 0:
                raise ValueError(f"{name} of {self!r} must be a number of at least 0, got {value!r}.")
        if step < self.warmup_steps:
            return self.initial * (step + 1) / (self.warmup_steps + 1)
        return self.initial / (1 + self.decay * (step - self.warmup_steps))
