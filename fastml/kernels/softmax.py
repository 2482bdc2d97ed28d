"""Softmax, log-sum-exp and softmax cross-entropy, a row at a time while the row lies in the core's cache.

With ``shift = (z - max z) * beta``, ``beta`` one over the temperature and ``total = sum exp shift``::

    p           = exp(shift) / total
    log_sum_exp = max z * beta + log total
    loss        = w (m log total - sum_c t_c shift_c),          m = sum_c t_c
    d loss / dz = w beta (m p - t)

``t`` is the target after smoothing: ``(1 - s) t + s / n_open`` on the classes that are open (whose logit is
not -inf) and 0 on the others. A target on a masked class gives an infinite loss; a NaN, a logit of +inf, or a row
without an open class give NaN: the floor above finds bad logits by looking at the losses.

Any output may be its input. A row is read once: chunk after chunk is copied to the output and exponentiated there,
relative to the maximum so far, while it lies in the first-level cache; what the maximum grew by afterwards is made
good when the row is scaled (the online normalizer of Milakov & Gimelshein, arXiv:1805.02867). With few classes a row
does not fill a vector, so the ``narrow_`` twins turn ``_LANES`` rows at a time on their side and run across rows.
"""

import math

import numpy as np
from numba import types

from fastml.kernels._jit import exact_point, kernel, point, twin
from fastml.kernels._math import _exp_polynomial, _pick, log, maximum, row_max

_CHUNK = 1024  # classes at a time, in and out within half of the first-level cache
_LANES = 64  # rows in a tile: enough that the vector loads come long after the single stores that they read
_STEP = 16  # rows turned at once, so that both sides of the transposition are contiguous for the compiler
_LOWEST = float(np.finfo(np.float32).min), float(np.finfo(np.float64).min)  # finite: -inf - -inf is NaN


def _two_to(n):
    """Two to the integer n - 1.5 * 2^mantissa - bias: its last bits become the exponent."""
    integer, mantissa = (np.int32, 23) if isinstance(n, np.float32) else (np.int64, 52)
    return integer(n.view(integer) << integer(mantissa)).view(type(n))


@twin(_two_to)
def _compiled_two_to(n):  # pragma: no cover - compile time
    if n == types.float32:
        return lambda n: np.int32(np.float32(n).view(np.int32) << np.int32(23)).view(np.float32)
    return lambda n: np.int64(np.float64(n).view(np.int64) << np.int64(52)).view(np.float64)


@exact_point
def _exp(x):
    """e to the x for x <= 0, with zero in the place of subnormal results: faster than the exp of all numbers."""
    real = type(x)
    magic = _pick(x, 1.5 * 2**23 + 127, 1.5 * 2**52 + 1023)
    shifted = x * real(1 / math.log(2)) + magic
    n = shifted - magic
    r = x - n * _pick(x, 0.693145751953125, 0.693147180559663)
    r = r - n * _pick(x, 1.4286068e-06, 2.8235290563031577e-13)
    return real(0) if x < _pick(x, -87.0, -708.0) else _exp_polynomial(r) * _two_to(shifted)


# ---------------------------------------------------------------------------------------------- pieces of a row


@point
def _sum_exp(z, top, beta):
    """Sum of ``exp((z - top) beta)``."""
    total = z.dtype.type(0)
    for j in range(z.shape[0]):
        total += _exp((z[j] - top) * beta)
    return total


@point
def _copy_max(z, out):
    """``out = z``; returns the maximum."""
    top = z[0]
    for j in range(z.shape[0]):
        out[j] = z[j]
        top = maximum(top, z[j])
    return top


@point
def _start_row(z, out):
    """``out = z``; returns the maximum. From here on the one row is worked on in place.

    That needs half the cache, and a loop over two rows that may be the same memory does not vectorise.
    """
    return row_max(out) if z.ctypes.data == out.ctypes.data else _copy_max(z, out)


@point
def _exp_shifted(x, top, beta):
    """``x = exp((x - top) beta)``; returns its sum."""
    total = x.dtype.type(0)
    for j in range(x.shape[0]):
        x[j] = _exp((x[j] - top) * beta)
        total += x[j]
    return total


@point
def _exp_into(z, top, beta, out):
    """``out = exp((z - top) beta)`` in other memory; returns its sum."""
    total = z.dtype.type(0)
    for j in range(z.shape[0]):
        e = _exp((z[j] - top) * beta)
        out[j] = e
        total += e
    return total


@point
def _exp_row(z, label, beta, out, tops):
    """``out = exp((z - tops[k]) beta)`` in chunk k; returns the maximum, the sum relative to it, and ``z[label]``."""
    top, total, wanted = _pick(z[0], _LOWEST[0], _LOWEST[1]), z.dtype.type(0), z.dtype.type(0)
    same = z.ctypes.data == out.ctypes.data
    for k in range(tops.shape[0]):
        start, stop = k * _CHUNK, min(k * _CHUNK + _CHUNK, z.shape[0])
        source, part = z[start:stop], out[start:stop]
        grown = maximum(top, row_max(source))
        if start <= label < stop:  # here, as a read before the row is in the cache would wait for the memory
            wanted = source[label - start]
        chunk_total = _exp_shifted(part, grown, beta) if same else _exp_into(source, grown, beta, part)
        total = total * _exp((top - grown) * beta) + chunk_total
        tops[k] = top = grown
    return top, total, wanted


@point
def _scale_row(x, factor, top, beta, tops):
    """``x *= factor`` for a row of ``_exp_row``, whose chunks know the maximum up to them."""
    for k in range(tops.shape[0]):
        _scale(x[k * _CHUNK : min(k * _CHUNK + _CHUNK, x.shape[0])], factor * _exp((tops[k] - top) * beta))


@point
def _sum_row(z, beta):
    """Maximum of ``z``, and the sum of ``exp((z - maximum) beta)``."""
    top, total = _pick(z[0], _LOWEST[0], _LOWEST[1]), z.dtype.type(0)
    for start in range(0, z.shape[0], _CHUNK):
        part = z[start : min(start + _CHUNK, z.shape[0])]
        grown = maximum(top, row_max(part))
        total = total * _exp((top - grown) * beta) + _sum_exp(part, grown, beta)
        top = grown
    return top, total


@point
def _exp_marked(x, top, beta):
    """As ``_exp_shifted`` with -1 on masked classes: an exponential that underflowed is zero as well, but open."""
    total, masked, mark = x.dtype.type(0), x.dtype.type(-np.inf), x.dtype.type(-1)
    for j in range(x.shape[0]):
        e = _exp((x[j] - top) * beta)
        x[j] = e if x[j] > masked else mark
        total += e
    return total


@point
def _mean_shift(z, top, beta):
    """Mean of ``(z - top) beta`` over the open classes, and how many they are."""
    total, zero, masked = z.dtype.type(0), z.dtype.type(0), z.dtype.type(-np.inf)
    n_open = 0
    for j in range(z.shape[0]):
        shift = (z[j] - top) * beta
        total += shift if z[j] > masked else zero
    for j in range(z.shape[0]):  # apart, since a loop with both sums does not vectorise
        n_open += z[j] > masked
    return total / z.dtype.type(n_open), z.dtype.type(n_open)


@point
def _expected_shift(z, t, top, beta):
    """``sum t (z - top) beta`` and ``sum t``; a class without mass counts for nothing even where it is masked."""
    total, mass, zero = z.dtype.type(0), z.dtype.type(0), z.dtype.type(0)
    for j in range(z.shape[0]):
        part = t[j] * ((z[j] - top) * beta)
        total += part if t[j] > zero else zero
        mass += t[j]
    return total, mass


@point
def _scale(x, factor):
    """``x *= factor``."""
    for j in range(x.shape[0]):
        x[j] *= factor


@point
def _scale_open(x, factor, minus):
    """``x = factor x - minus`` on open classes, 0 on marked ones."""
    zero = x.dtype.type(0)
    for j in range(x.shape[0]):
        x[j] = factor * x[j] - minus if x[j] >= zero else zero


# ---------------------------------------------------------------------------------------------- whole rows


@kernel
def log_sum_exp(start, stop, logits, beta, lse):
    """``lse`` (n,) of ``logits`` (n, C) times ``beta``."""
    for i in range(start, stop):
        top, total = _sum_row(logits[i], beta)
        lse[i] = top * beta + log(total)


@kernel
def softmax(start, stop, logits, beta, out, lse):
    """Probabilities ``out`` (n, C) and log-sum-exp ``lse`` (n,)."""
    tops, one = np.empty(-(-logits.shape[1] // _CHUNK), logits.dtype), logits.dtype.type(1)
    for i in range(start, stop):
        top, total, _ = _exp_row(logits[i], -1, beta, out[i], tops)
        _scale_row(out[i], one / total, top, beta, tops)
        lse[i] = top * beta + log(total)


@kernel
def log_softmax(start, stop, logits, beta, out, lse):
    """Log-probabilities ``out`` (n, C) and log-sum-exp ``lse`` (n,)."""
    for i in range(start, stop):
        z, p = logits[i], out[i]
        top, total = _sum_row(z, beta)
        log_total = log(total)
        lse[i] = top * beta + log_total
        for j in range(z.shape[0]):
            p[j] = (z[j] - top) * beta - log_total


@kernel
def cross_entropy(start, stop, logits, y, weight, smoothing, beta, loss):
    """``loss`` (n,) of labels ``y`` (n,)."""
    for i in range(start, stop):
        z = logits[i]
        top, total = _sum_row(z, beta)
        wanted = (z[y[i]] - top) * beta
        if smoothing > 0:
            mean, _ = _mean_shift(z, top, beta)
            wanted += smoothing * (mean - wanted)
        loss[i] = weight[i] * (log(total) - wanted)


@point
def _smoothed_row(z, label, w, smoothing, beta, g):
    """Loss and gradient of one row whose label is smoothed."""
    top = _start_row(z, g)
    mean, n_open = _mean_shift(g, top, beta)
    wanted = (g[label] - top) * beta
    total = _exp_marked(g, top, beta)
    _scale_open(g, w * beta / total, w * beta * smoothing / n_open)
    g[label] -= w * beta - w * beta * smoothing
    return w * (log(total) - wanted - smoothing * (mean - wanted))


@kernel
def cross_entropy_grad(start, stop, logits, y, weight, smoothing, beta, loss, grad):
    """``loss`` (n,) of labels ``y`` (n,) and its gradient ``grad`` (n, C)."""
    tops = np.empty(-(-logits.shape[1] // _CHUNK), logits.dtype)
    for i in range(start, stop):
        z, g, w = logits[i], grad[i], weight[i]
        if smoothing > 0:
            loss[i] = _smoothed_row(z, y[i], w, smoothing, beta, g)
        else:
            top, total, wanted = _exp_row(z, y[i], beta, g, tops)
            _scale_row(g, w * beta / total, top, beta, tops)
            g[y[i]] -= w * beta
            loss[i] = w * (log(total) - (wanted - top) * beta)


@kernel
def soft_cross_entropy(start, stop, logits, target, weight, smoothing, beta, loss):
    """``loss`` (n,) of probabilities ``target`` (n, C)."""
    for i in range(start, stop):
        z, t = logits[i], target[i]
        top = row_max(z)
        wanted, mass = _expected_shift(z, t, top, beta)
        if smoothing > 0:
            mean, _ = _mean_shift(z, top, beta)
            wanted += smoothing * (mean - wanted)
            mass += smoothing - smoothing * mass
        loss[i] = weight[i] * (mass * log(_sum_exp(z, top, beta)) - wanted)


@kernel
def soft_cross_entropy_grad(start, stop, logits, target, weight, smoothing, beta, loss, grad):
    """``loss`` (n,) of probabilities ``target`` (n, C) and its gradient ``grad`` (n, C)."""
    for i in range(start, stop):
        z, t, g, w = logits[i], target[i], grad[i], weight[i]
        top = _start_row(z, g)
        wanted, mass = _expected_shift(g, t, top, beta)
        mean, n_open = _mean_shift(g, top, beta)
        wanted += smoothing * (mean - wanted)
        mass += smoothing - smoothing * mass
        total = _exp_marked(g, top, beta)
        loss[i] = w * (mass * log(total) - wanted)
        _scale_open(g, w * beta * mass / total, w * beta * smoothing / n_open)
        hit = w * beta - w * beta * smoothing
        for j in range(g.shape[0]):
            g[j] -= hit * t[j]


# ---------------------------------------------------------------------------------------------- rows on their side


@point
def _load_tile(rows, tile):
    """``tile[:, :m] = rows.T`` of ``rows`` (m, C); lanes beyond m keep what they hold."""
    m, n_classes = rows.shape
    whole = m - m % _STEP
    for r in range(0, whole, _STEP):
        for c in range(n_classes):
            lane = tile[c]
            for k in range(_STEP):
                lane[r + k] = rows[r + k, c]
    for r in range(whole, m):
        for c in range(n_classes):
            tile[c, r] = rows[r, c]


@point
def _store_tile(tile, factor, rows):
    """``rows = (tile[:, :m] * factor[:m]).T`` into ``rows`` (m, C)."""
    m, n_classes = rows.shape
    whole = m - m % _STEP
    for r in range(0, whole, _STEP):
        for c in range(n_classes):
            lane = tile[c]
            for k in range(_STEP):
                rows[r + k, c] = lane[r + k] * factor[r + k]
    for r in range(whole, m):
        for c in range(n_classes):
            rows[r, c] = tile[c, r] * factor[r]


@point
def _exp_tile(tile, beta, top, total):
    """``tile = exp((tile - top) beta)`` with the maximum ``top`` and the sum ``total`` of each lane."""
    for r in range(_LANES):
        top[r] = tile[0, r]
        total[r] = 0
    for c in range(1, tile.shape[0]):
        lane = tile[c]
        for r in range(_LANES):
            top[r] = lane[r] if lane[r] > top[r] else top[r]
    for c in range(tile.shape[0]):
        lane = tile[c]
        for r in range(_LANES):
            e = _exp((lane[r] - top[r]) * beta)
            lane[r] = e
            total[r] += e


@point
def _lanes(logits):
    """A tile (C, _LANES) and two rows of lanes, zeroed so that lanes without a row stay harmless."""
    n_classes, dtype = logits.shape[1], logits.dtype
    return np.zeros((n_classes, _LANES), dtype), np.zeros(_LANES, dtype), np.zeros(_LANES, dtype)


@point
def _log_sums(top, total, beta, lse):
    """``lse`` (m,) of the first m lanes; ``total`` becomes its logarithm."""
    for r in range(_LANES):
        total[r] = log(total[r])
    for r in range(lse.shape[0]):
        lse[r] = top[r] * beta + total[r]


@point
def _losses(logits, y, weight, beta, top, total, loss):
    """``loss`` (m,) of the first m lanes; ``top`` is used up."""
    for r in range(loss.shape[0]):
        top[r] = (logits[r, y[r]] - top[r]) * beta
    for r in range(_LANES):
        top[r] = log(total[r]) - top[r]
    for r in range(loss.shape[0]):
        loss[r] = weight[r] * top[r]


@kernel
def narrow_log_sum_exp(start, stop, logits, beta, lse):
    """As ``log_sum_exp``, for few classes."""
    tile, top, total = _lanes(logits)
    for i in range(start, stop, _LANES):
        end = min(i + _LANES, stop)
        _load_tile(logits[i:end], tile)
        _exp_tile(tile, beta, top, total)
        _log_sums(top, total, beta, lse[i:end])


@kernel
def narrow_softmax(start, stop, logits, beta, out, lse):
    """As ``softmax``, for few classes."""
    tile, top, total = _lanes(logits)
    factor, one = np.zeros(_LANES, logits.dtype), logits.dtype.type(1)
    for i in range(start, stop, _LANES):
        end = min(i + _LANES, stop)
        _load_tile(logits[i:end], tile)
        _exp_tile(tile, beta, top, total)
        for r in range(_LANES):
            factor[r] = one / total[r]
        _log_sums(top, total, beta, lse[i:end])
        _store_tile(tile, factor, out[i:end])


@kernel
def narrow_log_softmax(start, stop, logits, beta, out, lse):
    """As ``log_softmax``, for few classes."""
    tile, top, total = _lanes(logits)
    for i in range(start, stop, _LANES):
        end = min(i + _LANES, stop)
        _load_tile(logits[i:end], tile)
        _exp_tile(tile, beta, top, total)
        _log_sums(top, total, beta, lse[i:end])
        for r in range(end - i):
            z, p = logits[i + r], out[i + r]
            for c in range(z.shape[0]):
                p[c] = (z[c] - top[r]) * beta - total[r]


@kernel
def narrow_cross_entropy(start, stop, logits, y, weight, beta, loss):
    """As ``cross_entropy`` without smoothing, for few classes."""
    tile, top, total = _lanes(logits)
    for i in range(start, stop, _LANES):
        end = min(i + _LANES, stop)
        _load_tile(logits[i:end], tile)
        _exp_tile(tile, beta, top, total)
        _losses(logits[i:end], y[i:end], weight[i:end], beta, top, total, loss[i:end])


@kernel
def narrow_cross_entropy_grad(start, stop, logits, y, weight, beta, loss, grad):
    """As ``cross_entropy_grad`` without smoothing, for few classes."""
    tile, top, total = _lanes(logits)
    hit = np.zeros(_LANES, logits.dtype)
    for i in range(start, stop, _LANES):
        end = min(i + _LANES, stop)
        _load_tile(logits[i:end], tile)
        _exp_tile(tile, beta, top, total)
        _losses(logits[i:end], y[i:end], weight[i:end], beta, top, total, loss[i:end])
        for r in range(end - i):
            hit[r] = weight[i + r] * beta
        for r in range(_LANES):
            total[r] = hit[r] / total[r]
        _store_tile(tile, total, grad[i:end])
        for r in range(end - i):
            grad[i + r, y[i + r]] -= hit[r]
