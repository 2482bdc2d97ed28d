"""The update rules of the optimizers, on one array: a single pass over parameters, gradient and moments.

``hyper`` is (momentum or beta_1, beta_2 or rho, epsilon, nesterov, weight_decay). With the gradient g, weight decay
added to it (AdamW shrinks w instead: ``w *= 1 - rate * weight_decay``), and moments v (first) and s (second):

- SGD: ``v = momentum v + g``, ``w -= rate v``, or with Nesterov ``w -= rate (g + momentum v)``
  (Sutskever et al., ICML 2013, in PyTorch's form); without momentum there is no v;
- Adam: ``v = beta_1 v + (1 - beta_1) g``, ``s = beta_2 s + (1 - beta_2) g^2``, and at step t
  ``w -= rate v / (1 - beta_1^t) / (sqrt(s / (1 - beta_2^t)) + epsilon)`` (Kingma & Ba, ICLR 2015, algorithm 1);
- AdaGrad: ``s += g^2``, ``w -= rate g / (sqrt(s) + epsilon)`` (Duchi et al., JMLR 12, 2011);
- RMSProp: ``s = rho s + (1 - rho) g^2``, ``v = momentum v + g / (sqrt(s) + epsilon)``, ``w -= rate v``.

The L1 penalty is a proximal step in the metric of the rule: a coordinate's threshold is ``l1`` times its effective
step, so that real zeros appear where the optimum has them.
"""

import math

import numpy as np

from fastml.kernels._jit import point

SGD, ADAM, ADAMW, ADAGRAD, RMSPROP = range(5)  # what ``rule`` may be


@point
def shrink(w, threshold):
    """Towards zero by ``threshold``, and not beyond."""
    size = abs(w) - threshold
    return math.copysign(type(w)(0) if size < 0 else size, w)


@point
def coefficients(rule, rate, step, hyper, l1):
    """What the loops multiply by, in the precision of ``hyper``: once for all elements of a step."""
    real = hyper.dtype.type
    keep_1, keep_2, decay = hyper[0], hyper[1], hyper[4]
    add_2, root_2, kept = real(1) - keep_2, real(1), real(1)
    pull = rate / (1 - np.float64(keep_1))  # the way of a lasting gradient: momentum adds up
    if rule in (ADAM, ADAMW):
        pull = rate
        rate = rate / (1 - np.float64(keep_1) ** step)
        root_2 = real(1 / math.sqrt(1 - np.float64(keep_2) ** step))
    if rule == ADAMW:
        kept, decay = real(1 - pull * decay), real(0)
    if rule == ADAGRAD:
        add_2 = real(1)
    return (keep_1, keep_2, add_2, root_2, hyper[2]), (real(rate), decay, kept, hyper[3]), real(pull) * l1


@point
def descend(w, g, velocity, momentum, rates, factor):
    """SGD; without momentum ``velocity`` is empty."""
    rate, decay, _, nesterov = rates
    for i in range(w.shape[0]):
        step = factor * g[i] + decay * w[i]
        if velocity.shape[0] > 0:
            velocity[i] = momentum * velocity[i] + step
            step = velocity[i] + nesterov * (step + momentum * velocity[i] - velocity[i])
        w[i] -= rate * step


@point
def adam(w, g, mean, square, own, rates, factor):
    """Adam and AdamW; bias corrections are in ``rate`` and ``root_2``."""
    keep_1, keep_2, add_2, root_2, epsilon = own
    rate, decay, kept, _ = rates
    add_1 = w.dtype.type(1) - keep_1
    for i in range(w.shape[0]):
        gradient = factor * g[i] + decay * w[i]
        mean[i] = keep_1 * mean[i] + add_1 * gradient
        square[i] = keep_2 * square[i] + add_2 * (gradient * gradient)
        w[i] = kept * w[i] - rate * mean[i] / (math.sqrt(square[i]) * root_2 + epsilon)


@point
def adapt(w, g, velocity, square, own, rates, factor):
    """AdaGrad and RMSProp; without momentum ``velocity`` is empty."""
    momentum, keep_2, add_2, _, epsilon = own
    rate, decay = rates[0], rates[1]
    for i in range(w.shape[0]):
        gradient = factor * g[i] + decay * w[i]
        square[i] = keep_2 * square[i] + add_2 * (gradient * gradient)
        step = gradient / (math.sqrt(square[i]) + epsilon)
        if velocity.shape[0] > 0:
            velocity[i] = momentum * velocity[i] + step
            step = velocity[i]
        w[i] -= rate * step


@point
def take_step(rule, w, g, first, second, constants, factor):
    """One update of ``w`` by ``factor`` times ``g``, with what ``coefficients`` gave; unused moments are empty."""
    own, rates, threshold = constants
    if rule == SGD:
        descend(w, g, first, own[0], rates, factor)
    elif rule in (ADAM, ADAMW):
        adam(w, g, first, second, own, rates, factor)
    else:
        adapt(w, g, first, second, own, rates, factor)
    if threshold > 0:
        root_2, epsilon = own[3], own[4]
        for i in range(w.shape[0]):
            w[i] = shrink(w[i], threshold / (math.sqrt(second[i]) * root_2 + epsilon) if rule != SGD else threshold)


@point
def apply_rule(rule, w, g, first, second, rate, step, hyper, l1, factor):
    """One update of ``w`` by ``factor`` times ``g``; ``step`` counts from 1, unused moments are empty."""
    take_step(rule, w, g, first, second, coefficients(rule, rate, step, hyper, l1), factor)
