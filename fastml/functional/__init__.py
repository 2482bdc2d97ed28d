"""Losses, their gradients and the functions around them: arrays in, new arrays out, nothing kept."""

from fastml.functional._activations import sigmoid, sigmoid_grad, tanh, tanh_grad
from fastml.functional._contrastive import info_nce, info_nce_grad
from fastml.functional._folding import folding_score
from fastml.functional._linear_softmax import linear_softmax_cross_entropy, linear_softmax_cross_entropy_grad
from fastml.functional._pointwise import (
    absolute_error,
    absolute_error_grad,
    binary_cross_entropy,
    binary_cross_entropy_grad,
    huber,
    huber_grad,
    squared_error,
    squared_error_grad,
)
from fastml.functional._ranking import (
    average_precision,
    hit_rate,
    ndcg,
    precision,
    recall,
    reciprocal_rank,
)
from fastml.functional._rectifiers import (
    elu,
    elu_grad,
    gelu,
    gelu_grad,
    leaky_relu,
    leaky_relu_grad,
    prelu,
    prelu_grad,
    relu,
    relu_grad,
)
from fastml.functional._sampled import (
    negative_sampling_loss,
    negative_sampling_loss_grad,
    sampled_softmax_cross_entropy,
    sampled_softmax_cross_entropy_grad,
)
from fastml.functional._softmax import (
    kl_divergence,
    kl_divergence_grad,
    log_softmax,
    log_sum_exp,
    softmax,
    softmax_cross_entropy,
    softmax_cross_entropy_grad,
)
from fastml.functional._top_k import top_k

__all__ = [
    "absolute_error",
    "absolute_error_grad",
    "average_precision",
    "binary_cross_entropy",
    "binary_cross_entropy_grad",
    "elu",
    "elu_grad",
    "folding_score",
    "gelu",
    "gelu_grad",
    "hit_rate",
    "huber",
    "huber_grad",
    "info_nce",
    "info_nce_grad",
    "kl_divergence",
    "kl_divergence_grad",
    "leaky_relu",
    "leaky_relu_grad",
    "linear_softmax_cross_entropy",
    "linear_softmax_cross_entropy_grad",
    "log_softmax",
    "log_sum_exp",
    "ndcg",
    "negative_sampling_loss",
    "negative_sampling_loss_grad",
    "precision",
    "prelu",
    "prelu_grad",
    "recall",
    "reciprocal_rank",
    "relu",
    "relu_grad",
    "sampled_softmax_cross_entropy",
    "sampled_softmax_cross_entropy_grad",
    "sigmoid",
    "sigmoid_grad",
    "softmax",
    "softmax_cross_entropy",
    "softmax_cross_entropy_grad",
    "squared_error",
    "squared_error_grad",
    "tanh",
    "tanh_grad",
    "top_k",
]
