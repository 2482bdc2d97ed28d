"""What estimators trained by gradient descent share: scikit-learn's rules around a loss, its problem and its loop."""

from abc import abstractmethod
from numbers import Integral, Real

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import assert_all_finite, validate_data

from fastml._sklearn_compat import CallbackSupportMixin, Interval, StrOptions, fit_context, with_callbacks
from fastml.estimators._fitting import CallbackTasks, row_order, run_epochs, unchanged_on_error, warn_unconverged
from fastml.estimators._targets import is_matrix, split_rows
from fastml.functional._sparse import canonical_csr, check_structure
from fastml.functional._validate import canonical
from fastml.optim import Optimizer
from fastml.training.minibatch import MiniBatches
from fastml.training.monitor import Monitor


def has_batches(estimator):
    """Whether the solver can go on from batch to batch."""
    if getattr(estimator, "solver", None) == "lbfgs":
        raise AttributeError("partial_fit needs solver='minibatch'.")
    return True


class GradientModel(CallbackSupportMixin, BaseEstimator):
    """Base of the estimators that lower a mean loss over rows, epoch by epoch.

    A subclass says what its targets and weights are (``_encode``, ``_strata``), where it begins (``_start``,
    ``_values``), what it lowers (``_problem``, ``_penalties``, ``_blind_loss``), and which attributes hold the
    parameters (``_fitted``). "Known" are the attributes that describe the targets, such as ``{"classes_": ...}``.
    """

    _weights = "coef_"  # the attribute that a fit leaves
    _parameter_constraints = {
        "optimizer": [StrOptions({"adam", "sgd"}), Optimizer],
        "alpha": [Interval(Real, 0, None, closed="left")],
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
        optimizer,
        alpha,
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
        self.optimizer = optimizer
        self.alpha = alpha
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
        values = self._values(problem, start, random_state)
        tasks = CallbackTasks(self, self.max_iter, lambda v: self._fitted(problem, v), *data)
        monitor = self._monitor(problem, validate, values)
        with tasks.fit():
            values, trouble = self._solver()(problem, values, monitor, tasks, random_state)
            monitor.check(values)
            if trouble:
                warn_unconverged(self, trouble)
            self.__dict__.update(self._fitted(problem, values))
            self.__dict__.pop("_optimizer_state", None)  # it belonged to other parameters
            validation_losses = monitor.validation_losses if self.early_stopping else None
            self._record(monitor.losses, validation_losses, problem.n_rows * len(monitor.losses))
            self._look_back(problem)
        return self

    def _partial_fit(self, X, y, encode):
        """One epoch over these rows; ``encode(y, dtype, is_first)`` gives coded targets, weights and what is known."""
        self._validate_params()  # scikit-learn's decorator checks them in the first call only
        if self.early_stopping:
            raise ValueError("partial_fit has no rows to hold out: set early_stopping=False.")
        is_first = not hasattr(self, self._weights)
        X, y = self._validate(X, y, reset=is_first)
        coded, weight, known = encode(y, X.dtype, is_first)
        random_state = check_random_state(self.random_state)
        start = self._start(known, X, coded, weight, go_on=not is_first)
        self.__dict__.update(known)
        problem = self._problem(X, coded, weight)
        values = self._values(problem, start, random_state)
        monitor = self._monitor(problem, None, values)
        steps = self._steps(problem, values, getattr(self, "_optimizer_state", None))
        monitor.record(steps.epoch(row_order(self, problem.n_rows, random_state)), values)
        self.__dict__.update(self._fitted(problem, values))
        self._optimizer_state = steps.state
        n_seen = getattr(self, "t_", 0) + problem.n_rows
        self._record([*getattr(self, "loss_curve_", []), *monitor.losses], None, n_seen)
        return self

    def _record(self, losses, validation_losses, n_seen):
        """Keep the curves of the epochs done; ``n_seen`` rows were gone over in all of them."""
        self.loss_curve_, self.validation_loss_curve_, self.n_iter_ = losses, validation_losses, len(losses)

    def _look_back(self, problem):
        """Keep what else a finished fit tells of its training rows."""

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

    def _solver(self):
        """``(problem, values, monitor, tasks, random_state)`` -> the parameters to keep, what went wrong or None."""
        return self._solve_minibatch

    def _solve_minibatch(self, problem, values, monitor, tasks, random_state):
        return run_epochs(self, self._steps(problem, values), values, monitor, tasks, random_state)

    def _steps(self, problem, values, state=None):
        l2, l1 = self._penalties(problem)
        size = self._batch_rows(problem)
        return MiniBatches(problem, self._optimizer(), values, batch_size=size, l2=l2, l1=l1, state=state)

    def _unit(self):
        """What a loss of 1 in training is in the user's terms."""
        return 1.0

    def _tolerance(self):
        """``tol`` in the terms of training."""
        return self.tol

    def _patience(self):
        return self.n_iter_no_change

    def _start_loss(self, problem, values):
        """A loss that a fit has left behind soon, unless it diverges."""
        return self._blind_loss(problem)

    def _monitor(self, problem, validate, values):
        options = {"tol": self._tolerance(), "patience": self._patience(), "validate": validate}
        name, start_loss = type(self).__name__, self._start_loss(problem, values)
        return Monitor(name, start_loss, unit=self._unit(), verbose=self.verbose, **options)


class GradientClassifier(ClassifierMixin, GradientModel):
    """Base of the classifiers: labels and their weights, ``partial_fit`` with ``classes``.

    Targets are coded as labels (n,) int64, or in the dtype of X as a matrix (n, K).
    """

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
