"""Estimators in scikit-learn's sense; import them from ``fastml``."""

from fastml.estimators._softmax import SoftmaxClassifier

__all__ = ["SoftmaxClassifier"]
