"""The update rules of the optimizers, on one array: a single pass over parameters, gradient and moments.

``hyper`` is (momentum or beta_1, beta_2, epsilon, nesterov, weight_decay). The L1 penalty is a proximal step in
the metric of the rule: a coordinate's threshold is ``l1`` times its effective step, so that real zeros appear
where the optimum has them.
"""

import math

import numpy as np

from fastml.kernels._jit import point

SGD, ADAM = 0, 1  # what ``rule`` may be


@point
def shrink(w, threshold):
    """Towards zero by ``threshold``, and not beyond."""
    return math.copysign(max(abs(w) - threshold, w - w), w)


@point
def sgd(w, g, velocity, rate, hyper, l1, factor):
    """Gradient descent with (Nesterov) momentum: Sutskever et al. 2013, in PyTorch's form."""
    momentum, nesterov, weight_decay = hyper[0], hyper[3], hyper[4]
    rate = w.dtype.type(rate)
    threshold = rate * l1 / (1 - momentum)
    for i in range(w.shape[0]):
        step = factor * g[i] + weight_decay * w[i]
        if velocity.shape[0] > 0:
            velocity[i] = momentum * velocity[i] + step
            step = velocity[i] + nesterov * (step + (momentum - 1) * velocity[i])
        w[i] -= rate * step
    if l1 > 0:
        for i in range(w.shape[0]):
            w[i] = shrink(w[i], threshold)


@point
def adam(w, g, mean, square, rate, step, hyper, l1, factor):
    """Adam with bias correction: Kingma and Ba 2015, algorithm 1."""
    beta_1, beta_2, epsilon, weight_decay = hyper[0], hyper[1], hyper[2], hyper[4]
    kind = w.dtype.type
    rate_1 = kind(rate / (1 - np.float64(beta_1) ** step))
    root_2 = kind(1 / math.sqrt(1 - np.float64(beta_2) ** step))
    for i in range(w.shape[0]):
        gradient = factor * g[i] + weight_decay * w[i]
        mean[i] = beta_1 * mean[i] + (1 - beta_1) * gradient
        square[i] = beta_2 * square[i] + (1 - beta_2) * gradient * gradient
        w[i] -= rate_1 * mean[i] / (math.sqrt(square[i]) * root_2 + epsilon)
    if l1 > 0:
        threshold = kind(rate) * l1
        for i in range(w.shape[0]):
            w[i] = shrink(w[i], threshold / (math.sqrt(square[i]) * root_2 + epsilon))


@point
def apply_rule(rule, w, g, first, second, rate, step, hyper, l1, factor):
    """One update of ``w`` by ``factor`` times ``g``; ``step`` counts from 1, unused moments are empty."""
    if rule == SGD:
        sgd(w, g, first, rate, hyper, l1, factor)
    else:
        adam(w, g, first, second, rate, step, hyper, l1, factor)
