"""Optimizers: settings are scikit-learn parameters, state is explicit, updates are in place and fused."""

from fastml.optim._optimizers import SGD, Adam, Optimizer, OptimizerState
from fastml.optim._schedules import InverseTimeDecay

__all__ = ["SGD", "Adam", "InverseTimeDecay", "Optimizer", "OptimizerState"]
