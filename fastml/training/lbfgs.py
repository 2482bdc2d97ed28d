"""SciPy's L-BFGS over a ``SoftmaxProblem``, in coordinates where features are centred and scaled."""

import numpy as np
from scipy.optimize import minimize

from fastml.runtime import blas_limited

_MANY_PARAMETERS = 200_000  # from here SciPy's own vector work outweighs a pass over the rows: keep fewer vectors
_CURE = "Raise max_iter, or scale the features (for example with StandardScaler)."


class _Coordinates:
    """A change of variables that makes the problem round, which takes far fewer iterations.

    With ``U = W * scale`` and ``c = (b + W @ mean) * b_scale`` the logits are those of features centred and divided by
    ``scale``; the rows stay as they are (sparse ones are not centred). The scales are the roots of the diagonal of
    the Hessian at coefficients of 0, so the penalty, which stays one of ``W``, is part of them.
    """

    def __init__(self, problem, l2):
        self.problem = problem
        with np.errstate(over="ignore", invalid="ignore"):
            mean, square = problem.feature_moments()
            mean = np.zeros_like(mean) if problem.is_sparse or not problem.fit_intercept else mean
            curvature = (1 - 1 / problem.n_classes) / problem.n_classes
            scale = np.sqrt(np.maximum(square - mean**2, 0) * curvature + l2)
        scale[(scale == 0) | ~np.isfinite(scale)] = 1
        across = (-1, 1) if problem.is_sparse else (1, -1)
        self.mean, self.scale, self.b_scale = mean.reshape(across), scale.reshape(across), np.sqrt(curvature)

    def from_values(self, values):
        """The float64 vector that SciPy works on."""
        x = values.astype(np.float64)
        coef, intercept = self.problem.split(x)
        intercept[...] = (intercept + self._at_mean(coef)) * self.b_scale
        coef *= self.scale
        return x

    def to_values(self, x, out):
        """Parameters in the dtype of the rows."""
        coef, intercept = self.problem.split(out)
        U, c = self.problem.split(x)
        np.divide(U, self.scale, out=coef, casting="same_kind")
        intercept[...] = c / self.b_scale - self._at_mean(coef)
        return out

    def grad(self, grad):
        """The gradient with respect to SciPy's vector."""
        out = np.empty(grad.size)
        coef, intercept = self.problem.split(grad)
        U, c = self.problem.split(out)
        np.divide(intercept, self.b_scale, out=c)
        if self.problem.is_sparse:
            np.divide(coef, self.scale, out=U)
        else:
            np.subtract(coef, np.multiply.outer(intercept, self.mean[0]), out=U)
            U /= self.scale
        return out

    def _at_mean(self, coef):
        return 0.0 if self.problem.is_sparse else coef @ self.mean[0]


def minimize_lbfgs(problem, values, *, l2, max_iter, tol, on_iteration):
    """Minimise mean loss plus ``l2 / 2 |coef|^2`` from ``values``, until no entry of its gradient exceeds ``tol``.

    Rare features have small gradients far from the optimum: in the scaled coordinates none may exceed ``10 tol``.
    ``on_iteration(loss, values)`` sees each iterate and may return True to stop. Returns the values and a
    sentence that says why the minimum was not reached, or None.
    """
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

    single = problem.dtype == np.float32
    options = {
        "maxiter": max_iter,
        "maxfun": 50 * max_iter + 50,
        "maxls": 50,
        "maxcor": 4 if values.size > _MANY_PARAMETERS else 10,
        "gtol": 0.0,
        "ftol": 1e-10 if single else 64 * np.finfo(np.float64).eps,  # below, a mean of losses is rounding
    }
    with blas_limited():
        start = coordinates.from_values(values)
        result = minimize(objective, start, method="L-BFGS-B", jac=True, callback=callback, options=options)
    coordinates.to_values(result.x, out=values)
    is_done = result.status in (0, 99) or (single and is_flat(1e-4))
    return values, None if is_done else f"lbfgs stopped early: {result.message} {_CURE}"
