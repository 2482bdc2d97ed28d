"""What linear estimators share: one linear layer, a loss over it, two solvers, and scikit-learn's rules around them."""

import warnings
from abc import abstractmethod
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
from fastml.estimators._targets import is_matrix, split_rows
from fastml.functional._sparse import canonical_csr, check_structure
from fastml.functional._validate import canonical
from fastml.optim import SGD, Adam, InverseTimeDecay, Optimizer
from fastml.runtime import thread_count
from fastml.training.lbfgs import minimize_lbfgs
from fastml.training.linear_problem import LinearProblem
from fastml.training.minibatch import MiniBatches
from fastml.training.monitor import Monitor

# Rates that suit a convex problem with features of unit scale: large at first, then quiet enough to settle.
_OPTIMIZERS = {
    "adam": Adam(InverseTimeDecay(0.01, 0.003)),
    "sgd": SGD(InverseTimeDecay(0.1, 0.003), momentum=0.9),
}


def has_batches(estimator):
    """Whether the solver can go on from batch to batch."""
    if estimator.solver != "minibatch":
        raise AttributeError("partial_fit needs solver='minibatch'.")
    return True


class LinearModel(CallbackSupportMixin, BaseEstimator):
    """Base of the linear estimators.

    A subclass says what its targets and weights are (``_encode``, ``_target``, ``_strata``), which loss they have
    (``_settings``, ``_blind_loss``), and how ``coef_`` and ``intercept_`` stand for the K rows of coefficients that
    are trained (``_inward``, ``_outward``). "Known" are the attributes that describe the targets, such as
    ``{"classes_": ...}``.
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
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    @abstractmethod
    def __init__(
        self,
        *,
        solver,
        optimizer,
        alpha,
        l1_ratio,
        fit_intercept,
        batch_size,
        max_iter,
        tol,
        early_stopping,
        validation_fraction,
        n_iter_no_change,
        warm_start,
        shuffle,
        random_state,
        n_jobs,
        verbose,
    ):
        self.solver = solver
        self.optimizer = optimizer
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
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
        """Fit to rows and their targets.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            float32 stays float32, everything else becomes float64; sparse formats become CSR.
        y : array-like (n_samples,) or (n_samples, n_outputs)
            Targets, as the class describes them.
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
        coded, weight, known = self._encode(y, X.dtype, sample_weight)
        random_state = check_random_state(self.random_state)
        start = self._start(known, X, coded, weight)
        self.__dict__.update(known)
        problem, validate = self._problems(X, coded, weight, random_state)
        values = problem.join(*start)
        tasks = CallbackTasks(self, self.max_iter, lambda v: self._fitted(problem, v), *data)
        monitor = self._monitor(problem, validate)
        with tasks.fit():
            solve = self._solve_lbfgs if self.solver == "lbfgs" else self._solve_minibatch
            values = solve(problem, values, monitor, tasks, random_state)
            monitor.check(values)
            self.__dict__.update(self._fitted(problem, values))
            self.__dict__.pop("_optimizer_state", None)  # it belonged to other parameters
            self.loss_curve_, self.n_iter_ = monitor.losses, len(monitor.losses)
            self.validation_loss_curve_ = monitor.validation_losses if self.early_stopping else None
        return self

    def _partial_fit(self, X, y, encode):
        """One epoch over these rows; ``encode(y, dtype, is_first)`` gives coded targets, weights and what is known."""
        self._validate_params()  # scikit-learn's decorator checks them in the first call only
        if self.early_stopping:
            raise ValueError("partial_fit has no rows to hold out: set early_stopping=False.")
        is_first = not hasattr(self, "coef_")
        X, y = self._validate(X, y, reset=is_first)
        coded, weight, known = encode(y, X.dtype, is_first)
        start = self._start(known, X, coded, weight, go_on=not is_first)
        self.__dict__.update(known)
        problem = self._problem(X, coded, weight)
        values = problem.join(*start)
        monitor = self._monitor(problem, None)
        steps = self._steps(problem, values, getattr(self, "_optimizer_state", None))
        monitor.record(steps.epoch(self._order(problem, check_random_state(self.random_state))), values)
        self.__dict__.update(self._fitted(problem, values))
        self._optimizer_state = steps.state
        self.loss_curve_ = [*getattr(self, "loss_curve_", []), *monitor.losses]
        self.validation_loss_curve_, self.n_iter_ = None, len(self.loss_curve_)
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _validate(self, X, y, reset):
        check_structure(X)
        check_structure(y, "y")
        options = {"accept_sparse": "csr", "dtype": [np.float64, np.float32], "order": "C", "multi_output": True}
        X, y = validate_data(self, X, y, reset=reset, **options)
        return canonical_csr(X) if issparse(X) else canonical(X, X.dtype), y

    def _products(self, X):
        """``X @ coef_.T + intercept_`` of rows as users pass them."""
        check_is_fitted(self)
        check_structure(X)
        X = validate_data(self, X, reset=False, accept_sparse="csr", dtype=[np.float64, np.float32])
        return safe_sparse_dot(X, self.coef_.T, dense_output=True) + self.intercept_

    def _dense_coef(self):
        return self.coef_.toarray() if issparse(self.coef_) else self.coef_

    def _start(self, known, X, coded, weight, go_on=False):
        """Coefficients (K, d) and intercepts (K,) to begin at."""
        if not (go_on or (self.warm_start and hasattr(self, "coef_"))):
            intercept = self._first_intercept(coded, weight, known, X.dtype)
            return np.zeros((len(intercept), X.shape[1]), X.dtype), intercept
        self._check_same(known)
        coef = np.atleast_2d(self._dense_coef())
        if coef.shape[1] != X.shape[1]:
            raise ValueError(f"warm_start needs the same features: X has {X.shape[1]}, the last fit {coef.shape[1]}.")
        return self._inward(coef, np.atleast_1d(self.intercept_), known)

    def _fitted(self, problem, values):
        """``coef_`` and ``intercept_`` from a vector of parameters."""
        coef, intercept = self._outward(*problem.coef(values))
        return {"coef_": coef, "intercept_": intercept}

    def _problem(self, X, coded, weight):
        target = self._target(coded, X.dtype)
        options = {"fit_intercept": self.fit_intercept, "n_threads": thread_count(self.n_jobs)}
        return LinearProblem(X, target, weight, self._n_outputs(target), self._settings(X.dtype), **options)

    def _n_outputs(self, target):
        return target.shape[1]

    def _problems(self, X, coded, weight, random_state):
        """What to minimise, and the loss on held-out rows as a function of the parameters, or None."""
        if not self.early_stopping:
            return self._problem(X, coded, weight), None
        train, held_out = split_rows(len(coded), self._strata(coded), self.validation_fraction, random_state)
        for rows, part in (train, "training"), (held_out, "held-out"):
            if not weight[rows].sum() > 0:
                raise ValueError(f"sample_weight is 0 for all {part} rows: raise validation_fraction or some weights.")
        problem = self._problem(X[train], coded[train], weight[train])
        held_out = self._problem(X[held_out], coded[held_out], weight[held_out])
        return problem, lambda values: held_out.loss(values.astype(X.dtype, copy=False))

    def _penalties(self, problem):
        """L2 and L1 of the coefficients that are trained."""
        return self.alpha * (1 - self.l1_ratio), self.alpha * self.l1_ratio

    def _unit(self):
        """What a loss of 1 in training is in the user's terms."""
        return 1.0

    def _tolerance(self):
        """``tol`` in the terms of training."""
        return self.tol

    def _monitor(self, problem, validate):
        patience = self.n_iter_no_change if self.solver == "minibatch" or self.early_stopping else None
        options = {"tol": self._tolerance(), "patience": patience, "validate": validate, "verbose": self.verbose}
        return Monitor(type(self).__name__, self._blind_loss(problem), unit=self._unit(), **options)

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

        values, trouble = self._minimize(problem, values, on_iteration)
        if trouble:
            self._warn(trouble)
        return values if monitor.best_values is None else monitor.best_values.astype(problem.dtype)

    def _minimize(self, problem, values, on_iteration):
        """The optimum by L-BFGS, and a sentence that says why it was not reached, or None."""
        l2, _ = self._penalties(problem)
        options = {"l2": l2, "max_iter": self.max_iter, "tol": self._tolerance(), "on_iteration": on_iteration}
        return self._minimizer(problem)(problem, values, **options)

    def _minimizer(self, problem):
        return minimize_lbfgs

    def _warn(self, message):
        # Seven frames up: this, the solver, fit and its three decorators, and who called fit.
        warnings.warn(f"{type(self).__name__} {message}", ConvergenceWarning, stacklevel=7)


class LinearClassifier(ClassifierMixin, LinearModel):
    """Base of the linear classifiers: labels and their weights, ``partial_fit`` with ``classes``, sparse coefficients.

    Targets are coded as labels (n,) int64, or in the dtype of X as a matrix (n, K).
    """

    _parameter_constraints = {
        **LinearModel._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    @available_if(has_batches)
    @unchanged_on_error
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """One epoch over these rows, going on from what earlier calls learned.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            The rows.
        y : array-like (n_samples,) or (n_samples, n_outputs)
            Their targets, as ``fit`` takes them.
        classes : array-like (n_classes,), default=None
            All labels that will ever come; needed in the first call, unless ``y`` is a matrix.
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

        def encode(y, dtype, is_first):
            return self._encode(y, dtype, sample_weight, self._known_classes(classes, y, is_first))

        return self._partial_fit(X, y, encode)

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

    def _known_classes(self, classes, y, is_first):
        """The classes to encode with, or None where a matrix tells their number."""
        if not is_first:
            if classes is not None and not np.array_equal(np.unique(classes), self.classes_):
                raise ValueError(f"classes={classes!r} are not those of the first partial_fit, {self.classes_!r}.")
            return self.classes_
        if classes is None:
            if not is_matrix(y):
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

    def _check_same(self, known):
        """Raise where parameters of other classes cannot be gone on from."""
        if not np.array_equal(known["classes_"], self.classes_):
            raise ValueError(
                f"warm_start needs the same classes: y has {known['classes_']!r}, the last fit {self.classes_!r}."
            )
