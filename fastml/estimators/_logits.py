"""What a classifier with a softmax over its logits predicts."""

from abc import abstractmethod

import numpy as np

from fastml.functional import binary_cross_entropy, log_softmax, softmax


class LogitPredictions:
    """Predictions of a classifier that has ``classes_`` and ``decision_function``."""

    classes_: np.ndarray

    @abstractmethod
    def decision_function(self, X):
        """Logits of rows (n, n_classes), or (n,) for two classes."""

    def predict(self, X):
        """The most probable class of each row.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            The rows.

        Returns
        -------
        ndarray (n_samples,)
            Labels out of ``classes_``.
        """
        scores = self.decision_function(X)
        best = (scores > 0).astype(np.int64) if scores.ndim == 1 else scores.argmax(axis=1)
        return self.classes_[best]

    def predict_proba(self, X, temperature=1.0):
        """Probabilities of the classes: softmax of the logits divided by ``temperature``.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            The rows.
        temperature : float, default=1.0
            Above 1 softens the probabilities, below 1 sharpens them.

        Returns
        -------
        ndarray (n_samples, n_classes)
            Rows that sum to 1, columns in the order of ``classes_``.
        """
        return softmax(two_sided(self.decision_function(X)), temperature=temperature)

    def predict_log_proba(self, X, temperature=1.0):
        """Logarithms of ``predict_proba``, without its underflow.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            The rows.
        temperature : float, default=1.0
            Above 1 softens the probabilities, below 1 sharpens them.

        Returns
        -------
        ndarray (n_samples, n_classes)
            In nats, at most 0.
        """
        return log_softmax(two_sided(self.decision_function(X)), temperature=temperature)


def two_sided(scores):
    """A logit for each class (n, C): two classes share one (n,), that of the second."""
    return np.column_stack([np.zeros_like(scores), scores]) if scores.ndim == 1 else scores


def log_sigmoid(z):
    """log(1 / (1 + exp(-z))): minus the loss of a target of 1."""
    return -binary_cross_entropy(z, np.ones_like(z))
