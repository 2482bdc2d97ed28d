"""What linear estimators share: one linear layer, a loss over it, and two solvers."""

from abc import abstractmethod
from numbers import Integral, Real

import numpy as np
from scipy.sparse import csr_array, issparse
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.validation import check_is_fitted, validate_data

from fastml._sklearn_compat import Interval, StrOptions
from fastml.estimators._gradient import GradientClassifier, GradientModel
from fastml.functional._sparse import check_structure
from fastml.optim import SGD, Adam, InverseTimeDecay
from fastml.runtime import thread_count
from fastml.training.lbfgs import minimize_lbfgs
from fastml.training.linear_problem import LinearProblem

# Rates that suit a convex problem with features of unit scale: large at first, then quiet enough to settle.
_OPTIMIZERS = {
    "adam": Adam(InverseTimeDecay(0.01, 0.003)),
    "sgd": SGD(InverseTimeDecay(0.1, 0.003), momentum=0.9),
}


class LinearModel(GradientModel):
    """Base of the linear estimators.

    A subclass says what its targets and weights are (``_encode``, ``_target``, ``_strata``), which loss they have
    (``_settings``, ``_blind_loss``), and how ``coef_`` and ``intercept_`` stand for the K rows of coefficients that
    are trained (``_inward``, ``_outward``).
    """

    _parameter_constraints = {
        **GradientModel._parameter_constraints,
        "solver": [StrOptions({"minibatch", "lbfgs"})],
        "l1_ratio": [Interval(Real, 0, 1, closed="both")],
        "fit_intercept": ["boolean"],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
    }

    @abstractmethod
    def __init__(self, *, solver, l1_ratio, fit_intercept, **common):
        super().__init__(**common)
        self.solver = solver
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept

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

    def _values(self, problem, start, random_state):
        return problem.join(*start)

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

    def _penalties(self, problem):
        """L2 and L1 of the coefficients that are trained."""
        return self.alpha * (1 - self.l1_ratio), self.alpha * self.l1_ratio

    def _patience(self):
        return self.n_iter_no_change if self.solver == "minibatch" or self.early_stopping else None

    def _batch_rows(self, problem):
        return problem.n_rows if self.batch_size is None else self.batch_size

    def _optimizer(self):
        return _OPTIMIZERS[self.optimizer] if isinstance(self.optimizer, str) else self.optimizer

    def _solver(self):
        return self._solve_lbfgs if self.solver == "lbfgs" else self._solve_minibatch

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
        return values if monitor.best_values is None else monitor.best_values.astype(problem.dtype), trouble

    def _minimize(self, problem, values, on_iteration):
        """The optimum by L-BFGS, and a sentence that says why it was not reached, or None."""
        l2, _ = self._penalties(problem)
        options = {"l2": l2, "max_iter": self.max_iter, "tol": self._tolerance(), "on_iteration": on_iteration}
        return self._minimizer(problem)(problem, values, **options)

    def _minimizer(self, problem):
        return minimize_lbfgs


class LinearClassifier(GradientClassifier, LinearModel):
    """Base of the linear classifiers: classes and their weights, sparse coefficients."""

    _parameter_constraints = {
        **LinearModel._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

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
