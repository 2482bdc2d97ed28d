"""Optimizers: settings are scikit-learn parameters, state is explicit, updates are in place and fused."""

from fastml.optim._base import Optimizer, OptimizerState
from fastml.optim._optimizers import SGD, AdaGrad, Adam, AdamW, RMSProp
from fastml.optim._schedules import (
    Constant,
    CosineDecay,
    ExponentialDecay,
    InverseTimeDecay,
    OneCycle,
    Schedule,
    StepDecay,
)

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Constant",
    "CosineDecay",
    "ExponentialDecay",
    "InverseTimeDecay",
    "OneCycle",
    "Optimizer",
    "OptimizerState",
    "RMSProp",
    "Schedule",
    "StepDecay",
]
