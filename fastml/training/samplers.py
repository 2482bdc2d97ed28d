"""Negatives for sampled losses: which classes are drawn, and how often each is expected to be.

A loss over all classes becomes one over a few when those few are drawn at random and each logit is corrected by the
logarithm of its class's expected count among them. A sampler is a choice of distribution, with scikit-learn's
parameters; ``bind`` gives it the classes, and what it returns draws.

With replacement, class c of probability q_c is expected m q_c times among m draws. Without, a class that was drawn
before is drawn again until m are different. The probability to be among them has no closed form then, except for equal
q. We take 1 - (1 - q_c)^t, that of c among t draws with replacement, at the t for which these add up to m. It is exact
for equal q, for m = 1 and for m = all classes; under Zipf's law it is off by some percent for a handful of negatives,
and by less than 1 % from 30 on. TensorFlow's candidate samplers take the same expression at the number of tries that a
draw happened to need: that depends on what was drawn, and makes a new array at each step. With ours one array serves
all steps. In statistics such a draw is called successive sampling; Rosén (*Asymptotic theory for successive sampling
with varying probabilities without replacement*, 1972) shows that such an approximation is exact in the limit.
"""

import math
from abc import ABC, abstractmethod
from numbers import Integral
from typing import NamedTuple

import numpy as np
from sklearn.base import BaseEstimator

from fastml.functional._validate import check_any_floats, check_finite, check_labels
from fastml.kernels import sampling as kernels
from fastml.optim._numbers import check_number
from fastml.runtime import run_blocks, thread_count

_BLOCK = 1 << 15  # draws, or classes of a race: some 100 us of work


class Negatives(NamedTuple):
    """Class ids, (m,) int64, and the logarithm of each class's expected count, (n_classes,) float64."""

    ids: np.ndarray
    log_q: np.ndarray


def _check_integer(value, name, low, high, cure):
    """A Python integer in low..high-1."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an integer, got {value!r}; {cure}.")
    if not low <= value < high:
        raise ValueError(f"{name}: expected an integer in {low}..{high - 1}, got {value}; {cure}.")
    return int(value)


def _check_counts(counts, n_classes):
    """Counts (n_classes,), float64, relative to the largest one: sums and powers of them do not overflow."""
    counts = check_any_floats(counts, "counts").astype(np.float64)
    if counts.shape != (n_classes,):
        raise ValueError(
            f"counts: expected shape ({n_classes},), one count per class, got {counts.shape}; "
            "count with np.bincount(classes, minlength=n_classes)."
        )
    check_finite(counts, "counts")
    if counts.min() < 0:
        worst = int(counts.argmin())
        raise ValueError(f"counts: expected numbers >= 0, got {counts[worst]} for class {worst}; clip or drop them.")
    if not counts.any():
        raise ValueError(f"counts: expected at least one above 0, got {n_classes} zeros; nothing could be drawn.")
    return counts / counts.max()


def _log_miss(probability):
    """log(1 - q), finite also where q is 1 but for rounding."""
    return np.log1p(-np.minimum(probability, 1 - 2**-53))


def _log_of_share(log_miss, n_tries):
    """Logarithm of 1 - (1 - q)^n_tries."""
    return np.log(-np.expm1(n_tries * log_miss))


def _expected_tries(log_miss, n_distinct):
    """The number of draws with replacement among which ``n_distinct`` different classes are expected.

    By Newton's method: the expectation is concave, so that the steps come from the left and never go too far.
    """
    n_tries = float(n_distinct)
    for _ in range(1000):
        share = -np.expm1(n_tries * log_miss)
        step = (n_distinct - share.sum()) / ((share - 1) * log_miss).sum()
        n_tries += step
        if not step > 1e-13 * n_tries:
            break
    return n_tries


class BoundSampler:
    """A sampler that knows its classes; made by ``bind``. It is not changed by drawing, and threads may share it.

    Attributes
    ----------
    n_classes : int
    probability : ndarray of shape (n_classes,), float64
        Of each class in a single draw.
    replacement : bool
    """

    def __init__(self, probability, replacement):
        self.n_classes, self.replacement = len(probability), replacement
        self.probability = probability
        self._n_possible = int(np.count_nonzero(probability))
        self._plan = None, None, None

    def log_expected_count(self, n_negatives):
        """Logarithm of how often each class is expected among so many negatives.

        Parameters
        ----------
        n_negatives : int
            At least 1; without replacement at most the number of classes with positive probability.

        Returns
        -------
        ndarray of shape (n_classes,), float64
            Read-only; -infinity for classes of probability 0. The same array as long as ``n_negatives`` is the same.

        Raises
        ------
        TypeError, ValueError
            If ``n_negatives`` is not an integer, or out of range.
        """
        return self._planned(n_negatives)[2]

    def _planned(self, n_negatives):
        """``n_negatives``, about how many draws with replacement have so many different classes, and ``log_q``."""
        m = _check_integer(n_negatives, "n_negatives", 1, 2**62, "choose how many negatives a step draws")
        plan = self._plan
        if plan[0] != m:
            with np.errstate(divide="ignore"):  # log(0) is -infinity
                n_tries, log_q = self._expectation(m)
            log_q.setflags(write=False)
            self._plan = plan = m, n_tries, log_q
        return plan

    def _expectation(self, m):
        """The expected number of draws, and ``log_q``."""
        if self.replacement:
            return m, math.log(m) + np.log(self.probability)
        if m > self._n_possible:
            raise ValueError(
                f"n_negatives: expected at most {self._n_possible} without replacement, as no more classes have a "
                f"positive probability, got {m}; ask for fewer, or set replacement=True."
            )
        if m == self._n_possible:
            return math.inf, np.where(self.probability > 0, 0.0, -np.inf)
        log_miss = _log_miss(self.probability)
        n_tries = _expected_tries(log_miss[self.probability > 0], m)
        return n_tries, _log_of_share(log_miss, n_tries)


class RandomSampler(BoundSampler):
    """Draws by a counter-based generator: the same seed gives the same bits for any number of threads.

    Attributes
    ----------
    n_classes : int
    probability : ndarray of shape (n_classes,), float64
        Of each class in a single draw.
    replacement : bool
    """

    def __init__(self, probability, replacement):
        super().__init__(probability, replacement)
        if (probability == probability[0]).all():
            self._draw, self._source = kernels.draw_uniform, self.n_classes
        else:
            self._draw, self._source = kernels.draw_alias, np.empty((self.n_classes, 2), np.uint64)
            kernels.fill_alias_table(probability, int(probability.argmax()), self._source)

    def draw(self, n_negatives, seed, step=0):
        """Negatives of a step: a function of the seed and the step, whatever was drawn before.

        Parameters
        ----------
        n_negatives : int
            At least 1; without replacement at most the number of classes with positive probability.
        seed : int
            In 0..2**63-1; an estimator draws it once from its ``random_state``.
        step : int, default=0
            In 0..2**63-1.

        Returns
        -------
        Negatives
            ``ids`` (n_negatives,) int64, in the order of drawing, and ``log_q`` (n_classes,) float64, which is
            ``log_expected_count(n_negatives)``.

        Raises
        ------
        TypeError, ValueError
            If an argument is not an integer, or out of range.
        """
        m, n_tries, log_q = self._planned(n_negatives)
        seed = _check_integer(seed, "seed", 0, 2**63, "draw one with random_state.randint(2**31)")
        step = _check_integer(step, "step", 0, 2**63, "count steps from 0")
        if self.replacement:
            return Negatives(self._numbers(np.empty(m, np.int64), seed, step, 0), log_q)
        if n_tries > self.n_classes:  # the last ones would take long to come up
            return Negatives(self._first_to_arrive(m, seed, step), log_q)
        return Negatives(self._until_distinct(m, int(1.1 * n_tries) + 16, seed, step), log_q)

    def _numbers(self, ids, seed, step, first):
        """Draws number ``first`` and following, with replacement, into ``ids``."""
        _run(self._draw, len(ids), seed, step, first, self._source, ids)
        return ids

    def _until_distinct(self, m, n_tries, seed, step):
        """The first ``m`` different ids of the draws with replacement."""
        ids, seen = np.empty(m, np.int64), np.zeros(self.n_classes, np.bool_)
        tries, first, n_kept = np.empty(n_tries, np.int64), 0, 0
        while n_kept < m:
            self._numbers(tries, seed, step, first)
            n_kept = kernels.keep_new(n_kept, tries, seen, ids)
            first += n_tries
        return ids

    def _first_to_arrive(self, m, seed, step):
        """Distributed as ``_until_distinct``, in time that does not depend on ``m``."""
        arrival = np.empty(self.n_classes)
        with np.errstate(divide="ignore"):
            _run(kernels.race, self.n_classes, seed, step, np.log(self.probability), arrival)
        ids = np.argpartition(arrival, m - 1)[:m]
        return ids[np.argsort(arrival[ids], kind="stable")]


def _run(kernel, n, *args):
    """Blocks of ``kernel``; to ask joblib for the number of threads takes longer than a small draw."""
    run_blocks(kernel, n, _BLOCK, thread_count() if n > _BLOCK else 1, *args)


class BatchSampler(BoundSampler):
    """Takes the items of a batch as negatives.

    Attributes
    ----------
    n_classes : int
    probability : ndarray of shape (n_classes,), float64
        Of each class in a row of the batch.
    replacement : bool
    """

    def draw_from(self, batch):
        """Negatives of a step: the items of its rows.

        Parameters
        ----------
        batch : array-like of int of shape (n_rows,)
            Classes, in 0..n_classes-1.

        Returns
        -------
        Negatives
            ``ids``, (n_rows,) int64, or without replacement the different ones of them, ascending; and ``log_q``
            (n_classes,) float64, which is ``log_expected_count(n_rows)``.

        Raises
        ------
        TypeError, ValueError
            If the classes are not integers, out of range, or none.
        """
        if np.ndim(batch) != 1 or len(batch) == 0:
            raise ValueError(f"batch: expected shape (n_rows,), one class per row, got {np.shape(batch)}.")
        ids = check_labels(batch, len(batch), self.n_classes, "batch")
        log_q = self.log_expected_count(len(ids))
        return Negatives(ids.copy() if self.replacement else np.unique(ids), log_q)

    def _expectation(self, m):
        """All rows are looked at, whatever is left of them: there are as many tries as rows."""
        if self.replacement:
            return super()._expectation(m)
        return m, _log_of_share(_log_miss(self.probability), m)


class Sampler(ABC, BaseEstimator):
    """What all samplers share: ``bind``, and the checks of what it is given."""

    _bound_type = RandomSampler

    @abstractmethod
    def _probability(self, n_classes, counts):
        """Probabilities, float64 (n_classes,), given counts that are checked, or None."""

    def bind(self, n_classes, counts=None):
        """Give the sampler its classes.

        Parameters
        ----------
        n_classes : int
            In 1..2**31-1.
        counts : array-like of shape (n_classes,), default=None
            How often each class occurs: numbers >= 0, not all of them 0; whole or not.

        Returns
        -------
        RandomSampler or BatchSampler
            What draws. The sampler itself is left as it is.

        Raises
        ------
        TypeError, ValueError
            If a parameter is out of range; if counts are missing where they are needed, are of the wrong length,
            negative, not finite, or all zero.
        """
        n_classes = _check_integer(n_classes, "n_classes", 1, 2**31, "pass how many classes there are")
        if not isinstance(self.replacement, bool | np.bool_):
            raise TypeError(f"replacement of {self!r} must be True or False, got {self.replacement!r}.")
        counts = None if counts is None else _check_counts(counts, n_classes)
        return self._bound_type(self._probability(n_classes, counts), bool(self.replacement))

    def _needed(self, counts):
        if counts is None:
            raise ValueError(f"counts: {self!r} needs how often each class occurs, got None; use np.bincount(classes).")
        return counts


class UniformSampler(Sampler):
    """Every class is as probable as any other, also one that never occurs; counts do not matter.

    Parameters
    ----------
    replacement : bool, default=True
        Whether a class may be drawn more than once.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.training.samplers import UniformSampler
    >>> negatives = UniformSampler(replacement=False).bind(10).draw(4, seed=0)
    >>> len(set(negatives.ids.tolist())), bool(np.allclose(np.exp(negatives.log_q), 4 / 10))
    (4, True)
    """

    def __init__(self, *, replacement=True):
        self.replacement = replacement

    def _probability(self, n_classes, counts):
        return np.full(n_classes, 1 / n_classes)


class PopularitySampler(Sampler):
    """Classes in proportion to a power of how often they occur; classes that never occur are never drawn.

    Parameters
    ----------
    power : float, default=0.75
        In [0, inf): 1 draws as the data do, 0 makes all classes that occur equally probable; in between rare classes
        are drawn more often than they occur.
    replacement : bool, default=True
        Whether a class may be drawn more than once.

    References
    ----------
    Mikolov et al.: Distributed representations of words and phrases and their compositionality. NeurIPS 2013 (the
    power).

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.training.samplers import PopularitySampler
    >>> bound = PopularitySampler(power=0.5).bind(4, counts=[9, 4, 1, 0])
    >>> bound.probability.round(3)
    array([0.5  , 0.333, 0.167, 0.   ])
    >>> np.bincount(bound.draw(6000, seed=0).ids, minlength=4)
    array([3046, 1973,  981,    0])
    """

    def __init__(self, power=0.75, *, replacement=True):
        self.power = power
        self.replacement = replacement

    def _probability(self, n_classes, counts):
        check_number(self, "power", "[0, inf)")
        counts = self._needed(counts)
        weights = np.where(counts > 0, counts ** float(self.power), 0.0)
        return weights / weights.sum()


class LogUniformSampler(Sampler):
    """Zipf's law over classes sorted by how often they occur: the (k+1)-th has log((k + 2) / (k + 1)) / log(n + 1).

    Counts only sort the classes, equal ones by id; without counts the ids are taken to be sorted, the most frequent
    class first. A class that never occurs is drawn as well.

    Parameters
    ----------
    replacement : bool, default=True
        Whether a class may be drawn more than once.

    Examples
    --------
    >>> from fastml.training.samplers import LogUniformSampler
    >>> LogUniformSampler().bind(3).probability.round(3)
    array([0.5  , 0.292, 0.208])
    >>> LogUniformSampler().bind(3, counts=[1, 10, 5]).probability.round(3)
    array([0.208, 0.5  , 0.292])
    """

    def __init__(self, *, replacement=True):
        self.replacement = replacement

    def _probability(self, n_classes, counts):
        by_rank = np.log1p(1 / np.arange(1.0, n_classes + 1)) / np.log1p(n_classes)
        if counts is None:
            return by_rank
        probability = np.empty(n_classes)
        probability[np.argsort(-counts, kind="stable")] = by_rank
        return probability


class InBatchSampler(Sampler):
    """The items of the batch itself: nothing is drawn, and class c is expected as often as it is among the rows.

    Rows are taken as independent draws from ``counts``. For a batch of m of n shuffled rows the expected counts are
    exact with replacement, and without it within a relative m / 2n.

    Parameters
    ----------
    replacement : bool, default=True
        Whether an item that several rows of the batch have is a negative as many times, or once.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.training.samplers import InBatchSampler
    >>> negatives = InBatchSampler().bind(4, counts=[10, 5, 5, 0]).draw_from([0, 2, 0])
    >>> negatives.ids, np.exp(negatives.log_q)
    (array([0, 2, 0]), array([1.5 , 0.75, 0.75, 0.  ]))
    """

    _bound_type = BatchSampler

    def __init__(self, *, replacement=True):
        self.replacement = replacement

    def _probability(self, n_classes, counts):
        counts = self._needed(counts)
        return counts / counts.sum()
