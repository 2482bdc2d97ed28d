"""SciPy's L-BFGS over a ``SoftmaxProblem``."""

import numpy as np
from scipy.optimize import minimize

from fastml.runtime import blas_limited


def minimize_lbfgs(problem, values, *, l2, max_iter, tol, on_iteration):
    """Minimise mean loss plus ``l2 / 2 |coef|^2`` from ``values``.

    ``on_iteration(loss, values)`` sees each iterate and may return True to stop. Returns the values and a
    sentence that says why the minimum was not reached, or None.
    """
    grad, point = np.empty_like(values), np.empty_like(values)

    def objective(x):
        point[...] = x  # SciPy works in float64, the kernels in the dtype of X
        loss = problem.loss_grad(point, grad)
        coef = point[: problem.n_coef]
        grad[: problem.n_coef] += problem.dtype.type(l2) * coef
        return loss + 0.5 * l2 * np.dot(coef, coef), grad.astype(np.float64)

    def callback(intermediate_result):
        if on_iteration(intermediate_result.fun, intermediate_result.x):
            raise StopIteration

    options = {"maxiter": max_iter, "maxfun": 50 * max_iter + 50, "maxls": 50, "gtol": tol}
    options["ftol"] = 64 * np.finfo(np.float64).eps
    with blas_limited():
        result = minimize(objective, values, method="L-BFGS-B", jac=True, callback=callback, options=options)
    trouble = None if result.status in (0, 99) or max_iter == 0 else f"lbfgs stopped early: {result.message}."
    return result.x.astype(problem.dtype), trouble
