"""Softmax, its logarithm, and the losses of its probabilities, with their gradients."""

from typing import NamedTuple

import numpy as np

from fastml.functional._memory import empty
from fastml.functional._validate import (
    check_floats,
    check_fraction,
    check_probabilities,
    check_sample_weight,
    check_target,
    check_temperature,
)
from fastml.kernels import divergence
from fastml.kernels import softmax as kernels
from fastml.runtime import run_blocks, thread_count

_NARROW = 32  # classes: up to here the kernels that turn rows on their side are faster
_NARROW_BLOCK = 2**16  # elements in a block: 100 microseconds of work
_LEAST_BLOCK, _MOST_BLOCK = 2**18, 2**20  # the same for wide rows; large blocks do not share memory pages
_AXES = ("n_samples", "n_classes")


class SoftmaxCrossEntropyGrad(NamedTuple):
    """Losses (n_samples,), and the gradient of their sum with respect to the logits (n_samples, n_classes)."""

    loss: np.ndarray
    logits: np.ndarray


def _run(kernel, logits, *args):
    """Run a kernel on all rows, in blocks that depend on the shape alone."""
    n_rows, n_classes = logits.shape
    elements = min(max(_LEAST_BLOCK, logits.size // 32), _MOST_BLOCK) if n_classes > _NARROW else _NARROW_BLOCK
    block = max(1, elements // n_classes)
    # Asking joblib for the number of threads takes as long as a small call.
    n_threads = thread_count() if n_rows > block else 1
    run_blocks(kernel, n_rows, block, n_threads, logits, *args)


def _check_logits(logits):
    """Logits as kernels take them; what they hold is looked at afterwards, in ``_check_result``."""
    return check_floats(logits, "logits", _AXES)


def _check_result(logits, result, target=None):
    """Raise if a bad logit made a row's ``result`` NaN or infinite.

    Looking at n results instead of n times C logits costs nothing, and no harm is done yet: outputs are fresh arrays.
    Logits so large that the result overflows are no error.
    """
    if np.isfinite(result).all():
        return
    for row in np.flatnonzero(~np.isfinite(result)):
        z = logits[row]
        if np.isnan(z).any() or z.max() == np.inf:
            bad = np.flatnonzero(~(z < np.inf))[0]
            raise ValueError(
                f"logits: expected numbers or -inf for a masked class, got {z[bad]} at ({row}, {bad}); "
                "a model that gives such logits has diverged."
            )
        if z.max() == -np.inf:
            raise ValueError(f"logits: row {row} has no finite entry; leave at least one class unmasked.")
        if target is not None:
            on_target = z[target[row]] if target.ndim == 1 else np.where(target[row] > 0, z, 0)
            if np.min(on_target) == -np.inf:
                raise ValueError(f"target: row {row}'s target class is masked (logit -inf); unmask it or drop the row.")


def _run_softmax(wide, narrow, logits, temperature):
    """Check, run one of the kernels that fill an array like the logits, return the array."""
    logits = _check_logits(logits)
    beta = check_temperature(temperature, logits.dtype)
    out, lse = empty(logits.shape, logits.dtype), np.empty(len(logits), logits.dtype)
    _run(narrow if logits.shape[1] <= _NARROW else wide, logits, beta, out, lse)
    _check_result(logits, lse)
    return out


def softmax(logits, *, temperature=1.0):
    """Probabilities ``exp(z / T) / sum(exp(z / T))`` of each row.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Scores. ``-inf`` masks a class, which then gets probability 0.
    temperature : float, default=1.0
        Above 1 flattens the probabilities, below 1 sharpens them.

    Returns
    -------
    probabilities : ndarray of shape (n_samples, n_classes)
        Float32 if ``logits`` is, float64 otherwise.

    Raises
    ------
    ValueError
        If logits have the wrong shape, are empty, NaN or +inf, if a row has no finite entry, or if the temperature
        is not a finite number above 0.
    TypeError
        If logits are not real numbers.

    References
    ----------
    J. Bridle, "Probabilistic Interpretation of Feedforward Classification Network Outputs", 1990.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.functional import softmax
    >>> softmax(np.log([[1.0, 1.0, 2.0]]))
    array([[0.25, 0.25, 0.5 ]])
    """
    return _run_softmax(kernels.softmax, kernels.narrow_softmax, logits, temperature)


def log_softmax(logits, *, temperature=1.0):
    """Logarithm of :func:`softmax`, without underflow.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Scores. ``-inf`` masks a class, which then gets ``-inf``.
    temperature : float, default=1.0
        Above 1 flattens the probabilities, below 1 sharpens them.

    Returns
    -------
    log_probabilities : ndarray of shape (n_samples, n_classes)
        In nats; float32 if ``logits`` is, float64 otherwise.

    Raises
    ------
    ValueError, TypeError
        As :func:`softmax`.

    References
    ----------
    P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax functions",
    IMA Journal of Numerical Analysis 41 (2021).

    Examples
    --------
    >>> from fastml.functional import log_softmax
    >>> log_softmax([[0.0, -2000.0]])
    array([[    0., -2000.]])
    """
    return _run_softmax(kernels.log_softmax, kernels.narrow_log_softmax, logits, temperature)


def log_sum_exp(logits):
    """``log(sum(exp(z)))`` of each row, without overflow.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Scores. ``-inf`` masks a class, which then counts for nothing.

    Returns
    -------
    log_sum_exp : ndarray of shape (n_samples,)
        In nats; float32 if ``logits`` is, float64 otherwise.

    Raises
    ------
    ValueError, TypeError
        As :func:`softmax`.

    References
    ----------
    P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax functions",
    IMA Journal of Numerical Analysis 41 (2021).

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.functional import log_sum_exp
    >>> np.exp(log_sum_exp(np.log([[1.0, 3.0], [2.0, 6.0]]))).round(6)
    array([4., 8.])
    """
    logits = _check_logits(logits)
    lse = np.empty(len(logits), logits.dtype)
    kernel = kernels.narrow_log_sum_exp if logits.shape[1] <= _NARROW else kernels.log_sum_exp
    _run(kernel, logits, logits.dtype.type(1), lse)
    _check_result(logits, lse)
    return lse


def _check_classification(logits, target, sample_weight, label_smoothing, temperature):
    """Arguments of a cross-entropy as its kernel takes them, with the scalars of that kernel as a tuple."""
    logits = _check_logits(logits)
    target = check_target(target, logits.shape, logits.dtype)
    weight = check_sample_weight(sample_weight, len(logits), logits.dtype)
    smoothing = check_fraction(label_smoothing, logits.dtype)
    beta = check_temperature(temperature, logits.dtype)
    narrow = target.ndim == 1 and not smoothing and logits.shape[1] <= _NARROW
    return logits, target, weight, (beta,) if narrow else (smoothing, beta)


def _pick(target, scalars, soft, wide, narrow):
    """The kernel for these arguments: narrow ones know no smoothing."""
    if target.ndim == 2:
        return soft
    return narrow if len(scalars) == 1 else wide


def softmax_cross_entropy(logits, target, *, sample_weight=None, label_smoothing=0.0, temperature=1.0):
    """Cross-entropy between targets and the softmax of logits, a value per row.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Scores. ``-inf`` masks a class.
    target : array-like of shape (n_samples,) or (n_samples, n_classes)
        Integer labels in 0..n_classes-1, or probabilities: not negative, with sum 1 in each row.
    sample_weight : array-like of shape (n_samples,), default=None
        Factors of the losses, not negative and not all zero. None stands for ones.
    label_smoothing : float in [0, 1), default=0.0
        Share of the target that is spread evenly over the classes that are not masked.
    temperature : float, default=1.0
        The logits are divided by it.

    Returns
    -------
    loss : ndarray of shape (n_samples,)
        In nats; float32 if ``logits`` is, float64 otherwise.

    Raises
    ------
    ValueError
        If logits have the wrong shape, are empty, NaN or +inf, if a row has no finite logit, if a target is out of
        range, masked or not a probability distribution, or if a weight or setting is out of range.
    TypeError
        If logits or weights are not real numbers or labels are not integers.

    See Also
    --------
    softmax_cross_entropy_grad : The same with the gradient, in one pass.

    References
    ----------
    C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016 (label smoothing).

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.functional import softmax_cross_entropy
    >>> logits = np.log([[1.0, 1.0, 2.0], [1.0, 2.0, 1.0]])
    >>> np.exp(-softmax_cross_entropy(logits, [2, 0])).round(6)
    array([0.5 , 0.25])
    """
    logits, target, weight, scalars = _check_classification(logits, target, sample_weight, label_smoothing, temperature)
    loss = np.empty(len(logits), logits.dtype)
    kernel = _pick(target, scalars, kernels.soft_cross_entropy, kernels.cross_entropy, kernels.narrow_cross_entropy)
    _run(kernel, logits, target, weight, *scalars, loss)
    _check_result(logits, loss, target)
    return loss


def softmax_cross_entropy_grad(logits, target, *, sample_weight=None, label_smoothing=0.0, temperature=1.0):
    """Losses of :func:`softmax_cross_entropy` and the gradient of their sum, in one pass over each row.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Scores. ``-inf`` masks a class, whose gradient is 0.
    target : array-like of shape (n_samples,) or (n_samples, n_classes)
        Integer labels in 0..n_classes-1, or probabilities: not negative, with sum 1 in each row.
    sample_weight : array-like of shape (n_samples,), default=None
        Factors of the losses and of their gradients, not negative and not all zero. None stands for ones.
    label_smoothing : float in [0, 1), default=0.0
        Share of the target that is spread evenly over the classes that are not masked.
    temperature : float, default=1.0
        The logits are divided by it.

    Returns
    -------
    loss : ndarray of shape (n_samples,)
        In nats; float32 if ``logits`` is, float64 otherwise.
    logits : ndarray of shape (n_samples, n_classes)
        Gradient of ``loss.sum()`` with respect to the logits, of the same type. The two are fields of a named tuple.

    Raises
    ------
    ValueError, TypeError
        As :func:`softmax_cross_entropy`.

    References
    ----------
    J. Bridle, "Probabilistic Interpretation of Feedforward Classification Network Outputs", 1990.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.functional import softmax_cross_entropy_grad
    >>> result = softmax_cross_entropy_grad(np.log([[1.0, 1.0, 2.0]]), [2])
    >>> result.logits
    array([[ 0.25,  0.25, -0.5 ]])
    >>> loss, gradient = result
    """
    logits, target, weight, scalars = _check_classification(logits, target, sample_weight, label_smoothing, temperature)
    loss, grad = np.empty(len(logits), logits.dtype), empty(logits.shape, logits.dtype)
    kernel = _pick(
        target, scalars, kernels.soft_cross_entropy_grad, kernels.cross_entropy_grad, kernels.narrow_cross_entropy_grad
    )
    _run(kernel, logits, target, weight, *scalars, loss, grad)
    _check_result(logits, loss, target)
    return SoftmaxCrossEntropyGrad(loss, grad)


class KLDivergenceGrad(NamedTuple):
    """Losses (n_samples,), and the gradient of their sum with respect to the logits (n_samples, n_classes)."""

    loss: np.ndarray
    logits: np.ndarray


def _check_divergence(logits, target, sample_weight, temperature):
    """Arguments of a divergence as its kernel takes them."""
    logits = _check_logits(logits)
    target = check_probabilities(target, logits.shape, logits.dtype)
    weight = check_sample_weight(sample_weight, len(logits), logits.dtype)
    return logits, target, weight, check_temperature(temperature, logits.dtype)


def kl_divergence(logits, target, *, temperature=1.0, sample_weight=None):
    """Kullback-Leibler divergence of the softmax of logits from target probabilities, a value per row.

    ``sum(t * (log t - log softmax(logits / T)))``: the cross-entropy less the entropy of the target, but as accurate
    where the two are nearly equal, and never negative. Its gradient is that of :func:`softmax_cross_entropy`.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Scores. ``-inf`` masks a class.
    target : array-like of shape (n_samples, n_classes)
        Probabilities: not negative, with sum 1 in each row. A class of probability 0 adds 0, masked or not.
    temperature : float, default=1.0
        The logits are divided by it; the target is taken as it is.
    sample_weight : array-like of shape (n_samples,), default=None
        Factors of the losses, not negative and not all zero. None stands for ones.

    Returns
    -------
    loss : ndarray of shape (n_samples,)
        In nats; float32 if ``logits`` is, float64 otherwise.

    Raises
    ------
    ValueError
        If logits have the wrong shape, are empty, NaN or +inf, if a row has no finite logit, if a target has mass on a
        masked class or is not a probability distribution, or if a weight or the temperature is out of range.
    TypeError
        If an argument is not made of real numbers.

    See Also
    --------
    kl_divergence_grad : The same with the gradient, in one pass.

    References
    ----------
    S. Kullback, R. A. Leibler, "On Information and Sufficiency", Annals of Mathematical Statistics 22, 1951.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.functional import kl_divergence
    >>> kl_divergence(np.log([[1.0, 1.0, 2.0], [1.0, 1.0, 2.0]]), [[0.25, 0.25, 0.5], [0.0, 0.0, 1.0]]).round(4)
    array([0.    , 0.6931])
    """
    logits, target, weight, beta = _check_divergence(logits, target, sample_weight, temperature)
    loss = np.empty(len(logits), logits.dtype)
    kernel = divergence.narrow_kl_divergence if logits.shape[1] <= _NARROW else divergence.kl_divergence
    _run(kernel, logits, target, weight, beta, loss)
    _check_result(logits, loss, target)
    return loss


def kl_divergence_grad(logits, target, *, temperature=1.0, sample_weight=None):
    """Divergences of :func:`kl_divergence` and the gradient of their sum, in one pass over each row.

    The gradient is ``w / T * (softmax(logits / T) - target)``: it carries one factor 1 / T, and where the target was
    softened by T as well another one is in the difference. Multiply loss and gradient by T squared to mix them with a
    loss of hard labels in proportions that do not depend on T (Hinton et al., 2015).

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Scores. ``-inf`` masks a class, whose gradient is 0.
    target : array-like of shape (n_samples, n_classes)
        Probabilities: not negative, with sum 1 in each row. A class of probability 0 adds 0, masked or not.
    temperature : float, default=1.0
        The logits are divided by it; the target is taken as it is.
    sample_weight : array-like of shape (n_samples,), default=None
        Factors of the losses and of their gradients, not negative and not all zero. None stands for ones.

    Returns
    -------
    loss : ndarray of shape (n_samples,)
        In nats; float32 if ``logits`` is, float64 otherwise.
    logits : ndarray of shape (n_samples, n_classes)
        Gradient of ``loss.sum()`` with respect to the logits, of the same type. The two are fields of a named tuple.

    Raises
    ------
    ValueError, TypeError
        As :func:`kl_divergence`.

    References
    ----------
    G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531, 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.functional import kl_divergence_grad
    >>> result = kl_divergence_grad(np.log([[1.0, 1.0, 2.0]]), [[0.0, 0.5, 0.5]])
    >>> result.logits
    array([[ 0.25, -0.25,  0.  ]])
    >>> loss, gradient = result
    """
    logits, target, weight, beta = _check_divergence(logits, target, sample_weight, temperature)
    loss, grad = np.empty(len(logits), logits.dtype), empty(logits.shape, logits.dtype)
    narrow = logits.shape[1] <= _NARROW
    kernel = divergence.narrow_kl_divergence_grad if narrow else divergence.kl_divergence_grad
    _run(kernel, logits, target, weight, beta, loss, grad)
    _check_result(logits, loss, target)
    return KLDivergenceGrad(loss, grad)
