"""What regressors trained by gradient descent share: targets of any unit, and the losses of a residual."""

from numbers import Real

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.metaestimators import available_if

from fastml._sklearn_compat import Interval, StrOptions, fit_context
from fastml.estimators._fitting import unchanged_on_error
from fastml.estimators._gradient import GradientModel, has_batches
from fastml.estimators._targets import check_regression_target, combined_weight
from fastml.kernels._loss_tile import ABSOLUTE, HUBER, SQUARED, settings

_KINDS = {"squared": SQUARED, "absolute": ABSOLUTE, "huber": HUBER}


class GradientRegressor(RegressorMixin, GradientModel):
    """Base of the regressors: training sees targets centred and divided by their standard deviation."""

    _parameter_constraints = {
        "loss": [StrOptions(set(_KINDS))],
        "delta": [Interval(Real, 0, None, closed="neither")],
    }

    @available_if(has_batches)
    @unchanged_on_error
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, sample_weight=None):
        """One epoch over these rows, going on from what earlier calls learned.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            The rows.
        y : array-like (n_samples,) or (n_samples, n_targets)
            Their targets.
        sample_weight : array-like (n_samples,), default=None
            Weights of the rows; each call takes their mean as 1.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad input, and where the fit diverges; nothing has changed then.
        """

        def encode(y, dtype, is_first):
            return self._encode(y, dtype, sample_weight, None if is_first else self._scaling)

        return self._partial_fit(X, y, encode)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _encode(self, y, dtype, sample_weight, scaling=None):
        """Targets (n, K) centred and scaled, weights, and what they were centred and scaled by: (K,) and a number."""
        y = check_regression_target(y, dtype)
        columns = y.reshape(len(y), -1)
        weight = combined_weight(sample_weight, None, columns, None)
        if scaling is None:
            shift, scale = self._location_and_scale(columns, weight)
            scaling = {"shift": shift, "scale": scale, "n_dim": y.ndim}
        elif y.ndim != scaling["n_dim"] or columns.shape[1] != len(scaling["shift"]):
            raise ValueError(f"y has shape {y.shape}, but earlier calls had {len(scaling['shift'])} target(s).")
        coded = np.ascontiguousarray((columns - scaling["shift"]) / scaling["scale"], dtype)
        return coded, weight, {"_scaling": scaling}

    def _location_and_scale(self, y, weight):
        share = weight / weight.sum()
        origin = y[weight.argmax()]  # the mean of equal targets is exactly theirs
        shift = origin + _means(share, y - origin) if self._centres() else np.zeros(y.shape[1])
        size = np.abs(y - shift)[weight > 0].max() or 1.0
        # Squares of huge ones would be infinite.
        scale = size * np.sqrt(_means(share, ((y - shift) / size) ** 2).mean())
        return shift, float(scale) or 1.0

    def _centres(self):
        """Whether the model can learn the mean of the targets."""
        return True

    def _strata(self, coded):
        return None

    def _target(self, coded, dtype):
        return coded

    def _settings(self, dtype):
        return settings(dtype, _KINDS[self.loss], delta=self.delta / self._scaling["scale"])

    def _unit(self):
        scale = self._scaling["scale"]
        return scale if self.loss == "absolute" else scale**2

    def _blind_loss(self, problem):
        return self._loss_of_zero(problem.target)

    def _loss_of_zero(self, target):
        """Mean loss of a model that gives 0, which is the mean of the targets."""
        size = np.abs(target) if self.loss == "absolute" else target**2 / 2
        return float(size.sum(axis=1, dtype=np.float64).mean())

    def _check_same(self, known):
        new, old = known["_scaling"], self._scaling
        if (new["n_dim"], len(new["shift"])) != (old["n_dim"], len(old["shift"])):
            raise ValueError(f"warm_start needs the same targets: y has {len(new['shift'])}, not {len(old['shift'])}.")

    def _tolerance(self):
        """``tol`` for targets of unit variance: a share of the loss of a residual of 1."""
        if self.loss == "huber":
            return self.tol * min(1.0, self.delta / self._scaling["scale"])
        return self.tol


def _means(share, y):
    """Weighted means of the columns; for so few of them BLAS would wait longer for its threads than they work."""
    return np.einsum("i,ik->k", share, y)
