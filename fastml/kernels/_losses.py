"""Losses of one output: value and derivative with respect to the prediction or logit ``z``, for a target ``t``.

- binary cross-entropy of a logit, t in 0..1: ``log(1 + e^z) - t z`` and ``sigmoid(z) - t``, written so that nothing
  cancels where the logit is large and right;
- squared error ``(z - t)^2 / 2``, absolute error ``|z - t|`` (derivative 0 where it has none);
- Huber's loss (Annals of Mathematical Statistics 35, 1964): squared up to ``delta``, with slope ``delta`` beyond.
"""

from fastml.kernels._jit import exact_point
from fastml.kernels._math import exp, log1p


@exact_point
def binary_cross_entropy(z, t):
    """In nats, from a logit."""
    real = type(z)
    e = exp(-abs(z))
    share = e / (real(1) + e)
    side = real(1) - t if z > 0 else -t
    return side * z + log1p(e), side + (-share if z > 0 else share)


@exact_point
def squared_error(z, t):
    """Half the square of the residual."""
    r = z - t
    return type(z)(0.5) * r * r, r


@exact_point
def absolute_error(z, t):
    """Size of the residual."""
    real = type(z)
    r = z - t
    slope = real(1) if r > 0 else real(-1)
    return abs(r), real(0) if r == 0 else slope


@exact_point
def huber(z, t, delta):
    """Squared error up to ``delta``, and straight on from there."""
    r = z - t
    inner = min(max(r, -delta), delta)
    return inner * (r - type(z)(0.5) * inner), inner
