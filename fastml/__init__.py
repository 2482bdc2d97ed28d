"""Compiled-kernel machine learning for CPUs, behind scikit-learn's estimators."""

from fastml import datasets, display, functional, optim
from fastml._show_versions import show_versions
from fastml.estimators import (
    WALS,
    ContrastiveEmbedding,
    DistilledClassifier,
    LinearRegressor,
    LogisticClassifier,
    MLPClassifier,
    MLPRegressor,
    SampledMF,
    SoftmaxClassifier,
    TwoTower,
)

__version__ = "0.1.0"

__all__ = [
    "WALS",
    "ContrastiveEmbedding",
    "DistilledClassifier",
    "LinearRegressor",
    "LogisticClassifier",
    "MLPClassifier",
    "MLPRegressor",
    "SampledMF",
    "SoftmaxClassifier",
    "TwoTower",
    "datasets",
    "display",
    "functional",
    "optim",
    "show_versions",
]
