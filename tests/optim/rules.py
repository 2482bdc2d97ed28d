"""The rules of the optimizers in plain NumPy, float64, as the formulas read: ``rule(w, g, state, rate, step)``."""

import numpy as np


def sgd(w, g, state, rate, step, *, momentum=0.0, nesterov=False, weight_decay=0.0):
    g = g + weight_decay * w
    v = momentum * (0 if state is None else state) + g
    return w - rate * (g + momentum * v if nesterov else v), v


def adagrad(w, g, state, rate, step, *, initial_accumulator_value=0.0, epsilon=1e-10, weight_decay=0.0):
    g = g + weight_decay * w
    s = (initial_accumulator_value if state is None else state) + g**2
    return w - rate * g / (np.sqrt(s) + epsilon), s


def rmsprop(w, g, state, rate, step, *, rho=0.99, momentum=0.0, epsilon=1e-8, weight_decay=0.0):
    g = g + weight_decay * w
    v, s = (0, 0) if state is None else state
    s = rho * s + (1 - rho) * g**2
    v = momentum * v + g / (np.sqrt(s) + epsilon)
    return w - rate * v, (v, s)


def adam(w, g, state, rate, step, *, beta_1=0.9, beta_2=0.999, epsilon=1e-8, weight_decay=0.0):
    g = g + weight_decay * w
    m, v = (0, 0) if state is None else state
    m, v = beta_1 * m + (1 - beta_1) * g, beta_2 * v + (1 - beta_2) * g**2
    m_hat, v_hat = m / (1 - beta_1**step), v / (1 - beta_2**step)
    return w - rate * m_hat / (np.sqrt(v_hat) + epsilon), (m, v)


def adamw(w, g, state, rate, step, *, weight_decay=1e-2, **settings):
    return adam(w - rate * weight_decay * w, g, state, rate, step, **settings)


def clip(grads, max_grad_norm=None):
    norm = np.sqrt(sum((g**2).sum() for g in grads))
    return grads if max_grad_norm is None or norm <= max_grad_norm else [g * max_grad_norm / norm for g in grads]
