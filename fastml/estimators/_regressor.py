"""Linear regression with squared, absolute or Huber loss."""

import numpy as np

from fastml.estimators._gradient_regressor import GradientRegressor
from fastml.estimators._linear import LinearModel
from fastml.training.lbfgs import minimize_absolute, minimize_lbfgs


class LinearRegressor(GradientRegressor, LinearModel):
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
        **GradientRegressor._parameter_constraints,
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

    def _centres(self):
        return self.fit_intercept

    def _penalties(self, problem):
        scale = self._scaling["scale"]
        l2, l1 = super()._penalties(problem)
        return l2 * scale**2 / self._unit(), l1 * scale / self._unit()

    def _first_intercept(self, coded, weight, known, dtype):
        return np.zeros(coded.shape[1], dtype)

    def _inward(self, coef, intercept, known):
        shift, scale = known["_scaling"]["shift"], known["_scaling"]["scale"]
        return coef / scale, (intercept - shift) / scale

    def _outward(self, coef, intercept):
        shift, scale = self._scaling["shift"], self._scaling["scale"]
        coef, intercept = coef * coef.dtype.type(scale), (intercept * scale + shift).astype(coef.dtype)
        if not self.fit_intercept:
            intercept = np.zeros_like(intercept)
        return (coef[0], intercept[0]) if self._scaling["n_dim"] == 1 else (coef, intercept)

    def _minimizer(self, problem):
        return minimize_absolute if self.loss == "absolute" else minimize_lbfgs
