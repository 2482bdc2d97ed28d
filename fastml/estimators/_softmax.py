"""Multinomial logistic regression."""

from numbers import Integral, Real

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_random_state

from fastml._sklearn_compat import Interval
from fastml.estimators._linear import LinearClassifier
from fastml.estimators._logits import LogitPredictions
from fastml.estimators._targets import combined_weight, encode_classes
from fastml.kernels._loss_tile import SOFTMAX, settings
from fastml.runtime import thread_count
from fastml.training.sampled_problem import SampledProblem


class SoftmaxClassifier(LogitPredictions, LinearClassifier):
    """Multinomial logistic regression on compiled kernels.

    Minimises ``sum_i w_i CE_i / sum_i w_i + alpha * ((1 - l1_ratio) / 2 * ||coef||^2 + l1_ratio * ||coef||_1)``,
    where CE is the softmax cross-entropy in nats; intercepts are not penalised. The same ``random_state`` gives the
    same bits for any ``n_jobs``.

    Parameters
    ----------
    solver : {"minibatch", "lbfgs"}, default="minibatch"
        "minibatch" steps along the gradient of ``batch_size`` rows at a time: many rows, many classes, rough
        optimum soon. "lbfgs" goes to the optimum with all rows at once.
    optimizer : {"adam", "sgd"} or fastml.optim.Optimizer, default="adam"
        How "minibatch" steps. The names stand for ``Adam(InverseTimeDecay(0.01, 0.003))`` and
        ``SGD(InverseTimeDecay(0.1, 0.003), momentum=0.9)``; pass an instance to set (and search) its parameters.
    alpha : float, default=1e-4
        Strength of the penalty. scikit-learn's ``C`` is ``1 / (alpha * sum of weights)``.
    l1_ratio : float, default=0.0
        Share of the L1 penalty, in [0, 1]; above 0 only with "minibatch", by proximal steps that leave real zeros.
    fit_intercept : bool, default=True
        Whether to learn a constant for each class.
    batch_size : int or None, default=256
        Rows of a step; None takes all of them (plain gradient descent).
    max_iter : int, default=200
        Epochs ("minibatch") or iterations ("lbfgs") at most.
    tol : float, default=1e-4
        "minibatch" stops when ``n_iter_no_change`` epochs in a row did not lower the loss by this much; "lbfgs"
        when no entry of the gradient is larger, nor 10 times larger with features scaled to unit curvature.
    label_smoothing : float, default=0.0
        In [0, 1): share of each target that is spread evenly over all classes.
    n_negatives : int or None, default=None
        Candidate sampling, for very many classes: the target competes with this many classes drawn for each step, and
        with the other classes of the batch, in the place of all. Only with "minibatch" and labels, and below the number
        of classes; batches are taken to be a random choice of rows, so leave ``shuffle`` on. What is learned is the
        same but for noise; ``loss_curve_`` is then the sampled loss, not comparable with that of all classes.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, multiplied into ``sample_weight``.
    early_stopping : bool, default=False
        Hold out ``validation_fraction`` of the rows (stratified), stop when ``n_iter_no_change`` iterations did
        not lower their loss by ``tol``, and keep the parameters that were best on them.
    validation_fraction : float, default=0.1
        Share of rows held out for early stopping, in (0, 1).
    n_iter_no_change : int, default=5
        Patience, in epochs or iterations.
    warm_start : bool, default=False
        Begin at the parameters of the last fit.
    shuffle : bool, default=True
        Visit the rows in a new order each epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of the orders and of the held-out rows.
    n_jobs : int or None, default=None
        Threads. None: what joblib is configured to, otherwise all cores; -1: all cores.
    verbose : int, default=0
        1 prints a line an epoch.

    Attributes
    ----------
    classes_ : ndarray (n_classes,)
        The labels; 0..C-1 where ``y`` was probabilities.
    coef_ : ndarray (n_classes, n_features), or (1, n_features) for two classes
        Coefficients, in the dtype of X.
    intercept_ : ndarray (n_classes,), or (1,)
        Intercepts.
    loss_curve_ : list of float
        Objective (mean loss in nats plus penalties) of each epoch (its running mean) or iteration. With
        ``n_negatives`` its loss is among the sampled classes.
    validation_loss_curve_ : list of float or None
        Mean loss on the held-out rows, in nats, with ``early_stopping``; over all classes also with ``n_negatives``.
    n_iter_ : int
        Epochs or iterations done.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Names of the features, if X had any.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastml import SoftmaxClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = SoftmaxClassifier(solver="lbfgs").fit(X, y)
    >>> classifier.predict(X[:3]), round(classifier.score(X, y), 2)
    (array([0, 0, 0]), 0.98)
    """

    _parameter_constraints = {
        **LinearClassifier._parameter_constraints,
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "n_negatives": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        *,
        solver="minibatch",
        optimizer="adam",
        alpha=1e-4,
        l1_ratio=0.0,
        fit_intercept=True,
        batch_size=256,
        max_iter=200,
        tol=1e-4,
        label_smoothing=0.0,
        n_negatives=None,
        class_weight=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=5,
        warm_start=False,
        shuffle=True,
        random_state=None,
        n_jobs=None,
        verbose=0,
    ):
        super().__init__(
            solver=solver,
            optimizer=optimizer,
            alpha=alpha,
            l1_ratio=l1_ratio,
            fit_intercept=fit_intercept,
            batch_size=batch_size,
            max_iter=max_iter,
            tol=tol,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            warm_start=warm_start,
            shuffle=shuffle,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
        )
        self.label_smoothing = label_smoothing
        self.n_negatives = n_negatives
        self.class_weight = class_weight

    def decision_function(self, X):
        """Logits: ``X @ coef_.T + intercept_``.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            The rows.

        Returns
        -------
        ndarray (n_samples, n_classes), or (n_samples,) for two classes
            For two classes the logit of ``classes_[1]``.
        """
        scores = self._products(X)
        return scores.ravel() if len(self.classes_) == 2 else scores

    def _encode(self, y, dtype, sample_weight, classes=None):
        if issparse(y):
            raise TypeError("y must be dense: pass y.toarray().")
        coded, classes = encode_classes(y, classes, dtype)
        weight = combined_weight(sample_weight, self.class_weight, coded, classes)
        return coded, weight, {"classes_": classes}

    def _strata(self, coded):
        return coded if coded.ndim == 1 else coded.argmax(axis=1)

    def _target(self, coded, dtype):
        return coded

    def _n_outputs(self, target):
        return len(self.classes_)

    def _problem(self, X, coded, weight):
        if self.n_negatives is None:
            return super()._problem(X, coded, weight)
        self._check_sampling(coded)
        seed = check_random_state(self.random_state).randint(2**31)
        options = {"fit_intercept": self.fit_intercept, "n_threads": thread_count(self.n_jobs)}
        arguments = X, coded, weight, len(self.classes_), self._settings(X.dtype)
        return SampledProblem(*arguments, n_negatives=int(self.n_negatives), seed=seed, **options)

    def _check_sampling(self, coded):
        """Raise where a loss of sampled classes would have no meaning."""
        cure, n_classes = "or set n_negatives=None", len(self.classes_)
        if self.solver != "minibatch":
            raise ValueError(f"n_negatives needs solver='minibatch', got {self.solver!r}: change it, {cure}.")
        if coded.ndim == 2:
            raise ValueError(f"n_negatives needs labels, got y with probabilities: pass y.argmax(axis=1), {cure}.")
        if self.label_smoothing > 0:
            raise ValueError(f"n_negatives needs label_smoothing=0, got {self.label_smoothing}: change it, {cure}.")
        if self.n_negatives >= n_classes:
            raise ValueError(
                f"n_negatives={self.n_negatives} must be below the number of classes, {n_classes}: there are no more "
                f"to be drawn beside the target. Lower it, {cure}."
            )

    def _settings(self, dtype):
        keep, spread = 1 - self.label_smoothing, self.label_smoothing / len(self.classes_)
        return settings(dtype, SOFTMAX, keep=keep, spread=spread)

    def _blind_loss(self, problem):
        return np.log(problem.n_outputs)

    def _penalties(self, problem):
        l2, l1 = super()._penalties(problem)
        return (2 * l2, l1) if problem.n_outputs == 2 else (l2, l1)  # two rows that differ by ``coef_`` share its L2

    def _first_intercept(self, coded, weight, known, dtype):
        return np.zeros(len(known["classes_"]), dtype)

    def _inward(self, coef, intercept, known):
        if len(coef) == 1:  # two classes share one logit
            return np.vstack([-coef / 2, coef / 2]), np.concatenate([-intercept / 2, intercept / 2])
        return coef, intercept

    def _outward(self, coef, intercept):
        if len(coef) == 2:
            return coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        return coef, intercept
