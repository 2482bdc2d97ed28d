"""Compiled-kernel machine learning for CPUs, behind scikit-learn's estimators."""

from fastml import display, functional, optim
from fastml._show_versions import show_versions
from fastml.estimators import LinearRegressor, LogisticClassifier, SoftmaxClassifier

__version__ = "0.1.0"

__all__ = [
    "LinearRegressor",
    "LogisticClassifier",
    "SoftmaxClassifier",
    "display",
    "functional",
    "optim",
    "show_versions",
]
