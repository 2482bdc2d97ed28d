"""Kullback-Leibler divergence of the softmax of logits from target probabilities, a row at a time.

With ``shift = (z - max z) * beta``, ``beta`` one over the temperature, ``total = sum exp shift``, m = sum t::

    log p       = shift - log total
    loss        = w sum_c t_c (log t_c - log p_c)
                = w (sum_c (t_c log(t_c / p_c) - t_c + p_c) + m - 1)
    d loss / dz = w beta (m p - t)

In the second form no term is negative, and where p is near t a term is small of second order: with q = p / t it is
t (q - 1 - log q), so that a divergence near zero is left when those of the first form have long cancelled. A class
without mass has the term p, masked (z = -inf) or not; in the first form it adds 0. What rounding leaves below zero is
zero. Mass on a masked class gives an infinite loss; a NaN, a logit of +inf, or a row without an open class give
NaN: the floor above finds bad logits by looking at the losses. The gradient may overwrite the logits.

With few classes a row does not fill a vector, so the ``narrow_`` twins run their loops over many rows at once.
"""

import numpy as np

from fastml.kernels._jit import exact_point, kernel, point
from fastml.kernels._math import exp, log, row_max

_RUN = 128  # terms that are summed in their own precision, which is faster, before the sum of all in double
_TILE = 1024  # elements of rows with few classes that are worked on at once


@point
def _sum_exp(z, top, beta):
    """Sum of ``exp((z - top) beta)``."""
    total = z.dtype.type(0)
    for j in range(z.shape[0]):
        total += exp((z[j] - top) * beta)
    return total


@point
def _sum(row):
    """Sum in double precision: the loss can be smaller than what single precision loses here."""
    total = 0.0
    for j in range(row.shape[0]):
        total += np.float64(row[j])
    return total


@exact_point
def _term(shift, log_total, t, p):
    """``t log(t / p) - t + p``, and p for a class without mass."""
    real = type(t)
    one, mass = real(1), t if t > real(0) else real(1)
    q = p / mass
    near = (q > real(0.5)) & (q < real(2))
    logarithm = log(q if near else mass)
    close = mass * ((q - one) - logarithm)
    far = mass * ((log_total + (logarithm - one)) - shift) + p
    term = close if near else far
    return term if t > real(0) else p


@point
def _value(terms, mass):
    """Loss from the sum of the terms; NaN stays NaN."""
    value = terms + (mass - 1.0)
    return 0.0 if value < 0.0 else value


@kernel
def kl_divergence(start, stop, logits, target, weight, beta, loss):
    """``loss`` (n,) of probabilities ``target`` (n, C)."""
    for i in range(start, stop):
        z, t = logits[i], target[i]
        top, terms = row_max(z), 0.0
        total = _sum_exp(z, top, beta)
        log_total, scale = log(total), z.dtype.type(1) / total
        for first in range(0, z.shape[0], _RUN):
            a, b, part = z[first : first + _RUN], t[first : first + _RUN], z.dtype.type(0)
            for j in range(a.shape[0]):
                shift = (a[j] - top) * beta
                part += _term(shift, log_total, b[j], exp(shift) * scale)
            terms += np.float64(part)
        loss[i] = weight[i] * z.dtype.type(_value(terms, _sum(t)))


@kernel
def kl_divergence_grad(start, stop, logits, target, weight, beta, loss, grad):
    """``loss`` (n,) of probabilities ``target`` (n, C) and its gradient ``grad`` (n, C)."""
    for i in range(start, stop):
        z, t, g, hit = logits[i], target[i], grad[i], weight[i] * beta
        top, terms, mass = row_max(z), 0.0, _sum(t)
        total, kept = _sum_exp(z, top, beta), hit * z.dtype.type(mass)
        log_total, scale = log(total), z.dtype.type(1) / total
        for first in range(0, z.shape[0], _RUN):
            a, b, c, part = z[first : first + _RUN], t[first : first + _RUN], g[first : first + _RUN], z.dtype.type(0)
            for j in range(a.shape[0]):
                shift = (a[j] - top) * beta
                p = exp(shift) * scale
                part += _term(shift, log_total, b[j], p)
                c[j] = kept * p - hit * b[j]
            terms += np.float64(part)
        loss[i] = weight[i] * z.dtype.type(_value(terms, mass))


# ---------------------------------------------------------------------------------------------- few classes


@point
def _narrow_terms(z, t, beta, scratch):
    """Terms and probabilities, flat, of the rows ``z`` and ``t``; elementary functions are taken of all at once."""
    size, n_classes, zero = z.size, z.shape[1], z.dtype.type(0)
    shift, log_total, p, terms = scratch[0, :size], scratch[1, :size], scratch[2, :size], scratch[3, :size]
    for r in range(z.shape[0]):
        row, part = z[r], shift[r * n_classes : (r + 1) * n_classes]
        top = row[0]
        for j in range(row.shape[0]):
            top = row[j] if not row[j] <= top else top
        for j in range(row.shape[0]):
            part[j] = (row[j] - top) * beta
    for j in range(size):
        p[j] = exp(shift[j])
    for r in range(z.shape[0]):
        row, part = p[r * n_classes : (r + 1) * n_classes], log_total[r * n_classes : (r + 1) * n_classes]
        sum_of_it = zero
        for j in range(row.shape[0]):
            sum_of_it += row[j]
        log_of_it, scale = log(sum_of_it), z.dtype.type(1) / sum_of_it
        for j in range(row.shape[0]):
            part[j] = log_of_it
            row[j] *= scale
    flat = t.reshape(-1)
    for j in range(size):
        terms[j] = _term(shift[j], log_total[j], flat[j], p[j])
    return terms, p


@kernel
def narrow_kl_divergence(start, stop, logits, target, weight, beta, loss):
    """As ``kl_divergence``, for few classes."""
    n_classes = logits.shape[1]
    n_rows = max(1, _TILE // n_classes)
    scratch = np.empty((4, n_rows * n_classes), logits.dtype)
    for i in range(start, stop, n_rows):
        end = min(i + n_rows, stop)
        terms, _ = _narrow_terms(logits[i:end], target[i:end], beta, scratch)
        for r in range(end - i):
            value = _value(_sum(terms[r * n_classes : (r + 1) * n_classes]), _sum(target[i + r]))
            loss[i + r] = weight[i + r] * logits.dtype.type(value)


@kernel
def narrow_kl_divergence_grad(start, stop, logits, target, weight, beta, loss, grad):
    """As ``kl_divergence_grad``, for few classes."""
    n_classes = logits.shape[1]
    n_rows = max(1, _TILE // n_classes)
    scratch = np.empty((4, n_rows * n_classes), logits.dtype)
    for i in range(start, stop, n_rows):
        end = min(i + n_rows, stop)
        terms, p = _narrow_terms(logits[i:end], target[i:end], beta, scratch)
        for r in range(end - i):
            row = slice(r * n_classes, (r + 1) * n_classes)
            t, g, q, hit = target[i + r], grad[i + r], p[row], weight[i + r] * beta
            mass = _sum(t)
            kept = hit * logits.dtype.type(mass)
            loss[i + r] = weight[i + r] * logits.dtype.type(_value(_sum(terms[row]), mass))
            for j in range(n_classes):
                g[j] = kept * q[j] - hit * t[j]
