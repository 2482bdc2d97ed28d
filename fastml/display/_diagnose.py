"""What the loss curve of a fit says about the fit.

The rules compare losses with each other, so they do not depend on the unit of the loss; only what a classifier that
knows nothing would have is in nats. ``loss[0]`` is where a curve started; what is smaller than ``NEGLIGIBLE`` of it
counts as nothing.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastml.display._loss_curve import _check_has_loss_curve, _fitted_model, _total_loss

MIN_EPOCHS = 5  # a shorter curve has no shape
NEGLIGIBLE = 0.01  # of the starting loss: a change that does not matter
RISE = 0.1  # of the loss before: a rise that the noise of mini-batches does not explain
CLIMB = 0.25  # of all that the loss has fallen: what such rises, the largest left out, may add up to
JUMP = 2.0  # times the highest of the last JUMP_MEMORY losses: a sharp jump
JUMP_MEMORY = 3
BIG_JUMP = 5.0  # likewise, where the loss oscillates too
IGNORANT = 1.05  # times the loss of a model that knows nothing: as good as that
SETTLED = 0.1  # of the fall: a second half that moves less has come to rest
PARTING = 0.1  # of the lowest validation loss: how far it has to rise again
STILL_FALLING = 0.02  # of all that the loss has fallen: its fall in the last quarter of the epochs
MINUTE = 0.001  # of the starting loss: its least fall there
STEADY_EPOCHS = 4  # at least so many have to go down together, lest noise be taken for a fall
LASTING = 0.25  # of their fall: the least that the second half of them has
STEADY = 0.5  # of all the ups and downs there: the least that they have to fall
DEAD = 0.25  # of the units of a layer: how many must be silent


@dataclass(frozen=True)
class Finding:
    """One thing that a loss curve shows.

    Parameters
    ----------
    name : str
        What it is: "non-finite", "dead units", "jump", "oscillating", "stuck", "overfitting" or "still falling".
    message : str
        What was seen, with numbers.
    advice : str
        What to do about it.
    epochs : tuple of int
        The epochs concerned, counted from 1 as on the axis of :class:`LossCurveDisplay`; none for dead units, of which
        only the end is known.
    """

    name: str
    message: str
    advice: str
    epochs: tuple[int, ...]

    def __str__(self):
        return f"{self.name}: {self.message} {self.advice}"


class _Curves(NamedTuple):
    """What the rules look at: losses, validation losses or None, number of classes (1: unknown), epochs allowed."""

    loss: np.ndarray
    validation: np.ndarray | None
    n_classes: int
    max_iter: int


def diagnose(estimator):
    """Read the loss curve of a fitted estimator: what went wrong, and what to do about it.

    Parameters
    ----------
    estimator : estimator
        Fitted, with ``loss_curve_`` and perhaps ``validation_loss_curve_``; of a pipeline its last step, of a search
        its best estimator.

    Returns
    -------
    findings : list of Finding
        Empty when nothing is wrong. ``print`` of a finding gives its name, what was seen and an advice.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    TypeError
        If it does not record its loss.

    See Also
    --------
    LossCurveDisplay : Draws the curves.

    Notes
    -----
    A change is negligible below 1 % of the starting loss, the first of the curve. The rules, in this order:

    - **non-finite**: a loss is NaN or infinite. Nothing else is looked at then. ``fit`` of this library raises a
      ValueError instead; curves of your own loops and of other estimators may show it.
    - **dead units**: at least a quarter of the units of a hidden layer of ReLUs gave 0 for every training row. No
      gradient reaches them, so they never come back. Known of networks of this library (``silent_units_``).
    - **jump**: one epoch doubles the highest of the three losses before, not negligibly; of a curve that oscillates
      only where it is five times that.
    - **oscillating**: rises of more than 10 % from one epoch to the next, and not negligible ones, add up to a quarter
      of all that the loss has fallen even without the largest; or the loss never comes down to its start again; or,
      of a classifier, it stays above ``n_classes * log(2)``, which neither a softmax nor a sum of sigmoids has that
      knows nothing.
    - **stuck**: neither of these, and the lowest loss is only negligibly below the start; or the second half of the
      curve of a classifier lies from 0.99 to 1.05 ``log(n_classes)``, the loss of a model that knows nothing. Excepted
      from the first are curves whose second half moves by at most a tenth of the fall, as they have arrived, and
      classifiers below 0.99 ``log(n_classes)``, as they learned within the first epoch. The number of classes is not
      used where more than two outputs are independent, as in one-vs-rest.
    - **overfitting**: in the second half of the epochs after its lowest value the validation loss (its median) is at
      least 10 % above it, not negligibly, while the training loss (its median) has fallen. Not where ``fit`` ended
      before ``max_iter``: then early stopping has seen to it.
    - **still falling**: none of these but dead units, and in the last quarter of the epochs the watched loss (of
      validation if there is one) fell by more than 2 % of all that it has fallen and 0.1 % of its start, and steadily:
      in these epochs, or the last four where they are fewer, the fall is at least half of all the ups and downs, and
      the second half has at least a quarter of it.

    Curves of fewer than 5 epochs are only searched for values that are not finite; dead units are told of any. Scores,
    such as scikit-learn's ``validation_scores_``, are not looked at. A curve of ``partial_fit`` is a value a call, each
    of other rows: where the calls are small its noise may look like oscillation.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastml import SoftmaxClassifier
    >>> from fastml.display import diagnose
    >>> X, y = load_iris(return_X_y=True)
    >>> diagnose(SoftmaxClassifier(solver="lbfgs").fit(X, y))
    []
    >>> [finding.name for finding in diagnose(SoftmaxClassifier(max_iter=10, random_state=0).fit(X, y))]
    ['still falling']
    """
    model = _fitted_model(estimator)
    _check_has_loss_curve(model)
    curves = _curves(model)
    broken, dead = _non_finite(curves), _dead_units(model)
    known = [finding for finding in (broken or dead,) if finding]
    if broken or len(curves.loss) < MIN_EPOCHS:
        return known
    oscillating = _oscillating(curves)
    jump = _jump(curves, BIG_JUMP if oscillating else JUMP)
    stuck = None if oscillating or jump else _stuck(curves)
    findings = [finding for finding in (jump, oscillating, stuck, _overfitting(curves)) if finding]
    falling = None if findings else _still_falling(curves)
    return known + ([falling] if falling else findings)


def _curves(model):
    validation = getattr(model, "validation_loss_curve_", None)
    classes = getattr(model, "classes_", None)
    n_classes = len(classes) if isinstance(classes, np.ndarray) and classes.ndim == 1 else 1
    if hasattr(model, "multilabel_") and n_classes > 2:
        n_classes = 1  # a sum over independent outputs: what it is without knowledge depends on the data
    return _Curves(
        _total_loss(model),
        None if validation is None or len(validation) == 0 else np.asarray(validation, np.float64),
        n_classes,
        getattr(model, "max_iter", None) or 0,
    )


def _non_finite(curves):
    parts = {"loss": curves.loss, "validation loss": curves.validation}
    for part, curve in parts.items():
        bad = () if curve is None else _numbered(~np.isfinite(curve))
        if bad:
            return Finding(
                "non-finite",
                f"The {part} is NaN or infinite in {_listed(bad)}.",
                "Look for NaN, infinities and a burst of outliers in the data; lower the learning rate.",
                bad,
            )
    return None


def _dead_units(model):
    shares = getattr(model, "silent_units_", None) or []
    parts = [f"{share:.0%} in hidden layer {layer}" for layer, share in enumerate(shares, 1) if share > 0]
    if max(shares, default=0) < DEAD:
        return None
    return Finding(
        "dead units",
        f"Units that gave 0 for every training row: {', '.join(parts)}.",
        "First lower the learning rate and scale the features; else take activation='leaky_relu', start with "
        "init='he', or set batch_norm=True.",
        (),
    )


def _oscillating(curves):
    loss = curves.loss
    rise = np.diff(loss)
    is_large = (rise > RISE * loss[:-1]) & (rise > NEGLIGIBLE * loss[0])
    large, climb = _numbered(is_large, first=2), rise[is_large].sum() - rise.max()
    advice = "Lower the learning rate, for example to a third; scale the features."
    if len(large) > 1 and climb >= CLIMB * (loss[0] - loss.min()):
        message = f"The loss rose by more than {RISE:.0%} in {len(large)} of {len(loss)} epochs."
        return Finding("oscillating", message, advice, large)
    if loss[1:].min() > (1 + NEGLIGIBLE) * loss[0]:
        return Finding("oscillating", "The loss never came down to its start again.", advice, _all(loss))
    if curves.n_classes > 1 and loss.min() > curves.n_classes * np.log(2):
        message = f"The loss stays above {loss.min():.3g}, more than that of a model that knows nothing."
        return Finding("oscillating", message, advice, _all(loss))
    return None


def _jump(curves, factor):
    loss = curves.loss
    before = np.array([loss[max(i - JUMP_MEMORY, 0) : i].max() for i in range(1, len(loss))])
    is_jump = (loss[1:] >= factor * before) & (loss[1:] - before > NEGLIGIBLE * loss[0])
    jumps = _numbered(is_jump, first=2)
    if not jumps:
        return None
    i = jumps[0] - 1
    return Finding(
        "jump",
        f"The loss jumped from {loss[i - 1]:.3g} to {loss[i]:.3g} in {_listed(jumps[:1])}.",
        "Look for NaN and a burst of outliers in the rows of that time; if there are none, lower the learning rate.",
        jumps,
    )


def _stuck(curves):
    loss, ignorance = curves.loss, np.log(curves.n_classes)
    late = loss[len(loss) // 2 :]
    fall = loss[0] - loss.min()
    has_arrived = fall > 0 and np.ptp(late) <= SETTLED * fall
    learned_at_once = loss.min() < (1 - NEGLIGIBLE) * ignorance
    if curves.n_classes > 1 and late.min() > (1 - NEGLIGIBLE) * ignorance and late.max() < IGNORANT * ignorance:
        message = (
            f"The loss stays near {ignorance:.4g}, that of a model that knows nothing of {curves.n_classes} classes."
        )
    elif fall < NEGLIGIBLE * loss[0] and not has_arrived and not learned_at_once:
        message = f"The loss has hardly moved from its start: {loss[0]:.4g}, and {loss.min():.4g} at its lowest."
    else:
        return None
    return Finding(
        "stuck",
        message,
        "Look for repeated rows and features that say nothing about the target, units that are dead (always 0), and a "
        "learning rate that is far too small.",
        _all(loss),
    )


def _overfitting(curves):
    loss, validation = curves.loss, curves.validation
    if validation is None or len(validation) != len(loss) or len(validation) < curves.max_iter:
        return None
    best = int(validation.argmin())
    late = slice(best + 1 + (len(validation) - best - 1) // 2, None)
    if best > len(validation) - 3 or np.median(loss[late]) >= loss[best]:
        return None
    rise = np.median(validation[late]) - validation[best]
    if rise < PARTING * validation[best] or rise <= NEGLIGIBLE * validation[0]:
        return None
    return Finding(
        "overfitting",
        f"The validation loss has risen from {validation[best]:.3g} in epoch {best + 1} to {validation[-1]:.3g} while "
        "the training loss fell.",
        "Stop early, strengthen the penalty, take a smaller model or more rows.",
        tuple(range(best + 2, len(validation) + 1)),
    )


def _still_falling(curves):
    watched = curves.loss if curves.validation is None else curves.validation
    n_last = max(len(watched) // 4, 1)
    last, longer = watched[-1 - n_last :], watched[-1 - max(n_last, STEADY_EPOCHS) :]
    total, fall = watched[0] - watched.min(), last[0] - last[-1]
    is_steady = longer[0] - longer[-1] >= STEADY * np.abs(np.diff(longer)).sum()
    is_lasting = longer[len(longer) // 2] - longer[-1] >= LASTING * (longer[0] - longer[-1])
    is_real = total > NEGLIGIBLE * watched[0] and fall > max(STILL_FALLING * total, MINUTE * watched[0])
    if not (is_real and is_steady and is_lasting):
        return None
    return Finding(
        "still falling",
        f"The loss still fell from {longer[0]:.4g} to {longer[-1]:.4g} in the last {len(longer) - 1} epochs.",
        "Train longer (raise max_iter; where the fit stopped by itself, lower tol), or raise the learning rate.",
        tuple(range(len(watched) - len(longer) + 2, len(watched) + 1)),
    )


def _all(loss):
    return tuple(range(1, len(loss) + 1))


def _numbered(mask, first=1):
    """Numbers of the epochs where ``mask`` holds; ``first`` is that of its first entry."""
    return tuple(int(i) + first for i in np.flatnonzero(mask))


def _listed(epochs):
    """ "epoch 3", or "3 epochs, first in epoch 7"."""
    return f"epoch {epochs[0]}" if len(epochs) == 1 else f"{len(epochs)} epochs, first in epoch {epochs[0]}"
