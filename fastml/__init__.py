"""Compiled-kernel machine learning for CPUs, behind scikit-learn's estimators."""

from fastml import datasets, display, functional, optim
from fastml._show_versions import show_versions
from fastml.estimators import WALS, LinearRegressor, LogisticClassifier, SoftmaxClassifier

__version__ = "0.1.0"

__all__ = [
    "WALS",
    "LinearRegressor",
    "LogisticClassifier",
    "SoftmaxClassifier",
    "datasets",
    "display",
    "functional",
    "optim",
    "show_versions",
]
