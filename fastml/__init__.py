"""Compiled-kernel machine learning for CPUs, behind scikit-learn's estimators."""

from fastml import functional, optim
from fastml._show_versions import show_versions
from fastml.estimators import SoftmaxClassifier

__version__ = "0.1.0"

__all__ = ["SoftmaxClassifier", "functional", "optim", "show_versions"]
