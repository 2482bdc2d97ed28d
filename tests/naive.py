"""Every quantity of the library, defined once in plain NumPy and float64: no blocks, no tricks, no checks.

Where a definition has choices, this file is where they are made.
"""

import numpy as np
import scipy.sparse


def _dense(array):
    """A float64 array; CSR is filled in."""
    return np.asarray(array.toarray() if scipy.sparse.issparse(array) else array, dtype=np.float64)


def _weights(sample_weight, n_rows):
    return np.ones(n_rows) if sample_weight is None else _dense(sample_weight)


# ---------------------------------------------------------------------------------------------- softmax


def log_sum_exp(logits):
    """log sum_c exp(z_c) of each row."""
    z = _dense(logits)
    top = z.max(axis=1)
    return top + np.log(np.exp(z - top[:, None]).sum(axis=1))


def log_softmax(logits, temperature=1.0):
    """log p_c = z_c / T - log sum exp(z / T)."""
    z = _dense(logits) / temperature
    return z - log_sum_exp(z)[:, None]


def softmax(logits, temperature=1.0):
    """p_c = exp(z_c / T) / sum exp(z / T); 0 for a masked class (z = -inf)."""
    return np.exp(log_softmax(logits, temperature))


def smoothed_target(logits, target, label_smoothing=0.0):
    """(1 - s) t + s / (number of unmasked classes) on unmasked classes, for labels or probabilities t."""
    unmasked = ~np.isneginf(_dense(logits))
    target = np.asarray(target)
    t = (target[:, None] == np.arange(unmasked.shape[1])) * 1.0 if target.ndim == 1 else _dense(target)
    return (1 - label_smoothing) * t + label_smoothing * unmasked / unmasked.sum(axis=1, keepdims=True)


def softmax_cross_entropy(logits, target, sample_weight=None, label_smoothing=0.0, temperature=1.0):
    """w_i times - sum_c t_c log p_c; a class without target mass counts for nothing."""
    t = smoothed_target(logits, target, label_smoothing)
    log_p = np.where(t > 0, log_softmax(logits, temperature), 0.0)
    return _weights(sample_weight, len(t)) * -(t * log_p).sum(axis=1)


def softmax_cross_entropy_grad(logits, target, sample_weight=None, label_smoothing=0.0, temperature=1.0):
    """Gradient of the sum of the losses: w_i / T (p sum_c t_c - t)."""
    t = smoothed_target(logits, target, label_smoothing)
    w = _weights(sample_weight, len(t))[:, None]
    return w / temperature * (softmax(logits, temperature) * t.sum(axis=1, keepdims=True) - t)


def _linear(X, W, b):
    return _dense(X) @ _dense(W).T + (0 if b is None else _dense(b))


def linear_softmax_cross_entropy(X, W, b, target, **options):
    """softmax_cross_entropy of the logits X W' + b."""
    return softmax_cross_entropy(_linear(X, W, b), target, **options)


def linear_softmax_cross_entropy_grad(X, W, b, target, **options):
    """Gradients of the sum of the losses with respect to X, W and b (None without a b)."""
    g = softmax_cross_entropy_grad(_linear(X, W, b), target, **options)
    return g @ _dense(W), g.T @ _dense(X), None if b is None else g.sum(axis=0)


# ---------------------------------------------------------------------------------------------- tools


def finite_differences(function, x, step=1e-6):
    """Gradient of a scalar function of the float64 array ``x`` by central differences."""
    gradient = np.empty_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        gradient[i] = (function(up) - function(down)) / (2 * step)
    return gradient
