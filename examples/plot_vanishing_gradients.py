"""
Vanishing gradients and dying units
===================================

Backpropagation multiplies by the slope of the activation in each layer. A sigmoid has a slope of 1/4 at most, so little
of the gradient is left for the first layers of a deep network. A ReLU has a slope of 1 or of 0: its gradient does not
fade, but a unit that gives 0 for every row gets none at all, and stays dead.
"""

# %%
# How large the gradients are
# ---------------------------
#
# A network of twelve hidden layers that has not learned yet, and the gradient of its cross-entropy on 512 rows, by
# real backpropagation. What is drawn is the norm of each layer's gradient relative to that of its coefficients, on
# average over five networks.

import itertools
import warnings

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from fastml import MLPClassifier
from fastml.display import diagnose
from fastml.functional import softmax_cross_entropy_grad
from fastml.optim import SGD
from fastml.training.network import Network

rng = np.random.default_rng(0)
X, y = rng.standard_normal((512, 32)), rng.integers(10, size=512)
sizes = (32, *[64] * 12, 10)


def gradient_norms(seed, **settings):
    """For each layer the norm of the gradient over that of the coefficients."""
    network = Network(sizes, dtype=X.dtype, **settings)
    values, grad = network.start("auto", seed), np.empty(network.n_trained)
    forward = network.forward(X, values)
    network.backward(forward, softmax_cross_entropy_grad(forward.output, y).logits / len(y), grad)
    ends = np.cumsum([n_in * n_out for n_in, n_out in itertools.pairwise(sizes)])
    parts = zip(np.split(grad[: ends[-1]], ends[:-1]), np.split(values[: ends[-1]], ends[:-1]), strict=True)
    return [np.linalg.norm(g) / np.linalg.norm(w) for g, w in parts]


networks = {
    "sigmoid": {"activation": "sigmoid"},
    "tanh": {"activation": "tanh"},
    "ReLU": {"activation": "relu"},
    "sigmoid with batch norm": {"activation": "sigmoid", "batch_norm": True},
}
norms = {name: np.mean([gradient_norms(seed, **s) for seed in range(5)], axis=0) for name, s in networks.items()}

figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
for name, by_layer in norms.items():
    axes.semilogy(range(1, len(by_layer) + 1), by_layer, marker="o", label=name)
axes.set(xlabel="Layer, from features to outputs", ylabel="Gradient / coefficients", title="Twelve hidden layers")
axes.legend()
plt.show()

# %%
# Through twelve sigmoids the gradient of the first layer is a tiny fraction of the last one's: its coefficients hardly
# move while the last layers learn. Tanh and ReLU, with coefficients that begin as Glorot and He say, pass it on, and
# batch norm, which keeps the sums of each unit where the slope is large, helps the sigmoid.

print("first layer's gradient over the last one's")
for name, by_layer in norms.items():
    print(f"  {name:24}{by_layer[0] / by_layer[-1]:.1e}")

# %%
# Units that die
# --------------
#
# The raw pixels of digits, in 0..16, and learning rates from reasonable to far too high. The first large steps put
# units where they give 0 for every row; no gradient reaches them from then on. ``silent_units_`` counts them, and
# :func:`~fastml.display.diagnose` reports them.

warnings.simplefilter("ignore", ConvergenceWarning)
X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
rates = [0.003, 0.01, 0.03, 0.1, 0.2]


def fitted(rate, **settings):
    model = MLPClassifier((64, 64), optimizer=SGD(rate), max_iter=40, random_state=0, **settings)
    return model.fit(X_train, y_train)


models = [fitted(rate) for rate in rates]
shares = np.array([model.silent_units_ for model in models])

figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
places = np.arange(len(rates))
for layer in range(2):
    axes.bar(places + 0.4 * layer - 0.2, shares[:, layer], 0.4, label=f"hidden layer {layer + 1}")
axes.set_xticks(places, rates)
axes.set(xlabel="Learning rate", ylabel="Share of dead units", title="ReLU on raw pixels", ylim=(0, 1))
axes.legend()
plt.show()

# %%
# What ``diagnose`` says of the highest rate:

for finding in diagnose(models[-1]):
    print(finding)

# %%
# And what helps where half of the units of a plain ReLU network die. A leaky ReLU has no dead units, but at a rate that
# is too high it would diverge instead: what has to change is the rate, or the scale of what comes to the units.

cures = {
    "as it is": fitted(0.1),
    "lower learning rate": fitted(0.01),
    "batch norm": fitted(0.1, batch_norm=True),
}
for name, model in cures.items():
    print(f"{name:20} test accuracy {model.score(X_test, y_test):.3f}, dead units {np.mean(model.silent_units_):.0%}")
