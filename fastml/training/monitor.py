"""The watch over an iterative fit: curves, progress lines, divergence, convergence, the best parameters."""

import numpy as np

_EXPLODED = 1e3  # times the loss of a model that knows nothing


class Monitor:
    """Told of each epoch (or iteration), it keeps the curves and says when to stop.

    Parameters
    ----------
    name : str
        The estimator's, for progress lines.
    start_loss : float
        Loss of a model that knows nothing.
    tol, patience : float, int or None
        Stop once ``patience`` epochs in a row did not improve the watched loss by ``tol``; None: never.
    validate : callable or None
        ``values -> loss`` on held-out rows; it is then the watched loss, and the best values are kept.
    verbose : int
    unit : float
        What a loss of 1 is in the curves and lines; ``tol`` is without it.
    """

    def __init__(self, name, start_loss, *, tol=0.0, patience=None, validate=None, verbose=0, unit=1.0):
        self.name, self.unit, self.limit = name, unit, _EXPLODED * max(start_loss, 1.0)
        self.tol, self.patience, self.validate, self.verbose = tol, patience, validate, verbose
        self.losses, self.validation_losses = [], []
        self.best_loss, self.best_values, self.stale = np.inf, None, 0

    def record(self, loss, values):
        """Take in one more epoch; returns whether it is time to stop.

        Raises
        ------
        ValueError
            If the fit diverged.
        """
        self.losses.append(float(loss * self.unit))
        self.check(values)
        if self.validate is not None:
            loss = self.validate(values)
            self.validation_losses.append(float(loss * self.unit))
        if self.verbose:
            print(self._line(), flush=True)
        self.stale = 0 if loss < self.best_loss - self.tol else self.stale + 1
        if loss < self.best_loss:
            self.best_loss = loss
            if self.validate is not None:
                self.best_values = values.copy()
        return self.patience is not None and self.stale >= self.patience

    def check(self, values):
        """Raise ValueError if the fit diverged: the last loss is too large, or a value is not finite."""
        loss = self.losses[-1] if self.losses else np.nan
        if (self.losses and not loss < self.limit * self.unit) or not np.isfinite(values).all():
            raise ValueError(
                f"{self.name} diverged: the loss was {loss:.3g} after {len(self.losses)} iterations. "
                "Lower the learning rate or scale the features (for example with StandardScaler)."
            )

    def _line(self):
        line = f"{self.name}: iteration {len(self.losses)}, loss {self.losses[-1]:.6f}"
        return line + f", validation loss {self.validation_losses[-1]:.6f}" if self.validation_losses else line
