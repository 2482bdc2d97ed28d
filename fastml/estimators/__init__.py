"""Estimators in scikit-learn's sense; import them from ``fastml``."""

from fastml.estimators._logistic import LogisticClassifier
from fastml.estimators._regressor import LinearRegressor
from fastml.estimators._softmax import SoftmaxClassifier
from fastml.estimators._wals import WALS

__all__ = ["WALS", "LinearRegressor", "LogisticClassifier", "SoftmaxClassifier"]
