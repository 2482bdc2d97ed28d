"""Estimators in scikit-learn's sense; import them from ``fastml``."""

from fastml.estimators._contrastive_embedding import ContrastiveEmbedding
from fastml.estimators._distilled import DistilledClassifier
from fastml.estimators._logistic import LogisticClassifier
from fastml.estimators._mlp_classifier import MLPClassifier
from fastml.estimators._mlp_regressor import MLPRegressor
from fastml.estimators._regressor import LinearRegressor
from fastml.estimators._sampled_mf import SampledMF
from fastml.estimators._softmax import SoftmaxClassifier
from fastml.estimators._two_tower import TwoTower
from fastml.estimators._wals import WALS

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
]
