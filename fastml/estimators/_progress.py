"""The watch over a fit that lowers an objective epoch by epoch and may be scored on held-out users."""

import math

from fastml.training.wals import Factors


class Progress:
    """Told of each epoch, it keeps the curves and the factors worth keeping, and says when to stop.

    Parameters
    ----------
    estimator : FactorModel
        A ``FactorTraining``, whose ``tol``, ``n_iter_no_change`` and ``verbose`` are followed.
    score : callable or None
        ``factors -> score`` of held-out users; the best factors are then kept, else the last ones.

    Attributes
    ----------
    whole : tuple (list of (parts, score), Factors or None)
        The epochs done and what is kept of them, set in one step: an interrupt finds it whole.
    """

    def __init__(self, estimator, score):
        self.estimator, self.score = estimator, score
        self.whole, self.best_score, self.stale = ([], None), -math.inf, 0

    def record(self, parts, factors: Factors):
        """Take in one more epoch, by the parts of its objective; returns whether it is time to stop.

        Raises
        ------
        ValueError
            If the objective is not finite.
        """
        history, kept = self.whole
        name = type(self.estimator).__name__
        if not math.isfinite(sum(parts)):
            raise ValueError(
                f"{name}: the objective is not finite after epoch {len(history) + 1}, {parts}. {self.estimator._cure}"
            )
        score = None if self.score is None else self.score(factors)
        if score is None or score > self.best_score:
            kept = factors
        self.whole = [*history, (parts, score)], kept
        if self.estimator.verbose:
            print(f"{name}: epoch {len(history) + 1}, {_line(self.estimator._parts, *self.whole[0][-1])}", flush=True)
        return self._has_settled(sum(parts), history) if score is None else self._is_stale(score)

    def _has_settled(self, objective, history):
        """Whether the objective fell by less than ``tol`` of it."""
        before = sum(history[-1][0]) if history else math.inf
        return self.estimator.tol > 0 and before - objective < self.estimator.tol * before

    def _is_stale(self, score):
        """Whether the score has not risen for long enough."""
        self.stale = 0 if score > self.best_score else self.stale + 1
        self.best_score = max(score, self.best_score)
        return self.stale >= self.estimator.n_iter_no_change


def _line(names, parts, score):
    """The objective, its parts, and the score, for people who wait."""
    named = ", ".join(f"{name} {part:.6g}" for name, part in zip(names, parts, strict=True))
    line = f"objective {sum(parts):.6g} ({named})"
    return line if score is None else f"{line}, validation score {score:.4f}"
