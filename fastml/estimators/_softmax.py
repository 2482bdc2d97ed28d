"""Multinomial logistic regression."""

import warnings
from numbers import Integral, Real

import numpy as np
from scipy.sparse import csr_array, issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import assert_all_finite, check_is_fitted, validate_data

from fastml._sklearn_compat import CallbackSupportMixin, Interval, StrOptions, fit_context, with_callbacks
from fastml.estimators._fitting import CallbackTasks, unchanged_on_error
from fastml.estimators._targets import combined_weight, encode, is_soft, split_rows
from fastml.functional import log_softmax, softmax
from fastml.functional._sparse import canonical_csr, check_structure
from fastml.functional._validate import canonical
from fastml.optim import SGD, Adam, InverseTimeDecay, Optimizer
from fastml.runtime import thread_count
from fastml.training.lbfgs import minimize_lbfgs
from fastml.training.minibatch import MiniBatches
from fastml.training.monitor import Monitor
from fastml.training.softmax_problem import SoftmaxProblem

# Rates that suit a convex problem with features of unit scale: large at first, then quiet enough to settle.
_OPTIMIZERS = {
    "adam": Adam(InverseTimeDecay(0.01, 0.003)),
    "sgd": SGD(InverseTimeDecay(0.1, 0.003), momentum=0.9),
}


def _has_batches(estimator):
    if estimator.solver != "minibatch":
        raise AttributeError("partial_fit needs solver='minibatch'.")
    return True


class SoftmaxClassifier(CallbackSupportMixin, ClassifierMixin, BaseEstimator):
    """Multinomial logistic regression on compiled kernels.

    Minimises ``sum_i w_i CE_i / sum_i w_i + alpha * ((1 - l1_ratio) / 2 * ||coef||^2 + l1_ratio * ||coef||_1)``,
    where CE is the softmax cross-entropy in nats; intercepts are not penalised. The same ``random_state`` gives the
    same bits for any ``n_jobs``.

    Parameters
    ----------
    solver : {"minibatch", "lbfgs"}, default="minibatch"
        "minibatch" steps along the gradient of ``batch_size`` rows at a time: many rows, many classes, rough
        optimum soon. "lbfgs" goes to the optimum with all rows at once.
    optimizer : {"adam", "sgd"} or fastml.optim.Optimizer, default="adam"
        How "minibatch" steps. The names stand for ``Adam(InverseTimeDecay(0.01, 0.003))`` and
        ``SGD(InverseTimeDecay(0.1, 0.003), momentum=0.9)``; pass an instance to set (and search) its parameters.
    alpha : float, default=1e-4
        Strength of the penalty. scikit-learn's ``C`` is ``1 / (alpha * sum of weights)``.
    l1_ratio : float, default=0.0
        Share of the L1 penalty, in [0, 1]; above 0 only with "minibatch", by proximal steps that leave real zeros.
    fit_intercept : bool, default=True
        Whether to learn a constant for each class.
    batch_size : int or None, default=256
        Rows of a step; None takes all of them (plain gradient descent).
    max_iter : int, default=200
        Epochs ("minibatch") or iterations ("lbfgs") at most.
    tol : float, default=1e-4
        "minibatch" stops when ``n_iter_no_change`` epochs in a row did not lower the loss by this much; "lbfgs"
        when no entry of the gradient is larger, nor 10 times larger with features scaled to unit curvature.
    label_smoothing : float, default=0.0
        In [0, 1): share of each target that is spread evenly over all classes.
    n_negatives : None
        Reserved for candidate sampling; must be None.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, multiplied into ``sample_weight``.
    early_stopping : bool, default=False
        Hold out ``validation_fraction`` of the rows (stratified), stop when ``n_iter_no_change`` iterations did
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
    classes_ : ndarray (n_classes,)
        The labels; 0..C-1 where ``y`` was probabilities.
    coef_ : ndarray (n_classes, n_features), or (1, n_features) for two classes
        Coefficients, in the dtype of X.
    intercept_ : ndarray (n_classes,), or (1,)
        Intercepts.
    loss_curve_ : list of float
        Objective (mean loss in nats plus penalties) of each epoch (its running mean) or iteration.
    validation_loss_curve_ : list of float or None
        Mean loss on the held-out rows, in nats, with ``early_stopping``.
    n_iter_ : int
        Epochs or iterations done.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Names of the features, if X had any.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastml import SoftmaxClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = SoftmaxClassifier(solver="lbfgs").fit(X, y)
    >>> classifier.predict(X[:3]), round(classifier.score(X, y), 2)
    (array([0, 0, 0]), 0.98)
    """

    _parameter_constraints = {
        "solver": [StrOptions({"minibatch", "lbfgs"})],
        "optimizer": [StrOptions(set(_OPTIMIZERS)), Optimizer],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "l1_ratio": [Interval(Real, 0, 1, closed="both")],
        "fit_intercept": ["boolean"],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "n_negatives": [None],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        *,
        solver="minibatch",
        optimizer="adam",
        alpha=1e-4,
        l1_ratio=0.0,
        fit_intercept=True,
        batch_size=256,
        max_iter=200,
        tol=1e-4,
        label_smoothing=0.0,
        n_negatives=None,
        class_weight=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=5,
        warm_start=False,
        shuffle=True,
        random_state=None,
        n_jobs=None,
        verbose=0,
    ):
        self.solver = solver
        self.optimizer = optimizer
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.label_smoothing = label_smoothing
        self.n_negatives = n_negatives
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.shuffle = shuffle
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    @unchanged_on_error
    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Fit to rows and their classes.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            float32 stays float32, everything else becomes float64; sparse formats become CSR.
        y : array-like (n_samples,) or (n_samples, n_classes)
            Labels of any type, or probabilities of each class (soft targets).
        sample_weight : array-like (n_samples,), default=None
            Weights of the rows, not negative and not all 0.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad input or parameters, and where the fit diverges; the estimator is then as it was before.
        """
        data = X, y, sample_weight
        X, y = self._validate(X, y, reset=True)
        target, classes = encode(y, None, X.dtype)
        weight = combined_weight(sample_weight, self.class_weight, target, classes)
        random_state = check_random_state(self.random_state)
        start = self._start(classes, X)
        self.classes_ = classes
        problem, validate = self._problems(X, target, weight, random_state)
        values = problem.join(*start)
        tasks = CallbackTasks(self, self.max_iter, lambda v: self._fitted(problem, v), *data)
        monitor = self._monitor(problem, validate)
        with tasks.fit():
            solve = self._solve_lbfgs if self.solver == "lbfgs" else self._solve_minibatch
            values = solve(problem, values, monitor, tasks, random_state)
            monitor.check(values)
            for name, value in self._fitted(problem, values).items():
                setattr(self, name, value)
            self.__dict__.pop("_optimizer_state", None)  # it belonged to other parameters
            self.loss_curve_, self.n_iter_ = monitor.losses, len(monitor.losses)
            self.validation_loss_curve_ = monitor.validation_losses if self.early_stopping else None
        return self

    @available_if(_has_batches)
    @unchanged_on_error
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """One epoch over these rows, going on from what earlier calls learned.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            The rows.
        y : array-like (n_samples,) or (n_samples, n_classes)
            Their labels, or probabilities of each class.
        classes : array-like (n_classes,), default=None
            All labels that will ever come; needed in the first call, unless ``y`` is probabilities.
        sample_weight : array-like (n_samples,), default=None
            Weights of the rows; each call takes their mean as 1.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad input, labels not in ``classes``, and where the fit diverges; nothing has changed then.
        """
        self._validate_params()  # scikit-learn's decorator checks them in the first call only
        if self.early_stopping:
            raise ValueError("partial_fit has no rows to hold out: set early_stopping=False.")
        is_first = not hasattr(self, "coef_")
        X, y = self._validate(X, y, reset=is_first)
        target, known = encode(y, self._known_classes(classes, y, is_first), X.dtype)
        weight = combined_weight(sample_weight, self.class_weight, target, known)
        start = self._start(known, X, go_on=not is_first)
        problem = self._problem(X, target, weight, known)
        values = problem.join(*start)
        monitor = self._monitor(problem, None)
        steps = self._steps(problem, values, getattr(self, "_optimizer_state", None))
        monitor.record(steps.epoch(self._order(problem, check_random_state(self.random_state))), values)
        self.classes_ = known
        for name, value in self._fitted(problem, values).items():
            setattr(self, name, value)
        self._optimizer_state = steps.state
        self.loss_curve_ = [*getattr(self, "loss_curve_", []), *monitor.losses]
        self.validation_loss_curve_, self.n_iter_ = None, len(self.loss_curve_)
        return self

    def decision_function(self, X):
        """Logits: ``X @ coef_.T + intercept_``.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            The rows.

        Returns
        -------
        ndarray (n_samples, n_classes), or (n_samples,) for two classes
            For two classes the logit of ``classes_[1]``.
        """
        check_is_fitted(self)
        check_structure(X)
        X = validate_data(self, X, reset=False, accept_sparse="csr", dtype=[np.float64, np.float32])
        scores = safe_sparse_dot(X, self.coef_.T, dense_output=True) + self.intercept_
        return scores.ravel() if len(self.classes_) == 2 else scores

    def predict(self, X):
        """The most probable class of each row.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            The rows.

        Returns
        -------
        ndarray (n_samples,)
            Labels out of ``classes_``.
        """
        scores = self.decision_function(X)
        best = (scores > 0).astype(np.int64) if scores.ndim == 1 else scores.argmax(axis=1)
        return self.classes_[best]

    def predict_proba(self, X, temperature=1.0):
        """Probabilities of the classes: softmax of the logits divided by ``temperature``.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            The rows.
        temperature : float, default=1.0
            Above 1 softens the probabilities, below 1 sharpens them.

        Returns
        -------
        ndarray (n_samples, n_classes)
            Rows that sum to 1, columns in the order of ``classes_``.
        """
        return softmax(self._logits(X), temperature=temperature)

    def predict_log_proba(self, X, temperature=1.0):
        """Logarithms of ``predict_proba``, without its underflow.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            The rows.
        temperature : float, default=1.0
            Above 1 softens the probabilities, below 1 sharpens them.

        Returns
        -------
        ndarray (n_samples, n_classes)
            In nats, at most 0.
        """
        return log_softmax(self._logits(X), temperature=temperature)

    def sparsify(self):
        """Convert ``coef_`` to a CSR array, which pays where L1 made most of it zero.

        Returns
        -------
        self
        """
        check_is_fitted(self)
        self.coef_ = csr_array(self.coef_)
        return self

    def densify(self):
        """Convert ``coef_`` back to a dense array.

        Returns
        -------
        self
        """
        check_is_fitted(self)
        self.coef_ = self._dense_coef()
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _validate(self, X, y, reset):
        check_structure(X)
        options = {"accept_sparse": "csr", "dtype": [np.float64, np.float32], "order": "C", "multi_output": True}
        X, y = validate_data(self, X, y, reset=reset, **options)
        if issparse(y):
            raise TypeError("y must be dense: pass y.toarray().")
        return canonical_csr(X) if issparse(X) else canonical(X, X.dtype), y

    def _known_classes(self, classes, y, is_first):
        """The classes to encode with, or None where probabilities tell their number."""
        if not is_first:
            if classes is not None and not np.array_equal(np.unique(classes), self.classes_):
                raise ValueError(f"classes={classes!r} are not those of the first partial_fit, {self.classes_!r}.")
            return self.classes_
        if classes is None:
            if not is_soft(y):
                raise ValueError("classes must be passed to the first call of partial_fit: all labels that will come.")
            return None
        classes = np.asarray(classes)
        if classes.ndim != 1:
            raise ValueError(f"classes must be one-dimensional, a list of labels, got shape {classes.shape}.")
        assert_all_finite(classes, input_name="classes")
        classes = np.unique(classes)
        if len(classes) < 2:
            raise ValueError(
                f"classes has {len(classes)} label(s), {classes.tolist()!r}: a classifier needs at least 2."
            )
        return classes

    def _dense_coef(self):
        return self.coef_.toarray() if issparse(self.coef_) else self.coef_

    def _start(self, classes, X, go_on=False):
        """Coefficients (C, d) and intercepts (C,) to begin at."""
        if not (go_on or (self.warm_start and hasattr(self, "coef_"))):
            return np.zeros((len(classes), X.shape[1]), X.dtype), np.zeros(len(classes), X.dtype)
        coef, intercept = self._dense_coef(), self.intercept_
        if not np.array_equal(classes, self.classes_):
            raise ValueError(f"warm_start needs the same classes: y has {classes!r}, the last fit {self.classes_!r}.")
        if coef.shape[1] != X.shape[1]:
            raise ValueError(f"warm_start needs the same features: X has {X.shape[1]}, the last fit {coef.shape[1]}.")
        if len(classes) == 2:
            return np.vstack([-coef / 2, coef / 2]), np.concatenate([-intercept / 2, intercept / 2])
        return coef, intercept

    def _fitted(self, problem, values):
        """``coef_`` and ``intercept_`` from a vector of parameters; two classes share one logit."""
        coef, intercept = problem.coef(values)
        if len(self.classes_) == 2:
            coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        return {"coef_": coef, "intercept_": intercept}

    def _logits(self, X):
        scores = self.decision_function(X)
        return np.column_stack([np.zeros_like(scores), scores]) if scores.ndim == 1 else scores

    def _problem(self, X, target, weight, classes):
        settings = {"fit_intercept": self.fit_intercept, "label_smoothing": self.label_smoothing}
        return SoftmaxProblem(X, target, weight, len(classes), n_threads=thread_count(self.n_jobs), **settings)

    def _problems(self, X, target, weight, random_state):
        """What to minimise, and the loss on held-out rows as a function of the parameters, or None."""
        if not self.early_stopping:
            return self._problem(X, target, weight, self.classes_), None
        train, held_out = split_rows(target, self.validation_fraction, random_state)
        for rows, part in (train, "training"), (held_out, "held-out"):
            if not weight[rows].sum() > 0:
                raise ValueError(f"sample_weight is 0 for all {part} rows: raise validation_fraction or some weights.")
        problem = self._problem(X[train], target[train], weight[train], self.classes_)
        held_out = self._problem(X[held_out], target[held_out], weight[held_out], self.classes_)
        return problem, lambda values: held_out.loss(values.astype(X.dtype, copy=False))

    def _penalties(self, problem):
        """L2 and L1 of the coefficients; two rows of them that differ by ``coef_`` share its penalty."""
        pair = 2 if problem.n_classes == 2 else 1
        return pair * self.alpha * (1 - self.l1_ratio), self.alpha * self.l1_ratio

    def _monitor(self, problem, validate):
        patience = self.n_iter_no_change if self.solver == "minibatch" or self.early_stopping else None
        options = {"tol": self.tol, "patience": patience, "validate": validate, "verbose": self.verbose}
        return Monitor(type(self).__name__, np.log(problem.n_classes), **options)

    def _order(self, problem, random_state):
        return random_state.permutation(problem.n_rows) if self.shuffle else np.arange(problem.n_rows)

    def _steps(self, problem, values, state=None):
        optimizer = _OPTIMIZERS[self.optimizer] if isinstance(self.optimizer, str) else self.optimizer
        l2, l1 = self._penalties(problem)
        size = problem.n_rows if self.batch_size is None else self.batch_size
        return MiniBatches(problem, optimizer, values, batch_size=size, l2=l2, l1=l1, state=state)

    def _solve_minibatch(self, problem, values, monitor, tasks, random_state):
        steps = self._steps(problem, values)
        for _ in range(self.max_iter):
            tasks.begin_iteration(values)
            stop = monitor.record(steps.epoch(self._order(problem, random_state)), values)
            if tasks.end_iteration(values) or stop:
                break
        else:
            advice = "raise max_iter, tol or the learning rate"
            self._warn(f"did not converge in max_iter={self.max_iter} epochs: {advice}.")
        return values if monitor.best_values is None else monitor.best_values

    def _solve_lbfgs(self, problem, values, monitor, tasks, random_state):
        if self.l1_ratio > 0:
            raise ValueError("l1_ratio must be 0 with solver='lbfgs': use solver='minibatch' for an L1 penalty.")
        previous = values

        def on_iteration(loss, values):
            nonlocal previous
            tasks.begin_iteration(previous)
            stop, previous = monitor.record(loss, values), values.copy()
            return tasks.end_iteration(values) or stop

        l2, _ = self._penalties(problem)
        values, trouble = minimize_lbfgs(
            problem, values, l2=l2, max_iter=self.max_iter, tol=self.tol, on_iteration=on_iteration
        )
        if trouble:
            self._warn(trouble)
        return values if monitor.best_values is None else monitor.best_values.astype(problem.dtype)

    def _warn(self, message):
        # Seven frames up: this, the solver, fit and its three decorators, and who called fit.
        warnings.warn(f"{type(self).__name__} {message}", ConvergenceWarning, stacklevel=7)
