"""Logistic regression with independent outputs: binary, one-vs-rest, multilabel."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fastml.estimators._linear import LinearClassifier
from fastml.estimators._logits import log_sigmoid
from fastml.estimators._targets import combined_weight, encode_classes, encode_indicators, is_matrix
from fastml.functional import log_softmax, sigmoid, softmax
from fastml.kernels._loss_tile import BINARY_CROSS_ENTROPY, settings
from fastml.training.lbfgs import minimize_lbfgs, minimize_outputs
from fastml.training.linear_problem import LEAST_SHARE


class LogisticClassifier(LinearClassifier):
    """Logistic regression on compiled kernels, with a sigmoid for each output.

    Two classes share one output; of more classes each has its own (one-vs-rest); a matrix of 0 and 1 is multilabel,
    where any number of labels may be true at once. Minimises
    ``sum_i w_i sum_k BCE_ik / sum_i w_i + alpha * ((1 - l1_ratio) / 2 * ||coef||^2 + l1_ratio * ||coef||_1)``, where
    BCE is the binary cross-entropy in nats; intercepts are not penalised. The outputs are trained together in one
    pass over the rows. The same ``random_state`` gives the same bits for any ``n_jobs``.

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
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, multiplied into ``sample_weight``; only for labels (n_samples,).
    early_stopping : bool, default=False
        Hold out ``validation_fraction`` of the rows (stratified by label), stop when ``n_iter_no_change`` iterations
        did not lower their loss by ``tol``, and keep the parameters that were best on them.
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
        The labels; 0..L-1 for multilabel targets.
    multilabel_ : bool
        Whether ``y`` was a matrix.
    coef_ : ndarray (n_outputs, n_features)
        Coefficients, in the dtype of X; one row for two classes, otherwise a row for each class or label.
    intercept_ : ndarray (n_outputs,)
        Intercepts.
    loss_curve_ : list of float
        Objective (mean loss in nats, summed over outputs, plus penalties) of each epoch (its running mean) or
        iteration.
    validation_loss_curve_ : list of float or None
        Mean loss on the held-out rows, in nats, with ``early_stopping``.
    n_iter_ : int
        Epochs or iterations done.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Names of the features, if X had any.

    See Also
    --------
    SoftmaxClassifier : Classes that exclude each other, with probabilities that are trained to sum to 1.

    Notes
    -----
    ``y`` is labels (n_samples,) of any type, or a matrix (n_samples, n_labels), dense or sparse, of values in 0..1:
    1 where a label is true, 0 where not, anything between as a soft target.

    References
    ----------
    Cox: The regression analysis of binary sequences. Journal of the Royal Statistical Society B 20, 1958.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from fastml import LogisticClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), LogisticClassifier(solver="lbfgs", alpha=0.01)).fit(X, y)
    >>> round(model.score(X, y), 2)
    0.99
    """

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
        self.class_weight = class_weight

    def decision_function(self, X):
        """Logits: ``X @ coef_.T + intercept_``.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            The rows.

        Returns
        -------
        ndarray (n_samples, n_outputs), or (n_samples,) for two classes
            For two classes the logit of ``classes_[1]``.
        """
        scores = self._products(X)
        return scores.ravel() if self._is_binary() else scores

    def predict(self, X):
        """The most probable class of each row, or all labels that are more probable than not.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            The rows.

        Returns
        -------
        ndarray (n_samples,), or (n_samples, n_labels) for multilabel targets
            Labels out of ``classes_``; int64 0 and 1 for multilabel targets.
        """
        scores = self.decision_function(X)
        if self.multilabel_:
            return (scores > 0).astype(np.int64)
        best = (scores > 0).astype(np.int64) if scores.ndim == 1 else scores.argmax(axis=1)
        return self.classes_[best]

    def predict_proba(self, X):
        """Probabilities: the sigmoids of the logits; one-vs-rest ones are divided by their sum.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            The rows.

        Returns
        -------
        ndarray (n_samples, n_classes)
            Columns in the order of ``classes_``. Rows sum to 1, except for multilabel targets.
        """
        return sigmoid(self._products(X)) if self._has_labels() else softmax(self._shared_logits(X))

    def predict_log_proba(self, X):
        """Logarithms of ``predict_proba``, without its underflow.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            The rows.

        Returns
        -------
        ndarray (n_samples, n_classes)
            In nats, at most 0.
        """
        return log_sigmoid(self._products(X)) if self._has_labels() else log_softmax(self._shared_logits(X))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _has_labels(self):
        check_is_fitted(self)
        return self.multilabel_

    def _is_binary(self):
        return not self.multilabel_ and len(self.classes_) == 2

    def _shared_logits(self, X):
        """Logits whose softmax is the probability of each class."""
        scores = self._products(X)
        return np.hstack([np.zeros_like(scores), scores]) if self._is_binary() else log_sigmoid(scores)

    def _encode(self, y, dtype, sample_weight, classes=None):
        is_multilabel = is_matrix(y)
        if classes is not None and hasattr(self, "coef_") and is_multilabel != self.multilabel_:
            was = "a matrix of labels" if self.multilabel_ else "labels (n_samples,)"
            raise ValueError(f"y has shape {y.shape}, but earlier calls had {was}: pass the same kind.")
        encode = encode_indicators if is_multilabel else encode_classes
        coded, classes = encode(y, classes, dtype)
        if is_multilabel and self.class_weight is not None:
            raise ValueError("class_weight needs labels (n_samples,), not a matrix of them: use sample_weight.")
        weight = combined_weight(sample_weight, self.class_weight, coded, classes)
        return coded, weight, {"classes_": classes, "multilabel_": is_multilabel}

    def _check_same(self, known):
        super()._check_same(known)
        if known["multilabel_"] != self.multilabel_:
            raise ValueError("warm_start needs the same kind of y: labels (n_samples,), or a matrix as before.")

    def _strata(self, coded):
        return coded if coded.ndim == 1 else None

    def _target(self, coded, dtype):
        if coded.ndim == 2:
            return coded
        outputs = [1] if len(self.classes_) == 2 else np.arange(len(self.classes_))
        return (coded[:, np.newaxis] == outputs).astype(dtype)

    def _settings(self, dtype):
        return settings(dtype, BINARY_CROSS_ENTROPY)

    def _blind_loss(self, problem):
        return problem.n_outputs * np.log(2)

    def _first_intercept(self, coded, weight, known, dtype):
        """The log odds of each output: rare labels need not learn first that they are rare."""
        if coded.ndim == 2:
            share = weight @ coded / weight.sum()
        else:
            counts = np.bincount(coded, weight, len(known["classes_"]))
            share = (counts[1:] if len(counts) == 2 else counts) / counts.sum()
        if not self.fit_intercept:
            return np.zeros(len(share), dtype)
        share = np.clip(share, LEAST_SHARE, 1 - LEAST_SHARE)
        return np.log(share / (1 - share)).astype(dtype)

    def _inward(self, coef, intercept, known):
        return coef, intercept

    def _outward(self, coef, intercept):
        return coef, intercept

    def _minimizer(self, problem):
        return minimize_outputs if problem.n_outputs > 1 else minimize_lbfgs
