"""Linear regression with squared, absolute or Huber loss."""

from numbers import Real

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.metaestimators import available_if

from fastml._sklearn_compat import Interval, StrOptions, fit_context
from fastml.estimators._fitting import unchanged_on_error
from fastml.estimators._linear import LinearModel, has_batches
from fastml.estimators._targets import check_regression_target, combined_weight
from fastml.kernels._loss_tile import ABSOLUTE, HUBER, SQUARED, settings
from fastml.training.lbfgs import minimize_absolute, minimize_lbfgs

_KINDS = {"squared": SQUARED, "absolute": ABSOLUTE, "huber": HUBER}


class LinearRegressor(RegressorMixin, LinearModel):
    """Linear regression on compiled kernels, for one target or many.

    Minimises ``sum_i w_i sum_k loss(p_ik - y_ik) / sum_i w_i + alpha * ((1 - l1_ratio) / 2 * ||coef||^2 + l1_ratio *
    ||coef||_1)`` over predictions ``p = X @ coef.T + intercept``; intercepts are not penalised. Training sees targets
    centred and divided by their standard deviation, so that rates and tolerances do not depend on their unit. The
    same ``random_state`` gives the same bits for any ``n_jobs``.

    Parameters
    ----------
    loss : {"squared", "absolute", "huber"}, default="squared"
        For a residual r: ``r^2 / 2``, whose optimum is a mean and follows outliers; ``|r|``, whose optimum is a
        median; or Huber's, squared up to ``delta`` and straight beyond.
    delta : float, default=1.0
        Where Huber's loss becomes straight, in the unit of ``y``.
    solver : {"minibatch", "lbfgs"}, default="minibatch"
        "minibatch" steps along the gradient of ``batch_size`` rows at a time: many rows, a rough
        optimum soon. "lbfgs" goes to the optimum with all rows at once.
    optimizer : {"adam", "sgd"} or fastml.optim.Optimizer, default="adam"
        How "minibatch" steps. The names stand for ``Adam(InverseTimeDecay(0.01, 0.003))`` and
        ``SGD(InverseTimeDecay(0.1, 0.003), momentum=0.9)``; pass an instance to set (and search) its parameters.
    alpha : float, default=1e-4
        Strength of the penalty. The ``alpha`` of scikit-learn's Ridge is this one times the sum of weights.
        With the absolute loss, and Huber's beyond ``delta``, what a penalty means depends on the unit of ``y``, as the
        loss grows with it and the penalty with its square: scale ``y`` (TransformedTargetRegressor), or search.
    l1_ratio : float, default=0.0
        Share of the L1 penalty, in [0, 1]; above 0 only with "minibatch", by proximal steps that leave real zeros.
    fit_intercept : bool, default=True
        Whether to learn a constant for each target.
    batch_size : int or None, default=256
        Rows of a step; None takes all of them (plain gradient descent).
    max_iter : int, default=200
        Epochs ("minibatch") or iterations ("lbfgs") at most.
    tol : float, default=1e-4
        "minibatch" stops when ``n_iter_no_change`` epochs in a row did not lower the loss by this much; "lbfgs"
        when no entry of the gradient is larger, nor 10 times larger with features scaled to unit curvature. Both
        for targets divided by their standard deviation, so that their unit of measurement does not matter.
    early_stopping : bool, default=False
        Hold out ``validation_fraction`` of the rows, stop when ``n_iter_no_change`` iterations did
        not lower their loss by ``tol``, and keep the parameters that were best on them.
    validation_fraction : float, default=0.1
        Share of rows held out for early stopping, in (0, 1).
    n_iter_no_change : int, default=5
        Patience, in epochs or iterations.
    warm_start : bool, default=False
        Begin at the parameters of the last fit.
    shuffle : bool, default=True
        Visit the rows in a new order each epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of the orders and of the held-out rows.
    n_jobs : int or None, default=None
        Threads. None: what joblib is configured to, otherwise all cores; -1: all cores.
    verbose : int, default=0
        1 prints a line an epoch.

    Attributes
    ----------
    coef_ : ndarray (n_features,), or (n_targets, n_features) where y has two dimensions
        Coefficients, in the dtype of X.
    intercept_ : float, or ndarray (n_targets,) where y has two dimensions
        Intercepts.
    loss_curve_ : list of float
        Objective (mean loss, summed over targets, plus penalties, in the unit of ``y`` or its square) of each epoch
        (its running mean) or iteration.
    validation_loss_curve_ : list of float or None
        Mean loss on the held-out rows, with ``early_stopping``.
    n_iter_ : int
        Epochs or iterations done.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Names of the features, if X had any.

    Notes
    -----
    "lbfgs" with the absolute loss minimises Huber's for ever smaller ``delta``, down to 1e-4 standard deviations of
    the target. ``partial_fit`` keeps the location and scale that the first call found.

    References
    ----------
    Huber: Robust estimation of a location parameter. Annals of Mathematical Statistics 35, 1964.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from fastml import LinearRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> round(LinearRegressor(solver="lbfgs").fit(X, y).score(X, y), 2)
    0.51
    """

    _parameter_constraints = {
        "loss": [StrOptions(set(_KINDS))],
        "delta": [Interval(Real, 0, None, closed="neither")],
        **LinearModel._parameter_constraints,
    }

    def __init__(
        self,
        *,
        loss="squared",
        delta=1.0,
        solver="minibatch",
        optimizer="adam",
        alpha=1e-4,
        l1_ratio=0.0,
        fit_intercept=True,
        batch_size=256,
        max_iter=200,
        tol=1e-4,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=5,
        warm_start=False,
        shuffle=True,
        random_state=None,
        n_jobs=None,
        verbose=0,
    ):
        super().__init__(
            solver=solver,
            optimizer=optimizer,
            alpha=alpha,
            l1_ratio=l1_ratio,
            fit_intercept=fit_intercept,
            batch_size=batch_size,
            max_iter=max_iter,
            tol=tol,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            warm_start=warm_start,
            shuffle=shuffle,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
        )
        self.loss = loss
        self.delta = delta

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

    def predict(self, X):
        """Predictions: ``X @ coef_.T + intercept_``.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            The rows.

        Returns
        -------
        ndarray (n_samples,), or (n_samples, n_targets) where the targets had two dimensions
            In the dtype of X or of ``coef_``, the wider of both.
        """
        return self._products(X)

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
        shift = origin + _means(share, y - origin) if self.fit_intercept else np.zeros(y.shape[1])
        size = np.abs(y - shift)[weight > 0].max() or 1.0
        # Squares of huge ones would be infinite.
        scale = size * np.sqrt(_means(share, ((y - shift) / size) ** 2).mean())
        return shift, float(scale) or 1.0

    def _strata(self, coded):
        return None

    def _target(self, coded, dtype):
        return coded

    def _settings(self, dtype):
        return settings(dtype, _KINDS[self.loss], delta=self.delta / self._scaling["scale"])

    def _unit(self):
        scale = self._scaling["scale"]
        return scale if self.loss == "absolute" else scale**2

    def _penalties(self, problem):
        scale = self._scaling["scale"]
        l2, l1 = super()._penalties(problem)
        return l2 * scale**2 / self._unit(), l1 * scale / self._unit()

    def _blind_loss(self, problem):
        size = np.abs(problem.target) if self.loss == "absolute" else problem.target**2 / 2
        return float(size.sum(axis=1, dtype=np.float64).mean())

    def _first_intercept(self, coded, weight, known, dtype):
        return np.zeros(coded.shape[1], dtype)

    def _check_same(self, known):
        new, old = known["_scaling"], self._scaling
        if (new["n_dim"], len(new["shift"])) != (old["n_dim"], len(old["shift"])):
            raise ValueError(f"warm_start needs the same targets: y has {len(new['shift'])}, not {len(old['shift'])}.")

    def _inward(self, coef, intercept, known):
        shift, scale = known["_scaling"]["shift"], known["_scaling"]["scale"]
        return coef / scale, (intercept - shift) / scale

    def _outward(self, coef, intercept):
        shift, scale = self._scaling["shift"], self._scaling["scale"]
        coef, intercept = coef * coef.dtype.type(scale), (intercept * scale + shift).astype(coef.dtype)
        if not self.fit_intercept:
            intercept = np.zeros_like(intercept)
        return (coef[0], intercept[0]) if self._scaling["n_dim"] == 1 else (coef, intercept)

    def _tolerance(self):
        """``tol`` for targets of unit variance: a share of the loss of a residual of 1."""
        if self.loss == "huber":
            return self.tol * min(1.0, self.delta / self._scaling["scale"])
        return self.tol

    def _minimizer(self, problem):
        return minimize_absolute if self.loss == "absolute" else minimize_lbfgs


def _means(share, y):
    """Weighted means of the columns; for so few of them BLAS would wait longer for its threads than they work."""
    return np.einsum("i,ik->k", share, y)
