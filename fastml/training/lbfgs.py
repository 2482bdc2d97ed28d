"""SciPy's L-BFGS over a ``LinearProblem``, in coordinates where features are centred and scaled."""

import copy
from contextlib import suppress

import numpy as np
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.optimize import minimize

from fastml.kernels import lbfgs as kernels
from fastml.kernels._loss_tile import HUBER, SQUARED
from fastml.runtime import blas_limited, run_blocks
from fastml.training.linear_problem import TOO_LARGE

_MANY_PARAMETERS = 200_000  # from here SciPy's own vector work outweighs a pass over the rows: keep fewer vectors
_MANY_FEATURES = 1000  # beyond, their covariance costs more than the iterations it saves
_JITTERS = 1e-12, 1e-8, 1e-4
_DELTAS = (1.0, 0.1, 1e-2, 1e-3, 1e-4)  # for targets of unit variance
_PAIRS, _MEMORY_BYTES = 10, 1 << 28  # pairs kept for each output, and the memory for them
_EXACT = 1e-6  # of ``tol`` for a quadratic, whose last iterations are cheap
_FEW = 0.6  # of the outputs still active: go on with these alone
_BLOCK = 1 << 15  # parameters a thread takes at a time
_CURE = "Raise max_iter, or scale the features (for example with StandardScaler)."


class _Diagonal:
    """Features divided by their scales: the roots of the diagonal of the Hessian where the model knows nothing."""

    def __init__(self, problem, mean, square, curvature, l2):
        with np.errstate(over="ignore", invalid="ignore"):
            scale = np.sqrt(np.multiply.outer(curvature, np.maximum(square - mean**2, 0)) + l2)
        scale[(scale == 0) | ~np.isfinite(scale)] = 1
        self.scale = scale.T if problem.is_sparse else scale

    def times(self, W, out):
        np.multiply(W, self.scale, out=out)

    def over(self, U, out):
        np.divide(U, self.scale, out=out, casting="same_kind")

    over_transposed = over


def _cholesky(correlation):
    """Lower factor, with as much added to the diagonal as features that depend on each other, or rounding, ask for."""
    diagonal, added = np.einsum("ii->i", correlation), 0.0
    for jitter in *_JITTERS, len(correlation):
        diagonal += jitter - added
        added = jitter
        with suppress(LinAlgError):
            return cholesky(correlation, lower=True)
    raise AssertionError("a diagonal that outweighs the rows is positive definite")  # pragma: no cover


class _Whitening:
    """Features made uncorrelated: ``U = W L`` where the Hessian of one output is ``L L'``."""

    def __init__(self, problem, mean, l2):
        hessian = problem.feature_covariance(mean)
        diagonal = np.einsum("ii->i", hessian)
        diagonal += l2
        scale = np.sqrt(np.where(diagonal > 0, diagonal, 1))
        hessian /= np.multiply.outer(scale, scale)  # features of any unit bear the same jitter
        np.clip(hessian, -1, 1, out=hessian)  # beyond is rounding
        self.L = scale[:, np.newaxis] * _cholesky(hessian)
        self.is_sparse = problem.is_sparse

    def times(self, W, out):
        out[...] = self.L.T @ W if self.is_sparse else W @ self.L

    def over(self, U, out):
        self._solve(U, out, "T")

    def over_transposed(self, grad, out):
        self._solve(grad, out, "N")

    def _solve(self, U, out, trans):
        columns = U if self.is_sparse else U.T
        result = solve_triangular(self.L, columns, lower=True, trans=trans, check_finite=False)
        out[...] = result if self.is_sparse else result.T


class _Coordinates:
    """A change of variables that makes the problem round, which takes far fewer iterations.

    With ``U = W L`` and ``c = (b + W @ mean) * b_scale`` the logits are those of features centred and divided by
    ``L``; the rows stay as they are. The penalty, which stays one of ``W``, is part of ``L``. A loss whose Hessian
    is at most the features' covariance gets that in full, the others its diagonal.
    """

    def __init__(self, problem, l2):
        self.mean, square = problem.feature_moments()
        is_white = problem.settings.kind in (SQUARED, HUBER) and len(self.mean) <= _MANY_FEATURES
        if not problem.fit_intercept:
            self.mean = np.zeros_like(self.mean)
        curvature = problem.curvature()
        self.problem, self.b_scale, self.is_centred = problem, np.sqrt(curvature), self.mean.any()
        if is_white:
            self.L = _Whitening(problem, self.mean, l2)
        else:
            self.L = _Diagonal(problem, self.mean, square, curvature, l2)

    def from_values(self, values):
        """The float64 vector that SciPy works on."""
        x = values.astype(np.float64)
        coef, intercept = self.problem.split(x)
        intercept[...] = (intercept + self._at_mean(coef)) * self.b_scale
        self.L.times(coef.copy(), out=coef)
        return x

    def to_values(self, x, out):
        """Parameters in the dtype of the rows."""
        coef, intercept = self.problem.split(out)
        U, c = self.problem.split(x)
        self.L.over(U, out=coef)
        intercept[...] = c / self.b_scale - self._at_mean(coef)
        return out

    def grad(self, grad):
        """The gradient with respect to SciPy's vector."""
        out = np.empty(grad.size)
        coef, intercept = self.problem.split(grad)
        U, c = self.problem.split(out)
        np.divide(intercept, self.b_scale, out=c)
        if self.is_centred:
            outer = (self.mean, intercept) if self.problem.is_sparse else (intercept, self.mean)
            coef = coef - np.multiply.outer(*outer)
        self.L.over_transposed(coef, out=U)
        return out

    def _at_mean(self, coef):
        if not self.is_centred:
            return 0.0
        return self.mean @ coef if self.problem.is_sparse else coef @ self.mean


def minimize_lbfgs(problem, values, *, l2, max_iter, tol, on_iteration):
    """Minimise mean loss plus ``l2 / 2 |coef|^2`` from ``values``, until no entry of its gradient exceeds ``tol``.

    Rare features have small gradients far from the optimum: in the scaled coordinates none may exceed ``10 tol``.
    ``on_iteration(loss, values)`` sees each iterate and may return True to stop. Returns the values and a
    sentence that says why the minimum was not reached, or None.
    """
    wanted, tol = tol, tol * _EXACT if problem.settings.kind == SQUARED else tol
    coordinates = _Coordinates(problem, l2)
    values, grad, scaled_grad = values.copy(), np.empty_like(values), None
    coef, coef_grad = values[: problem.n_coef], grad[: problem.n_coef]

    def objective(x):
        nonlocal scaled_grad
        coordinates.to_values(x, out=values)
        loss = problem.loss_grad(values, grad)
        np.add(coef_grad, problem.dtype.type(l2) * coef, out=coef_grad)
        scaled_grad = coordinates.grad(grad)
        return loss + 0.5 * l2 * np.einsum("i,i", coef, coef, dtype=np.float64), scaled_grad

    def is_flat(tol):
        return np.abs(grad).max() <= tol and np.abs(scaled_grad).max() <= 10 * tol

    def callback(intermediate_result):
        # The last point evaluated is the iterate: values and gradients are its.
        if on_iteration(intermediate_result.fun, values) or is_flat(tol):
            raise StopIteration

    single, is_squared = problem.dtype == np.float32, problem.settings.kind == SQUARED
    least_fall = 1e-10 if single else 0.0 if is_squared else 64 * np.finfo(np.float64).eps
    options = {
        "maxiter": max_iter,
        "maxfun": 50 * max_iter + 50,
        "maxls": 50,
        "maxcor": 4 if values.size > _MANY_PARAMETERS else 10,
        "gtol": 0.0,
        "ftol": least_fall,  # below, a mean of losses is rounding
    }
    with blas_limited():
        start = coordinates.from_values(values)
        result = minimize(objective, start, method="L-BFGS-B", jac=True, callback=callback, options=options)
    if not np.isfinite(result.jac).all():
        raise ValueError(TOO_LARGE)
    coordinates.to_values(result.x, out=values)
    is_done = result.status in (0, 99) or is_flat(max(wanted, 1e-4 if single else 0.0))
    return values, None if is_done else f"lbfgs stopped early: {result.message} {_CURE}"


class _Outputs:
    """Independent outputs that are minimised side by side, some or all of those of a problem; see ``kernels.lbfgs``."""

    def __init__(self, problem, values, l2, tol):
        real, n_outputs = problem.dtype.type, problem.n_outputs
        mean, square = problem.feature_moments()
        mean = mean if problem.fit_intercept else np.zeros_like(mean)
        variance, curvature = np.maximum(square - mean**2, 0), problem.curvature()
        curvature = np.broadcast_to(curvature, n_outputs).astype(problem.dtype)
        rows = [a.astype(problem.dtype) for a in (mean, variance)]
        self.shape = kernels.Shape(*rows, curvature, real(l2), real(tol), real(10 * tol), problem.fit_intercept)
        n_values = len(mean) + 1
        memory = int(np.clip(_MEMORY_BYTES // (2 * n_outputs * n_values * problem.dtype.itemsize), 3, _PAIRS))
        self.problem, self.l2 = problem, l2
        self.trial, self.grad = self._by_output(values), np.empty((n_outputs, n_values), problem.dtype)
        self.state = kernels.State(
            np.full(n_outputs, kernels.FRESH),
            self._start(),
            *(np.zeros((n_outputs, n), problem.dtype) for n in (n_values, n_values, max(n_values, memory))),
            *(np.zeros((n_outputs, memory, n_values), problem.dtype) for _ in range(2)),
            np.zeros((n_outputs, memory), problem.dtype),
            np.zeros(n_outputs, np.int64),
            *(np.zeros(n_outputs, problem.dtype) for _ in range(2)),
        )

    def _scale(self):
        scale = np.sqrt(np.multiply.outer(self.shape.curvature, self.shape.variance) + self.shape.l2)
        scale[scale == 0] = 1
        return scale

    def _start(self):
        """The trial points in the coordinates of the work."""
        W, b = self.trial[:, :-1], self.trial[:, -1]
        return np.column_stack([W * self._scale(), (b + W @ self.shape.mean) * np.sqrt(self.shape.curvature)])

    def points(self):
        """Coefficients and intercepts (K, d + 1) of the points that the outputs have come to."""
        W, c = self.state.point[:, :-1] / self._scale(), self.state.point[:, -1]
        return np.column_stack([W, c / np.sqrt(self.shape.curvature) - W @ self.shape.mean])

    def _by_output(self, values):
        """Coefficients and intercept of each output, (K, d + 1)."""
        coef, intercept = self.problem.split(values)
        return np.column_stack([coef.T if self.problem.is_sparse else coef, intercept])

    def evaluate(self):
        """Objective at the trial points, and these as a vector; keeps the gradients."""
        values, grad = _joined(self.problem, self.trial), np.empty(self.trial.size, self.problem.dtype)
        loss = self.problem.loss_grad(values, grad)
        self.grad = self._by_output(grad)
        return loss + self._penalty(self.trial), values

    def objective(self, chosen):
        """At the trial points of some of the outputs."""
        problem, trial = self.problem.of_outputs(chosen), self.trial[chosen]
        return problem.loss(_joined(problem, trial)) + self._penalty(trial)

    def _penalty(self, trial):
        W = trial[:, :-1]
        return 0.5 * self.l2 * np.einsum("kj,kj->k", W, W).sum(dtype=np.float64)

    def advance(self):
        """To the next trial points; returns which outputs are not done."""
        n_outputs, block = len(self.trial), max(_BLOCK // self.trial.shape[1], 1)
        arrays = self.trial, self.grad, self.shape, self.state
        run_blocks(kernels.advance, n_outputs, block, self.problem.n_threads, *arrays)
        return self.state.status != kernels.DONE

    def part(self, chosen):
        """Some of the outputs, to go on with."""
        other = copy.copy(self)
        other.problem = self.problem.of_outputs(chosen)
        other.shape = self.shape._replace(curvature=self.shape.curvature[chosen])
        other.state = kernels.State(*(array[chosen] for array in self.state))
        other.trial, other.grad = self.trial[chosen], self.grad[chosen]
        return other


def _joined(problem, by_output):
    """A vector of parameters from coefficients and intercepts (K, d + 1)."""
    return problem.join(by_output[:, :-1], by_output[:, -1])


def minimize_outputs(problem, values, *, l2, max_iter, tol, on_iteration):
    """``minimize_lbfgs`` for a loss whose outputs are independent: each goes its own way, and stops at its optimum.

    ``on_iteration`` sees the lowest objective so far, and the points at which the outputs look at the moment.
    """
    work = _Outputs(problem, values, l2, tol)
    where, trial = np.arange(problem.n_outputs), work.trial.copy()
    settled, best, is_stopped = 0.0, np.inf, False
    with blas_limited():
        for n_done in range(max_iter + 1):
            loss, values = work.evaluate()
            best, trial[where] = min(best, settled + loss), work.trial
            is_stopped = n_done > 0 and on_iteration(
                best, values if len(where) == len(trial) else _joined(problem, trial)
            )
            is_active = work.advance()
            if is_stopped or not is_active.any():
                break
            if is_active.sum() <= _FEW * len(is_active):
                settled += work.objective(~is_active)
                trial[where] = work.trial
                where, work = where[is_active], work.part(is_active)
    trial[where] = work.points()
    is_done = is_stopped or not is_active.any()
    return _joined(problem, trial), None if is_done else f"lbfgs stopped early after {max_iter} iterations. {_CURE}"


def minimize_absolute(problem, values, *, l2, max_iter, tol, on_iteration):
    """``minimize_lbfgs`` for the absolute error, which has corners: over Huber's loss for ever smaller ``delta``.

    Divided by ``delta``, Huber's loss is less than the absolute error by at most ``delta / 2``.
    """
    n_done, is_stopped, trouble = 0, False, None

    def watch(_, values):
        nonlocal n_done, is_stopped
        coef = values[: problem.n_coef]
        n_done += 1
        penalty = 0.5 * l2 * np.einsum("i,i", coef, coef, dtype=np.float64)
        is_stopped = on_iteration(problem.loss(values) + penalty, values)
        return is_stopped

    for delta in _DELTAS:
        options = {"l2": delta * l2, "max_iter": max_iter - n_done, "tol": delta * tol, "on_iteration": watch}
        values, trouble = minimize_lbfgs(problem.with_huber(delta), values, **options)
        if is_stopped or n_done >= max_iter:
            break
    return values, trouble
