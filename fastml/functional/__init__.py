"""Losses, their gradients and the functions around them: arrays in, new arrays out, nothing kept."""

from fastml.functional._linear_softmax import linear_softmax_cross_entropy, linear_softmax_cross_entropy_grad
from fastml.functional._softmax import (
    log_softmax,
    log_sum_exp,
    softmax,
    softmax_cross_entropy,
    softmax_cross_entropy_grad,
)

__all__ = [
    "linear_softmax_cross_entropy",
    "linear_softmax_cross_entropy_grad",
    "log_softmax",
    "log_sum_exp",
    "softmax",
    "softmax_cross_entropy",
    "softmax_cross_entropy_grad",
]
