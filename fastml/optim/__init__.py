"""Optimizers: settings are scikit-learn parameters, state is explicit, updates are in place and fused."""

from fastml.optim._optimizers import SGD, Adam, Optimizer, OptimizerState

__all__ = ["SGD", "Adam", "Optimizer", "OptimizerState"]
