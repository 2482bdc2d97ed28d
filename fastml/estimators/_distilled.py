"""Knowledge distillation: a small model learns the probabilities of a large one."""

from numbers import Real

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags
from sklearn.utils.validation import check_consistent_length, check_is_fitted, has_fit_parameter

from fastml._sklearn_compat import HasMethods, Interval, fit_context
from fastml.estimators._fitting import unchanged_on_error
from fastml.estimators._logits import LogitPredictions, two_sided
from fastml.estimators._targets import encode_classes, is_matrix
from fastml.functional import softmax


class DistilledClassifier(LogitPredictions, MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
    """A classifier that learns from the probabilities of another one, not from labels alone.

    The probabilities of a teacher tell how alike the classes are, row by row, which labels do not [1]_. With p the
    teacher's probabilities, T the temperature and h the ``hard_weight``, the student is fitted to the soft targets
    ``q = h * onehot(y) + (1 - h) * p^(1/T) / sum(p^(1/T))``: it minimises the mean cross-entropy of q and softmax(u),
    and its own penalties, over its logits u. A logit of the distilled classifier is ``z = T * u``.

    For h = 0 that is the divergence of [1]_, ``KL(p_T || softmax(z / T))`` with both sides at temperature T, less the
    entropy of the target. The probabilities, ``softmax(z)``, are then those of the teacher as far as the student can
    represent them. The factor T^2 of [1]_ is left out, as it only balances gradients against those of a second loss.
    For h > 0 and T > 1 the labels, too, are met at temperature T, by ``softmax(z / T)``, where [1]_ meets them at 1:
    the probabilities become a little more certain than the teacher's.

    Parameters
    ----------
    student : estimator
        A classifier of this library that takes probabilities (n, C) as targets: SoftmaxClassifier, MLPClassifier, or a
        pipeline that ends with one. A clone of it is fitted.
    teacher : estimator
        Any classifier with ``predict_proba``, or else with logits as its ``decision_function``. If it is fitted, it is
        used as it is; else a clone of it is fitted first. ``clone``, and so a search, forgets what a teacher has
        learned: wrap it in ``sklearn.frozen.FrozenEstimator`` to keep it.
    temperature : float, default=2.0
        Above 1 the teacher's small probabilities count more.
    hard_weight : float, default=0.1
        Share of the labels in the targets, in [0, 1].

    Attributes
    ----------
    student_ : estimator
        The fitted student. Its classes are 0..C-1 and its own probabilities are those at ``temperature``.
    teacher_ : estimator
        The fitted teacher.
    classes_ : ndarray (n_classes,)
        The labels.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Names of the features, if X had any.

    References
    ----------
    .. [1] Hinton, Vinyals, Dean: Distilling the knowledge in a neural network, arXiv:1503.02531, 2015.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from fastml import DistilledClassifier, SoftmaxClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> teacher, student = RandomForestClassifier(random_state=0), SoftmaxClassifier(solver="lbfgs")
    >>> model = DistilledClassifier(student, teacher).fit(X, y)
    >>> model.predict(X[:3]), round(model.score(X, y), 2)
    (array([0, 0, 0]), 0.98)
    """

    _parameter_constraints = {
        "student": [HasMethods(["fit", "decision_function"])],
        "teacher": [HasMethods(["fit", "predict_proba"]), HasMethods(["fit", "decision_function"])],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "hard_weight": [Interval(Real, 0, 1, closed="both")],
    }

    def __init__(self, student, teacher, *, temperature=2.0, hard_weight=0.1):
        self.student = student
        self.teacher = teacher
        self.temperature = temperature
        self.hard_weight = hard_weight

    @unchanged_on_error
    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None):
        """Fit the teacher, if it is not fitted, and then the student to its probabilities.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            Rows that teacher and student take.
        y : array-like (n_samples,)
            Labels.
        sample_weight : array-like (n_samples,), default=None
            Weights of the rows, for the student and for a teacher that is to be fitted.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad input, where the classes of a fitted teacher are not those in ``y``, and for a student that does not
            take probabilities as targets; the estimator is then as it was before.
        """
        check_consistent_length(X, y, sample_weight)
        if np.asarray(y).size == 0:
            raise ValueError("X and y have 0 sample(s): rows of at least 2 classes are needed.")
        if is_matrix(y):
            raise ValueError(f"y must be labels (n_samples,), got shape {y.shape}: the teacher gives the soft targets.")
        labels, classes = encode_classes(y, None, np.float64)
        self.teacher_ = self._fitted_teacher(X, y, sample_weight)
        _check_classes(self.teacher_, classes)
        soft = _softened(self.teacher_, X, self.temperature)
        if soft.shape != (len(labels), len(classes)):
            raise ValueError(f"teacher gave probabilities of shape {soft.shape}, not {(len(labels), len(classes))}.")
        target = (1 - self.hard_weight) * soft
        target[np.arange(len(labels)), labels] += self.hard_weight
        self.student_ = _fit("student", clone(self.student), X, target, sample_weight)
        if getattr(_last_step(self.student_), "multilabel_", False):
            name = type(_last_step(self.student)).__name__
            raise ValueError(f"student {name} takes a matrix as independent labels: use a MLP- or SoftmaxClassifier.")
        self.classes_ = classes
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
            if hasattr(self.student_, name):
                setattr(self, name, getattr(self.student_, name))
        return self

    def _fitted_teacher(self, X, y, sample_weight):
        try:
            check_is_fitted(self.teacher)
        except NotFittedError:
            return _fit("teacher", clone(self.teacher), X, y, sample_weight)
        return self.teacher

    def decision_function(self, X):
        """Logits: those of the student times ``temperature``.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            The rows.

        Returns
        -------
        ndarray (n_samples, n_classes), or (n_samples,) for two classes
            For two classes the logit of ``classes_[1]``.
        """
        check_is_fitted(self)
        scores = self.student_.decision_function(X)
        return scores * scores.dtype.type(self.temperature)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        parts = [get_tags(self.student), get_tags(self.teacher)]
        tags.input_tags.sparse = all(part.input_tags.sparse for part in parts)
        tags.input_tags.allow_nan = all(part.input_tags.allow_nan for part in parts)
        return tags


def _last_step(estimator):
    """The model at the end of a pipeline, or ``estimator`` itself."""
    return _last_step(estimator.steps[-1][1]) if hasattr(estimator, "steps") else estimator


def _fit(role, estimator, X, y, sample_weight):
    """``estimator``, fitted; the last step of a pipeline gets the weights."""
    if sample_weight is None:
        return estimator.fit(X, y)
    if not has_fit_parameter(_last_step(estimator), "sample_weight"):
        name = type(_last_step(estimator)).__name__
        raise ValueError(f"{role} {name} takes no sample_weight: leave the weights out, or fit a teacher beforehand.")
    prefix, step = "", estimator
    while hasattr(step, "steps"):
        name, step = step.steps[-1]
        prefix += f"{name}__"
    return estimator.fit(X, y, **{f"{prefix}sample_weight": sample_weight})


def _check_classes(teacher, classes):
    if not np.array_equal(teacher.classes_, classes):
        raise ValueError(
            f"teacher has the classes {np.asarray(teacher.classes_)!r}, but y has {classes!r}: the student needs rows "
            "of each of the teacher's classes and of no others."
        )


def _softened(teacher, X, temperature):
    """The teacher's probabilities at this temperature, (n, C) float64; a probability of 0 stays 0."""
    if hasattr(teacher, "predict_proba"):
        with np.errstate(divide="ignore"):
            logits = np.log(np.asarray(teacher.predict_proba(X), np.float64))
    else:
        logits = two_sided(np.asarray(teacher.decision_function(X), np.float64))
    return softmax(logits, temperature=temperature)
