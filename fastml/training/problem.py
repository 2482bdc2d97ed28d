"""What ``MiniBatches`` asks of a problem."""

import numpy as np


class Problem:
    """Some rows, and the mean of their losses as a function of one flat vector of parameters.

    A subclass has the attributes below and ``batch_loss_grad(rows, values, grad)``, which fills ``grad`` with the
    gradient of the mean loss of these rows and returns that mean.

    Attributes
    ----------
    n_rows, n_threads : int
    n_coef : int
        Parameters at the head of the vector, to which penalties apply.
    n_trained : int
        Parameters that the optimizer moves; what lies behind them is the problem's own.
    dtype : dtype
    step : int
        Number, from 0 on, of the step that is done: set before each batch, for problems that draw numbers.
    has_kernel : bool
        Whether ``kernel_steps`` and ``operations`` are there: many steps in one call, for small models.
    kernel_limit : float
        Operations of a step up to which ``kernel_steps`` is preferred to ``batch_loss_grad``.
    """

    dtype: np.dtype
    step = 0
    has_kernel = False
    kernel_limit = 30_000_000  # below, threads do not pay

    def coef(self, values):
        """Copies of what a vector, such as a moment of the optimizer, consists of; in terms that outlive the rows."""
        return (values.copy(),)

    def join(self, *parts):
        """A new vector of what ``coef`` gave."""
        (values,) = parts
        return values.astype(self.dtype)
